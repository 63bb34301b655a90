package host

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/guest/proto"
)

type nolog struct{}

func (nolog) Log(proto.Log, []byte)         {}
func (nolog) RuntimeDone(RuntimeDone)       {}
func (nolog) Extension(proto.Extension)     {}
func (nolog) Subscribed(proto.Subscription) {}

// discard is a ResponseWriter that counts.
type discard struct {
	n     int
	ended *RuntimeError
	ends  int
	fail  error
}

func (d *discard) Start(proto.ResponseStart)   {}
func (d *discard) Write(p []byte) (int, error) { d.n += len(p); return len(p), d.fail }
func (d *discard) End(e *RuntimeError)         { d.ended = e; d.ends++ }

// sockets returns the two ends of a connection as the worker has it.
func sockets(t testing.TB) (host, guest net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "host connection")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return ends[0], ends[1]
}

// pair returns a Conn, whose Handler is a journal, and the guest's end, which reads away what the host sends.
func pair(t testing.TB) (*Conn, net.Conn) {
	t.Helper()
	a, b := sockets(t)
	c := New(a, new(journal))
	t.Cleanup(func() { b.Close(); c.Close() })
	go io.Copy(io.Discard, b)
	return c, b
}

const id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

func frames(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func data(n int) []byte {
	return append(proto.AppendData(nil, proto.TypeResponseData, n), make([]byte, n)...)
}

var (
	hello       = proto.AppendFrame(nil, proto.TypeHello, proto.Hello{Version: proto.Version})
	initDone    = proto.AppendFrame(nil, proto.TypeInitDone, proto.InitDone{})
	start       = proto.AppendFrame(nil, proto.TypeResponseStart, proto.ResponseStart{RequestID: id})
	end         = proto.AppendFrame(nil, proto.TypeResponseEnd, proto.ResponseEnd{})
	runtimeDone = proto.AppendFrame(nil, proto.TypeRuntimeDone, proto.InvokeDone{RequestID: id})
	invokeDone  = proto.AppendFrame(nil, proto.TypeInvokeDone, proto.InvokeDone{RequestID: id})
)

// invoke runs a whole invocation.
func invoke(ctx context.Context, c *Conn, inv proto.Invocation, w ResponseWriter) (Outcome, error) {
	running, err := c.Invoke(ctx, inv, nil, w)
	if err != nil {
		return Outcome{}, err
	}
	return running.Wait(ctx)
}

// ready returns a Conn whose runtime waits for an event.
func ready(t testing.TB) (*Conn, net.Conn) {
	t.Helper()
	c, g := pair(t)
	if _, err := g.Write(frames(hello, initDone)); err != nil {
		t.Fatal(err)
	}
	<-c.Ready()
	if _, err := c.Start(t.Context(), proto.Start{}); err != nil {
		t.Fatal(err)
	}
	return c, g
}

// invoked is ready after an invocation: the next one reads the connection itself,
// however long it takes until it comes.
func invoked(t testing.TB) (*Conn, net.Conn) {
	t.Helper()
	c, g := ready(t)
	restless(c)
	result := begin(t, c, false, new(discard))
	g.Write(frames(start, end, invokeDone))
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	return c, g
}

// begun returns a Conn with an invocation under way, and what invoke returns.
func begun(t *testing.T, streaming bool, w ResponseWriter) (*Conn, net.Conn, chan error) {
	t.Helper()
	c, g := ready(t)
	return c, g, begin(t, c, streaming, w)
}

// begin begins an invocation.
func begin(t testing.TB, c *Conn, streaming bool, w ResponseWriter) chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := invoke(t.Context(), c, proto.Invocation{RequestID: id, Streaming: streaming}, w)
		result <- err
	}()
	for busy := false; !busy; time.Sleep(100 * time.Microsecond) {
		c.mu.Lock()
		busy = c.life.inv != nil
		c.mu.Unlock()
	}
	return result
}

func TestViolationsEndTheConnection(t *testing.T) {
	big := func(n int) (b []byte) {
		for ; n > 0; n -= proto.MaxChunk {
			b = append(b, data(min(n, proto.MaxChunk))...)
		}
		return b
	}
	other := func(typ proto.Type, v any) []byte { return proto.AppendFrame(nil, typ, v) }
	for name, in := range map[string][]byte{
		"unknown type":               other(99, 1),
		"frame of the host":          other(proto.TypeInvoke, 1),
		"second hello":               hello,
		"other version":              other(proto.TypeHello, proto.Hello{Version: 9}),
		"second init":                initDone,
		"init error after init":      proto.AppendMeta(nil, proto.TypeInitError, proto.ErrorMeta{}, 0),
		"data before start":          data(1),
		"end before start":           end,
		"second start":               frames(start, start),
		"start of another":           other(proto.TypeResponseStart, proto.ResponseStart{RequestID: "x"}),
		"error after start":          frames(start, proto.AppendMeta(nil, proto.TypeResponseError, proto.ErrorMeta{RequestID: id}, 0)),
		"error of another":           proto.AppendMeta(nil, proto.TypeResponseError, proto.ErrorMeta{RequestID: "x"}, 0),
		"data after end":             frames(start, end, data(1)),
		"second end":                 frames(start, end, end),
		"done before end":            frames(start, invokeDone),
		"done of another":            frames(start, end, other(proto.TypeInvokeDone, proto.InvokeDone{RequestID: "x"})),
		"large chunk":                frames(start, data(proto.MaxChunk+1)),
		"runtime done before end":    frames(start, other(proto.TypeRuntimeDone, proto.InvokeDone{RequestID: id})),
		"runtime done of another":    frames(start, end, other(proto.TypeRuntimeDone, proto.InvokeDone{RequestID: "x"})),
		"second runtime done":        frames(start, end, runtimeDone, runtimeDone),
		"runtime done after init":    other(proto.TypeRuntimeDone, proto.InvokeDone{}),
		"extension over the limit":   other(proto.TypeExtension, proto.Extension{Name: strings.Repeat("x", proto.MaxEvent)}),
		"subscription not an object": other(proto.TypeSubscription, 1),
		"second exit":                frames(other(proto.TypeRuntimeExit, proto.RuntimeExit{}), other(proto.TypeRuntimeExit, proto.RuntimeExit{})),
		"response after exit":        frames(other(proto.TypeRuntimeExit, proto.RuntimeExit{}), start),
		"log too large":              append(proto.AppendMeta(nil, proto.TypeLog, proto.Log{}, proto.MaxLogLine+1), make([]byte, proto.MaxLogLine+1)...),
		"log without meta":           proto.AppendData(nil, proto.TypeLog, 0),
		"not JSON":                   append(proto.AppendData(nil, proto.TypeInvokeDone, 1), '{'),
		"step unasked":               other(proto.TypeStep, proto.Step{Name: proto.StepBoot}),
		"reset done unasked":         proto.AppendData(nil, proto.TypeResetDone, 0),
		"frame over the limit":       {byte(proto.TypeLog), 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"response over the limit":    frames(start, big(proto.MaxPayload+1)),
	} {
		for who, conn := range map[string]func(testing.TB) (*Conn, net.Conn){"attendant": ready, "invoker": invoked} {
			t.Run(name+"/"+who, func(t *testing.T) {
				c, g := conn(t)
				result := begin(t, c, false, new(discard))
				go g.Write(in)
				if name == "second exit" || name == "response after exit" {
					<-result // the violation comes after the invocation
					c.CatchUp()
				}
				select {
				case <-c.Done():
				case <-time.After(30 * time.Second):
					t.Fatal("the connection still stands")
				}
				if name != "second exit" && name != "response after exit" && <-result == nil {
					t.Error("the invocation ended well")
				}
				if err := c.Err(); err == nil || err == io.EOF {
					t.Errorf("error %v", err)
				}
			})
		}
	}
}

// stuck is a ResponseWriter that does not take anything until it is released.
type stuck struct {
	discard
	release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) { <-s.release; return s.discard.Write(p) }

func TestWindowIsEnforced(t *testing.T) {
	w := &stuck{release: make(chan struct{})}
	c, g, _ := begun(t, true, w)
	defer close(w.release)
	go func() {
		g.Write(start)
		for range proto.Window/proto.MaxChunk + 1 {
			g.Write(data(proto.MaxChunk))
		}
	}()
	select {
	case <-c.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("more than the window was taken")
	}
	if err := c.Err(); !strings.Contains(err.Error(), "window") {
		t.Error(err)
	}
}

func TestFailedWriterDoesNotEndTheInvocation(t *testing.T) {
	w := &discard{fail: errors.New("gone")}
	_, g, result := begun(t, false, w)
	g.Write(frames(start, data(10), data(10), end, invokeDone))
	if err := <-result; err != nil || w.ends != 1 {
		t.Errorf("%v, %d ends", err, w.ends)
	}
}

func TestEndIsToldBeforeTheInvocationIsDone(t *testing.T) {
	w := new(signal)
	w.ended = make(chan struct{})
	_, g, result := begun(t, false, w)
	g.Write(frames(start, data(1), end))
	<-w.ended
	select {
	case err := <-result:
		t.Fatalf("done before the runtime was ready: %v", err)
	default:
	}
	g.Write(invokeDone)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

type signal struct {
	discard
	ended chan struct{}
}

func (s *signal) End(*RuntimeError) { close(s.ended) }

func TestExitTellsUndeliveredEvents(t *testing.T) {
	for _, c := range []struct {
		exit proto.RuntimeExit
		want error
	}{
		{proto.RuntimeExit{Reason: "without providing a reason"}, ErrExited},
		{proto.RuntimeExit{Reason: "without providing a reason", RequestID: id}, nil},
	} {
		w := new(discard)
		_, g, result := begun(t, false, w)
		g.Write(proto.AppendFrame(nil, proto.TypeRuntimeExit, c.exit))
		if err := <-result; err != c.want {
			t.Errorf("got %v, want %v", err, c.want)
		}
		if c.want == nil && (w.ended == nil || w.ended.Type != "Runtime.ExitError" || w.ended.Error() != "Runtime.ExitError: Runtime exited without providing a reason") {
			t.Errorf("error %v", w.ended)
		}
	}
}

func TestContextEndsWaiting(t *testing.T) {
	cause := errors.New("that is why")
	c, _ := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if _, err := c.Start(ctx, proto.Start{}); err != cause {
		t.Errorf("start: %v", err)
	}
	if _, err := c.Invoke(ctx, proto.Invocation{}, nil, new(discard)); err != cause {
		t.Errorf("invoke: %v", err)
	}
	if _, err := c.Start(t.Context(), proto.Start{}); err == nil {
		t.Error("started twice")
	}
}

func TestGuestThatDoesNotReadCannotHoldAWrite(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := New(a, nolog{})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Start(ctx, proto.Start{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestEndOfTheGuestEndsWaiting(t *testing.T) {
	_, g, result := begun(t, false, new(discard))
	g.Close()
	if err := <-result; err != io.EOF {
		t.Errorf("got %v", err)
	}
}

func FuzzGuest(f *testing.F) {
	exit := proto.AppendFrame(nil, proto.TypeRuntimeExit, proto.RuntimeExit{Reason: "x"})
	f.Add(frames(hello, initDone, start, data(3), end, invokeDone), false)
	f.Add(frames(hello, exit), false)
	f.Add(frames(hello, exit, initDone, resetDone, initDone, exit), true)
	f.Fuzz(func(t *testing.T, in []byte, reset bool) {
		a, b := sockets(t)
		c := New(a, nolog{})
		go io.Copy(io.Discard, b)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		done := make(chan struct{})
		w := new(discard)
		go func() {
			defer close(done)
			invoke(ctx, c, proto.Invocation{RequestID: id}, w)
		}()
		go c.Start(ctx, proto.Start{})
		if reset {
			go c.Reset(ctx, proto.ReasonFailure)
		}
		b.SetWriteDeadline(time.Now().Add(30 * time.Second))
		b.Write(in)
		b.Close()
		<-done
		<-c.Done()
		if w.ends > 1 || ctx.Err() != nil {
			t.Fatalf("%d ends, %v", w.ends, ctx.Err())
		}
	})
}
