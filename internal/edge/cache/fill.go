package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Errors that waiters of a fill meet.
var (
	// ErrUnshared tells them to ask the origin by themselves.
	ErrUnshared = errors.New("cache: the answer is not for sharing")
	// ErrAbandoned is the cause of a Fill's context where nobody waits any more.
	ErrAbandoned = errors.New("cache: nobody waits for the answer")
	// ErrTruncated is that of a body that is not as long as its head says.
	ErrTruncated = errors.New("cache: the body is not of the length that was announced")
)

const (
	// window is how many bytes of a body that is not stored are held for its readers,
	// and step how many at least are given up at a time.
	window = 4 << 20
	step   = window / 4
	// patience is how long the slowest reader of such a body may hold up the others
	// without the window's moving on; then it is left behind.
	patience = 5 * time.Second
	// maxUnshared is how many keys of a shard are remembered whose answers are not for
	// sharing.
	maxUnshared = 4096
)

// Fill is one fetch of an object, shared by all who want it meanwhile. Who leads
// it calls Begin, Write and then Commit; or Unshared, Resolve or Abort.
type Fill struct {
	store *Store
	key   Key
	epoch uint64
	depth int
	ctx   context.Context
	stop  context.CancelCauseFunc

	mu      sync.Mutex
	changed chan struct{} // closed at the next change, if anybody waits for it
	// claims counts the viewers that wait or read; where the last one leaves
	// before the end, the fetch ends too, unless it is detached.
	claims   int
	detached bool

	head     *Head   // once it is known
	resolved *Object // an object that answers all instead
	done     bool    // the body is whole
	ended    bool    // there is no leader any more
	err      error   // the end, where it is not the good one
	unshared bool

	// The body is in spool up to stored, and in buf from base on. They meet, but
	// where it is passing: it is too large or not to be stored, and buf is a window
	// that moves with the slowest reader.
	spool   *spool
	stored  int64
	buf     []byte
	base    int64
	passing bool
	readers map[*Body]int64 // the offsets that they have come to
}

// Fill joins the fetch of a key, or begins one, which the caller then leads. A fetch
// of some depth asks only others that are deeper, so that it joins none that is less
// deep: these may be waiting for it. It is
// nil where the answers of a key are known not to be for sharing: then the caller
// asks the origin for itself. Who has got a Fill calls Object once, or Leave. Who
// leads calls Get once more before it asks the origin: the fill before this one may
// have ended since it missed.
func (s *Store) Fill(k Key, depth int) (f *Fill, leader bool) {
	sh := s.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if until, ok := sh.unshared[k]; ok {
		if time.Now().Before(until) {
			return nil, false
		}
		delete(sh.unshared, k)
	}
	// Who comes after an invalidation must not get what was fetched before it.
	if f = sh.fills[k]; f != nil && f.epoch == s.epochs.now.Load() && f.depth >= depth && f.join() {
		return f, false
	}
	f = s.newFill(k)
	f.depth, f.claims = depth, 1
	sh.fills[k] = f
	return f, true
}

// Lead begins the fetch of a key for no viewer, which goes on until its end; its
// depth is as in Fill. It is nil if one is under way, or nothing is shared under the key.
func (s *Store) Lead(k Key, depth int) *Fill {
	sh := s.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if time.Now().Before(sh.unshared[k]) || sh.fills[k] != nil {
		return nil
	}
	f := s.newFill(k)
	f.depth, f.detached = depth, true
	sh.fills[k] = f
	return f
}

// Private is a fetch that nobody joins: the object is stored at its end, for later.
func (s *Store) Private(k Key) *Fill {
	f := s.newFill(k)
	f.detached = true
	return f
}

// Private is the Store's, for the key and as of the time of this fill.
func (f *Fill) Private() *Fill {
	p := f.store.Private(f.key)
	p.epoch = f.epoch
	return p
}

func (s *Store) newFill(k Key) *Fill {
	f := &Fill{store: s, key: k, epoch: s.epochs.now.Load(), readers: map[*Body]int64{}}
	f.ctx, f.stop = context.WithCancelCause(s.ctx)
	return f
}

// Depth is what the fetch was begun with.
func (f *Fill) Depth() int { return f.depth }

// join counts one more viewer, unless the fill has ended or cannot be read from
// its beginning any more.
func (f *Fill) join() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.done || f.unshared || f.resolved != nil || f.base > f.stored {
		return false
	}
	f.claims++
	return true
}

// Context ends with the fetch: when it is over, and when all who waited for it
// have left. Its leader asks the origin with it.
func (f *Fill) Context() context.Context { return f.ctx }

// Object waits for the head of the answer, and returns the object with a body that
// may still arrive, to be released. It fails with ErrUnshared where the caller has
// to ask the origin for itself, and else with the error that ended the fetch or
// ctx.
func (f *Fill) Object(ctx context.Context) (*Object, error) {
	for {
		f.mu.Lock()
		switch {
		case f.unshared:
			f.mu.Unlock()
			f.leave()
			return nil, ErrUnshared
		case f.resolved != nil:
			o := f.resolved
			o.acquire() // the fill has a reference, so it is open
			f.mu.Unlock()
			f.leave()
			return o, nil
		case f.head != nil:
			o := &Object{Head: f.head, fill: f}
			f.mu.Unlock()
			return o, nil
		case f.err != nil:
			err := f.err
			f.mu.Unlock()
			f.leave()
			return nil, err
		}
		changed := f.change()
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			f.leave()
			return nil, context.Cause(ctx)
		}
	}
}

// Leave is for who does not call Object.
func (f *Fill) Leave() { f.leave() }

func (f *Fill) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims--
	if f.claims == 0 && !f.detached && !f.whole() {
		f.stop(ErrAbandoned)
	}
	f.free()
	f.notify()
}

// whole tells whether all of the body has come that was announced: who has read it
// leaves before its leader has seen the end. f.mu is held.
func (f *Fill) whole() bool {
	return f.head != nil && f.head.Length >= 0 && f.base+int64(len(f.buf)) == f.head.Length
}

// free gives up the file when the fill has ended and nobody reads. f.mu is held.
func (f *Fill) free() {
	if f.claims > 0 || !f.ended {
		return
	}
	if f.spool != nil {
		f.spool.body.release()
		f.spool = nil
	}
	if f.resolved != nil {
		f.resolved.Release()
		f.resolved = nil
	}
}

// Begin gives the head of an answer that is for all, and may be stored if its
// Lifetime says so. The fill sets h.Epoch.
func (f *Fill) Begin(h Head) {
	h.Epoch = f.epoch
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head = &h
	if !h.Lifetime.Store || h.Length > f.store.maxObject() {
		f.passing = true
	} else if h.Length > 0 && h.Length <= maxInMemory {
		f.buf = make([]byte, 0, h.Length)
	}
	f.notify()
}

// Write takes the next bytes of the body. It blocks where they are not stored and
// the slowest reader is far behind: for as long as that one takes if there is no
// other, and else for a while, after which the slow ones' reads fail.
func (f *Fill) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := context.Cause(f.ctx); err != nil {
		return 0, err
	}
	written := f.base + int64(len(f.buf)) + int64(len(p))
	if f.head.Length >= 0 && written > f.head.Length {
		return 0, ErrTruncated
	}
	if written > f.store.maxObject() {
		f.pass()
	}
	if f.passing {
		if err := f.room(len(p)); err != nil {
			return 0, err
		}
	}
	f.buf = append(f.buf, p...)
	f.notify()
	if !f.passing && (f.spool != nil || written > maxInMemory || f.head.Length > maxInMemory) {
		f.flush(len(f.buf) / blockSize * blockSize)
	}
	return len(p), nil
}

// flush moves n bytes from memory to the file. Where that fails, the body goes on
// to its readers, and is not stored. f.mu is held, and given up for the time.
func (f *Fill) flush(n int) {
	if n == 0 {
		return
	}
	spool, p := f.spool, f.buf[:n]
	f.mu.Unlock()
	if spool == nil {
		spool = f.store.newSpool()
	}
	failed := spool == nil || spool.write(p) != nil
	f.mu.Lock()
	f.spool = spool
	if failed {
		f.pass()
		return
	}
	f.stored += int64(n)
	f.base = f.stored
	f.buf = append([]byte(nil), f.buf[n:]...)
}

// pass makes the body one that is not stored. f.mu is held.
func (f *Fill) pass() {
	if !f.passing && f.spool != nil {
		f.spool.drop()
	}
	f.passing = true
}

// room waits until the window has room for n more bytes, or is empty.
func (f *Fill) room(n int) error {
	var late *time.Timer
	for {
		f.drop()
		if len(f.buf) == 0 || len(f.buf)+n <= window {
			return nil
		}
		if late == nil {
			late = time.NewTimer(patience)
			defer late.Stop()
		}
		changed := f.change()
		f.mu.Unlock()
		select {
		case <-changed:
			f.mu.Lock()
		case <-late.C:
			f.mu.Lock()
			f.leaveBehind()
			late.Reset(patience)
		case <-f.ctx.Done():
			f.mu.Lock()
			return context.Cause(f.ctx)
		}
	}
}

// drop gives up what all readers have read, where it is a step at least or all there
// is. One who has not begun may want everything.
func (f *Fill) drop() {
	if f.claims > len(f.readers) {
		return
	}
	end := f.base + int64(len(f.buf))
	least := end
	for _, off := range f.readers {
		if off != behind {
			least = min(least, off)
		}
	}
	if least == end || least >= f.base+step {
		f.advance(least)
	}
}

// behind is the offset of a reader that has been left behind.
const behind = -1

// leaveBehind gives up a step that the slowest readers have not read, where another
// has read everything and waits: their reads fail from now on.
func (f *Fill) leaveBehind() {
	end, to := f.base+int64(len(f.buf)), f.base+step
	for _, off := range f.readers {
		if off != end {
			continue
		}
		for b, off := range f.readers {
			if off < to {
				f.readers[b] = behind
			}
		}
		f.advance(to)
		return
	}
}

// advance moves the beginning of the window to an offset.
func (f *Fill) advance(to int64) {
	if to > f.base {
		f.buf = append([]byte(nil), f.buf[to-f.base:]...)
		f.base = to
	}
}

// Commit ends a body that is whole, and stores the object.
func (f *Fill) Commit() error {
	f.mu.Lock()
	if f.head.Length >= 0 && !f.whole() {
		f.mu.Unlock()
		f.Abort(ErrTruncated)
		return ErrTruncated
	}
	if f.spool != nil && !f.passing {
		f.flush(len(f.buf))
	}
	f.mu.Unlock()
	o := f.object()
	// The object is there before the fill ends, so that nobody asks again.
	if o != nil {
		f.store.keep(f.key, o)
	}
	f.mu.Lock()
	f.done = true
	f.notify()
	f.mu.Unlock()
	f.end()
	return nil
}

// object returns the object of a body that is whole, with a reference, or nil where
// it is not to be stored. Only the leader changes what it reads.
func (f *Fill) object() *Object {
	if f.passing {
		return nil
	}
	h := *f.head
	h.Length = f.base + int64(len(f.buf))
	if f.spool == nil {
		return &Object{Head: &h, data: f.buf}
	}
	o, err := f.spool.finish(f.key, &h)
	if err != nil {
		f.mu.Lock()
		f.pass()
		f.mu.Unlock()
		return nil
	}
	return o
}

// Refresh gives a stored object the head that a 304 has made of its own, without
// touching its body, and returns the object as it is now, to be released by the
// caller like the one given. As of an invalidation it is as old as the fill: the
// origin may have answered before what the invalidation is about.
func (f *Fill) Refresh(o *Object, h Head) *Object {
	h.Length = o.Head.Length
	h.Epoch = f.epoch
	fresh := &Object{Head: &h, data: o.data, file: o.file}
	fresh.acquire() // for the caller, who holds o
	fresh.disk.Store(o.disk.Load())
	if s := f.store; s.put(f.key, fresh, true) && s.disk != nil {
		s.disk.later(f.key, func() { s.disk.refresh(f.key, fresh) })
	}
	return fresh
}

// Resolve answers all who wait with an object of the cache, such as the one that
// the origin has just validated. Each of them releases it, as the caller does.
func (f *Fill) Resolve(o *Object) {
	o.acquire()
	f.mu.Lock()
	f.resolved = o
	f.notify()
	f.mu.Unlock()
	f.end()
}

// Unshared tells that the answer is for one viewer only: who waits, and who comes
// within the next seconds, goes on alone. It ends the fill.
func (f *Fill) Unshared() {
	sh := f.store.shard(f.key)
	now := time.Now()
	sh.mu.Lock()
	if len(sh.unshared) >= maxUnshared {
		clear(sh.unshared) // mostly of keys that nobody asks for any more; the others are found out again
	}
	sh.unshared[f.key] = now.Add(unsharedFor)
	sh.mu.Unlock()
	f.mu.Lock()
	f.unshared = true
	f.notify()
	f.mu.Unlock()
	f.end()
}

// Abort ends the fetch with an error, which all get who wait or read.
func (f *Fill) Abort(err error) {
	if err == nil {
		err = errors.New("aborted")
	}
	f.mu.Lock()
	f.err = fmt.Errorf("cache: fill: %w", err)
	f.notify()
	f.mu.Unlock()
	f.end()
}

// end makes the fill one that nobody joins any more.
func (f *Fill) end() {
	sh := f.store.shard(f.key)
	sh.mu.Lock()
	if sh.fills[f.key] == f {
		delete(sh.fills, f.key)
	}
	sh.mu.Unlock()
	f.mu.Lock()
	if f.spool != nil && !f.done {
		f.pass()
	}
	f.ended = true
	f.free()
	f.mu.Unlock()
	f.stop(context.Canceled)
}

// change returns what is closed at the next change. f.mu is held.
func (f *Fill) change() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// notify tells those who wait for a change. f.mu is held.
func (f *Fill) notify() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// reads takes note of a reader that begins at off.
func (f *Fill) reads(b *Body, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers[b] = off
}

// closed takes note that a reader has ended.
func (f *Fill) closed(b *Body) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, b)
	f.notify()
}

// errGone is that of a reader of what was not kept.
var errGone = errors.New("cache: this part of the body was not kept")

// read reads at a reader's offset, and waits for what is to come.
func (f *Fill) read(b *Body, p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch off := f.readers[b]; {
		case off == behind:
			return 0, errGone
		case off < f.stored:
			file := f.spool.body.f
			p = p[:min(int64(len(p)), f.stored-off)]
			f.mu.Unlock()
			n, err := file.ReadAt(p, off)
			f.mu.Lock()
			if f.readers[b] != behind {
				f.readers[b] = off + int64(n)
			}
			return n, err
		case off < f.base:
			return 0, errGone
		case off < f.base+int64(len(f.buf)):
			n := copy(p, f.buf[off-f.base:])
			f.readers[b] = off + int64(n)
			if f.passing {
				f.notify()
			}
			return n, nil
		case f.err != nil:
			return 0, f.err
		case f.done:
			return 0, io.EOF
		}
		changed := f.change()
		f.mu.Unlock()
		select {
		case <-changed:
			f.mu.Lock()
		case <-b.ctx.Done():
			f.mu.Lock()
			return 0, context.Cause(b.ctx)
		}
	}
}

// maxObject is the largest body that can be stored.
func (s *Store) maxObject() int64 {
	if s.disk != nil {
		return min(MaxObject, s.options.Disk)
	}
	return min(maxInMemory, s.options.Memory/2)
}

// keep stores a new object, and takes over the caller's reference.
func (s *Store) keep(k Key, o *Object) {
	if s.put(k, o, true) && s.disk != nil && o.file == nil {
		s.disk.later(k, func() { s.disk.write(k, o) })
	}
	o.Release()
}
