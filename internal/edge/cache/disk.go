package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// diskUnit is what files are rounded up to where the tier is counted.
	diskUnit = 4096
	// numWriters is how many goroutines write small objects.
	numWriters = 2
	// maxWaiting is how many small objects may wait for a writer; who comes then
	// waits too.
	maxWaiting = 512
	// fullPause is how long nothing is stored after the disk had no room.
	fullPause = 5 * time.Second
)

// disk is the tier on disk: a file an object, in objects/ by key.
type disk struct {
	dir   string
	log   *slog.Logger
	queue *s3fifo[struct{}]
	// shards are locked while a file of theirs gets its name, loses it, or is read
	// by it.
	shards [numShards]diskShard

	loading atomic.Bool // the index does not know all files yet
	full    atomic.Int64
	work    [numWriters]chan func()
	workers sync.WaitGroup
	loaded  sync.WaitGroup
	quit    chan struct{}

	closing sync.RWMutex
	closed  bool
}

type diskShard struct {
	mu    sync.RWMutex
	nodes map[Key]*node[struct{}]
}

// openDisk opens the tier of a directory. Its files are found in the background.
func openDisk(dir string, capacity int64, log *slog.Logger) (*disk, error) {
	d := &disk{dir: dir, log: log, quit: make(chan struct{})}
	d.queue = newS3FIFO(capacity, d.evict)
	if err := os.RemoveAll(d.temporary()); err != nil {
		return nil, err
	}
	for _, path := range []string{d.temporary(), filepath.Join(dir, "objects")} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	for i := range d.shards {
		d.shards[i].nodes = map[Key]*node[struct{}]{}
		if err := os.MkdirAll(filepath.Join(dir, "objects", fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, err
		}
	}
	for i := range d.work {
		d.work[i] = make(chan func(), maxWaiting/numWriters)
		d.workers.Go(func() {
			for f := range d.work[i] {
				f()
			}
		})
	}
	d.loading.Store(true)
	d.loaded.Go(d.load)
	return d, nil
}

// close ends the tier when all that waits is written.
func (d *disk) close() {
	d.closing.Lock()
	again := d.closed
	d.closed = true
	d.closing.Unlock()
	if again {
		return
	}
	close(d.quit)
	d.loaded.Wait()
	for i := range d.work {
		close(d.work[i])
	}
	d.workers.Wait()
}

func (d *disk) temporary() string { return filepath.Join(d.dir, "tmp") }

func (d *disk) shard(k Key) *diskShard { return &d.shards[k[0]%numShards] }

// keys returns the keys of a shard.
func (d *disk) keys(i int) []Key {
	sh := &d.shards[i]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return slices.Collect(maps.Keys(sh.nodes))
}

func (d *disk) path(k Key) string {
	return filepath.Join(d.dir, "objects", fmt.Sprintf("%02x", k[0]%numShards), hex.EncodeToString(k[:]))
}

// load makes the index of the files that are there.
func (d *disk) load() {
	defer d.loading.Store(false)
	for i := range d.shards {
		entries, err := os.ReadDir(filepath.Join(d.dir, "objects", fmt.Sprintf("%02x", i)))
		if err != nil {
			d.log.Error("edge cache: cannot list objects", "error", err)
			continue
		}
		for _, e := range entries {
			select {
			case <-d.quit:
				return
			default:
			}
			var k Key
			if n, err := hex.Decode(k[:], []byte(e.Name())); err != nil || n != len(k) || len(e.Name()) != 2*len(k) {
				continue
			}
			if info, err := e.Info(); err == nil {
				d.index(k, info.Size(), false)
			}
		}
	}
}

// index takes note of a file. It replaces what was known of the key only if so
// told.
func (d *disk) index(k Key, size int64, replace bool) *node[struct{}] {
	n := &node[struct{}]{key: k, size: (size + diskUnit - 1) / diskUnit * diskUnit}
	sh := d.shard(k)
	sh.mu.Lock()
	old := sh.nodes[k]
	if old != nil && !replace {
		sh.mu.Unlock()
		return old
	}
	sh.nodes[k] = n
	sh.mu.Unlock()
	if old != nil {
		d.queue.remove(old)
	}
	d.queue.add(n)
	return n
}

// evict deletes the file of a node that the tier has given up.
func (d *disk) evict(n *node[struct{}]) {
	sh := d.shard(n.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.nodes[n.key] == n {
		delete(sh.nodes, n.key)
		d.unlink(n.key)
	}
}

// remove deletes the file of a key, if there is one.
func (d *disk) remove(k Key) {
	sh := d.shard(k)
	sh.mu.Lock()
	n := sh.nodes[k]
	delete(sh.nodes, k)
	if n != nil || d.loading.Load() {
		d.unlink(k)
	}
	sh.mu.Unlock()
	if n != nil {
		d.queue.remove(n)
	}
}

func (d *disk) unlink(k Key) {
	if err := os.Remove(d.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("edge cache: cannot delete an object", "error", err)
	}
}

// find opens the object of a key, nil if there is none. A small one is read whole.
func (d *disk) find(k Key) *Object {
	sh := d.shard(k)
	sh.mu.RLock()
	n := sh.nodes[k]
	if n == nil && !d.loading.Load() {
		sh.mu.RUnlock()
		return nil
	}
	o, size, err := d.read(k)
	sh.mu.RUnlock()
	if err == nil {
		if n == nil {
			n = d.index(k, size, false)
		}
		n.touch()
		o.disk.Store(n)
		return o
	}
	if !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("edge cache: an object on disk is not used", "key", k, "error", err)
		d.remove(k)
	} else if n != nil {
		d.remove(k) // somebody else has deleted its file
	}
	return nil
}

// read opens and verifies the file of a key. Of a large one, the head is verified
// and the first part of the body; the rest is when it is used.
func (d *disk) read(k Key) (*Object, int64, error) {
	f, err := os.OpenFile(d.path(k), os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	h, sums, err := readTail(f, k)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	size := h.Length // near enough for the index
	b := openBody(f, h.Length, sums)
	if h.Length <= maxInMemory {
		defer b.release()
		data, err := b.readAll()
		return &Object{Head: h, data: data}, size, err
	}
	b.check()
	for off := int64(0); off < min(h.Length, 4*blockSize); {
		if off, err = b.verify(off); err != nil {
			b.release()
			return nil, 0, err
		}
	}
	return &Object{Head: h, file: b}, size, nil
}

// later has a writer do something about a key, after what it was told of that key
// before. A tier that is closed does it at once.
func (d *disk) later(k Key, f func()) {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		f()
		return
	}
	d.work[k[1]%numWriters] <- f
}

// write stores a small object. The disk may have no room; then there is nothing
// stored.
func (d *disk) write(k Key, o *Object) {
	if d.pausing() {
		return
	}
	end, err := tail(k, o.Head, int64(len(o.data)), appendSums(nil, o.data))
	if err != nil {
		d.failed("encode an object", err)
		return
	}
	size := int64(len(o.data) + len(end))
	if size > d.queue.capacity {
		return
	}
	f, err := d.create()
	if err != nil {
		d.failed("store an object", err)
		return
	}
	defer f.Close()
	if _, err = f.Write(o.data); err == nil {
		_, err = f.Write(end)
	}
	if err == nil {
		err = d.install(f, k, o, size, 0)
	}
	if err != nil {
		os.Remove(f.Name())
		d.failed("store an object", err)
	}
}

func (d *disk) create() (*os.File, error) { return os.CreateTemp(d.temporary(), "") }

// install gives a file that is whole its name. It takes the room that was reserved
// for it.
func (d *disk) install(f *os.File, k Key, o *Object, size, reserved int64) error {
	sh := d.shard(k)
	sh.mu.Lock()
	err := os.Rename(f.Name(), d.path(k))
	sh.mu.Unlock()
	d.queue.unreserve(reserved)
	if err != nil {
		return err
	}
	o.disk.Store(d.index(k, size, true))
	return nil
}

// refresh writes an object's head anew, if it is on disk.
func (d *disk) refresh(k Key, o *Object) {
	sh := d.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.nodes[k] == nil {
		return
	}
	b := o.file
	if b == nil || !b.acquire() {
		f, err := os.OpenFile(d.path(k), os.O_RDWR, 0)
		if err != nil {
			return // it was given up meanwhile
		}
		h, sums, err := readTail(f, k)
		if err != nil || h.Length != o.Head.Length {
			f.Close()
			return
		}
		b = openBody(f, h.Length, sums)
	}
	defer b.release()
	end, err := tail(k, o.Head, b.length, b.sums)
	if err == nil {
		if _, err = b.f.WriteAt(end, b.length); err == nil {
			err = b.f.Truncate(b.length + int64(len(end)))
		}
		b.stamp()
	}
	if err != nil {
		d.unlink(k)
		d.failed("refresh an object", err)
	}
}

// failed notes that something could not be written, and lets the tier rest where
// the disk is full.
func (d *disk) failed(what string, err error) {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		if d.pausing() {
			return // it was said
		}
		d.full.Store(time.Now().Add(fullPause).UnixNano())
		// Others have taken what was meant for this tier: it makes do with less.
		d.queue.shed(d.queue.bytes() / 16)
	}
	d.log.Error("edge cache: cannot "+what+"; it is served from the origin", "error", err)
}

func (d *disk) pausing() bool { return time.Now().UnixNano() < d.full.Load() }
