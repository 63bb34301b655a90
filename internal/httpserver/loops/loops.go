// Package loops serves connections in event loops: one a processor, each with an
// epoll of its own and connections that stay with it. What takes longer than an
// answer that is ready leaves its loop, for an ordinary goroutine with an ordinary
// net.Conn, and may come back.
//
// It exists because of the 99th percentile at saturation. Go's connections share one
// poller, whose threads give each other what is ready: none sleeps as long as a client
// on any processor sends more, and the client whose processor such a thread has, or
// the function there, waits for the kernel's tick. A loop sleeps when it has answered
// its own connections, as the threads of Varnish and HAProxy do, and lets others run
// where it has not slept for a while (docs/edge-performance.md has the figures).
package loops

import (
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// Conn is a connection as its loop has it, which calls one method at a time. None may
// block.
type Conn interface {
	// Serve answers what has come, which is valid until it returns, through s, and
	// returns how much of it was used.
	Serve(s *Socket, in []byte) (used int, then Then)
	// Leave goes on, in a goroutine of its own, with a connection that has left its
	// loop: read has come and was not used, unsent is to be sent before anything else.
	Leave(nc net.Conn, read []byte, unsent [2][]byte)
	// Ended is called when the connection has been closed without Leave; err says what
	// the system refused, if that was why.
	Ended(err error)
}

// Then is what becomes of a connection after a turn.
type Then int

// What becomes of a connection.
const (
	Stay  Then = iota // it waits for more; where not all was used, it leaves
	Leave             // it leaves its loop
	End               // it is closed when all is sent
)

// Limits are how long a client may take.
type Limits struct {
	// Idle is how long the next bytes may be in coming, and Write how long it may take
	// nothing of an answer.
	Idle, Write time.Duration
}

// Group is the loops of a server.
type Group struct {
	loops []*loop
	next  atomic.Uint32
}

// New starts a loop for each processor that Go uses. Close ends them.
func New(limits Limits) (*Group, error) {
	g := &Group{}
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(limits)
		if err != nil {
			g.Close()
			return nil, err
		}
		g.loops = append(g.loops, l)
		go l.run() // until Close
	}
	return g, nil
}

// Close has the loops close the connections that they have, and end. It does not
// wait for them.
func (g *Group) Close() {
	for _, l := range g.loops {
		l.tell(order{what: stop})
	}
}

// Socket returns the socket of a connection in one of the loops, which owns the
// descriptor from now on. It is served once it is started.
func (g *Group) Socket(fd int, c Conn) *Socket {
	return &Socket{loop: g.loops[int(g.next.Add(1))%len(g.loops)], fd: fd, conn: c, slot: outside}
}
