package runtimes

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Limits of what one archive may unpack to.
const (
	maxUnpackedBytes = 1 << 30
	maxUnpackedFiles = 100_000
)

// unpacker unpacks archives into a directory and nowhere else: it works through
// an os.Root, which no link in the directory can lead out of, and counts.
type unpacker struct {
	root  *os.Root
	bytes int64 // that may still be written
	files int   // that may still be made
}

func newUnpacker(dir string) (*unpacker, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &unpacker{root: root, bytes: maxUnpackedBytes, files: maxUnpackedFiles}, nil
}

func (u *unpacker) close() error { return u.root.Close() }

// tar unpacks the members of a tar archive that choose takes: it maps a
// member's cleaned name to the name to unpack to, or "" to leave it out.
func (u *unpacker) tar(r io.Reader, choose func(name string) string) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		member := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if path.IsAbs(member) || member == ".." || strings.HasPrefix(member, "../") {
			return fmt.Errorf("tar: member %q lies outside of the archive", h.Name)
		}
		name := choose(member)
		if name == "" || name == "." {
			continue
		}
		if u.files--; u.files < 0 {
			return fmt.Errorf("tar: more than %d files", maxUnpackedFiles)
		}
		if err := u.member(tr, h, name, choose); err != nil {
			return fmt.Errorf("tar: member %q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) member(tr *tar.Reader, h *tar.Header, name string, choose func(string) string) error {
	if h.Typeflag == tar.TypeDir {
		return u.root.MkdirAll(name, 0o755)
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(tr, h, name)
	case tar.TypeSymlink:
		// Where it points to matters in the sandbox only.
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		target := path.Clean(strings.TrimPrefix(h.Linkname, "./"))
		if target = choose(target); target == "" {
			return fmt.Errorf("hard link to %q, which is not unpacked", h.Linkname)
		}
		return u.root.Link(target, name)
	default:
		return fmt.Errorf("type %q is not allowed", h.Typeflag)
	}
}

func (u *unpacker) file(tr *tar.Reader, h *tar.Header, name string) error {
	if h.Size > u.bytes {
		return fmt.Errorf("unpacks to more than %d bytes", int64(maxUnpackedBytes))
	}
	u.bytes -= h.Size
	// Never set-user-ID, never writable by others, always readable.
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, tr)
	return errors.Join(err, f.Close())
}

// replace makes a file of ours in the place of whatever an archive has put
// there: a link is removed and not followed.
func (u *unpacker) replace(name string, data []byte) error {
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := u.root.RemoveAll(name); err != nil {
		return err
	}
	return u.root.WriteFile(name, data, 0o644)
}

// decompress returns a reader of what r holds, by the suffix of its name.
func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	switch path.Ext(name) {
	case ".gz", ".tgz":
		return gzip.NewReader(r)
	case ".xz":
		x, err := xz.ReaderConfig{DictCap: 1 << 16, SingleStream: true}.NewReader(r)
		return io.NopCloser(x), err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".tar":
		return io.NopCloser(r), nil
	}
	return nil, fmt.Errorf("%s: unknown compression", name)
}

const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
)

// debData finds the data archive of a Debian package, an ar archive, and calls
// use with its name and content.
func debData(r io.Reader, use func(name string, r io.Reader) error) error {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return errors.New("deb: not an ar archive")
	}
	for {
		head := make([]byte, arHeaderSize)
		if _, err := io.ReadFull(r, head); err != nil {
			return fmt.Errorf("deb: no data archive: %w", err)
		}
		if string(head[58:]) != "`\n" {
			return errors.New("deb: malformed ar header")
		}
		size, err := decimal(head[48:58])
		if err != nil {
			return fmt.Errorf("deb: ar header: %w", err)
		}
		name := strings.TrimRight(strings.TrimRight(string(head[:16]), " "), "/")
		member := io.LimitReader(r, size)
		if strings.HasPrefix(name, "data.tar") {
			return use(name, member)
		}
		// Members are padded to an even size.
		if n, err := io.Copy(io.Discard, io.LimitReader(r, size+size%2)); err != nil || n != size+size%2 {
			return errors.New("deb: truncated")
		}
	}
}

// decimal parses the digits of a field that is padded with blanks.
func decimal(field []byte) (int64, error) {
	text := strings.TrimRight(string(field), " ")
	if text == "" {
		return 0, errors.New("empty size")
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("size %q", text)
		}
		n = n*10 + int64(c-'0') // ten digits at most
	}
	return n, nil
}
