package functionurl

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The Cors configuration of a URL works as it does on AWS: a preflight never
// reaches the function and is answered with status 200, with CORS headers only
// if everything that it asks for is allowed; other responses get the headers for
// the origin beside those that the function sets.

// preflight answers an OPTIONS request.
func (x *exchange) preflight() {
	c, h := x.url.CORS, x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", "0")
	method := x.r.Header.Get("Access-Control-Request-Method")
	var asked []string
	for name := range strings.SplitSeq(x.r.Header.Get("Access-Control-Request-Headers"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			asked = append(asked, name)
		}
	}
	if x.origin() != "" && allows(c.AllowMethods, method) && !slices.ContainsFunc(asked, func(name string) bool { return !allows(c.AllowHeaders, name) }) {
		x.allowOrigin()
		// A browser takes * to the letter where credentials are sent.
		set(h, "Access-Control-Allow-Methods", c.AllowMethods, []string{method})
		set(h, "Access-Control-Allow-Headers", c.AllowHeaders, asked)
		if c.MaxAge > 0 {
			h.Set("Access-Control-Max-Age", strconv.Itoa(c.MaxAge))
		}
	}
	x.w.WriteHeader(http.StatusOK)
}

// set sets a header to a list, or to what was asked for where the list allows
// everything.
func set(h http.Header, name string, list, asked []string) {
	if slices.Contains(list, "*") {
		list = asked
	}
	if len(list) > 0 {
		h.Set(name, strings.Join(list, ","))
	}
}

// allowOrigin adds the headers for the origin of the request, if the URL has
// CORS and allows it.
func (x *exchange) allowOrigin() {
	origin := x.origin()
	if origin == "" {
		return
	}
	c, h := x.url.CORS, x.w.Header()
	h.Add("Access-Control-Allow-Origin", origin)
	if origin != "*" {
		h.Add("Vary", "Origin")
	}
	if c.AllowCredentials {
		h.Add("Access-Control-Allow-Credentials", "true")
	}
	if len(c.ExposeHeaders) > 0 && x.r.Method != http.MethodOptions {
		h.Add("Access-Control-Expose-Headers", strings.Join(c.ExposeHeaders, ","))
	}
}

// origin returns what Access-Control-Allow-Origin is, empty where the request
// has no origin or one that is not allowed.
func (x *exchange) origin() string {
	origin, c := x.r.Header.Get("Origin"), x.url.CORS
	switch {
	case c == nil || origin == "":
		return ""
	case slices.Contains(c.AllowOrigins, "*") && !c.AllowCredentials:
		return "*"
	case allows(c.AllowOrigins, origin):
		return origin
	}
	return ""
}

// allows tells whether a list has a value, or *, whatever the case of letters.
func allows(list []string, value string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return s == "*" || strings.EqualFold(s, value) })
}
