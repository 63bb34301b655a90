package logstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/fsync"
)

const (
	// maxLogBlocks bounds the blocks of a log, whose index is in memory.
	maxLogBlocks = 1024
	// queueOverhead is what a queued event takes beyond its message.
	queueOverhead = 64
	// complainEvery bounds how often a failing disk is logged, per group.
	complainEvery = time.Minute
	// queueWait is how long Append waits for room in the queue, at most and
	// not again before the queue was written.
	queueWait = 100 * time.Millisecond
)

// batch collects the events of a group until they are written together.
type batch struct {
	entries []pendingEntry
	queued  int64 // bytes that count for the queue limits

	// The group's io guards the rest.
	written bool // the file has it, or err says why not
	durable bool // synced, too
	err     error
}

type pendingEntry struct {
	entry
	put    bool       // by Put, whose caller is told of a failure
	marker *dropCount // of a line that tells of dropped events
}

// finish ends a batch and lets go of its events.
func (b *batch) finish(err error) { b.written, b.err, b.entries = true, err, nil }

// dropCount counts the events of a stream that a marker line has yet to tell of.
type dropCount struct {
	events int
	bytes  int64
	why    string
	time   int64 // of the latest event dropped
}

// Append takes log events for a stream; group and stream are made where they
// are missing. It does not wait for the disk: the events are readable at once,
// survive kill -9 after at most 200 ms and a power failure after at most a
// second.
//
// If the queue is full, because the function logs faster than the disk takes
// it, Append waits for the next write, for at most 100 ms, which slows that
// function down. If nothing was written in that time, the events are dropped, ErrQueueFull is returned, and a
// line that says how many were dropped appears in the stream in their place:
// the caller need not do anything about it. Until the queue has been written,
// further events are dropped without waiting.
func (s *Store) Append(group, stream string, events []Event) error {
	now := s.now()
	mayWait := true
	for {
		g, err := s.ensureGroup(group)
		if err != nil {
			return err
		}
		room := s.room.next()
		n, err := g.append(stream, events, now, mayWait)
		s.subs.publish(group, stream, events[:n], now)
		events = events[n:]
		if errors.Is(err, ErrGroupNotFound) { // deleted in between: make it again
			continue
		}
		if !errors.Is(err, errWait) {
			return err
		}
		s.kick(s.full)
		mayWait = s.waitFor(room)
	}
}

// waitFor waits for room in the queue and reports whether there is some.
func (s *Store) waitFor(room <-chan struct{}) bool {
	timer := time.NewTimer(queueWait)
	defer timer.Stop()
	select {
	case <-room:
		return true
	case <-timer.C:
	case <-s.ctx.Done():
	}
	return false
}

// append queues as many events as there is room for and returns their number.
// The others are left with errWait if the caller may wait, or else dropped with
// ErrQueueFull.
func (g *group) append(name string, events []Event, now int64, mayWait bool) (int, error) {
	s := g.store
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone != nil {
		return 0, g.gone
	}
	st := g.streams[name]
	if st == nil {
		n := s.nstr.Load()
		if limit := int64(s.opts.MaxStreams); n >= limit {
			s.kick(s.maintain)
			if n >= limit+limit/8 {
				s.drops.Add(int64(len(events)))
				return 0, ErrTooManyStreams
			}
		}
		st = g.addStream(name, now, true)
		g.newStreams = append(g.newStreams, st)
	}
	if len(g.pending.entries) == 0 {
		defer s.markDirty(g)
	}
	for i := range events {
		size := int64(min(len(events[i].Message), MaxMessage)) + queueOverhead
		if g.pending.queued+size > s.opts.QueueBytes/4 || s.queued.Load()+size > s.opts.QueueBytes {
			if mayWait && len(g.dropped) == 0 {
				return i, errWait
			}
			g.drop(st, countDropped(events[i:], "they came faster than the disk took them"))
			return i, ErrQueueFull
		}
		s.queued.Add(size)
		g.pending.queued += size
		g.enqueue(st, &events[i], now, false)
	}
	if g.pending.queued > s.opts.QueueBytes/8 {
		s.kick(s.full)
	}
	return len(events), nil
}

// enqueue adds an event to the pending batch; mu is held.
func (g *group) enqueue(st *stream, e *Event, now int64, put bool) {
	message := e.Message
	if len(message) > MaxMessage {
		message = strings.ToValidUTF8(message[:MaxMessage], "")
	}
	g.pending.entries = append(g.pending.entries, pendingEntry{
		entry: entry{key: Position{Time: max(0, e.Time.UnixMilli()), Seq: g.nextSeq}, ingested: now, stream: st.id, message: message},
		put:   put,
	})
	g.nextSeq++
}

// add counts more dropped events.
func (c *dropCount) add(o dropCount) {
	c.events += o.events
	c.bytes += o.bytes
	c.time = max(c.time, o.time)
	c.why = o.why
}

// drop counts events that a marker will tell of; mu is held.
func (g *group) drop(st *stream, o dropCount) {
	if c := g.dropped[st]; c != nil {
		c.add(o)
	} else {
		g.dropped[st] = &o
	}
	g.store.drops.Add(int64(o.events))
}

func countDropped(events []Event, why string) dropCount {
	c := dropCount{why: why}
	for i := range events {
		c.add(dropCount{events: 1, bytes: int64(len(events[i].Message)), time: events[i].Time.UnixMilli(), why: why})
	}
	return c
}

// enqueueMarkers adds the lines that tell of dropped events; mu is held.
func (g *group) enqueueMarkers(now int64) {
	for st, c := range g.dropped {
		g.enqueue(st, &Event{
			Time:    time.UnixMilli(c.time),
			Message: fmt.Sprintf("[lapwing] dropped %d lines (%d bytes) here: %s", c.events, c.bytes, c.why),
		}, now, false)
		g.pending.entries[len(g.pending.entries)-1].marker = c
	}
	clear(g.dropped)
}

// Put stores events in an existing stream and returns when they are durable.
// Concurrent Puts share their syncs.
func (s *Store) Put(ctx context.Context, group, stream string, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	var size int64
	for i := range events {
		if len(events[i].Message) > MaxMessage {
			return ErrMessageTooLong
		}
		size += int64(len(events[i].Message)) + queueOverhead
	}
	size = min(size, putBytes)
	if err := s.puts.Acquire(ctx, size); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	defer s.puts.Release(size)
	g, err := s.group(group)
	if err != nil {
		return err
	}
	now := s.now()
	g.mu.Lock()
	if g.gone != nil {
		defer g.mu.Unlock()
		return g.gone
	}
	st := g.streams[stream]
	if st == nil {
		g.mu.Unlock()
		return ErrStreamNotFound
	}
	for i := range events {
		g.enqueue(st, &events[i], now, true)
	}
	mine := g.pending
	g.mu.Unlock()
	if err := g.commit(mine); err != nil {
		return err
	}
	s.keepBudget()
	s.subs.publish(group, stream, events, now)
	return nil
}

// commit returns when the batch is durable.
func (g *group) commit(b *batch) error {
	g.io.Lock()
	defer g.io.Unlock()
	if !b.written { // then it is the pending one
		g.flush() // its error is b's
	}
	if b.err != nil || b.durable {
		return b.err
	}
	return g.sync()
}

// Sync returns when everything that was appended before is durable, or counted
// as dropped; the error is that of the first group that could not be written.
func (s *Store) Sync() error {
	s.mu.RLock()
	groups := slices.Collect(maps.Values(s.groups))
	s.mu.RUnlock()
	var first error
	for _, g := range groups {
		g.io.Lock()
		err := g.flush()
		if err == nil {
			err = g.sync()
		}
		g.io.Unlock()
		if first == nil && !errors.Is(err, ErrGroupNotFound) { // deleted in between
			first = err
		}
	}
	return first
}

// flushPending makes what was appended readable. Failures are counted and
// logged by flush.
func (g *group) flushPending() {
	g.mu.RLock()
	idle := g.idle()
	g.mu.RUnlock()
	if idle {
		return
	}
	g.io.Lock()
	defer g.io.Unlock()
	if g.flush() == nil && !g.unsynced.IsZero() {
		g.store.markDirty(g)
	}
}

// flushAppended writes the pending batch, and syncs when it is time. It reports
// whether it wants to be called again.
func (g *group) flushAppended() (again bool) {
	g.io.Lock()
	defer g.io.Unlock()
	if err := g.flush(); err != nil {
		return !errors.Is(err, ErrGroupNotFound) && !errors.Is(err, ErrClosed)
	}
	if g.unsynced.IsZero() {
		return false
	}
	if time.Since(g.unsynced) < syncDelay {
		return true
	}
	if err := g.sync(); err != nil {
		g.complain("syncing logs", err)
		return true
	}
	return false
}

// flush writes the pending batch and ends it; io is held.
func (g *group) flush() error {
	now := g.store.now()
	g.mu.Lock()
	if g.gone != nil {
		defer g.mu.Unlock()
		g.store.queued.Add(-g.pending.queued)
		g.pending.finish(g.gone)
		g.pending = new(batch)
		return g.gone
	}
	g.enqueueMarkers(now)
	b, fresh := g.pending, g.newStreams
	if len(b.entries) == 0 && len(fresh) == 0 {
		g.mu.Unlock()
		return nil
	}
	g.pending, g.newStreams, g.writing = new(batch), nil, true
	g.mu.Unlock()

	err := g.write(b, fresh)
	g.mu.Lock()
	g.writing = false
	g.mu.Unlock()
	g.store.queued.Add(-b.queued)
	g.store.room.broadcast()
	if err != nil {
		g.complain("writing logs", err)
		g.giveUp(b.entries, fresh)
	}
	b.finish(err)
	return err
}

// giveUp counts the appended events of a batch that could not be written.
func (g *group) giveUp(entries []pendingEntry, fresh []*stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newStreams = append(fresh, g.newStreams...)
	for i := range entries {
		e := &entries[i]
		st := g.byID[e.stream]
		switch {
		case st == nil || e.put:
		case e.marker != nil:
			g.store.drops.Add(-int64(e.marker.events)) // they are counted already
			g.drop(st, *e.marker)
		default:
			g.drop(st, dropCount{events: 1, bytes: int64(len(e.message)), time: e.key.Time, why: "they could not be written"})
		}
	}
}

func (g *group) complain(what string, err error) {
	if now := time.Now(); now.Sub(g.lastComplaint) >= complainEvery {
		g.lastComplaint = now
		g.store.log.Error(what, "group", g.name, "error", err)
	}
}

// write appends a batch to the active log; io is held.
func (g *group) write(b *batch, fresh []*stream) error {
	if err := g.persist(); err != nil {
		return err
	}
	if len(fresh) > 0 {
		var records []byte
		for _, st := range fresh {
			records = appendStreamRecord(records, creationKind(st), st)
		}
		if err := g.record(records, false); err != nil {
			return fmt.Errorf("logstore: %w", err)
		}
	}
	if g.unsynced.IsZero() {
		g.unsynced = time.Now()
	}
	if len(b.entries) == 0 {
		return nil
	}
	if g.file == nil {
		if err := g.startLog(); err != nil {
			return err
		}
	}
	buf, metas := g.store.codecs.encodeBatch(b)
	g.mu.RLock()
	seg := g.active
	at := seg.size
	g.mu.RUnlock()
	if _, err := g.file.Write(buf); err != nil {
		return fmt.Errorf("logstore: %w", errors.Join(err, g.undo(at)))
	}
	g.toSync = append(g.toSync, b)
	g.mu.Lock()
	for i := range metas {
		metas[i].offset += at
		seg.account(&metas[i])
	}
	seg.blocks = append(seg.blocks, metas...)
	seg.size += int64(len(buf))
	g.count(metas)
	isFull := seg.raw >= g.store.opts.SegmentBytes || len(seg.blocks) >= maxLogBlocks
	g.mu.Unlock()
	g.store.disk.Add(int64(len(buf)))
	if isFull {
		if err := g.rotate(); err != nil {
			g.complain("closing a log", err)
		}
		g.store.kick(g.store.maintain)
	}
	return nil
}

// encodeBatch makes blocks of a batch, with offsets from 0.
func (c *codecs) encodeBatch(b *batch) (buf []byte, metas []blockMeta) {
	entries := make([]entry, len(b.entries))
	for i := range b.entries {
		entries[i] = b.entries[i].entry
	}
	if !slices.IsSortedFunc(entries, compareEntries) {
		slices.SortFunc(entries, compareEntries)
	}
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && (n == 0 || size < blockTarget) {
			size += len(entries[n].message) + 8
			n++
		}
		offset := int64(len(buf))
		var m blockMeta
		buf, m = appendBlock(buf, entries[:n], c.fast())
		m.offset = offset
		metas = append(metas, m)
		entries = entries[n:]
	}
	return buf, metas
}

// startLog begins a new log; io is held.
func (g *group) startLog() error {
	g.mu.RLock()
	n := g.nextSeg
	g.mu.RUnlock()
	seg := &segment{from: n, to: n, path: filepath.Join(g.dir, segmentName(n, n, 0, logSuffix)), size: int64(len(fileHeader))}
	f, err := os.OpenFile(seg.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	if _, err := f.WriteString(fileHeader); err != nil {
		f.Close()
		return fmt.Errorf("logstore: %w", err)
	}
	if err := fsync.Dir(g.dir); err != nil {
		f.Close()
		return fmt.Errorf("logstore: %w", err)
	}
	g.mu.Lock()
	g.file, g.active = f, seg
	g.segments = append(g.segments, seg)
	g.nextSeg++
	g.mu.Unlock()
	g.store.disk.Add(seg.size)
	return nil
}

// undo takes back a write that failed half-way. If that fails too, the log is
// left as it is, torn, and the next write begins a new one.
func (g *group) undo(size int64) error {
	_, err := g.file.Seek(size, io.SeekStart)
	if err = errors.Join(err, g.file.Truncate(size)); err == nil {
		return nil
	}
	return errors.Join(err, g.endLog())
}

// sync makes everything written durable; io is held. After a failure nobody
// knows what the disk has: the batches concerned fail, and the next write
// begins a new log.
func (g *group) sync() error {
	if g.unsynced.IsZero() {
		return nil
	}
	var err error
	if g.catalogue != nil {
		err = g.catalogue.Sync()
	}
	if err == nil && g.file != nil {
		err = g.file.Sync()
	}
	for _, b := range g.toSync {
		b.durable, b.err = err == nil, err
	}
	clear(g.toSync)
	g.toSync, g.unsynced = g.toSync[:0], time.Time{}
	if err != nil {
		return fmt.Errorf("logstore: %w", errors.Join(err, g.endLog()))
	}
	return nil
}

// rotate ends the active log and makes it durable; io is held.
func (g *group) rotate() error {
	if g.file == nil {
		return nil
	}
	if err := g.sync(); err != nil {
		return err
	}
	return g.endLog()
}

// endLog closes the active log: the next write begins a new one; io is held.
func (g *group) endLog() error {
	if g.file == nil {
		return nil
	}
	err := g.file.Close()
	g.mu.Lock()
	g.file, g.active = nil, nil
	g.mu.Unlock()
	return err
}
