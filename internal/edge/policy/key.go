package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// AppendKey appends what tells the object that a request is for from others: all
// but the distribution. Each part begins with its length, so that no two requests
// of different parts make the same key. Methods share objects, but for OPTIONS.
func (p *Plan) AppendKey(dst []byte, r *Request) []byte {
	kind := byte('G')
	if r.Method == "OPTIONS" {
		kind = 'O'
	}
	dst = p.appendURL(dst, kind, r.Path, r.Query)
	for _, name := range p.keyHeaders {
		if name == "Host" {
			dst = appendPart(dst, r.Host)
			continue
		}
		values := r.Header[name]
		dst = binary.AppendUvarint(dst, uint64(len(values)))
		for _, v := range values {
			dst = appendPart(dst, v)
		}
	}
	if chooses(p.Behaviour.Key.Cookies) {
		dst = p.appendCookies(dst, r)
	}
	return append(dst, byte(p.Encodings(r)))
}

// Plain tells whether nothing of a request's header but Accept-Encoding is in the
// key.
func (p *Plan) Plain() bool { return len(p.keyHeaders) == 0 && !chooses(p.Behaviour.Key.Cookies) }

// AppendPlainKey appends what AppendKey does for a GET, where the key is plain.
func (p *Plan) AppendPlainKey(dst []byte, path, query string, e Encodings) []byte {
	return append(p.appendURL(dst, 'G', path, query), byte(e))
}

func (p *Plan) appendURL(dst []byte, kind byte, path, query string) []byte {
	dst = append(append(dst, kind), p.fingerprint[:]...)
	return p.appendQuery(appendPart(dst, path), query)
}

func appendPart(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// fingerprintOf tells behaviours apart whose keys would be read in different ways,
// or that serve other paths: a function may rewrite the paths of two to the same
// one, and the origins and signers of these are not the same. What does not change
// the key, such as a TTL, leaves objects where they are.
func fingerprintOf(b *distribution.Behaviour) (f [8]byte) {
	dst := appendPart(nil, b.Pattern)
	for _, c := range []distribution.Choice{b.Key.Headers, b.Key.Cookies, b.Key.Query} {
		dst = appendPart(dst, string(c.Mode))
		dst = binary.AppendUvarint(dst, uint64(len(c.Names)))
		for _, name := range c.Names {
			dst = appendPart(dst, name)
		}
	}
	sum := sha256.Sum256(dst)
	copy(f[:], sum[:])
	return f
}

// appendQuery appends the chosen parameters, in the order in which they are.
func (p *Plan) appendQuery(dst []byte, query string) []byte {
	c := &p.Behaviour.Key.Query
	switch c.Mode {
	case distribution.ModeAll:
		return appendPart(dst, query)
	case distribution.ModeOnly, distribution.ModeExcept:
		for pair := range strings.SplitSeq(query, "&") {
			if pair != "" && takes(c, queryName(pair)) {
				dst = appendPart(dst, pair)
			}
		}
	}
	return append(dst, 0)
}

// KeyedQuery returns the part of a query string that is in the key.
func (p *Plan) KeyedQuery(query string) string {
	c := &p.Behaviour.Key.Query
	switch {
	case query == "" || !chooses(*c):
		return ""
	case c.Mode == distribution.ModeAll:
		return query
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if pair != "" && takes(c, queryName(pair)) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// Keys tells whether a header, by its canonical name, is in the key.
func (p *Plan) Keys(header string) bool { return slices.Contains(p.keyHeaders, header) }

func queryName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return name
}

// appendCookies appends the chosen cookies, by name, so that the order in which
// a viewer sends them makes no difference.
func (p *Plan) appendCookies(dst []byte, r *Request) []byte {
	var chosen []string
	for _, line := range r.Header["Cookie"] {
		for cookie := range eachCookie(line) {
			if takes(&p.Behaviour.Key.Cookies, cookieName(cookie)) {
				chosen = append(chosen, cookie)
			}
		}
	}
	slices.SortStableFunc(chosen, func(a, b string) int { return strings.Compare(cookieName(a), cookieName(b)) })
	for _, c := range chosen {
		dst = appendPart(dst, c)
	}
	return append(dst, 0)
}

// takes tells whether a choice, of cookies or parameters, takes a name.
func takes(c *distribution.Choice, name string) bool {
	switch c.Mode {
	case distribution.ModeAll, distribution.ModeAllAnd:
		return true
	case distribution.ModeOnly:
		return listed(c.Names, name)
	case distribution.ModeExcept:
		return !listed(c.Names, name)
	}
	return false
}

// listed tells whether names have a name. Those that end with "*" stand for all
// that begin so, as cookies and parameters of policies may.
func listed(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
		if prefix, ok := strings.CutSuffix(n, "*"); ok && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// eachCookie iterates over the "name=value" pairs of a Cookie header.
func eachCookie(line string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for c := range strings.SplitSeq(line, ";") {
			if c = strings.TrimSpace(c); c != "" && !yield(c) {
				return
			}
		}
	}
}

func cookieName(cookie string) string {
	name, _, _ := strings.Cut(cookie, "=")
	return name
}
