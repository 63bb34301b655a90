package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/httpserver/http1"
	"lapwing.dev/lapwing/internal/httpserver/http2"
)

// counting tells how many requests the fast path answers.
type counting struct {
	*Server
	fast atomic.Int32
}

func (c *counting) ServeFast(conn *http1.Conn, h *http1.Head, r *http1.Reply) bool {
	ok := c.Server.ServeFast(conn, h, r)
	if ok {
		c.fast.Add(1)
	}
	return ok
}

func (c *counting) ServeHit(h *http2.Head, r *http2.Reply) bool {
	ok := c.Server.ServeHit(h, r)
	if ok {
		c.fast.Add(1)
	}
	return ok
}

// ask exchanges a request, as HTTP/1.1 has it, for an answer.
type ask func(request string) *reply

// streams serves the location as viewers reach it by HTTP/2.
func streams(t *testing.T, l *location) (*counting, ask) {
	t.Helper()
	c := &counting{Server: l.server}
	s := &http2.Server{Handler: l.server, Fast: c, Logger: quiet()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, own := certificate(t, host)
	secure := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*own}, NextProtos: []string{"h2"}})
	go func() {
		for {
			conn, err := secure.Accept()
			if err != nil {
				return
			}
			go func() {
				if conn.(*tls.Conn).HandshakeContext(context.Background()) == nil {
					s.ServeConn(t.Context(), conn)
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = secure.Close(); s.Close() })
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: protocols, DisableCompression: true} //nolint:gosec
	t.Cleanup(transport.CloseIdleConnections)
	return c, func(request string) *reply {
		t.Helper()
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(request, "\n", "\r\n") + "\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Scheme, r.URL.Host, r.RequestURI = "https", listener.Addr().String(), ""
		r.Header["User-Agent"] = nil
		answer, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return &reply{answer, string(body)}
	}
}

// raw serves the location as viewers reach it by HTTP/1.1, all requests on one
// connection.
func raw(t *testing.T, l *location) (*counting, ask) {
	t.Helper()
	c := &counting{Server: l.server}
	s := &http1.Server{Handler: l.server, Fast: c, Logger: quiet()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(func() { _ = s.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	br := bufio.NewReader(conn)
	return c, func(request string) *reply {
		t.Helper()
		request = strings.ReplaceAll(request, "\n", "\r\n") + "\r\n\r\n"
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(request, " ")
		answer, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return &reply{answer, string(body)}
	}
}

func TestFastPathAnswersAsThePipelineDoes(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "max-age=3600")
		h["X-Two"] = []string{"a", "b"}
		h.Set("Etag", `"e"`)
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(404)
		case "/moved":
			h.Set("Location", "/a")
			w.WriteHeader(301)
		}
		fmt.Fprintf(w, "body of %s %s", r.RequestURI, r.Header.Get("Accept-Encoding"))
	}), with(func(d *distribution.Distribution) {
		d.DefaultRootObject, d.HTTP3 = "index.html", true
		b := &d.Behaviours[0]
		b.AcceptGzip, b.AcceptBrotli = true, true
		b.Key.Query = distribution.Choice{Mode: distribution.ModeAll}
	}))
	l.server.altSvc, l.server.options.AltSvc = []string{`h3=":443"`}, `h3=":443"`
	t.Run("HTTP/1.1", func(t *testing.T) { fastAndSlow(t, l, raw) })
	t.Run("HTTP/2", func(t *testing.T) { fastAndSlow(t, l, streams) })
	c, ask := raw(t, l)
	if got := ask("GET http://" + host + "/a HTTP/1.1\nHost: x").StatusCode; got != 200 || c.fast.Load() != 0 {
		t.Errorf("the absolute form: %d, %d answered fast", got, c.fast.Load())
	}
}

func fastAndSlow(t *testing.T, l *location, open func(*testing.T, *location) (*counting, ask)) {
	c, ask := open(t, l)
	for _, request := range []string{
		"GET /a HTTP/1.1\nHost: " + host,
		"GET /a HTTP/1.1\nHost: " + strings.ToUpper(host) + ":80",
		"GET /a?b=c HTTP/1.1\nHost: " + host,
		"GET /a HTTP/1.1\nHost: " + host + "\nAccept-Encoding: gzip, br",
		"GET / HTTP/1.1\nHost: " + host,
		"GET /moved HTTP/1.1\nHost: www.example.net",
		"HEAD /a HTTP/1.1\nHost: " + host,
	} {
		ask(request)
		l.server.fetches.Wait() // the viewer has it a moment before it is stored
		before := c.fast.Load()
		fast := ask(request)
		if c.fast.Load() != before+1 {
			t.Errorf("%q was not answered fast", request)
			continue
		}
		slow := ask(request + "\nVia: 1.1 x") // a field that the fast path does not know
		if c.fast.Load() != before+1 {
			t.Fatalf("%q with Via was answered fast", request)
		}
		for _, r := range []*reply{fast, slow} {
			r.Header.Del("X-Amz-Cf-Id")
			r.Header.Del("Date")
			r.Header.Del("Age")
		}
		if fast.StatusCode != slow.StatusCode || fast.body != slow.body || fast.ContentLength != slow.ContentLength {
			t.Errorf("%q: %d %q, by the pipeline %d %q", request, fast.StatusCode, fast.body, slow.StatusCode, slow.body)
		}
		if f, s := headerText(fast.Header), headerText(slow.Header); f != s {
			t.Errorf("%q:\n%s\nby the pipeline:\n%s", request, f, s)
		}
	}
	before := c.fast.Load()
	for request, want := range map[string]int{
		"GET /missing HTTP/1.1\nHost: " + host:                             404,
		"GET /a HTTP/1.1\nHost: " + host + "\nIf-None-Match: \"e\"":        304,
		"GET /a HTTP/1.1\nHost: " + host + "\nRange: bytes=0-1":            206,
		"GET /a HTTP/1.1\nHost: other.example":                             403,
		"OPTIONS /a HTTP/1.1\nHost: " + host:                               403,
		"GET /a HTTP/1.1\nHost: " + host + "\nContent-Length: 0\nRANGE: x": 200,
	} {
		ask(request)
		if got := ask(request).StatusCode; got != want {
			t.Errorf("%q: %d, want %d", request, got, want)
		}
	}
	if c.fast.Load() != before {
		t.Errorf("%d were answered fast that are not plain", c.fast.Load()-before)
	}
}

func headerText(h http.Header) string {
	var lines []string
	for name, v := range h {
		lines = append(lines, fmt.Sprint(name, v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestFastPathIsOnlyForPlainBehaviours(t *testing.T) {
	for name, change := range map[string]func(*distribution.Distribution){
		"a geographic restriction": func(d *distribution.Distribution) {
			d.Geo = distribution.GeoRestriction{Mode: "blacklist", Countries: []string{"CH"}}
		},
		"a header in the key": func(d *distribution.Distribution) {
			d.Behaviours[0].Key.Headers = distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"x-a"}}
		},
		"cookies in the key": func(d *distribution.Distribution) {
			d.Behaviours[0].Key.Cookies = distribution.Choice{Mode: distribution.ModeAll}
		},
		"a response headers policy": func(d *distribution.Distribution) {
			d.Behaviours[0].ResponseHeaders = &distribution.ResponseHeaders{ServerTiming: -1}
		},
		"HTTPS only":          func(d *distribution.Distribution) { d.Behaviours[0].ViewerProtocol = "https-only" },
		"a redirect to HTTPS": func(d *distribution.Distribution) { d.Behaviours[0].ViewerProtocol = "redirect-to-https" },
		"standard logs":       func(d *distribution.Distribution) { d.Logging.Bucket = "logs" },
		"a function before the viewer": func(d *distribution.Distribution) {
			d.Behaviours[0].Viewer = map[distribution.EventType]string{distribution.ViewerResponse: "arn"}
		},
		"signatures":                    func(d *distribution.Distribution) { d.Behaviours[0].Signers = []distribution.PublicKey{{ID: "K"}} },
		"no cached methods":             func(d *distribution.Distribution) { d.Behaviours[0].CachedMethods = nil },
		"a maximum of nothing to cache": func(d *distribution.Distribution) { d.Behaviours[0].TTL = distribution.TTL{} },
	} {
		l := newLocation(t, echo, with(change))
		c, ask := raw(t, l)
		for range 2 {
			ask("GET /a HTTP/1.1\nHost: " + host)
		}
		if c.fast.Load() > 0 {
			t.Errorf("%s: answered fast", name)
		}
	}
}

func TestFastHitsAreCounted(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) { hitsAreCounted(t, raw) })
	t.Run("HTTP/2", func(t *testing.T) { hitsAreCounted(t, streams) })
}

func hitsAreCounted(t *testing.T, open func(*testing.T, *location) (*counting, ask)) {
	l := newLocation(t, echo)
	var mu sync.Mutex
	var sent, received []int64
	l.server.options.Count = func(d *distribution.Distribution, status int, n, m int64) {
		if d.ID != l.d.ID || status != http.StatusOK {
			t.Errorf("counted status %d of %s", status, d.ID)
		}
		mu.Lock()
		defer mu.Unlock()
		sent, received = append(sent, n), append(received, m)
	}
	_, ask := open(t, l)
	request := "GET /a HTTP/1.1\nHost: " + host + "\nAccept: */*"
	ask(request)
	hit := ask(request)
	ask(strings.Replace(request, "GET", "HEAD", 1))
	mu.Lock()
	defer mu.Unlock()
	if len(sent) != 2 {
		t.Fatalf("%d hits were counted, of 2 (a miss has a record)", len(sent))
	}
	if want := int64(len(request) + strings.Count(request, "\n") + 4); received[0] != want || received[1] != want+1 {
		t.Errorf("%d bytes came, of %d and one more", received, want)
	}
	if sent[1] <= 0 || sent[0] != sent[1]+int64(len(hit.body)) {
		t.Errorf("%d bytes were sent with a body of %d, and without", sent, len(hit.body))
	}
}

func TestAgeThatAnObjectComesWithCounts(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=100")
		w.Header().Set("Age", strings.TrimPrefix(r.URL.Path, "/"))
	}))
	l.get("/90")
	if r := l.get("/90"); r.Header.Get("Age") < "90" || len(r.Header["Age"]) != 1 || r.cache() != "Hit" {
		t.Errorf("%s with age %q", r.cache(), r.Header["Age"])
	}
	l.get("/200")
	if r := l.get("/200"); r.cache() != "Miss" || r.Header.Get("Age") != "200" {
		t.Errorf("older than it may be: %s with age %q", r.cache(), r.Header["Age"])
	}
}
