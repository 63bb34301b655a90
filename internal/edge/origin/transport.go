package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// maxHeader is how large an origin's response header may be, in bytes ("Quotas").
const maxHeader = 32 << 10

// maxIdle is how many connections to an origin are kept while nothing uses them.
const maxIdle = 128

// maxTransports bounds the pools of connections that are kept.
const maxTransports = 1024

// profile is what connections to origins must have in common to be shared.
type profile struct {
	local       string // the host of Lapwing's own; empty: none
	secure      bool
	grpc        bool
	serverName  string // TLS: whom to ask for
	domain      string
	minTLS      uint16
	maxTLS      uint16
	connect     time.Duration
	first, idle time.Duration
}

func profileOf(r *Request, local bool) profile {
	o := r.Origin
	p := profile{
		secure: o.Protocol == "https-only" || o.Protocol == "match-viewer" && r.Secure,
		grpc:   r.GRPC, connect: o.ConnectionTimeout, first: o.ReadTimeout, idle: o.KeepaliveTimeout,
	}
	if local {
		p.local, p.secure = o.DomainName, false
		return p
	}
	if p.secure {
		p.domain, p.serverName = o.DomainName, o.DomainName
		if r.Host != "" { // forwarded: the origin's certificate may be for it
			p.serverName = hostname(r.Host)
		}
		p.minTLS, p.maxTLS = tlsVersions(o)
	}
	return p
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// tlsVersions are those that an origin may be spoken to with. What is newer than
// all that can be configured goes along with TLSv1.2.
func tlsVersions(o *distribution.Origin) (lowest, highest uint16) {
	versions := []struct {
		name    string
		version uint16
	}{{"TLSv1", tls.VersionTLS10}, {"TLSv1.1", tls.VersionTLS11}, {"TLSv1.2", tls.VersionTLS12}}
	for _, v := range versions {
		if slices.Contains(o.TLSProtocols, v.name) {
			if lowest == 0 {
				lowest = v.version
			}
			highest = v.version
		}
	}
	if highest == tls.VersionTLS12 {
		highest = tls.VersionTLS13
	}
	if lowest == 0 {
		return tls.VersionTLS12, tls.VersionTLS13
	}
	return lowest, highest
}

// transports are pools of connections.
type transports struct {
	options Options

	mu    sync.Mutex
	byKey map[profile]*http.Transport
}

// get returns the pool for connections of a profile.
func (t *transports) get(p profile, dial Dial) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.byKey[p]; found != nil {
		return found
	}
	if len(t.byKey) >= maxTransports {
		for _, old := range t.byKey {
			old.CloseIdleConnections()
		}
		clear(t.byKey)
	}
	made := t.make(p, dial)
	t.byKey[p] = made
	return made
}

// Resolve tells whether a domain name can be looked up; the error is an *Error.
func (c *Client) Resolve(ctx context.Context, domain string) error {
	if c.options.Local != nil {
		if _, local := c.options.Local(domain); local {
			return nil
		}
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return nil
	}
	if _, err := c.options.Resolver.LookupNetIP(ctx, "ip", domain); err != nil {
		return dialError(err)
	}
	return nil
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, transport := range t.byKey {
		transport.CloseIdleConnections()
	}
}

func (t *transports) make(p profile, dial Dial) *http.Transport {
	protocols := new(http.Protocols)
	if p.grpc {
		protocols.SetHTTP2(p.secure)
		protocols.SetUnencryptedHTTP2(!p.secure)
	} else {
		protocols.SetHTTP1(true)
	}
	connect := t.connect(p)
	if dial != nil {
		connect = func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dial(ctx)
			if err != nil {
				return nil, dialError(err)
			}
			return c, nil
		}
	}
	transport := &http.Transport{
		DialContext:            connect,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        p.idle,
		ResponseHeaderTimeout:  p.first,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         32 << 10,
		WriteBufferSize:        16 << 10,
	}
	if p.grpc {
		transport.ResponseHeaderTimeout = 0 // a stream's header may come with its first message
	}
	if p.secure {
		transport.DialTLSContext = t.connectTLS(p, connect)
	}
	return transport
}

// connect makes connections, each within the time that an attempt has.
func (t *transports) connect(p profile) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{
		Timeout: p.connect, KeepAlive: 30 * time.Second, Resolver: t.options.Resolver,
		ControlContext: guard{t.options.Allow}.control,
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, dialError(err)
		}
		return c, nil
	}
}

func (t *transports) connectTLS(p profile, connect func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	config := &tls.Config{
		ServerName: p.serverName, MinVersion: p.minTLS, MaxVersion: p.maxTLS,
		// The certificate may be for either name: VerifyConnection checks.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verify(s, t.options.RootCAs, p.domain, p.serverName) },
	}
	if p.grpc {
		config.NextProtos = []string{"h2"}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := connect(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if p.connect > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, p.connect)
			defer cancel()
		}
		c := tls.Client(raw, config)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(dialError(err), raw.Close())
		}
		return c, nil
	}
}

// verify checks an origin's certificate: it must be for the origin's domain name
// or for the Host that is forwarded.
func verify(s tls.ConnectionState, roots *x509.CertPool, names ...string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the origin has no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	leaf := s.PeerCertificates[0]
	if _, err := leaf.Verify(o); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	var err error
	for _, name := range names {
		if err = leaf.VerifyHostname(strings.Trim(name, "[]")); err == nil {
			return nil
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
}
