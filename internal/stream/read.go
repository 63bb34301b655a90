package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"time"
)

// End returns the offset that the next record will have.
func (s *Shard) End() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// After returns a channel that is closed when there is something at an offset: a
// record, or the end of the shard.
func (s *Shard) After(offset uint64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.end > offset {
		there := make(chan struct{})
		close(there)
		return there
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// tellWaiters tells those who wait for records, with s.mu held.
func (s *Shard) tellWaiters() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Limits bound what Read returns.
type Limits struct {
	Records int
	Bytes   int // of keys and data; the first record may be larger
	// Since leaves out records that arrived before it.
	Since time.Time
}

// Read returns records from an offset on, in their order, as far as they are
// durable, and the offset at which to go on. Records that were trimmed are left
// out.
func (s *Shard) Read(from uint64, l Limits) (records []Record, next uint64, err error) {
	bytes, full := 0, false
	for next = from; !full && len(records) < l.Records; {
		g, limit, err := s.choose(func(g *segment) bool { return g.first <= next })
		if err != nil {
			return nil, from, err
		}
		if next = max(next, g.first); next >= limit {
			break // the end of the log
		}
		at := before(g.marks, g.first, func(m mark) bool { return m.offset <= next })
		err = s.walk(g, at, func(r Record, _ int64) bool {
			if r.Offset < next || r.Arrived.Before(l.Since) {
				return true
			}
			bytes += len(r.Key) + len(r.Data)
			if full = len(records) == l.Records || bytes > l.Bytes && len(records) > 0; full {
				return false
			}
			records, next = append(records, r), r.Offset+1
			return true
		})
		if err != nil && !s.trimmed(g.first, err) {
			return nil, from, s.orClosed(err)
		}
		if !full {
			next = max(next, limit)
		}
	}
	return records, next, nil
}

// choose returns a copy of the last segment for which less holds, which it does for
// the first ones, or of the first one; and the offset after its last record. The
// copy has an index.
func (s *Shard) choose(less func(*segment) bool) (segment, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return segment{}, 0, ErrClosed
	}
	n := max(sort.Search(len(s.segments), func(i int) bool { return !less(s.segments[i]) })-1, 0)
	g, limit := s.segments[n], s.end
	if n < len(s.segments)-1 {
		limit = s.segments[n+1].first
	}
	if g.marks == nil && !g.empty() {
		// Rare, and of one file: those who append wait for it.
		if err := s.index(g); err != nil {
			return segment{}, 0, err
		}
	}
	return *g, limit, nil
}

// walk calls f with the records of a segment from a mark on until f returns false.
// Where records are damaged it says so and goes on behind them.
func (s *Shard) walk(g segment, from mark, f func(r Record, at int64) bool) error {
	file, err := os.Open(segmentPath(s.dir, g.first))
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		at, err := walk(file, from, g.size, f)
		if !errors.Is(err, errFrame) {
			return err
		}
		next, found, err := resync(file, at, g.size)
		if err != nil {
			return err
		}
		if !found {
			s.tell(g.first, at, mark{at: g.size})
			return nil
		}
		s.tell(g.first, at, next)
		from = next
	}
}

// trimmed tells whether an error comes of a segment that was trimmed while it was
// read.
func (s *Shard) trimmed(first uint64, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(err, fs.ErrNotExist) && s.segments[0].first > first
}

// orClosed returns ErrClosed for an error of a shard that was closed, and maybe removed,
// while it was read.
func (s *Shard) orClosed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return err
}

// index makes the index of a segment, with s.mu held or at the start.
func (s *Shard) index(g *segment) error {
	var x indexer
	err := s.walk(*g, before(nil, g.first, nil), func(r Record, at int64) bool {
		x.add(r.Offset, r.Arrived.UnixMilli(), at)
		g.note(r.Arrived.UnixMilli())
		return true
	})
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if g.marks = x.marks; g.marks == nil {
		g.marks = []mark{} // all is damaged
	}
	return nil
}

// Find returns the offset of the first record that arrived at a time or later, or
// End where there is none.
func (s *Shard) Find(t time.Time) (uint64, error) {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	for {
		g, limit, err := s.choose(func(g *segment) bool { return !g.empty() && g.began < ms })
		if err != nil {
			return 0, err
		}
		found := limit
		at := before(g.marks, g.first, func(m mark) bool { return m.arrived < ms })
		err = s.walk(g, at, func(r Record, _ int64) bool {
			if r.Arrived.UnixMilli() >= ms {
				found = r.Offset
			}
			return found == limit
		})
		if err == nil {
			return found, nil
		}
		if !s.trimmed(g.first, err) {
			return 0, s.orClosed(err)
		}
	}
}
