package logstore

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// ReadOptions says which events of a group are read, and in which order.
type ReadOptions struct {
	// Streams tells which streams are read; nil means all.
	Streams func(name string) bool
	// Start and End bound the time of events: Start <= time < End. The zero
	// value means no bound.
	Start, End time.Time
	// After, where set, is the position of an event after which (in the order
	// of reading) reading begins.
	After *Position
	// Backward reads from the latest event to the earliest.
	Backward bool
	// Match, where set, tells which messages are wanted. It must not keep the
	// message.
	Match func(message string) bool
	// ScanLimit bounds the message bytes that are looked at, 0 being no bound.
	// Where it is reached, reading ends with ErrScanLimit and a record that
	// holds only the position to go on after.
	ScanLimit int64
}

// Read returns the events of a group in the order of Position. A failure ends
// the sequence; ErrStreamNotFound and such are the caller's to find out before
// (see Stream). What Append and Put have accepted is seen.
func (s *Store) Read(ctx context.Context, group string, opts ReadOptions) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		g, err := s.group(group)
		if err != nil {
			yield(Record{}, err)
			return
		}
		g.flushPending()
		r := g.newReader(opts)
		defer r.close()
		if err := r.run(ctx, yield); err != nil {
			yield(Record{}, err)
		}
	}
}

// reader merges the blocks of a group's segments in the order of Position. It
// keeps one heap of what is still to come: whole segments, whole blocks, and
// blocks that are open, each by the position of its first event in the order of
// reading. A segment's index and a block are read only when they are at the top.
type reader struct {
	g        *group
	opts     ReadOptions
	min, max Position          // both inclusive
	wanted   map[uint32]string // by id; nil means all
	segments []*openSegment
	heap     []*source
}

// openSegment is a segment in use by a reader.
type openSegment struct {
	seg    *segment
	blocks []blockMeta // of a log, as of the begin of the read
	file   *os.File
	left   int // blocks still to come
}

// source is an item of the reader's heap.
type source struct {
	key     Position
	segment *openSegment
	meta    *blockMeta // nil for a whole segment
	entries []entry    // of an open block, in the order of reading
	names   []string   // of meta.streams
}

// stage orders sources of equal key: what may hold that key is opened first.
func (s *source) stage() int {
	switch {
	case s.meta == nil:
		return 0
	case s.entries == nil:
		return 1
	}
	return 2
}

func (r *reader) Len() int { return len(r.heap) }
func (r *reader) Less(i, j int) bool {
	a, b := r.heap[i], r.heap[j]
	c := a.key.Compare(b.key)
	if r.opts.Backward {
		c = -c
	}
	return cmp.Or(c, a.stage()-b.stage()) < 0
}
func (r *reader) Swap(i, j int) { r.heap[i], r.heap[j] = r.heap[j], r.heap[i] }
func (r *reader) Push(x any)    { r.heap = append(r.heap, x.(*source)) }
func (r *reader) Pop() any {
	last := r.heap[len(r.heap)-1]
	r.heap = r.heap[:len(r.heap)-1]
	return last
}

func (g *group) newReader(opts ReadOptions) *reader {
	r := &reader{g: g, opts: opts, max: lastPosition}
	if !opts.Start.IsZero() {
		r.min.Time = max(0, opts.Start.UnixMilli())
	}
	if !opts.End.IsZero() {
		r.max = Position{Time: opts.End.UnixMilli() - 1, Seq: math.MaxUint64}
	}
	if p := opts.After; p != nil {
		if opts.Backward {
			r.max = minPosition(r.max, p.previous())
		} else {
			r.min = maxPosition(r.min, p.next())
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r.min.Time = max(r.min.Time, g.cutoff(g.store.now()))
	if opts.Streams != nil {
		r.wanted = make(map[uint32]string)
		first, last := int64(math.MaxInt64), int64(math.MinInt64)
		for name, st := range g.streams {
			if opts.Streams(name) {
				r.wanted[st.id] = name
				if st.stat.bytes > 0 {
					first, last = min(first, st.stat.first), max(last, st.stat.last)
				}
			}
		}
		r.min.Time = max(r.min.Time, first)
		r.max = minPosition(r.max, Position{Time: last, Seq: math.MaxUint64})
	}
	r.take(g.segments)
	return r
}

// newReaderOf returns a reader of certain segments, to which the caller holds
// references.
func (g *group) newReaderOf(opts ReadOptions, segments []*segment) *reader {
	r := &reader{g: g, opts: opts, max: lastPosition}
	if !opts.Start.IsZero() {
		r.min.Time = opts.Start.UnixMilli()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r.take(segments)
	return r
}

// take puts segments on the heap; the group's mu is held.
func (r *reader) take(segments []*segment) {
	for _, seg := range segments {
		if seg.count == 0 || seg.max < r.min.Time || seg.min > r.max.Time {
			continue
		}
		seg.refs++
		o := &openSegment{seg: seg, blocks: seg.blocks}
		r.segments = append(r.segments, o)
		key := Position{Time: seg.min}
		if r.opts.Backward {
			key = Position{Time: seg.max, Seq: math.MaxUint64}
		}
		r.heap = append(r.heap, &source{key: key, segment: o})
	}
	heap.Init(r)
}

var lastPosition = Position{Time: math.MaxInt64, Seq: math.MaxUint64}

func (p Position) next() Position {
	if p.Seq == math.MaxUint64 {
		return Position{Time: p.Time + 1}
	}
	return Position{Time: p.Time, Seq: p.Seq + 1}
}

func (p Position) previous() Position {
	if p.Seq == 0 {
		return Position{Time: p.Time - 1, Seq: math.MaxUint64}
	}
	return Position{Time: p.Time, Seq: p.Seq - 1}
}

func minPosition(a, b Position) Position {
	if a.Compare(b) < 0 {
		return a
	}
	return b
}

func maxPosition(a, b Position) Position {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}

func (r *reader) close() {
	for _, o := range r.segments {
		if o.file != nil {
			o.file.Close()
		}
		r.g.release(o.seg)
	}
}

// run yields records until the end or until yield wants no more.
func (r *reader) run(ctx context.Context, yield func(Record, error) bool) error {
	var scanned int64
	return r.each(ctx, func(s *source, e *entry) (more bool, err error) {
		scanned += e.size()
		if r.opts.Match == nil || r.opts.Match(e.message) {
			if !yield(r.record(s, e), nil) {
				return false, nil
			}
		}
		if r.opts.ScanLimit > 0 && scanned >= r.opts.ScanLimit {
			yield(Record{Position: e.key}, ErrScanLimit)
			return false, nil
		}
		return true, nil
	})
}

// each calls visit for every entry in order until it wants no more or fails.
func (r *reader) each(ctx context.Context, visit func(*source, *entry) (more bool, err error)) error {
	for len(r.heap) > 0 {
		top := r.heap[0]
		if top.stage() < 2 {
			if err := ctx.Err(); err != nil {
				return err
			}
			heap.Pop(r)
			if err := r.open(top); err != nil {
				return err
			}
			continue
		}
		more, err := visit(top, &top.entries[0])
		if err != nil || !more {
			return err
		}
		r.advance(top)
	}
	return nil
}

func (r *reader) record(s *source, e *entry) Record {
	i, _ := s.meta.find(e.stream)
	return Record{
		Event: Event{
			Time:     fromMillis(e.key.Time),
			Ingested: fromMillis(e.ingested),
			// The block's messages share one allocation: one of them must not
			// keep all of it.
			Message: strings.Clone(e.message),
		},
		Stream:   s.names[i],
		Position: e.key,
	}
}

// advance moves the open block at the top of the heap to its next event.
func (r *reader) advance(s *source) {
	s.entries = s.entries[1:]
	if len(s.entries) == 0 {
		heap.Pop(r)
		return
	}
	s.key = s.entries[0].key
	if len(r.heap) > 1 {
		heap.Fix(r, 0)
	}
}

// open replaces a segment by its blocks, or a block by its events.
func (r *reader) open(s *source) error {
	if s.meta != nil {
		err := r.openBlock(s)
		if s.segment.left--; s.segment.left == 0 {
			s.segment.file.Close()
			s.segment.file = nil
		}
		return err
	}
	o := s.segment
	var err error
	if o.file, err = os.Open(o.seg.path); err != nil {
		if errors.Is(err, os.ErrNotExist) { // the group was deleted meanwhile
			return ErrGroupNotFound
		}
		return fmt.Errorf("logstore: %w", err)
	}
	blocks := o.blocks
	if o.seg.sealed {
		if blocks, err = readFooter(o.file); err != nil {
			return fmt.Errorf("logstore: %s: %w", o.seg.path, err)
		}
	}
	for i := range blocks {
		m := &blocks[i]
		if m.max.Compare(r.min) < 0 || m.min.Compare(r.max) > 0 || !r.wantsAny(m) {
			continue
		}
		key := m.min
		if r.opts.Backward {
			key = m.max
		}
		heap.Push(r, &source{key: key, segment: o, meta: m})
		o.left++
	}
	if o.left == 0 {
		err = o.file.Close()
		o.file = nil
	}
	return err
}

func (r *reader) wantsAny(m *blockMeta) bool {
	if r.wanted == nil {
		return true
	}
	return slices.ContainsFunc(m.streams, func(s streamStat) bool {
		_, ok := r.wanted[s.id]
		return ok
	})
}

// openBlock decodes a block and pushes it back onto the heap. A damaged block
// is logged and passed over: one bad sector does not hide everything else.
func (r *reader) openBlock(s *source) error {
	m := s.meta
	keep := make([]bool, len(m.streams))
	s.names = make([]string, len(m.streams))
	r.g.mu.RLock()
	for i := range m.streams {
		// A stream that is gone, or whose record a crash took, has no name.
		if st := r.g.byID[m.streams[i].id]; st != nil {
			_, ok := r.wanted[st.id]
			keep[i], s.names[i] = ok || r.wanted == nil, st.name
		}
	}
	r.g.mu.RUnlock()
	frame, err := readBlock(s.segment.file, m)
	if err == nil {
		_, s.entries, err = r.g.store.codecs.decodeBlock(frame, keep)
	}
	if err != nil {
		r.g.store.log.Error("log block is damaged, its events are not readable",
			"file", s.segment.seg.path, "offset", m.offset, "error", err)
		return nil
	}
	if r.opts.Backward {
		slices.Reverse(s.entries)
	}
	// Cut what is before the begin and after the end of the range.
	from := 0
	for from < len(s.entries) && !r.inRange(&s.entries[from]) {
		from++
	}
	to := len(s.entries)
	for to > from && !r.inRange(&s.entries[to-1]) {
		to--
	}
	s.entries = s.entries[from:to]
	if len(s.entries) > 0 {
		s.key = s.entries[0].key
		heap.Push(r, s)
	}
	return nil
}

func (r *reader) inRange(e *entry) bool {
	return e.key.Compare(r.min) >= 0 && e.key.Compare(r.max) <= 0
}
