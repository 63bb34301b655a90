package image

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sync/errgroup"

	"lapwing.dev/lapwing/internal/image/erofs"
)

// extract adds the package to an image.
func (p *pack) extract(ctx context.Context, w *erofs.Writer) error {
	for _, dir := range p.dirs {
		if err := w.Mkdir(dir, erofs.Attr{Mode: 0o755}); err != nil {
			return p.refuse(dir, err)
		}
	}
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 8))
	for _, f := range p.files {
		if working.Err() != nil {
			break
		}
		content, err := w.Reserve(f.path, fileAttr(f.zip), int64(f.zip.UncompressedSize64))
		if err != nil {
			return errors.Join(p.refuse(f.zip.Name, err), g.Wait())
		}
		g.Go(func() error { return inflate(content, f.zip) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, l := range p.links {
		if err := w.Symlink(l.path, l.target, erofs.Attr{}); err != nil {
			return p.refuse(l.path, err)
		}
	}
	return nil
}

// refuse makes the error for an entry that an image cannot hold.
func (p *pack) refuse(entry string, err error) error {
	return &Error{Reason: ReasonName, Entry: entry, Err: err}
}

// inflate writes the content of a file.
func inflate(dst io.Writer, f *zip.File) error {
	src, err := f.Open()
	if err != nil {
		return readError(f, err)
	}
	defer src.Close()
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
	return nil
}

// fileAttr returns the attributes of a file. The time matters: Python takes a
// .pyc in the package only if it fits the time of its source.
func fileAttr(f *zip.File) erofs.Attr {
	a := erofs.Attr{Mode: fileMode(f.Mode())}
	if f.Modified.After(dosEpoch) {
		a.Seconds = f.Modified.Unix()
	}
	return a
}

// dosEpoch is what a zip entry without a time shows.
var dosEpoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// fileMode keeps the permissions of the package as Lambda does, but lets the
// sandbox's user read every file, and run it if its owner may; set-user-id bits
// and write permission for others are dropped.
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
