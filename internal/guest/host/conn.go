// Package host is the worker's end of the host connection: it starts the
// runtime of one sandbox, hands it invocations and takes its responses and
// logs, in the protocol of package proto. Whatever the other end sends is
// untrusted: a frame that does not fit ends the connection with an error.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/quiet"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// ErrExited reports that the runtime, or its sandbox, ended before the invocation
// reached it: the function has seen nothing of the event, which may go elsewhere.
var ErrExited = errors.New("host: the runtime has exited")

// ErrBusy reports a second invocation while one is under way.
var ErrBusy = errors.New("host: an invocation is under way")

// Handler receives what a sandbox sends outside of responses.
type Handler interface {
	// Log takes one log message. It is called by the goroutine that reads the
	// connection, which may be that of an invocation, in order with the response,
	// and must not block. The message is valid only until it returns.
	Log(l proto.Log, msg []byte)
	// RuntimeDone tells that the runtime has finished its initialisation or an
	// invocation, which extensions may go on with. Of the Conn it, and the
	// methods below, may call Event alone; they are else called as Log is.
	RuntimeDone(RuntimeDone)
	// Extension tells what has become of an extension by the end of Init.
	Extension(proto.Extension)
	// Subscribed tells that an extension has subscribed to telemetry: it gets
	// what Event is given.
	Subscribed(proto.Subscription)
}

// RuntimeDone tells how the runtime has finished.
type RuntimeDone struct {
	RequestID string        // empty: its initialisation, or what follows Restore
	Err       *RuntimeError // of an invocation
	Timing    Timing        // of an invocation
}

// Timing tells when the parts of an invocation were over, by this end's clock.
// What has not happened is zero.
type Timing struct {
	Response    time.Time // the runtime began its response or reported an error
	ResponseEnd time.Time
	Done        time.Time // the runtime asked for the next event
	Produced    int64     // bytes of the response
}

// ResponseWriter receives the response of one invocation. Its methods are
// called from within Invoke, one after the other. Those of a streamed response
// may block: only the response is held up then, not logs.
type ResponseWriter interface {
	// Start is called before the first Write, and not at all where the
	// function reports an error before it sends any response.
	Start(proto.ResponseStart)
	// Write takes a part of the response. After an error the rest of the
	// response is discarded, and the function runs on.
	Write(p []byte) (int, error)
	// End is called once when the response is complete, or is known to have
	// failed. The caller can be answered now; the environment is free only
	// when Invoke returns.
	End(*RuntimeError)
}

// RuntimeError is a failure of the function, or of its runtime, as opposed to
// one of Lapwing.
type RuntimeError struct {
	// Type is the error type: what the runtime sent, or one of AWS's own such
	// as Runtime.ExitError.
	Type string
	// Body is the error document as the runtime sent it; nil where the runtime
	// sent none and the caller must be given one made from Type and Exit.
	Body        []byte
	ContentType string
	// Exit is set where the runtime's process ended or never started.
	Exit *proto.RuntimeExit
}

// Error implements error.
func (e *RuntimeError) Error() string {
	if e.Exit != nil {
		return fmt.Sprintf("%s: %s", e.Type, ExitMessage(e.Exit))
	}
	return e.Type
}

// ExitMessage returns AWS's wording for the exit of a runtime, without the
// "RequestId: … Error: " that precedes it in an error document.
func ExitMessage(e *proto.RuntimeExit) string {
	if e.ErrorType != "" {
		return e.Reason
	}
	return "Runtime exited " + e.Reason
}

// InitResult tells how the initialisation of a runtime ended.
type InitResult struct {
	Err *RuntimeError // nil where the runtime is ready, or Restorable
	// Restorable is set where the runtime waits to be restored, as it was asked
	// to: a snapshot can be taken now, and Restore lets it go on.
	Restorable bool
	// Unfit says, in a sentence for users, why no snapshot must be taken of a
	// runtime that waits to be restored: its clones would share what they must
	// not. The function has its say in it: the text is printable, no more.
	Unfit string
}

// Outcome tells how an invocation ended.
type Outcome struct {
	// Error is what ResponseWriter.End was given.
	Error *RuntimeError
	// Exit is set where the runtime ended during the invocation, be it after
	// its response: the environment cannot be used again.
	Exit *proto.RuntimeExit
	// Timing is of the runtime; extensions may have taken longer.
	Timing Timing
}

// Conn is the host's end of one host connection. Its methods are safe for
// concurrent use; one invocation at a time can be under way.
type Conn struct {
	conn net.Conn
	h    Handler

	wmu  sync.Mutex
	wbuf []byte

	reading

	events outbox

	ready   chan struct{} // closed at Hello
	greeted bool          // Hello has come; of who reads
	done    chan struct{} // closed when the connection has ended

	mu    sync.Mutex // guards the fields below, and most of reading
	life  *life
	reset chan struct{} // closed at ResetDone; nil: no reset is under way
	err   error
}

// life is what a connection knows of one runtime, from the sandbox's start or a
// reset to the next. Conn.mu guards it.
type life struct {
	begun      bool          // Start was called
	started    chan struct{} // closed when Start was written, or Restore on a new connection
	restorable bool          // the runtime was asked to be
	parked     chan struct{} // closed when the runtime waits to be restored; unfit is set then
	unfit      string
	restored   bool          // Restore was called
	inited     chan struct{} // closed when init, or what follows Restore, is over; result is set then
	result     InitResult
	inv        *invocation
	exit       *proto.RuntimeExit
	touched    *invocation // that has something new, and is to be woken

	steps *timeline.Laps // of Init; nil: they are of no interest
	told  int            // how many of guestSteps are over, or will not come

	runtimeReady bool // RuntimeDone was called for the initialisation
	subscribed   bool // an extension has subscribed to telemetry
}

func newLife() *life {
	return &life{started: make(chan struct{}), parked: make(chan struct{}), inited: make(chan struct{})}
}

// initOver tells whether initialisation has ended.
func (l *life) initOver() bool { return closed(l.inited) }

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// New returns a Conn on conn, which it owns from now on.
func New(conn net.Conn, h Handler) *Conn {
	c := newConn(conn, h, newLife())
	c.attend()
	return c
}

// Resume returns a Conn on conn, which it owns from now on, for a sandbox that
// was made from a snapshot: its runtime waits for Restore. The guest may say
// hello anew, but need not, as nothing may have told it of the new connection.
func Resume(conn net.Conn, h Handler) *Conn {
	l := newLife()
	l.begun = true
	close(l.parked)
	c := newConn(conn, h, l)
	close(c.ready)
	c.attend()
	return c
}

func newConn(conn net.Conn, h Handler, l *life) *Conn {
	c := &Conn{conn: quiet.New(conn), h: h, ready: make(chan struct{}), done: make(chan struct{}), life: l}
	c.frames, c.rest, c.waiting = proto.NewReader(source{c}), maxRest, &invocations
	c.events.flush = c.flushEvents
	c.events.wanted.Store(true)
	return c
}

// Ready is closed when the guest has said hello, or was resumed.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended: io.EOF where the guest closed it. It
// is nil while the connection stands.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Exited returns how the runtime ended, or nil while it runs.
func (c *Conn) Exited() *proto.RuntimeExit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life.exit
}

// current returns the life of the present runtime.
func (c *Conn) current() *life {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life
}

// Close ends the connection at once and waits until nobody reads it any more.
func (c *Conn) Close() error {
	c.CatchUp() // what the guest has said last
	err := c.conn.Close()
	c.attend()
	<-c.done
	return err
}

// Start starts the runtime and waits until it asks for its first event, fails
// to initialise, or exits; or, where it was asked to be restorable, until it
// waits for Restore. It can be called once, and once more after each Reset. An
// error means that the connection failed or ctx ended.
func (c *Conn) Start(ctx context.Context, s proto.Start) (InitResult, error) {
	c.mu.Lock()
	l := c.life
	again := l.begun
	l.begun, l.restorable = true, s.Restorable
	l.steps = timeline.From(ctx).Laps(stepsOfInit)
	s.Steps = l.steps != nil
	c.mu.Unlock()
	if again {
		return InitResult{}, errors.New("host: the runtime has been started before")
	}
	if err := c.write(ctx, proto.TypeStart, s, nil); err != nil {
		return InitResult{}, err
	}
	close(l.started)
	return c.await(ctx, l, l.parked)
}

// Restore lets a runtime go on that waits to be restored, and waits until it
// asks for its first event, reports an error (Runtime.AfterRestoreError, where
// a hook failed) or exits. It can be called once: on a connection of Resume, or
// after a Start whose result was Restorable, of which no snapshot was taken. An
// error means that the connection failed or ctx ended.
func (c *Conn) Restore(ctx context.Context, r proto.Restore) (InitResult, error) {
	c.mu.Lock()
	l := c.life
	waits := closed(l.parked) && !l.restored
	if waits {
		l.restored, l.runtimeReady = true, false
	}
	c.mu.Unlock()
	if !waits {
		return InitResult{}, errors.New("host: no runtime waits to be restored")
	}
	if err := c.write(ctx, proto.TypeRestore, r, nil); err != nil {
		return InitResult{}, err
	}
	if !closed(l.started) {
		close(l.started)
	}
	return c.await(ctx, l, nil)
}

// await waits for the end of initialisation, or for parked.
func (c *Conn) await(ctx context.Context, l *life, parked <-chan struct{}) (InitResult, error) {
	c.attend()
	select {
	case <-l.inited:
	case <-parked:
	case <-ctx.Done():
		return InitResult{}, context.Cause(ctx)
	case <-c.done:
		if !l.initOver() && !closed(parked) { // what was read before the end counts
			return InitResult{}, c.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.initOver() {
		return l.result, nil
	}
	return InitResult{Restorable: true, Unfit: l.unfit}, nil
}

// Invoke hands one event to the runtime and passes its response to w. It
// returns when that is complete. It may be
// called as soon as Start was: the event then waits until initialisation is
// over. After an error other than ErrExited and ErrBusy the invocation may still
// be running: only Reset makes the connection fit for another.
func (c *Conn) Invoke(ctx context.Context, inv proto.Invocation, payload []byte, w ResponseWriter) (*Running, error) {
	if len(payload) > proto.MaxPayload {
		return nil, fmt.Errorf("host: event of %d bytes exceeds the limit of %d", len(payload), proto.MaxPayload)
	}
	l := c.current()
	select {
	case <-l.started:
	case <-c.done:
		return nil, fmt.Errorf("%w: %w", ErrExited, c.Err())
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	iv := newInvocation(inv)
	if err := c.begin(l, iv); err != nil {
		return nil, err
	}
	if err := c.write(ctx, proto.TypeInvoke, inv, payload); err != nil {
		if ctx.Err() == nil {
			return nil, fmt.Errorf("%w: %w", ErrExited, err) // of half a frame nothing is passed on
		}
		return nil, err
	}
	if inv.Streaming {
		c.attend() // logs must not wait for w
	}
	if err := c.pump(ctx, iv, w); err != nil {
		return nil, err
	}
	return &Running{c, iv}, nil
}

// Running is an invocation whose response is complete.
type Running struct {
	c  *Conn
	iv *invocation
}

// Over tells whether Wait returns at once.
func (r *Running) Over() bool {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return r.iv.over || r.c.err != nil
}

// Wait waits until the runtime is ready for the next event or has ended. After
// an error only Reset makes the connection fit for another invocation.
func (r *Running) Wait(ctx context.Context) (Outcome, error) {
	for !r.Over() {
		if err := r.c.more(ctx, r.iv); err != nil {
			return Outcome{}, err
		}
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if !r.iv.over {
		return Outcome{}, r.c.err
	}
	return Outcome{Error: r.iv.end.err, Exit: r.iv.exit, Timing: r.iv.timing}, nil
}

// begin makes iv the invocation under way.
func (c *Conn) begin(l *life, iv *invocation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil || c.life != l || l.exit != nil || l.initOver() && l.result.Err != nil:
		return ErrExited
	case l.inv != nil:
		return ErrBusy
	}
	l.inv, c.stay = iv, false
	return nil
}

// pump moves the response from iv to w until that is complete.
func (c *Conn) pump(ctx context.Context, iv *invocation, w ResponseWriter) error {
	var (
		spare   []byte // swapped with iv.data: no copy, no allocation per chunk
		ungrant int    // consumed but not granted back yet
		began   bool
		gone    bool // w failed
	)
	for {
		if err := c.more(ctx, iv); err != nil {
			return err
		}
		c.mu.Lock()
		data := iv.data
		iv.data = spare[:0]
		start, end, undelivered, err := iv.start, iv.end, iv.undelivered, c.err
		c.mu.Unlock()

		if undelivered {
			return ErrExited
		}
		if start != nil && !began {
			began = true
			w.Start(*start)
		}
		if len(data) > 0 {
			if !gone {
				_, werr := w.Write(data)
				gone = werr != nil
			}
			if ungrant += len(data); ungrant >= proto.Window/2 && end == nil {
				if err := c.grant(ctx, iv, ungrant); err != nil {
					return err
				}
				ungrant = 0
			}
		}
		spare = data
		if end != nil {
			w.End(end.err)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grant gives the guest n bytes of its window back.
func (c *Conn) grant(ctx context.Context, iv *invocation, n int) error {
	c.mu.Lock()
	iv.window += n
	c.mu.Unlock()
	return c.write(ctx, proto.TypeWindow, proto.WindowUpdate{Bytes: n}, nil)
}

// Shutdown asks the guest to end the runtime and then itself, and waits until
// it has.
func (c *Conn) Shutdown(ctx context.Context, reason string) error {
	if err := c.write(ctx, proto.TypeShutdown, proto.Shutdown{Reason: reason}, nil); err != nil {
		return err
	}
	c.attend()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Reset asks the guest to end the runtime, and whatever else runs in the
// sandbox, and waits until that has happened: then the runtime can be started
// anew. No other call may be under way. After an error the connection is of no
// more use.
func (c *Conn) Reset(ctx context.Context, reason string) error {
	done := make(chan struct{})
	c.mu.Lock()
	again := c.reset != nil
	if !again {
		c.reset = done
	}
	c.mu.Unlock()
	if again {
		return errors.New("host: a reset is under way")
	}
	if err := c.write(ctx, proto.TypeReset, proto.Reset{Reason: reason}, nil); err != nil {
		return err
	}
	c.attend()
	select {
	case <-done:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
