package freshness

import (
	"net/http"
	"strings"
	"time"
)

// Validators are an object's ETag and Last-Modified, empty where it has none.
type Validators struct{ ETag, LastModified string }

// ValidatorsOf returns those of a stored header.
func ValidatorsOf(h http.Header) Validators {
	return Validators{h.Get("Etag"), h.Get("Last-Modified")}
}

// Any tells whether there is something to revalidate by.
func (v Validators) Any() bool { return v.ETag != "" || v.LastModified != "" }

// Condition answers a viewer's conditional GET or HEAD of a fresh object: with
// http.StatusNotModified, http.StatusPreconditionFailed, or 0 where the object is
// to be sent (RFC 9110, 13.2.2). If-Range is Select's.
func Condition(request http.Header, v Validators) int {
	if f := request.Values("If-Match"); len(f) > 0 {
		if !anyTag(f, v.ETag, strong) {
			return http.StatusPreconditionFailed
		}
	} else if t, ok := when(request, "If-Unmodified-Since"); ok {
		if m, ok := parseDate(v.LastModified); ok && m.After(t) {
			return http.StatusPreconditionFailed
		}
	}
	if f := request.Values("If-None-Match"); len(f) > 0 {
		if anyTag(f, v.ETag, weak) {
			return http.StatusNotModified
		}
	} else if t, ok := when(request, "If-Modified-Since"); ok {
		if m, ok := parseDate(v.LastModified); ok && !m.After(t) {
			return http.StatusNotModified
		}
	}
	return 0
}

// when is the time in a conditional field; one that is none is ignored.
func when(h http.Header, name string) (time.Time, bool) { return parseDate(h.Get(name)) }

// anyTag tells whether one of the tags of a field is the object's. "*" is any tag.
func anyTag(field []string, etag string, same func(a, b string) bool) bool {
	for tag := range list(field) {
		if tag == "*" || etag != "" && same(tag, etag) {
			return true
		}
	}
	return false
}

func strong(a, b string) bool { return a == b && validTag(a) && !strings.HasPrefix(a, "W/") }

func weak(a, b string) bool { return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/") }

// validTag tells whether s is an entity tag.
func validTag(s string) bool {
	s = strings.TrimPrefix(s, "W/")
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && strings.IndexByte(s[1:len(s)-1], '"') < 0
}

// Revalidation returns the conditional fields of a request to the origin for an
// object with these validators.
func Revalidation(v Validators) http.Header {
	h := http.Header{}
	if v.ETag != "" {
		h.Set("If-None-Match", v.ETag)
	}
	if v.LastModified != "" {
		h.Set("If-Modified-Since", v.LastModified)
	}
	return h
}

// Refresh returns a stored header as the 304 that has validated it changes it (RFC
// 9111, 3.2): its fields replace the stored ones, but for those that describe the
// body that stays. Neither argument is changed.
func Refresh(stored, notModified http.Header) http.Header {
	h := stored.Clone()
	// What was the age of the earlier answer says nothing about this one.
	h.Del("Age")
	for name, v := range notModified {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range", "Transfer-Encoding", "Connection",
			"Keep-Alive", "Trailer", "Upgrade", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Connection":
		case "Etag":
			// A stored body that was compressed here has a weak tag of its own.
			if len(v) > 0 && !weak(v[0], h.Get("Etag")) {
				h[name] = append([]string(nil), v...)
			}
		default:
			h[name] = append([]string(nil), v...)
		}
	}
	return h
}
