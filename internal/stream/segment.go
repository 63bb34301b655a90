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
	// magic begins a segment. Its last byte is the version of the format.
	magic = "LWSHARD\x01"
	// frameHead is the length and the checksum before a frame's body; bodyHead is
	// what a body has before key and data: offset, arrival, length of the key.
	frameHead = 4 + 4
	bodyHead  = 8 + 8 + 2
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
}

// segment is a file of a shard. Its fields are guarded by the shard's mu.
type segment struct {
	first uint64 // offset of its first record, and its name
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
func appendFrame(b []byte, offset uint64, arrived int64, key string, data []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHead)...)
	b = binary.LittleEndian.AppendUint64(b, offset)
	b = binary.LittleEndian.AppendUint64(b, uint64(arrived))
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
	return Record{
		Offset:  binary.LittleEndian.Uint64(body),
		Arrived: time.UnixMilli(int64(binary.LittleEndian.Uint64(body[8:]))),
		Key:     string(body[bodyHead : bodyHead+key]), Data: body[bodyHead+key:],
	}, frameHead + int64(n), nil
}

func noFrame(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errFrame
	}
	return err
}

// walk calls f with the records of a segment's file from a mark on, as far as the
// file is durable, until f returns false.
func walk(dir string, first uint64, from mark, size int64, f func(r Record, at int64) bool) error {
	file, err := os.Open(segmentPath(dir, first))
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(io.NewSectionReader(file, from.at, size-from.at), 64<<10)
	for at, offset := from.at, from.offset; at < size; offset++ {
		rec, n, err := readFrame(r)
		if err == nil && rec.Offset != offset {
			err = errFrame
		}
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", file.Name(), at, err)
		}
		if !f(rec, at) {
			return nil
		}
		at += n
	}
	return nil
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
