package keyvalue

import (
	"slices"
	"strings"
)

// Sizes of parts, in bytes of keys and values. A change of one pair writes a part,
// and a location takes it; the head has a line for each.
const (
	maxPart = 64 << 10 // a larger one is split,
	newPart = 32 << 10 // into parts of this size at most, and of half of it at least;
	minPart = 16 << 10 // a smaller one joins the one before it
)

// builder makes the parts of a store's next version.
type builder struct {
	parts []newParts
	count int
	bytes int64
}

// newParts is a part of the next version: one that is there, or new pairs.
type newParts struct {
	id    string // empty: it is to be written
	pairs []Pair
}

// change returns the parts that a store has after changes, which are in the order
// of keys.
func (v *View) change(changes []change) *builder {
	b := &builder{}
	for i, part := range v.parts {
		// What is for this part comes before the next one's first key.
		n := len(changes)
		if i+1 < len(v.parts) {
			n, _ = slices.BinarySearchFunc(changes, v.Head.Parts[i+1].First, func(c change, first string) int { return strings.Compare(c.Key, first) })
		}
		if n == 0 {
			b.keep(v.Head.Parts[i].ID, part)
		} else {
			b.add(merge(part, changes[:n]))
		}
		changes = changes[n:]
	}
	b.add(merge(nil, changes)) // of a store without parts
	return b
}

// merge applies changes to pairs.
func merge(pairs []Pair, changes []change) []Pair {
	out := make([]Pair, 0, len(pairs)+len(changes))
	for _, c := range changes {
		i, found := find(pairs, c.Key)
		out = append(out, pairs[:i]...)
		if found {
			i++
		}
		pairs = pairs[i:]
		if !c.deleted {
			out = append(out, c.Pair)
		}
	}
	return append(out, pairs...)
}

func size(pairs []Pair) (n int) {
	for _, p := range pairs {
		n += len(p.Key) + len(p.Value)
	}
	return n
}

// keep takes over a part as it is, or joins it with the one before it, where that
// is new and small.
func (b *builder) keep(id string, pairs []Pair) {
	if last := len(b.parts) - 1; last >= 0 && b.parts[last].id == "" && b.joins(b.parts[last].pairs, pairs) {
		b.add(pairs)
		return
	}
	b.append(id, pairs)
}

// add adds new pairs, in parts that are neither too large nor, as far as the part
// before lets it, too small.
func (b *builder) add(pairs []Pair) {
	if len(pairs) == 0 {
		return
	}
	if last := len(b.parts) - 1; last >= 0 && b.joins(b.parts[last].pairs, pairs) {
		before := b.parts[last].pairs
		b.parts = b.parts[:last]
		b.count -= len(before)
		b.bytes -= int64(size(before))
		pairs = slices.Concat(before, pairs)
	}
	total := size(pairs)
	if total <= maxPart {
		b.append("", pairs)
		return
	}
	pieces := (total + newPart - 1) / newPart
	start, bytes := 0, 0
	for i, p := range pairs {
		if bytes += len(p.Key) + len(p.Value); bytes >= total/pieces {
			b.append("", pairs[start:i+1:i+1])
			start, bytes = i+1, 0
		}
	}
	if start < len(pairs) {
		b.append("", pairs[start:])
	}
}

// joins tells whether two parts are better one.
func (b *builder) joins(before, after []Pair) bool {
	x, y := size(before), size(after)
	return min(x, y) < minPart && x+y <= maxPart
}

func (b *builder) append(id string, pairs []Pair) {
	b.parts = append(b.parts, newParts{id, pairs})
	b.count += len(pairs)
	b.bytes += int64(size(pairs))
}
