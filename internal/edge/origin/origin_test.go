package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

var loopback = Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

func at(t *testing.T, address string) *distribution.Origin {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return &distribution.Origin{
		ID: "o", DomainName: u.Hostname(), HTTPPort: port, HTTPSPort: port, Protocol: "http-only", ConnectionAttempts: 3,
		ConnectionTimeout: 2 * time.Second, ReadTimeout: 200 * time.Millisecond, KeepaliveTimeout: time.Second,
	}
}

func get(o *distribution.Origin) *Request {
	return &Request{Origin: o, Method: "GET", Path: "/a", Header: http.Header{}}
}

func TestInterimAnswersAreBounded(t *testing.T) {
	c := New(loopback)
	defer c.Close()
	for name, test := range map[string]struct {
		interim []int
		want    Detail // empty: the answer is that of the origin
	}{
		"none":                     {nil, ""},
		"early hints":              {[]int{103, 103, 102}, ""},
		"a 100 Continue unasked":   {[]int{100}, ""},
		"a second 100 Continue":    {[]int{100, 103, 100}, InvalidResponse},
		"interim answers for ever": {slices.Repeat([]int{103}, maxInterim+1), InvalidResponse},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			for _, status := range test.interim {
				fmt.Fprintf(conn, "HTTP/1.1 %d Interim\r\nLink: </a.css>; rel=preload\r\n\r\n", status)
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		}))
		answer, err := c.Do(t.Context(), get(at(t, s.URL)))
		if e, ok := errors.AsType[*Error](err); ok && e.Detail != test.want || ok != (test.want != "") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if answer.StatusCode != 200 || answer.Header["Link"] != nil {
				t.Errorf("%s: %d %v", name, answer.StatusCode, answer.Header)
			}
			_ = answer.Body.Close()
		}
		s.Close()
	}
}

func TestAddressesThatAreNotPublicAreRefused(t *testing.T) {
	g := guard{[]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for address, want := range map[string]bool{
		"127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "10.0.0.1": false, "10.1.2.3": true, "192.168.0.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false, "fd00::1": false, "fe80::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::7f00:1": false, "::ffff:169.254.169.254": false, "168.63.129.16": false, "fe80::1%lo": false,
		"8.8.8.8": true, "2606:4700::1": true,
	} {
		if got := g.allows(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c := New(Options{})
	defer c.Close()
	for _, name := range []string{"127.0.0.1", "localhost"} { // a name leads to the same
		o := at(t, s.URL)
		o.DomainName = name
		_, err := c.Do(t.Context(), get(o))
		if !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Status() != 502 || e.Detail != ConnectError {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASilentOriginIsAskedAgainAndThenGivenUp(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	c := New(loopback)
	defer c.Close()
	_, err := c.Do(t.Context(), get(at(t, s.URL)))
	if e, ok := errors.AsType[*Error](err); !ok || e.Status() != 504 || !e.Timeout() || asked.Load() != 3 {
		t.Errorf("GET: %v after %d requests", err, asked.Load())
	}
	asked.Store(0)
	r := get(at(t, s.URL))
	r.Method, r.Body, r.Length = "POST", strings.NewReader("x"), 1
	_, err = c.Do(t.Context(), r)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status() != 504 || asked.Load() != 1 {
		t.Errorf("POST: %v after %d requests", err, asked.Load())
	}
}

func TestABodyThatStopsComingEndsWithAnError(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		for r.URL.Path == "/drip" && r.Context().Err() == nil {
			time.Sleep(50 * time.Millisecond)
			_, _ = io.WriteString(w, ".")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}))
	defer s.Close()
	c := New(loopback)
	defer c.Close()
	for _, test := range []struct {
		path       string
		completion time.Duration
		want       error
	}{{"/a", 0, errRead}, {"/drip", 500 * time.Millisecond, errCompletion}} {
		o := at(t, s.URL)
		o.ResponseCompletionTimeout = test.completion
		r := get(o)
		r.Path = test.path
		answer, err := c.Do(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if !strings.HasPrefix(string(body), "begin") || !errors.Is(err, test.want) {
			t.Errorf("%s: %q, %v", test.path, body, err)
		}
	}
}

func TestOriginsThatCannotBeReached(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	secure := tlsServer(http.NotFoundHandler())
	defer secure.Close()
	big := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Big", strings.Repeat("x", 40<<10)) }))
	defer big.Close()
	c := New(loopback)
	defer c.Close()
	for _, test := range []struct {
		name   string
		url    string
		change func(o *distribution.Origin)
		detail Detail
	}{
		{"refused", gone.URL, nil, ConnectError},
		{"no such name", plain.URL, func(o *distribution.Origin) { o.DomainName = "nowhere.invalid" }, DNSError},
		{"no TLS", plain.URL, func(o *distribution.Origin) { o.Protocol = "https-only" }, ConnectError},
		{"unknown authority", secure.URL, func(o *distribution.Origin) { o.Protocol = "https-only" }, ConnectError},
		{"large header", big.URL, nil, HeaderTooBig},
	} {
		o := at(t, test.url)
		if test.change != nil {
			test.change(o)
		}
		_, err := c.Do(t.Context(), get(o))
		if e, ok := errors.AsType[*Error](err); !ok || e.Detail != test.detail || e.Status() != 502 {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestAnOriginMayHaveTheCertificateOfTheForwardedHost(t *testing.T) {
	s := tlsServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	defer s.Close()
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c := New(Options{Allow: loopback.Allow, RootCAs: roots})
	defer c.Close()
	o := at(t, s.URL)
	o.Protocol, o.DomainName = "match-viewer", "localhost"
	r := get(o)
	r.Secure = true
	if _, err := c.Do(t.Context(), r); err == nil {
		t.Error("a certificate for another name was accepted")
	}
	r = get(o)
	r.Secure, r.Host = true, "example.com" // what httptest's certificate is for
	answer, err := c.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if b, _ := io.ReadAll(answer.Body); string(b) != "example.com" {
		t.Errorf("%q", b)
	}
}

// tlsServer is httptest's, without word of handshakes that are meant to fail.
func tlsServer(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	return s
}

// signer notes what it was asked to sign.
type signer struct{ service, hash string }

func (s *signer) Sign(_ context.Context, r *http.Request, service, hash string) error {
	s.service, s.hash = service, hash
	r.Header.Set("Authorization", "signed")
	return nil
}

func TestRequestsAreSignedWhereTheOriginSaysSo(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) }))
	defer s.Close()
	for _, test := range []struct {
		name     string
		origin   distribution.Origin
		sent     string
		want     string
		service  string
		withBody bool
		hash     string
	}{
		{"none", distribution.Origin{}, "viewer", "viewer", "", false, ""},
		{"never", distribution.Origin{AccessControl: &distribution.AccessControl{Behavior: "never", Service: "s3"}}, "viewer", "viewer", "", false, ""},
		{"always", distribution.Origin{AccessControl: &distribution.AccessControl{Behavior: "always", Service: "s3"}}, "viewer", "signed", "s3", false, emptyHash},
		{"no-override, signed already", distribution.Origin{AccessControl: &distribution.AccessControl{Behavior: "no-override", Service: "lambda"}}, "viewer", "viewer", "", false, ""},
		{"no-override", distribution.Origin{AccessControl: &distribution.AccessControl{Behavior: "no-override", Service: "lambda"}}, "", "signed", "lambda", false, emptyHash},
		{"identity, with a body", distribution.Origin{AccessIdentity: "E1"}, "", "signed", "s3", true, unsigned},
	} {
		sign := &signer{}
		c := New(Options{Allow: loopback.Allow, Sign: sign})
		o := at(t, s.URL)
		o.AccessControl, o.AccessIdentity = test.origin.AccessControl, test.origin.AccessIdentity
		r := get(o)
		if test.sent != "" {
			r.Header.Set("Authorization", test.sent)
		}
		if test.withBody {
			r.Method, r.Body, r.Length = "PUT", strings.NewReader("x"), 1
		}
		answer, err := c.Do(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if string(b) != test.want || sign.service != test.service || sign.hash != test.hash {
			t.Errorf("%s: %q, %+v", test.name, b, sign)
		}
		c.Close()
	}
}

func TestOwnHostsAreReachedByTheirOwnWay(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host+r.RequestURI) }))
	defer s.Close()
	c := New(Options{Local: func(host string) (Dial, bool) {
		return func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
		}, host == "b.s3.amazonaws.com"
	}})
	defer c.Close()
	o := at(t, s.URL)
	o.DomainName, o.Protocol, o.Path = "b.s3.amazonaws.com", "https-only", "/p"
	r := get(o)
	r.Path, r.Query = "/a%2Fb//c%7E", "x=%"
	answer, err := c.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if b, _ := io.ReadAll(answer.Body); string(b) != "b.s3.amazonaws.com/p/a%2Fb//c%7E?x=%" {
		t.Errorf("the origin was asked for %q", b)
	}
}
