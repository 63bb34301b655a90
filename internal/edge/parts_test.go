package edge

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAHeadIsStoredByItself(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", "10")
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "0123456789")
		}
	}))
	for i, want := range []string{"Miss", "Hit"} {
		r := l.do("HEAD", "/a", http.Header{"Range": {"bytes=0-1"}})
		l.expect(r, 200, want, 1)
		if r.ContentLength != 10 || r.body != "" {
			t.Errorf("HEAD %d: %d bytes announced, %q sent", i, r.ContentLength, r.body)
		}
	}
	r := l.get("/a")
	l.expect(r, 200, "Miss", 2)
	if r.body != "0123456789" {
		t.Errorf("GET after HEAD: %q", r.body)
	}
	l.expect(l.do("HEAD", "/a", nil), 200, "Hit", 2)
}

func TestAHeadThatRefreshesAStaleObjectFetchesItsBody(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=60")
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "body")
			_ = http.NewResponseController(w).Flush() // so that no length is announced
		}
	}))
	l.expect(l.get("/a"), 200, "Miss", 1)
	time.Sleep(1100 * time.Millisecond)
	if r := l.do("HEAD", "/a", nil); r.StatusCode != 200 || r.cache() != "Hit" {
		t.Errorf("HEAD: %d %s", r.StatusCode, r.cache())
	}
	for l.requests.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	for range 3 {
		if r := l.get("/a"); r.body != "body" {
			t.Fatalf("GET after HEAD: %q", r.body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestIfRangeOfAPartThatIsNotThere(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Etag", `"now"`)
		if r.Header.Get("If-Range") != "" {
			t.Error("the origin was sent If-Range")
		}
		if r.Header.Get("Range") == "bytes=2-4" {
			w.Header().Set("Content-Range", "bytes 2-4/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "234")
			return
		}
		_, _ = io.WriteString(w, "0123456789")
	}))
	part := func(tag string) http.Header { return http.Header{"Range": {"bytes=2-4"}, "If-Range": {tag}} }
	for _, want := range []string{"Miss", "Hit"} {
		r := l.do("GET", "/a", part(`"now"`))
		l.expect(r, 206, want, 1)
		if r.body != "234" {
			t.Errorf("the part: %q", r.body)
		}
	}
	for _, want := range []string{"Miss", "Hit"} {
		r := l.do("GET", "/a", part(`"before"`))
		l.expect(r, 200, want, 2)
		if r.body != "0123456789" {
			t.Errorf("another object's part: %q", r.body)
		}
	}
}

func TestConditionsHoldForAStoredPart(t *testing.T) {
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"now"`)
		http.ServeContent(w, r, "a.bin", time.Time{}, strings.NewReader("0123456789"))
	}))
	for name, want := range map[string]map[string]int{
		"If-Match":      {`"now"`: 206, `"before"`: 412},
		"If-None-Match": {`"now"`: 304, `"before"`: 206},
	} {
		for tag, status := range want {
			r := l.do("GET", "/a.bin", http.Header{"Range": {"bytes=2-4"}, name: {tag}})
			if r.StatusCode != status || (r.Header.Get("Content-Range") != "") != (status == 206) || (r.body == "234") != (status == 206) {
				t.Errorf("%s: %s: %d %v %q", name, tag, r.StatusCode, r.Header, r.body)
			}
		}
	}
	if n := l.requests.Load(); n != 1 {
		t.Errorf("%d requests to the origin", n)
	}
}

func TestFieldsForOneViewerAreHisAlone(t *testing.T) {
	n := 0
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("Cache-Control", `max-age=1, no-cache="X-Own"`)
		w.Header().Set("X-Own", fmt.Sprint(n))
		w.Header().Set("Etag", `"tag"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, "body")
	}))
	for _, want := range []string{"1", ""} {
		if r := l.get("/a"); r.Header.Get("X-Own") != want {
			t.Errorf("X-Own: %q, want %q", r.Header.Get("X-Own"), want)
		}
	}
	time.Sleep(1100 * time.Millisecond)
	for _, want := range []string{"2", ""} {
		if r := l.get("/a"); r.Header.Get("X-Own") != want {
			t.Errorf("X-Own after a revalidation: %q, want %q", r.Header.Get("X-Own"), want)
		}
	}
}
