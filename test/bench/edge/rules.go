package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rule is a case of what the RFCs 9110, 9111 and 5861 say of shared caches: what
// the origin answers, in turn, what a viewer asks, and what must come of it.
type rule struct {
	group, name string
	origin      []string // answers, the last one for all further requests
	viewer      []string // requests
	// want is what must come of the last request.
	want outcome
	// optional tells that the RFCs permit other outcomes.
	optional bool
}

// An answer of the origin is written as "STATUS; Name: value; …", a request of the
// viewer as "METHOD; Name: value; …". {N} stands for the date in N seconds, and
// "wait N;" before a request for a pause. The origin's body tells how often it was
// asked.

// outcome looks at what came of a case.
type outcome func(o *observed) bool

// observed is what happened.
type observed struct {
	seen    []*http.Request // by the origin
	answers []*http.Response
	bodies  []string
}

func (o *observed) last() (*http.Response, string) {
	return o.answers[len(o.answers)-1], o.bodies[len(o.bodies)-1]
}

func stored(o *observed) bool { return len(o.seen) == 1 && o.bodies[len(o.bodies)-1] == body(1) }

func fetched(o *observed) bool {
	_, b := o.last()
	return len(o.seen) == len(o.answers) && b == body(len(o.seen))
}

func validated(name string) outcome {
	return func(o *observed) bool {
		a, b := o.last()
		return len(o.seen) == 2 && o.seen[1].Header.Get(name) != "" && a.StatusCode == http.StatusOK && b == body(1)
	}
}

func both(all ...outcome) outcome {
	return func(o *observed) bool {
		return !slices.ContainsFunc(all, func(f outcome) bool { return !f(o) })
	}
}

func asked(n int) outcome { return func(o *observed) bool { return len(o.seen) == n } }

func status(want int) outcome {
	return func(o *observed) bool { a, _ := o.last(); return a.StatusCode == want }
}

func field(name, pattern string) outcome {
	return func(o *observed) bool {
		a, _ := o.last()
		return regexp.MustCompile("^(" + pattern + ")$").MatchString(a.Header.Get(name))
	}
}

func content(want string) outcome {
	return func(o *observed) bool { _, b := o.last(); return b == want }
}

func not(f outcome) outcome { return func(o *observed) bool { return !f(o) } }

// body is what the origin sends the nth time.
func body(n int) string { return fmt.Sprintf("answer %d of the origin", n) }

const (
	get  = "GET"
	late = "wait 2; GET"
)

// fresh makes a case of one answer that is asked for twice.
func fresh(name, header string, want outcome) rule {
	return rule{group: "freshness", name: name, origin: []string{"200; " + header}, viewer: []string{get, get}, want: want}
}

func aged(name, header string, want outcome) rule {
	return rule{group: "freshness", name: name, origin: []string{"200; " + header}, viewer: []string{get, late}, want: want}
}

func may(r rule) rule { r.optional = true; return r }

var rules = []rule{
	fresh("max-age is used", "Cache-Control: max-age=3600", stored),
	fresh("s-maxage is used", "Cache-Control: s-maxage=3600", stored),
	fresh("Expires is used", "Expires: {3600}", stored),
	fresh("max-age is stronger than Expires", "Cache-Control: max-age=3600; Expires: {-3600}", stored),
	fresh("s-maxage is stronger than max-age", "Cache-Control: max-age=0, s-maxage=3600", stored),
	fresh("directives have no case", "Cache-Control: MaX-aGe=3600", stored),
	fresh("directives may come in two fields", "Cache-Control: public; Cache-Control: max-age=3600", stored),
	fresh("unknown directives are ignored", "Cache-Control: x-unknown=1, max-age=3600", stored),
	may(fresh("max-age may be quoted", `Cache-Control: max-age="3600"`, stored)),
	fresh("a very large max-age is a long time", "Cache-Control: max-age=99999999999", stored),
	fresh("max-age=0 is not fresh", "Cache-Control: max-age=0", not(stored)),
	fresh("s-maxage=0 is stronger than max-age", "Cache-Control: max-age=3600, s-maxage=0", not(stored)),
	fresh("Expires in the past is not fresh", "Expires: {-3600}", not(stored)),
	fresh("Expires that is no date is not fresh", "Expires: 0", not(stored)),
	fresh("Expires with spare spaces is no date", "Expires: Sat, 20  Aug  2050 02:01:18 GMT", not(stored)),
	fresh("Expires with an hour of one digit is no date", "Expires: Sat, 20 Aug 2050 2:01:18 GMT", not(stored)),
	may(fresh("Expires has no case", "Expires: Sat, 20 Aug 2050 02:01:18 gmt", stored)),
	fresh("of two ages in a line the first counts", "Cache-Control: max-age=100; Age: 200, 0", not(stored)),
	fresh("Age counts against max-age", "Cache-Control: max-age=100; Age: 200", not(stored)),
	fresh("the age by Date counts against max-age", "Cache-Control: max-age=100; Date: {-200}", not(stored)),
	fresh("a directive within a quoted string is none", `Cache-Control: x="max-age=3600", max-age=0`, not(stored)),
	aged("max-age ends", "Cache-Control: max-age=1", not(stored)),
	aged("s-maxage ends before max-age", "Cache-Control: max-age=3600, s-maxage=1", not(stored)),
	aged("Expires ends", "Expires: {1}", not(stored)),

	{group: "storing", name: "no-store is obeyed", origin: []string{"200; Cache-Control: no-store"}, viewer: []string{get, get}, want: fetched},
	{group: "storing", name: "no-store is stronger than max-age", origin: []string{"200; Cache-Control: max-age=3600, no-store"}, viewer: []string{get, get}, want: fetched},
	{group: "storing", name: "private is obeyed", origin: []string{"200; Cache-Control: private, max-age=3600"}, viewer: []string{get, get}, want: fetched},
	{group: "storing", name: "no-cache is not used without the origin", origin: []string{"200; Cache-Control: no-cache, max-age=3600"}, viewer: []string{get, get}, want: not(stored)},
	{group: "storing", name: "answers to POST are not for GET", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{"POST", get}, want: fetched},
	{group: "storing", name: "answers to Authorization are not stored", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{"GET; Authorization: Basic eDp5", get}, want: fetched},
	{group: "storing", name: "301 is stored", origin: []string{"301; Location: /x; Cache-Control: max-age=3600"}, viewer: []string{get, get}, want: both(asked(1), status(301)), optional: true},
	{group: "storing", name: "302 with max-age is stored", origin: []string{"302; Location: /x; Cache-Control: max-age=3600"}, viewer: []string{get, get}, want: both(asked(1), status(302)), optional: true},
	{group: "storing", name: "404 with max-age is stored", origin: []string{"404; Cache-Control: max-age=3600"}, viewer: []string{get, get}, want: both(asked(1), status(404)), optional: true},
	{group: "storing", name: "500 without a lifetime is not stored", origin: []string{"500"}, viewer: []string{get, get}, want: asked(2)},
	{group: "storing", name: "a body that is cut is not stored", origin: []string{"cut; Cache-Control: max-age=3600", "200; Cache-Control: max-age=3600"}, viewer: []string{get, get}, want: both(asked(2), content(body(2)))},
	{group: "storing", name: "206 is not the whole", origin: []string{"206; Content-Range: bytes 0-1/100; Cache-Control: max-age=3600", "200"}, viewer: []string{"GET; Range: bytes=0-1", get}, want: both(asked(2), status(200))},

	{group: "keys", name: "queries tell objects apart", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{"GET?a", "GET?b"}, want: fetched},
	{group: "keys", name: "Vary tells variants apart", origin: []string{"200; Cache-Control: max-age=3600; Vary: X-A"}, viewer: []string{"GET; X-A: 1", "GET; X-A: 2"}, want: fetched},
	{group: "keys", name: "Vary lets the same variant be used", origin: []string{"200; Cache-Control: max-age=3600; Vary: X-A"}, viewer: []string{"GET; X-A: 1", "GET; X-A: 1"}, want: stored, optional: true},
	{group: "keys", name: "Vary: * is never the same", origin: []string{"200; Cache-Control: max-age=3600; Vary: *"}, viewer: []string{get, get}, want: fetched},

	{group: "validation", name: "a stale object is validated by its ETag", origin: []string{`200; Cache-Control: max-age=1; ETag: "a"`, `304; ETag: "a"`}, viewer: []string{get, late}, want: validated("If-None-Match"), optional: true},
	{group: "validation", name: "a stale object is validated by Last-Modified", origin: []string{"200; Cache-Control: max-age=1; Last-Modified: {-5000}", "304"}, viewer: []string{get, late}, want: validated("If-Modified-Since"), optional: true},
	{group: "validation", name: "304 makes it fresh again", origin: []string{`200; Cache-Control: max-age=1; ETag: "a"`, `304; ETag: "a"; Cache-Control: max-age=3600`}, viewer: []string{get, late, get}, want: both(asked(2), content(body(1))), optional: true},
	{group: "validation", name: "304 changes the stored header", origin: []string{`200; Cache-Control: max-age=1; ETag: "a"; X-B: 1`, `304; ETag: "a"; Cache-Control: max-age=3600; X-B: 2`}, viewer: []string{get, late, get}, want: both(asked(2), field("X-B", "2"))},
	{group: "validation", name: "If-None-Match of a viewer is answered", origin: []string{`200; Cache-Control: max-age=3600; ETag: "a"`}, viewer: []string{get, `GET; If-None-Match: "a"`}, want: both(asked(1), status(304)), optional: true},
	{group: "validation", name: "If-None-Match compares weakly", origin: []string{`200; Cache-Control: max-age=3600; ETag: "a"`}, viewer: []string{get, `GET; If-None-Match: W/"a"`}, want: both(asked(1), status(304)), optional: true},
	{group: "validation", name: "If-None-Match finds one of a list", origin: []string{`200; Cache-Control: max-age=3600; ETag: "a"`}, viewer: []string{get, `GET; If-None-Match: "b", "a"`}, want: both(asked(1), status(304)), optional: true},
	{group: "validation", name: "If-Modified-Since of a viewer is answered", origin: []string{"200; Cache-Control: max-age=3600; Last-Modified: {-5000}"}, viewer: []string{get, "GET; If-Modified-Since: {-10}"}, want: both(asked(1), status(304)), optional: true},
	{group: "validation", name: "If-None-Match is stronger than If-Modified-Since", origin: []string{`200; Cache-Control: max-age=3600; Last-Modified: {-5000}; ETag: "a"`}, viewer: []string{get, `GET; If-None-Match: "b"; If-Modified-Since: {-10}`}, want: status(200)},

	{group: "age", name: "an object that was stored has an Age", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{get, late}, want: both(stored, field("Age", "[123]"))},
	{group: "age", name: "the Age that it came with counts", origin: []string{"200; Cache-Control: max-age=3600; Age: 100"}, viewer: []string{get, get}, want: both(stored, field("Age", "10[0-3]"))},

	{group: "stale", name: "must-revalidate forbids it", origin: []string{"200; Cache-Control: max-age=1, must-revalidate", "break"}, viewer: []string{get, late}, want: not(status(200))},
	{group: "stale", name: "proxy-revalidate forbids it", origin: []string{"200; Cache-Control: max-age=1, proxy-revalidate", "break"}, viewer: []string{get, late}, want: not(status(200))},
	{group: "stale", name: "stale-if-error allows it on 500", origin: []string{"200; Cache-Control: max-age=1, stale-if-error=60", "500"}, viewer: []string{get, late}, want: both(status(200), content(body(1))), optional: true},
	{group: "stale", name: "stale-if-error allows it where the origin breaks off", origin: []string{"200; Cache-Control: max-age=1, stale-if-error=60", "break"}, viewer: []string{get, late}, want: both(status(200), content(body(1))), optional: true},
	{group: "stale", name: "stale-while-revalidate serves at once and asks behind", origin: []string{"200; Cache-Control: max-age=1, stale-while-revalidate=60", "200; Cache-Control: max-age=3600"}, viewer: []string{get, late, "wait 1; GET"}, want: both(asked(2), content(body(2))), optional: true},

	{group: "parts", name: "a part of a stored object", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{get, "GET; Range: bytes=0-5"}, want: both(asked(1), status(206), content("answer")), optional: true},
	{group: "parts", name: "the end of a stored object", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{get, "GET; Range: bytes=-6"}, want: both(asked(1), status(206), content("origin")), optional: true},
	{group: "parts", name: "If-Range that does not hold gets all", origin: []string{`200; Cache-Control: max-age=3600; ETag: "a"`}, viewer: []string{get, `GET; Range: bytes=0-5; If-Range: "b"`}, want: both(status(200))},
	{group: "parts", name: "a part that there is not", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{get, "GET; Range: bytes=1000-"}, want: both(asked(1), status(416)), optional: true},

	{group: "methods", name: "HEAD is answered by a stored GET", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{get, "HEAD"}, want: both(asked(1), status(200), content("")), optional: true},
	{group: "methods", name: "HEAD does not store an empty body", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{"HEAD", get}, want: func(o *observed) bool { _, b := o.last(); return strings.HasPrefix(b, "answer") }},
	{group: "methods", name: "HEAD that refreshes leaves the body", origin: []string{"200; Cache-Control: max-age=1, stale-while-revalidate=60", "200; Cache-Control: max-age=3600"}, viewer: []string{get, "wait 2; HEAD", "wait 1; GET"}, want: func(o *observed) bool { _, b := o.last(); return strings.HasPrefix(b, "answer") }},
	{group: "methods", name: "HEAD is answered by a stored HEAD", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{"HEAD", "HEAD"}, want: both(asked(1), status(200), content("")), optional: true},
	{group: "methods", name: "POST that succeeds makes what is stored invalid", origin: []string{"200; Cache-Control: max-age=3600"}, viewer: []string{get, "POST", get}, want: asked(3)},

	{group: "fields", name: "fields that Connection names are not passed on", origin: []string{"200; Cache-Control: max-age=3600; Connection: X-Hop; X-Hop: 1"}, viewer: []string{get}, want: field("X-Hop", "")},
	{group: "fields", name: "a field that no-cache names is its viewer's", origin: []string{`200; Cache-Control: max-age=3600, no-cache="X-Own"; X-Own: 1`}, viewer: []string{get}, want: field("X-Own", "1")},
	{group: "fields", name: "a field that no-cache names is not stored", origin: []string{`200; Cache-Control: max-age=3600, no-cache="X-Own"; X-Own: 1`}, viewer: []string{get, get}, want: func(o *observed) bool { return len(o.seen) == 2 || field("X-Own", "")(o) }},
	{group: "fields", name: "fields that are not known are stored", origin: []string{"200; Cache-Control: max-age=3600; X-Odd: 1"}, viewer: []string{get, get}, want: both(stored, field("X-Odd", "1"))},
}

// play is the origin's side of a case.
type play struct {
	mu   sync.Mutex
	rule *rule
	seen []*http.Request
}

// serve answers the next request of a case.
func (p *play) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r)
	n := len(p.seen)
	script := p.rule.origin[min(n, len(p.rule.origin))-1]
	p.mu.Unlock()
	kind, rest, _ := strings.Cut(script, ";")
	for name, value := range fields(rest) {
		w.Header().Add(name, value)
	}
	switch kind {
	case "break":
		panic(http.ErrAbortHandler)
	case "cut":
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, body(n))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	code, err := strconv.Atoi(kind)
	if err != nil {
		panic(err) // the table of rules is wrong
	}
	text := body(n)
	if code == http.StatusPartialContent {
		text = text[:2]
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

var relative = regexp.MustCompile(`\{(-?\d+)\}`)

// fields reads "Name: value; …".
func fields(text string) func(yield func(name, value string) bool) {
	return func(yield func(string, string) bool) {
		for f := range strings.SplitSeq(text, "; ") {
			name, value, ok := strings.Cut(strings.TrimSpace(f), ": ")
			if !ok {
				continue
			}
			value = relative.ReplaceAllStringFunc(value, func(s string) string {
				n, _ := strconv.Atoi(s[1 : len(s)-1]) // it is a number
				return time.Now().Add(time.Duration(n) * time.Second).UTC().Format(http.TimeFormat)
			})
			if !yield(name, value) {
				return
			}
		}
	}
}

// conformance plays all rules with all servers, several at a time.
func (b *bench) conformance(ctx context.Context) error {
	for i := range rules {
		b.report.Rules = append(b.report.Rules, ruleRow{rules[i].group, rules[i].name, rules[i].optional, map[string]string{}})
	}
	var g sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, 16)
	for i := range rules {
		for _, s := range b.servers {
			slots <- struct{}{}
			g.Go(func() {
				defer func() { <-slots }()
				result := b.playRule(ctx, s, &rules[i], fmt.Sprintf("%d-%s-%d", i, s.name, time.Now().UnixNano()))
				mu.Lock()
				defer mu.Unlock()
				b.report.Rules[i].Results[s.name] = result
			})
		}
	}
	g.Wait()
	for _, s := range b.servers {
		b.report.ruleServers = append(b.report.ruleServers, s.name)
	}
	if b.rules == "" {
		return nil
	}
	f, err := os.Create(b.rules)
	if err != nil {
		return err
	}
	b.report.writeRules(f)
	return f.Close()
}

func (b *bench) playRule(ctx context.Context, s *server, r *rule, id string) string {
	p := &play{rule: r}
	b.origin.plays.Store(id, p)
	defer b.origin.plays.Delete(id)
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
	o := &observed{}
	for _, script := range r.viewer {
		if rest, ok := strings.CutPrefix(script, "wait "); ok {
			n, after, _ := strings.Cut(rest, "; ")
			seconds, _ := strconv.Atoi(n) // it is a number
			time.Sleep(time.Duration(seconds) * time.Second)
			script = after
		}
		method, rest, _ := strings.Cut(script, ";")
		method, query, _ := strings.Cut(method, "?")
		request, err := http.NewRequestWithContext(ctx, method, s.url("/rule/"+id+"?"+query), nil)
		if err != nil {
			return err.Error()
		}
		request.Host = s.host
		for name, value := range fields(rest) {
			request.Header.Add(name, value)
		}
		answer, err := client.Do(request)
		if err != nil {
			// Such as a connection that broke: there is no answer.
			answer = &http.Response{Header: http.Header{}, Body: http.NoBody}
		}
		text, _ := io.ReadAll(answer.Body) // what came of a body that is cut
		answer.Body.Close()
		o.answers, o.bodies = append(o.answers, answer), append(o.bodies, string(text))
	}
	p.mu.Lock()
	o.seen = p.seen
	p.mu.Unlock()
	if r.want(o) {
		return "yes"
	}
	return "no"
}
