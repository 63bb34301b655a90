package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// An object's file holds the body from its first byte on, so that any part of it
// can be sent from there; then a CRC-32C of each block of the body; then the head
// as JSON; then a footer:
//
//	magic "LWEDGEOB", version (4 bytes), length of the head (4), of the body (8),
//	CRC-32C of the blocks' sums (4), of the head (4), the key (32),
//	CRC-32C of the footer so far (4)
//
// Numbers are little-endian. What comes behind the body is written anew, in place,
// where a revalidation changes the head; a crash on the way loses the object.
const (
	fileMagic   = "LWEDGEOB"
	fileVersion = 1
	footerSize  = 8 + 4 + 4 + 8 + 4 + 4 + 32 + 4
	// blockSize is the size of the blocks of a body that are verified at a time.
	blockSize = 256 << 10
	// maxHead is the largest head that is read.
	maxHead = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is wrapped where a file is not what was written.
var errDamaged = errors.New("cache: damaged file")

func damaged(what string) error { return fmt.Errorf("%w: %s", errDamaged, what) }

// blocks returns how many blocks a body has.
func blocks(length int64) int { return int((length + blockSize - 1) / blockSize) }

// appendSums appends the sums of the blocks of p, which begins with a block.
func appendSums(sums []uint32, p []byte) []uint32 {
	for len(p) > 0 {
		b := p[:min(len(p), blockSize)]
		sums = append(sums, crc32.Checksum(b, castagnoli))
		p = p[len(b):]
	}
	return sums
}

// tail returns what follows the body in a file.
func tail(k Key, h *Head, length int64, sums []uint32) ([]byte, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(head) > maxHead {
		return nil, errors.New("cache: the head is too large to be stored")
	}
	b := make([]byte, 0, 4*len(sums)+len(head)+footerSize)
	for _, s := range sums {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	ofSums := crc32.Checksum(b, castagnoli)
	b = append(b, head...)
	start := len(b)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint32(b, fileVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	b = binary.LittleEndian.AppendUint32(b, ofSums)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(head, castagnoli))
	b = append(b, k[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli)), nil
}

// readTail reads and verifies what follows the body.
func readTail(f *os.File, k Key) (h *Head, sums []uint32, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	size := info.Size()
	if size < footerSize {
		return nil, nil, damaged("too short")
	}
	var footer [footerSize]byte
	if _, err := f.ReadAt(footer[:], size-footerSize); err != nil {
		return nil, nil, err
	}
	headSize := int64(binary.LittleEndian.Uint32(footer[12:]))
	length := int64(binary.LittleEndian.Uint64(footer[16:]))
	switch {
	case string(footer[:8]) != fileMagic,
		crc32.Checksum(footer[:footerSize-4], castagnoli) != binary.LittleEndian.Uint32(footer[footerSize-4:]):
		return nil, nil, damaged("no footer")
	case binary.LittleEndian.Uint32(footer[8:]) != fileVersion:
		return nil, nil, damaged("another version of the format")
	case Key(footer[32:64]) != k:
		return nil, nil, damaged("of another key")
	case length < 0 || length > MaxObject || headSize > maxHead,
		size != length+4*int64(blocks(length))+headSize+footerSize:
		return nil, nil, damaged("not of its length")
	}
	b := make([]byte, size-footerSize-length)
	if _, err := f.ReadAt(b, length); err != nil {
		return nil, nil, err
	}
	rawSums, head := b[:int64(len(b))-headSize], b[int64(len(b))-headSize:]
	if crc32.Checksum(rawSums, castagnoli) != binary.LittleEndian.Uint32(footer[24:]) ||
		crc32.Checksum(head, castagnoli) != binary.LittleEndian.Uint32(footer[28:]) {
		return nil, nil, damaged("head")
	}
	h = new(Head)
	if err := json.Unmarshal(head, h); err != nil {
		return nil, nil, damaged(err.Error())
	}
	h.Length = length
	sums = make([]uint32, 0, blocks(length))
	for ; len(rawSums) > 0; rawSums = rawSums[4:] {
		sums = append(sums, binary.LittleEndian.Uint32(rawSums))
	}
	return h, sums, nil
}

// bodyFile is the file of an object whose body is not in memory. It is closed when
// nobody refers to it.
type bodyFile struct {
	f      *os.File
	length int64
	sums   []uint32
	refs   atomic.Int32
	bad    atomic.Bool // a block is damaged

	mu       sync.Mutex
	verified []bool
	// modified is when the file was last written to, as far as is known: if the
	// file says otherwise then somebody else did, and nothing is known any more.
	modified time.Time
}

// openBody returns the file of a body with these sums. One reference is the
// caller's.
func openBody(f *os.File, length int64, sums []uint32) *bodyFile {
	b := &bodyFile{f: f, length: length, sums: sums, verified: make([]bool, len(sums))}
	b.refs.Store(1)
	return b
}

// trust says what the file holds, which this process has just written.
func (b *bodyFile) trust(length int64, sums []uint32) {
	b.length, b.sums, b.verified = length, sums, make([]bool, len(sums))
	for i := range b.verified {
		b.verified[i] = true
	}
	b.stamp()
}

// stamp takes note that what the file holds now is as it should be.
func (b *bodyFile) stamp() {
	if info, err := b.f.Stat(); err == nil {
		b.mu.Lock()
		b.modified = info.ModTime()
		b.mu.Unlock()
	}
}

// check forgets what was verified if somebody has written to the file since.
func (b *bodyFile) check() {
	info, err := b.f.Stat()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil || !info.ModTime().Equal(b.modified) {
		clear(b.verified)
		if err == nil {
			b.modified = info.ModTime()
		}
	}
}

// acquire takes a reference, unless the file is closed already.
func (b *bodyFile) acquire() bool {
	for {
		n := b.refs.Load()
		if n == 0 {
			return false
		}
		if b.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *bodyFile) release() {
	if b.refs.Add(-1) == 0 {
		b.f.Close()
	}
}

var blockBuffers = sync.Pool{New: func() any { return new([blockSize]byte) }}

// verify makes sure that the block with this offset is what was written, and
// returns where it ends.
func (b *bodyFile) verify(off int64) (end int64, err error) {
	i := off / blockSize
	start := i * blockSize
	end = min(start+blockSize, b.length)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.verified[i] {
		return end, nil
	}
	buf := blockBuffers.Get().(*[blockSize]byte)
	defer blockBuffers.Put(buf)
	p := buf[:end-start]
	if _, err := b.f.ReadAt(p, start); err != nil {
		if err == io.EOF {
			err = damaged("too short")
		}
		return 0, err
	}
	if crc32.Checksum(p, castagnoli) != b.sums[i] {
		b.bad.Store(true)
		return 0, damaged(fmt.Sprintf("block %d", i))
	}
	b.verified[i] = true
	return end, nil
}

// readAll returns the whole body, verified.
func (b *bodyFile) readAll() ([]byte, error) {
	p := make([]byte, b.length)
	if _, err := io.ReadFull(io.NewSectionReader(b.f, 0, b.length), p); err != nil {
		return nil, damaged("too short")
	}
	for i, s := range appendSums(make([]uint32, 0, len(b.sums)), p) {
		if s != b.sums[i] {
			return nil, damaged(fmt.Sprintf("block %d", i))
		}
	}
	return p, nil
}
