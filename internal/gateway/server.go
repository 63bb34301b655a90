package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/httpserver/conns"
	"lapwing.dev/lapwing/internal/httpserver/http1"
	"lapwing.dev/lapwing/internal/quiet"
)

// Limits on what a client may hold without having sent a whole request.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 3 * time.Minute // longer than SDKs keep idle connections
	maxHeaderBytes = 64 << 10
	maxStreams     = 250 // concurrent requests on one HTTP/2 connection

	maxConnections = 8192 // of a listener at once; more wait in the kernel
)

// ServerOptions configures a Server.
type ServerOptions struct {
	Handler http.Handler
	Logger  *slog.Logger
}

// Server serves a handler on any number of listeners with HTTP/1.1 and HTTP/2:
// over TLS as the client negotiates, and in clear text with prior knowledge.
// HTTP/1.1 is served by package http1, which starts no goroutine for a request.
type Server struct {
	http1   *http1.Server
	http2   *http.Server
	streams *handover // of the connections that speak HTTP/2
	log     *slog.Logger
	serving sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
}

// NewServer returns a Server; Serve starts it, and Shutdown ends it.
func NewServer(o ServerOptions) *Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &Server{
		log:     o.Logger,
		streams: &handover{conns: make(chan net.Conn), closed: make(chan struct{})},
		http2: &http.Server{
			Handler:           o.Handler,
			Protocols:         protocols,
			HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		},
	}
	s.http1 = &http1.Server{
		Handler: o.Handler, Logger: o.Logger, PriorKnowledge: s.streams.give,
		MaxHead: maxHeaderBytes, MaxTarget: maxHeaderBytes, LongHead: http.StatusRequestHeaderFieldsTooLarge,
		HeaderTimeout: headerTimeout, FirstTimeout: headerTimeout, IdleTimeout: idleTimeout, BodyTimeout: defaultStall, WriteTimeout: defaultStall,
	}
	s.serving.Go(func() { _ = s.http2.Serve(s.streams) }) // ends with Shutdown
	return s
}

// Serve serves the connections of a listener, over TLS if a configuration is
// given, until Shutdown or an error of the listener. After Shutdown it returns
// nil. It takes the listener over and closes it.
func (s *Server) Serve(l net.Listener, tlsConfig *tls.Config) error {
	limited := conns.Limit(quiet.Listen(l), maxConnections)
	if !s.add(limited) {
		return l.Close()
	}
	defer s.serving.Done()
	serve := func(c net.Conn) { s.http1.ServeConn(context.Background(), c) }
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.NextProtos = []string{"h2", "http/1.1"}
		serve = func(c net.Conn) { s.serveTLS(tls.Server(c, tlsConfig)) }
	}
	if err := conns.Accept(limited, s.log, s.isClosed, func(c net.Conn) { go serve(c) }); err != nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// serveTLS makes the handshake and serves what the client has chosen in it.
func (s *Server) serveTLS(c *tls.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), headerTimeout)
	err := c.HandshakeContext(ctx)
	cancel()
	switch {
	case err != nil:
		s.log.Debug("a TLS handshake failed", "client", c.RemoteAddr(), "error", err)
		_ = c.NetConn().Close()
	case c.ConnectionState().NegotiatedProtocol == "h2":
		s.streams.give(c)
	default:
		s.http1.ServeConn(context.Background(), c)
	}
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

// Shutdown stops listening and waits until the requests under way are
// answered. When ctx ends first it breaks them off and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // nothing is accepted any more, whatever it says
	}
	var first error
	s.serving.Go(func() { first = s.http1.Shutdown(ctx) }) // at once: neither takes requests meanwhile
	second := s.http2.Shutdown(ctx)
	if second != nil {
		second = errors.Join(second, s.http2.Close())
	}
	s.serving.Wait()
	return errors.Join(first, second)
}

// handover is a listener of connections that have been accepted already.
type handover struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }
