package logstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const day = 24 * 60 * 60 * 1000 // ms

// cutoff is the time before which events have expired; mu is held.
func (g *group) cutoff(now int64) int64 {
	if g.meta.RetentionDays == 0 {
		return 0
	}
	return now - int64(g.meta.RetentionDays)*day
}

// maintainOnce drops what has expired, keeps to the budget and seals logs.
func (s *Store) maintainOnce(ctx context.Context) {
	s.maintMu.Lock()
	defer s.maintMu.Unlock()
	groups := s.allGroups()
	for _, g := range groups {
		g.expire()
	}
	s.keepBudget()
	for _, g := range groups {
		for ctx.Err() == nil {
			more, err := g.compact(ctx)
			if err != nil && !errors.Is(err, errSegmentReplaced) && !errors.Is(err, ErrGroupNotFound) && !errors.Is(err, context.Canceled) {
				s.log.Error("sealing a log", "group", g.name, "error", err)
			}
			if err != nil || !more {
				break
			}
		}
		if err := g.recount(); err != nil {
			s.log.Error("counting log streams", "group", g.name, "error", err)
		}
	}
	s.keepStreams(groups)
}

// expire drops the segments of which every event has expired. A log that spans
// a quarter of the retention time is ended, so that its first events do not
// wait for its last.
func (g *group) expire() {
	now := g.store.now()
	g.mu.RLock()
	cutoff, active := g.cutoff(now), g.active
	end := active != nil && active.count > 0 && cutoff > 0 && now-active.min > (now-cutoff)/4
	g.mu.RUnlock()
	if cutoff == 0 {
		return
	}
	if end {
		g.io.Lock()
		if err := g.rotate(); err != nil {
			g.complain("closing a log", err)
		}
		g.io.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, seg := range slices.Clone(g.segments) {
		if seg != g.active && seg.max < cutoff {
			g.dropSegment(seg)
		}
	}
}

// dropSegment takes a segment out of the group; mu is held. The file goes with
// its last reader.
func (g *group) dropSegment(seg *segment) {
	g.segments = slices.DeleteFunc(g.segments, func(o *segment) bool { return o == seg })
	g.stale = true
	g.removeSegment(seg)
}

// removeSegment removes the file of a segment that is no longer listed as soon
// as nobody reads it; mu is held.
func (g *group) removeSegment(seg *segment) {
	if !seg.removed {
		seg.removed = true
		g.store.disk.Add(-seg.size)
	}
	if seg.refs == 0 {
		if err := os.Remove(seg.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			g.store.log.Error("removing a log segment", "file", seg.path, "error", err)
		}
	}
}

// hold returns the segments with a reference to each; mu is held.
func (g *group) hold() []*segment {
	for _, seg := range g.segments {
		seg.refs++
	}
	return slices.Clone(g.segments)
}

// release gives back a reference to a segment.
func (g *group) release(seg *segment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seg.refs--; seg.refs == 0 && seg.removed {
		g.removeSegment(seg)
	}
}

// diskUse is the size of a group's segments.
func (g *group) diskUse() (n int64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, seg := range g.segments {
		n += seg.size
	}
	return n
}

func (s *Store) allGroups() []*group {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.groups))
}

// keepBudget drops the oldest segments of the largest groups until the store
// fits its disk budget. Whoever writes calls it: the maintainer may be busy
// sealing while a function fills the disk.
func (s *Store) keepBudget() {
	if s.disk.Load() <= s.opts.DiskBudget {
		return
	}
	s.budgetMu.Lock()
	defer s.budgetMu.Unlock()
	groups := s.allGroups()
	for s.disk.Load() > s.opts.DiskBudget {
		var largest *group
		var size int64
		for _, g := range groups {
			if n := g.diskUse(); n > size {
				largest, size = g, n
			}
		}
		if largest == nil {
			return
		}
		events, err := largest.dropOldest()
		if err != nil {
			s.log.Error("dropping the oldest logs", "group", largest.name, "error", err)
			return
		}
		if events == 0 {
			return // it is being written anew; the next write tries again
		}
		s.log.Warn("disk budget for logs exceeded, oldest events dropped", "group", largest.name, "events", events)
	}
	s.kick(s.maintain) // to recount
}

// dropOldest drops the group's oldest segment, the active log if there is no
// other.
func (g *group) dropOldest() (events int, err error) {
	g.mu.RLock()
	only := len(g.segments) == 1 && g.active != nil
	g.mu.RUnlock()
	if only {
		g.io.Lock()
		err := g.rotate()
		g.io.Unlock()
		if err != nil {
			return 0, err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.segments) == 0 || g.segments[0] == g.active {
		return 0, nil
	}
	seg := g.segments[0]
	g.dropSegment(seg)
	return seg.count, nil
}

// keepStreams drops the oldest segments of the groups with the most streams, so
// that empty streams go, until the number of streams is within its limit.
func (s *Store) keepStreams(groups []*group) {
	limit := int64(s.opts.MaxStreams)
	if s.nstr.Load() <= limit {
		return
	}
	for s.nstr.Load() > limit-limit/16 {
		most := slices.MaxFunc(groups, func(a, b *group) int { return a.autoStreams() - b.autoStreams() })
		if most.autoStreams() == 0 {
			return
		}
		events, err := most.dropOldest()
		if err == nil {
			err = most.recount()
		}
		if err != nil || events == 0 {
			s.log.Error("too many log streams", "group", most.name, "error", err)
			return
		}
		s.log.Warn("too many log streams, oldest events dropped", "group", most.name, "events", events)
	}
}

func (g *group) autoStreams() (n int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, st := range g.streams {
		if st.auto {
			n++
		}
	}
	return n
}

// recount sums up the streams anew after segments were dropped, and removes
// streams that Append made and that have no event left.
func (g *group) recount() error {
	g.mu.RLock()
	stale := g.stale
	g.mu.RUnlock()
	if !stale {
		return nil
	}
	g.io.Lock()
	defer g.io.Unlock()
	if err := g.flush(); err != nil {
		if errors.Is(err, ErrGroupNotFound) || errors.Is(err, ErrClosed) {
			return nil
		}
		return err
	}
	g.mu.Lock()
	g.stale = false
	segments := g.hold()
	g.mu.Unlock()
	// io is held: nothing is written meanwhile.
	var metas []blockMeta
	var errs []error
	for _, seg := range segments {
		blocks, err := seg.index()
		metas = append(metas, blocks...)
		errs = append(errs, err)
		g.release(seg)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	g.mu.Lock()
	for _, st := range g.byID {
		st.stat = streamStat{}
	}
	g.count(metas)
	var empty []*stream
	for _, st := range g.byID {
		if st.auto && st.stat.bytes == 0 && !slices.Contains(g.newStreams, st) && !g.isPending(st) {
			empty = append(empty, st)
			g.forget(st)
		}
	}
	g.mu.Unlock()
	if len(empty) == 0 {
		return nil
	}
	var records []byte
	for _, st := range empty {
		records = appendStreamRecord(records, recordDeleted, st)
	}
	return g.record(records, false)
}

// isPending reports whether events of st wait to be written; mu is held.
func (g *group) isPending(st *stream) bool {
	_, dropped := g.dropped[st]
	return dropped || slices.ContainsFunc(g.pending.entries, func(e pendingEntry) bool { return e.stream == st.id })
}

// index reads the metas of the segment's blocks. A reference is held.
func (s *segment) index() ([]blockMeta, error) {
	if !s.sealed {
		return s.blocks, nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	defer f.Close()
	return readFooter(f)
}

// plan picks the segments to compact next: the oldest log that is no longer
// written, with the logs after it and the sealed segments before it that are
// not much larger, so that each event is rewritten a few times at most.
//
// Where there is none, a sealed segment most of which is of deleted streams is
// picked.
func (g *group) plan() []*segment {
	limit := g.store.opts.SegmentBytes
	segs := g.segments
	if n := len(segs); n > 0 && segs[n-1] == g.active {
		segs = segs[:n-1]
	}
	from := slices.IndexFunc(segs, func(s *segment) bool { return !s.sealed })
	if from < 0 {
		for _, seg := range segs {
			if seg.dead > seg.raw/2 {
				return []*segment{seg}
			}
		}
		return nil
	}
	raw, to := segs[from].raw, from+1
	for to < len(segs) && raw+segs[to].raw <= limit {
		raw += segs[to].raw
		to++
	}
	for from > 0 && segs[from-1].raw <= 2*raw && raw+segs[from-1].raw <= limit {
		from--
		raw += segs[from].raw
	}
	return slices.Clone(segs[from:to])
}

// compact seals the logs that are no longer written. It reports whether there
// was something to do.
func (g *group) compact(ctx context.Context) (bool, error) {
	g.mu.Lock()
	sources := g.plan()
	if g.gone != nil || len(sources) == 0 {
		g.mu.Unlock()
		return false, nil
	}
	first, last := sources[0], sources[len(sources)-1]
	var generation uint32
	for _, seg := range sources {
		seg.refs++
		generation = max(generation, seg.generation+1)
	}
	cutoff := g.cutoff(g.store.now())
	g.mu.Unlock()
	defer func() {
		for _, seg := range sources {
			g.release(seg)
		}
	}()
	target := &segment{from: first.from, to: last.to, generation: generation, sealed: true}
	target.path = filepath.Join(g.dir, segmentName(target.from, target.to, generation, sealedSuffix))
	if err := g.seal(ctx, sources, target, cutoff); err != nil {
		g.mu.RLock()
		defer g.mu.RUnlock()
		return false, cmp.Or(g.gone, err) // files of a deleted group vanish
	}
	return true, g.replace(sources, target)
}

// seal writes the events of sources to target.
func (g *group) seal(ctx context.Context, sources []*segment, target *segment, cutoff int64) error {
	w, err := newSealedWriter(target, g.store.codecs.good())
	if err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	defer w.abort()
	opts := ReadOptions{}
	if cutoff > 0 {
		opts.Start = time.UnixMilli(cutoff)
	}
	r := g.newReaderOf(opts, sources)
	defer r.close()
	err = r.each(ctx, func(_ *source, e *entry) (bool, error) { return true, w.add(*e) })
	if err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	return nil
}

// replace puts target in the place of sources, unless one of them was dropped
// meanwhile.
func (g *group) replace(sources []*segment, target *segment) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := slices.Index(g.segments, sources[0])
	if g.gone != nil || at < 0 || at+len(sources) > len(g.segments) || !slices.Equal(g.segments[at:at+len(sources)], sources) {
		return errors.Join(errSegmentReplaced, os.Remove(target.path))
	}
	g.store.disk.Add(target.size)
	g.segments = slices.Replace(g.segments, at, at+len(sources), target)
	before := 0
	for _, seg := range sources {
		before += seg.count
		g.removeSegment(seg)
	}
	g.stale = g.stale || target.count < before // some had expired
	return nil
}
