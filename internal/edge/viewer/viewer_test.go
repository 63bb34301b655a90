package viewer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/httpserver/http1"
	"lapwing.dev/lapwing/internal/httpserver/http2"
	"lapwing.dev/lapwing/internal/state"
)

// sites are those that a test has, by server name.
type sites map[string]Site

func (s sites) Site(name string) (Site, bool) { site, ok := s[name]; return site, ok }

// Proof implements Sites: none asks for any.
func (s sites) Proof(string) *tls.Certificate { return nil }

// record makes a certificate for a name, which signs itself.
func record(t *testing.T, name string) distribution.CertificateRecord {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return distribution.CertificateRecord{
		Format: distribution.Format, ARN: "arn:" + name, Names: []string{name},
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

// front is a server under test.
type front struct {
	*Server
	certificates  *Certificates
	records       *state.Collection[distribution.CertificateRecord]
	plain, secure string
}

func (f *front) put(t *testing.T, c distribution.CertificateRecord) {
	t.Helper()
	item, err := f.records.Put(t.Context(), c.ARN, c)
	if err != nil {
		t.Fatal(err)
	}
	f.applied(item.Revision)
}

func (f *front) applied(revision uint64) {
	for f.certificates.Applied() < revision {
		time.Sleep(time.Millisecond)
	}
}

// open serves a handler by every protocol until the end of the test.
func open(t *testing.T, s sites, l limits, h http.HandlerFunc) *front {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	records, err := distribution.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	byDefault := record(t, "default")
	f := &front{records: records.Certificates}
	f.certificates = NewCertificates(CertificateOptions{
		Sites: s, Records: f.records, Logger: slog.New(slog.DiscardHandler),
		Default: func(name string) (*tls.Certificate, error) {
			pair, err := tls.X509KeyPair([]byte(byDefault.Chain), []byte(byDefault.Key))
			return &pair, err
		},
	})
	t.Cleanup(f.certificates.Close)
	f.Server = newServer(Options{Handler: h, Fast: slow{}, Certificates: f.certificates, Logger: slog.New(slog.DiscardHandler)}, l)
	a, err1 := net.Listen("tcp", "127.0.0.1:0")
	b, err2 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f.plain, f.secure = a.Addr().String(), b.Addr().String()
	ended := make(chan error, 3)
	go func() { ended <- f.Serve(a, false) }()
	go func() { ended <- f.Serve(b, true) }()
	go func() { ended <- f.ServeQUIC(c) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = f.Shutdown(ctx) // what the test has left open is broken off
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

// slow answers nothing at once.
type slow struct{}

func (slow) ServeFast(*http1.Conn, *http1.Head, *http1.Reply) bool { return false }
func (slow) ServeHit(*http2.Head, *http2.Reply) bool               { return false }

// meet makes a handshake for a server name and returns whose certificate there was
// and which protocol was chosen.
func (f *front) meet(name string, versions ...uint16) (subject, protocol string, err error) {
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}} //nolint:gosec
	if len(versions) > 0 {
		config.MinVersion, config.MaxVersion = versions[0], versions[0]
	}
	c, err := tls.Dial("tcp", f.secure, config)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	s := c.ConnectionState()
	return s.PeerCertificates[0].DNSNames[0], s.NegotiatedProtocol, nil
}

func TestCertificateAndProtocolAreThoseOfTheServerName(t *testing.T) {
	own := distribution.Certificate{ARN: "arn:own.example", MinimumProtocol: "TLSv1.2_2021"}
	f := open(t, sites{
		"own.example":    {Certificate: own, HTTP2: true},
		"old.example":    {Certificate: own},
		"plain.example":  {HTTP2: true},
		"strict.example": {Certificate: distribution.Certificate{MinimumProtocol: "TLSv1.3_2025"}},
		"lax.example":    {Certificate: distribution.Certificate{MinimumProtocol: "TLSv1"}},
		"lost.example":   {Certificate: distribution.Certificate{ARN: "arn:nowhere"}},
	}, standard, nil)
	f.put(t, record(t, "own.example"))
	for _, c := range []struct {
		name              string
		version           uint16
		subject, protocol string // empty: refused
	}{
		{"own.example", tls.VersionTLS13, "own.example", "h2"},
		{"own.example", tls.VersionTLS12, "own.example", "h2"},
		{"own.example", tls.VersionTLS11, "", ""},
		{"old.example", tls.VersionTLS13, "own.example", "http/1.1"},
		{"plain.example", tls.VersionTLS13, "default", "h2"},
		{"strict.example", tls.VersionTLS13, "default", "http/1.1"},
		{"strict.example", tls.VersionTLS12, "", ""},
		{"lax.example", tls.VersionTLS10, "default", "http/1.1"},
		{"lost.example", tls.VersionTLS13, "", ""},
		{"unknown.example", tls.VersionTLS13, "default", "h2"},
		{"", tls.VersionTLS13, "default", "h2"},
	} {
		subject, protocol, err := f.meet(c.name, c.version)
		if subject != c.subject || protocol != c.protocol || (err != nil) != (c.subject == "") {
			t.Errorf("%q by %s: %q %q %v, want %q %q", c.name, tls.VersionName(c.version), subject, protocol, err, c.subject, c.protocol)
		}
	}
}

func TestChangesOfCertificatesAreFollowed(t *testing.T) {
	f := open(t, sites{"a.example": {Certificate: distribution.Certificate{ARN: "arn:a.example"}}}, standard, nil)
	expect := func(when, want string) {
		t.Helper()
		if subject, _, err := f.meet("a.example"); subject != want {
			t.Errorf("%s: %q %v, want %q", when, subject, err, want)
		}
	}
	expect("before it is there", "")
	f.put(t, record(t, "a.example"))
	expect("when it is there", "a.example")
	renewed := record(t, "renewed")
	renewed.ARN = "arn:a.example"
	f.put(t, renewed)
	expect("when it is renewed", "renewed")
	broken := renewed
	broken.Key = "none"
	f.put(t, broken)
	expect("when it cannot be used", "renewed")
	item, ok := f.records.Get("arn:a.example")
	if !ok {
		t.Fatal("no record")
	}
	if err := f.records.Delete(t.Context(), "arn:a.example", item.Revision); err != nil {
		t.Fatal(err)
	}
	f.applied(item.Revision + 1)
	expect("when it is gone", "")
}

func TestHTTP3IsForSitesThatHaveIt(t *testing.T) {
	f := open(t, sites{"with.example": {HTTP3: true}, "without.example": {}}, standard, nil)
	for name, want := range map[string]bool{"with.example": true, "without.example": false, "unknown.example": true} {
		c, err := quic.DialAddr(t.Context(), f.secure, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil) //nolint:gosec
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = c.CloseWithError(0, "")
		}
	}
}

// Clients that would send such requests are hard to come by.
func TestHTTP3RequestsThatAreNotUnderstoodAreRefused(t *testing.T) {
	reached := false
	s := New(Options{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }), Logger: slog.New(slog.DiscardHandler)})
	for name, test := range map[string]struct {
		method, host string
		want         int
	}{
		"a host with other characters": {"GET", "a{b", 400},
		"a host with a path":           {"GET", "a/b", 400},
		"CONNECT":                      {"CONNECT", "a:443", 501},
	} {
		r, w := httptest.NewRequest(test.method, "/", http.NoBody), httptest.NewRecorder()
		r.Host, r.ProtoMajor = test.host, 3
		if s.serveHTTP3(w, r); w.Code != test.want || reached {
			t.Errorf("%s: %d, want %d; reached the handler: %v", name, w.Code, test.want, reached)
		}
	}
}

// clients speak each protocol.
func (f *front) clients(t *testing.T) map[string]*http.Client {
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec
	only := func(set func(*http.Protocols)) *http.Client {
		protocols := new(http.Protocols)
		set(protocols)
		transport := &http.Transport{TLSClientConfig: config.Clone(), Protocols: protocols}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	third := &http3.Transport{TLSClientConfig: config.Clone()}
	t.Cleanup(func() { _ = third.Close() })
	return map[string]*http.Client{
		"HTTP/1.1": only(func(p *http.Protocols) { p.SetHTTP1(true) }),
		"HTTP/2.0": only(func(p *http.Protocols) { p.SetHTTP2(true) }),
		"HTTP/3.0": {Transport: third},
	}
}

func TestShutdownLetsRequestsOfEveryProtocolEnd(t *testing.T) {
	began, answer := make(chan struct{}, 3), make(chan struct{})
	f := open(t, nil, standard, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, "done by "+r.Proto)
	})
	got := make(chan error, 3)
	for proto, c := range f.clients(t) {
		go func() {
			r, err := c.Get("https://" + f.secure)
			if err != nil {
				got <- err
				return
			}
			defer r.Body.Close()
			b, err := io.ReadAll(r.Body)
			if string(b) != "done by "+proto {
				err = errors.Join(err, errors.New(string(b)))
			}
			got <- err
		}()
	}
	for range 3 {
		<-began
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Shutdown(t.Context()) }()
	for { // nobody else is let in
		c, err := net.Dial("tcp", f.secure)
		if err != nil {
			break
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
	close(answer)
	for range 3 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Serve(l, true); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestShutdownBreaksOffWhatTakesTooLong(t *testing.T) {
	began := make(chan struct{}, 3)
	f := open(t, nil, standard, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
	})
	got := make(chan error, 3)
	for _, c := range f.clients(t) {
		go func() {
			r, err := c.Get("https://" + f.secure)
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
			}
			got <- err
		}()
	}
	for range 3 {
		<-began
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	for range 3 {
		if err := <-got; err == nil {
			t.Error("a request that was broken off has an answer")
		}
	}
}

func TestUploadsThatStopAreNotWaitedForForLong(t *testing.T) {
	failed := make(chan error, 1)
	limits := standard
	limits.body = 100 * time.Millisecond
	f := open(t, nil, limits, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		failed <- err
	})
	for proto, c := range f.clients(t) {
		in, out := io.Pipe()
		go func() { _, _ = out.Write([]byte("some")) }()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+f.secure, in)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if answer, err := c.Do(r); err == nil {
				_ = answer.Body.Close()
			}
		}()
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", proto, err)
		}
		_ = out.Close()
	}
}

func TestRequestsThatAreNotUnderstoodAreRefused(t *testing.T) {
	f := open(t, nil, standard, nil)
	c, err := net.Dial("tcp", f.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") // HTTP/2 is for TLS only
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 505 ") {
		t.Errorf("%q %v", b, err)
	}
}
