package viewer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"lapwing.dev/lapwing/internal/acme"
	"lapwing.dev/lapwing/internal/edge/clienthello"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

// Site is what TLS asks of the distribution that a server name is for.
type Site struct {
	distribution.Certificate
	HTTP2, HTTP3 bool
}

// Sites finds the distribution of a server name, in lower case, and the certificate
// that proves to an ACME authority, by tls-alpn-01, that the name leads here; nil: none.
type Sites interface {
	Site(name string) (Site, bool)
	Proof(name string) *tls.Certificate
}

// CertificateOptions configures Certificates. All fields are required.
type CertificateOptions struct {
	Sites Sites
	// Records are the certificates that distributions name.
	Records *state.Collection[distribution.CertificateRecord]
	// Default makes the certificate of a name that has none of its own; the name is
	// empty where the client sent none.
	Default func(name string) (*tls.Certificate, error)
	Logger  *slog.Logger
}

// Certificates chooses certificates and protocol versions by the name that a
// viewer asks for.
type Certificates struct {
	options CertificateOptions
	cancel  context.CancelFunc
	watch   sync.WaitGroup

	mu      sync.RWMutex
	byARN   map[string]*tls.Certificate
	applied uint64

	// configs keeps a configuration for each kind of site, so that sessions can be
	// resumed.
	configs sync.Map // of kind
}

type kind struct {
	arn, minimum string
	http2        bool
	http3        bool
}

// NewCertificates returns Certificates that follow the records until Close.
func NewCertificates(o CertificateOptions) *Certificates {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Certificates{options: o, cancel: cancel, byARN: map[string]*tls.Certificate{}}
	for _, item := range o.Records.List("") {
		c.apply(state.Change[distribution.CertificateRecord]{Item: item})
	}
	c.watch.Go(func() {
		for change := range o.Records.Watch(ctx) {
			c.apply(change)
		}
	})
	return c
}

// Close stops following the records.
func (c *Certificates) Close() {
	c.cancel()
	c.watch.Wait()
}

// Applied returns the revision of the records that are in use.
func (c *Certificates) Applied() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.applied
}

func (c *Certificates) apply(change state.Change[distribution.CertificateRecord]) {
	var made *tls.Certificate
	if !change.Deleted {
		pair, err := tls.X509KeyPair([]byte(change.Value.Chain), []byte(change.Value.Key))
		if err != nil {
			c.options.Logger.Error("a certificate cannot be used: the one before it stays", "certificate", change.Key, "error", err)
		} else {
			made = &pair
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case change.Deleted:
		delete(c.byARN, change.Key)
	case made != nil:
		c.byARN[change.Key] = made
	}
	c.applied = max(c.applied, change.Revision)
}

// TLS returns the configuration of listeners for HTTP/1.1 and HTTP/2.
func (c *Certificates) TLS() *tls.Config {
	return &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { return c.config(h, false) }}
}

// connection is the same for one connection. After its handshake values returns a context
// that knows how the viewer began that.
func (c *Certificates) connection() (config *tls.Config, values func() context.Context) {
	var hello *clienthello.Hello
	config = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = clienthello.Of(h, clienthello.TCP)
		return c.config(h, false)
	}}
	return config, func() context.Context { return clienthello.NewContext(context.Background(), hello) }
}

// errNoHTTP3 is a distribution that viewers do not reach by HTTP/3.
var errNoHTTP3 = errors.New("the distribution has no HTTP/3")

// QUIC returns the configuration of listeners for HTTP/3.
func (c *Certificates) QUIC() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h3"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello := clienthello.From(h.Context()); hello != nil { // of quic.Transport.ConnContext
				*hello = *clienthello.Of(h, clienthello.QUIC)
			}
			return c.config(h, true)
		},
	}
}

func (c *Certificates) config(hello *tls.ClientHelloInfo, http3 bool) (*tls.Config, error) {
	if !http3 && slices.Equal(hello.SupportedProtos, proofOnly) {
		return c.proof(hello.ServerName)
	}
	site, known := c.options.Sites.Site(hello.ServerName)
	if http3 && known && !site.HTTP3 {
		return nil, errNoHTTP3
	}
	k := kind{site.ARN, cmp.Or(site.MinimumProtocol, "TLSv1.2_2021"), site.HTTP2 || !known, http3}
	if found, ok := c.configs.Load(k); ok {
		return found.(*tls.Config), nil
	}
	made := &tls.Config{
		MinVersion: minimumVersion(k.minimum),
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.certificate(h, k.arn)
		},
	}
	switch {
	case http3:
		made.MinVersion, made.NextProtos = tls.VersionTLS13, []string{"h3"}
	case k.http2:
		made.NextProtos = []string{"h2", "http/1.1"}
	default:
		made.NextProtos = []string{"http/1.1"}
	}
	if found, loaded := c.configs.LoadOrStore(k, made); loaded {
		made = found.(*tls.Config)
	}
	return made, nil
}

// proofOnly is what authorities offer that look for proof, and nobody else does (RFC
// 8737, 3).
var proofOnly = []string{acme.ALPNProtocol}

var errNoProof = errors.New("there is no proof for an ACME authority")

// proof is the configuration of a connection by which an authority looks for proof. It
// ends after the handshake.
func (c *Certificates) proof(name string) (*tls.Config, error) {
	shown := c.options.Sites.Proof(strings.ToLower(name))
	if shown == nil {
		return nil, errNoProof
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: proofOnly, Certificates: []tls.Certificate{*shown}, SessionTicketsDisabled: true}, nil
}

// certificate finds the certificate of a client's name.
func (c *Certificates) certificate(hello *tls.ClientHelloInfo, arn string) (*tls.Certificate, error) {
	if arn != "" {
		c.mu.RLock()
		found := c.byARN[arn]
		c.mu.RUnlock()
		if found == nil {
			return nil, fmt.Errorf("the certificate %s is not here", arn)
		}
		return found, nil
	}
	if _, known := c.options.Sites.Site(hello.ServerName); !known {
		return c.options.Default("")
	}
	return c.options.Default(hello.ServerName)
}

// minimumVersion is the lowest version of TLS that a security policy takes
// ("Supported protocols and ciphers between viewers and CloudFront"). SSLv3 is not
// spoken any more: the policy of that name begins with TLS 1.0.
func minimumVersion(policy string) uint16 {
	switch policy {
	case "SSLv3", "TLSv1", "TLSv1_2016":
		return tls.VersionTLS10
	case "TLSv1.1_2016":
		return tls.VersionTLS11
	case "TLSv1.3_2025":
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}
