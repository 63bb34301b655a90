package state

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"io"
	"iter"
	"strings"
	"sync/atomic"

	"github.com/google/btree"
)

// Item is one record of a collection. Value is shared by all readers: whoever
// wants to change it changes a copy.
type Item[T any] struct {
	Key      string
	Revision uint64 // grows with every write to the collection
	Value    T
}

// Change is one step in a collection's history: an Item that was written, or,
// if Deleted, a key that is gone (Revision is the deletion's, Value is zero).
type Change[T any] struct {
	Item[T]
	Deleted bool
}

// view is the read model at one revision. It never changes, so that readers
// need no lock: the next write publishes the next view, which shares nearly
// all of its tree with this one.
type view[T any] struct {
	tree     *btree.BTreeG[Item[T]]
	revision uint64
	sum      uint64   // of keys and revisions; see Mark
	next     *link[T] // filled with the change that leads to the next view
}

// link is a node in the list of changes that watchers walk. change and next
// are set before ready is closed.
type link[T any] struct {
	ready  chan struct{}
	change Change[T]
	next   *link[T]
}

func newLink[T any]() *link[T] { return &link[T]{ready: make(chan struct{})} }

// model builds views. Only the collection's feeding goroutine calls its
// writing methods.
type model[T any] struct {
	tree     *btree.BTreeG[Item[T]] // the feeder's own
	revision uint64
	sum      uint64
	current  atomic.Pointer[view[T]]
}

func newModel[T any]() *model[T] {
	m := &model[T]{tree: btree.NewG(32, func(a, b Item[T]) bool { return a.Key < b.Key })}
	m.current.Store(&view[T]{tree: m.tree.Clone(), next: newLink[T]()})
	return m
}

// apply takes one change into the feeder's tree without showing it yet.
func (m *model[T]) apply(c Change[T]) {
	var old Item[T]
	var had bool
	if c.Deleted {
		old, had = m.tree.Delete(c.Item)
	} else {
		old, had = m.tree.ReplaceOrInsert(c.Item)
		m.sum += digest(c.Item)
	}
	if had {
		m.sum -= digest(old)
	}
	m.revision = max(m.revision, c.Revision)
}

// digest is what an item adds to the sum.
func digest[T any](i Item[T]) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, i.Key)
	_ = binary.Write(h, binary.BigEndian, i.Revision)
	return h.Sum64()
}

// publish shows readers the feeder's tree, and watchers the change.
func (m *model[T]) publish(c Change[T]) {
	previous := m.current.Load().next
	previous.change = c
	previous.next = newLink[T]()
	m.current.Store(&view[T]{tree: m.tree.Clone(), revision: m.revision, sum: m.sum, next: previous.next})
	close(previous.ready)
}

// show makes the feeder's tree, as loaded at the start, the current view.
func (m *model[T]) show() {
	m.current.Store(&view[T]{tree: m.tree.Clone(), revision: m.revision, sum: m.sum, next: m.current.Load().next})
}

// reached waits until the view holds the write with this revision.
func (m *model[T]) reached(ctx context.Context, revision uint64, closed <-chan struct{}) error {
	for {
		v := m.current.Load()
		if v.revision >= revision {
			return nil
		}
		if err := m.after(ctx, v, closed); err != nil {
			return err
		}
	}
}

// after waits until there is a later view than v.
func (m *model[T]) after(ctx context.Context, v *view[T], closed <-chan struct{}) error {
	select {
	case <-v.next.ready:
		return nil
	case <-closed:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (v *view[T]) get(key string) (Item[T], bool) {
	return v.tree.Get(Item[T]{Key: key})
}

// from iterates in key order over the items with the prefix, beginning at the
// first key that is not less than start.
func (v *view[T]) from(prefix, start string) iter.Seq[Item[T]] {
	return func(yield func(Item[T]) bool) {
		v.tree.AscendGreaterOrEqual(Item[T]{Key: max(prefix, start)}, func(i Item[T]) bool {
			return strings.HasPrefix(i.Key, prefix) && yield(i)
		})
	}
}
