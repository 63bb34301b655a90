package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/system"
	"lapwing.dev/lapwing/internal/quiet"
)

// A guest whose runtime waits in restore/next, and whose extensions wait for
// their next events, can be taken off its System: what it knows is written down
// as kept, and whoever has the System of a snapshot goes on from that.

// Unfit is why what runs in a sandbox cannot be kept in a snapshot, for users.
type Unfit string

// Error implements error.
func (u Unfit) Error() string { return string(u) }

// kept is what a guest knows.
type kept struct {
	Start      *proto.Start // without credentials, which are replaced in each clone; nil: a runtime waits that was started for no function
	Token      string       // restoring.token
	Listeners  []keptListener
	Conns      []keptConn
	Logs       []keptLog
	Runtime    int
	Extensions []keptExtension
}

type keptListener struct {
	Handle        int
	Network, Name string
}

// keptConn is a connection of the Runtime API.
type keptConn struct {
	Handle int
	// Method is that of the request under way, or empty; Extension is whose next
	// event it waits for, or empty: it is the runtime's.
	Method, Proto string
	Close         bool
	Extension     string
}

type keptLog struct {
	Handle  int
	Source  string
	Framed  bool
	Partial []byte
}

type keptExtension struct {
	Name, ID  string
	External  bool
	Process   int // of an external one
	State     extensionState
	Events    []string
	ErrorType string
}

// restWithin is how long after Park of the System all may take to come to rest.
const restWithin = time.Second

// Park takes the guest off its System, which must be a system.Keeper on which no
// process runs any more, and returns what Resume needs on another with the same
// state. Whatever it returns, the Supervisor and the System are of no more use. It
// fails with an Unfit where the guest cannot be kept.
func (s *Supervisor) Park() ([]byte, error) {
	sys, ok := s.sys.(system.Keeper)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.current
	if g == nil {
		return nil, errors.New("guest: not running")
	}
	sys.Park()
	g.mu.Lock() // for good
	if g.state != stateRestoreReady || !g.restoring.told || g.restoring.restored || g.restoring.waiter == nil || g.dead || g.ending {
		return nil, Unfit("its runtime does not wait for a snapshot")
	}
	if reason := g.unfit(); reason != "" {
		return nil, Unfit(reason)
	}
	var conns []http1.Rested
	for deadline := time.Now().Add(restWithin); ; time.Sleep(time.Millisecond) {
		if conns, ok = g.resting(); ok {
			break
		}
		if time.Now().After(deadline) {
			return nil, Unfit("it does not come to rest")
		}
	}
	k, err := g.keep(conns)
	if err != nil {
		return nil, err
	}
	return json.Marshal(k)
}

// resting tells whether all that reads or accepts waits for good, and returns the
// connections. g.mu is held.
func (g *guest) resting() ([]http1.Rested, bool) {
	for _, l := range g.listeners {
		if !l.(system.Kept).Resting() {
			return nil, false
		}
	}
	for _, p := range g.logs {
		if !p.r.(system.Kept).Resting() {
			return nil, false
		}
	}
	return g.srv.Resting()
}

// keep writes down what the guest knows, at rest. g.mu is held.
func (g *guest) keep(conns []http1.Rested) (*kept, error) {
	start := *g.start
	start.Credentials = nil
	k := &kept{Start: &start, Token: g.restoring.token, Runtime: g.runtime.Process.(system.Kept).Keep()}
	if start.Blank {
		k.Start = nil
	}
	for _, c := range conns {
		one := keptConn{}
		if r := c.Request; r != nil {
			i := slices.IndexFunc(g.extensions, func(e *extension) bool { return e.waiting != nil && e.req == r })
			if i < 0 && r != g.restoring.req || !r.Alone() {
				return nil, Unfit("a request of it is under way")
			}
			if i >= 0 {
				one.Extension = g.extensions[i].id
			}
			one.Method, one.Proto, one.Close = r.Method, r.Proto, r.Close()
		}
		one.Handle = c.Conn.(system.Kept).Keep()
		k.Conns = append(k.Conns, one)
	}
	for _, l := range g.listeners {
		k.Listeners = append(k.Listeners, keptListener{l.(system.Kept).Keep(), l.Addr().Network(), l.Addr().String()})
	}
	for _, p := range g.logs {
		k.Logs = append(k.Logs, keptLog{p.r.(system.Kept).Keep(), p.source, p.framed, p.partial})
	}
	for _, e := range g.extensions {
		one := keptExtension{Name: e.name, ID: e.id, External: e.external, State: e.state, Events: e.events, ErrorType: e.errorType}
		if e.proc != nil {
			one.Process = e.proc.Process.(system.Kept).Keep()
		}
		k.Extensions = append(k.Extensions, one)
	}
	return k, nil
}

// Resume goes on as Run from what Park returned, with the System and the host
// connection of a clone.
func (s *Supervisor) Resume(conn net.Conn, state []byte) error {
	sys, ok := s.sys.(system.Keeper)
	if !ok {
		return errors.ErrUnsupported
	}
	k := new(kept)
	if err := json.Unmarshal(state, k); err != nil {
		return fmt.Errorf("guest: state of a snapshot: %w", err)
	}
	conn = quiet.New(conn)
	g := newGuest(conn, newInbox(conn), sys)
	if err := g.restore(sys, k); err != nil {
		return fmt.Errorf("guest: resuming from a snapshot: %w", err)
	}
	return s.serve(g, conn)
}

// restore makes g what k says.
func (g *guest) restore(sys system.Keeper, k *kept) error {
	g.mu.Lock() // against what is resumed first
	defer g.mu.Unlock()
	if k.Start == nil {
		g.restoring.blank = true // all else is as before a start
	} else {
		g.start, g.state = k.Start, stateRestoreReady
		g.restoring.token, g.restoring.told = k.Token, true
		g.closed, g.reported, g.starting = true, true, 0
		close(g.registered)
		g.telemetry.CloseSubscriptions()
	}
	for _, l := range k.Logs {
		r, err := sys.OpenPipe(l.Handle)
		if err != nil {
			return err
		}
		p := g.logPipe(r, l.Source, l.Framed)
		p.partial = l.Partial
		g.logs = append(g.logs, p)
		go p.run()
	}
	var err error
	if g.runtime, err = g.adopt(sys, k.Runtime, nil); err != nil {
		return err
	}
	for _, e := range k.Extensions {
		ext := &extension{name: e.Name, id: e.ID, external: e.External, state: e.State, events: e.Events, errorType: e.ErrorType}
		if e.Process != 0 {
			if ext.proc, err = g.adopt(sys, e.Process, ext); err != nil {
				return err
			}
		}
		g.extensions = append(g.extensions, ext)
	}
	for _, l := range k.Listeners {
		listener, err := sys.Listener(l.Handle, l.Network, l.Name)
		if err != nil {
			return err
		}
		g.accept(listener)
	}
	for _, c := range k.Conns {
		conn, err := sys.Conn(c.Handle)
		if err != nil {
			return err
		}
		g.srv.Resume(conn, c.Method, c.Proto, c.Close, g.pending(&c))
	}
	return nil
}

// adopt returns a process of a snapshot. g.mu is held.
func (g *guest) adopt(sys system.Keeper, handle int, ext *extension) (*process, error) {
	p := &process{exited: make(chan struct{})}
	var err error
	p.Process, err = sys.Process(handle, func(ws syscall.WaitStatus) { g.exited(p, ext, ws) })
	return p, err
}

// pending returns what answers the request under way on a connection. g.mu is
// held.
func (g *guest) pending(c *keptConn) http1.Handler {
	if c.Extension == "" {
		w := make(chan *http1.Response, 1)
		if c.Method != "" {
			g.restoring.waiter = w
		}
		return func(*http1.Request) http1.Response { return goOn(w) }
	}
	ch := make(chan []byte, 1)
	for _, e := range g.extensions {
		if e.id == c.Extension {
			e.waiting = ch
		}
	}
	return func(*http1.Request) http1.Response { return extensionEvent(ch) }
}
