// Package cache keeps objects of edge locations: whole answers of origins, under
// keys that the request pipeline makes.
//
// It has two tiers. Memory holds small objects, ready to be written to a viewer;
// disk holds all of them, outlives a restart, and serves large ones from their
// files. Each tier is bounded in bytes, and gives up by S3-FIFO what was asked for
// least (a scan of objects that are wanted once passes through a tenth of it). A
// file is written beside its place and named when it is whole; its head and each
// block of its body carry checksums, which are verified before a viewer sees a
// byte of them. What is damaged is as good as absent.
//
// Who misses asks for a Fill: one request of a key leads, and the others read the
// same bytes while they arrive. Where the answer turns out to be for one viewer
// only, the waiters go on by themselves, and the store remembers for a few seconds
// that there is nothing to wait for.
//
// An invalidation is an epoch: an object that was asked for before the latest
// invalidation of its path is not there any more. That is checked when the object
// is looked up, so an invalidation takes the same short time whatever it hits.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Key names an object: a hash of all that tells its variants apart.
type Key [32]byte

// String returns the key in hexadecimal.
func (k Key) String() string { return fmt.Sprintf("%x", k[:]) }

const (
	// MaxObject is the largest object that is stored, in bytes: CloudFront's
	// quota.
	MaxObject = 50 << 30
	// maxInMemory is the largest body that memory holds, in bytes.
	maxInMemory = 1 << 20
	// unsharedFor is how long a key is remembered whose answers are not for
	// sharing.
	unsharedFor = 5 * time.Second
	// numShards is the number of locks that keys are spread over.
	numShards = 64
)

// Options say how large a cache is, and where.
type Options struct {
	Dir    string // of the disk tier, made if it is not there; empty: memory only
	Memory int64  // bytes of objects in memory
	Disk   int64  // bytes of objects on disk
	Logger *slog.Logger
}

// Store is a cache. It may be used by many goroutines at a time.
type Store struct {
	options Options
	log     *slog.Logger
	shards  [numShards]shard
	memory  *s3fifo[*Object]
	disk    *disk // nil: none
	epochs  epochs

	ctx  context.Context // ends with Close; fills run in it
	stop context.CancelFunc

	sweeping atomic.Bool
	work     sync.WaitGroup
}

// shard holds the keys of one lock.
type shard struct {
	mu       sync.RWMutex
	objects  map[Key]*node[*Object]
	fills    map[Key]*Fill
	unshared map[Key]time.Time // until when
}

// Open opens the cache of a directory, with the objects that it had.
func Open(o Options) (*Store, error) {
	if o.Memory < 0 || o.Disk < 0 {
		return nil, errors.New("cache: a size is negative")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Store{options: o, log: o.Logger}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.memory = newS3FIFO(o.Memory, s.forget)
	for i := range s.shards {
		s.shards[i].objects = map[Key]*node[*Object]{}
		s.shards[i].fills = map[Key]*Fill{}
		s.shards[i].unshared = map[Key]time.Time{}
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("cache: open: %w", err)
	}
	return s, nil
}

// open opens what is on disk.
func (s *Store) open() error {
	dir := s.options.Dir
	if dir == "" || s.options.Disk == 0 {
		_, err := s.epochs.open("", s.log)
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fresh, err := s.epochs.open(dir, s.log)
	if err == nil && fresh {
		err = os.RemoveAll(filepath.Join(dir, "objects"))
	}
	if err != nil {
		return err
	}
	s.disk, err = openDisk(dir, s.options.Disk, s.log)
	return err
}

// Close ends the fills under way, writes what is to be written, and closes the
// cache. No other method may be called after it, nor may a fill be led.
func (s *Store) Close() error {
	s.stop()
	s.work.Wait()
	if s.disk != nil {
		s.disk.close()
	}
	return nil
}

func (s *Store) shard(k Key) *shard { return &s.shards[k[0]%numShards] }

// Get returns the object of a key, be it fresh or not, unless it was invalidated.
// The caller releases it.
func (s *Store) Get(k Key) (*Object, bool) {
	o, ok := s.peek(k)
	if ok && (o.file != nil && o.file.bad.Load() || !s.epochs.valid(o)) {
		o.Release()
		s.Remove(k)
		return nil, false
	}
	return o, ok
}

// InMemory returns what Get does where the body is in memory. It never looks at the
// disk, so that it does not block, and what it returns need not be released.
func (s *Store) InMemory(k Key) (*Object, bool) {
	sh := s.shard(k)
	sh.mu.RLock()
	n := sh.objects[k]
	sh.mu.RUnlock()
	if n == nil || n.value.data == nil || !s.epochs.valid(n.value) {
		return nil, false
	}
	touch(n)
	return n.value, true
}

// touch notes a hit of an object in memory, on either tier.
func touch(n *node[*Object]) {
	n.touch()
	if d := n.value.disk.Load(); d != nil {
		d.touch()
	}
}

// peek returns the object of a key, be it invalidated or not.
func (s *Store) peek(k Key) (*Object, bool) {
	sh := s.shard(k)
	sh.mu.RLock()
	n := sh.objects[k]
	sh.mu.RUnlock()
	var o *Object
	if n != nil && n.value.acquire() {
		o = n.value
		touch(n)
	} else if s.disk != nil {
		if o = s.disk.find(k); o != nil {
			s.put(k, o, false)
		}
	}
	return o, o != nil
}

// keys returns the keys of a shard.
func (s *Store) keys(i int) []Key {
	sh := &s.shards[i]
	sh.mu.RLock()
	keys := slices.Collect(maps.Keys(sh.objects))
	sh.mu.RUnlock()
	if s.disk != nil {
		keys = append(keys, s.disk.keys(i)...)
	}
	return keys
}

// Remove takes the object of a key out of the cache, if there is one.
func (s *Store) Remove(k Key) {
	sh := s.shard(k)
	sh.mu.Lock()
	n := sh.objects[k]
	delete(sh.objects, k)
	sh.mu.Unlock()
	if n != nil {
		s.memory.remove(n)
		n.value.Release()
	}
	if s.disk != nil {
		s.disk.remove(k)
	}
}

// put makes o, which is new or has just been read, the object of a key in memory,
// unless one is there that was asked for after a later invalidation, and tells
// whether it did.
func (s *Store) put(k Key, o *Object, isNew bool) bool {
	n := &node[*Object]{key: k, value: o, size: o.cost()}
	sh := s.shard(k)
	sh.mu.Lock()
	old := sh.objects[k]
	if old != nil && old.value.Head.Epoch > o.Head.Epoch || isNew && o.Head.Epoch < s.epochs.swept.Load() {
		sh.mu.Unlock()
		return false
	}
	fits := n.size <= s.options.Memory/2
	if fits {
		o.acquire() // for the tier
		sh.objects[k] = n
	} else {
		delete(sh.objects, k)
	}
	sh.mu.Unlock()
	if old != nil {
		s.memory.remove(old)
		old.value.Release()
	}
	if fits {
		s.memory.add(n)
	}
	return true
}

// forget is told of what memory has given up.
func (s *Store) forget(n *node[*Object]) {
	sh := s.shard(n.key)
	sh.mu.Lock()
	there := sh.objects[n.key] == n
	if there {
		delete(sh.objects, n.key)
	}
	sh.mu.Unlock()
	if there {
		n.value.Release()
	}
}

// Stats are what a cache holds and has done.
type Stats struct {
	Objects     int // in memory
	MemoryBytes int64
	DiskBytes   int64
}

// Stats returns the present figures.
func (s *Store) Stats() Stats {
	var st Stats
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		st.Objects += len(sh.objects)
		sh.mu.RUnlock()
	}
	st.MemoryBytes = s.memory.bytes()
	if s.disk != nil {
		st.DiskBytes = s.disk.queue.bytes()
	}
	return st
}
