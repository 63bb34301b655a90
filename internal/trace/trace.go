// Package trace reads and writes the X-Amzn-Trace-Id header: the X-Ray trace
// that a request belongs to, and its lineage, by which Lambda notices a
// function that calls itself without end.
package trace

import (
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// HeaderName is the name of the header.
const HeaderName = "X-Amzn-Trace-Id"

// MaxLineage is how many invocations of one function a chain of requests may
// hold: Lambda stops the one after it (Lambda developer guide, Use Lambda
// recursive loop detection, which says approximately 16).
const MaxLineage = 16

// Limits of what is read from a header, which comes from the network. A chain
// visits few functions; AWS limits what all headers have together.
const (
	maxHeader = 4096 // bytes
	maxHops   = 64
)

// Header is a trace header, of which every field may be missing.
type Header struct {
	Root    string // trace id, e.g. 1-5759e988-bd862e3fe1be46a994272793
	Parent  string // segment id of the caller, 16 hex digits
	Sampled string // 1, 0 or, where the decision is asked for, ?
	// Lineage counts the invocations in the chain of requests that led to
	// this one, oldest function first.
	Lineage []Hop
}

// Hop is a function in a lineage.
type Hop struct {
	Function string // 8 hex digits, see HopName
	Count    int    // its invocations so far
}

// Parse reads a header. What it does not understand it leaves out, as a trace
// that is broken must not fail a request.
func Parse(s string) (h Header) {
	if len(s) > maxHeader {
		return Header{}
	}
	for field := range strings.SplitSeq(s, ";") {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			continue
		}
		switch strings.ToLower(key) {
		case "root":
			h.Root = value
		case "parent":
			h.Parent = value
		case "sampled":
			h.Sampled = value
		case "lineage":
			h.Lineage = parseLineage(value)
		}
	}
	return h
}

func parseLineage(s string) (hops []Hop) {
	for field := range strings.SplitSeq(s, "|") {
		name, count, ok := strings.Cut(field, ":")
		n, err := strconv.ParseUint(count, 10, 16)
		if !ok || name == "" || strings.Contains(name, "=") || err != nil {
			continue
		}
		if hops = append(hops, Hop{name, int(n)}); len(hops) == maxHops {
			break
		}
	}
	return hops
}

// String writes the header, leaving out what is missing.
func (h Header) String() string {
	var most [192]byte
	b := most[:0]
	for _, f := range [...]struct{ key, value string }{{"Root=", h.Root}, {"Parent=", h.Parent}, {"Sampled=", h.Sampled}} {
		if f.value != "" {
			b = append(append(separate(b), f.key...), f.value...)
		}
	}
	if len(h.Lineage) > 0 {
		b = append(separate(b), "Lineage="...)
		for i, hop := range h.Lineage {
			if i > 0 {
				b = append(b, '|')
			}
			b = append(append(b, hop.Function...), ':')
			b = strconv.AppendInt(b, int64(hop.Count), 10)
		}
	}
	return string(b)
}

// separate appends what stands before another field.
func separate(b []byte) []byte {
	if len(b) > 0 {
		b = append(b, ';')
	}
	return b
}

// New returns the header of a request that brought none: it is not sampled, but
// tracing libraries rely on it (X-Ray developer guide, Trace ID).
func New(now time.Time) Header {
	h := Header{}.Complete(now)
	h.Sampled = "0"
	return h
}

// Complete returns h with a new trace id and a new parent where it has none. A
// parent counts within its trace only.
func (h Header) Complete(now time.Time) Header {
	if h.Root == "" {
		h.Root, h.Parent = NewRoot(now), ""
	}
	if h.Parent == "" {
		h.Parent = NewSegment()
	}
	return h
}

// NewRoot returns a new trace id (X-Ray developer guide, Trace ID). It is like no
// other, but no secret.
func NewRoot(now time.Time) string {
	b := append(make([]byte, 0, 35), "1-"...)
	b = append(appendHex(b, uint64(now.Unix()), 8), '-')
	b = appendHex(b, rand.Uint64(), 16)
	return string(appendHex(b, rand.Uint64(), 8))
}

// HopName is the name of a function in a lineage, from its unqualified ARN:
// all versions and aliases are one function.
func HopName(functionARN string) string {
	sum := fnv.New32a()
	sum.Write([]byte(functionARN))
	return string(appendHex(make([]byte, 0, 8), uint64(sum.Sum32()), 8))
}

// appendHex appends the last so many hexadecimal digits of v.
func appendHex(b []byte, v uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[v>>shift&15])
	}
	return b
}

// Visit returns the header of an invocation of a function, which counts it in
// the lineage, and how many invocations of the function that makes.
func (h Header) Visit(functionARN string) (Header, int) {
	name := HopName(functionARN)
	hops := make([]Hop, 0, len(h.Lineage)+1)
	n := 0
	for _, hop := range h.Lineage {
		if hop.Function == name {
			hop.Count++
			n = hop.Count
		}
		hops = append(hops, hop)
	}
	if n == 0 {
		n = 1
		if len(hops) == maxHops {
			hops = hops[1:]
		}
		hops = append(hops, Hop{name, 1})
	}
	h.Lineage = hops
	return h, n
}

// Arrive returns the header with which a function is invoked when a request
// came with the header received, which may be empty: with a trace id, and with
// this invocation counted, how often the function has now been in the chain.
func Arrive(received, functionARN string, now time.Time) (Header, int) {
	h := Parse(received)
	if h.Root == "" {
		lineage := h.Lineage
		h = New(now)
		h.Lineage = lineage
	}
	return h.Visit(functionARN)
}
