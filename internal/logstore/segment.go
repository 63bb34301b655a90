package logstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"lapwing.dev/lapwing/internal/fsync"
)

// A segment is a file of blocks, of one of two kinds.
//
// A log, "00000007-00000007.0.log", is what is being written or was until
// lately: blocks as they were flushed, often small. Its index is in memory and
// is made again at open by reading it; a torn tail is cut off then.
//
// A sealed segment, "00000003-00000007.1.seg", was made from the logs and
// segments 3 to 7 by compact: large blocks in the order of event time, then a
// footer frame with the metas of all blocks, then the trailer. It is complete
// or it does not exist (written under another name, synced, renamed). The last
// number is a generation: of two segments where one covers the other's numbers,
// the wider, then the higher generation, is the one that counts, and open
// removes the other.
//
// Both begin with fileHeader.
const (
	fileHeader     = "LAPWLOG\x01" // the last byte is the version of the format
	sealedTrailer  = "LAPWEND\x01"
	trailerLen     = 8 + 8 + len(sealedTrailer) // footer offset, footer length, magic
	logSuffix      = ".log"
	sealedSuffix   = ".seg"
	maxFooterBytes = maxFrame + frameHeader
)

type segment struct {
	from, to   uint32
	generation uint32
	path       string
	sealed     bool

	// The rest is guarded by the group's mutex.
	size     int64 // of the file
	raw      int64 // events, before compression
	dead     int64 // of raw: of streams that were deleted, about
	count    int
	min, max int64       // event time, Unix ms
	seq      uint64      // the highest sequence number
	blocks   []blockMeta // of a log only; append-only

	refs    int  // readers and compactions under way
	removed bool // delete the file when refs is 0
}

func segmentName(from, to, generation uint32, suffix string) string {
	return fmt.Sprintf("%08d-%08d.%d%s", from, to, generation, suffix)
}

func parseSegmentName(name string) (s segment, ok bool) {
	suffix := filepath.Ext(name)
	if suffix != logSuffix && suffix != sealedSuffix {
		return s, false
	}
	_, err := fmt.Sscanf(strings.TrimSuffix(name, suffix), "%d-%d.%d", &s.from, &s.to, &s.generation)
	if err != nil || s.from > s.to || segmentName(s.from, s.to, s.generation, suffix) != name {
		return s, false
	}
	s.sealed = suffix == sealedSuffix
	return s, true
}

// covers reports whether s makes t superfluous.
func (s *segment) covers(t *segment) bool {
	if s == t || s.from > t.from || s.to < t.to {
		return false
	}
	return s.from < t.from || s.to > t.to || s.generation > t.generation
}

// account adds a block to the segment's sums.
func (s *segment) account(m *blockMeta) {
	if s.count == 0 {
		s.min, s.max = m.min.Time, m.max.Time
	}
	s.min, s.max = min(s.min, m.min.Time), max(s.max, m.max.Time)
	s.seq = max(s.seq, m.min.Seq, m.max.Seq)
	s.count += m.count
	s.raw += int64(m.raw)
}

// readBlock reads the frame of a block.
func readBlock(f *os.File, m *blockMeta) ([]byte, error) {
	b := make([]byte, m.length)
	if _, err := f.ReadAt(b, m.offset); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return b, nil
}

// scanFrames reads a file of frames from its begin and calls frame for each
// that is whole. It returns the length of the sound part: a frame that frame
// refuses is passed over if sound ones follow, and else belongs to the torn
// tail, like everything that is no frame. A length of 0 means that not even the
// header was complete.
func scanFrames(f *os.File, fileHeader string, magic uint32, frame func(offset int64, frame []byte) error) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	r := bufio.NewReaderSize(f, 256<<10)
	head := make([]byte, len(fileHeader))
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, eofIsNil(err)
	}
	if string(head) != fileHeader {
		return 0, errors.New("not a file of this version")
	}
	offset, sound := int64(len(fileHeader)), int64(len(fileHeader))
	for {
		header, err := r.Peek(frameHeader)
		if err != nil {
			return sound, eofIsNil(err)
		}
		n, err := parseFrameHeader(header, magic)
		if err != nil || offset+frameHeader+int64(n) > info.Size() {
			return sound, nil
		}
		b := make([]byte, frameHeader+n)
		if _, err := io.ReadFull(r, b); err != nil {
			return sound, eofIsNil(err)
		}
		err = frame(offset, b)
		offset += int64(len(b))
		if err == nil {
			sound = offset
		}
	}
}

// scanLog reads a log, adds its blocks to s and returns the length of its sound
// part.
func (s *segment) scanLog(f *os.File, log *slog.Logger) (int64, error) {
	return scanFrames(f, fileHeader, blockMagic, func(offset int64, frame []byte) error {
		m, _, _, err := parseBlock(frame)
		if err != nil {
			log.Error("log block is damaged", "file", s.path, "offset", offset, "error", err)
			return err
		}
		m.offset = offset
		s.blocks = append(s.blocks, m)
		s.account(&m)
		return nil
	})
}

func eofIsNil(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// readFooter reads the metas of the blocks of a sealed segment.
func readFooter(f *os.File) ([]blockMeta, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := make([]byte, len(fileHeader))
	trailer := make([]byte, trailerLen)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if _, err := f.ReadAt(trailer, max(0, info.Size()-int64(trailerLen))); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if string(head) != fileHeader || string(trailer[16:]) != sealedTrailer {
		return nil, fmt.Errorf("%w: not a sealed segment of this version", errCorrupt)
	}
	offset := binary.LittleEndian.Uint64(trailer)
	length := binary.LittleEndian.Uint64(trailer[8:])
	if length > maxFooterBytes || offset+length != uint64(info.Size()-int64(trailerLen)) {
		return nil, fmt.Errorf("%w: footer position", errCorrupt)
	}
	frame := make([]byte, length)
	if _, err := f.ReadAt(frame, int64(offset)); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return decodeFooter(frame)
}

func decodeFooter(frame []byte) ([]blockMeta, error) {
	body, err := frameBody(frame, footerMagic)
	if err != nil {
		return nil, err
	}
	r := byteReader{b: body}
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		return nil, fmt.Errorf("%w: footer", errCorrupt)
	}
	metas := make([]blockMeta, n)
	for i := range metas {
		metas[i].offset = int64(r.uvarint())
		metas[i].length = int(r.uvarint())
		metas[i].decode(&r)
		if r.failed || metas[i].length < 0 || metas[i].length > maxFrame+frameHeader {
			return nil, fmt.Errorf("%w: footer", errCorrupt)
		}
	}
	return metas, nil
}

func appendFooter(dst []byte, metas []blockMeta) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	dst = binary.AppendUvarint(dst, uint64(len(metas)))
	for i := range metas {
		dst = binary.AppendUvarint(dst, uint64(metas[i].offset))
		dst = binary.AppendUvarint(dst, uint64(metas[i].length))
		dst = metas[i].appendTo(dst)
	}
	finishFrame(dst[start:], footerMagic)
	return dst
}

// sealedWriter writes a sealed segment.
type sealedWriter struct {
	f       *os.File
	enc     *zstd.Encoder
	seg     *segment
	offset  int64
	metas   []blockMeta
	entries []entry
	raw     int
	buf     []byte
}

func newSealedWriter(seg *segment, enc *zstd.Encoder) (*sealedWriter, error) {
	f, err := os.OpenFile(seg.path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w := &sealedWriter{f: f, enc: enc, seg: seg}
	if err := w.write([]byte(fileHeader)); err != nil {
		w.abort()
		return nil, err
	}
	return w, nil
}

func (w *sealedWriter) write(b []byte) error {
	_, err := w.f.Write(b)
	w.offset += int64(len(b))
	return err
}

// add takes the next entry in order.
func (w *sealedWriter) add(e entry) error {
	w.entries = append(w.entries, e)
	w.raw += len(e.message) + 8
	if w.raw < blockTarget {
		return nil
	}
	return w.flush()
}

func (w *sealedWriter) flush() error {
	if len(w.entries) == 0 {
		return nil
	}
	var m blockMeta
	w.buf, m = appendBlock(w.buf[:0], w.entries, w.enc)
	m.offset = w.offset
	w.seg.account(&m)
	w.metas = append(w.metas, m)
	clear(w.entries)
	w.entries, w.raw = w.entries[:0], 0
	return w.write(w.buf)
}

// finish completes the file and gives it its name.
func (w *sealedWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	footer := appendFooter(nil, w.metas)
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(w.offset))
	trailer = binary.LittleEndian.AppendUint64(trailer, uint64(len(footer)))
	if err := w.write(slices.Concat(footer, trailer, []byte(sealedTrailer))); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := w.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(w.f.Name(), w.seg.path); err != nil {
		return err
	}
	w.seg.size = w.offset
	return fsync.Dir(filepath.Dir(w.seg.path))
}

// abort removes what was written. It is harmless after finish.
func (w *sealedWriter) abort() {
	w.f.Close()
	os.Remove(w.f.Name())
}

// writeFileSync replaces a file: after it returns, the new content is durable;
// after a crash before that, the old or the new one is there.
func writeFileSync(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // fails after the rename, as it should
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(path))
}
