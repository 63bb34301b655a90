// Package erofs writes file-system images in EROFS, Linux's read-only file
// system, the one image format in which sandboxes see code: gVisor maps such a
// file and serves it without asking the host, and the pages are the host's page
// cache, the same for all sandboxes.
//
// The format is described at https://docs.kernel.org/filesystems/erofs.html. Of
// it gVisor reads the uncompressed part without inline data of regular files, so
// that is what Writer makes; what compresses is the store beneath (package
// chunk). An image is a function of what was added and in which order: no time,
// no random identifier.
//
// # Layout
//
//	block 0          superblock
//	from ChunkSize   data of regular files, in the order in which they came
//	then             blocks of large directories
//	then             inodes, with the content of small directories and symbolic links
//
// Data comes before metadata so that an image can be written while its content
// streams in. Files are placed so that what two images have in common gives the
// same chunks: a large file begins and ends with a chunk; small ones share
// chunks, none crosses the end of one, and after about every 64th, which its
// path decides, a new chunk begins, so that a file more or less changes the
// chunks around it and not all that follow. What that leaves empty are holes,
// which take no room on a disk.
package erofs

import "io/fs"

const (
	// BlockSize is the size of a block, in bytes. gVisor wants that of a page.
	BlockSize = 1 << blockBits
	blockBits = 12
	// ChunkSize is the unit, in bytes, for which the layout is made.
	ChunkSize = 512 << 10
	// MaxName is the size of the longest name of one path element, in bytes.
	MaxName = 255
	// MaxTarget is the size of the longest target of a symbolic link, in
	// bytes. Linux has 4,095; it must fit into a block with its inode here.
	MaxTarget = BlockSize - inodeSize

	superOffset = 1024
	superSize   = 128
	superMagic  = 0xe0f5e1e2
	checksummed = 1 // feature: the superblock has a checksum

	slotBits   = 5 // an inode's number counts slots of 32 bytes
	inodeSize  = 64
	direntSize = 12
	firstInode = 2 // slots from the start of the inodes: 0 is no inode's number

	extendedInode = 1
	plainData     = 0 << 1
	inlineData    = 2 << 1

	// boundary decides which small files end a chunk: one in 64.
	boundary = 64
)

// IsImage tells whether b, the first bytes of a file (1,028 at least), begin an
// EROFS image.
func IsImage(b []byte) bool {
	return len(b) >= superOffset+4 && le.Uint32(b[superOffset:]) == superMagic
}

// Attr is what an entry has beside its name and content.
type Attr struct {
	Mode     fs.FileMode // permission, set-user-id, set-group-id and sticky bits count
	UID, GID uint32
	Seconds  int64 // of the last modification, since 1970
}

// typeBits of an inode's mode, and the type in directory entries.
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
)

var direntTypes = map[uint16]byte{modeFile: 1, modeDir: 2, modeLink: 7}

func mode(kind uint16, m fs.FileMode) uint16 {
	bits := kind | uint16(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		bits |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}
