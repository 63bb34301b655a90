// Package image turns code packages into file-system images: EROFS files (see
// package erofs) that hold what was unpacked, are named by a digest, never
// change, and are mounted read-only into every sandbox that runs that code. The
// sandboxes of a host share their pages in its page cache.
//
// A package comes from a stranger. Everything about it is checked before
// anything is written (names, links, kinds of entries, sizes, overlaps), and
// the bytes themselves while they are written (size and CRC). An image is
// written to a temporary file, synced to disk and renamed into place, so it
// either is there whole or is not there; a crash leaves only temporary files,
// which Open sweeps.
//
// Merge makes one image of several, as the layers of a function lie over each
// other. Build makes one of whatever its caller adds.
//
// What Build makes can be large, as container images are, and most of it is never
// read. It is kept in chunks (see package chunk): compressed, and where two images
// have one in common it is stored once. Sandboxes see a file all the same, which is
// read as far as they read it (see package lazy). Where the host has no FUSE the
// file is put together whole. Packages have a file from the start: they are small,
// and in compressed form they are kept anyway, to be downloaded.
//
// The lambda service makes images when code is uploaded and removes them when
// no function version refers to them; the worker mounts Store.Path.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"lapwing.dev/lapwing/internal/image/chunk"
	"lapwing.dev/lapwing/internal/image/erofs"
)

const (
	// tempPrefix marks files that are not images: being made.
	tempPrefix = "tmp-"
	suffix     = ".erofs"

	// format is the version of what is in the directory, which its file
	// formatFile tells. Before it there were directories, without that file.
	format     = "2\n"
	formatFile = "format"
)

// Image is one unpacked package.
type Image struct {
	Digest       string // SHA-256 of the package, lower-case hex
	UnpackedSize int64  // sum of the sizes of all files, in bytes
}

// Store keeps images in one directory. It is safe for concurrent use.
type Store struct {
	dir     string
	log     *slog.Logger
	locks   keyedMutex
	chunked chunked
}

// Open opens the images in dir, which it makes if it is missing, and sweeps
// what an earlier process left unfinished. Images of an older format are gone
// then, and are to be made again; a newer format is refused. Chunks that are not
// there or damaged are asked for from the further tiers.
func Open(dir string, log *slog.Logger, further ...chunk.Source) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	// Not for others to list: who knows an image's digest has its code.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	s := &Store{dir: dir, log: log}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if err := s.openChunked(further); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return s, nil
}

// sweep removes what is not of this format or not finished.
func (s *Store) sweep() error {
	found, err := os.ReadFile(filepath.Join(s.dir, formatFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known := string(found) == format
	if err == nil && !known {
		return fmt.Errorf("%s has format %q and this version of Lapwing knows %q: use the version that wrote it, or remove the directory to have the images made again", s.dir, strings.TrimSpace(string(found)), strings.TrimSpace(format))
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !known || strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if known {
		return nil
	}
	return s.make(formatFile, func(f *os.File) error {
		_, err := f.WriteString(format)
		return err
	})
}

// Unpack makes the image of the zip package of size bytes in r, or returns the
// one that is there already. Packages that are refused give an *Error or
// ErrTooLarge and leave nothing behind; other errors are faults of this host.
// Concurrent calls for one package unpack it once.
func (s *Store) Unpack(ctx context.Context, r io.ReaderAt, size int64) (Image, error) {
	p, err := open(r, size)
	if err != nil {
		return Image{}, err
	}
	digest, err := digestOf(ctx, r, size)
	if err != nil {
		return Image{}, err
	}
	if err := s.buildWhole(ctx, digest, func(w *erofs.Writer) error { return p.extract(ctx, w) }); err != nil {
		return Image{}, err
	}
	return Image{Digest: digest, UnpackedSize: p.size}, nil
}

// buildWhole makes an image as a file, unless it is there already. Of concurrent
// calls one makes it.
func (s *Store) buildWhole(ctx context.Context, digest string, fill func(*erofs.Writer) error) error {
	return s.once(ctx, digest, func() error {
		return s.make(digest+suffix, func(f *os.File) error {
			w := erofs.NewWriter(f)
			if err := fill(w); err != nil {
				return err
			}
			_, err := w.Close()
			return err
		})
	})
}

// once calls build unless the image is there already, and for one of concurrent
// callers only.
func (s *Store) once(ctx context.Context, digest string, build func() error) error {
	if !isDigest(digest) {
		return fmt.Errorf("image: %q is not a digest", digest)
	}
	unlock, err := s.locks.lock(ctx, digest)
	if err != nil {
		return err
	}
	defer unlock()
	if s.Has(digest) {
		return nil
	}
	return build()
}

// make makes a file, all or nothing.
func (s *Store) make(name string, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(s.dir, tempPrefix)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return s.syncDir()
}

// Path returns the file that is to be mounted as the image with the given
// digest, whether it exists or not. Only this process may be able to open it.
func (s *Store) Path(digest string) string {
	if path, ok := s.lazyPath(digest); ok {
		return path
	}
	return s.file(digest)
}

// file is where an image is that is a file.
func (s *Store) file(digest string) string { return filepath.Join(s.dir, digest+suffix) }

// Has tells whether the image exists and can be mounted.
func (s *Store) Has(digest string) bool {
	if !isDigest(digest) {
		return false
	}
	if _, ok := s.lazyPath(digest); ok {
		return true
	}
	fi, err := os.Lstat(s.file(digest))
	return err == nil && fi.Mode().IsRegular()
}

// List returns the digests of all images, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	var digests []string
	for _, e := range entries {
		digest, ext, _ := strings.Cut(e.Name(), ".")
		if (ext == suffix[1:] || ext == manifestSuffix[1:]) && isDigest(digest) {
			digests = append(digests, digest)
		}
	}
	return slices.Compact(digests), nil
}

// BytesRead is how much of images that are kept in chunks was read from disk so
// far, in bytes as they are there, compressed.
func (s *Store) BytesRead() int64 { return s.chunked.chunks.BytesRead() }

// Close ends what shows images to sandboxes, of which none may be left: it waits
// for that as long as ctx.
func (s *Store) Close(ctx context.Context) error { return s.closeChunked(ctx) }

// Remove deletes an image; one that is not there is no error. Sandboxes that have
// it mounted keep it.
func (s *Store) Remove(ctx context.Context, digest string) error {
	if !isDigest(digest) {
		return fmt.Errorf("image: %q is not a digest", digest)
	}
	unlock, err := s.locks.lock(ctx, digest)
	if err != nil {
		return err
	}
	defer unlock()
	for _, path := range []string{s.file(digest), s.manifest(digest)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("image: remove: %w", err)
		}
	}
	s.removeChunked(digest)
	return s.syncDir()
}

// Spool copies at most limit bytes of r into a file that has no name and is
// gone when it is closed, for packages that do not arrive in memory. A longer
// r gives ErrPackageTooLarge.
func (s *Store) Spool(ctx context.Context, r io.Reader, limit int64) (f *os.File, size int64, err error) {
	f, err = os.CreateTemp(s.dir, tempPrefix)
	if err != nil {
		return nil, 0, fmt.Errorf("image: spool: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			f = nil
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return f, 0, fmt.Errorf("image: spool: %w", err)
	}
	size, err = io.Copy(f, io.LimitReader(&contextReader{ctx, r}, limit+1))
	if err != nil {
		return f, 0, fmt.Errorf("image: spool: %w", err)
	}
	if size > limit {
		return f, 0, ErrPackageTooLarge
	}
	return f, size, nil
}

func (s *Store) syncDir() error {
	d, err := os.Open(s.dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("image: sync: %w", err)
	}
	return nil
}

func isDigest(s string) bool {
	if len(s) != sha256.Size*2 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func digestOf(ctx context.Context, r io.ReaderAt, size int64) (string, error) {
	h := sha256.New()
	buf := make([]byte, 256*1024)
	if _, err := io.CopyBuffer(h, &contextReader{ctx, io.NewSectionReader(r, 0, size)}, buf); err != nil {
		return "", fmt.Errorf("image: read package: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// contextReader fails when its context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// keyedMutex is one mutex for each key; waiting ends with the context.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	token chan struct{} // holds one token while the lock is free
	users int           // holders and waiters
}

func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.held[key]
	if l == nil {
		l = &keyLock{token: make(chan struct{}, 1)}
		l.token <- struct{}{}
		if k.held == nil {
			k.held = map[string]*keyLock{}
		}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()

	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case <-l.token:
		return func() { l.token <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
