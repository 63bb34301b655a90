// Package http1 is the HTTP/1.1 server that viewers' connections end in, and those
// of the front door, which has limits of its own. It serves
// a standard http.Handler, and beside it a Fast handler, which answers a request
// for what is in the cache from the bytes of its head, before there is an
// *http.Request, with bytes that go out in one write.
//
// It exists because of what a hit of 1 KB costs: net/http needs 1.4 times the CPU
// time of nginx for one, of which the request's parts, the response's header and
// the deadlines are more than the system calls. valyala/fasthttp, the obvious
// library, was looked at first. Its handlers have a context of its own, which
// would make a second pipeline beside the one of HTTP/2 and HTTP/3, and its adaptor
// for http.Handler neither streams nor flushes; and its parser takes line ends and
// framings that an edge in front of other servers must refuse.
//
// The parser is strict: lines end with CRLF, field names are tokens, nothing is
// folded, a length and a transfer encoding exclude each other and neither comes
// twice, and only "chunked" is a transfer encoding. Whatever it accepts, net/http
// reads the same way; a fuzz test holds it to that. What the developer guide of
// CloudFront says of sizes holds: 32,768 bytes for request line and header, 8,192
// for the URL.
//
// Keep-alive, pipelining, chunked bodies both ways, 100-continue, Hijack, Flush and
// 1xx answers work as in net/http. Trailers are read and dropped. No goroutine
// watches over the client of a request, unless somebody waits for its context.
//
// A connection begins in a goroutine of its own. Where there is a Fast handler, one in
// clear text goes on in an event loop (package loops) after some fast answers, which
// asks that handler and nobody else. A request that it leaves to the Handler, or that
// has not come whole, takes the connection into a goroutine, and some fast answers later
// it returns.
package http1

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/httpserver/conns"
	"lapwing.dev/lapwing/internal/httpserver/loops"
)

const (
	// MaxHead is the largest request line and header together, in bytes, where a
	// Server says nothing else.
	MaxHead = 32 << 10
	// MaxTarget is the longest URL, in bytes, where a Server says nothing else.
	MaxTarget = 8 << 10
	// MaxFields is the largest number of header fields.
	MaxFields = 512
)

// Fast answers requests from their heads.
type Fast interface {
	// ServeFast answers a request that has no body, or returns false to have it
	// served by the Handler. It must not block, not even for the disk: other
	// connections of its event loop wait for it. It may be asked again for a request
	// that it left to the Handler. The connection stays open after it, and the method
	// may be any: an answer to HEAD has no body.
	ServeFast(c *Conn, h *Head, r *Reply) bool
}

// Reply is a fast answer.
type Reply struct {
	// Buffer is what the answer is appended to: its status line, its header, which
	// says how long the body is, and the body where it is small.
	Buffer []byte
	// Body follows Buffer. It is not copied, and not changed meanwhile.
	Body []byte
}

// Server serves connections of viewers.
type Server struct {
	Handler http.Handler
	Fast    Fast // nil: none
	// Refusal makes the body of an answer to a request that is not understood, and
	// its Content-Type; nil: a line of text.
	Refusal func(status int, why string) (contentType string, body []byte)
	// MaxHead and MaxTarget are limits of this server; 0 stands for the constants. A
	// head that is longer, or has more fields, is answered with the status LongHead; 0
	// stands for 413.
	MaxHead, MaxTarget, LongHead int
	// PriorKnowledge takes over a connection in clear text whose client begins to
	// speak HTTP/2 (RFC 9113, 3.3), as it came; nil: such a client is refused.
	PriorKnowledge func(net.Conn)
	// HeaderTimeout is how long a head may take from its first byte on, FirstTimeout
	// how long the first one of a connection may be in coming (0: as the next),
	// IdleTimeout how long the next one may be in coming, BodyTimeout how long the next bytes of
	// a body may be, and WriteTimeout how long a viewer may take none of an answer.
	// 0 stands for 30 s, and for 60 s.
	HeaderTimeout, FirstTimeout, IdleTimeout, BodyTimeout, WriteTimeout time.Duration
	// MaxConns is the largest number of connections; 0: any.
	MaxConns int
	Logger   *slog.Logger

	conns     conns.Set[*Conn]
	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	loops     *loops.Group // nil: none yet
	eager     bool         // connections begin in event loops, for tests
}

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = http.ErrServerClosed

// Serve serves the connections of a listener, which it closes, until Shutdown or
// Close, and returns ErrServerClosed then, or until the listener fails.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.listeners == nil {
		s.listeners = map[net.Listener]struct{}{}
	}
	s.listeners[l] = struct{}{}
	closing := s.isClosing()
	s.mu.Unlock()
	if closing {
		return ErrServerClosed
	}
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	group := s.startLoops()
	err := conns.Accept(l, s.log(), s.isClosing, func(c net.Conn) {
		go s.serveConn(context.Background(), c, group) // ends with the connection, which the server ends
	})
	if err != nil {
		return err
	}
	return ErrServerClosed
}

// ServeConn serves a connection until its end. A *tls.Conn has made its handshake.
// The contexts of requests have the values of ctx.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) { s.serveConn(ctx, nc, nil) }

// serveConn does what ServeConn does for a connection that may go on in an event loop
// of a group, unless that is nil.
func (s *Server) serveConn(ctx context.Context, nc net.Conn, group *loops.Group) {
	c := newConn(ctx, s, nc)
	c.home, c.patience = group, enterAfter
	if s.eager {
		c.patience = 0
	}
	if !s.conns.Add(c, s.MaxConns) {
		nc.Close()
		return
	}
	c.run()
}

func (s *Server) isClosing() bool { return s.conns.Draining() }

// Shutdown stops listening, ends the idle connections, waits for the others to
// answer what they are at, and ends them all when ctx does. It does not wait for
// connections that were hijacked.
func (s *Server) Shutdown(ctx context.Context) error {
	s.conns.Close()
	s.closeListeners()
	defer s.closeLoops()
	return s.conns.Drain(ctx)
}

// Close stops listening and ends all connections at once.
func (s *Server) Close() error {
	s.conns.Abort()
	s.closeListeners()
	s.closeLoops()
	return nil
}

// closeListeners makes Serve return.
func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		l.Close()
	}
}

func (s *Server) log() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

func orDefault[T int | time.Duration](d, standard T) T {
	if d > 0 {
		return d
	}
	return standard
}

// tlsState returns the state of a TLS connection, nil of others.
func tlsState(nc net.Conn) *tls.ConnectionState {
	t, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	return &state
}
