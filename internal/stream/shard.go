package stream

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/fsync"
)

const (
	// segmentSize is the size at which a segment is complete, in bytes, and
	// segmentAge the age: the disk holds records for so much longer than asked.
	segmentSize = 16 << 20
	segmentAge  = time.Hour
	// keptBuffer bounds the buffer that stays for the next write, in bytes.
	keptBuffer = 1 << 20
)

// Shard is a log of records. Offsets begin at 1 and have no gaps. All its methods
// may be called from any goroutine.
type Shard struct {
	dir string
	log *slog.Logger
	now func() time.Time

	// writing is held by whoever writes to the files; it guards the next three.
	writing sync.Mutex
	file    *os.File // of the last segment; nil: not opened yet
	buffer  []byte
	broken  error // what keeps the shard from being written

	mu       sync.Mutex
	waiting  *batch     // gathers until whoever writes is done; nil: nobody waits
	segments []*segment // never none; records go to the last one
	end      uint64     // offset after that of the last durable record
	last     int64      // arrival of the last record, in milliseconds
	closed   bool
	changed  chan struct{} // is closed with the next append; nil: nobody waits

	telling sync.Mutex
	told    map[damage]bool // what the log says already
}

// damage is a place in a segment where there is no whole record.
type damage struct {
	segment uint64 // its first offset
	at      int64
}

// batch is records that are written together.
type batch struct {
	records []Record
	first   uint64
	err     error
	done    chan struct{}
}

// openShard opens a shard, and makes it where it is missing.
func openShard(dir string, o Options) (*Shard, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	s := &Shard{dir: dir, log: o.Logger, now: o.Now, told: map[damage]bool{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries { // in the order of their names, hence of offsets
		first, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), ".log"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is no segment", e.Name())
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		s.segments = append(s.segments, &segment{first: first, size: info.Size()})
	}
	if len(s.segments) == 0 {
		g, file, err := s.makeSegment(1)
		if err != nil {
			return nil, err
		}
		s.segments, s.file, s.end = []*segment{g}, file, 1
		return s, nil
	}
	return s, s.recover()
}

// recover finds where the log ends and how old its segments are.
func (s *Shard) recover() error {
	last := s.segments[len(s.segments)-1]
	if err := s.repair(last); err != nil {
		return err
	}
	for i := len(s.segments) - 2; i >= 0; i-- {
		g, after := s.segments[i], s.segments[i+1]
		if err := s.checkHead(g); err != nil {
			return err
		}
		if after.empty() { // nothing that says how old this one is
			if err := s.index(g); err != nil {
				return err
			}
			if g.empty() { // all of it is damaged: to be trimmed in due time
				g.note(s.now().UnixMilli())
			}
			s.last = max(s.last, g.ended)
			continue
		}
		err := s.walk(*g, before(nil, g.first, nil), func(r Record, _ int64) bool {
			g.began = r.Arrived.UnixMilli()
			return false
		})
		if err != nil {
			return err
		}
		if g.ended = after.began; g.empty() {
			g.began = g.ended
		}
	}
	return nil
}

// checkHead tells whether a segment that was there at the start is one.
func (s *Shard) checkHead(g *segment) error {
	file, err := os.Open(segmentPath(s.dir, g.first))
	if err != nil {
		return err
	}
	defer file.Close()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(file, head); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	switch string(head) {
	case magic:
	case magicBefore:
		g.old = true
	default:
		return fmt.Errorf("%s is no segment, or one of a newer program", file.Name())
	}
	return nil
}

// repair reads the last segment to its end, and cuts off what a crash left of a
// write.
func (s *Shard) repair(g *segment) error {
	file, err := os.OpenFile(segmentPath(s.dir, g.first), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := s.repairFile(g, file); err != nil {
		return errors.Join(err, file.Close())
	}
	s.file = file
	return nil
}

func (s *Shard) repairFile(g *segment, file *os.File) error {
	s.end = g.first
	if head := make([]byte, len(magic)); g.size < int64(len(magic)) { // made just before a crash
		n, err := file.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.HasPrefix(magic, string(head[:n])) {
			if _, err := file.WriteAt([]byte(magic), 0); err != nil {
				return err
			}
			g.size = int64(len(magic))
		}
	}
	if err := s.checkHead(g); err != nil {
		return err
	}
	var x indexer
	size := int64(len(magic))
	take := func(r Record, at int64) bool {
		x.add(r.Offset, r.Arrived.UnixMilli(), at)
		g.note(r.Arrived.UnixMilli())
		s.end, size = r.Offset+1, at+r.size()
		return true
	}
	at, err := walk(file, before(nil, g.first, nil), g.size, take)
	for errors.Is(err, errFrame) {
		next, durable, failed := s.behind(file, at, g.size)
		if failed != nil {
			return failed
		}
		if !durable {
			break
		}
		s.tell(g.first, at, next)
		at, err = walk(file, next, g.size, take)
	}
	if err != nil && !errors.Is(err, errFrame) {
		return err
	}
	g.marks, s.last = x.marks, g.ended
	if size < g.size {
		s.log.Warn("the end of a shard was not written whole and is cut off: no client was told that it was", "file", file.Name(), "bytes", g.size-size)
		if err := file.Truncate(size); err != nil {
			return err
		}
		g.size = size
	}
	if g.old && g.empty() {
		if _, err := file.WriteAt([]byte(magic), 0); err != nil {
			return err
		}
		g.old = false
	}
	return file.Sync() // what can be read from now on is durable
}

// behind returns where the last segment goes on behind a place where there is no
// whole record, if that place was durable once: a later write says so, which began
// when it was. What else is whole there is of the write that a crash cut short, of
// whose pages any may have reached the disk. (Pebble tells by the same, with how far
// its log was durable in each chunk.)
func (s *Shard) behind(file *os.File, at mark, size int64) (next mark, durable bool, err error) {
	next, found, err := resync(file, at, size)
	for from := next; found && err == nil; {
		from, err = walk(file, from, size, func(r Record, _ int64) bool {
			durable = r.begins
			return !durable
		})
		if durable || !errors.Is(err, errFrame) {
			break
		}
		from, found, err = resync(file, from, size)
	}
	return next, durable, err
}

// tell says in the log, once, that records are damaged. Where the segment has none
// behind them, next has no offset.
func (s *Shard) tell(first uint64, at, next mark) {
	s.telling.Lock()
	defer s.telling.Unlock()
	d := damage{first, at.at}
	if s.told[d] {
		return
	}
	s.told[d] = true
	s.log.Error("records of a shard are damaged and left out: they were durable, so the disk or somebody else changed the file; the records behind them are kept",
		"file", segmentPath(s.dir, first), "at", at.at, "bytes", next.at-at.at, "offset", at.offset, "next", next.offset)
}

// note takes the arrival of a record that is appended.
func (g *segment) note(arrived int64) {
	if g.began == 0 {
		g.began = arrived
	}
	g.ended = arrived
}

// makeSegment makes the segment that begins with an offset.
func (s *Shard) makeSegment(first uint64) (*segment, *os.File, error) {
	file, err := os.OpenFile(segmentPath(s.dir, first), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	_, err = file.Write([]byte(magic))
	if err = errors.Join(err, file.Sync(), fsync.Dir(s.dir)); err != nil {
		return nil, nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return &segment{first: first, size: int64(len(magic))}, file, nil
}

// Append appends records and returns when they are durable, with the offset of the
// first; the others have those after it. A record has at most MaxData bytes of
// data and MaxKey of key. After an error records may or may not be there, as with
// any log.
func (s *Shard) Append(records []Record) (first uint64, err error) {
	for i := range records {
		if len(records[i].Data) > MaxData || len(records[i].Key) > MaxKey {
			return 0, errors.New("the record is too large")
		}
	}
	s.mu.Lock()
	b := s.waiting
	leads := b == nil
	if leads {
		b = &batch{done: make(chan struct{})}
		s.waiting = b
	}
	at := len(b.records)
	b.records = append(b.records, records...)
	s.mu.Unlock()
	if leads { // for those who come until the write before is done
		s.writing.Lock()
		s.mu.Lock()
		s.waiting = nil
		s.mu.Unlock()
		b.first, b.err = s.write(b.records)
		s.writing.Unlock()
		close(b.done)
	}
	<-b.done
	return b.first + uint64(at), b.err
}

// write writes records and syncs, with s.writing held.
func (s *Shard) write(records []Record) (uint64, error) {
	s.mu.Lock()
	closed, active, end, arrived := s.closed, s.segments[len(s.segments)-1], s.end, max(s.now().UnixMilli(), s.last)
	s.mu.Unlock()
	switch {
	case closed:
		return 0, ErrClosed
	case s.broken != nil:
		return 0, s.broken
	}
	if active.size >= segmentSize || active.old || !active.empty() && arrived-active.began >= segmentAge.Milliseconds() {
		if err := s.rotate(); err != nil {
			return 0, err
		}
		active = s.segments[len(s.segments)-1]
	}
	x := indexer{active.marks}
	b := s.buffer[:0]
	for i := range records {
		r := &records[i]
		x.add(end+uint64(i), arrived, active.size+int64(len(b)))
		b = appendFrame(b, end+uint64(i), arrived, i == 0, r.Key, r.Data)
	}
	if s.buffer = b; cap(b) > keptBuffer {
		s.buffer = nil
	}
	if _, err := s.file.WriteAt(b, active.size); err != nil {
		if undo := s.file.Truncate(active.size); undo != nil {
			s.broken = undo
		}
		return 0, err
	}
	if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
		// What the kernel still holds of the file cannot be known any more: the
		// next start reads what there is.
		s.broken = fmt.Errorf("sync %s: %w", s.file.Name(), err)
		return 0, s.broken
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	active.size += int64(len(b))
	active.marks = x.marks
	active.note(arrived)
	s.end, s.last = end+uint64(len(records)), arrived
	s.tellWaiters()
	return end, nil
}

// rotate begins a new segment, with s.writing held.
func (s *Shard) rotate() error {
	g, file, err := s.makeSegment(s.end)
	if err != nil {
		return err
	}
	if err := s.file.Close(); err != nil { // all of it was synced
		s.log.Warn("a segment was not closed", "error", err)
	}
	s.file = file
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = append(slices.Clip(s.segments), g)
	return nil
}

// Trim removes segments whose records all arrived before a time.
func (s *Shard) Trim(t time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	closed, active := s.closed, s.segments[len(s.segments)-1]
	s.mu.Unlock()
	if closed {
		return nil
	}
	old := func(g *segment) bool { return !g.empty() && g.ended < t.UnixMilli() }
	if old(active) {
		if err := s.rotate(); err != nil { // the new one keeps the offset
			return err
		}
	}
	s.mu.Lock()
	n := 0
	for n < len(s.segments)-1 && old(s.segments[n]) {
		n++
	}
	gone := s.segments[:n]
	s.segments = slices.Clone(s.segments[n:])
	s.mu.Unlock()
	var errs []error
	for _, g := range gone {
		if err := os.Remove(segmentPath(s.dir, g.first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// close waits for the write under way. Readers find nothing any more.
func (s *Shard) close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	s.closed = true
	s.tellWaiters()
	s.mu.Unlock()
	return s.file.Close()
}
