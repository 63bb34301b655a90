package host

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// journal is a Handler that keeps the logs.
type journal struct {
	nolog
	mu     sync.Mutex
	lines  []string
	panics bool
}

func (j *journal) Log(_ proto.Log, msg []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.panics {
		panic("no")
	}
	j.lines = append(j.lines, string(msg))
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.lines)
}

func logged(msg string) []byte {
	return append(proto.AppendMeta(nil, proto.TypeLog, proto.Log{Source: "function"}, len(msg)), msg...)
}

// eventually waits until what is to be is.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// reads waits until so the connection is read by who.
func reads(t testing.TB, c *Conn, who reader) {
	t.Helper()
	eventually(t, fmt.Sprint("read by ", who), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.reader == who
	})
}

// journalled is conn with the journal of the Conn.
func journalled(t testing.TB, conn func(testing.TB) (*Conn, net.Conn)) (*Conn, net.Conn, *journal) {
	t.Helper()
	c, g := conn(t)
	return c, g, c.h.(*journal)
}

func TestAnInvocationReadsItself(t *testing.T) {
	c, g := invoked(t)
	for range 3 {
		result := begin(t, c, false, new(discard))
		reads(t, c, invoker)
		g.Write(frames(start, data(10), end))
		reads(t, c, invoker) // what the runtime has left to do, it waits for itself as well
		g.Write(invokeDone)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		reads(t, c, nobody)
	}
}

func TestAnInvocationOfARestedConnectionIsReadFor(t *testing.T) {
	c, g := ready(t)
	for range 3 {
		reads(t, c, attendant)
		result := begin(t, c, false, new(discard))
		g.Write(frames(start, data(10), end, invokeDone))
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
}

// restless keeps the attendant from coming back by itself.
func restless(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest = time.Hour
}

func TestTheAttendantStaysAsLongAsItIsNeeded(t *testing.T) {
	c, g, j := journalled(t, pair)
	restless(c)
	hear := func(what string) {
		t.Helper()
		n := j.count()
		g.Write(logged(what))
		eventually(t, what, func() bool { return j.count() > n })
	}
	g.Write(hello)
	<-c.Ready()
	hear("before the start")
	g.Write(initDone)
	if _, err := c.Start(t.Context(), proto.Start{}); err != nil {
		t.Fatal(err)
	}
	hear("after Init")
	result := begin(t, c, false, new(discard))
	hear("during an invocation")
	g.Write(frames(start, data(10)))
	hear("during a response")
	g.Write(end)
	hear("after a response")
	g.Write(invokeDone)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	reads(t, c, nobody)
	result = begin(t, c, true, new(discard))
	g.Write(frames(start, data(10), end, invokeDone))
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	hear("after a streamed response, which may have waited for its caller")
}

func TestWhoWaitsWithoutReadingIsReadFor(t *testing.T) {
	t.Run("Reset", func(t *testing.T) {
		c, g := invoked(t)
		done := make(chan error, 1)
		go func() { done <- c.Reset(t.Context(), proto.ReasonFailure) }()
		reads(t, c, attendant)
		g.Write(resetDone)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("Shutdown", func(t *testing.T) {
		c, g := invoked(t)
		done := make(chan error, 1)
		go func() { done <- c.Shutdown(t.Context(), proto.ReasonSpindown) }()
		reads(t, c, attendant)
		g.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("Shutdown during an invocation", func(t *testing.T) {
		c, g := invoked(t)
		result := begin(t, c, false, new(discard))
		reads(t, c, invoker)
		done := make(chan error, 1)
		go func() { done <- c.Shutdown(t.Context(), proto.ReasonSpindown) }()
		eventually(t, "the shutdown waits", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.stay
		})
		g.Write(frames(start, end, invokeDone))
		if err := <-result; err != nil {
			t.Error(err)
		}
		g.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatComesBetweenInvocationsIsNoticed(t *testing.T) {
	exit := proto.AppendFrame(nil, proto.TypeRuntimeExit, proto.RuntimeExit{})
	for name, x := range map[string]struct {
		send func(net.Conn)
		seen func(*Conn, *journal) bool
	}{
		"log":  {func(g net.Conn) { g.Write(logged("x")) }, func(_ *Conn, j *journal) bool { return j.count() == 1 }},
		"exit": {func(g net.Conn) { g.Write(exit) }, func(c *Conn, _ *journal) bool { return c.Exited() != nil }},
		"end":  {func(g net.Conn) { g.Close() }, func(c *Conn, _ *journal) bool { return c.Err() == io.EOF && closed(c.Done()) }},
		"violation": {func(g net.Conn) { g.Write(start) }, func(c *Conn, _ *journal) bool {
			return c.Err() != nil && closed(c.Done())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("by itself", func(t *testing.T) {
				c, g, j := journalled(t, ready)
				result := begin(t, c, false, new(discard))
				g.Write(frames(start, end, invokeDone))
				if err := <-result; err != nil {
					t.Fatal(err)
				}
				x.send(g)
				eventually(t, name, func() bool { return x.seen(c, j) })
			})
			t.Run("catching up", func(t *testing.T) {
				c, g, j := journalled(t, invoked)
				x.send(g)
				if x.seen(c, j) {
					t.Error("somebody reads")
				}
				if c.CatchUp(); !x.seen(c, j) {
					t.Error("it was not read")
				}
			})
		})
	}
}

func TestAFloodOfLogsBetweenInvocationsPasses(t *testing.T) {
	c, g, j := journalled(t, ready)
	const lines = 100_000
	line := logged("a line of a background process")
	g.SetWriteDeadline(time.Now().Add(30 * time.Second))
	flooded := make(chan error, 1)
	go func() {
		_, err := g.Write(bytes.Repeat(line, lines))
		flooded <- err
	}()
	eventually(t, "half of it read", func() bool { return j.count() > lines/2 })
	if err := <-flooded; err != nil {
		t.Fatal(err)
	}
	result := begin(t, c, false, new(discard))
	g.Write(frames(start, end, invokeDone))
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if n := j.count(); n != lines {
		t.Errorf("%d of %d lines", n, lines)
	}
}

func TestADeadlineWithinAFrameLosesNothing(t *testing.T) {
	small, large := logged("small"), logged(string(bytes.Repeat([]byte("l"), proto.MaxLogLine)))
	for name, frame := range map[string][]byte{"small": small, "large": large} {
		for _, n := range []int{1, 7, 9, len(frame) / 2, len(frame) - 1} {
			for who, conn := range map[string]func(testing.TB) (*Conn, net.Conn){"attendant": ready, "invoker": invoked} {
				t.Run(fmt.Sprintf("%s/%d/%s", name, n, who), func(t *testing.T) {
					c, g, j := journalled(t, conn)
					cause := errors.New("too late")
					ctx, cancel := context.WithCancelCause(t.Context())
					go func() {
						g.Write(frames(small, frame[:n]))
						eventually(t, "the first frame", func() bool { return j.count() == 1 })
						cancel(cause)
					}()
					if _, err := invoke(ctx, c, proto.Invocation{RequestID: id}, new(discard)); err != cause {
						t.Fatal(err)
					}
					done := make(chan error, 1)
					go func() { done <- c.Reset(t.Context(), proto.ReasonTimeout) }()
					eventually(t, "a reset", func() bool {
						c.mu.Lock()
						defer c.mu.Unlock()
						return c.reset != nil
					})
					g.Write(frames(frame[n:], small, resetDone))
					if err := <-done; err != nil {
						t.Fatal(err)
					}
					if j.count() != 3 || len(j.lines[1]) != len(frame)-len(small)+len("small") {
						t.Errorf("%d lines, of which the second has %d bytes", j.count(), len(j.lines[1]))
					}
				})
			}
		}
	}
}

func TestCloseEndsAnInvocation(t *testing.T) {
	for who, conn := range map[string]func(testing.TB) (*Conn, net.Conn){"attendant": ready, "invoker": invoked} {
		for _, sent := range [][]byte{nil, start, frames(start, data(100), end), data(100)[:50]} {
			t.Run(fmt.Sprint(who, len(sent)), func(t *testing.T) {
				c, g := conn(t)
				result := begin(t, c, false, new(discard))
				g.Write(sent)
				c.Close()
				if err := <-result; err == nil {
					t.Error("it ended well")
				}
				if _, err := c.Invoke(t.Context(), proto.Invocation{}, nil, new(discard)); !errors.Is(err, ErrExited) {
					t.Error(err)
				}
				c.Close()
			})
		}
	}
}

func TestLogsDoNotWaitForAStreamedResponse(t *testing.T) {
	c, g, j := journalled(t, invoked)
	w := &stuck{release: make(chan struct{})}
	result := begin(t, c, true, w)
	g.Write(frames(start, data(10), logged("a")))
	eventually(t, "the first line", func() bool { return j.count() == 1 })
	g.Write(logged("b"))
	eventually(t, "the second line", func() bool { return j.count() == 2 })
	close(w.release)
	g.Write(frames(end, invokeDone))
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A guest that takes an event only when its logs are taken must get both done.
func TestAWriteThatWaitsDoesNotKeepFromReading(t *testing.T) {
	a, g := sockets(t)
	j := new(journal)
	c := New(a, j)
	t.Cleanup(func() { g.Close(); c.Close() })
	r := proto.NewReader(g)
	g.SetDeadline(time.Now().Add(30 * time.Second))
	g.Write(frames(hello, initDone))
	if _, err := c.Start(t.Context(), proto.Start{}); err != nil {
		t.Fatal(err)
	}
	next(t, r, proto.TypeStart)
	event := bytes.Repeat([]byte("event"), 1<<20)
	const lines = 20_000
	for range 3 {
		result := make(chan error, 1)
		go func() {
			running, err := c.Invoke(t.Context(), proto.Invocation{RequestID: id}, event, new(discard))
			if err == nil {
				_, err = running.Wait(t.Context())
			}
			result <- err
		}()
		if _, err := g.Write(bytes.Repeat(logged("before the event is read"), lines)); err != nil {
			t.Fatal(err)
		}
		var inv proto.Invocation
		if body, err := next(t, r, proto.TypeInvoke).Split(&inv); err != nil || !bytes.Equal(body, event) {
			t.Fatal(len(body), err)
		}
		g.Write(frames(start, end, invokeDone))
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
	if j.count() != 3*lines {
		t.Errorf("%d lines", j.count())
	}
}

func TestAGuestThatTakesNoMoreCannotHoldAnInvocation(t *testing.T) {
	a, g := sockets(t)
	c := New(a, nolog{})
	t.Cleanup(func() { g.Close(); c.Close() })
	g.Write(frames(hello, initDone))
	if _, err := c.Start(t.Context(), proto.Start{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Invoke(ctx, proto.Invocation{RequestID: id}, make([]byte, proto.MaxPayload), new(discard)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-c.Done() // of half a frame nothing can follow
}

// A Handler that panics must not leave the connection to nobody.
func TestAPanicLeavesAConnectionThatCloses(t *testing.T) {
	c, g, j := journalled(t, invoked)
	j.panics = true
	ended := make(chan any)
	go func() {
		defer func() { ended <- recover() }()
		invoke(t.Context(), c, proto.Invocation{RequestID: id}, new(discard))
	}()
	reads(t, c, invoker)
	g.Write(logged("x"))
	if <-ended == nil {
		t.Error("it did not")
	}
	c.Close()
}

// moody is a guest that takes its time, or not, sends in pieces what it sends, and
// writes logs whenever it likes, each with its number.
type moody struct {
	conn net.Conn
	r    *rand.Rand
	sent int // logs
}

func (m *moody) pause() {
	switch m.r.IntN(6) {
	case 0:
		time.Sleep(time.Duration(m.r.IntN(300)) * time.Microsecond)
	case 1:
		time.Sleep(time.Duration(m.r.IntN(20)) * time.Microsecond)
	}
}

func (m *moody) send(b []byte) {
	for len(b) > 0 {
		n := len(b)
		if m.r.IntN(4) == 0 {
			n = 1 + m.r.IntN(n)
		}
		m.conn.Write(b[:n])
		b = b[n:]
		m.pause()
	}
}

func (m *moody) log() (b []byte) {
	for range m.r.IntN(3) {
		pad := 0
		if m.r.IntN(20) == 0 {
			pad = m.r.IntN(proto.MaxLogLine - 100)
		}
		m.sent++
		b = append(b, logged(fmt.Sprintf("%d %s", m.sent, bytes.Repeat([]byte("."), pad)))...)
	}
	return b
}

// run serves until it is shut down: each answer is the event's
// number, so many times as it says.
func (m *moody) run() {
	m.send(frames(hello, initDone))
	r := proto.NewReader(m.conn)
	for {
		f, err := r.Read()
		if err != nil {
			return
		}
		switch f.Type {
		case proto.TypeShutdown:
			m.send(m.log())
			m.conn.Close()
			return
		case proto.TypeReset:
			m.send(frames(m.log(), resetDone, initDone))
		case proto.TypeInvoke:
			var inv proto.Invocation
			event, _ := f.Split(&inv)
			event = bytes.Clone(event)
			m.pause()
			out := frames(m.log(), proto.AppendFrame(nil, proto.TypeResponseStart, proto.ResponseStart{RequestID: inv.RequestID}), m.log())
			for range binary.BigEndian.Uint32(event) % 7 {
				out = append(append(proto.AppendData(out, proto.TypeResponseData, len(event)), event...), m.log()...)
			}
			m.send(append(out, end...))
			m.send(frames(m.log(), proto.AppendFrame(nil, proto.TypeInvokeDone, proto.InvokeDone{RequestID: inv.RequestID}), m.log()))
			m.pause()
			m.send(m.log())
		}
	}
}

// kept is a ResponseWriter that keeps the response.
type kept struct {
	bytes.Buffer
	ends int
}

func (k *kept) Start(proto.ResponseStart) {}
func (k *kept) End(*RuntimeError)         { k.ends++ }

// Whatever the times at which invocations, logs, deadlines and rests meet, each
// event is answered, each log is taken once, in its order, and nobody waits for
// what has come.
func TestInterleavings(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			interleave(t, rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)), rounds)
		})
	}
}

func interleave(t *testing.T, ours, theirs *rand.Rand, rounds int) {
	a, g := sockets(t)
	j := new(journal)
	c := New(a, j)
	c.mu.Lock()
	c.rest = time.Duration(ours.IntN(200)) * time.Microsecond
	c.mu.Unlock()
	m := &moody{conn: g, r: theirs}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		m.run()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := func() {
		t.Helper()
		if r, err := c.Start(ctx, proto.Start{}); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	start()
	answered := 0
	for i := range rounds {
		if ours.IntN(3) == 0 {
			time.Sleep(time.Duration(ours.IntN(400)) * time.Microsecond)
		}
		if ours.IntN(2) == 0 {
			c.CatchUp()
		}
		event := make([]byte, 4+ours.IntN(2000))
		binary.BigEndian.PutUint32(event, uint32(i))
		ictx, late := context.WithCancelCause(ctx)
		tooLate := errors.New("too late")
		if ours.IntN(3) == 0 {
			time.AfterFunc(time.Duration(ours.IntN(400))*time.Microsecond, func() { late(tooLate) })
		}
		w := new(kept)
		running, err := c.Invoke(ictx, proto.Invocation{RequestID: fmt.Sprint(i), Streaming: ours.IntN(5) == 0}, event, w)
		if err == nil {
			if ours.IntN(3) == 0 {
				time.Sleep(time.Duration(ours.IntN(300)) * time.Microsecond)
			}
			_, err = running.Wait(ictx)
		}
		late(nil)
		switch {
		case err == nil:
			if want := bytes.Repeat(event, i%7); w.ends != 1 || !bytes.Equal(w.Bytes(), want) {
				t.Fatalf("invocation %d: %d bytes, want %d; %d ends", i, w.Len(), len(want), w.ends)
			}
			answered++
		case err == tooLate:
			if err := c.Reset(ctx, proto.ReasonTimeout); err != nil {
				t.Fatalf("reset after invocation %d: %v", i, err)
			}
			start()
		default:
			t.Fatalf("invocation %d: %v", i, err)
		}
	}
	if answered < rounds/3 {
		t.Errorf("%d of %d were answered", answered, rounds)
	}
	if err := c.Shutdown(ctx, proto.ReasonSpindown); err != nil {
		t.Error(err)
	}
	<-gone
	if j.count() != m.sent {
		t.Errorf("%d of %d lines", j.count(), m.sent)
	}
	for i, line := range j.lines {
		if !strings.HasPrefix(line, fmt.Sprint(i+1, " ")) {
			t.Fatalf("%.10q is line %d", line, i+1)
		}
	}
	c.Close()
}

// looked is a connection that counts how it is read.
type looked struct {
	net.Conn
	there         bool // what looks finds something
	slept         time.Duration
	looks, sleeps int
}

func (l *looked) TryRead(p []byte) (int, error) {
	l.looks++
	if l.there && l.looks > 1 {
		return 1, nil
	}
	return 0, nil
}

func (l *looked) Read(p []byte) (int, error) {
	l.sleeps++
	time.Sleep(l.slept)
	return 1, nil
}

func TestTooManyInvocationsAreThoseThatHaveNoProcessorEach(t *testing.T) {
	defer func(p func() int) { processors = p }(processors)
	processors = func() int { return 2 }
	var waiting tally
	for _, step := range []struct {
		add   int
		alone bool
	}{{1, true}, {1, false}, {-1, true}, {2, false}, {-2, false}} {
		for range step.add {
			waiting.add()
		}
		for range -step.add {
			waiting.remove()
		}
		if alone := waiting.alone(); alone != step.alone {
			t.Errorf("%d more, and one is alone: %t", step.add, alone)
		}
	}
}

func TestOnlyAnInvocationOfWhatAnsweredAtOnceWaitsAwake(t *testing.T) {
	defer func(p func() int) { processors = p }(processors)
	for _, step := range []struct {
		what                string
		conn                looked
		prompt, still       bool
		others              int32
		crowded             time.Duration // since there were too many
		processors          int
		wantLooks, wantDoze bool
	}{
		{what: "the first", still: true, wantDoze: true},
		{what: "one after a prompt one", conn: looked{there: true}, prompt: true, still: true, wantLooks: true},
		{what: "one that is late after a prompt one", conn: looked{slept: 2 * prompt}, prompt: true, wantLooks: true, wantDoze: true},
		{what: "one after a late one", conn: looked{there: true}, still: true, wantDoze: true},
		{what: "one beside others", conn: looked{there: true}, prompt: true, others: 1, still: true, wantDoze: true},
		{what: "one soon after too many", conn: looked{there: true}, prompt: true, crowded: lately / 10, still: true, wantDoze: true},
		{what: "one long after too many", conn: looked{there: true}, prompt: true, crowded: 2 * lately, still: true, wantLooks: true},
		{what: "one on a single processor", conn: looked{there: true}, prompt: true, processors: 1, still: true, wantDoze: true},
	} {
		processors = func() int { return cmp.Or(step.processors, 2) }
		conn := step.conn
		c := &Conn{conn: &conn, reading: reading{awake: true, prompt: step.prompt, waiting: new(tally)}}
		c.waiting.now.Store(1 + step.others)
		if step.crowded > 0 {
			c.waiting.crowded.Store(int64(time.Since(epoch) - step.crowded + lately))
		}
		n, err := c.readAwake(&conn, make([]byte, 1))
		if n != 1 || err != nil {
			t.Errorf("%s: %d, %v", step.what, n, err)
		}
		if looks, dozes := conn.looks > 0, conn.sleeps > 0; looks != step.wantLooks || dozes != step.wantDoze {
			t.Errorf("%s looked: %t, slept: %t", step.what, looks, dozes)
		}
		if c.prompt != step.still {
			t.Errorf("%s: the next one waits awake: %t", step.what, c.prompt)
		}
	}
}
