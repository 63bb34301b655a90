package edge

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/freshness"
)

// errWhole tells those who wait for a part of an object that its origin has sent
// the whole of it.
var errWhole = errors.New("the origin sent the whole object")

// answer finds the answer to a request: in the cache, or at an origin.
func (x *exchange) answer() (*answer, error) {
	if !x.plan.Caches(x.request.Method) || x.body != nil {
		return x.alone() // a body, which OPTIONS may have, is in no key
	}
	key := x.key("")
	if a := x.cached(key, ""); a != nil {
		return a, nil
	}
	if x.request.Method == http.MethodHead {
		return x.some(headOnly)
	}
	if a, err := x.private(key); a != nil || err != nil {
		return a, err
	}
	if part := x.part(); part != "" {
		a, err := x.some(part)
		if err == nil && x.unwanted(a) {
			a.release()
			return x.shared(key, "")
		}
		if !errors.Is(err, errWhole) {
			return a, err
		}
		if a := x.cached(x.key(""), ""); a != nil {
			return a, nil
		}
	}
	return x.shared(key, "")
}

// some answers with a part of an object that is not there.
func (x *exchange) some(part string) (*answer, error) {
	key := x.key(part)
	if a := x.cached(key, part); a != nil {
		return a, nil
	}
	return x.shared(key, part)
}

// unwanted tells whether a part is none of the object that If-Range names: then the
// viewer gets the whole.
func (x *exchange) unwanted(a *answer) bool {
	return (a.status == http.StatusPartialContent || a.status == http.StatusRequestedRangeNotSatisfiable) &&
		!freshness.IfRange(x.r.Header, freshness.ValidatorsOf(a.header))
}

// headOnly is the part of an object that a HEAD asks for, which CloudFront keeps
// like any other ("caches the response to GET and HEAD requests"). A stored GET
// answers a HEAD, but not the other way round.
const headOnly = "HEAD"

// key is that of the object, or of a part of it.
func (x *exchange) key(part string) cache.Key {
	var buffer [512]byte
	b := append(buffer[:0], x.site.d.ID...)
	b = append(b, 0)
	b = x.plan.AppendKey(b, &x.request)
	b = append(b, part...)
	if x.origin != "" { // what one member of a group says is not the group's answer
		b = append(b, 0)
		b = append(b, x.origin...)
	}
	return sha256.Sum256(b)
}

// part returns the one range that a viewer wants, empty where it wants all, or
// several, which are cut from the whole.
func (x *exchange) part() string {
	lines := x.r.Header["Range"]
	if len(lines) != 1 || x.request.Method != http.MethodGet || strings.IndexByte(lines[0], ',') >= 0 {
		return ""
	}
	if unit, _, ok := strings.Cut(lines[0], "="); !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return ""
	}
	return lines[0]
}

// cached answers from the cache, with an object, or the part of one, that is fresh
// or may be used all the same; nil: there is none.
func (x *exchange) cached(key cache.Key, part string) *answer {
	o, ok := x.s.cache.Get(key)
	if !ok {
		return nil
	}
	now := time.Now()
	switch state := o.Head.Lifetime.State(now); {
	case state == fresh, o.Held(now):
		return hit(o, now, resultHit)
	case state == stale:
		x.refresh(key, part)
		return hit(o, now, resultHit)
	}
	o.Release()
	return nil
}

// hit makes an answer of an object.
func hit(o *cache.Object, now time.Time, result string) *answer {
	a := &answer{
		status: o.Head.Status, header: o.Head.Header, object: o, length: o.Head.Length,
		result: result, age: o.Head.Lifetime.Age(now),
	}
	a.failure = o.Head.Note[noteFailure]
	if n, err := strconv.ParseInt(o.Head.Note[noteLength], 10, 64); err == nil {
		a.length = n
	}
	return a
}

// alone asks the origin for this viewer and nobody else.
func (x *exchange) alone() (*answer, error) {
	j := x.job()
	j.passConditions(x.request.Header)
	f, err := j.ask(x.r.Context())
	if err != nil {
		return nil, err
	}
	return f.answer(), nil
}

// answer makes an answer of what an origin sent.
func (f *fetched) answer() *answer {
	a := &answer{
		status: f.status, header: f.header, body: f.body, length: f.length, result: resultMiss, age: -1, trailer: f.trailer,
		firstByte: f.received.Sub(f.requested), cut: f.cut,
	}
	if f.result != "" {
		a.result = f.result
	}
	if f.from != nil {
		a.layer = f.from.Layer
	}
	return a
}

// shared has one request to the origin answer all who want the object by now.
func (x *exchange) shared(key cache.Key, part string) (*answer, error) {
	f, leads := x.s.cache.Fill(key, int(x.depth()))
	if f == nil {
		return x.alone()
	}
	if !leads && !x.plan.Collapses() {
		f.Leave()
		return x.alone()
	}
	var l *lead
	if leads {
		l = x.lead(key, part, f)
	}
	o, err := f.Object(x.r.Context())
	if err == nil {
		return x.filled(o, l), nil
	}
	if !errors.Is(err, cache.ErrUnshared) {
		if l != nil {
			l.leave()
		}
		return nil, err
	}
	if l == nil {
		return x.alone()
	}
	// It is this viewer's own answer that nobody else may have.
	own := <-l.own
	stop := context.AfterFunc(x.r.Context(), own.cancel)
	a := own.answer()
	a.body = &closing{a.body, func() { stop(); own.cancel() }}
	return a, nil
}

// filled makes an answer of an object that a fill has brought. Those who waited
// for somebody else's request count as hits.
func (x *exchange) filled(o *cache.Object, l *lead) *answer {
	now := time.Now()
	if l == nil {
		return hit(o, now, resultHit)
	}
	a := hit(o, now, l.result)
	a.firstByte, a.layer = l.firstByte, l.layer
	if l.fields != nil {
		a.header = maps.Clone(a.header)
		maps.Copy(a.header, l.fields)
	}
	if l.result == resultMiss && a.age == 0 {
		a.age = -1
	}
	return a
}
