// Package freshness has the rules of HTTP caching as CloudFront applies them, as
// pure functions: whether an origin's answer may be stored and for how long, what
// an expired object may still be used for, its age, whether a viewer's conditional
// request is answered with 304 or 412, and which part of an object a Range asks
// for.
//
// The rules are those of RFC 9110, RFC 9111 and RFC 5861, within the minimum,
// default and maximum TTL of a behaviour as the CloudFront developer guide has
// them ("Managing how long content stays in the cache (expiration)" and "How
// CloudFront processes and caches HTTP 4xx and 5xx status codes from your
// origin"). Where the two differ, the guide wins. CDN-Cache-Control (RFC 9213) is
// not read, as CloudFront does not.
package freshness

import (
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// defaultErrorTTL is how long errors are kept where no error page says otherwise.
const defaultErrorTTL = 10 * time.Second

// Response is what the rules look at of an origin's answer.
type Response struct {
	Status int
	Header http.Header
	// Requested is when the request was sent, Received when the head of the
	// answer had come.
	Requested, Received time.Time
	// Authorized tells that the request was forwarded with an Authorization
	// field that is no part of the cache key.
	Authorized bool
}

// Lifetime is how long an answer may be used, counted from its receipt. The zero
// Lifetime is that of an answer that must not be stored.
type Lifetime struct {
	// Store tells that the answer may be stored. It may be so with a TTL of 0:
	// then each use has it revalidated first.
	Store bool
	// Received is when the answer, or the 304 that last refreshed it, came.
	Received time.Time
	// InitialAge is how old the answer was then (corrected_initial_age of RFC
	// 9111, 4.2.3).
	InitialAge time.Duration
	// TTL is how long after Received it is fresh.
	TTL time.Duration
	// WhileRevalidate is how long after its TTL it may be served at once while it
	// is refreshed in the background (stale-while-revalidate).
	WhileRevalidate time.Duration
	// IfError is how long after its TTL it may be served where the origin fails
	// (stale-if-error); negative: for as long as it is there, which is what
	// CloudFront does with objects that do not say.
	IfError time.Duration
}

// State is what may be done with a stored object at some time.
type State int

// The states.
const (
	Fresh   State = iota // serve it
	Stale                // serve it, and refresh it in the background
	Expired              // ask the origin first
)

// State tells what may be done with the object now.
func (l Lifetime) State(now time.Time) State {
	switch since := now.Sub(l.Received); {
	case since < l.TTL:
		return Fresh
	case l.WhileRevalidate > 0 && since < l.TTL+l.WhileRevalidate:
		return Stale
	default:
		return Expired
	}
}

// OnError tells whether the object may be served now where the origin has failed:
// it could not be reached, did not answer in time, or answered with 500, 502, 503
// or 504.
func (l Lifetime) OnError(now time.Time) bool {
	return l.IfError < 0 || now.Sub(l.Received) < l.TTL+max(l.IfError, l.WhileRevalidate)
}

// Age is the value of the Age field now, in whole seconds.
func (l Lifetime) Age(now time.Time) time.Duration {
	return (l.InitialAge + max(now.Sub(l.Received), 0)).Truncate(time.Second)
}

// At returns the lifetime as of a later time, for another cache that has the answer
// from this one: what is left of each span. The two together keep the answer for no
// longer than one of them would.
func (l Lifetime) At(now time.Time) Lifetime {
	since := max(now.Sub(l.Received), 0)
	over := max(since-l.TTL, 0)
	l.Received, l.InitialAge = now, l.InitialAge+since
	l.TTL = max(l.TTL-since, 0)
	l.WhileRevalidate = max(l.WhileRevalidate-over, 0)
	if l.IfError > 0 {
		l.IfError = max(l.IfError-over, 0)
	}
	return l
}

// Collapses tells whether the answer may go to others who wait for it, as
// CloudFront shares nothing that it would not serve again.
func (l Lifetime) Collapses() bool { return l.Store && l.TTL > 0 }

// ErrorTTL returns how long an error of the origin is kept at least
// (ErrorCachingMinTTL).
func ErrorTTL(pages []distribution.ErrorPage, status int) time.Duration {
	for i := range pages {
		if pages[i].Status == status {
			return pages[i].MinTTL
		}
	}
	return defaultErrorTTL
}

// Failed tells whether a status is one on which a stale object may be served
// instead (RFC 5861, 4).
func Failed(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Of returns the lifetime of an origin's answer. ttl is the behaviour's; errorTTL
// is ErrorTTL's for the answer's status.
func Of(r Response, ttl distribution.TTL, errorTTL time.Duration) Lifetime {
	cc := ParseCacheControl(r.Header)
	l := Lifetime{Received: r.Received, InitialAge: initialAge(r), IfError: -1}
	explicit, says := explicitTTL(r, cc)
	explicit = max(explicit-l.InitialAge, 0)
	switch class(r.Status) {
	case byHeader:
		if !l.byHeader(r, cc, ttl, explicit, says) {
			return Lifetime{}
		}
	case always:
		l.TTL = errorTTL
		if says {
			l.TTL = max(l.TTL, min(explicit, ttl.Max))
		}
		l.Store = l.TTL > 0
	case ifSaid:
		if _, aged := cc.age(); !aged {
			return Lifetime{}
		}
		l.TTL = max(errorTTL, min(explicit, ttl.Max))
		l.Store = l.TTL > 0
	default:
		return Lifetime{}
	}
	l.stale(cc, ttl)
	return l
}

// byHeader decides about answers that are no errors, and tells whether they may
// be stored.
func (l *Lifetime) byHeader(r Response, cc CacheControl, ttl distribution.TTL, explicit time.Duration, says bool) bool {
	l.Store = true
	switch {
	case cc.NoCache && !cc.NoStore && !cc.Private && !r.Authorized && !varyAll(r.Header):
		l.TTL = ttl.Min // without one, each use has it revalidated
	case cc.NoStore || cc.NoCache || cc.Private,
		r.Authorized && !(cc.Public || cc.SMaxAge.Set || cc.MustRevalidate),
		varyAll(r.Header):
		// With a minimum, CloudFront keeps even these for as long as that.
		l.TTL = ttl.Min
		l.Store = ttl.Min > 0
		if varyAll(r.Header) && l.Store && !(cc.NoStore || cc.NoCache || cc.Private) && says {
			l.TTL = clamp(explicit, ttl)
		}
	case says:
		l.TTL = clamp(explicit, ttl)
	default:
		l.TTL = max(ttl.Min, ttl.Default)
	}
	return l.Store
}

// stale sets what the object may be used for when its TTL is over. Both windows
// end with the behaviour's maximum.
func (l *Lifetime) stale(cc CacheControl, ttl distribution.TTL) {
	room := max(ttl.Max-l.TTL, 0)
	if cc.StaleIfError.Set {
		l.IfError = min(cc.StaleIfError.Value, room)
	}
	if cc.MustRevalidate || cc.ProxyRevalidate {
		l.IfError = 0
		return
	}
	if cc.StaleWhileRevalidate.Set {
		l.WhileRevalidate = min(cc.StaleWhileRevalidate.Value, room)
	}
}

// clamp bounds what the origin says.
func clamp(d time.Duration, ttl distribution.TTL) time.Duration {
	return max(min(d, ttl.Max), ttl.Min)
}

// The classes of statuses.
type statusClass int

const (
	never    statusClass = iota
	byHeader             // as the header and the TTLs say
	always               // for the time of errors at least
	ifSaid               // only where the origin sends max-age or s-maxage
)

// class is the table of the developer guide.
func class(status int) statusClass {
	switch {
	case status == http.StatusNotModified, status == http.StatusPartialContent:
		return never // not an answer by itself
	case status >= 200 && status < 400:
		return byHeader
	}
	switch status {
	case 404, 414, 500, 501, 502, 503, 504:
		return always
	case 400, 403, 405, 412, 415:
		return ifSaid
	}
	return never
}

// explicitTTL is the lifetime that the origin gives from the moment at which it
// made the answer, and whether it gives one.
func explicitTTL(r Response, cc CacheControl) (time.Duration, bool) {
	if d, ok := cc.age(); ok {
		return d, true
	}
	v := r.Header.Values("Expires")
	if len(v) == 0 {
		return 0, false
	}
	expires, ok := parseDate(v[0])
	if !ok {
		return 0, true // such as "0": it has expired
	}
	return max(expires.Sub(date(r)), 0), true
}

// date is when the origin made the answer.
func date(r Response) time.Time {
	if d, ok := parseDate(r.Header.Get("Date")); ok {
		return d
	}
	return r.Received
}

// initialAge is corrected_initial_age of RFC 9111, 4.2.3.
func initialAge(r Response) time.Duration {
	// Date has whole seconds, so that an answer of this second seems to be up to
	// one second old.
	apparent := max(r.Received.Sub(date(r)), 0).Truncate(time.Second)
	var age time.Duration
	for v := range list(r.Header.Values("Age")) {
		age = parseSeconds(v).Value // 0 where it is no number
		break                       // of several, the first counts (RFC 9111, 5.1)
	}
	delay := max(r.Received.Sub(r.Requested), 0)
	if r.Requested.IsZero() {
		delay = 0
	}
	return max(apparent, age+delay)
}

// varyAll tells whether Vary has a "*".
func varyAll(h http.Header) bool {
	for name := range list(h.Values("Vary")) {
		if name == "*" {
			return true
		}
	}
	return false
}
