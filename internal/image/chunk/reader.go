package chunk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/singleflight"
)

// Reader reads chunks from tiers, nearest first, and stores what comes from the
// others in the nearest. It keeps the last few chunks, as files are read in pieces;
// what is read often is for the kernel's page cache to keep. It is safe for
// concurrent use.
type Reader struct {
	store   *Store
	further []Source
	flight  singleflight.Group

	mu   sync.Mutex
	last [keep]kept // in the order of use, the latest first
}

type kept struct {
	digest  Digest
	content []byte
}

// keep is how many chunks a Reader keeps.
const keep = 8

// NewReader returns a Reader of chunks in store and then in further tiers.
func NewReader(store *Store, further ...Source) *Reader {
	return &Reader{store: store, further: further}
}

// Chunk returns the content of a chunk, which must not be changed. Concurrent
// calls for one chunk read it once.
func (r *Reader) Chunk(ctx context.Context, d Digest) ([]byte, error) {
	if b := r.recent(d, nil); b != nil {
		return b, nil
	}
	// Whoever is first must not fail the others by going away.
	found := r.flight.DoChan(string(d[:]), func() (any, error) {
		b, err := r.find(context.WithoutCancel(ctx), d)
		if err == nil {
			r.recent(d, b)
		}
		return b, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case f := <-found:
		if f.Err != nil {
			return nil, f.Err
		}
		return f.Val.([]byte), nil
	}
}

// find asks one tier after the other.
func (r *Reader) find(ctx context.Context, d Digest) ([]byte, error) {
	b, err := r.store.Fetch(ctx, d)
	if err == nil {
		return b, nil
	}
	errs := []error{err}
	for _, tier := range r.further {
		b, err := tier.Fetch(ctx, d)
		if err == nil && Sum(b) != d {
			err = fmt.Errorf("%w: %s", ErrDamaged, d)
		}
		if err == nil {
			_, err = r.store.write(d, b)
			return b, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// recent makes d, if it is kept, the latest, and returns its content. With a
// content it adds it.
func (r *Reader) recent(d Digest, content []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := -1
	for i := range r.last {
		if r.last[i].content != nil && r.last[i].digest == d {
			at, content = i, r.last[i].content
		}
	}
	if content == nil {
		return nil
	}
	if at < 0 {
		at = keep - 1
	}
	copy(r.last[1:at+1], r.last[:at])
	r.last[0] = kept{d, content}
	return content
}

// File is a file whose chunks a Reader reads.
type File struct {
	*Manifest
	reader *Reader
}

// File returns the file of a manifest.
func (r *Reader) File(m *Manifest) *File { return &File{m, r} }

// Read reads len(b) bytes at off, or up to the end of the file.
func (f *File) Read(ctx context.Context, b []byte, off int64) (n int, err error) {
	for n < len(b) && off < f.Size {
		chunk, at := int(off/Size), int(off%Size)
		length := f.length(chunk)
		part := b[n:][:min(len(b)-n, length-at)]
		if d := f.Chunks[chunk]; d == (Digest{}) {
			clear(part)
		} else {
			content, err := f.reader.Chunk(ctx, d)
			if err != nil {
				return n, err
			}
			if len(content) != length {
				return n, fmt.Errorf("%w: %s has %d bytes in a place for %d", ErrDamaged, d, len(content), length)
			}
			copy(part, content[at:])
		}
		n, off = n+len(part), off+int64(len(part))
	}
	return n, nil
}

// Length returns the size of the file, in bytes.
func (f *File) Length() int64 { return f.Size }
