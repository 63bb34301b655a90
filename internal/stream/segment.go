package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"time"
)

const (
	// magic begins a segment. Its last byte is the version of the format. In the one
	// before no record says that it begins a write.
	magic       = "LWSHARD\x02"
	magicBefore = "LWSHARD\x01"
	// frameHead is the length and the checksum before a frame's body; bodyHead is
	// what a body has before key and data: offset, arrival, length of the key.
	frameHead = 4 + 4
	bodyHead  = 8 + 8 + 2
	// beginsWrite is a bit of the arrival: all that was written before the record was
	// durable when it was written.
	beginsWrite = 1 << 63
	// markEvery is how far the entries of a segment's index are apart, in bytes.
	markEvery = 256 << 10

	// MaxData bounds the data of a record and MaxKey its key, in bytes.
	MaxData = 10 << 20
	MaxKey  = math.MaxUint16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFrame says that there is no whole frame where one should be.
var errFrame = errors.New("no whole record")

// Record is a record of a shard. Append fills in Offset and Arrived.
type Record struct {
	Offset  uint64
	Arrived time.Time // to the millisecond
	Key     string
	Data    []byte

	begins bool // a write
}

// size is that of the record's frame.
func (r *Record) size() int64 { return int64(frameHead + bodyHead + len(r.Key) + len(r.Data)) }

// segment is a file of a shard. Its fields are guarded by the shard's mu.
type segment struct {
	first uint64 // offset of its first record, and its name
	old   bool   // of the format before: complete, whatever its size
	size  int64  // as far as it is durable
	// began and ended are the arrivals of its first and last record, in
	// milliseconds; 0 where it has none. ended may be later than that, never earlier.
	began, ended int64
	marks        []mark // its index; nil: not made yet
}

// mark says where a record is.
type mark struct {
	offset  uint64
	arrived int64
	at      int64 // in the file
}

func (g *segment) empty() bool { return g.began == 0 }

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d.log", first))
}

// appendFrame appends a record's frame.
func appendFrame(b []byte, offset uint64, arrived int64, begins bool, key string, data []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHead)...)
	b = binary.LittleEndian.AppendUint64(b, offset)
	at := uint64(arrived)
	if begins {
		at |= beginsWrite
	}
	b = binary.LittleEndian.AppendUint64(b, at)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	b = append(b, key...)
	b = append(b, data...)
	body := b[start+frameHead:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(body, castagnoli))
	return b
}

// readFrame reads a frame and returns the record and the frame's size; errFrame
// where there is no whole one.
func readFrame(r io.Reader) (Record, int64, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Record{}, 0, noFrame(err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n < bodyHead || n > bodyHead+MaxKey+MaxData {
		return Record{}, 0, errFrame
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return Record{}, 0, noFrame(err)
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return Record{}, 0, errFrame
	}
	key := int(binary.LittleEndian.Uint16(body[16:]))
	if bodyHead+key > len(body) {
		return Record{}, 0, errFrame
	}
	arrived := binary.LittleEndian.Uint64(body[8:])
	return Record{
		Offset:  binary.LittleEndian.Uint64(body),
		Arrived: time.UnixMilli(int64(arrived &^ beginsWrite)), begins: arrived&beginsWrite != 0,
		Key: string(body[bodyHead : bodyHead+key]), Data: body[bodyHead+key:],
	}, frameHead + int64(n), nil
}

func noFrame(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errFrame
	}
	return err
}

// walk calls f with the records of a segment's file from a mark on, as far as the
// file is durable, until f returns false. Where there is no whole record it returns
// errFrame and the place.
func walk(file *os.File, from mark, size int64, f func(r Record, at int64) bool) (mark, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(file, from.at, size-from.at), 64<<10)
	for from.at < size {
		rec, n, err := readFrame(r)
		if err == nil && rec.Offset != from.offset {
			err = errFrame
		}
		if err != nil || !f(rec, from.at) {
			return from, err
		}
		from.at, from.offset = from.at+n, from.offset+1
	}
	return from, nil
}

// resync finds the next whole record where there is not the one that should be: one
// that is later than it, then where that one ends by its length, since what looks
// like a record may be the data of one, and then anywhere.
func resync(file *os.File, from mark, size int64) (next mark, found bool, err error) {
	most := uint64(size) / (frameHead + bodyHead) // records that a file of this size can have
	try := func(at int64, head []byte) (bool, error) {
		n, offset := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint64(head[frameHead:])
		if n < bodyHead || n > bodyHead+MaxKey+MaxData || int64(n) > size-at-frameHead || offset < from.offset || offset-from.offset > most {
			return false, nil
		}
		rec, _, err := readFrame(io.NewSectionReader(file, at, size-at))
		if errors.Is(err, errFrame) {
			return false, nil
		}
		next = mark{offset: rec.Offset, arrived: rec.Arrived.UnixMilli(), at: at}
		return err == nil, err
	}
	const head = frameHead + 8
	r := bufio.NewReaderSize(io.NewSectionReader(file, from.at, size-from.at), 64<<10)
	b, err := r.Peek(head)
	if err == nil {
		if found, err := try(from.at, b); found || err != nil {
			return next, found, err
		}
		if after := from.at + frameHead + int64(binary.LittleEndian.Uint32(b)); after+head <= size {
			var there [head]byte
			if _, err := file.ReadAt(there[:], after); err != nil {
				return mark{}, false, err
			}
			if found, err := try(after, there[:]); found || err != nil {
				return next, found, err
			}
		}
	}
	for at := from.at; err == nil; at++ {
		if found, err := try(at, b); found || err != nil {
			return next, found, err
		}
		if _, err := r.Discard(1); err != nil {
			return mark{}, false, err
		}
		b, err = r.Peek(head)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return mark{}, false, err
}

// indexer makes the index of a segment from its records, in their order.
type indexer struct{ marks []mark }

func (x *indexer) add(offset uint64, arrived, at int64) {
	if n := len(x.marks); n == 0 || at-x.marks[n-1].at >= markEvery {
		x.marks = append(x.marks, mark{offset, arrived, at})
	}
}

// before returns the last of marks for which less holds, which it does for the
// first ones, or a segment's beginning.
func before(marks []mark, first uint64, less func(mark) bool) mark {
	n := sort.Search(len(marks), func(i int) bool { return !less(marks[i]) })
	if n == 0 {
		return mark{offset: first, at: int64(len(magic))}
	}
	return marks[n-1]
}
