package chunk

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Writer cuts a file into chunks while it is written, and stores them. It takes
// what a Writer of package erofs writes: writes at rising offsets, with holes
// between, except that the first chunk stays open until Close. It is not safe for
// concurrent use.
type Writer struct {
	store  *Store
	g      errgroup.Group
	first  []byte
	buf    []byte // the chunk n that is being written
	n      int64
	size   int64
	stored atomic.Int64

	mu     sync.Mutex
	chunks []Digest
}

// buffers holds chunks to write into.
var buffers = sync.Pool{New: func() any { return new([Size]byte) }}

// NewWriter returns a Writer of a file into store.
func NewWriter(store *Store) *Writer {
	w := &Writer{store: store, first: make([]byte, Size)}
	w.buf = w.first
	w.g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	return w
}

// WriteAt implements io.WriterAt.
func (w *Writer) WriteAt(b []byte, off int64) (written int, err error) {
	for len(b) > 0 {
		chunk, at := off/Size, off%Size
		n := min(len(b), int(Size-at))
		if chunk == 0 {
			copy(w.first[at:], b[:n])
		} else {
			if err := w.advance(chunk); err != nil {
				return written, err
			}
			copy(w.buf[at:], b[:n])
		}
		b, off, written = b[n:], off+int64(n), written+n
		w.size = max(w.size, off)
	}
	return written, nil
}

// advance makes chunk the one that is written.
func (w *Writer) advance(chunk int64) error {
	if chunk < w.n {
		return errors.New("chunk: written out of order")
	}
	if chunk == w.n {
		return nil
	}
	if chunk >= maxFile/Size {
		return fmt.Errorf("chunk: a file of more than %d bytes", int64(maxFile))
	}
	if w.n > 0 {
		w.put(w.n, w.buf)
	}
	w.n, w.buf = chunk, buffers.Get().(*[Size]byte)[:]
	clear(w.buf)
	return nil
}

// put stores a whole chunk in the background and gives its buffer back.
func (w *Writer) put(n int64, b []byte) {
	w.g.Go(func() error {
		d, stored, err := w.store.Put(b)
		w.set(n, d)
		w.stored.Add(stored)
		if cap(b) == Size && n > 0 {
			buffers.Put((*[Size]byte)(b[:Size]))
		}
		return err
	})
}

func (w *Writer) set(n int64, d Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for int64(len(w.chunks)) <= n {
		w.chunks = append(w.chunks, Digest{})
	}
	w.chunks[n] = d
}

// Abort gives up what was stored. It is for instead of Close.
func (w *Writer) Abort() error {
	err := w.g.Wait()
	return errors.Join(err, w.store.release(w.chunks))
}

// Close stores what is left and returns the file's manifest, and how many bytes
// on disk the file has cost beyond what was there.
func (w *Writer) Close() (m *Manifest, stored int64, err error) {
	w.put(0, w.first[:min(Size, w.size)])
	if w.n > 0 {
		w.put(w.n, w.buf[:w.size-w.n*Size])
	}
	if err := w.g.Wait(); err != nil {
		return nil, 0, errors.Join(err, w.Abort())
	}
	return &Manifest{Size: w.size, Chunks: w.chunks}, w.stored.Load(), nil
}
