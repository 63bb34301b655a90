// Package keyvalue keeps the pairs of CloudFront's key value stores where edge
// locations find them, among the records of package distribution.
//
// A store is a tree of two levels: parts, each some pairs that follow one another
// in the order of keys, and a head that names them. A part never changes. A change
// writes new parts in place of those that it touches, and then the head, which is
// when it counts: whole, everywhere, also after a crash. Head and parts are in one
// collection, whose changes reach every location in order, so that a head comes
// after its parts. The parts that a change replaced are deleted when every location
// has the new head.
//
// Stores reads, at every location; Writer changes, at the core.
package keyvalue

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

// Limits of a store ("Quotas on key value stores", CloudFront developer guide).
const (
	MaxKey   = 512     // bytes
	MaxValue = 1 << 10 // bytes
	MaxBytes = 5 << 20 // keys and values of a store
)

// Pair is one key and its value.
type Pair = distribution.KeyValue

// ErrMissing says that there is no such store, or not at this location yet.
var ErrMissing = errors.New("the key value store was not found")

// Stores reads the stores of a location. Lookups are in memory.
type Stores struct {
	records *state.Collection[distribution.KeyValues]

	mu    sync.RWMutex
	views map[string]*View
}

// NewStores returns Stores over records.
func NewStores(records *state.Collection[distribution.KeyValues]) *Stores {
	return &Stores{records: records, views: map[string]*View{}}
}

// View is a store as it was at one moment. It never changes.
type View struct {
	Head     *distribution.KeyValueHead
	revision uint64
	parts    [][]Pair // Head.Parts'
}

// View returns the store with an id: its latest version that is here whole.
func (s *Stores) View(id string) (*View, error) {
	s.mu.RLock()
	last := s.views[id]
	s.mu.RUnlock()
	head, ok := s.records.Get(id)
	switch {
	case !ok || head.Value.Head == nil || head.Value.Format > distribution.Format:
		if last != nil {
			s.remember(id, nil)
		}
		return nil, ErrMissing
	case last != nil && last.revision == head.Revision:
		return last, nil
	}
	v := &View{Head: head.Value.Head, revision: head.Revision, parts: make([][]Pair, len(head.Value.Head.Parts))}
	for i, p := range v.Head.Parts {
		part, ok := s.records.Get(partKey(id, p.ID))
		if !ok {
			// Another head is on its way: one that was here before is whole.
			if last != nil {
				return last, nil
			}
			return nil, ErrMissing
		}
		v.parts[i] = part.Value.Part
	}
	s.remember(id, v)
	return v, nil
}

func (s *Stores) remember(id string, v *View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch last := s.views[id]; {
	case v == nil:
		delete(s.views, id)
	case last == nil || last.revision < v.revision:
		s.views[id] = v
		for other := range s.views { // those that are gone, and that nobody asks for
			if _, ok := s.records.Get(other); !ok {
				delete(s.views, other)
			}
		}
	}
}

// Get returns the value of a key.
func (v *View) Get(key string) (value string, ok bool) {
	i := v.partOf(key)
	if i < 0 {
		return "", false
	}
	j, ok := find(v.parts[i], key)
	if !ok {
		return "", false
	}
	return v.parts[i][j].Value, true
}

// After returns the first pairs, n at most, whose keys come after a key, in the
// order of keys.
func (v *View) After(key string, n int) []Pair {
	var out []Pair
	for i := max(v.partOf(key), 0); i < len(v.parts) && len(out) < n; i++ {
		part := v.parts[i]
		j, found := find(part, key)
		if found {
			j++
		}
		out = append(out, part[j:min(len(part), j+n-len(out))]...)
	}
	return out
}

// partOf returns the index of the part that a key would be in: the last whose
// first key is not after it; -1 where it is before all.
func (v *View) partOf(key string) int {
	i, found := slices.BinarySearchFunc(v.Head.Parts, key, func(p distribution.KeyValuePart, key string) int { return strings.Compare(p.First, key) })
	if found {
		return i
	}
	return i - 1
}

func find(pairs []Pair, key string) (int, bool) {
	return slices.BinarySearchFunc(pairs, key, func(p Pair, key string) int { return strings.Compare(p.Key, key) })
}

func partKey(store, part string) string { return store + "/" + part }
