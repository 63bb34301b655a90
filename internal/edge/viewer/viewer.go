// Package viewer is how viewers reach an edge location: listeners for HTTP/1.1,
// HTTP/2 and HTTP/3, with TLS by the name that the viewer asks for.
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
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/netutil"

	"lapwing.dev/lapwing/internal/quiet"
)

// Limits on what a viewer may hold without having sent a whole request, and on how
// long it may take no bytes.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = time.Minute
	writeTimeout   = time.Minute
	maxHeaderBytes = 64 << 10 // the pipeline refuses less than that, in CloudFront's words
	maxStreams     = 128      // concurrent requests on one connection
	maxConnections = 16384    // a listener's
)

// Options configures a Server. All fields are required.
type Options struct {
	Handler      http.Handler
	Certificates *Certificates
	Logger       *slog.Logger
}

// Server serves viewers on any number of listeners.
type Server struct {
	options Options
	server  *http.Server
	mu      sync.Mutex
	quic    []*http3.Server
	serving sync.WaitGroup
}

// New returns a Server.
func New(o Options) *Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &Server{options: o, server: &http.Server{
		Handler: o.Handler, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}}
}

// Serve serves the connections of a listener in clear text, or over TLS where
// secure says so, until Shutdown or an error of the listener. After Shutdown it
// returns nil. It takes the listener over and closes it.
func (s *Server) Serve(l net.Listener, secure bool) error {
	s.serving.Add(1)
	defer s.serving.Done()
	limited := net.Listener(patient{netutil.LimitListener(quiet.Listen(l), maxConnections)})
	if secure {
		limited = tls.NewListener(limited, s.options.Certificates.TLS())
	}
	if err := s.server.Serve(limited); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve viewers at %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeQUIC serves HTTP/3 on a socket, as Serve does. It closes the socket.
func (s *Server) ServeQUIC(c net.PacketConn) error {
	s.serving.Add(1)
	defer s.serving.Done()
	defer c.Close() //nolint:errcheck // nothing is lost with it
	q := &http3.Server{
		Handler: s.options.Handler, TLSConfig: s.options.Certificates.QUIC(), MaxHeaderBytes: maxHeaderBytes, IdleTimeout: idleTimeout,
		QUICConfig: &quic.Config{MaxIncomingStreams: maxStreams, MaxIdleTimeout: idleTimeout, HandshakeIdleTimeout: headerTimeout},
		Logger:     slog.New(slog.DiscardHandler),
	}
	s.mu.Lock()
	s.quic = append(s.quic, q)
	s.mu.Unlock()
	if err := q.Serve(c); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve viewers at %s: %w", c.LocalAddr(), err)
	}
	return nil
}

// Shutdown stops listening and waits until the requests under way are answered.
// When ctx ends first it breaks them off and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	quic := s.quic
	s.mu.Unlock()
	var errs []error
	for _, q := range quic {
		if err := q.Shutdown(ctx); err != nil {
			errs = append(errs, err, q.Close())
		}
	}
	if err := s.server.Shutdown(ctx); err != nil {
		errs = append(errs, err, s.server.Close())
	}
	s.serving.Wait()
	return errors.Join(errs...)
}

// patient is a listener of connections that break where the viewer takes nothing
// for too long.
type patient struct{ net.Listener }

// Accept implements net.Listener.
func (l patient) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return patientConn{c}, nil
}

type patientConn struct{ net.Conn }

// Write implements net.Conn.
func (c patientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
