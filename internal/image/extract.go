package image

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sync/errgroup"
)

// extract writes the package below root, an empty directory that nobody else
// knows. Symbolic links are made last, so that nothing is written through one.
func (p *pack) extract(ctx context.Context, root string) error {
	for _, dir := range p.dirs {
		if err := os.Mkdir(filepath.Join(root, filepath.FromSlash(dir)), 0o755); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 8))
	for _, f := range p.files {
		if working.Err() != nil {
			break
		}
		g.Go(func() error {
			return extractFile(filepath.Join(root, filepath.FromSlash(f.path)), f.zip)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, l := range p.links {
		if err := os.Symlink(l.target, filepath.Join(root, filepath.FromSlash(l.path))); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	return nil
}

func extractFile(name string, f *zip.File) (err error) {
	src, err := f.Open()
	if err != nil {
		return readError(f, err)
	}
	defer src.Close()
	// O_EXCL also catches names that only the file system finds equal.
	dst, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &Error{Reason: ReasonDuplicate, Entry: f.Name}
	}
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()

	buf := buffers.Get().(*[64 * 1024]byte)
	defer buffers.Put(buf)
	in := &source{r: src}
	// The reader checks the declared size, byte for byte, and the CRC.
	if _, err := io.CopyBuffer(struct{ io.Writer }{dst}, in, buf[:]); err != nil {
		if in.err != nil {
			return readError(f, in.err)
		}
		return fmt.Errorf("image: %w", err)
	}
	if err := dst.Chmod(fileMode(f.Mode())); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	// The time matters: Python takes a .pyc in the package only if it fits
	// the time of its source.
	if t := f.Modified; t.After(dosEpoch) {
		if err := os.Chtimes(name, t, t); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	return nil
}

// dosEpoch is what a zip entry without a time shows.
var dosEpoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// fileMode keeps the permissions of the package as Lambda does, but lets the
// sandbox's user read every file, and run it if its owner may; set-user-id bits
// and write permission for others are dropped, since the files lie on the host.
func fileMode(m fs.FileMode) fs.FileMode {
	perm := m.Perm()&^0o022 | 0o444
	if perm&0o100 != 0 {
		perm |= 0o111
	}
	return perm
}

// source tells errors of the archive from errors of writing.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { return new([64 * 1024]byte) }}

// registerInflate makes the archive use pooled decompressors of
// klauspost/compress, about half again as fast as the standard library's.
func registerInflate(z *zip.Reader) {
	z.RegisterDecompressor(zip.Deflate, func(r io.Reader) io.ReadCloser {
		fr, ok := inflaters.Get().(io.ReadCloser)
		if !ok {
			return &inflater{flate.NewReader(r)}
		}
		if err := fr.(flate.Resetter).Reset(r, nil); err != nil {
			return &inflater{flate.NewReader(r)}
		}
		return &inflater{fr}
	})
}

var inflaters sync.Pool

type inflater struct{ io.ReadCloser }

func (i *inflater) Close() error {
	if i.ReadCloser == nil {
		return nil
	}
	err := i.ReadCloser.Close()
	inflaters.Put(i.ReadCloser)
	i.ReadCloser = nil
	return err
}
