package logstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The on-disk unit is the frame:
//
//	magic u32 | length u32 | CRC-32C of body u32 | body
//
// in little endian. A block frame's body is "uvarint length of meta | meta |
// codec u8 | payload", a footer frame's body is described in segment.go.
const (
	frameHeader = 12
	blockMagic  = 0x3142574c // "LWB1"
	footerMagic = 0x3146574c // "LWF1"

	// blockTarget is the size of events, in bytes before compression, at
	// which a block is full.
	blockTarget = 128 << 10
	// maxFrame bounds what is read for one frame: a block holds at least one
	// event of MaxMessage bytes, and its meta.
	maxFrame = 16 << 20
)

const (
	codecNone = 0
	codecZstd = 1
)

var (
	errCorrupt = errors.New("corrupt block")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// entry is one event as blocks hold it.
type entry struct {
	key      Position
	ingested int64 // Unix ms
	stream   uint32
	message  string
}

// size is what the entry counts for in limits and stored bytes: AWS's rule.
func (e *entry) size() int64 { return int64(len(e.message)) + EventOverhead }

func compareEntries(a, b entry) int { return a.key.Compare(b.key) }

// blockMeta says what a block holds, so that a reader can pass it over.
type blockMeta struct {
	offset   int64 // of the frame in its file
	length   int   // of the frame
	raw      int   // length of the payload before compression
	count    int
	min, max Position
	streams  []streamStat // ascending by id
}

// streamStat sums up the events of one stream in a block or in a whole group.
type streamStat struct {
	id          uint32
	bytes       int64
	first, last int64 // event time, Unix ms
	ingested    int64 // the latest
}

func (s *streamStat) add(o streamStat) {
	s.bytes += o.bytes
	s.first = min(s.first, o.first)
	s.last = max(s.last, o.last)
	s.ingested = max(s.ingested, o.ingested)
}

// find returns the index of a stream in m.streams.
func (m *blockMeta) find(id uint32) (int, bool) {
	return slices.BinarySearchFunc(m.streams, id, func(s streamStat, id uint32) int { return cmp.Compare(s.id, id) })
}

// summarise makes the meta of entries, which are sorted and not empty.
func summarise(entries []entry) blockMeta {
	m := blockMeta{count: len(entries), min: entries[0].key, max: entries[len(entries)-1].key}
	for i := range entries {
		e := &entries[i]
		s := streamStat{id: e.stream, bytes: e.size(), first: e.key.Time, last: e.key.Time, ingested: e.ingested}
		if j, found := m.find(e.stream); found {
			m.streams[j].add(s)
		} else {
			m.streams = slices.Insert(m.streams, j, s)
		}
	}
	return m
}

// codecs compress and decompress blocks. They are made at first use: an idle
// store pays for none. Each store has its own, as they hold channels, which must
// not leave the bubble of a test under synctest.
type codecs struct {
	fast, good func() *zstd.Encoder
	decoder    func() *zstd.Decoder
}

func newCodecs() *codecs {
	return &codecs{
		fast: sync.OnceValue(func() *zstd.Encoder { return newEncoder(zstd.SpeedFastest) }),
		good: sync.OnceValue(func() *zstd.Encoder { return newEncoder(zstd.SpeedDefault) }),
		decoder: sync.OnceValue(func() *zstd.Decoder {
			d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxFrame))
			if err != nil {
				panic(err) // the options are constants
			}
			return d
		}),
	}
}

func newEncoder(level zstd.EncoderLevel) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// appendBlock appends a block frame that holds entries, which are sorted and
// not empty, and returns its meta with the length but not the offset.
func appendBlock(dst []byte, entries []entry, enc *zstd.Encoder) ([]byte, blockMeta) {
	m := summarise(entries)
	var raw []byte
	prev := entry{key: Position{Time: m.min.Time, Seq: m.min.Seq}, ingested: m.min.Time}
	for i := range entries {
		e := &entries[i]
		idx, _ := m.find(e.stream)
		raw = binary.AppendUvarint(raw, uint64(idx))
		raw = binary.AppendVarint(raw, e.key.Time-prev.key.Time)
		raw = binary.AppendVarint(raw, int64(e.key.Seq-prev.key.Seq))
		raw = binary.AppendVarint(raw, e.ingested-prev.ingested)
		raw = binary.AppendUvarint(raw, uint64(len(e.message)))
		raw = append(raw, e.message...)
		prev = *e
	}
	m.raw = len(raw)

	start := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	meta := m.appendTo(nil)
	dst = binary.AppendUvarint(dst, uint64(len(meta)))
	dst = append(dst, meta...)
	dst = append(dst, codecZstd)
	body := len(dst)
	dst = enc.EncodeAll(raw, dst)
	if len(dst)-body >= len(raw) {
		dst[body-1] = codecNone
		dst = append(dst[:body], raw...)
	}
	finishFrame(dst[start:], blockMagic)
	m.length = len(dst) - start
	return dst, m
}

// finishFrame fills in the header of frame, whose body is complete.
func finishFrame(frame []byte, magic uint32) {
	body := frame[frameHeader:]
	binary.LittleEndian.PutUint32(frame[0:], magic)
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(frame[8:], crc32.Checksum(body, castagnoli))
}

// parseFrameHeader returns the length of the body of the frame that b begins.
func parseFrameHeader(b []byte, magic uint32) (length int, err error) {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b) != magic {
		return 0, fmt.Errorf("%w: no frame here", errCorrupt)
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxFrame {
		return 0, fmt.Errorf("%w: frame of %d bytes", errCorrupt, n)
	}
	return int(n), nil
}

// frameBody checks a whole frame and returns its body.
func frameBody(frame []byte, magic uint32) ([]byte, error) {
	n, err := parseFrameHeader(frame, magic)
	if err != nil {
		return nil, err
	}
	if n != len(frame)-frameHeader {
		return nil, fmt.Errorf("%w: frame length", errCorrupt)
	}
	body := frame[frameHeader:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(frame[8:]) {
		return nil, fmt.Errorf("%w: checksum", errCorrupt)
	}
	return body, nil
}

// parseBlock splits a block frame into its meta and its (compressed) payload.
func parseBlock(frame []byte) (m blockMeta, codec byte, payload []byte, err error) {
	body, err := frameBody(frame, blockMagic)
	if err != nil {
		return m, 0, nil, err
	}
	r := byteReader{b: body}
	n := r.uvarint()
	meta := r.take(n)
	rest := byteReader{b: meta}
	m.decode(&rest)
	if r.failed || rest.failed || len(r.b) == 0 {
		return m, 0, nil, fmt.Errorf("%w: meta", errCorrupt)
	}
	m.length = len(frame)
	return m, r.b[0], r.b[1:], nil
}

// decodeBlock returns the entries of a block frame. Their messages share one
// allocation. keep tells by index into m.streams whose entries are wanted; nil
// means all.
func (c *codecs) decodeBlock(frame []byte, keep []bool) (blockMeta, []entry, error) {
	m, codec, payload, err := parseBlock(frame)
	if err != nil {
		return m, nil, err
	}
	if m.raw < 0 || m.raw > maxFrame || m.count < 0 || m.count > m.raw/5 { // an entry takes at least five bytes
		return m, nil, fmt.Errorf("%w: size", errCorrupt)
	}
	raw := payload
	switch codec {
	case codecNone:
	case codecZstd:
		raw, err = c.decoder().DecodeAll(payload, make([]byte, 0, m.raw))
		if err != nil {
			return m, nil, fmt.Errorf("%w: %w", errCorrupt, err)
		}
	default:
		return m, nil, fmt.Errorf("%w: unknown codec %d", errCorrupt, codec)
	}
	if len(raw) != m.raw {
		return m, nil, fmt.Errorf("%w: payload of %d bytes, %d expected", errCorrupt, len(raw), m.raw)
	}
	text := string(raw)
	entries := make([]entry, 0, m.count)
	r := byteReader{b: raw}
	prev := entry{key: Position{Time: m.min.Time, Seq: m.min.Seq}, ingested: m.min.Time}
	for range m.count {
		idx := r.uvarint()
		prev.key.Time += r.varint()
		prev.key.Seq += uint64(r.varint())
		prev.ingested += r.varint()
		n := r.uvarint()
		at := len(raw) - len(r.b)
		if r.take(n); r.failed || idx >= uint64(len(m.streams)) {
			return m, nil, fmt.Errorf("%w: entry", errCorrupt)
		}
		if keep != nil && !keep[idx] {
			continue
		}
		prev.stream = m.streams[idx].id
		prev.message = text[at : at+int(n)]
		entries = append(entries, prev)
	}
	return m, entries, nil
}

// appendTo encodes the meta without offset and length.
func (m *blockMeta) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(m.raw))
	b = binary.AppendUvarint(b, uint64(m.count))
	b = binary.AppendVarint(b, m.min.Time)
	b = binary.AppendUvarint(b, m.min.Seq)
	b = binary.AppendVarint(b, m.max.Time-m.min.Time)
	b = binary.AppendVarint(b, int64(m.max.Seq-m.min.Seq))
	b = binary.AppendUvarint(b, uint64(len(m.streams)))
	var id uint32
	for i := range m.streams {
		s := &m.streams[i]
		b = binary.AppendUvarint(b, uint64(s.id-id))
		id = s.id
		b = binary.AppendUvarint(b, uint64(s.bytes))
		b = binary.AppendVarint(b, s.first-m.min.Time)
		b = binary.AppendVarint(b, s.last-m.min.Time)
		b = binary.AppendVarint(b, s.ingested-m.min.Time)
	}
	return b
}

func (m *blockMeta) decode(r *byteReader) {
	m.raw = int(r.uvarint())
	m.count = int(r.uvarint())
	m.min = Position{Time: r.varint(), Seq: r.uvarint()}
	m.max = Position{Time: m.min.Time + r.varint(), Seq: m.min.Seq + uint64(r.varint())}
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each stream takes more than a byte
		r.failed = true
		return
	}
	m.streams = make([]streamStat, n)
	var id uint32
	for i := range m.streams {
		id += uint32(r.uvarint())
		m.streams[i] = streamStat{
			id:       id,
			bytes:    int64(r.uvarint()),
			first:    m.min.Time + r.varint(),
			last:     m.min.Time + r.varint(),
			ingested: m.min.Time + r.varint(),
		}
	}
}

// byteReader reads varints and remembers the first failure.
type byteReader struct {
	b      []byte
	failed bool
}

func (r *byteReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *byteReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *byteReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
