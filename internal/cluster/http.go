package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Bounds of connections between nodes. A node that does not answer is noticed
// within seconds, and one that is back is reached at once.
const (
	dialTimeout      = time.Second
	handshakeTimeout = 2 * time.Second
	pingAfter        = time.Second
	pingTimeout      = 2 * time.Second
	headerTimeout    = 30 * time.Second
	idleTimeout      = 90 * time.Second
	// maxHeader is the largest header of a request and of an answer, as HTTP/2 counts:
	// those of viewers and of origins, of 32 KB in HTTP/1.1, pass in whatever fields. A
	// node that refused one would be taken for one that is gone.
	maxHeader = 384 << 10
)

// Transport returns what makes requests to nodes of a role; their addresses are
// in the requests' URLs.
func (n *Node) Transport(role Role) *http.Transport {
	return transport(&http.Transport{TLSClientConfig: n.Client(role)})
}

// TransportTo returns what makes requests to one node and no other. Answers may be
// long in coming: who asks bounds the wait.
func (n *Node) TransportTo(i Identity) *http.Transport {
	t := transport(&http.Transport{TLSClientConfig: n.client(func(other Identity) error {
		if other != i {
			return fmt.Errorf("cluster: %s answers where %s should", other, i)
		}
		return nil
	})})
	t.ResponseHeaderTimeout = 0
	return t
}

// JoiningTransport is Transport to the core for a node that has yet to join.
func JoiningTransport(fingerprint string) *http.Transport {
	return transport(&http.Transport{TLSClientConfig: Joining(fingerprint)})
}

func transport(t *http.Transport) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}
	t.DialContext = dialer.DialContext
	t.TLSHandshakeTimeout = handshakeTimeout
	t.ResponseHeaderTimeout = headerTimeout
	t.IdleConnTimeout = idleTimeout
	t.MaxResponseHeaderBytes = maxHeader
	t.ForceAttemptHTTP2 = true
	t.DisableCompression = true
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: pingTimeout + pingAfter}
	return t
}

// ServerOptions configures Serve.
type ServerOptions struct {
	Listener net.Listener // of TCP
	Handler  http.Handler
	// Joining lets callers without a certificate in: Caller tells them apart.
	Joining bool
	Drain   time.Duration // how long requests under way have at the end
	Logger  *slog.Logger
}

// Serve answers the requests of other nodes until ctx ends; then it lets those
// under way finish.
func (n *Node) Serve(ctx context.Context, o ServerOptions) error {
	config := n.Server(o.Joining)
	config.Certificates = nil // it may be renewed
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.certificate.Load(), nil }
	s := &http.Server{
		Handler: o.Handler, TLSConfig: config, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: handshakeTimeout + pingTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	failed := make(chan error, 1)
	go func() { failed <- s.ServeTLS(o.Listener, "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("cluster: serve nodes: %w", err)
	case <-ctx.Done():
	}
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Drain)
	defer cancel()
	if s.Shutdown(dctx) != nil {
		_ = s.Close() // what is under way is cut off
	}
	return nil
}

// Caller returns who makes a request; ok is false for callers without a
// certificate.
func Caller(r *http.Request) (i Identity, ok bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Identity{}, false
	}
	i, err := IdentityOf(r.TLS.PeerCertificates[0])
	return i, err == nil
}
