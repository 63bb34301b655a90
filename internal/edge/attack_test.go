package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

func TestAStalePartIsRefreshedAsAPart(t *testing.T) {
	var ranged, whole atomic.Int64
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=60")
		if r.Header.Get("Range") == "" {
			whole.Add(1)
		} else {
			ranged.Add(1)
		}
		http.ServeContent(w, r, "a.bin", time.Time{}, strings.NewReader("0123456789"))
	}))
	part := http.Header{"Range": {"bytes=2-4"}}
	l.do("GET", "/a.bin", part)
	time.Sleep(1100 * time.Millisecond)
	if r := l.do("GET", "/a.bin", part); r.StatusCode != 206 || r.body != "234" {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
	for ranged.Load()+whole.Load() < 2 {
		time.Sleep(5 * time.Millisecond)
	}
	if whole.Load() != 0 {
		t.Error("the whole object was fetched for a part of it")
	}
}

// An answer that turns out to be nobody's to share must not keep a connection of
// the origin when the viewer whom it was for is not there.
func TestAnAnswerThatNobodyTakesIsGivenUp(t *testing.T) {
	ended := make(chan struct{})
	var asked atomic.Int64
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=60")
			_, _ = io.WriteString(w, "shared")
			return
		}
		w.Header().Set("Cache-Control", "private")
		_, _ = io.WriteString(w, "mine")
		_ = http.NewResponseController(w).Flush()
		if asked.Load() == 2 {
			<-r.Context().Done()
			close(ended)
		}
	}))
	l.get("/a")
	time.Sleep(1100 * time.Millisecond)
	if r := l.get("/a"); r.body != "shared" {
		t.Errorf("%q", r.body)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the refresh still holds the origin's answer")
	}
	if r := l.get("/a"); r.body != "mine" {
		t.Errorf("an object that has become private is served on: %q", r.body)
	}
}

func TestWhoLeavesGivesUpTheAnswerThatWasForHim(t *testing.T) {
	for _, before := range []bool{true, false} {
		l := &lead{own: make(chan ownAnswer, 1)}
		closed, cancelled := false, false
		body := &closing{io.NopCloser(strings.NewReader("")), func() { closed = true }}
		a := ownAnswer{&fetched{body: body}, func() { cancelled = true }}
		if before {
			l.leave()
			l.give(a)
		} else {
			l.give(a)
			l.leave()
		}
		if !closed || !cancelled {
			t.Errorf("left before: %v; closed %v, cancelled %v", before, closed, cancelled)
		}
	}
}

func TestSpacesInATargetAreRefused(t *testing.T) {
	l := newLocation(t, echo)
	for _, target := range []string{"/a HTTP/1.1", "/a?x HTTP/1.1", "/a\t"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.RequestURI, r.ProtoMajor = host, target, 2 // as HTTP/2 lets them pass
		w := httptest.NewRecorder()
		l.server.ServeHTTP(w, r)
		if w.Code != 400 || l.requests.Load() != 0 {
			t.Errorf("%q: %d, %d requests to the origin", target, w.Code, l.requests.Load())
		}
	}
}

func TestFieldsThatConnectionNamesGoNoFurther(t *testing.T) {
	l := newLocation(t, echo, with(func(d *distribution.Distribution) {
		d.Behaviours[0].Forward.Headers = distribution.Choice{Mode: distribution.ModeAll}
	}))
	r := l.do("GET", "/a", http.Header{"Connection": {"x-hop, close"}, "X-Hop": {"1"}, "X-End": {"1"}})
	if strings.Contains(r.body, "X-Hop") || !strings.Contains(r.body, "X-End: 1") {
		t.Errorf("the origin got %q", r.body)
	}
}

func TestAnswersToRequestsWithABodyAreNotStored(t *testing.T) {
	l := newLocation(t, echo, with(func(d *distribution.Distribution) {
		b := &d.Behaviours[0]
		b.AllowedMethods, b.CachedMethods = append(b.AllowedMethods, "OPTIONS"), append(b.CachedMethods, "OPTIONS")
	}))
	ask := func(body io.Reader) *reply {
		r, err := l.send("OPTIONS", "/a", nil, body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for n := range 2 {
		l.expect(ask(strings.NewReader("poison")), 200, "Miss", int64(n+1))
	}
	if r := ask(nil); strings.Contains(r.body, "poison") {
		t.Errorf("another viewer's body: %q", r.body)
	}
	l.expect(ask(nil), 200, "Hit", 3)
}

func TestATargetWithoutAPathIsRefused(t *testing.T) {
	l := newLocation(t, echo)
	r := httptest.NewRequest("GET", "/", nil)
	r.Host, r.RequestURI, r.URL = host, "*", &url.URL{Path: "*"}
	w := httptest.NewRecorder()
	l.server.ServeHTTP(w, r)
	if w.Code != 400 || l.requests.Load() != 0 {
		t.Errorf("%d, %d requests to the origin", w.Code, l.requests.Load())
	}
}

func TestAnUnusualPathGoesToTheOriginAsItCame(t *testing.T) {
	l := newLocation(t, echo, with(func(d *distribution.Distribution) {
		d.Behaviours[0].Forward.Headers = distribution.Choice{Mode: distribution.ModeAll}
	}))
	for _, path := range []string{`/a"b|c`, "//other.example/x", "/a/../b"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.RequestURI = host, path
		w := httptest.NewRecorder()
		l.server.ServeHTTP(w, r)
		if want := "GET " + path + "\nHost: " + host + "\n"; !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("%s: the origin got %q", path, w.Body.String())
		}
	}
}

func TestAnOriginThatSwitchesProtocolsUnaskedHasFailed(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	}))
	if r := l.get("/a"); r.StatusCode != 502 {
		t.Errorf("%d", r.StatusCode)
	}
}

// seen is a runner that notes what a viewer-request function would see.
type seen struct{ header trigger.Header }

// Run implements trigger.Runner.
func (s *seen) Run(_ context.Context, _ *distribution.Distribution, _ *distribution.Behaviour, _ distribution.EventType, x *trigger.Exchange) error {
	s.header = x.Request.Header
	return nil
}

func TestAFunctionSeesNoHeadersThatAViewerSentInCloudFrontsName(t *testing.T) {
	s := &seen{}
	l := newLocation(t, echo, functions(s), with(func(d *distribution.Distribution) {
		d.Behaviours[0].Viewer = map[distribution.EventType]string{distribution.ViewerRequest: "arn:aws:cloudfront::123456789012:function/f"}
	}))
	l.do("GET", "/", http.Header{"Cloudfront-Viewer-Country": {"DE"}, "X-Own": {"1"}})
	own := false
	for _, f := range s.header {
		if strings.HasPrefix(strings.ToLower(f.Name), "cloudfront-") {
			t.Errorf("%s: %s", f.Name, f.Value)
		}
		own = own || f.Name == "X-Own"
	}
	if !own {
		t.Errorf("%v", s.header)
	}
}

func TestWhatHasNoLifetimeButAValidatorIsRevalidatedForEachViewer(t *testing.T) {
	for _, control := range []string{"max-age=0", "no-cache"} {
		var bodies, validated atomic.Int64
		var etag atomic.Value
		etag.Store(`"one"`)
		l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", control)
			w.Header().Set("Etag", etag.Load().(string))
			if r.URL.Path == "/cookie" {
				w.Header().Set("Set-Cookie", "a=1")
			}
			if r.Header.Get("If-None-Match") == etag.Load() {
				validated.Add(1)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			bodies.Add(1)
			_, _ = io.WriteString(w, etag.Load().(string))
		}), with(func(d *distribution.Distribution) {
			d.Behaviours[0].Forward.Cookies = distribution.Choice{Mode: distribution.ModeAll}
		}))
		check := func(path, result, body string, wantBodies, wantValidated int64) {
			t.Helper()
			r := l.get(path)
			if r.cache() != result || r.StatusCode != 200 || r.body != body || bodies.Load() != wantBodies || validated.Load() != wantValidated {
				t.Errorf("%s %s: %d %s %q after %d bodies and %d validations", control, path, r.StatusCode, r.cache(), r.body, bodies.Load(), validated.Load())
			}
		}
		check("/a", "Miss", `"one"`, 1, 0)
		check("/a", "RefreshHit", `"one"`, 1, 1)
		if r := l.do("GET", "/a", http.Header{"Range": {"bytes=1-3"}}); r.StatusCode != 206 || r.body != "one" {
			t.Errorf("a part: %d %q", r.StatusCode, r.body)
		}
		etag.Store(`"two"`)
		check("/a", "Miss", `"two"`, 2, 2)
		check("/a", "RefreshHit", `"two"`, 2, 3)
		check("/cookie", "Miss", `"two"`, 3, 3)
		check("/cookie", "Miss", `"two"`, 4, 3)
		l.origin.Close()
		if r := l.get("/a"); r.StatusCode != 502 {
			t.Errorf("the origin is gone: %d %q", r.StatusCode, r.body)
		}
	}
}

func TestALeaderLooksAgainBeforeItAsksTheOrigin(t *testing.T) {
	l := newLocation(t, answers(200, "x", "Cache-Control", "max-age=60"))
	l.get("/a")
	r := httptest.NewRequest("GET", "/a", nil)
	r.Host = host
	x := l.server.begin(httptest.NewRecorder(), r)
	if f := x.admit(); f != nil {
		t.Fatal(f)
	}
	// As one that missed before the first request was answered.
	a, err := x.shared(x.key(""), "")
	if err != nil {
		t.Fatal(err)
	}
	defer a.release()
	if a.result != resultHit || l.requests.Load() != 1 {
		t.Errorf("%s after %d requests to the origin", a.result, l.requests.Load())
	}
}
