package policy

import (
	"strconv"
	"strings"
)

// Encodings is a set of content codings.
type Encodings byte

// The content codings that an edge location knows.
const (
	Gzip Encodings = 1 << iota
	Brotli
	Zstd
)

// String returns the set as the Accept-Encoding header that an origin gets.
// Zstandard is not in it: CloudFront asks origins for the other two only.
func (e Encodings) String() string {
	switch e & (Gzip | Brotli) {
	case Gzip | Brotli:
		return "br,gzip"
	case Brotli:
		return "br"
	case Gzip:
		return "gzip"
	}
	return ""
}

// Encodings returns the codings that a viewer accepts and that tell objects of
// the behaviour apart: the normalised Accept-Encoding header. A viewer that
// accepts Zstandard counts as such only where it does not accept Brotli, which is
// preferred, so that there are no more variants than needed.
func (p *Plan) Encodings(r *Request) Encodings {
	b := p.Behaviour
	if !b.AcceptGzip && !b.AcceptBrotli {
		return 0
	}
	var e Encodings
	for _, line := range r.Header["Accept-Encoding"] {
		e |= Accepted(line)
	}
	return p.Takes(e)
}

// Takes returns which of the codings that a viewer accepts tell objects of the
// behaviour apart.
func (p *Plan) Takes(e Encodings) Encodings {
	b := p.Behaviour
	if !b.AcceptGzip {
		e &^= Gzip
	}
	if !b.AcceptBrotli {
		e &^= Brotli | Zstd
	}
	if e&Brotli != 0 {
		e &^= Zstd
	}
	return e
}

// Accepted reads an Accept-Encoding header. "*" counts for nothing, as on
// CloudFront.
func Accepted(line string) Encodings {
	var e Encodings
	for item := range strings.SplitSeq(line, ",") {
		name, parameters, weighted := strings.Cut(item, ";")
		if weighted && isZero(parameters) {
			continue
		}
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, "gzip"):
			e |= Gzip
		case strings.EqualFold(name, "br"):
			e |= Brotli
		case strings.EqualFold(name, "zstd"):
			e |= Zstd
		}
	}
	return e
}

// isZero tells whether a weight ("q=0") refuses.
func isZero(parameters string) bool {
	name, value, _ := strings.Cut(parameters, "=")
	if !strings.EqualFold(strings.TrimSpace(name), "q") {
		return false
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	return err == nil && q == 0
}
