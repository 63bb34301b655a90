package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/image/erofs"
)

// Limits of container images. MaxFlattened is Lambda's own (Lambda quotas:
// container image code package size, 10 GB uncompressed, with all layers); the
// others bound what a hostile image can cost.
const (
	MaxFlattened   = 10 << 30 // bytes of all layers together, uncompressed
	maxFlatEntries = 500_000  // of all layers together
)

// Layer opens the tar archive of one layer of a container image, uncompressed.
// An error of reading, be it that the content is not what it should be, keeps
// the image from being made.
type Layer func(context.Context) (io.ReadCloser, error)

// MountPoints are paths that something will be mounted on. An image gets those
// that it lacks; what is there and of the wrong kind, such as a symbolic link,
// is replaced.
type MountPoints struct {
	Dirs, Files []string
}

// Flatten makes the image in which the layers of a container image, the lowest
// first, lie over each other, or finds it by its name, which has the form of a
// digest. Whiteouts and opaque directories are applied (OCI image layer
// specification). Files keep their owners, times and permissions; devices and
// pipes are left out.
//
// Layers that are no good give an *Error or ErrTooLarge and leave nothing
// behind; errors of opening or reading them are returned as they are, other
// errors are faults of this host.
func (s *Store) Flatten(ctx context.Context, name string, layers []Layer, points MountPoints) error {
	return s.Build(ctx, name, func(w *erofs.Writer) error { return flatten(ctx, w, layers, points, MaxFlattened) })
}

// flatten is Flatten of up to limit bytes into an image.
func flatten(ctx context.Context, w *erofs.Writer, layers []Layer, points MountPoints, limit int64) error {
	f := flattening{ctx: ctx, tree: newFileTree(), out: w, limit: limit}
	for _, layer := range layers {
		if err := f.add(layer); err != nil {
			return err
		}
	}
	if err := f.addMountPoints(points); err != nil {
		return err
	}
	return f.write(".", &f.tree.root)
}

// flattening is a container image that is being flattened. What becomes of a
// path is decided in a tree in memory, where no symbolic link leads out of it;
// the bytes of files go to the image as they come, and get their names at the
// end.
type flattening struct {
	ctx  context.Context
	tree fileTree
	out  *erofs.Writer

	limit int64 // of read and of size

	entries int   // read so far
	read    int64 // bytes of archives
	size    int64 // bytes of files, which a sparse one has more of than its archive
}

// add lays a layer over what is there.
func (f *flattening) add(layer Layer) (err error) {
	r, err := layer(f.ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	f.tree.layer++
	in := &source{r: &limitReader{&contextReader{f.ctx, r}, &f.read, f.limit}}
	archive := tar.NewReader(in)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return in.tell("", err)
		}
		if f.entries++; f.entries > maxFlatEntries {
			return &Error{Reason: ReasonEntries}
		}
		if err := f.entry(header, archive, in); err != nil {
			return err
		}
	}
	// The rest is padding, but belongs to what is verified.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return in.tell("", err)
	}
	return nil
}

// limitReader fails when all layers together are too large.
type limitReader struct {
	r     io.Reader
	n     *int64
	limit int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if *l.n += int64(n); *l.n > l.limit {
		return n, ErrTooLarge
	}
	return n, err
}

// tell returns the error of the stream below a decoder, if that has failed, and
// otherwise what the decoder found wrong.
func (s *source) tell(entry string, err error) error {
	if s.err != nil {
		return s.err
	}
	return &Error{Reason: ReasonCorrupt, Entry: entry, Err: err}
}

// entry adds one entry of a layer.
func (f *flattening) entry(h *tar.Header, body io.Reader, in *source) error {
	n := node{attr: flatAttr(h)}
	switch h.Typeflag {
	case tar.TypeDir:
		n.kind = kindDir
	case tar.TypeReg:
		file, err := f.store(h, body, in)
		if err != nil {
			return err
		}
		n.kind, n.file = kindFile, file
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > erofs.MaxTarget || strings.ContainsRune(h.Linkname, 0) {
			return &Error{Reason: ReasonSymlink, Entry: h.Name}
		}
		n.kind, n.target = kindLink, h.Linkname
	case tar.TypeLink:
		return f.tree.link(h.Name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeXGlobalHeader:
		return nil
	default:
		return &Error{Reason: ReasonKind, Entry: h.Name}
	}
	return f.tree.add(h.Name, n)
}

// flatAttr returns the attributes of an entry. Set-user-id bits have no effect
// in a sandbox, which never gains privileges.
func flatAttr(h *tar.Header) erofs.Attr {
	return erofs.Attr{Mode: fs.FileMode(h.Mode) & 0o777, UID: uint32(h.Uid), GID: uint32(h.Gid), Seconds: h.ModTime.Unix()}
}

// store writes the bytes of a file to the image.
func (f *flattening) store(h *tar.Header, body io.Reader, in *source) (erofs.File, error) {
	if f.size += h.Size; h.Size < 0 || f.size > f.limit {
		return erofs.File{}, ErrTooLarge
	}
	file, content, err := f.out.ReserveFile(h.Name, flatAttr(h), h.Size)
	if err != nil {
		return file, fmt.Errorf("image: %w", err)
	}
	buf := buffers.Get().(*[64 * 1024]byte)
	defer buffers.Put(buf)
	read := &source{r: body}
	n, err := io.CopyBuffer(struct{ io.Writer }{content}, read, buf[:])
	switch {
	case read.err != nil:
		return file, in.tell(h.Name, read.err)
	case err != nil:
		return file, fmt.Errorf("image: %w", err)
	case n != h.Size:
		return file, in.tell(h.Name, io.ErrUnexpectedEOF)
	}
	return file, nil
}

// addMountPoints adds what mounts need.
func (f *flattening) addMountPoints(points MountPoints) error {
	f.tree.layer++
	for _, dir := range points.Dirs {
		if n := f.tree.at(dir); n != nil && n.kind == kindDir {
			continue
		}
		if err := f.tree.add(dir, node{kind: kindDir, attr: erofs.Attr{Mode: 0o755}}); err != nil {
			return err
		}
	}
	for _, path := range points.Files {
		if n := f.tree.at(path); n != nil && n.kind == kindFile {
			continue
		}
		file, _, err := f.out.ReserveFile(path, erofs.Attr{Mode: 0o644}, 0)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if err := f.tree.add(path, node{kind: kindFile, file: file}); err != nil {
			return err
		}
	}
	return nil
}

// write adds the directory n, which has that path, and all below it.
func (f *flattening) write(name string, n *node) error {
	if err := f.out.Mkdir(name, n.attr); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	for _, base := range slices.Sorted(maps.Keys(n.children)) {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		child, to := n.children[base], path.Join(name, base)
		var err error
		switch child.kind {
		case kindDir:
			if err := f.write(to, child); err != nil {
				return err
			}
		case kindLink:
			err = f.out.Symlink(to, child.target, child.attr)
		default:
			err = f.out.Name(to, child.file)
		}
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	return nil
}
