// Package image turns code packages into file-system images: directories that
// hold the unpacked package, are named by the SHA-256 of the package, never
// change, and are mounted read-only into every sandbox that runs that code.
//
// A package comes from a stranger. Everything about it is checked before
// anything is written (names, links, kinds of entries, sizes, overlaps), and
// the bytes themselves while they are written (size and CRC). What passes is
// unpacked into a temporary directory, synced to disk and renamed into place,
// so an image either is there whole or is not there; a crash leaves only
// temporary directories, which Open sweeps.
//
// Merge makes one image of several, as the layers of a function lie over each
// other.
//
// The lambda service makes images when code is uploaded and removes them when
// no function version refers to them; the worker mounts Image.Dir.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// tempPrefix marks directories that are not images: being made or removed.
const tempPrefix = "tmp-"

// Image is one unpacked package.
type Image struct {
	Digest       string // SHA-256 of the package, lower-case hex
	Dir          string // absolute path of the unpacked files
	UnpackedSize int64  // sum of the sizes of all files, in bytes
}

// Store keeps images in one directory. It is safe for concurrent use.
type Store struct {
	dir   string
	locks keyedMutex
}

// Open opens the images in dir, which it makes if it is missing, and sweeps
// what an earlier process left unfinished.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	// Not for others to list: who knows an image's digest has its code.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("image: sweep: %w", err)
			}
		}
	}
	return &Store{dir: dir}, nil
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
	img := Image{Digest: digest, Dir: s.Dir(digest), UnpackedSize: p.size}

	unlock, err := s.locks.lock(ctx, digest)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if s.Has(digest) {
		return img, nil
	}
	err = s.make(img.Dir, func(root string) error {
		if err := p.extract(ctx, root); err != nil {
			return err
		}
		return p.sync(root)
	})
	if err != nil {
		return Image{}, err
	}
	return img, nil
}

// make makes the image in dir, all or nothing. fill writes it into the empty
// directory that it is given, down to the disk.
func (s *Store) make(dir string, fill func(root string) error) (err error) {
	tmp, err := os.MkdirTemp(s.dir, tempPrefix)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return s.syncDir()
}

// Dir returns the directory of the image with the given digest, whether it
// exists or not.
func (s *Store) Dir(digest string) string { return filepath.Join(s.dir, digest) }

// Has tells whether the image exists.
func (s *Store) Has(digest string) bool {
	if !isDigest(digest) {
		return false
	}
	fi, err := os.Lstat(s.Dir(digest))
	return err == nil && fi.IsDir()
}

// List returns the digests of all images, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	var digests []string
	for _, e := range entries {
		if e.IsDir() && isDigest(e.Name()) {
			digests = append(digests, e.Name())
		}
	}
	return digests, nil
}

// Remove deletes an image; one that is not there is no error. The caller makes
// sure that nothing uses it.
func (s *Store) Remove(ctx context.Context, digest string) error {
	if !isDigest(digest) {
		return fmt.Errorf("image: %q is not a digest", digest)
	}
	unlock, err := s.locks.lock(ctx, digest)
	if err != nil {
		return err
	}
	defer unlock()
	// Renamed first, so that no half-deleted image is ever seen.
	tmp, err := os.MkdirTemp(s.dir, tempPrefix)
	if err != nil {
		return fmt.Errorf("image: remove: %w", err)
	}
	err = os.Rename(s.Dir(digest), filepath.Join(tmp, "image"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, os.RemoveAll(tmp)); err != nil {
		return fmt.Errorf("image: remove: %w", err)
	}
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
	if err := syncPath(s.dir, (*os.File).Sync); err != nil {
		return fmt.Errorf("image: sync: %w", err)
	}
	return nil
}

// sync brings everything that extract made below root to disk.
func (p *pack) sync(root string) error {
	names := []string{root}
	for _, dir := range p.dirs {
		names = append(names, filepath.Join(root, filepath.FromSlash(dir)))
	}
	for _, f := range p.files {
		names = append(names, filepath.Join(root, filepath.FromSlash(f.path)))
	}
	return syncAll(root, names)
}

func syncPath(name string, sync func(*os.File) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return sync(f)
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
