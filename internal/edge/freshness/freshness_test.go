package freshness

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

var received = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	s    = time.Second
	day  = 24 * time.Hour
	year = 365 * day
)

var (
	noMin   = distribution.TTL{Min: 0, Default: day, Max: year}
	withMin = distribution.TTL{Min: 60 * s, Default: day, Max: year}
	noStore = distribution.TTL{}
	short   = distribution.TTL{Min: 0, Default: 10 * s, Max: 100 * s}
)

// header parses lines "Name: value".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

func at(d time.Duration) string { return received.Add(d).Format(http.TimeFormat) }

func TestLifetimeOfAnswers(t *testing.T) {
	const never = -1 * s
	for _, c := range []struct {
		name   string
		ttl    distribution.TTL
		status int
		header []string
		want   time.Duration // never: not stored
	}{
		// The guide's table, with a minimum of 0.
		{"max-age within the bounds", noMin, 200, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"max-age over the maximum", short, 200, []string{"Cache-Control: max-age=1000"}, 100 * s},
		{"s-maxage before max-age", noMin, 200, []string{"Cache-Control: max-age=100, s-maxage=50"}, 50 * s},
		{"max-age before Expires", noMin, 200, []string{"Cache-Control: max-age=100", "Expires: " + at(500*s)}, 100 * s},
		{"neither", noMin, 200, nil, day},
		{"neither, no default", noStore, 200, nil, 0},
		{"Expires", noMin, 200, []string{"Expires: " + at(500*s), "Date: " + at(0)}, 500 * s},
		{"Expires against the origin's own clock", noMin, 200, []string{"Expires: " + at(900*s), "Date: " + at(400*s)}, 500 * s},
		{"Expires over the maximum", short, 200, []string{"Expires: " + at(500*s), "Date: " + at(0)}, 100 * s},
		{"Expires in the past", noMin, 200, []string{"Expires: " + at(-500*s), "Date: " + at(0)}, 0},
		{"Expires with two spaces", noMin, 200, []string{"Expires: Thu, 18  Aug  2050 02:01:18 GMT"}, 0},
		{"Expires with an hour of one digit", noMin, 200, []string{"Expires: Thu, 18 Aug 2050 2:01:18 GMT"}, 0},
		{"Expires in small letters, with a wrong weekday", distribution.TTL{Max: 20 * year, Default: s}, 200, []string{"Expires: mon, 01 mar 2026 12:01:00 gmt", "Date: " + at(0)}, 60 * s},
		{"Expires in the form of RFC 850", noMin, 200, []string{"Expires: Sunday, 01-Mar-26 12:01:00 GMT", "Date: " + at(0)}, 60 * s},
		{"Expires in the form of asctime", noMin, 200, []string{"Expires: Sun Mar  1 12:01:00 2026", "Date: " + at(0)}, 60 * s},
		{"Expires that is no date", noMin, 200, []string{"Expires: 0"}, 0},
		{"no-cache", noMin, 200, []string{"Cache-Control: no-cache"}, 0},
		{"no-cache and private", noMin, 200, []string{"Cache-Control: no-cache, private"}, never},
		{"no-store", noMin, 200, []string{"Cache-Control: no-store, max-age=100"}, never},
		{"private", noMin, 200, []string{"Cache-Control: private"}, never},
		{"max-age=0", noMin, 200, []string{"Cache-Control: max-age=0"}, 0},
		// With a minimum.
		{"max-age under the minimum", withMin, 200, []string{"Cache-Control: max-age=1"}, 60 * s},
		{"max-age over the minimum", withMin, 200, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"neither, minimum over the default", distribution.TTL{Min: 20 * s, Default: 10 * s, Max: year}, 200, nil, 20 * s},
		{"Expires under the minimum", withMin, 200, []string{"Expires: " + at(10*s), "Date: " + at(0)}, 60 * s},
		{"no-cache with a minimum", withMin, 200, []string{"Cache-Control: no-cache"}, 60 * s},
		{"no-store with a minimum", withMin, 200, []string{"Cache-Control: no-store, max-age=1000"}, 60 * s},
		{"private with a minimum", withMin, 200, []string{"Cache-Control: private"}, 60 * s},
		// The age that an answer comes with counts.
		{"with an age", noMin, 200, []string{"Cache-Control: max-age=100", "Age: 40"}, 60 * s},
		{"older than it may be", noMin, 200, []string{"Cache-Control: max-age=100", "Age: 140"}, 0},
		{"with an age and a minimum", withMin, 200, []string{"Cache-Control: max-age=100", "Age: 90"}, 60 * s},
		{"with a date in the past", noMin, 200, []string{"Cache-Control: max-age=100", "Date: " + at(-30*s)}, 70 * s},
		{"with the first age of a list", noMin, 200, []string{"Cache-Control: max-age=100", "Age: 90, 0"}, 10 * s},
		{"with an age that is none", noMin, 200, []string{"Cache-Control: max-age=100", "Age: x"}, 100 * s},
		{"with the first of two ages", noMin, 200, []string{"Cache-Control: max-age=100", "Age: 10", "Age: 90"}, 90 * s},
		// How it is written.
		{"in capitals", noMin, 200, []string{"Cache-Control: MAX-AGE=100"}, 100 * s},
		{"quoted", noMin, 200, []string{`Cache-Control: max-age="100"`}, 100 * s},
		{"in two fields", noMin, 200, []string{"Cache-Control: public", "Cache-Control: max-age=100"}, 100 * s},
		{"twice", noMin, 200, []string{"Cache-Control: max-age=100, max-age=5"}, 100 * s},
		{"in a quoted string", noMin, 200, []string{`Cache-Control: ext="a, no-store, max-age=1", max-age=100`}, 100 * s},
		{"negative", noMin, 200, []string{"Cache-Control: max-age=-1"}, 0},
		{"not a number", noMin, 200, []string{"Cache-Control: max-age=1h"}, 0},
		{"with a fraction", noMin, 200, []string{"Cache-Control: max-age=1.5"}, 0},
		{"enormous", noMin, 200, []string{"Cache-Control: max-age=99999999999999999999"}, year},
		{"a directive that begins alike", noMin, 200, []string{"Cache-Control: max-agex=1, xno-store"}, day},
		{"no-cache for a field", noMin, 200, []string{`Cache-Control: no-cache="Set-Cookie", max-age=100`}, 100 * s},
		{"private for a field", noMin, 200, []string{`Cache-Control: private="Set-Cookie", max-age=100`}, 100 * s},
		{"no-cache for no field", noMin, 200, []string{`Cache-Control: no-cache="", max-age=100`}, 0},
		{"CDN-Cache-Control, which CloudFront does not read", noMin, 200, []string{"CDN-Cache-Control: max-age=1", "Cache-Control: max-age=100"}, 100 * s},
		{"Pragma", noMin, 200, []string{"Pragma: no-cache"}, day},
		// Vary.
		{"Vary on a field", noMin, 200, []string{"Vary: Accept-Encoding, Cookie", "Cache-Control: max-age=100"}, 100 * s},
		{"Vary on anything", noMin, 200, []string{"Vary: Cookie, *", "Cache-Control: max-age=100"}, never},
		{"Vary on anything with a minimum", withMin, 200, []string{"Vary: *", "Cache-Control: max-age=100"}, 100 * s},
		{"Vary on anything with a minimum only", withMin, 200, []string{"Vary: *"}, 60 * s},
		// Statuses.
		{"204", noMin, 204, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"206 by itself", noMin, 206, []string{"Cache-Control: max-age=100"}, never},
		{"301", noMin, 301, nil, day},
		{"302", noMin, 302, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"304 by itself", noMin, 304, nil, never},
		{"404", noMin, 404, nil, 10 * s},
		{"404 for longer", noMin, 404, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"404 for less", noMin, 404, []string{"Cache-Control: max-age=1"}, 10 * s},
		{"404 that expires", noMin, 404, []string{"Expires: " + at(50*s)}, 50 * s},
		{"404 with no-store", noMin, 404, []string{"Cache-Control: no-store"}, 10 * s},
		{"404 over the maximum", short, 404, []string{"Cache-Control: max-age=1000"}, 100 * s},
		{"414", noMin, 414, nil, 10 * s},
		{"500", noMin, 500, nil, 10 * s},
		{"501", noMin, 501, nil, 10 * s},
		{"502", noMin, 502, nil, 10 * s},
		{"503", noMin, 503, nil, 10 * s},
		{"504", noMin, 504, nil, 10 * s},
		{"400", noMin, 400, nil, never},
		{"403", noMin, 403, []string{"Expires: " + at(50*s)}, never},
		{"403 with max-age", noMin, 403, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"405 with s-maxage", noMin, 405, []string{"Cache-Control: s-maxage=5"}, 10 * s},
		{"412 with max-age", noMin, 412, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"415 with max-age", noMin, 415, []string{"Cache-Control: max-age=100"}, 100 * s},
		{"416", noMin, 416, []string{"Cache-Control: max-age=100"}, never},
		{"401", noMin, 401, []string{"Cache-Control: max-age=100"}, never},
		{"410", noMin, 410, []string{"Cache-Control: max-age=100"}, never},
		{"429", noMin, 429, []string{"Cache-Control: max-age=100"}, never},
	} {
		h := header(c.header...)
		if h.Get("Date") == "" {
			h.Set("Date", at(0))
		}
		l := Of(Response{Status: c.status, Header: h, Requested: received, Received: received}, c.ttl, defaultErrorTTL)
		got := l.TTL
		if !l.Store {
			got = never
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestErrorsAreNotKeptWhereTheErrorPageSaysSo(t *testing.T) {
	pages := []distribution.ErrorPage{{Status: 404, MinTTL: 0}, {Status: 500, MinTTL: 77 * s}}
	for status, want := range map[int]time.Duration{404: 0, 500: 77 * s, 503: 10 * s} {
		got := ErrorTTL(pages, status)
		if got != want {
			t.Errorf("%d: %v", status, got)
		}
		l := Of(Response{Status: status, Received: received}, noMin, got)
		if l.Store != (want > 0) || l.TTL != want {
			t.Errorf("%d: %+v", status, l)
		}
	}
}

func TestAnswersToAuthorizedRequests(t *testing.T) {
	for control, want := range map[string]bool{
		"": false, "max-age=100": false, "public": true, "s-maxage=100": true, "max-age=100, must-revalidate": true, "public, no-store": false,
	} {
		r := Response{Status: 200, Header: header("Cache-Control: " + control), Received: received, Authorized: true}
		if l := Of(r, noMin, 0); l.Store != want {
			t.Errorf("%q: stored %v", control, l.Store)
		}
	}
}

func TestWhatExpiredObjectsMayBeUsedFor(t *testing.T) {
	for _, c := range []struct {
		control string
		ttl     distribution.TTL
		after   time.Duration
		state   State
		onError bool
	}{
		{"max-age=100", noMin, 99 * s, Fresh, true},
		{"max-age=100", noMin, 100 * s, Expired, true},
		{"max-age=100", noMin, 1000 * day, Expired, true},
		{"max-age=100, stale-while-revalidate=50", noMin, 100 * s, Stale, true},
		{"max-age=100, stale-while-revalidate=50", noMin, 149 * s, Stale, true},
		{"max-age=100, stale-while-revalidate=50", noMin, 150 * s, Expired, true},
		{"max-age=100, stale-if-error=50", noMin, 149 * s, Expired, true},
		{"max-age=100, stale-if-error=50", noMin, 150 * s, Expired, false},
		{"max-age=100, stale-if-error=0", noMin, 100 * s, Expired, false},
		{"max-age=1, stale-if-error=0", withMin, 61 * s, Expired, false},
		{"max-age=100, stale-if-error=20, stale-while-revalidate=50", noMin, 140 * s, Stale, true},
		{"max-age=100, must-revalidate", noMin, 100 * s, Expired, false},
		{"max-age=100, proxy-revalidate, stale-while-revalidate=50", noMin, 100 * s, Expired, false},
		{"max-age=100, must-revalidate, stale-if-error=50", noMin, 100 * s, Expired, false},
		{"s-maxage=100, stale-while-revalidate=50", noMin, 100 * s, Stale, true},
		// Both windows end with the maximum.
		{"max-age=80, stale-while-revalidate=50", short, 99 * s, Stale, true},
		{"max-age=80, stale-while-revalidate=50", short, 100 * s, Expired, true},
		{"max-age=80, stale-if-error=50", short, 100 * s, Expired, false},
	} {
		l := Of(Response{Status: 200, Header: header("Cache-Control: "+c.control, "Date: "+at(0)), Received: received}, c.ttl, 0)
		now := received.Add(c.after)
		if l.State(now) != c.state || l.OnError(now) != c.onError {
			t.Errorf("%q after %v: %v, on errors %v", c.control, c.after, l.State(now), l.OnError(now))
		}
	}
}

func TestAge(t *testing.T) {
	for _, c := range []struct {
		header    []string
		requested time.Duration
		after     time.Duration
		want      time.Duration
	}{
		{[]string{"Date: " + at(0)}, 0, 0, 0},
		{[]string{"Date: " + at(0)}, 0, 1500 * time.Millisecond, s},
		{[]string{"Date: " + at(0), "Age: 10"}, 0, 5 * s, 15 * s},
		{[]string{"Date: " + at(-20*s)}, 0, 5 * s, 25 * s},
		{[]string{"Date: " + at(-20*s), "Age: 10"}, 0, 5 * s, 25 * s},
		{[]string{"Date: " + at(-20*s), "Age: 30"}, 0, 5 * s, 35 * s},
		{[]string{"Date: " + at(0), "Age: 10"}, -3 * s, 5 * s, 18 * s}, // the request took 3 s
		{[]string{"Date: " + at(20*s)}, 0, 5 * s, 5 * s},               // the origin's clock is ahead
		{nil, 0, 5 * s, 5 * s},
	} {
		l := Of(Response{Status: 200, Header: header(c.header...), Requested: received.Add(c.requested), Received: received}, noMin, 0)
		if got := l.Age(received.Add(c.after)); got != c.want {
			t.Errorf("%q after %v: %v, want %v", c.header, c.after, got, c.want)
		}
	}
}

func TestFieldsThatAreNotToBeStored(t *testing.T) {
	cc := ParseCacheControl(header(`Cache-Control: no-cache="set-cookie, X-Secret", private="x-other"`))
	if fmt.Sprint(cc.Fields) != "[Set-Cookie X-Secret X-Other]" || cc.NoCache || cc.Private {
		t.Errorf("%+v", cc)
	}
}

func TestConditionalRequests(t *testing.T) {
	v := Validators{ETag: `"a"`, LastModified: at(0)}
	weakly := Validators{ETag: `W/"a"`, LastModified: at(0)}
	for _, c := range []struct {
		v       Validators
		request []string
		want    int
	}{
		{v, nil, 0},
		{v, []string{`If-None-Match: "a"`}, 304},
		{v, []string{`If-None-Match: W/"a"`}, 304},
		{weakly, []string{`If-None-Match: "a"`}, 304},
		{v, []string{`If-None-Match: "x", "a"`}, 304},
		{v, []string{`If-None-Match: "x"`, `If-None-Match: "a"`}, 304},
		{v, []string{`If-None-Match: "a,b"`}, 0},
		{v, []string{`If-None-Match: *`}, 304},
		{v, []string{`If-None-Match: "b"`}, 0},
		{v, []string{`If-None-Match: a`}, 0},
		{Validators{}, []string{`If-None-Match: "a"`}, 0},
		{v, []string{"If-Modified-Since: " + at(0)}, 304},
		{v, []string{"If-Modified-Since: " + at(s)}, 304},
		{v, []string{"If-Modified-Since: " + at(-s)}, 0},
		{v, []string{"If-Modified-Since: yesterday"}, 0},
		{Validators{}, []string{"If-Modified-Since: " + at(0)}, 0},
		// If-None-Match makes If-Modified-Since void.
		{v, []string{`If-None-Match: "b"`, "If-Modified-Since: " + at(s)}, 0},
		{v, []string{`If-None-Match: "a"`, "If-Modified-Since: " + at(-s)}, 304},
		{v, []string{`If-Match: "a"`}, 0},
		{v, []string{`If-Match: *`}, 0},
		{v, []string{`If-Match: "b"`}, 412},
		{weakly, []string{`If-Match: W/"a"`}, 412},
		{v, []string{"If-Unmodified-Since: " + at(0)}, 0},
		{v, []string{"If-Unmodified-Since: " + at(-s)}, 412},
		{v, []string{`If-Match: "a"`, "If-Unmodified-Since: " + at(-s)}, 0},
		{v, []string{`If-Match: "a"`, `If-None-Match: "a"`}, 304},
	} {
		if got := Condition(header(c.request...), c.v); got != c.want {
			t.Errorf("%q with %q: %d, want %d", c.request, c.v.ETag, got, c.want)
		}
	}
}

func TestRanges(t *testing.T) {
	v := Validators{ETag: `"a"`, LastModified: at(0)}
	for _, c := range []struct {
		request []string
		size    int64
		want    string
	}{
		{nil, 100, "200 []"},
		{[]string{"Range: bytes=0-9"}, 100, "206 [{0 10}]"},
		{[]string{"Range: bytes=90-"}, 100, "206 [{90 10}]"},
		{[]string{"Range: bytes=-5"}, 100, "206 [{95 5}]"},
		{[]string{"Range: bytes=-500"}, 100, "206 [{0 100}]"},
		{[]string{"Range: bytes=90-900"}, 100, "206 [{90 10}]"},
		{[]string{"Range: Bytes = 0-0"}, 100, "206 [{0 1}]"},
		{[]string{"Range: bytes=0-9,20-29"}, 100, "206 [{0 10} {20 10}]"},
		{[]string{"Range: bytes=0-9, 200-300"}, 100, "206 [{0 10}]"},
		{[]string{"Range: bytes=20-29,0-9"}, 100, "200 []"},
		{[]string{"Range: bytes=0-9,5-19"}, 100, "200 []"},
		{[]string{"Range: bytes=100-"}, 100, "416 []"},
		{[]string{"Range: bytes=-0"}, 100, "416 []"},
		{[]string{"Range: bytes=0-"}, 0, "416 []"},
		{[]string{"Range: bytes=9-0"}, 100, "200 []"},
		{[]string{"Range: bytes=a-b"}, 100, "200 []"},
		{[]string{"Range: bytes="}, 100, "200 []"},
		{[]string{"Range: bytes=-"}, 100, "200 []"},
		{[]string{"Range: bytes=+1-2"}, 100, "200 []"},
		{[]string{"Range: lines=0-9"}, 100, "200 []"},
		{[]string{"Range: bytes=0-9", "Range: bytes=20-29"}, 100, "200 []"},
		{[]string{"Range: bytes=0-99999999999999999999"}, 100, "206 [{0 100}]"},
		{[]string{"Range: bytes=99999999999999999999-"}, 100, "416 []"},
		{[]string{"Range: bytes=" + strings.Repeat("0-0,", maxRanges+1)}, 100, "200 []"},
		{[]string{"Range: bytes=0-9", `If-Range: "a"`}, 100, "206 [{0 10}]"},
		{[]string{"Range: bytes=0-9", `If-Range: W/"a"`}, 100, "200 []"},
		{[]string{"Range: bytes=0-9", `If-Range: "b"`}, 100, "200 []"},
		{[]string{"Range: bytes=0-9", "If-Range: " + at(0)}, 100, "206 [{0 10}]"},
		{[]string{"Range: bytes=0-9", "If-Range: " + at(s)}, 100, "200 []"},
	} {
		ranges, status := Select(header(c.request...), v, c.size)
		if got := fmt.Sprint(status, " ", ranges); got != c.want {
			t.Errorf("%q: %s, want %s", c.request, got, c.want)
		}
	}
	if got := (Range{10, 5}).ContentRange(100); got != "bytes 10-14/100" {
		t.Error(got)
	}
}

func TestRefreshTakesTheFieldsOfA304ButThoseOfTheBody(t *testing.T) {
	stored := header("Content-Type: a", "Content-Length: 5", "Etag: W/\"x\"", "X-Old: 1", "X-Both: 1", "Age: 50", "Cache-Control: max-age=1")
	got := Refresh(stored, header("Content-Type: b", "Content-Length: 0", "Etag: \"x\"", "X-Both: 2", "X-Both: 3", "X-New: 4", "Cache-Control: max-age=2", "Connection: close"))
	want := header("Content-Type: a", "Content-Length: 5", "Etag: W/\"x\"", "X-Old: 1", "X-Both: 2", "X-Both: 3", "X-New: 4", "Cache-Control: max-age=2")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	if stored.Get("X-Both") != "1" || stored.Get("Age") != "50" {
		t.Error("the stored header has changed")
	}
}

func FuzzFieldsOfTheNetwork(f *testing.F) {
	f.Add(`max-age=1, no-cache="a, b"`, "bytes=0-1,3-", `W/"a", "b"`)
	f.Fuzz(func(t *testing.T, control, ranges, tags string) {
		h := http.Header{"Cache-Control": {control}, "Range": {ranges}, "If-None-Match": {tags}, "If-Range": {tags}}
		l := Of(Response{Status: 200, Header: h, Received: received}, withMin, 0)
		if !l.Store || l.TTL < withMin.Min || l.TTL > withMin.Max || l.WhileRevalidate < 0 || l.TTL+l.WhileRevalidate > withMin.Max {
			t.Errorf("%q: %+v", control, l)
		}
		Condition(h, Validators{ETag: `"a"`})
		got, status := Select(h, Validators{ETag: tags}, 1000)
		end := int64(0)
		for _, r := range got {
			if r.Start < end || r.Length <= 0 || r.Start+r.Length > 1000 {
				t.Errorf("%q: %v", ranges, got)
			}
			end = r.Start + r.Length
		}
		if (status == 206) != (len(got) > 0) {
			t.Errorf("%q: %d with %v", ranges, status, got)
		}
	})
}
