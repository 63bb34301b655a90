package edge

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"regexp"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

func TestOriginsAreToldHowAViewerBeganAndTheOrderOfItsHeaders(t *testing.T) {
	record, alias := certificate(t, "www.example.net")
	made := []string{"cloudfront-viewer-ja3-fingerprint", "cloudfront-viewer-ja4-fingerprint", "cloudfront-viewer-header-order", "cloudfront-viewer-header-count", "cloudfront-viewer-tls"}
	told := make(chan http.Header, 1)
	l := newLocation(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told <- r.Header }), with(func(d *distribution.Distribution) {
		d.Certificate, d.HTTP3 = distribution.Certificate{ARN: record.ARN, MinimumProtocol: "TLSv1.2_2021"}, true
		d.Behaviours[0].TTL = distribution.TTL{}
		d.Behaviours[0].Forward.Headers = distribution.Choice{Mode: distribution.ModeAllAnd, Names: made}
	}))
	if _, err := l.record.Certificates.Put(t.Context(), record.ARN, record); err != nil {
		t.Fatal(err)
	}
	plain, secure, _ := viewers(t, l)
	roots := x509.NewCertPool()
	roots.AddCert(alias.Leaf)
	config := &tls.Config{RootCAs: roots, ServerName: "www.example.net", NextProtos: []string{"http/1.1"}}
	for name, test := range map[string]struct {
		ja4  string
		dial func() (net.Conn, error)
	}{
		"clear text": {`^$`, func() (net.Conn, error) { return net.Dial("tcp", plain.String()) }},
		"TLS":        {`^t13d[0-9]{4}h1_[0-9a-f]{12}_[0-9a-f]{12}$`, func() (net.Conn, error) { return tls.Dial("tcp", secure.String(), config) }},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := test.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nX-B: 1\r\nhost: www.example.net\r\nx-A: 2\r\nX-b: 3\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || answer.StatusCode != 200 {
				t.Fatalf("%+v, %v", answer, err)
			}
			check(t, <-told, test.ja4, "X-B:host:x-A:X-b", "4")
		})
	}
	named := &tls.Config{RootCAs: roots, ServerName: "www.example.net"}
	h2 := new(http.Protocols)
	h2.SetHTTP2(true)
	second, third := &http.Transport{TLSClientConfig: named.Clone(), Protocols: h2, DisableCompression: true}, &http3.Transport{TLSClientConfig: named.Clone()}
	defer second.CloseIdleConnections()
	defer third.Close()
	for name, test := range map[string]struct {
		transport         http.RoundTripper
		ja4, order, count string
	}{
		"HTTP/2": {second, `^t13d[0-9]{4}h2_[0-9a-f]{12}_[0-9a-f]{12}$`, "host:user-agent", "2"},
		"HTTP/3": {third, `^q13d[0-9]{4}h3_[0-9a-f]{12}_[0-9a-f]{12}$`, "", "3"}, // quic-go does not tell the order
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+secure.String()+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "www.example.net"
			answer, err := test.transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			check(t, <-told, test.ja4, test.order, test.count)
		})
	}
}

func check(t *testing.T, h http.Header, ja4, order, count string) {
	t.Helper()
	if got := h.Get("Cloudfront-Viewer-Ja4-Fingerprint"); !regexp.MustCompile(ja4).MatchString(got) {
		t.Errorf("JA4 %q, want %s", got, ja4)
	}
	if got, secure := h.Get("Cloudfront-Viewer-Ja3-Fingerprint"), ja4 != "^$"; regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(got) != secure {
		t.Errorf("JA3 %q, over TLS %v", got, secure)
	}
	if got := h.Get("Cloudfront-Viewer-Header-Order"); got != order {
		t.Errorf("order %q, want %q", got, order)
	}
	if got := h.Get("Cloudfront-Viewer-Header-Count"); got != count {
		t.Errorf("count %q, want %q", got, count)
	}
}
