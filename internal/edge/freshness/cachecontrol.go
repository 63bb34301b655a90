package freshness

import (
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Seconds is a directive's number of seconds.
type Seconds struct {
	Set   bool
	Value time.Duration
}

// CacheControl is a response's Cache-Control, of which a shared cache takes note.
type CacheControl struct {
	NoStore, NoCache, Private, Public bool
	MustRevalidate, ProxyRevalidate   bool

	MaxAge, SMaxAge                    Seconds
	StaleWhileRevalidate, StaleIfError Seconds

	// Fields are named by no-cache="…" and private="…": they are not to be
	// stored, and the rest of the answer may be.
	Fields []string
}

// maxDelta is what larger numbers of seconds are taken for (RFC 9111, 1.2.2).
const maxDelta = math.MaxInt32

// ParseCacheControl reads the Cache-Control fields of a response. Of a directive
// that comes twice the first counts; a number that is none counts as 0, so that
// what cannot be understood is stale.
func ParseCacheControl(h http.Header) CacheControl {
	var c CacheControl
	for d := range list(h.Values("Cache-Control")) {
		name, value, has := strings.Cut(d, "=")
		value = unquote(value)
		switch strings.ToLower(name) {
		case "no-store":
			c.NoStore = true
		case "no-cache":
			c.NoCache = c.only(value, has) || c.NoCache
		case "private":
			c.Private = c.only(value, has) || c.Private
		case "public":
			c.Public = true
		case "must-revalidate":
			c.MustRevalidate = true
		case "proxy-revalidate":
			c.ProxyRevalidate = true
		case "max-age":
			c.MaxAge.take(value)
		case "s-maxage":
			c.SMaxAge.take(value)
		case "stale-while-revalidate":
			c.StaleWhileRevalidate.take(value)
		case "stale-if-error":
			c.StaleIfError.take(value)
		}
	}
	return c
}

// only takes the field names of a directive, and tells whether there are none, so
// that it is about the whole answer.
func (c *CacheControl) only(value string, has bool) bool {
	names := 0
	if has {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.Trim(name, " \t"); name != "" {
				c.Fields = append(c.Fields, http.CanonicalHeaderKey(name))
				names++
			}
		}
	}
	return names == 0
}

// age is the lifetime that the header gives a shared cache.
func (c *CacheControl) age() (time.Duration, bool) {
	if c.SMaxAge.Set {
		return c.SMaxAge.Value, true
	}
	return c.MaxAge.Value, c.MaxAge.Set
}

func (s *Seconds) take(value string) {
	if !s.Set {
		s.Value = parseSeconds(value).Value
		s.Set = true
	}
}

// parseSeconds reads delta-seconds.
func parseSeconds(s string) Seconds {
	if s == "" {
		return Seconds{}
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return Seconds{}
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > maxDelta {
		n = maxDelta
	}
	return Seconds{true, time.Duration(n) * time.Second}
}

// list yields the elements of a comma-separated field; commas within quotes are
// part of an element.
func list(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, v := range values {
			quoted := false
			start := 0
			for i := 0; i <= len(v); i++ {
				switch {
				case i == len(v) || v[i] == ',' && !quoted:
					if e := strings.Trim(v[start:i], " \t"); e != "" && !yield(e) {
						return
					}
					start = i + 1
				case v[i] == '"':
					quoted = !quoted
				case v[i] == '\\' && quoted && i+1 < len(v):
					i++
				}
			}
		}
	}
}

// unquote returns what a quoted string holds, and other strings as they are.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
