// Package guest supervises what runs in a sandbox: it takes the runtime and the
// invocations of one execution environment from the worker, over the host
// connection (package proto), and serves them to the function as Lambda does: the
// Runtime API, the Extensions API, the Telemetry and Logs APIs (package
// telemetry), process supervision and log capture. Package host is its peer.
//
// Where it runs is a matter of the System that it is given (package system).
// Under gVisor that is gVisor's own process, outside of the guest kernel: as a
// program inside it, eleven of the fifteen system calls of an invocation were its
// own, at two context switches each.
//
// The function is hostile: everything that it sends is bounded and checked.
// Locks are taken in the order guest.mu, logPipe.mu, then those of package
// telemetry or link.mu; inbox.mu comes before all of them. Who acts on a frame of the
// host never waits for the host to read.
package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/system"
	"lapwing.dev/lapwing/internal/guest/telemetry"
	"lapwing.dev/lapwing/internal/quiet"
)

// Address is where the Runtime API listens; the function finds it in
// AWS_LAMBDA_RUNTIME_API. Lambda reserves the port too.
const Address = "127.0.0.1:9001"

// Socket is where the Runtime API listens beside Address, in Linux's abstract
// namespace: for our own bootstraps, since a message over TCP costs a sandbox
// several times as much, in gVisor's network stack.
const Socket = "@lapwing:" + Address

const (
	extensionsDir     = "/opt/extensions"
	disableExtensions = "/opt/disable-extensions-jwigqn8j" // the name that Lambda uses
)

// guest is the state of one sandbox from its start, or a reset, to the next:
// the life of one runtime.
type guest struct {
	sys       system.System
	in        *inbox
	link      *link
	srv       *http1.Server
	tasks     sync.WaitGroup // goroutines that act on the end of the runtime
	listeners []net.Listener

	mu      sync.Mutex
	window  *sync.Cond // response data may be sent, or the end has come
	granted int        // bytes of response data that the host still takes
	ending  bool       // shutting down: the runtime gets nothing any more
	killed  bool       // nothing of it runs any more, or will
	gone    bool       // every process is

	start   *proto.Start
	runtime *process
	dead    bool // RuntimeExit was sent
	logs    []*logPipe

	state    runtimeState
	initOver bool
	// runtimeInit is set once the host knows that the runtime has initialised,
	// but extensions have not.
	runtimeInit bool
	restoring   restoring
	fatal       string // the first fatal error that an extension reported
	event       *event
	waiters     []*waiter // of the runtime, the newest last

	extensions []*extension
	starting   int           // what the runtime's start waits for: external extensions that have not registered, and startExtensions
	registered chan struct{} // closed when starting is 0
	reported   bool          // the host knows what has become of the extensions
	closed     bool          // registration of extensions
	stop       chan struct{} // closed when the end has come

	steps     atomic.Bool // whose ends the host wants to know are to come: Init's
	telemetry *telemetry.Hub
	requestID atomic.Pointer[string] // of the invocation under way
}

// event is the invocation under way.
type event struct {
	inv       proto.Invocation
	payload   []byte
	delivered bool
	told      bool // the host knows that the runtime is done
	ended     bool // its response is complete, or the runtime has reported an error
}

// waiter is a call of invocation/next that waits.
type waiter struct {
	req      *http1.Request
	ready    chan struct{} // holds a token once it is answered
	answered bool          // guest.mu guards this and what follows
	event    *event        // nil: given up
}

func newWaiter(req *http1.Request) *waiter { return &waiter{req: req, ready: make(chan struct{}, 1)} }

// answer ends the wait. guest.mu is held.
func (w *waiter) answer(ev *event) {
	w.answered, w.event = true, ev
	select {
	case w.ready <- struct{}{}:
	default: // who waits has been woken by something else
	}
	w.req.Wake()
}

// Supervisor serves one sandbox.
type Supervisor struct {
	sys system.System

	mu      sync.Mutex
	current *guest
}

// New returns the Supervisor of a System with nothing on it, or of one that comes
// from a snapshot.
func New(sys system.System) *Supervisor { return &Supervisor{sys: sys} }

// Run serves the sandbox on conn, the host connection, until the host ends it
// or the connection fails; a clean end returns nil. Every process but process 1
// has been killed when it returns.
func (s *Supervisor) Run(conn net.Conn) error {
	conn = quiet.New(conn)
	g := newGuest(conn, newInbox(conn), s.sys)
	if err := g.listen(); err != nil {
		return err
	}
	return s.serve(g, conn)
}

// serve serves a guest and those that come after it.
func (s *Supervisor) serve(g *guest, conn net.Conn) error {
	hello := proto.AppendFrame(nil, proto.TypeHello, proto.Hello{Version: proto.Version})
	for {
		s.mu.Lock()
		s.current = g
		s.mu.Unlock()
		g.link.raw(hello)
		err := g.in.read(g.act)
		if end, ok := err.(*order); ok {
			g.end(end.reason)
			err = end.err
		}
		if err == errReset {
			hello = proto.AppendData(nil, proto.TypeResetDone, 0)
			g = newGuest(conn, g.in, s.sys)
			if err := g.listen(); err != nil {
				return err
			}
			continue
		}
		s.sys.KillAll(0)
		g.closeListeners()
		if err == io.EOF || err == errShutdown {
			return nil
		}
		return err
	}
}

// order is an order of the host that ends the life of the runtime.
type order struct {
	reason string
	err    error // errShutdown or errReset
}

// Error implements error.
func (o *order) Error() string { return o.err.Error() }

var (
	errShutdown = errors.New("guest: shut down")
	errReset    = errors.New("guest: reset")
)

// newGuest returns a guest without processes.
func newGuest(conn net.Conn, in *inbox, sys system.System) *guest {
	g := &guest{sys: sys, in: in, link: &link{w: conn},
		starting: 1, registered: make(chan struct{}), stop: make(chan struct{}), telemetry: telemetry.NewHub(sys.Dial)}
	g.window = sync.NewCond(&g.mu)
	g.srv = http1.NewServer(g.serve, g.link.flush)
	return g
}

// listen waits for what processes have to say.
func (g *guest) listen() error {
	for network, address := range map[string]string{"tcp": Address, "unix": Socket} {
		l, err := g.sys.Listen(network, address)
		if err != nil {
			g.closeListeners()
			return fmt.Errorf("guest: %w", err)
		}
		g.accept(l)
	}
	return nil
}

// accept serves the connections of a listener.
func (g *guest) accept(l net.Listener) {
	g.listeners = append(g.listeners, l)
	go g.srv.Serve(noticed{l, g.connected})
}

// closeListeners resets what waits to be accepted, and ends the goroutines that
// accept.
func (g *guest) closeListeners() {
	for _, l := range g.listeners {
		l.Close()
	}
}

// act acts on a frame of the host, or returns the order that it is.
func (g *guest) act(f proto.Frame) error {
	switch f.Type {
	case proto.TypeStart:
		return g.handleStart(f)
	case proto.TypeInvoke:
		return g.handleInvoke(f)
	case proto.TypeWindow:
		return g.handleWindow(f)
	case proto.TypeShutdown:
		return shutdownOrder(f)
	case proto.TypeReset:
		return resetOrder(f)
	case proto.TypeEvent:
		return g.handleEvent(f)
	case proto.TypeRestore:
		return g.handleRestore(f)
	}
	return fmt.Errorf("guest: unknown frame type %d", f.Type)
}

func (g *guest) handleStart(f proto.Frame) error {
	s := new(proto.Start)
	if err := f.Decode(s); err != nil {
		return err
	}
	g.mu.Lock()
	if g.start != nil {
		g.mu.Unlock()
		return errors.New("guest: second start without a reset")
	}
	g.start = s
	g.restoring.begin(s)
	g.steps.Store(s.Steps)
	g.mu.Unlock()
	g.tasks.Go(g.startProcesses)
	return nil
}

func (g *guest) handleInvoke(f proto.Frame) error {
	ev := new(event)
	body, err := f.Split(&ev.inv)
	if err != nil {
		return err
	}
	if len(f.Payload) <= proto.MaxChunk { // the reader's memory
		body = append([]byte(nil), body...)
	}
	ev.payload = body
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.event != nil {
		return errors.New("guest: second invocation")
	}
	g.event = ev
	g.requestID.Store(&ev.inv.RequestID)
	g.granted = proto.Window
	g.deliver()
	return nil
}

func (g *guest) handleWindow(f proto.Frame) error {
	var w proto.WindowUpdate
	if err := f.Decode(&w); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.Bytes <= 0 || w.Bytes > proto.Window || g.granted+w.Bytes > proto.Window {
		return fmt.Errorf("guest: window grant of %d bytes", w.Bytes)
	}
	g.granted += w.Bytes
	g.window.Broadcast()
	return nil
}

func shutdownOrder(f proto.Frame) error {
	var s proto.Shutdown
	if err := f.Decode(&s); err != nil {
		return err
	}
	return &order{s.Reason, errShutdown}
}

func resetOrder(f proto.Frame) error {
	var r proto.Reset
	if err := f.Decode(&r); err != nil {
		return err
	}
	return &order{r.Reason, errReset}
}

// settle moves on what can be moved on, after anything has changed: the end of
// initialisation, the end of an invocation, the delivery of the next. g.mu is
// held.
func (g *guest) settle() {
	if g.state != stateReady && g.state != stateRestoreReady || g.ending {
		return
	}
	g.closed = true // from the runtime's first call of next on
	if !g.extensionsReady() {
		g.runtimeDone()
		return
	}
	switch {
	case g.state == stateRestoreReady:
		if !g.restoring.told {
			g.restoring.told = true
			g.endOfInit()
			g.link.send(proto.TypeSnapshotReady, proto.SnapshotReady{Unfit: g.unfit()})
		}
	case !g.initOver:
		g.endOfInit()
		g.initOver = true
		g.link.send(proto.TypeInitDone, proto.InitDone{Subscribed: g.telemetry.Wanted()})
	case g.event != nil && g.event.ended:
		g.flushLogs()
		g.link.send(proto.TypeInvokeDone, proto.InvokeDone{RequestID: g.event.inv.RequestID})
		g.event = nil
		g.requestID.Store(nil)
	}
	g.deliver()
}

// endOfInit does what is to be done at the end of initialisation. g.mu is held.
func (g *guest) endOfInit() {
	if len(g.extensions) > 0 {
		g.runtimeDone() // first, as on Lambda
	}
	g.flushLogs()
	g.telemetry.CloseSubscriptions()
	g.reportExtensions()
}

// runtimeDone tells the host that the runtime has done its part, while
// extensions have not. g.mu is held.
func (g *guest) runtimeDone() {
	var done proto.InvokeDone
	switch ev := g.event; {
	case !g.initOver && !g.runtimeInit:
		g.runtimeInit = true
	case g.initOver && ev != nil && ev.ended && !ev.told:
		ev.told = true
		done.RequestID = ev.inv.RequestID
	default:
		return
	}
	g.flushLogs()
	g.link.send(proto.TypeRuntimeDone, done)
}

// deliver hands the event to the runtime and the extensions once all wait for
// it. g.mu is held.
func (g *guest) deliver() {
	ev := g.event
	if ev == nil || ev.delivered || !g.initOver || len(g.waiters) == 0 || g.state != stateReady {
		return
	}
	// The newest: older ones may belong to clients that have given up.
	last := len(g.waiters) - 1
	w := g.waiters[last]
	g.waiters = g.waiters[:last]
	ev.delivered = true
	g.state = stateRunning
	g.invokeExtensions(ev)
	w.answer(ev)
}
