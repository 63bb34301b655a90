package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
)

var le = binary.LittleEndian

// Errors of what is added.
var (
	// ErrName refuses a path that is not clean and relative, or has a name that
	// is too long.
	ErrName = errors.New("erofs: invalid path")
	// ErrExists refuses an entry where there is one, or below one that is no
	// directory.
	ErrExists = errors.New("erofs: entry exists")
	// ErrTarget refuses a symbolic link to nothing or too far, and a hard link
	// to anything but a regular file or symbolic link that is there.
	ErrTarget = errors.New("erofs: invalid link target")
)

// Writer writes an image. Entries come in any order, each path once; a
// directory may come again and then has the later attributes. Parents that were
// not added are made with mode 0755. Paths are relative to the root and clean,
// as for io/fs; "." is the root. It is not safe for concurrent use, and useless
// after an error of Create that was not about its arguments.
type Writer struct {
	out  io.WriterAt
	root *inode
	next int64 // where data can be written
	buf  []byte
}

// inode is a file, directory or symbolic link; several names can have one file.
type inode struct {
	mode    uint16
	attr    Attr
	size    int64
	links   uint32
	block   uint32            // first block of the data
	entries map[string]*inode // of a directory
	parent  *inode            // of a directory
	target  string            // of a symbolic link

	number uint64 // while the metadata is written
	blocks [][]dirent
}

type dirent struct {
	name string
	*inode
}

// NewWriter returns a Writer of the image in out, which must be empty. It writes
// at rising offsets, with holes between, except for the first block, which
// Close writes last.
func NewWriter(out io.WriterAt) *Writer {
	w := &Writer{out: out, next: ChunkSize, buf: make([]byte, 64<<10)}
	w.root = newDir(Attr{Mode: 0o755})
	w.root.parent = w.root
	return w
}

func newDir(a Attr) *inode {
	return &inode{mode: mode(modeDir, a.Mode), attr: a, links: 2, entries: map[string]*inode{}}
}

// Mkdir adds a directory.
func (w *Writer) Mkdir(name string, a Attr) error {
	dir, err := w.mkdir(name)
	if err != nil {
		return err
	}
	dir.mode, dir.attr = mode(modeDir, a.Mode), a
	return nil
}

// Create adds a regular file of size bytes, which are read from r.
func (w *Writer) Create(name string, a Attr, size int64, r io.Reader) error {
	content, err := w.Reserve(name, a, size)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{content}, struct{ io.Reader }{io.LimitReader(r, size)}, w.buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("erofs: %s: %w", name, err)
	}
	return nil
}

// Reserve adds a regular file of size bytes, which the caller writes to content
// before Close, no fewer and no more. The contents of several files may be
// written side by side if the image can be written at any offset.
func (w *Writer) Reserve(name string, a Attr, size int64) (content io.Writer, err error) {
	f := &inode{mode: mode(modeFile, a.Mode), attr: a, size: size}
	if err := w.add(name, f); err != nil {
		return nil, err
	}
	return w.reserve(f, name)
}

// File is a regular file that has no name yet.
type File struct{ inode *inode }

// ReserveFile is Reserve of a file that gets its names by Name, or none: then its
// content takes room for nothing. hint is as good as a name for the layout.
func (w *Writer) ReserveFile(hint string, a Attr, size int64) (File, io.Writer, error) {
	f := &inode{mode: mode(modeFile, a.Mode), attr: a, size: size}
	content, err := w.reserve(f, hint)
	return File{f}, content, err
}

// Name gives a file a name, or another one.
func (w *Writer) Name(name string, f File) error { return w.add(name, f.inode) }

// reserve finds room for the content of a file.
func (w *Writer) reserve(f *inode, name string) (io.Writer, error) {
	if f.size == 0 {
		return io.Discard, nil
	}
	at, next := place(w.next, name, f.size)
	if at>>blockBits > math.MaxUint32 {
		return nil, fmt.Errorf("erofs: image is too large")
	}
	f.block, w.next = uint32(at>>blockBits), next
	return io.NewOffsetWriter(w.out, at), nil
}

// place returns where the data of a file goes, next being free, and what is
// free then.
func place(next int64, name string, size int64) (at, after int64) {
	chunk := func(n int64) int64 { return (n + ChunkSize - 1) &^ (ChunkSize - 1) }
	if size >= ChunkSize {
		at = chunk(next)
		return at, chunk(at + size)
	}
	if at = next; at/ChunkSize != (at+size-1)/ChunkSize {
		at = chunk(at)
	}
	after = (at + size + BlockSize - 1) &^ (BlockSize - 1)
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d", name, size)
	// The low bits of a hash of this kind are not good enough.
	if (h.Sum32()*0x9e3779b1)>>16%boundary == 0 {
		after = chunk(after)
	}
	return at, after
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string, a Attr) error {
	if target == "" || len(target) > MaxTarget || strings.ContainsRune(target, 0) {
		return fmt.Errorf("%w: %s", ErrTarget, name)
	}
	return w.add(name, &inode{mode: mode(modeLink, 0o777), attr: a, size: int64(len(target)), target: target})
}

// Link adds another name of the regular file or symbolic link old.
func (w *Writer) Link(name, old string) error {
	f := w.find(old)
	if f == nil || f.entries != nil {
		return fmt.Errorf("%w: %s to %s", ErrTarget, name, old)
	}
	return w.add(name, f)
}

// AddFS adds everything in fsys as Add does.
func (w *Writer) AddFS(fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return w.Add(fsys, name, info)
	})
}

// Add adds the entry of that name in fsys, with its mode and time but as the root
// user's, and without what is below a directory. Other kinds than directories,
// regular files and symbolic links are refused, and links if fsys cannot read
// them.
func (w *Writer) Add(fsys fs.FS, name string, info fs.FileInfo) error {
	a := Attr{Mode: info.Mode(), Seconds: info.ModTime().Unix()}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return w.Mkdir(name, a)
	case fs.ModeSymlink:
		target, err := fs.ReadLink(fsys, name)
		if err != nil {
			return err
		}
		return w.Symlink(name, target, a)
	case 0:
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return w.Create(name, a, info.Size(), f)
	}
	return fmt.Errorf("erofs: %s is neither file, directory nor symbolic link", name)
}

// add gives f a name.
func (w *Writer) add(name string, f *inode) error {
	if err := checkPath(name); err != nil || name == "." {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	dir, err := w.mkdir(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if dir.entries[base] != nil {
		return fmt.Errorf("%w: %s", ErrExists, name)
	}
	dir.entries[base] = f
	f.links++
	return nil
}

// mkdir returns the directory of that name, and makes it if it is missing.
func (w *Writer) mkdir(name string) (*inode, error) {
	if err := checkPath(name); err != nil {
		return nil, err
	}
	dir := w.root
	if name == "." {
		return dir, nil
	}
	for elem := range strings.SplitSeq(name, "/") {
		sub := dir.entries[elem]
		if sub == nil {
			sub = newDir(Attr{Mode: 0o755})
			sub.parent = dir
			dir.entries[elem] = sub
			dir.links++
		}
		if sub.entries == nil {
			return nil, fmt.Errorf("%w: %s", ErrExists, name)
		}
		dir = sub
	}
	return dir, nil
}

// checkPath refuses what is no clean, relative path. Names are bytes, as Linux
// has them, and need not be UTF-8.
func checkPath(name string) error {
	if name == "." {
		return nil
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == "" || elem == "." || elem == ".." || len(elem) > MaxName || strings.ContainsRune(elem, 0) {
			return fmt.Errorf("%w: %q", ErrName, name)
		}
	}
	return nil
}

// find returns what has the name, or nil.
func (w *Writer) find(name string) *inode {
	at := w.root
	if name == "." {
		return at
	}
	for elem := range strings.SplitSeq(name, "/") {
		if at = at.entries[elem]; at == nil {
			return nil
		}
	}
	return at
}

// Close writes the metadata. It does not close or sync what the image is in.
// The size of the image, in bytes, is a multiple of BlockSize.
func (w *Writer) Close() (size int64, err error) {
	dirs := (w.next + ChunkSize - 1) &^ (ChunkSize - 1)
	inodes := w.number()
	start := dirs
	for _, i := range inodes {
		if len(i.blocks) > 1 {
			i.block = uint32(start >> blockBits)
			start += int64(len(i.blocks)) << blockBits
		}
	}
	last := inodes[len(inodes)-1]
	end := start + int64(last.number<<slotBits) + last.footprint()
	end = (end + BlockSize - 1) &^ (BlockSize - 1)
	if end>>blockBits > math.MaxUint32 {
		return 0, fmt.Errorf("erofs: image is too large")
	}
	meta := make([]byte, end-dirs)
	for n, i := range inodes {
		i.encode(meta[start-dirs+int64(i.number<<slotBits):], uint32(n+1))
		if len(i.blocks) > 1 {
			at := meta[int64(i.block)<<blockBits-dirs:]
			for n, block := range i.blocks {
				encodeDir(at[n<<blockBits:], block)
			}
		}
	}
	if _, err := w.out.WriteAt(meta, dirs); err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	if _, err := w.out.WriteAt(superblock(len(inodes), start, end), 0); err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	return end, nil
}

// number gives every inode its number and returns them in that order: the root
// first, then each directory's together, so that what is listed together lies
// together.
func (w *Writer) number() []*inode {
	next := int64(firstInode) << slotBits
	var all []*inode
	give := func(i *inode) {
		i.layDirents()
		need := i.footprint()
		if at := next & (BlockSize - 1); at+need > BlockSize { // an inode and its content lie in one block
			next += BlockSize - at
		}
		i.number = uint64(next >> slotBits)
		next += (need + 1<<slotBits - 1) &^ (1<<slotBits - 1)
		all = append(all, i)
	}
	give(w.root)
	for n := 0; n < len(all); n++ {
		for _, d := range all[n].sorted() {
			if d.number == 0 {
				give(d.inode)
			}
		}
	}
	return all
}

// sorted returns a directory's entries by name, without "." and "..".
func (i *inode) sorted() []dirent {
	list := make([]dirent, 0, len(i.entries)+2)
	for name, e := range i.entries {
		list = append(list, dirent{name, e})
	}
	slices.SortFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return list
}

// layDirents distributes a directory's entries over blocks and finds its size.
// One that fits is kept beside the inode.
func (i *inode) layDirents() {
	if i.entries == nil {
		return
	}
	list := append(i.sorted(), dirent{".", i}, dirent{"..", i.parent})
	slices.SortFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	var total int64
	for _, d := range list {
		total += direntSize + int64(len(d.name))
	}
	if total <= BlockSize-inodeSize {
		i.size, i.blocks = total, [][]dirent{list}
		return
	}
	used, from := 0, 0
	for n, d := range list {
		need := direntSize + len(d.name)
		if used+need > BlockSize {
			i.blocks = append(i.blocks, list[from:n])
			used, from = 0, n
		}
		used += need
	}
	i.blocks = append(i.blocks, list[from:])
	if len(i.blocks) == 1 {
		// More than fits beside the inode and less than a block: it gets a
		// block of its own, and a second one of none would not do.
		half := len(list) / 2
		i.blocks = [][]dirent{list[:half], list[half:]}
		used = 0
		for _, d := range list[half:] {
			used += direntSize + len(d.name)
		}
	}
	i.size = int64(len(i.blocks)-1)<<blockBits + int64(used)
}

// footprint is how many bytes an inode takes with the content beside it.
func (i *inode) footprint() int64 {
	if i.inline() {
		return inodeSize + i.size
	}
	return inodeSize
}

func (i *inode) inline() bool { return i.target != "" || len(i.blocks) == 1 }

// encode writes the inode and the content beside it to b.
func (i *inode) encode(b []byte, ordinal uint32) {
	format := uint16(extendedInode | plainData)
	if i.inline() {
		format = extendedInode | inlineData
	}
	le.PutUint16(b[0:], format)
	le.PutUint16(b[4:], i.mode)
	le.PutUint64(b[8:], uint64(i.size))
	le.PutUint32(b[16:], i.block)
	le.PutUint32(b[20:], ordinal)
	le.PutUint32(b[24:], i.attr.UID)
	le.PutUint32(b[28:], i.attr.GID)
	le.PutUint64(b[32:], uint64(i.attr.Seconds))
	le.PutUint32(b[44:], i.links)
	if i.target != "" {
		copy(b[inodeSize:], i.target)
	} else if len(i.blocks) == 1 {
		encodeDir(b[inodeSize:], i.blocks[0])
	}
}

// encodeDir writes one block of a directory: its entries, then their names.
func encodeDir(b []byte, entries []dirent) {
	name := len(entries) * direntSize
	for n, d := range entries {
		e := b[n*direntSize:]
		le.PutUint64(e, d.number)
		le.PutUint16(e[8:], uint16(name))
		e[10] = direntTypes[d.mode&0o170000]
		name += copy(b[name:], d.name)
	}
}

// superblock returns the image's first block.
func superblock(inodes int, meta, end int64) []byte {
	block := make([]byte, BlockSize)
	b := block[superOffset:]
	le.PutUint32(b[0:], superMagic)
	le.PutUint32(b[8:], checksummed)
	b[12] = blockBits
	le.PutUint16(b[14:], firstInode)
	le.PutUint64(b[16:], uint64(inodes))
	le.PutUint32(b[36:], uint32(end>>blockBits))
	le.PutUint32(b[40:], uint32(meta>>blockBits))
	// The checksum is that of Linux's crc32c, which leaves out the last step.
	le.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return block
}
