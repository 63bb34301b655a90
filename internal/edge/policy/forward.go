package policy

import (
	"net/http"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// neverForwarded are headers that no origin gets from a viewer, whatever is
// configured: those of one connection only (RFC 9110, 7.6.1), and those that the
// edge makes by itself.
var neverForwarded = set([]string{
	"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
	"transfer-encoding", "upgrade", "expect", "content-length", "accept-encoding", "cookie", "host",
	"via", "x-amz-cf-id", "x-forwarded-for",
})

// legacyRemoved are headers that an origin does not get where ForwardedValues
// rule and do not name them ("HTTP request headers and CloudFront behavior").
var legacyRemoved = set([]string{
	"accept", "accept-charset", "accept-language", "referer", "x-forwarded-proto", "x-http-method-override", "x-real-ip", "user-agent",
})

// withBody are headers that describe a request's body and go where it goes.
var withBody = set([]string{"content-type", "content-encoding", "content-md5", "content-language", "x-amz-content-sha256"})

// compileForward prepares which headers are forwarded, and which are made.
func (p *Plan) compileForward() {
	b := p.Behaviour
	key := set(nil)
	if b.Key.Headers.Mode == distribution.ModeOnly {
		key = set(b.Key.Headers.Names)
	}
	also := set(b.Forward.Headers.Names)
	mode := b.Forward.Headers.Mode
	if b.Key.Headers.Mode == distribution.ModeAll {
		mode = distribution.ModeAll
	}
	p.forwards = func(name string) bool {
		switch {
		case key[name]:
			return true
		case mode == distribution.ModeAll, mode == distribution.ModeAllAnd:
			return true
		case mode == distribution.ModeOnly:
			return also[name]
		case mode == distribution.ModeExcept:
			return !also[name]
		}
		return b.Legacy && !legacyRemoved[name] && name != "authorization" && name != "host"
	}
	p.host = p.forwards("host")
	made := map[string]bool{}
	for name := range key {
		made[name] = true
	}
	if mode == distribution.ModeOnly || mode == distribution.ModeAllAnd {
		for name := range also {
			made[name] = true
		}
	}
	for name := range made {
		if strings.HasPrefix(name, madePrefix) {
			p.made = append(p.made, http.CanonicalHeaderKey(name))
		}
	}
	slices.Sort(p.made)
	p.vary = map[string]bool{"accept-encoding": true, "cookie": true}
}

// Made returns the canonical names of the headers that CloudFront is to make of a
// request ("CloudFront-Viewer-Country"), and whether any of them is in the key.
func (p *Plan) Made() (names []string, keyed bool) { return p.made, p.madeKeyed }

// SetMade puts the made headers into a request's header: what a viewer sent by
// such a name is dropped. value returns nothing where there is no such value.
func (p *Plan) SetMade(h http.Header, value func(name string) string) {
	for name := range h {
		if len(name) > len(madePrefix) && strings.EqualFold(name[:len(madePrefix)], madePrefix) {
			delete(h, name)
		}
	}
	for _, name := range p.made {
		if v := value(name); v != "" {
			h[name] = []string{v}
		}
	}
}

// Forwarded is what an origin gets of a request.
type Forwarded struct {
	Query string
	// Host is empty where the origin gets its own name.
	Host   string
	Header http.Header
}

// Forward returns what an origin gets of a viewer's request, before what the edge
// adds by itself: it has no Via, X-Forwarded-For and X-Amz-Cf-Id.
func (p *Plan) Forward(r *Request) Forwarded {
	b := p.Behaviour
	f := Forwarded{Header: make(http.Header, len(r.Header)+4)}
	body := r.Method != http.MethodGet && r.Method != http.MethodHead
	for name, values := range r.Header {
		lower := strings.ToLower(name)
		if neverForwarded[lower] || strings.HasPrefix(lower, "x-edge-") {
			continue
		}
		switch {
		case p.forwards(lower), body && withBody[lower], b.Legacy && body && lower == "authorization":
			f.Header[name] = values
		}
	}
	if _, ok := f.Header["User-Agent"]; !ok {
		f.Header["User-Agent"] = []string{"Amazon CloudFront"}
	}
	if p.host {
		f.Host = r.Host
	}
	if e := p.Encodings(r); e.String() != "" {
		f.Header["Accept-Encoding"] = []string{e.String()}
	} else if !b.AcceptGzip && !b.AcceptBrotli && p.names("accept-encoding") {
		f.Header["Accept-Encoding"] = r.Header["Accept-Encoding"]
	}
	if cookies := p.cookies(r); cookies != "" {
		f.Header["Cookie"] = []string{cookies}
	}
	f.Query = p.query(r.Query)
	return f
}

// names tells whether a policy names a header, rather than taking all.
func (p *Plan) names(name string) bool {
	b := p.Behaviour
	for _, c := range []distribution.Choice{b.Key.Headers, b.Forward.Headers} {
		switch c.Mode {
		case distribution.ModeOnly:
			if slices.Contains(c.Names, name) {
				return true
			}
		case distribution.ModeAll, distribution.ModeAllAnd:
			return true
		}
	}
	return false
}

// cookies returns the Cookie header that an origin gets: what either of the
// policies chooses.
func (p *Plan) cookies(r *Request) string {
	if !p.Cookies {
		return ""
	}
	var b strings.Builder
	for _, line := range r.Header["Cookie"] {
		for cookie := range eachCookie(line) {
			name := cookieName(cookie)
			if !takes(&p.Behaviour.Key.Cookies, name) && !takes(&p.Behaviour.Forward.Cookies, name) {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("; ")
			}
			b.WriteString(cookie)
		}
	}
	return b.String()
}

// query returns the query string that an origin gets: what either of the policies
// chooses, in the viewer's order.
func (p *Plan) query(raw string) string {
	key, also := &p.Behaviour.Key.Query, &p.Behaviour.Forward.Query
	if raw == "" || key.Mode == distribution.ModeAll || also.Mode == distribution.ModeAll {
		return raw
	}
	if !chooses(*key) && !chooses(*also) {
		return ""
	}
	var b strings.Builder
	for pair := range strings.SplitSeq(raw, "&") {
		if name := queryName(pair); !takes(key, name) && !takes(also, name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(pair)
	}
	return b.String()
}
