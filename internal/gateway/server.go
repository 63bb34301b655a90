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

	"golang.org/x/net/netutil"

	"lapwing.dev/lapwing/internal/quiet"
)

// Limits on what a client may hold without having sent a whole request.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 3 * time.Minute // longer than SDKs keep idle connections
	maxHeaderBytes = 64 << 10
	maxStreams     = 250 // concurrent requests on one HTTP/2 connection

	// DefaultMaxConnections is how many connections a listener serves at once.
	DefaultMaxConnections = 8192
)

// ServerOptions configures a Server.
type ServerOptions struct {
	Handler http.Handler
	Logger  *slog.Logger
	// MaxConnections is how many connections each listener serves at once; more
	// wait in the kernel. 0 means DefaultMaxConnections.
	MaxConnections int
}

// Server serves a handler on any number of listeners with HTTP/1.1 and HTTP/2:
// over TLS as the client negotiates, and in clear text with prior knowledge.
type Server struct {
	server   *http.Server
	maxConns int
	serving  sync.WaitGroup
}

// NewServer returns a Server; Serve starts it.
func NewServer(o ServerOptions) *Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	return &Server{
		maxConns: o.MaxConnections,
		server: &http.Server{
			Handler:           o.Handler,
			Protocols:         protocols,
			HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		},
	}
}

// Serve serves the connections of a listener, over TLS if a configuration is
// given, until Shutdown or an error of the listener. After Shutdown it returns
// nil. It takes the listener over and closes it.
func (s *Server) Serve(l net.Listener, tlsConfig *tls.Config) error {
	s.serving.Add(1)
	defer s.serving.Done()
	limited := netutil.LimitListener(quiet.Listen(l), s.maxConns)
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.NextProtos = []string{"h2", "http/1.1"}
		limited = tls.NewListener(limited, tlsConfig)
	}
	err := s.server.Serve(limited)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// Shutdown stops listening and waits until the requests under way are
// answered. When ctx ends first it breaks them off and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	s.serving.Wait()
	return err
}
