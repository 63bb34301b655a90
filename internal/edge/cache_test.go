package edge

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// answers serves one answer, whatever is asked.
func answers(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestWhatIsStored(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.Handler
		min     time.Duration
		first   string
		second  string
		origin  int64
	}{
		{"no word of caching: the default TTL", answers(200, "x"), 0, "Miss", "Hit", 1},
		{"no-store", answers(200, "x", "Cache-Control", "no-store"), 0, "Miss", "Miss", 2},
		{"private", answers(200, "x", "Cache-Control", "private, max-age=60"), 0, "Miss", "Miss", 2},
		{"private with a minimum", answers(200, "x", "Cache-Control", "private"), time.Minute, "Miss", "Hit", 1},
		{"redirect", answers(302, "", "Location", "/b"), 0, "Miss", "Hit", 1},
		{"not found, for errors' time", answers(404, "none"), 0, "Error", "Error", 1},
		{"forbidden, without max-age", answers(403, "no"), 0, "Error", "Error", 2},
		{"forbidden, with max-age", answers(403, "no", "Cache-Control", "max-age=60"), 0, "Error", "Error", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLocation(t, c.handler, with(func(d *distribution.Distribution) { d.Behaviours[0].TTL.Min = c.min }))
			if r := l.get("/a"); r.cache() != c.first {
				t.Errorf("first: %s", r.cache())
			}
			r := l.get("/a")
			if r.cache() != c.second || l.requests.Load() != c.origin {
				t.Errorf("second: %s, %d requests to the origin", r.cache(), l.requests.Load())
			}
		})
	}
}

func TestAnExpiredObjectIsRevalidated(t *testing.T) {
	var conditional atomic.Int64
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1")
		w.Header().Set("Etag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			conditional.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "body")
	}))
	l.expect(l.get("/a"), 200, "Miss", 1)
	time.Sleep(1100 * time.Millisecond)
	r := l.get("/a")
	l.expect(r, 200, "RefreshHit", 2)
	if r.body != "body" || conditional.Load() != 1 {
		t.Errorf("%q after %d conditional requests", r.body, conditional.Load())
	}
	l.expect(l.get("/a"), 200, "Hit", 2)
}

func TestAnExpiredObjectIsServedWhereTheOriginFails(t *testing.T) {
	var down atomic.Bool
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1")
		if strings.HasPrefix(r.URL.Path, "/strict") {
			w.Header().Set("Cache-Control", "max-age=1, stale-if-error=0")
		}
		fmt.Fprint(w, "old")
	}))
	l.get("/a")
	l.get("/strict")
	down.Store(true)
	time.Sleep(1100 * time.Millisecond)
	if r := l.get("/a"); r.StatusCode != 200 || r.body != "old" {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
	if r := l.get("/strict"); r.StatusCode != 503 {
		t.Errorf("stale-if-error=0: %d", r.StatusCode)
	}
	before := l.requests.Load()
	l.get("/a")
	if got := l.requests.Load(); got != before {
		t.Error("the origin was asked again at once")
	}
	l.origin.Close()
	if r := l.get("/b"); r.StatusCode != 502 || r.cache() != "Error" {
		t.Errorf("an origin that is gone: %d %s", r.StatusCode, r.cache())
	}
}

func TestStaleWhileRevalidateAnswersAtOnce(t *testing.T) {
	var n atomic.Int64
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=60")
		fmt.Fprint(w, n.Add(1))
	}))
	l.get("/a")
	time.Sleep(1100 * time.Millisecond)
	if r := l.get("/a"); r.body != "1" || r.cache() != "Hit" {
		t.Errorf("%q %s", r.body, r.cache())
	}
	for l.get("/a").body != "2" {
		time.Sleep(10 * time.Millisecond)
	}
	if n.Load() != 2 {
		t.Errorf("%d requests to the origin", n.Load())
	}
}

func TestConditionalAndRangeRequestsAreAnsweredFromTheCache(t *testing.T) {
	l := newLocation(t, answers(200, "0123456789", "Etag", `"e"`, "Content-Type", "text/plain", "Content-Length", "10"))
	l.get("/a")
	for _, c := range []struct {
		header       http.Header
		status       int
		body, ranged string
	}{
		{http.Header{"If-None-Match": {`W/"e"`}}, 304, "", ""},
		{http.Header{"If-None-Match": {`"f"`}}, 200, "0123456789", ""},
		{http.Header{"If-Match": {`"f"`}}, 412, "", ""},
		{http.Header{"Range": {"bytes=2-4"}}, 206, "234", "bytes 2-4/10"},
		{http.Header{"Range": {"bytes=-2"}}, 206, "89", "bytes 8-9/10"},
		{http.Header{"Range": {"bytes=20-"}}, 416, "", "bytes */10"},
		{http.Header{"Range": {"bytes=4-5,0-1"}}, 200, "0123456789", ""},
		{http.Header{"Range": {"bytes=2-4"}, "If-Range": {`"f"`}}, 200, "0123456789", ""},
	} {
		r := l.do("GET", "/a", c.header)
		if r.StatusCode != c.status || r.body != c.body || r.Header.Get("Content-Range") != c.ranged {
			t.Errorf("%v: %d %q %q", c.header, r.StatusCode, r.body, r.Header.Get("Content-Range"))
		}
	}
	r := l.do("GET", "/a", http.Header{"Range": {"bytes=0-1,8-9"}})
	if r.StatusCode != 206 || !strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/byteranges") || r.ContentLength != int64(len(r.body)) ||
		!strings.Contains(r.body, "Content-Range: bytes 8-9/10\r\nContent-Type: text/plain\r\n\r\n89\r\n") {
		t.Errorf("several ranges: %d %v %q", r.StatusCode, r.Header, r.body)
	}
	if l.requests.Load() != 1 {
		t.Errorf("%d requests to the origin", l.requests.Load())
	}
	if r := l.do("HEAD", "/a", nil); r.StatusCode != 200 || r.ContentLength != 10 || r.cache() != "Hit" {
		t.Errorf("HEAD: %d %d %s", r.StatusCode, r.ContentLength, r.cache())
	}
}

func TestAPartIsFetchedAndStoredByItself(t *testing.T) {
	content := strings.Repeat("0123456789", 100)
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "a.bin", time.Unix(1e9, 0), strings.NewReader(content))
	}))
	part := http.Header{"Range": {"bytes=10-14"}}
	for i, want := range []string{"Miss", "Hit"} {
		r := l.do("GET", "/a.bin", part)
		l.expect(r, 206, want, 1)
		if r.body != "01234" || r.Header.Get("Content-Range") != "bytes 10-14/1000" {
			t.Errorf("%d: %q %q", i, r.body, r.Header.Get("Content-Range"))
		}
	}
	l.expect(l.get("/a.bin"), 200, "Miss", 2)
	l.expect(l.do("GET", "/a.bin", http.Header{"Range": {"bytes=20-24"}}), 206, "Hit", 2)
}

func TestAnOriginThatKnowsNoRangesGivesTheWhole(t *testing.T) {
	l := newLocation(t, answers(200, "0123456789"))
	r := l.do("GET", "/a", http.Header{"Range": {"bytes=1-2"}})
	if r.StatusCode != 206 && r.StatusCode != 200 {
		t.Errorf("%d", r.StatusCode)
	}
	l.expect(l.get("/a"), 200, "Hit", 1)
	r = l.do("GET", "/a", http.Header{"Range": {"bytes=1-2"}})
	if l.expect(r, 206, "Hit", 1); r.body != "12" {
		t.Errorf("%q", r.body)
	}
}

func TestAStormOnAColdObjectIsOneRequest(t *testing.T) {
	const viewers = 200
	begun := make(chan struct{})
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(w, "second")
	}))
	var early, whole atomic.Int64
	var wait sync.WaitGroup
	for range viewers {
		wait.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), "GET", l.front.URL+"/cold", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Host = host
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			head := make([]byte, 6)
			if _, err := io.ReadFull(answer.Body, head); err == nil {
				early.Add(1)
			}
			rest, _ := io.ReadAll(answer.Body)
			if string(head)+string(rest) == "first second" {
				whole.Add(1)
			}
		})
	}
	wait.Wait()
	<-begun
	if l.requests.Load() != 1 || early.Load() != viewers || whole.Load() != viewers {
		t.Errorf("%d requests, %d early, %d whole", l.requests.Load(), early.Load(), whole.Load())
	}
}

func TestAStormOnWhatIsNotForSharingDoesNotQueue(t *testing.T) {
	const viewers = 50
	var mu sync.Mutex
	var together, most int
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		together++
		most = max(most, together)
		mu.Unlock()
		time.Sleep(200 * time.Millisecond)
		mu.Lock()
		together--
		mu.Unlock()
		w.Header().Set("Cache-Control", "private")
		_, _ = io.WriteString(w, "x")
	}))
	var wait sync.WaitGroup
	for range viewers {
		wait.Go(func() {
			if r, err := l.send("GET", "/mine", nil, nil); err != nil || r.body != "x" {
				t.Errorf("%v %v", r, err)
			}
		})
	}
	wait.Wait()
	if most < viewers/2 || l.requests.Load() != viewers {
		t.Errorf("at most %d of %d requests were under way together", most, l.requests.Load())
	}
}

func TestErrorPages(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/errors/404.html":
			fmt.Fprint(w, "sorry")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}), with(func(d *distribution.Distribution) {
		d.ErrorPages = []distribution.ErrorPage{
			{Status: 404, Path: "/errors/404.html", ResponseStatus: 200, MinTTL: time.Minute},
			{Status: 403, Path: "/errors/none.html", ResponseStatus: 403, MinTTL: time.Minute},
			{Status: 502, MinTTL: time.Minute},
		}
		gone := d.Origins[0]
		gone.ID, gone.HTTPPort = "gone", 1
		d.Origins = append(d.Origins, gone)
		b := d.Behaviours[0]
		b.Pattern, b.Origin = "/gone/*", "gone"
		d.Behaviours = append([]distribution.Behaviour{b}, d.Behaviours...)
	}))
	for range 2 {
		if r := l.get("/missing"); r.StatusCode != 200 || r.body != "sorry" || r.cache() != "Error" {
			t.Errorf("%d %q %s", r.StatusCode, r.body, r.cache())
		}
	}
	if l.requests.Load() != 2 {
		t.Errorf("%d requests to the origin", l.requests.Load())
	}
	for range 2 {
		r := l.get("/gone/a")
		if r.StatusCode != 502 || !strings.Contains(r.body, "ERROR") {
			t.Errorf("%d %q", r.StatusCode, r.body)
		}
	}
}

func TestInvalidationsAreApplied(t *testing.T) {
	l := newLocation(t, answers(200, "x"), with(func(d *distribution.Distribution) { d.DefaultRootObject = "index.html" }))
	l.get("/")
	l.expect(l.get("/index.html"), 200, "Hit", 1)
	item, err := l.record.Invalidations.Put(t.Context(), "I1", distribution.Invalidation{Format: 1, ID: "I1", Distribution: l.d.ID, Paths: []string{"/"}, At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for l.server.Applied().Invalidations < item.Revision {
		time.Sleep(time.Millisecond)
	}
	l.expect(l.get("/"), 200, "Miss", 2)
}
