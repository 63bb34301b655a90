// Package viewer is how viewers reach an edge location: listeners for HTTP/1.1,
// HTTP/2 and HTTP/3, with TLS by the name that the viewer asks for. HTTP/1.1 is
// served by package http1, HTTP/2 by package http2, and HTTP/3 by quic-go.
package viewer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/acme"
	"lapwing.dev/lapwing/internal/httpserver/conns"
	"lapwing.dev/lapwing/internal/httpserver/http1"
	"lapwing.dev/lapwing/internal/httpserver/http2"
	"lapwing.dev/lapwing/internal/quiet"
)

// limits are how long a viewer may take for a head, rest between requests, send
// nothing of a body, and take nothing of an answer.
type limits struct{ header, idle, body, write time.Duration }

var standard = limits{10 * time.Second, time.Minute, time.Minute, time.Minute}

// Limits on what a viewer may hold.
const (
	maxHeaderBytes = 64 << 10 // the pipeline refuses less than that, in CloudFront's words
	maxStreams     = 128      // concurrent requests on one connection
	maxConnections = 16384    // with TLS, and as many without
)

// Fast answers requests from their heads.
type Fast interface {
	http1.Fast
	http2.Fast
}

// Options configures a Server. Fast may be nil, Certificates where nothing is
// served over TLS.
type Options struct {
	Handler      http.Handler
	Fast         Fast
	Certificates *Certificates
	Logger       *slog.Logger
	// Refusal makes the page of a request that is not understood; nil: a line.
	Refusal func(status int, why string) (contentType string, body []byte)
}

// Server serves viewers on any number of listeners.
type Server struct {
	options Options
	limits  limits
	http1   *http1.Server
	http2   *http2.Server
	serving sync.WaitGroup
	secure  atomic.Int32 // connections with TLS

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	quic      []quicListener
}

// New returns a Server. Shutdown ends it.
func New(o Options) *Server { return newServer(o, standard) }

func newServer(o Options, l limits) *Server {
	return &Server{
		options: o, limits: l,
		http1: &http1.Server{
			Handler: o.Handler, Fast: o.Fast, Refusal: o.Refusal, Logger: o.Logger, MaxConns: maxConnections,
			HeaderTimeout: l.header, IdleTimeout: l.idle, BodyTimeout: l.body, WriteTimeout: l.write,
		},
		http2: &http2.Server{
			Handler: o.Handler, Fast: o.Fast, Refusal: o.Refusal, Logger: o.Logger, MaxStreams: maxStreams,
			HeaderTimeout: l.header, IdleTimeout: l.idle, BodyTimeout: l.body, WriteTimeout: l.write,
		},
	}
}

// Serve serves the connections of a listener in clear text, or over TLS where
// secure says so, until Shutdown or an error of the listener. After Shutdown it
// returns nil. It takes the listener over and closes it.
func (s *Server) Serve(l net.Listener, secure bool) error {
	served, serve := quiet.Listen(l), s.http1.Serve
	if secure {
		serve = s.serveTLS
	}
	if !s.add(served) {
		return l.Close()
	}
	defer s.serving.Done()
	if err := serve(served); err != nil && !s.isClosed() {
		return fmt.Errorf("serve viewers at %s: %w", l.Addr(), err)
	}
	return nil
}

// add takes note of a listener; it fails after Shutdown.
func (s *Server) add(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners = append(s.listeners, l)
	s.serving.Add(1)
	return true
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// serveTLS makes handshakes, and has each connection served by the protocol that
// came of it.
func (s *Server) serveTLS(l net.Listener) error {
	return conns.Accept(l, s.options.Logger, s.isClosed, func(raw net.Conn) { go s.serveTLSConn(raw) })
}

// serveTLSConn serves a connection over TLS.
func (s *Server) serveTLSConn(raw net.Conn) {
	config, values := s.options.Certificates.connection()
	defer s.secure.Add(-1)
	if s.secure.Add(1) > maxConnections {
		_ = raw.Close()
		return
	}
	c := tls.Server(http2.NewLink(raw), config)
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.header)
	err := c.HandshakeContext(ctx)
	cancel()
	if err != nil {
		s.options.Logger.Debug("a viewer's TLS handshake failed", "viewer", raw.RemoteAddr(), "error", err)
		_ = raw.Close()
		return
	}
	switch c.ConnectionState().NegotiatedProtocol {
	case "h2":
		s.http2.ServeConn(values(), c)
	case acme.ALPNProtocol:
		_ = c.Close() // the authority has seen the certificate
	default:
		s.http1.ServeConn(values(), c)
	}
}

// Shutdown stops listening and waits until the requests under way are answered.
// When ctx ends first it breaks them off and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	listeners, quic := s.listeners, s.quic
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // nothing is accepted any more, whatever it says
	}
	// All at once: each has the time that is left.
	var ending sync.WaitGroup
	errs := make([]error, len(quic)+2)
	ending.Go(func() { errs[0] = s.http1.Shutdown(ctx) })
	ending.Go(func() { errs[1] = s.http2.Shutdown(ctx) })
	for i, q := range quic {
		ending.Go(func() { errs[i+2] = q.drain(ctx) })
	}
	ending.Wait()
	s.serving.Wait()
	return errors.Join(errs...)
}
