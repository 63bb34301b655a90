package chunk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// A chunk's file: this header, a byte that tells how the content is kept, and the
// content. The last byte of the header is the version of the format.
const header = "LWC\x01"

const (
	plain      = 0 // as it is, where compression gains nothing
	compressed = 1 // one frame of Zstandard
)

// Store is the tier on this host's disk: a directory with a file for each chunk.
// It is safe for concurrent use.
//
// It counts how often each chunk is used, and deletes those that are not used any
// more. The counts are in memory: they come from the manifests that OpenStore is
// given, and then from Put and Release.
//
// Put does not wait for the disk: who needs chunks to last calls Sync.
type Store struct {
	dir  string
	read atomic.Int64 // bytes read from disk

	mu   sync.Mutex
	uses map[Digest]int
	lost map[Digest]bool // used and not there when the store was opened
	// suspect are chunks of images that were found damaged: Put writes them anew,
	// whatever is there.
	suspect map[Digest]bool
}

// OpenStore opens the chunks in dir, which it makes if it is missing, and deletes
// those that no manifest lists: a crash may have left them damaged.
func OpenStore(dir string, manifests ...*Manifest) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("chunk: %w", err)
	}
	s := &Store{dir: dir, uses: map[Digest]int{}, lost: map[Digest]bool{}, suspect: map[Digest]bool{}}
	for _, m := range manifests {
		for _, d := range m.Chunks {
			s.uses[d]++
			s.lost[d] = d != (Digest{})
		}
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("chunk: %w", err)
	}
	return s, nil
}

func (s *Store) path(d Digest) string {
	name := d.String()
	return filepath.Join(s.dir, name[:2], name)
}

// coders are shared: their methods for whole buffers are safe for concurrent use.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // of the options only
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(2*Size))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// Put stores a chunk unless it is there, and returns its digest and what it takes
// on disk, in bytes: 0 if it was there. The chunk is used once more from then on,
// also after an error.
func (s *Store) Put(content []byte) (d Digest, stored int64, err error) {
	if len(content) > Size {
		return Digest{}, 0, fmt.Errorf("chunk: %d bytes are more than a chunk holds", len(content))
	}
	if d = Sum(content); d == (Digest{}) {
		return d, 0, nil
	}
	s.mu.Lock()
	s.uses[d]++
	suspect := s.suspect[d]
	s.mu.Unlock()
	if _, err := os.Lstat(s.path(d)); err == nil && !suspect {
		return d, 0, nil
	}
	stored, err = s.write(d, content)
	return d, stored, err
}

// Distrust has the chunks of a manifest written anew where they are put again: one
// of them was found damaged, and what the others hold shows only when they are read.
func (s *Store) Distrust(m *Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range m.Chunks {
		if s.uses[d] > 0 {
			s.suspect[d] = true
		}
	}
}

// write writes the file of a chunk.
func (s *Store) write(d Digest, content []byte) (stored int64, err error) {
	b := encoder().EncodeAll(content, append([]byte(header), compressed))
	if len(b) > len(content) {
		b = append(append(b[:0], header...), plain)
		b = append(b, content...)
	}
	path := s.path(d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, fmt.Errorf("chunk: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-")
	if err != nil {
		return 0, fmt.Errorf("chunk: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		s.mu.Lock()
		if err = os.Rename(f.Name(), path); err == nil {
			delete(s.suspect, d)
		}
		s.mu.Unlock()
	}
	if err != nil {
		return 0, fmt.Errorf("chunk: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return int64(len(b)), nil
}

// Release undoes the uses of a manifest's chunks, and deletes those that nothing
// else uses.
func (s *Store) Release(m *Manifest) error { return s.release(m.Chunks) }

func (s *Store) release(digests []Digest) error {
	var errs []error
	for _, d := range digests {
		if d == (Digest{}) {
			continue
		}
		s.mu.Lock()
		if s.uses[d]--; s.uses[d] <= 0 {
			delete(s.uses, d)
			delete(s.suspect, d)
			errs = append(errs, s.remove(d))
		}
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Fetch implements Source. A damaged chunk is deleted, so that it can be had from
// elsewhere and put again.
func (s *Store) Fetch(_ context.Context, d Digest) ([]byte, error) {
	f, err := os.Open(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrMissing, d)
	}
	if err != nil {
		return nil, fmt.Errorf("chunk: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2*Size))
	if err != nil {
		return nil, fmt.Errorf("chunk: %w", err)
	}
	s.read.Add(int64(len(b)))
	content, err := decode(b)
	if err == nil && Sum(content) != d {
		err = ErrDamaged
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, d), s.removeFile(d, f))
	}
	return content, nil
}

// removeFile removes the file of a chunk, unless it was written anew since f was
// opened.
func (s *Store) removeFile(d Digest, f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	read, err := f.Stat()
	if err != nil {
		return fmt.Errorf("chunk: %w", err)
	}
	if now, err := os.Lstat(s.path(d)); err == nil && !os.SameFile(read, now) {
		return nil
	}
	return s.remove(d)
}

// decode undoes what Put did to the content. It bears any input.
func decode(b []byte) ([]byte, error) {
	if len(b) <= len(header) || string(b[:len(header)]) != header {
		return nil, ErrDamaged
	}
	kind, b := b[len(header)], b[len(header)+1:]
	switch kind {
	case plain:
	case compressed:
		var err error
		if b, err = decoder().DecodeAll(b, make([]byte, 0, Size)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	default:
		return nil, ErrDamaged
	}
	if len(b) > Size {
		return nil, ErrDamaged
	}
	return b, nil
}

func (s *Store) remove(d Digest) error {
	if err := os.Remove(s.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("chunk: %w", err)
	}
	return nil
}

// sweep deletes all chunks that are not used, and what writes left unfinished.
func (s *Store) sweep() error {
	return filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if d, err := parseDigest(e.Name()); err == nil && s.uses[d] > 0 {
			delete(s.lost, d)
			return nil
		}
		return os.Remove(path)
	})
}

// Whole tells whether all chunks of a manifest were there when the store was
// opened with it. What they hold is checked when they are read.
func (s *Store) Whole(m *Manifest) bool {
	return !slices.ContainsFunc(m.Chunks, func(d Digest) bool { return s.lost[d] })
}

// Sync brings all that was put to disk.
func (s *Store) Sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("chunk: %w", err)
	}
	defer d.Close()
	if err := syncfs(d); err != nil {
		return fmt.Errorf("chunk: sync: %w", err)
	}
	return nil
}

// BytesRead is what was read from disk so far, in bytes.
func (s *Store) BytesRead() int64 { return s.read.Load() }
