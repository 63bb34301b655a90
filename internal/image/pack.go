package image

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// Limits of a package. MaxUnpacked is Lambda's own (Lambda quotas: deployment
// package, unzipped, 250 MB); the others bound what a small hostile archive can
// cost and are far above what real packages need.
const (
	MaxUnpacked  = 262_144_000 // bytes; a package must be smaller
	MaxEntries   = 100_000
	maxDirectory = 16 << 20 // bytes of the archive's central directory
	maxPath      = 2048     // bytes of one entry's name
	maxName      = 255      // bytes of one path element (Linux NAME_MAX)
	maxDepth     = 100      // path elements
	maxLinks     = 40       // symbolic links followed in one path, as Linux does

	// maxRatio is what deflate can reach (1032:1, RFC 1951); an entry that
	// claims more lies about its size.
	maxRatio = 1100
)

// Errors about sizes.
var (
	// ErrTooLarge refuses a package that is not smaller than MaxUnpacked when
	// unpacked, and layers that are larger than MaxFlattened.
	ErrTooLarge = errors.New("image: unpacked size exceeds the limit")
	// ErrPackageTooLarge refuses a package that is larger than the limit
	// given to Spool.
	ErrPackageTooLarge = errors.New("image: package exceeds the size limit")
)

// Reason says why a package is refused.
type Reason string

// Reasons.
const (
	ReasonNotZip      Reason = "not a zip archive"
	ReasonEmpty       Reason = "archive without entries"
	ReasonEntries     Reason = "too many entries"
	ReasonName        Reason = "invalid entry name"
	ReasonOutside     Reason = "entry points outside the package"
	ReasonTooDeep     Reason = "path too long or too deep"
	ReasonDuplicate   Reason = "duplicate or conflicting entry"
	ReasonKind        Reason = "entry is neither file, directory nor symbolic link"
	ReasonHardLink    Reason = "hard link to what is not there"
	ReasonSymlink     Reason = "symbolic link points outside the package or in circles"
	ReasonEncrypted   Reason = "encrypted entry"
	ReasonMethod      Reason = "unsupported compression method"
	ReasonCorrupt     Reason = "corrupt entry"
	ReasonOverlapping Reason = "overlapping entries"
)

// Error refuses a package.
type Error struct {
	Reason Reason
	Entry  string // name of the entry at fault, if it is one
	Err    error  // what the decoder said, if it was the decoder
}

// Error implements error.
func (e *Error) Error() string {
	msg := "image: " + string(e.Reason)
	if e.Entry != "" {
		msg += fmt.Sprintf(" %.200q", e.Entry)
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap returns the decoder's error.
func (e *Error) Unwrap() error { return e.Err }

// pack is a package whose directory has been read and found in order.
type pack struct {
	dirs  []string // every directory, parents before children
	files []entry
	links []entry
	size  int64 // of all files together
}

type entry struct {
	path   string // relative, clean, with slashes
	target string // of a symbolic link
	zip    *zip.File
}

// open reads and checks the archive's directory, and the targets of its
// symbolic links; it reads no file.
func open(r io.ReaderAt, size int64) (*pack, error) {
	limited := &directoryReader{r: r, left: maxDirectory}
	archive, err := zip.NewReader(limited, size)
	switch {
	case errors.Is(err, errDirectoryTooLarge):
		return nil, &Error{Reason: ReasonEntries}
	case err != nil:
		return nil, refuse(ReasonNotZip, "", err)
	case len(archive.File) == 0:
		return nil, &Error{Reason: ReasonEmpty}
	case len(archive.File) > MaxEntries:
		return nil, &Error{Reason: ReasonEntries}
	}
	limited.open = true
	registerInflate(archive)

	b := builder{kinds: make(map[string]kind, len(archive.File)), links: map[string]string{}}
	var compressed uint64
	for _, f := range archive.File {
		if compressed += f.CompressedSize64; compressed > uint64(size) {
			return nil, &Error{Reason: ReasonOverlapping, Entry: f.Name}
		}
		if err := b.add(f); err != nil {
			return nil, err
		}
	}
	if err := b.checkLinks(); err != nil {
		return nil, err
	}
	return &b.pack, nil
}

type kind uint8

const (
	kindNone kind = iota
	kindDir
	kindFile
	kindLink
)

// builder collects entries and finds conflicts between them.
type builder struct {
	pack  pack
	kinds map[string]kind
	links map[string]string // path of a symbolic link -> its target
}

func (b *builder) add(f *zip.File) error {
	name, err := cleanName(f.Name)
	if err != nil {
		return err
	}
	if f.Flags&0x1 != 0 {
		return &Error{Reason: ReasonEncrypted, Entry: f.Name}
	}
	if f.Method != zip.Store && f.Method != zip.Deflate {
		return &Error{Reason: ReasonMethod, Entry: f.Name}
	}
	mode := f.Mode()
	k := kindFile
	switch {
	case mode.IsDir() || strings.HasSuffix(f.Name, "/"):
		k = kindDir
	case mode&fs.ModeSymlink != 0:
		k = kindLink
	case mode&fs.ModeType != 0:
		return &Error{Reason: ReasonKind, Entry: f.Name}
	}
	if k == kindDir {
		if f.UncompressedSize64 != 0 {
			return &Error{Reason: ReasonCorrupt, Entry: f.Name}
		}
		return b.mkdir(name, f.Name)
	}
	if name == "." {
		return &Error{Reason: ReasonName, Entry: f.Name}
	}
	if err := b.mkdir(path.Dir(name), f.Name); err != nil {
		return err
	}
	if b.kinds[name] != kindNone {
		return &Error{Reason: ReasonDuplicate, Entry: f.Name}
	}
	b.kinds[name] = k
	if k == kindLink {
		return b.addLink(f, name)
	}
	return b.addFile(f, name)
}

func (b *builder) addFile(f *zip.File, name string) error {
	if f.UncompressedSize64 >= uint64(MaxUnpacked-b.pack.size) {
		return ErrTooLarge
	}
	if f.UncompressedSize64/maxRatio > f.CompressedSize64 ||
		f.Method == zip.Store && f.UncompressedSize64 != f.CompressedSize64 {
		return &Error{Reason: ReasonCorrupt, Entry: f.Name, Err: errors.New("impossible size")}
	}
	b.pack.size += int64(f.UncompressedSize64)
	b.pack.files = append(b.pack.files, entry{path: name, zip: f})
	return nil
}

func (b *builder) addLink(f *zip.File, name string) error {
	if f.UncompressedSize64 == 0 || f.UncompressedSize64 > maxPath {
		return &Error{Reason: ReasonSymlink, Entry: f.Name}
	}
	r, err := f.Open()
	if err != nil {
		return readError(f, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxPath+1))
	if err != nil {
		return readError(f, err)
	}
	target := string(raw)
	if strings.ContainsRune(target, 0) || !utf8.ValidString(target) || path.IsAbs(target) {
		return &Error{Reason: ReasonSymlink, Entry: f.Name}
	}
	b.links[name] = target
	b.pack.links = append(b.pack.links, entry{path: name, target: target, zip: f})
	return nil
}

// mkdir notes that dir and its parents are directories.
func (b *builder) mkdir(dir, entryName string) error {
	if dir == "." {
		return nil
	}
	switch b.kinds[dir] {
	case kindDir:
		return nil
	case kindNone:
	default:
		return &Error{Reason: ReasonDuplicate, Entry: entryName}
	}
	if err := b.mkdir(path.Dir(dir), entryName); err != nil {
		return err
	}
	if len(b.kinds) >= 2*MaxEntries {
		return &Error{Reason: ReasonEntries}
	}
	b.kinds[dir] = kindDir
	b.pack.dirs = append(b.pack.dirs, dir)
	return nil
}

// checkLinks follows every symbolic link, through other links, and refuses
// those that leave the package. Ones that lead nowhere inside it are harmless.
func (b *builder) checkLinks() error {
	for _, l := range b.pack.links {
		if !b.staysInside(l.path) {
			return &Error{Reason: ReasonSymlink, Entry: l.path}
		}
	}
	return nil
}

// staysInside resolves p from the root of the package as Linux would.
func (b *builder) staysInside(p string) bool {
	rest := strings.Split(p, "/")
	var at []string // where we are, free of links
	for followed := 0; len(rest) > 0; {
		elem := rest[0]
		rest = rest[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return false
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at, elem)
		target, isLink := b.links[strings.Join(at, "/")]
		if !isLink {
			continue
		}
		if followed++; followed > maxLinks {
			return false
		}
		at = at[:len(at)-1]
		rest = append(strings.Split(target, "/"), rest...)
	}
	return true
}

// cleanName checks an entry's name and returns it relative and clean. Linux is
// case-sensitive, so names that differ in case only are different names.
func cleanName(name string) (string, error) {
	switch {
	case name == "" || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\\"):
		return "", &Error{Reason: ReasonName, Entry: name}
	case path.IsAbs(name):
		return "", &Error{Reason: ReasonOutside, Entry: name}
	case len(name) > maxPath || strings.Count(name, "/") > maxDepth:
		return "", &Error{Reason: ReasonTooDeep, Entry: name}
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return "", &Error{Reason: ReasonOutside, Entry: name}
		}
		if len(elem) > maxName {
			return "", &Error{Reason: ReasonTooDeep, Entry: name}
		}
	}
	return path.Clean(name), nil
}

// refuse makes the error for bytes that could not be decoded, unless it was the
// host that could not read them.
func refuse(reason Reason, entry string, err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("image: read package: %w", err)
	}
	return &Error{Reason: reason, Entry: entry, Err: err}
}

func readError(f *zip.File, err error) error { return refuse(ReasonCorrupt, f.Name, err) }

var errDirectoryTooLarge = errors.New("image: central directory too large")

// directoryReader bounds what zip.NewReader may read, and thereby the memory
// that a directory with millions of entries can take, until open is set.
type directoryReader struct {
	r    io.ReaderAt
	left int64
	open bool
}

func (d *directoryReader) ReadAt(p []byte, off int64) (int, error) {
	if !d.open {
		if d.left -= int64(len(p)); d.left < 0 {
			return 0, errDirectoryTooLarge
		}
	}
	return d.r.ReadAt(p, off)
}
