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
)

// quicListener is a server of HTTP/3 and its socket, which has to stay until the
// connections have drained.
type quicListener struct {
	server *http3.Server
	socket net.PacketConn
}

// ServeQUIC serves HTTP/3 on a socket, as Serve does. It takes the socket over and
// closes it, after Shutdown when that has ended.
func (s *Server) ServeQUIC(c net.PacketConn) error {
	q := &http3.Server{
		Handler: http.HandlerFunc(s.serveHTTP3), TLSConfig: s.options.Certificates.QUIC(), MaxHeaderBytes: maxHeaderBytes, IdleTimeout: s.limits.idle,
		QUICConfig: &quic.Config{MaxIncomingStreams: maxStreams, MaxIdleTimeout: s.limits.idle, HandshakeIdleTimeout: s.limits.header},
		Logger:     slog.New(slog.DiscardHandler),
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return c.Close()
	}
	s.quic = append(s.quic, quicListener{q, c})
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	if err := q.Serve(c); err != nil && !s.isClosed() {
		_ = c.Close() // which has failed
		return fmt.Errorf("serve viewers at %s: %w", c.LocalAddr(), err)
	}
	return nil
}

// drain lets the requests under way end, until ctx does.
func (l *quicListener) drain(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	_ = l.socket.Close() // nothing more is to be sent
	return err
}

// serveHTTP3 serves a request. quic-go ends a connection on which nothing comes at
// all; here a stream ends on which nothing comes or is taken, as with the other
// protocols.
func (s *Server) serveHTTP3(w http.ResponseWriter, r *http.Request) {
	stream := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &timedBody{r.Body, stream, s.limits.body}
	}
	s.options.Handler.ServeHTTP(&timedWriter{w, stream, s.limits.write}, r)
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
