package edge

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/viewer"
)

// certificate makes one for names, which signs itself.
func certificate(t *testing.T, names ...string) (record distribution.CertificateRecord, pair *tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	record = distribution.CertificateRecord{
		Format: distribution.Format, ARN: "arn:aws:acm:us-east-1:123456789012:certificate/" + names[0], Names: names,
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}
	made, err := tls.X509KeyPair([]byte(record.Chain), []byte(record.Key))
	if err != nil {
		t.Fatal(err)
	}
	return record, &made
}

// viewers serves a location as `lapwing up` does.
func viewers(t *testing.T, l *location) (plain, secure net.Addr, byDefault *tls.Certificate) {
	t.Helper()
	_, byDefault = certificate(t, "*.cloudfront.net")
	certificates := viewer.NewCertificates(viewer.CertificateOptions{
		Sites: l.server, Records: l.record.Certificates, Logger: quiet(),
		Default: func(string) (*tls.Certificate, error) { return byDefault, nil },
	})
	t.Cleanup(certificates.Close)
	front := viewer.New(viewer.Options{Handler: l.server, Fast: l.server, Certificates: certificates, Logger: quiet(), Refusal: Refusal})
	listen := func() net.Listener {
		n, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b := listen(), listen()
	c, err := net.ListenPacket("udp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 3)
	go func() { ended <- front.Serve(a, false) }()
	go func() { ended <- front.Serve(b, true) }()
	go func() { ended <- front.ServeQUIC(c) }()
	t.Cleanup(func() {
		if err := front.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return a.Addr(), b.Addr(), byDefault
}

func TestRequestsAreForTheCertificateOfTheirConnection(t *testing.T) {
	record, _ := certificate(t, "www.example.net")
	l := newLocation(t, answers(200, "hello", "Cache-Control", "max-age=60"), with(func(d *distribution.Distribution) {
		d.HTTP2, d.HTTP3 = true, true
		d.Certificate = distribution.Certificate{ARN: record.ARN, MinimumProtocol: "TLSv1.2_2021"}
	}))
	if _, err := l.record.Certificates.Put(t.Context(), record.ARN, record); err != nil {
		t.Fatal(err)
	}
	other := distribution.Distribution{
		ID: "E2", DomainName: "d2.cloudfront.net", Aliases: []string{"plain.example.net"}, Enabled: true, HTTP2: true,
		Origins: l.server.follow.table.Load().find("www.example.net").d.Origins, Behaviours: l.server.follow.table.Load().find("www.example.net").d.Behaviours,
	}
	item, err := l.record.Distributions.Put(t.Context(), other.ID, other)
	if err != nil {
		t.Fatal(err)
	}
	for l.server.Applied().Distributions < item.Revision {
		time.Sleep(time.Millisecond)
	}
	_, secure, _ := viewers(t, l)
	for _, test := range []struct {
		name, host           string
		first, second, third int
	}{
		{"www.example.net", "www.example.net", 200, 200, 200},
		{"plain.example.net", "www.example.net", 200, 200, 0},     // the account's, too; no HTTP/3 for the name
		{"www.example.net", "plain.example.net", 200, 200, 421},   // whose handshake is refused
		{"elsewhere.example", "www.example.net", 421, 421, 421},   // Lapwing's own certificate
		{"", "www.example.net", 421, 421, 421},                    // likewise
		{"elsewhere.example", "plain.example.net", 200, 200, 421}, // it has no certificate of its own
	} {
		config := &tls.Config{ServerName: test.name, InsecureSkipVerify: true} //nolint:gosec
		h1, h2 := new(http.Protocols), new(http.Protocols)
		h1.SetHTTP1(true)
		h2.SetHTTP2(true)
		third := &http3.Transport{TLSClientConfig: config.Clone()}
		for proto, by := range map[string]struct {
			transport http.RoundTripper
			want      int
		}{
			"HTTP/1.1": {&http.Transport{TLSClientConfig: config.Clone(), Protocols: h1, DisableCompression: true}, test.first},
			"HTTP/2":   {&http.Transport{TLSClientConfig: config.Clone(), Protocols: h2, DisableCompression: true}, test.second},
			"HTTP/3":   {third, test.third},
		} {
			for range 2 { // the second would be a hit
				r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+secure.String()+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = test.host
				got := 0
				if answer, err := by.transport.RoundTrip(r); err == nil {
					got = answer.StatusCode
					_ = answer.Body.Close()
				}
				if got != by.want {
					t.Errorf("%q over a connection for %q by %s: %d, want %d", test.host, test.name, proto, got, by.want)
				}
			}
			if c, ok := by.transport.(*http.Transport); ok {
				c.CloseIdleConnections()
			}
		}
		_ = third.Close()
	}
}

func TestViewersComeByEveryProtocol(t *testing.T) {
	record, alias := certificate(t, "www.example.net")
	l := newLocation(t, answers(200, "hello", "Cache-Control", "max-age=60"), with(func(d *distribution.Distribution) {
		d.HTTP3 = true
		d.Certificate = distribution.Certificate{ARN: record.ARN, MinimumProtocol: "TLSv1.2_2021"}
	}))
	if _, err := l.record.Certificates.Put(t.Context(), record.ARN, record); err != nil {
		t.Fatal(err)
	}
	plain, secure, _ := viewers(t, l)
	roots := x509.NewCertPool()
	roots.AddCert(alias.Leaf)
	config := &tls.Config{RootCAs: roots, ServerName: "www.example.net"}
	h1 := new(http.Protocols)
	h1.SetHTTP1(true)
	h2 := new(http.Protocols)
	h2.SetHTTP2(true)
	quicTransport := &http3.Transport{TLSClientConfig: config.Clone()}
	t.Cleanup(func() { _ = quicTransport.Close() })
	for _, c := range []struct {
		name      string
		at        string
		transport http.RoundTripper
		proto     string
	}{
		{"clear text", "http://" + plain.String(), &http.Transport{}, "HTTP/1.1"},
		{"TLS, HTTP/1.1", "https://" + secure.String(), &http.Transport{TLSClientConfig: config.Clone(), Protocols: h1}, "HTTP/1.1"},
		{"TLS, HTTP/2", "https://" + secure.String(), &http.Transport{TLSClientConfig: config.Clone(), Protocols: h2}, "HTTP/2.0"},
		{"HTTP/3", "https://" + secure.String(), quicTransport, "HTTP/3.0"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", c.at+"/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "www.example.net"
		answer, err := c.transport.RoundTrip(r)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || string(body) != "hello" || answer.Proto != c.proto {
			t.Errorf("%s: %s %q %v", c.name, answer.Proto, body, err)
		}
	}
	if l.requests.Load() != 1 {
		t.Errorf("%d requests to the origin", l.requests.Load())
	}
	if _, err := tls.Dial("tcp", secure.String(), &tls.Config{RootCAs: roots, ServerName: "www.example.net", MaxVersion: tls.VersionTLS11}); err == nil { //nolint:gosec
		t.Error("TLS 1.1 was accepted")
	}
}

func TestAFastAnswerIsTheSameAsASlowOne(t *testing.T) {
	l := newLocation(t, answers(200, "hello", "Cache-Control", "max-age=60", "X-Twice", "a", "X-Twice", "b"))
	plain, _, _ := viewers(t, l)
	l.get("/a")
	slow := l.get("/a")
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+plain.String()+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	if string(body) != slow.body || answer.StatusCode != slow.StatusCode {
		t.Errorf("%d %q", answer.StatusCode, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.logs) > 2 {
		t.Errorf("%d requests have come to ServeHTTP", len(l.logs))
	}
	for _, h := range []http.Header{slow.Header, answer.Header} {
		h.Del("X-Amz-Cf-Id")
		h.Del("Age")
		h.Del("Connection")
	}
	for name := range slow.Header {
		if strings.Join(slow.Header[name], "|") != strings.Join(answer.Header[name], "|") {
			t.Errorf("%s: %q and %q", name, slow.Header[name], answer.Header[name])
		}
	}
	if len(slow.Header) != len(answer.Header) {
		t.Errorf("%v\n%v", slow.Header, answer.Header)
	}
}

func TestObjectsAreCompressedOnTheirWayIntoTheCache(t *testing.T) {
	text := strings.Repeat("compressible ", 500)
	l := newLocation(t, answers(200, text, "Content-Type", "text/plain", "Etag", `"e"`, "Content-Length", "6500"), with(func(d *distribution.Distribution) {
		b := &d.Behaviours[0]
		b.Compress, b.AcceptGzip, b.AcceptBrotli = true, true, true
	}))
	for i, want := range []string{"Miss", "Hit"} {
		r := l.do("GET", "/a.txt", http.Header{"Accept-Encoding": {"gzip"}})
		l.expect(r, 200, want, 1)
		if r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Etag") != `W/"e"` || len(r.body) > 500 {
			t.Errorf("%d: %v, %d bytes", i, r.Header, len(r.body))
		}
		z, err := gzip.NewReader(bytes.NewReader([]byte(r.body)))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(z); err != nil || string(plain) != text {
			t.Errorf("%d bytes, %v", len(plain), err)
		}
	}
	if r := l.get("/a.txt"); r.Header.Get("Content-Encoding") != "" || r.body != text || r.cache() != "Miss" {
		t.Errorf("without Accept-Encoding: %s %v", r.cache(), r.Header)
	}
	for coding, accept := range map[string]string{"br": "gzip, deflate, br, zstd", "zstd": "zstd"} {
		if r := l.do("GET", "/a.txt", http.Header{"Accept-Encoding": {accept}}); r.Header.Get("Content-Encoding") != coding {
			t.Errorf("%s: %v", accept, r.Header)
		}
	}
}
