package viewer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"lapwing.dev/lapwing/internal/edge/clienthello"
	"lapwing.dev/lapwing/internal/httpsyntax"
)

// quicListener is a server of HTTP/3 with what it listens on: the socket has to stay
// until the connections have drained.
type quicListener struct {
	server    *http3.Server
	listener  *quic.EarlyListener
	transport *quic.Transport
	socket    net.PacketConn
}

// ServeQUIC serves HTTP/3 on a socket, as Serve does. It takes the socket over and
// closes it, after Shutdown when that has ended.
func (s *Server) ServeQUIC(c net.PacketConn) error {
	q := quicListener{
		server: &http3.Server{
			Handler: http.HandlerFunc(s.serveHTTP3), MaxHeaderBytes: maxHeaderBytes, IdleTimeout: s.limits.idle, Logger: slog.New(slog.DiscardHandler),
		},
		transport: &quic.Transport{Conn: c, ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			return clienthello.NewContext(ctx, new(clienthello.Hello)), nil // which the handshake fills in
		}},
		socket: c,
	}
	config := &quic.Config{MaxIncomingStreams: maxStreams, MaxIdleTimeout: s.limits.idle, HandshakeIdleTimeout: s.limits.header}
	var err error
	if q.listener, err = q.transport.ListenEarly(http3.ConfigureTLSConfig(s.options.Certificates.QUIC()), config); err != nil {
		return fmt.Errorf("serve viewers at %s: %w", c.LocalAddr(), errors.Join(err, c.Close()))
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return q.close()
	}
	s.quic = append(s.quic, q)
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	if err := q.server.ServeListener(q.listener); err != nil && !s.isClosed() {
		return fmt.Errorf("serve viewers at %s: %w", c.LocalAddr(), errors.Join(err, q.close()))
	}
	return nil
}

// close breaks off what there is.
func (l *quicListener) close() error {
	return errors.Join(l.listener.Close(), l.transport.Close(), l.socket.Close())
}

// drain lets the requests under way end, until ctx does.
func (l *quicListener) drain(ctx context.Context) error {
	_ = l.listener.Close() // nobody is let in any more
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	_ = l.close() // nothing more is to be sent
	return err
}

// serveHTTP3 serves a request. quic-go ends a connection on which nothing comes at
// all; here a stream ends on which nothing comes or is taken, as with the other
// protocols.
func (s *Server) serveHTTP3(w http.ResponseWriter, r *http.Request) {
	if status, why := refusal(r); status != 0 {
		s.refuse(w, status, why)
		return
	}
	stream := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &timedBody{r.Body, stream, s.limits.body}
	}
	s.options.Handler.ServeHTTP(&timedWriter{w, stream, s.limits.write}, r)
}

// refusal tells why a request is refused as over HTTP/2, for what quic-go lets pass;
// status 0: it is not.
func refusal(r *http.Request) (status int, why string) {
	switch {
	case r.Method == http.MethodConnect:
		return http.StatusNotImplemented, "CONNECT is not supported"
	case !httpsyntax.IsHost(r.Host):
		return http.StatusBadRequest, "malformed authority"
	}
	return 0, ""
}

// refuse answers a request that no handler sees.
func (s *Server) refuse(w http.ResponseWriter, status int, why string) {
	contentType, body := "text/plain; charset=utf-8", []byte(why+"\n")
	if s.options.Refusal != nil {
		contentType, body = s.options.Refusal(status, why)
	}
	w.Header()["Content-Type"] = []string{contentType}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the viewer may be gone
}

// timedBody is a body of which the next bytes have to come within a time.
type timedBody struct {
	io.ReadCloser
	stream *http.ResponseController
	limit  time.Duration
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	if err := b.stream.SetReadDeadline(time.Now().Add(b.limit)); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

// timedWriter writes to a viewer that has to take some of it within a time.
type timedWriter struct {
	http.ResponseWriter
	stream *http.ResponseController
	limit  time.Duration
}

// maxWrite is the most that is written under one deadline.
const maxWrite = 512 << 10

// Write implements http.ResponseWriter.
func (w *timedWriter) Write(p []byte) (n int, err error) {
	for {
		if err := w.stream.SetWriteDeadline(time.Now().Add(w.limit)); err != nil {
			return n, err
		}
		m, err := w.ResponseWriter.Write(p[n:min(len(p), n+maxWrite)])
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
