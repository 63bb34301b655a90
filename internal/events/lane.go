package events

import (
	"container/heap"
	"time"
)

// Bounds of how many events of one function run at once. A lane begins with
// initialParallel, runs one more after each success and, when it is refused,
// only as many as were let in.
const (
	initialParallel = 10
	maxParallel     = 100
)

// probePause is the wait of a whole lane that was refused while none of its
// events ran: a long backlog of a function without concurrency is not read
// over and over.
const probePause = time.Second

// pending is an event in memory.
type pending struct {
	id       uint64 // in the queue
	due      int64  // Unix time in nanoseconds
	refusals uint8  // in a row, by throttles and system errors
	status   uint16 // HTTP status of the last refusal
}

// lane holds the events of one function. The Queue's mutex guards it.
type lane struct {
	events   pendingHeap
	running  int
	parallel int
	paused   time.Time     // nothing starts before
	wake     chan struct{} // holds a token while there is something new
}

// laneKey names a function, whatever the qualifier.
type laneKey struct{ region, function string }

func (t Target) lane() laneKey { return laneKey{t.Region, t.Function} }

func newLane() *lane { return &lane{parallel: initialParallel, wake: make(chan struct{}, 1)} }

func (l *lane) push(p pending) {
	heap.Push(&l.events, p)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pop takes the next event that may start now. Otherwise it returns the time
// to wait, which is negative where only a push or the end of an event helps.
func (l *lane) pop(now time.Time) (p pending, wait time.Duration, ok bool) {
	if len(l.events) == 0 || l.running >= l.parallel {
		return pending{}, -1, false
	}
	wait = max(time.Unix(0, l.events[0].due).Sub(now), l.paused.Sub(now))
	if wait > 0 {
		return pending{}, wait, false
	}
	l.running++
	return heap.Pop(&l.events).(pending), 0, true
}

// ran takes note that an event has been run; room is the function's reserved
// concurrency, or negative.
func (l *lane) ran(room int) {
	l.parallel = min(l.parallel+1, maxParallel)
	if room >= 0 {
		l.parallel = max(1, min(l.parallel, room))
	}
	l.paused = time.Time{}
}

// refused takes note that an event was not let in beside those that run.
func (l *lane) refused(now time.Time) {
	l.parallel = max(1, min(l.parallel, l.running))
	if l.running == 0 {
		l.paused = now.Add(probePause)
	}
}

// pendingHeap orders events by the time when they are due, then by their age.
type pendingHeap []pending

func (h pendingHeap) Len() int { return len(h) }
func (h pendingHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].id < h[j].id
}
func (h pendingHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *pendingHeap) Push(x any)   { *h = append(*h, x.(pending)) }
func (h *pendingHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}
