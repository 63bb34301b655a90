// Package policy holds the rules of cache behaviours: which behaviour serves a
// path, what of a request tells variants of an object apart, what of it the
// origin gets, and what a viewer gets of the origin's answer.
//
// A Plan is a behaviour prepared for requests. Everything here is a function of
// records and requests: nothing is stored, read or sent.
//
// The rules are those of the CloudFront developer guide: "Cache behavior
// settings", "Controlling the cache key", "Controlling origin requests", "Request
// and response behavior for custom origins" and "Adding or removing HTTP headers
// in responses".
package policy

import (
	"net/http"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Request is what of a viewer's request, after its viewer-request function,
// takes part in caching and forwarding.
type Request struct {
	Method string
	Host   string
	// Path is escaped as the viewer or the function wrote it, Query is raw.
	Path, Query string
	Header      http.Header // without Host
}

// Plan is a behaviour, prepared so that the path of a hit allocates little.
type Plan struct {
	Behaviour *distribution.Behaviour
	pattern   string

	allowed, cached map[string]bool
	fingerprint     [8]byte  // of what the key is made of
	keyHeaders      []string // canonical names, sorted
	made            []string // canonical names of the headers that CloudFront makes
	madeKeyed       bool
	// Cookies tells that an origin gets cookies, and viewers its Set-Cookie.
	Cookies bool
	// caching tells that an answer may be stored at all.
	caching bool
	// forwards tells which of the viewer's headers an origin gets.
	forwards func(name string) bool
	host     bool // the viewer's Host among them
	vary     map[string]bool
	headers  *responseHeaders
}

// madePrefix begins the names of headers that CloudFront makes of a request.
const madePrefix = "cloudfront-"

// Compile prepares a behaviour, which must not change any more.
func Compile(b *distribution.Behaviour) *Plan {
	p := &Plan{
		Behaviour: b, fingerprint: fingerprintOf(b), pattern: "/" + strings.TrimPrefix(b.Pattern, "/"),
		allowed: set(b.AllowedMethods), cached: set(b.CachedMethods),
		Cookies: chooses(b.Key.Cookies) || chooses(b.Forward.Cookies),
		caching: b.TTL.Max > 0 && b.Key.Headers.Mode != distribution.ModeAll,
	}
	for _, name := range b.Key.Headers.Names {
		if b.Key.Headers.Mode == distribution.ModeOnly {
			p.keyHeaders = append(p.keyHeaders, http.CanonicalHeaderKey(name))
			p.madeKeyed = p.madeKeyed || strings.HasPrefix(name, madePrefix)
		}
	}
	slices.Sort(p.keyHeaders)
	p.compileForward()
	if b.ResponseHeaders != nil {
		p.headers = compileResponse(b.ResponseHeaders)
	}
	return p
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

func chooses(c distribution.Choice) bool { return c.Mode != "" && c.Mode != distribution.ModeNone }

// Has tells whether a function runs at an event.
func (p *Plan) Has(e distribution.EventType) bool {
	return p.IsLambda(e) || p.Behaviour.Viewer[e] != ""
}

// IsLambda tells whether the function of an event is one of Lambda@Edge.
func (p *Plan) IsLambda(e distribution.EventType) bool { return p.Behaviour.Functions[e].ARN != "" }

// Allows tells whether viewers may use a method.
func (p *Plan) Allows(method string) bool { return p.allowed[method] }

// Caches tells whether answers to a method may come from the cache.
func (p *Plan) Caches(method string) bool { return p.caching && p.cached[method] }

// Collapses tells whether requests for one key wait for the first one's answer:
// not where origins get cookies.
func (p *Plan) Collapses() bool { return !p.Cookies }

// Matches tells whether a path, as Normalise made it, is the behaviour's.
func (p *Plan) Matches(path string) bool { return Match(p.pattern, path) }

// Match matches a pattern in which "*" is any number of any characters, the slash
// among them, and "?" is any one.
func Match(pattern, s string) bool {
	// The last star, and from where in s it has been tried.
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// Normalise returns a path as patterns are matched with it: what need not be
// escaped is not, and there are no dot segments (RFC 3986, 6.2.2). The origin
// gets the path as it was.
func Normalise(path string) string {
	if strings.IndexByte(path, '%') >= 0 {
		path = unescapeUnreserved(path)
	}
	if strings.Contains(path, "/.") {
		path = removeDots(path)
	}
	return path
}

func unescapeUnreserved(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, ok1 := unhex(s[i+1])
			lo, ok2 := unhex(s[i+2])
			if c := hi<<4 | lo; ok1 && ok2 && unreserved(c) {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// removeDots removes dot segments (RFC 3986, 5.2.4).
func removeDots(path string) string {
	segments := strings.Split(path, "/")[1:]
	out := make([]string, 0, len(segments))
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}
