package worker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/pace"
	"lapwing.dev/lapwing/internal/snapshot"
)

// DefaultStandbys is Options.Standbys of a server.
const DefaultStandbys = 8

const (
	// quietStandbys is how many there are, of as many versions, where nothing has
	// started lately.
	quietStandbys = 2
	// standbyMB is what one takes of the host's memory, about; standbyPart is the part
	// of what is available that all of them may take, and standbyReserve, in bytes,
	// what others have before them.
	standbyMB, standbyPart, standbyReserve = 16, 50, 256 << 20
	// standbyCalm is how long nothing may have been starting before one is loaded;
	// after standbyPatience it is enough that a processor has nothing to start.
	// standbyLook is how often it is looked whether they may stay.
	standbyCalm, standbyPatience, standbyLook = 20 * time.Millisecond, 150 * time.Millisecond, 5 * time.Second
	// standbyRetry is when loading is tried again after it has failed, or a clone had
	// to go for lack of room.
	standbyRetry = time.Minute
)

// standbys keeps clones that are loaded before anybody wants them: sandboxes with the
// state of a snapshot, whose processes have not gone on yet. They have no identity:
// who takes one gives it credentials, entropy and a log stream as to any clone, and
// each is taken once. What is behind a start then is what the runtime itself does.
//
// There are as many of a version as its last burst of starts took, within bounds, one of
// each that has started lately, and a few of those that were the last to start
// where nothing has for long. They are made while nothing starts, and go when memory
// is short, or their snapshot is gone or has a successor.
type standbys struct {
	w      *Worker
	most   int
	memory func() (int64, error) // what the host has available
	wake   chan struct{}
	ctx    context.Context // ends with the worker
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	closed bool
	lines  map[string]*line // by the snapshot's id
	last   time.Time        // when something was taken or wanted
	since  time.Time        // when loading began to wait for calm; zero: it does not
}

// line is the standbys of one snapshot. standbys.mu guards it.
type line struct {
	id    string
	like  *environment // which they are for; it never has a sandbox itself
	ready []*instance
	rate  pace.Rate
	last  time.Time // when an environment was started from the snapshot
	retry time.Time // when loading may be tried again, after it failed or one had to go
}

func newStandbys(w *Worker) *standbys {
	s := &standbys{w: w, most: w.opts.Standbys, memory: HostMemory{}.Available, wake: make(chan struct{}, 1), done: make(chan struct{}), lines: make(map[string]*line)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if w.opts.Snapshots == nil || s.most == 0 {
		s.closed = true
		close(s.done)
		return s
	}
	go s.run()
	return s
}

// close gives up all of them.
func (s *standbys) close() {
	s.cancel()
	<-s.done
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.giveUp()
}

// hurry has the goroutine look again.
func (s *standbys) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns a clone of the snapshot for e, which owns it from then on, or nil.
func (s *standbys) take(e *environment, u *snapshot.Use) *instance {
	if s.most == 0 {
		return nil
	}
	s.mu.Lock()
	now := time.Now()
	s.last = now
	l := s.lines[e.snapshotID(s.w.snapshots.store)]
	var in *instance
	if l != nil {
		l.rate.Note(now)
		l.last = now
		for i, other := range slices.Backward(l.ready) {
			// Others are removed by the goroutine.
			if other.kept.Created.Equal(u.Created) && other.alive() {
				in = other
				l.ready = slices.Delete(l.ready, i, i+1)
				break
			}
		}
	}
	s.mu.Unlock()
	if in == nil {
		return nil
	}
	in.kept.Release()
	in.kept = u // which counts
	in.connect(e, host.Resume)
	return in
}

// want has clones loaded for environments like e, which was just started from its
// snapshot, or of which there is one now.
func (s *standbys) want(e *environment) {
	if e.initType == initProvisioned {
		return // those are started ahead themselves
	}
	like := &environment{w: s.w, v: e.v, initType: e.initType, runtime: e.runtime, id: e.id + "-s"}
	id := e.snapshotID(s.w.snapshots.store)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	s.last = now
	l := s.lines[id]
	if l == nil {
		l = &line{id: id, like: like}
		s.lines[id] = l
	}
	l.last = now
	s.mu.Unlock()
	s.hurry()
}

// giveUp removes all standbys, and tells whether there were any.
func (s *standbys) giveUp() bool {
	s.mu.Lock()
	var gone []*instance
	for _, l := range s.lines {
		gone = append(gone, l.ready...)
		l.ready = nil
		l.retry = time.Now().Add(standbyRetry)
	}
	s.mu.Unlock()
	s.remove(gone)
	return len(gone) > 0
}

// remove destroys what is in no line any more, side by side.
func (s *standbys) remove(gone []*instance) {
	var wg sync.WaitGroup
	for _, in := range gone {
		wg.Go(func() { s.w.destroy(in) })
	}
	wg.Wait()
}

// run keeps the lines filled until close.
func (s *standbys) run() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		timer.Reset(s.look())
	}
}

// look removes what is to go, or loads one clone, and returns when to look again.
func (s *standbys) look() time.Duration {
	s.mu.Lock()
	now := time.Now()
	gone := s.outdated()
	room := s.room()
	short := s.allot(now, room, &gone)
	calm := len(s.w.turns) == 0 && now.Sub(s.last) >= standbyCalm
	switch {
	case short == nil:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	}
	patient := now.Sub(s.since) < standbyPatience || len(s.w.turns) >= runtime.NumCPU()
	s.mu.Unlock()
	s.remove(gone)
	switch {
	case len(gone) > 0:
		return 0
	case short == nil:
		return standbyLook
	case !calm && patient:
		return standbyCalm
	}
	in, err := s.load(short)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
	if err != nil {
		short.retry = time.Now().Add(standbyRetry)
		if s.ctx.Err() == nil && !errors.Is(err, sandbox.ErrNoCapacity) && !errors.Is(err, snapshot.ErrNone) && !errors.Is(err, snapshot.ErrNotReady) {
			s.w.log.Warn("no clone was loaded ahead", "function", short.like.v.ARN(), "error", err)
		}
		return 0
	}
	short.ready = append(short.ready, in)
	return 0
}

// room returns how many standbys the host has memory for, within bounds. What those
// have taken that are there is theirs, or the last one would go for its own memory.
// s.mu is held.
func (s *standbys) room() int {
	available, err := s.memory()
	if err != nil {
		return 0
	}
	for _, l := range s.lines {
		available += int64(len(l.ready)) * standbyMB << 20
	}
	return min(s.most, int(max(0, available-standbyReserve)>>20)/standbyPart/standbyMB)
}

// outdated takes out those that have ended, or whose snapshot is not what environments
// start from any more. s.mu is held.
func (s *standbys) outdated() (gone []*instance) {
	for id, l := range s.lines {
		info, there := s.w.snapshots.store.Info(id)
		l.ready = slices.DeleteFunc(l.ready, func(in *instance) bool {
			old := !there || !in.kept.Created.Equal(info.Created) || !in.alive()
			if old {
				gone = append(gone, in)
			}
			return old
		})
		if !there {
			delete(s.lines, id)
		}
	}
	return gone
}

// allot takes out what is more than there should be, and returns a line that has too
// few. s.mu is held.
func (s *standbys) allot(now time.Time, room int, gone *[]*instance) (short *line) {
	lines := s.inOrder(now)
	wants, quiet := make([]int, len(lines)), quietStandbys
	for i, l := range lines {
		wants[i] = l.rate.Lately(now)
		if now.Sub(l.last) < pace.Span || wants[i] == 0 && quiet > 0 {
			wants[i] = max(wants[i], 1)
		}
		quiet -= min(wants[i], 1)
	}
	shares := make([]int, len(lines)) // one each, and one more each, and so on
	for given := true; given; {
		given = false
		for i := range lines {
			if shares[i] < wants[i] && room > 0 {
				shares[i]++
				room--
				given = true
			}
		}
	}
	for i, l := range lines {
		n := shares[i]
		if len(l.ready) > n && n < wants[i] {
			l.retry = now.Add(standbyRetry) // what is available goes up and down
		}
		for len(l.ready) > n {
			*gone = append(*gone, l.ready[0])
			l.ready = l.ready[1:]
		}
		if len(l.ready) < n && short == nil && now.After(l.retry) {
			short = l
		}
		if wants[i] == 0 {
			delete(s.lines, l.id)
		}
	}
	return short
}

// inOrder returns the lines by who goes first where there is not room for all. Those in
// use keep what they have, whoever of them was the last to start: to load one for each
// start in the place of another's would be loading in vain. So a version that starts
// but once takes nobody's place for a while, either. s.mu is held.
func (s *standbys) inOrder(now time.Time) []*line {
	const (
		bursting = iota
		burst
		used
		other
	)
	rank := func(l *line) int {
		has, often := len(l.ready) > 0, l.rate.Lately(now) > 1
		switch {
		case has && often:
			return bursting
		case often:
			return burst
		case has && now.Sub(l.last) < pace.Span:
			return used
		}
		return other
	}
	return slices.SortedFunc(maps.Values(s.lines), func(a, b *line) int {
		first := rank(a)
		if c := cmp.Compare(first, rank(b)); c != 0 {
			return c
		}
		if first == other {
			return b.last.Compare(a.last)
		}
		return strings.Compare(a.id, b.id)
	})
}

// load loads one clone.
func (s *standbys) load(l *line) (*instance, error) {
	u, err := s.w.snapshots.store.Ahead(l.id)
	if err != nil {
		return nil, err
	}
	// Meanwhile nobody looks after the others.
	ctx, cancel := context.WithTimeout(s.ctx, restoreLimit)
	defer cancel()
	in, err := s.w.place(ctx, l.like, func(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
		spec.Held = true
		return s.w.opts.Driver.Restore(ctx, spec, sandbox.Snapshot{State: u.State, Memory: u.Memory})
	})
	if err != nil {
		u.Release()
		return nil, err
	}
	in.kept = u
	return in, nil
}
