package cache

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// s3fifo decides what a tier gives up (Yang et al., "FIFO queues are all you need
// for cache eviction", SOSP 2023). What is new enters a small queue of a tenth of
// the tier, and goes on to the main queue if it was asked for again by the time
// that it reaches the end; what has left the small queue is remembered by its key
// for a while, and enters the main queue when it comes back. A hit is one load,
// and a store for the first few.
type s3fifo[T any] struct {
	capacity int64
	evicted  func(*node[T]) // called without a lock

	mu          sync.Mutex
	small, main fifo[T]
	reserved    int64 // bytes of what is not in yet
	ghosts      ghosts
}

// node is an entry of a tier.
type node[T any] struct {
	key   Key
	value T
	size  int64

	hits       atomic.Uint32 // up to maxHits
	queue      *fifo[T]      // nil: not in the tier any more, or not yet
	removed    bool          // before it was in
	prev, next *node[T]
}

const maxHits = 3

func newS3FIFO[T any](capacity int64, evicted func(*node[T])) *s3fifo[T] {
	return &s3fifo[T]{capacity: capacity, evicted: evicted, ghosts: ghosts{keys: map[uint64]struct{}{}}}
}

// touch notes a hit.
func (n *node[T]) touch() {
	if h := n.hits.Load(); h < maxHits {
		n.hits.Store(h + 1) // a lost count does not matter
	}
}

// add puts a node in, and others out where there is no room.
func (q *s3fifo[T]) add(n *node[T]) {
	q.mu.Lock()
	if n.removed {
		q.mu.Unlock()
		return
	}
	if q.ghosts.take(n.key) {
		q.main.push(n)
	} else {
		q.small.push(n)
	}
	out := q.shrink(q.capacity - q.reserved)
	q.mu.Unlock()
	q.tell(out)
}

// reserve makes room for n bytes more that are no node yet, and tells whether there
// is any.
func (q *s3fifo[T]) reserve(n int64) bool {
	q.mu.Lock()
	ok := q.reserved+n <= q.capacity
	var out []*node[T]
	if ok {
		q.reserved += n
		out = q.shrink(q.capacity - q.reserved)
	}
	q.mu.Unlock()
	q.tell(out)
	return ok
}

// unreserve gives room back.
func (q *s3fifo[T]) unreserve(n int64) {
	q.mu.Lock()
	q.reserved -= n
	q.mu.Unlock()
}

// shed gives up at least n bytes, if there are so many.
func (q *s3fifo[T]) shed(n int64) {
	q.mu.Lock()
	out := q.shrink(max(q.small.bytes+q.main.bytes-n, 0))
	q.mu.Unlock()
	q.tell(out)
}

// shrink gives up nodes until no more than limit bytes are in.
func (q *s3fifo[T]) shrink(limit int64) (out []*node[T]) {
	for q.small.bytes+q.main.bytes > limit {
		if n := q.evict(); n != nil {
			out = append(out, n)
		}
	}
	return out
}

func (q *s3fifo[T]) tell(out []*node[T]) {
	for _, n := range out {
		q.evicted(n)
	}
}

// evict takes one step, which may find a node to give up.
func (q *s3fifo[T]) evict() *node[T] {
	if q.small.last != nil && (q.small.bytes > q.capacity/10 || q.main.last == nil) {
		n := q.small.last
		q.small.remove(n)
		if n.hits.Load() > 0 {
			n.hits.Store(0)
			q.main.push(n)
			return nil
		}
		q.ghosts.put(n.key, q.small.count+q.main.count)
		return n
	}
	n := q.main.last
	q.main.remove(n)
	if h := n.hits.Load(); h > 0 {
		n.hits.Store(h - 1)
		q.main.push(n)
		return nil
	}
	return n
}

// remove takes a node out, if it is in.
func (q *s3fifo[T]) remove(n *node[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n.queue != nil {
		n.queue.remove(n)
	} else {
		n.removed = true
	}
}

// bytes returns the size of what is in.
func (q *s3fifo[T]) bytes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.small.bytes + q.main.bytes + q.reserved
}

// fifo is a queue of nodes.
type fifo[T any] struct {
	first, last *node[T]
	bytes       int64
	count       int
}

func (f *fifo[T]) push(n *node[T]) {
	n.queue, n.next = f, f.first
	if f.first != nil {
		f.first.prev = n
	} else {
		f.last = n
	}
	f.first = n
	f.bytes += n.size
	f.count++
}

func (f *fifo[T]) remove(n *node[T]) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		f.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		f.last = n.prev
	}
	n.queue, n.prev, n.next = nil, nil, nil
	f.bytes -= n.size
	f.count--
}

// ghosts are keys that have left the small queue, the oldest of which are
// forgotten.
type ghosts struct {
	keys map[uint64]struct{}
	ring []uint64
	next int
}

// minGhosts is how many are remembered at least.
const minGhosts = 1024

func (g *ghosts) put(k Key, limit int) {
	short := binary.LittleEndian.Uint64(k[:])
	if limit = max(limit, minGhosts); len(g.ring) < limit {
		g.ring = append(g.ring, short)
	} else {
		g.next %= len(g.ring)
		delete(g.keys, g.ring[g.next])
		g.ring[g.next] = short
		g.next++
	}
	g.keys[short] = struct{}{}
}

// take tells whether a key is remembered, and forgets it.
func (g *ghosts) take(k Key) bool {
	short := binary.LittleEndian.Uint64(k[:])
	_, ok := g.keys[short]
	delete(g.keys, short)
	return ok
}
