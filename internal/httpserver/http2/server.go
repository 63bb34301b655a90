// Package http2 is the HTTP/2 server that viewers' connections end in. It serves a
// standard http.Handler, and beside it a Fast handler, which answers a request for
// what is in the cache at once, in the goroutine that reads the connection.
//
// It exists because of what a hit costs: net/http's server begins a goroutine for
// each stream and another for each frame that it writes, and a request of 1 KB took
// it 50 µs of CPU time where nginx took 18 µs. Here one goroutine reads a
// connection. It answers plain hits of all requests that came together into one
// buffer, which TLS makes records of and one system call sends. Field blocks refer to
// nothing but HPACK's static table, so that they are made once an object. Every
// other request has a goroutine, in which the handler runs.
//
// Nobody waits for the viewer but who must: TLS writes into memory (Link), and what
// the socket does not take at once goes in the background. A connection whose viewer
// reads slowly holds maxBacklog bytes of bodies, and maxHeld in all, beyond which
// nothing is read from it any more; what makes no progress for WriteTimeout ends.
// That bounds what floods of PING, SETTINGS and the like can hold; a budget bounds
// how many of them, and of requests that are taken back, there are in a second.
//
// The rules are those of RFC 9113. Priorities are read and ignored, as it allows, and
// nothing is pushed. HPACK's decoder is that of golang.org/x/net.
package http2

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/httpserver/conns"
)

const (
	// maxList is the largest header, counted as RFC 9113 has it (6.5.2), in bytes,
	// and maxBlock the largest as it comes, each frame with its head.
	maxList  = 64 << 10
	maxBlock = 2 * maxList
	// streamWindow and connWindow are how much of a body may come before it is read.
	streamWindow = 512 << 10
	connWindow   = 1 << 20
	// sealAt is how many bytes of frames are gathered before TLS makes records of
	// them.
	sealAt = 64 << 10
	// maxBacklog is how much the socket may have to take before no more of bodies is
	// given to it, and maxHeld before nothing is read any more.
	maxBacklog = 256 << 10
	maxHeld    = 512 << 10
)

// Fast answers requests from their heads.
type Fast interface {
	// ServeHit answers a request that has no body, or returns false to have it served
	// by the Handler. It must not block. The method may be any: an answer to HEAD has
	// no body.
	ServeHit(h *Head, r *Reply) bool
}

// Reply is a fast answer.
type Reply struct {
	// Block is what the fields are appended to, by AppendStatus and AppendField.
	Block []byte
	// Body is not copied before it is sent, and not changed meanwhile.
	Body []byte
}

// Server serves connections of viewers.
type Server struct {
	Handler http.Handler
	Fast    Fast // nil: none
	// Refusal makes the body of an answer to a request that is not served, and its
	// Content-Type; nil: a line of text.
	Refusal func(status int, why string) (contentType string, body []byte)
	// HeaderTimeout is how long a head may take from its first byte on, IdleTimeout
	// how long the next one may be in coming, BodyTimeout how long the next bytes of
	// a body may be, and WriteTimeout how long a viewer may take none of an answer.
	// 0 stands for 30 s, 60 s, 60 s and 60 s.
	HeaderTimeout, IdleTimeout, BodyTimeout, WriteTimeout time.Duration
	// MaxStreams is how many requests there may be at once on a connection; 0: 128.
	MaxStreams int
	Logger     *slog.Logger

	conns conns.Set[*conn]
}

// limits are a server's, with what 0 stands for.
type limits struct {
	header, idle, body, write time.Duration
	streams                   int
}

func (s *Server) limits() limits {
	or := func(d, standard time.Duration) time.Duration {
		if d > 0 {
			return d
		}
		return standard
	}
	l := limits{or(s.HeaderTimeout, 30*time.Second), or(s.IdleTimeout, time.Minute), or(s.BodyTimeout, time.Minute), or(s.WriteTimeout, time.Minute), s.MaxStreams}
	if l.streams <= 0 {
		l.streams = 128
	}
	return l
}

// ServeConn serves a connection until its end. A *tls.Conn has made its handshake,
// and best has a Link below it. The contexts of requests have the values of ctx.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	c := newConn(ctx, s, nc)
	if !s.conns.Add(c, 0) {
		_ = nc.Close()
		return
	}
	defer s.conns.Remove(c)
	c.serve()
}

// Shutdown lets no connection in any more, tells viewers to send no more requests,
// and waits until those under way are answered. It ends them all when ctx does, and
// returns its cause then.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Drain(ctx) }

// Close ends all connections at once.
func (s *Server) Close() { s.conns.Abort() }

func (s *Server) log() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

// linkOf returns the link below a connection, and what frames are written to. A
// connection without one gets one where it needs no TLS.
func linkOf(nc net.Conn) (*Link, net.Conn, *tls.ConnectionState) {
	t, ok := nc.(*tls.Conn)
	if !ok {
		l := NewLink(nc)
		return l, l, nil
	}
	state := t.ConnectionState()
	l, ok := t.NetConn().(*Link)
	if !ok {
		// TLS writes to the socket itself, and what it writes is not held back.
		l = NewLink(t)
		return l, l, &state
	}
	return l, t, &state
}
