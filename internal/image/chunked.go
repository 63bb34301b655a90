package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"lapwing.dev/lapwing/internal/image/chunk"
	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/image/lazy"
)

const (
	chunkDir       = "chunks"
	manifestSuffix = ".chunks"
)

// chunked is the part of a Store that keeps images in chunks.
type chunked struct {
	chunks *chunk.Store
	reader *chunk.Reader
	// files shows them; it gives nil where the host cannot.
	files func() *lazy.Files

	lost chan string // digests, see Store.Lost

	mu        sync.Mutex
	shown     *lazy.Files // what files has given
	manifests map[string]*chunk.Manifest
}

// openChunked reads the manifests, and drops those that are damaged: the images
// are to be made again.
func (s *Store) openChunked(further []chunk.Source) error {
	c := &s.chunked
	c.manifests, c.lost = map[string]*chunk.Manifest{}, make(chan string, 256)
	paths, err := filepath.Glob(filepath.Join(s.dir, "*"+manifestSuffix))
	if err != nil {
		return err
	}
	var all []*chunk.Manifest
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m, err := chunk.DecodeManifest(b)
		if err != nil {
			s.log.Error("an image is damaged and is to be made again", "manifest", path, "err", err)
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		c.manifests[strings.TrimSuffix(filepath.Base(path), manifestSuffix)] = m
		all = append(all, m)
	}
	if c.chunks, err = chunk.OpenStore(filepath.Join(s.dir, chunkDir), all...); err != nil {
		return err
	}
	for digest, m := range c.manifests {
		if len(further) > 0 || c.chunks.Whole(m) {
			continue
		}
		s.log.Error("an image lacks chunks and is to be made again", "image", digest)
		delete(c.manifests, digest)
		if err := errors.Join(os.Remove(s.manifest(digest)), c.chunks.Release(m)); err != nil {
			return err
		}
	}
	c.reader = chunk.NewReader(c.chunks, further...)
	c.files = sync.OnceValue(func() *lazy.Files {
		files, err := lazy.New(s.log)
		if err != nil {
			s.log.Warn("large images are put together whole before they are used, which takes time and room: this host does not let Lapwing use FUSE", "err", err)
			return nil
		}
		c.mu.Lock()
		c.shown = files
		c.mu.Unlock()
		return files
	})
	return nil
}

func (s *Store) manifest(digest string) string { return filepath.Join(s.dir, digest+manifestSuffix) }

// Build makes the image with the given digest of what fill adds, unless it is
// there already. Of concurrent calls one makes it. The digest, a SHA-256 in
// lower-case hex, is that of what the image is made from: the same digest means
// the same image. An error of fill is returned as it is, and leaves nothing. fill
// must write the content of one file before it adds another.
func (s *Store) Build(ctx context.Context, digest string, fill func(*erofs.Writer) error) error {
	return s.once(ctx, digest, func() error {
		c := &s.chunked
		c.mu.Lock()
		m := c.manifests[digest]
		c.mu.Unlock()
		if m == nil {
			var err error
			if m, err = s.buildChunked(digest, fill); err != nil {
				return err
			}
			c.mu.Lock()
			c.manifests[digest] = m
			c.mu.Unlock()
		}
		if c.files() != nil {
			return nil
		}
		return s.putTogether(ctx, digest, m)
	})
}

// buildChunked makes an image in chunks, all or nothing.
func (s *Store) buildChunked(digest string, fill func(*erofs.Writer) error) (_ *chunk.Manifest, err error) {
	file := chunk.NewWriter(s.chunked.chunks)
	w := erofs.NewWriter(file)
	err = fill(w)
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		return nil, errors.Join(err, file.Abort())
	}
	m, _, err := file.Close()
	if err != nil {
		return nil, err
	}
	// What a manifest lists is on the disk.
	if err = s.chunked.chunks.Sync(); err == nil {
		err = s.make(digest+manifestSuffix, func(f *os.File) error {
			_, err := f.Write(m.Encode())
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(err, s.chunked.chunks.Release(m))
	}
	return m, nil
}

// putTogether makes the whole file of an image that is in chunks.
func (s *Store) putTogether(ctx context.Context, digest string, m *chunk.Manifest) error {
	file := s.chunked.reader.File(m)
	return s.make(digest+suffix, func(f *os.File) error {
		buf := make([]byte, chunk.Size)
		for off := int64(0); off < m.Size; off += chunk.Size {
			n := min(chunk.Size, m.Size-off)
			if m.Chunks[off/chunk.Size] == (chunk.Digest{}) {
				continue // a hole
			}
			if _, err := file.Read(ctx, buf[:n], off); err != nil {
				return fmt.Errorf("image: %w", err)
			}
			if _, err := io.NewOffsetWriter(f, off).Write(buf[:n]); err != nil {
				return fmt.Errorf("image: %w", err)
			}
		}
		return f.Truncate(m.Size)
	})
}

// lazyPath returns where an image in chunks is shown as a file, if it is one and
// can be shown.
func (s *Store) lazyPath(digest string) (string, bool) {
	c := &s.chunked
	c.mu.Lock()
	m := c.manifests[digest]
	c.mu.Unlock()
	if m == nil {
		return "", false
	}
	files := c.files()
	if files == nil {
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.manifests[digest] != m { // removed meanwhile, and not to be shown again
		return "", false
	}
	files.Show(digest, &shownImage{c.reader.File(m), s, digest})
	return files.Path(digest), true
}

// shownImage is an image that is read as it is wanted. It is given up when a part
// of it is nowhere to be had.
type shownImage struct {
	*chunk.File
	store  *Store
	digest string
}

// Read implements lazy.Content.
func (i *shownImage) Read(ctx context.Context, b []byte, off int64) (int, error) {
	n, err := i.File.Read(ctx, b, off)
	if errors.Is(err, chunk.ErrMissing) || errors.Is(err, chunk.ErrDamaged) {
		i.store.lose(i.digest, i.Manifest)
	}
	return n, err
}

// lose removes an image that cannot be read, unless that was done or the image
// made again, and tells so through Lost.
func (s *Store) lose(digest string, m *chunk.Manifest) {
	c := &s.chunked
	c.mu.Lock()
	found := c.manifests[digest] == m
	var err error
	if found {
		// Before Build can write another.
		c.chunks.Distrust(m)
		err = os.Remove(s.manifest(digest))
		delete(c.manifests, digest)
	}
	c.mu.Unlock()
	if !found {
		return
	}
	s.log.Error("an image is damaged and is to be made again", "image", digest, "err", err)
	s.hide(digest, m)
	select {
	case c.lost <- digest:
	default: // it is made again at the next start
	}
}

// Lost gives the digests of images that Build made and that turned out to be
// damaged. They are removed; Build makes them again.
func (s *Store) Lost() <-chan string { return s.chunked.lost }

// removeChunked deletes the chunks of an image that no other has, once no sandbox
// has it mounted. What a crash keeps from that Open does.
func (s *Store) removeChunked(digest string) {
	c := &s.chunked
	c.mu.Lock()
	m := c.manifests[digest]
	delete(c.manifests, digest)
	c.mu.Unlock()
	if m != nil {
		s.hide(digest, m)
	}
}

// hide gives up the chunks of an image that is not in the manifests any more, once
// no sandbox has it mounted.
func (s *Store) hide(digest string, m *chunk.Manifest) {
	c := &s.chunked
	c.mu.Lock()
	files := c.shown
	c.mu.Unlock()
	release := func() {
		if err := c.chunks.Release(m); err != nil {
			s.log.Error("chunks of a removed image are left until the next start", "image", digest, "err", err)
		}
	}
	if files == nil {
		release()
		return
	}
	files.Hide(digest, release)
}

func (s *Store) closeChunked(ctx context.Context) error {
	s.chunked.mu.Lock()
	files := s.chunked.shown
	s.chunked.mu.Unlock()
	if files == nil {
		return nil
	}
	return files.Close(ctx)
}
