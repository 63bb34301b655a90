package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/edge/freshness"
)

// Head is all of an answer but its body. It does not change once it is given to
// the cache.
type Head struct {
	Status int
	// Header is as it is stored: without fields of the connection, Age, and what
	// the origin forbids to store.
	Header http.Header
	// Distribution and Path are what invalidations name it by; Path is the one
	// that the origin was asked for, with the query if that is part of the key.
	Distribution, Path string
	// Lifetime says how long it may be used.
	Lifetime freshness.Lifetime
	// Length is of the body in bytes; -1 where the origin did not say and the
	// body still arrives.
	Length int64
	// Epoch is the store's: when the origin was asked, counted in invalidations.
	Epoch uint64
	// Note is for the pipeline to keep with the object.
	Note map[string]string `json:",omitempty"`
}

// Object is an object of the cache, or one that still arrives. Its methods may be
// called until it is released.
type Object struct {
	Head *Head
	// Memo is for who serves the object: what it has made of it, such as the bytes
	// of a head. It is dropped with the object's place in memory.
	Memo atomic.Value

	// The body is in one of these.
	data []byte    // whole, in memory
	file *bodyFile // in a file
	fill *Fill     // still arriving

	disk atomic.Pointer[node[struct{}]] // its place on disk

	checked atomic.Uint64 // the epoch at which it was last found valid
	held    atomic.Int64  // until when it is served stale without asking, Unix ns
}

const (
	// overhead is what an object costs memory beside its body and header.
	overhead = 512
	// fileOverhead is what one in a file costs; it bounds the files that are open.
	fileOverhead = 16 << 10
)

// cost is how many bytes of memory the object takes.
func (o *Object) cost() int64 {
	n := int64(len(o.data)) + overhead + int64(len(o.Head.Path))
	if o.file != nil {
		n += fileOverhead + 5*int64(len(o.file.sums))
	}
	for name, v := range o.Head.Header {
		n += int64(len(name)) + 64
		for _, s := range v {
			n += int64(len(s)) + 16
		}
	}
	return n
}

// Release ends the use of the object.
func (o *Object) Release() {
	switch {
	case o.fill != nil:
		o.fill.leave()
	case o.file != nil:
		o.file.release()
	}
}

// acquire lets the object be used once more, until it is released. It fails where
// it has just been given up.
func (o *Object) acquire() bool { return o.file == nil || o.file.acquire() }

// Bytes returns the whole body where it is in memory, and otherwise nil. Nobody
// changes it.
func (o *Object) Bytes() []byte { return o.data }

// Arriving tells whether the body still arrives from the origin.
func (o *Object) Arriving() bool { return o.fill != nil }

// Hold lets the object, which is stale, be served without asking the origin until
// then, since the origin has just failed.
func (o *Object) Hold(until time.Time) { o.held.Store(until.UnixNano()) }

// Held tells whether it is held at that time.
func (o *Object) Held(now time.Time) bool { return now.UnixNano() < o.held.Load() }

// Body returns a reader of n bytes of the body from off, or of all from there if n
// is negative. The caller closes it. Reads of what has not arrived yet wait, until
// ctx ends.
func (o *Object) Body(ctx context.Context, off, n int64) *Body {
	b := &Body{ctx: ctx, object: o, off: off, left: n}
	if length := o.Head.Length; length >= 0 {
		if n < 0 || n > length-off {
			b.left = max(length-off, 0)
		}
	}
	switch {
	case o.fill != nil:
		o.fill.reads(b, off)
	case o.file != nil:
		o.file.check()
	}
	return b
}

// Body reads a part of an object's body.
type Body struct {
	ctx    context.Context
	object *Object
	off    int64
	left   int64 // negative: to the end, wherever that is
}

// maxSection is the largest part of a file that Section returns.
const maxSection = 4 << 20

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.read(p)
	b.off += int64(n)
	if b.left > 0 {
		b.left -= int64(n)
		if err == io.EOF && b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// read reads at the body's offset.
func (b *Body) read(p []byte) (int, error) {
	switch o := b.object; {
	case o.fill != nil:
		return o.fill.read(b, p)
	case o.file != nil:
		end, err := o.file.verify(b.off)
		if err != nil {
			return 0, err
		}
		return o.file.f.ReadAt(p[:min(int64(len(p)), end-b.off)], b.off)
	default:
		return copy(p, o.data[b.off:]), nil
	}
}

// WriteTo implements io.WriterTo: from memory in one write, and from a file by the
// writer's ReadFrom, which may use Section.
func (b *Body) WriteTo(w io.Writer) (int64, error) {
	if b.object.data != nil {
		p := b.object.data[b.off : b.off+b.left]
		n, err := w.Write(p)
		b.off += int64(n)
		b.left -= int64(n)
		return int64(n), err
	}
	if b.object.file != nil {
		if r, ok := w.(io.ReaderFrom); ok {
			return r.ReadFrom(sections{b})
		}
	}
	return io.Copy(w, struct{ io.Reader }{b})
}

// sections is a Body without its WriteTo.
type sections struct{ b *Body }

// Read implements io.Reader.
func (s sections) Read(p []byte) (int, error) { return s.b.Read(p) }

// Section returns the Body's.
func (s sections) Section() (*os.File, int64, int64, error) { return s.b.Section() }

// errNoFile tells that a part of a body is not in a file.
var errNoFile = errors.New("cache: not in a file")

// Section returns the next part of the body that lies in a file, verified and
// ready for sendfile, and passes over it; the file must not be used after the
// object's release. It fails with io.EOF at the end, and otherwise where Read has
// to be used.
func (b *Body) Section() (f *os.File, off, n int64, err error) {
	file := b.object.file
	if file == nil {
		return nil, 0, 0, errNoFile
	}
	if b.left == 0 {
		return nil, 0, 0, io.EOF
	}
	off = b.off
	for end := min(off+b.left, off+maxSection); b.off < end; {
		verified, err := file.verify(b.off)
		if err != nil {
			return nil, 0, 0, err
		}
		b.off = min(verified, end)
	}
	b.left -= b.off - off
	return file.f, off, b.off - off, nil
}

// Close ends the reading.
func (b *Body) Close() error {
	if b.object.fill != nil {
		b.object.fill.closed(b)
	}
	return nil
}
