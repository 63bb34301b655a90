package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// epochs are the invalidations. Each has a number, and an object holds the number
// of the latest one at the time that its origin was asked.
type epochs struct {
	now atomic.Uint64 // the number of the latest

	mu            sync.RWMutex
	ids           map[string]uint64 // of those known: they are told again at each start
	distributions map[string]*paths
}

// paths are the invalidations of a distribution, by path: the number of the latest
// one of each.
type paths struct {
	exact, prefix map[string]uint64
	lengths       []int // of the prefixes, ascending
}

func (e *epochs) init() {
	e.ids = map[string]uint64{}
	e.distributions = map[string]*paths{}
}

// Invalidate takes the objects of an invalidation out of the cache. One that is
// told again, by its ID, does nothing.
func (s *Store) Invalidate(inv distribution.Invalidation) error {
	e := &s.epochs
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.ids[inv.ID]; known {
		return nil
	}
	n := e.now.Load() + 1
	e.ids[inv.ID] = n
	d := e.distributions[inv.Distribution]
	if d == nil {
		d = &paths{exact: map[string]uint64{}, prefix: map[string]uint64{}}
		e.distributions[inv.Distribution] = d
	}
	for _, p := range inv.Paths {
		if p, wild := strings.CutSuffix(p, "*"); wild {
			d.prefix[p] = n
			if i, found := slices.BinarySearch(d.lengths, len(p)); !found {
				d.lengths = slices.Insert(d.lengths, i, len(p))
			}
		} else {
			d.exact[p] = n
		}
	}
	e.now.Store(n)
	return nil
}

// valid tells whether no invalidation has hit an object since its origin was asked.
func (e *epochs) valid(o *Object) bool {
	now := e.now.Load()
	if o.Head.Epoch == now || o.checked.Load() == now {
		return true
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if o.Head.Epoch > now || e.distributions[o.Head.Distribution].since(o.Head.Path) > o.Head.Epoch {
		return false
	}
	o.checked.Store(now)
	return true
}

// since returns the latest invalidation of a path, 0 if there is none.
func (p *paths) since(path string) uint64 {
	if p == nil {
		return 0
	}
	n := p.exact[path]
	for _, l := range p.lengths {
		if l > len(path) {
			break
		}
		n = max(n, p.prefix[path[:l]])
	}
	return n
}
