package policy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// notPassed are headers of an origin that viewers do not get: those of one
// connection only, and those that the edge writes by itself.
var notPassed = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Content-Length", "Via", "X-Cache", "X-Amz-Cf-Id", "X-Amz-Cf-Pop", "X-Edge-Location", "Alt-Svc",
}

// Clean takes from an origin's header what is not for viewers. What it leaves is
// what is stored.
func (p *Plan) Clean(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range notPassed {
		delete(h, name)
	}
	if !p.Cookies {
		delete(h, "Set-Cookie")
	}
	p.reduceVary(h)
}

// reduceVary leaves in Vary the headers that the origin gets, Accept-Encoding and
// Cookie.
func (p *Plan) reduceVary(h http.Header) {
	lines := h["Vary"]
	if len(lines) == 0 {
		return
	}
	var kept []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			lower := strings.ToLower(name)
			if name != "" && (name == "*" || p.vary[lower] || p.forwards(lower)) {
				kept = append(kept, name)
			}
		}
	}
	delete(h, "Vary")
	if len(kept) > 0 {
		h["Vary"] = []string{strings.Join(kept, ", ")}
	}
}

// responseHeaders is a response headers policy, prepared.
type responseHeaders struct {
	cors    *distribution.CORS
	any     bool // of all origins, without credentials
	origins []string
	values  []distribution.HeaderValue // canonical names
	remove  []string
	methods, allow, expose,
	maxAge string
	timing float64
}

func compileResponse(r *distribution.ResponseHeaders) *responseHeaders {
	c := &responseHeaders{cors: r.CORS, timing: r.ServerTiming}
	for _, v := range r.Set {
		v.Name = http.CanonicalHeaderKey(v.Name)
		c.values = append(c.values, v)
	}
	for _, name := range r.Remove {
		c.remove = append(c.remove, http.CanonicalHeaderKey(name))
	}
	if r.CORS != nil {
		c.any = slices.Contains(r.CORS.AllowOrigins, "*") && !r.CORS.AllowCredentials
		for _, o := range r.CORS.AllowOrigins {
			c.origins = append(c.origins, strings.ToLower(o))
		}
		c.methods = list(r.CORS.AllowMethods)
		c.allow, c.expose = list(r.CORS.AllowHeaders), list(r.CORS.ExposeHeaders)
		c.maxAge = strconv.Itoa(int(r.CORS.MaxAge.Seconds()))
	}
	return c
}

// list joins names; ALL, as a policy may say for methods, stands for all.
func list(names []string) string {
	if slices.Contains(names, "ALL") {
		return "GET, DELETE, HEAD, OPTIONS, PATCH, POST, PUT"
	}
	return strings.Join(names, ", ")
}

// ChangesResponse tells whether a response headers policy applies.
func (p *Plan) ChangesResponse() bool { return p.headers != nil }

// ServerTiming returns the share of responses, in percent, that get a
// Server-Timing header; negative: none, not even on demand.
func (p *Plan) ServerTiming() float64 {
	if p.headers == nil {
		return -1
	}
	return p.headers.timing
}

// Respond applies the response headers policy to the header that a viewer gets.
func (p *Plan) Respond(h http.Header, r *Request) {
	c := p.headers
	if c == nil {
		return
	}
	for _, name := range c.remove {
		delete(h, name)
	}
	if c.cors != nil {
		c.allowOrigin(h, r)
	}
	for _, v := range c.values {
		if _, sent := h[v.Name]; !sent || v.Override {
			h[v.Name] = []string{v.Value}
		}
	}
}

const allowOrigin = "Access-Control-Allow-Origin"

// corsHeaders are those that a policy with OriginOverride replaces.
var corsHeaders = []string{
	allowOrigin, "Access-Control-Allow-Credentials", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
	"Access-Control-Expose-Headers", "Access-Control-Max-Age",
}

// allowOrigin adds the headers of the cross-origin protocol to the answer to a
// request that has an Origin. Unless the policy overrides, an origin that answers
// in that protocol by itself is left alone.
func (c *responseHeaders) allowOrigin(h http.Header, r *Request) {
	origin := r.Header.Get("Origin")
	if _, sent := h[allowOrigin]; sent && !c.cors.Override {
		return
	}
	if c.cors.Override {
		for _, name := range corsHeaders {
			delete(h, name)
		}
	}
	if origin == "" || !c.matches(origin) {
		return
	}
	if c.any {
		h[allowOrigin] = []string{"*"}
	} else {
		h[allowOrigin] = []string{origin}
		h.Add("Vary", "Origin")
	}
	if c.cors.AllowCredentials {
		h["Access-Control-Allow-Credentials"] = []string{"true"}
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		c.preflight(h, r)
	} else if c.expose != "" {
		h["Access-Control-Expose-Headers"] = []string{c.expose}
	}
}

// preflight adds what only the answer to a preflight request has.
func (c *responseHeaders) preflight(h http.Header, r *Request) {
	h["Access-Control-Allow-Methods"] = []string{c.methods}
	allow := c.allow
	if allow == "*" && c.cors.AllowCredentials {
		// With credentials browsers take the star literally.
		allow = r.Header.Get("Access-Control-Request-Headers")
	}
	if allow != "" {
		h["Access-Control-Allow-Headers"] = []string{allow}
	}
	if c.cors.MaxAge > 0 {
		h["Access-Control-Max-Age"] = []string{c.maxAge}
	}
}

// matches tells whether an origin is among those of the policy, in which a star
// may stand for any number of characters.
func (c *responseHeaders) matches(origin string) bool {
	origin = strings.ToLower(origin)
	_, host, _ := strings.Cut(origin, "://")
	for _, o := range c.origins {
		if Match(o, origin) || (!strings.Contains(o, "://") && Match(o, host)) {
			return true
		}
	}
	return false
}
