package host

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/quiet"
)

// An invocation reads the frames of its connection itself while it waits for its
// response: a goroutine that reads for it would have to wake it, which costs up to a
// tenth of the server's time of an invocation. For all others who wait, and while
// nobody does, the connection reads in a goroutine of its own, the attendant; it
// starts when the connection has rested for a moment, so that where invocations
// follow one another there is none.
//
// One goroutine reads at a time: who has set Conn.reader, which Conn.mu guards.
// While nobody does the timer is set, so that no frame is left for long.

// maxRest is how long nobody reads, at most: less than it takes until the worker
// freezes the sandbox, and long against what a busy one rests.
const maxRest = 5 * time.Millisecond

// reader says who reads.
type reader int

const (
	nobody reader = iota
	invoker
	attendant
)

// reading is the state of a connection's reading side.
type reading struct {
	frames  *proto.Reader // of who reads
	try     bool          // do not wait for frames; of who reads
	awake   bool          // look for frames for a moment before waiting; of who reads
	prompt  bool          // the last frame that was waited for came at once; of who reads
	rest    time.Duration // maxRest, but for tests
	waiting *tally        // invocations, but for tests

	// Conn.mu guards what follows.
	reader reader
	// stay keeps the attendant reading until an invocation has come that began
	// after it was set, and is over.
	stay bool
	cut  bool      // the connection has a deadline, which ends the invoker's read
	left time.Time // since when nobody reads
	// timer goes off when it may be time for the attendant, and is set anew then
	// if it is not: setting it for each invocation would cost more.
	timer *time.Timer
	timed bool // timer is set
}

// errNothing ends a read that does not wait.
var errNothing = errors.New("host: nothing to read")

// source is what frames are read from.
type source struct{ c *Conn }

// Read implements io.Reader.
func (s source) Read(p []byte) (int, error) {
	c := s.c
	q, ok := c.conn.(trier)
	switch {
	case ok && c.try:
		n, err := q.TryRead(p)
		if n == 0 && err == nil {
			err = errNothing
		}
		return n, err
	case c.try:
		return 0, errNothing
	case ok && c.awake:
		return c.readAwake(q, p)
	}
	return c.conn.Read(p)
}

type trier interface{ TryRead([]byte) (int, error) }

// A thread that sleeps takes some tens of microseconds to wake up, more where its
// processor rests, and whoever wakes it has a part of that to pay. An invocation
// that is the only one to wait, of a function that answered at once the last time,
// therefore looks for the response for a moment before it sleeps. Each time it looks
// it lets go of the processor, for whoever else wants that.

// prompt is how long a response takes, at most, that is waited for awake.
const prompt = 300 * time.Microsecond

// lately is how long it is remembered that more invocations waited than there are
// processors: there is work for these then, and between two of them a moment in which
// only one waits.
const lately = 10 * time.Millisecond

// tally counts invocations that wait for their environments.
type tally struct {
	now     atomic.Int32
	crowded atomic.Int64 // until when none is alone, since epoch
}

// epoch is a moment of the monotonic clock, which nobody sets.
var epoch = time.Now()

// invocations are those of this process.
var invocations tally

// add counts one more.
func (t *tally) add() {
	if int(t.now.Add(1)) > processors() {
		t.crowded.Store(int64(time.Since(epoch) + lately))
	}
}

// remove counts one less.
func (t *tally) remove() { t.now.Add(-1) }

// alone tells whether there is but one, and were not too many lately.
func (t *tally) alone() bool {
	return t.now.Load() == 1 && int64(time.Since(epoch)) >= t.crowded.Load()
}

// processors is how many threads of Go's run at once: where it is one, nothing else
// would run while an invocation is awake.
var processors = sync.OnceValue(func() int { return runtime.GOMAXPROCS(0) })

// readAwake is conn.Read.
func (c *Conn) readAwake(q trier, p []byte) (n int, err error) {
	began := time.Now()
	for c.prompt && c.waiting.alone() && time.Since(began) < prompt && processors() > 1 {
		if n, err = q.TryRead(p); n != 0 || err != nil {
			return n, err
		}
		quiet.Yield()
	}
	n, err = c.conn.Read(p)
	c.prompt = time.Since(began) < prompt
	return n, err
}

// readSome waits for a frame, and acts on it and on those that came with it.
func (c *Conn) readSome() error {
	for {
		f, err := c.frames.Read()
		if err == nil {
			err = c.handle(f)
		}
		if err != nil || !c.frames.Whole() {
			return err
		}
	}
}

// more waits until there may be something new about iv. It reads, unless another
// does already, who then wakes it.
func (c *Conn) more(ctx context.Context, iv *invocation) error {
	if c.take(iv) {
		return c.readFor(ctx, iv)
	}
	select {
	case <-iv.notify:
	case <-c.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// take makes the caller the one who reads, as an invoker, if nobody does and none
// who did has left something new about iv, which may be nil.
func (c *Conn) take(iv *invocation) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reader != nobody || c.err != nil || iv != nil && len(iv.notify) > 0 {
		return false
	}
	c.reader = invoker
	return true
}

// readFor is readSome for an invocation, by who has taken the reading, which it
// gives back. Only the end of ctx is an error.
func (c *Conn) readFor(ctx context.Context, iv *invocation) error {
	defer c.giveBack(iv)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	c.waiting.add()
	c.awake = true
	err := c.readSome()
	c.awake = false
	c.waiting.remove()
	switch {
	case err == nil:
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// interrupt ends the read of an invocation, between frames or within one, which
// whoever reads next goes on with. One that comes late may meet the read of the
// next invocation, which then reads again.
func (c *Conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reader == invoker {
		c.cut = true
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// giveBack ends what take has begun. iv, which may be nil, need not be woken.
func (c *Conn) giveBack(iv *invocation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.touched == iv {
		c.life.touched = nil
	}
	c.life.wake()
	c.try = false
	if c.cut {
		c.cut = false
		c.conn.SetReadDeadline(time.Time{})
	}
	switch {
	case c.err != nil: // nobody reads any more
	case c.stay:
		c.reader = attendant
		go c.serve()
	default:
		c.leave()
	}
}

// CatchUp acts on what the guest has sent before the next invocation begins, of
// which it is no part. It does not wait.
func (c *Conn) CatchUp() {
	if !c.take(nil) {
		return
	}
	defer c.giveBack(nil)
	c.try = true
	err := c.readSome()
	if err != nil && err != errNothing && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.fail(err)
	}
}

// attend has the attendant read until the next invocation is over, for those who
// wait and do not read.
func (c *Conn) attend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stay = true
	if c.reader == nobody && c.err == nil {
		c.reader = attendant
		go c.serve()
	}
}

// serve is the attendant.
func (c *Conn) serve() {
	for {
		if err := c.readSome(); err != nil {
			c.fail(err)
			return
		}
		if c.served() {
			return
		}
	}
}

// served wakes whom the frames were for, and tells whether the attendant can go.
// One who waits for an invocation's response relies on it until that is over.
func (c *Conn) served() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life.wake()
	if c.stay || c.life.inv != nil {
		return false
	}
	c.leave()
	return true
}

// leave leaves the connection to who reads next. c.mu is held.
func (c *Conn) leave() {
	c.reader, c.left = nobody, time.Now()
	if !c.timed {
		c.restFor(c.rest)
	}
}

func (c *Conn) restFor(d time.Duration) {
	c.timed = true
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.rested)
	} else {
		c.timer.Reset(d)
	}
}

// rested is the attendant's beginning where the connection has rested.
func (c *Conn) rested() {
	if c.takeRested() {
		c.serve()
	}
}

func (c *Conn) takeRested() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timed = false
	if c.reader != nobody || c.err != nil {
		return false // who reads sets the timer again
	}
	if d := c.rest - time.Since(c.left); d > 0 {
		c.restFor(d)
		return false
	}
	c.reader, c.stay = attendant, true
	return true
}

// fail ends the connection. The caller is the one who reads, and remains so:
// nobody reads after an error.
func (c *Conn) fail(err error) {
	c.conn.Close()
	c.events.close()
	c.mu.Lock()
	c.life.wake()
	c.err = err
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	close(c.done)
}
