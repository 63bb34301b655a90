package edge

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/trigger"
	"lapwing.dev/lapwing/internal/state"
)

// host is the domain name of the distribution that most tests have.
const host = "d111111abcdef8.cloudfront.net"

// location is an edge location under test, with one origin.
type location struct {
	t      *testing.T
	server *Server
	front  *httptest.Server
	origin *httptest.Server
	d      *distribution.Distribution
	store  *state.Store
	record *distribution.Records

	requests atomic.Int64 // that came to the origin
	mu       sync.Mutex
	logs     []*accesslog.Record
}

// option changes a location before it is made.
type option func(*Options, *distribution.Distribution)

func functions(r trigger.Runner) option {
	return func(o *Options, _ *distribution.Distribution) { o.Functions = r }
}

func with(change func(*distribution.Distribution)) option {
	return func(_ *Options, d *distribution.Distribution) { change(d) }
}

// newLocation makes a location whose distribution has one custom origin, served by
// handler, and one behaviour, which caches as CachingOptimized does.
func newLocation(t *testing.T, handler http.Handler, options ...option) *location {
	t.Helper()
	l := &location{t: t}
	l.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.requests.Add(1)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(l.origin.Close)
	l.open()
	l.d = &distribution.Distribution{
		Format: distribution.Format, ID: "E1LAPWING00001", ARN: "arn:aws:cloudfront::123456789012:distribution/E1LAPWING00001",
		DomainName: host, Enabled: true, Aliases: []string{"www.example.net", "*.example.org"}, HTTP2: true,
		Origins: []distribution.Origin{customOrigin("main", l.origin.URL)},
		Behaviours: []distribution.Behaviour{{
			Pattern: "*", Origin: "main", ViewerProtocol: "allow-all",
			AllowedMethods: []string{"GET", "HEAD"}, CachedMethods: []string{"GET", "HEAD"},
			TTL: distribution.TTL{Default: 24 * time.Hour, Max: 365 * 24 * time.Hour},
		}},
		Geo: distribution.GeoRestriction{Mode: "none"},
	}
	l.serve(l.d, options...)
	return l
}

// open gives the location records of its own.
func (l *location) open() {
	l.t.Helper()
	var err error
	if l.store, err = state.Open(l.t.Context(), state.Options{Dir: l.t.TempDir(), Logger: quiet()}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = l.store.Close() })
	if l.record, err = distribution.Open(l.t.Context(), l.store); err != nil {
		l.t.Fatal(err)
	}
}

// serve starts the location's server, with a distribution that options change.
func (l *location) serve(d *distribution.Distribution, options ...option) {
	l.t.Helper()
	objects, err := cache.Open(cache.Options{Memory: 64 << 20, Logger: quiet()})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = objects.Close() })
	o := Options{
		Records: l.record, Cache: objects, Logger: quiet(), Location: "TST50-P1",
		Origins: origin.New(origin.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
		Log: func(r *accesslog.Record) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.logs = append(l.logs, r)
		},
	}
	for _, f := range options {
		f(&o, d)
	}
	l.put(*l.d)
	l.server = New(o)
	l.t.Cleanup(l.server.Close)
	l.front = httptest.NewServer(l.server)
	l.t.Cleanup(l.front.Close)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// customOrigin is an origin at a URL.
func customOrigin(id, at string) distribution.Origin {
	u, err := url.Parse(at)
	if err != nil {
		panic(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		panic(err)
	}
	return distribution.Origin{
		ID: id, DomainName: u.Hostname(), HTTPPort: port, HTTPSPort: port, Protocol: "http-only", TLSProtocols: []string{"TLSv1.2"},
		ConnectionAttempts: 3, ConnectionTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, KeepaliveTimeout: 5 * time.Second,
	}
}

// put writes the distribution and waits until the location serves it.
func (l *location) put(d distribution.Distribution) {
	l.t.Helper()
	item, err := l.record.Distributions.Put(l.t.Context(), d.ID, d)
	if err != nil {
		l.t.Fatal(err)
	}
	for l.server != nil && l.server.Applied().Distributions < item.Revision {
		time.Sleep(time.Millisecond)
	}
}

// reply is what a viewer got.
type reply struct {
	*http.Response
	body string
}

func (r *reply) cache() string {
	return strings.TrimSuffix(r.Header.Get("X-Cache"), " from cloudfront")
}

// do sends a request as a viewer.
func (l *location) do(method, path string, header http.Header) *reply {
	l.t.Helper()
	r, err := l.send(method, path, header, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *location) send(method, path string, header http.Header, body io.Reader) (*reply, error) {
	r, err := http.NewRequestWithContext(l.t.Context(), method, l.front.URL+path, body)
	if err != nil {
		return nil, err
	}
	r.Host = host
	for name, v := range header {
		if name == "Host" {
			r.Host = v[0]
			continue
		}
		r.Header[name] = v
	}
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return &reply{answer, string(b)}, err
}

func (l *location) get(path string) *reply { l.t.Helper(); return l.do("GET", path, nil) }

// expect checks what a request got and how many the origin had by then.
func (l *location) expect(r *reply, status int, cache string, origin int64) {
	l.t.Helper()
	if r.StatusCode != status || r.cache() != cache || l.requests.Load() != origin {
		l.t.Errorf("got %d %q with %d requests to the origin, want %d %q with %d", r.StatusCode, r.cache(), l.requests.Load(), status, cache, origin)
	}
}

// echo tells what the origin got.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
	_ = r.Header.Write(&b)
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(&b, "\n%s", body)
	_, _ = w.Write(b.Bytes())
})

func TestAnObjectIsFetchedOnceAndThenServedFromTheCache(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "hello")
	}))
	first := l.get("/a")
	l.expect(first, 200, "Miss", 1)
	if first.body != "hello" || first.Header.Get("Age") != "" {
		t.Errorf("first: %q, Age %q", first.body, first.Header.Get("Age"))
	}
	second := l.get("/a")
	l.expect(second, 200, "Hit", 1)
	if second.body != "hello" || second.Header.Get("Age") == "" || second.Header.Get("Cache-Control") != "max-age=60" {
		t.Errorf("second: %q %v", second.body, second.Header)
	}
	for _, name := range []string{"Via", "X-Amz-Cf-Id", "X-Amz-Cf-Pop"} {
		if second.Header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
	if first.Header.Get("X-Amz-Cf-Id") == second.Header.Get("X-Amz-Cf-Id") {
		t.Error("two requests have one id")
	}
}

func TestDistributionsAreFoundByHost(t *testing.T) {
	l := newLocation(t, echo)
	for name, want := range map[string]int{
		host: 200, strings.ToUpper(host): 200, host + ":8080": 200, "www.example.net": 200, "a.example.org": 200, "a.b.example.org": 200,
		"example.org": 403, "other.example.net": 403, "d2.cloudfront.net": 403,
	} {
		if got := l.do("GET", "/", http.Header{"Host": {name}}).StatusCode; got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	d := *l.d
	d.Enabled = false
	l.put(d)
	if got := l.get("/").StatusCode; got != 403 {
		t.Errorf("a distribution that is not enabled: %d", got)
	}
}
