package container

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// How long a remote registry may keep us waiting.
const (
	dialTimeout   = 30 * time.Second // for a connection
	headerTimeout = 30 * time.Second // for the header of a response
	stallTimeout  = 60 * time.Second // for the next bytes of a layer
)

// newTransport returns what carries requests to remote registries. Whoever may
// create functions chooses the host, and a registry chooses others by its
// redirects and token services, so that a connection may be made only to a
// public address, or to a host that the operator has named (see
// namedTransport). What counts is the address that is connected to, whatever a
// name means at other times. Through a proxy, which the operator chose too, only
// hosts that are given as addresses can be told.
func newTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = headerTimeout
	t.DialContext = func(ctx context.Context, network, host string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		if ctx.Value(anyAddress{}) == nil {
			d.Control = func(_, address string, _ syscall.RawConn) error {
				to, err := netip.ParseAddrPort(address)
				if err == nil && !public(to.Addr()) {
					err = notPermitted(host)
				}
				return err
			}
		}
		return d.DialContext(ctx, network, host)
	}
	return guardedTransport{t, t.Proxy}
}

// notPermitted does not tell the address: the names of the own network are not
// for whoever may create functions.
func notPermitted(host string) error {
	return fail(NotPermitted, "%s has a loopback, link-local or private address", host)
}

// anyAddress is the key of contexts in which any address may be connected to.
type anyAddress struct{}

// namedTransport lets requests to hosts that the operator named, each with its
// port, go to any address.
type namedTransport struct {
	http.RoundTripper
	named map[string]bool
}

// RoundTrip implements http.RoundTripper.
func (n namedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if n.named[hostPort(r.URL)] {
		r = r.WithContext(context.WithValue(r.Context(), anyAddress{}, true))
	}
	return n.RoundTripper.RoundTrip(r)
}

// hostPort is a URL's host with its port.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" && u.Scheme == "http" {
		port = "80"
	} else if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// notPublic lists networks beside those that package netip knows: of this
// machine, of providers (RFC 6598), for benchmarks (RFC 2544), reserved, and
// what leads to IPv4 addresses of a local translator (RFC 8215).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("fec0::/10"),
}

// translated are the IPv6 addresses that a translator makes IPv4 ones of, their
// last four bytes (RFC 6052).
var translated = netip.MustParsePrefix("64:ff9b::/96")

// public tells whether an address is one of the internet.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if translated.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

// guardedTransport ends responses that stall, and looks at requests that go
// through a proxy.
type guardedTransport struct {
	http.RoundTripper
	proxy func(*http.Request) (*url.URL, error)
}

// check refuses what a proxy is not to be asked for, and lets the proxy itself
// have any address.
func (g guardedTransport) check(r *http.Request) (*http.Request, error) {
	if via, err := g.proxy(r); via == nil || err != nil || r.Context().Value(anyAddress{}) != nil {
		return r, err
	}
	if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && !public(a) {
		return nil, notPermitted(r.URL.Host)
	}
	return r.WithContext(context.WithValue(r.Context(), anyAddress{}, true)), nil
}

var errStalled = errors.New("the registry sends nothing any more")

// RoundTrip implements http.RoundTripper.
func (g guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r, err := g.check(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	res, err := g.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	res.Body = &guardedBody{res.Body, timer, func() { timer.Stop(); cancel(nil) }}
	return res, nil
}

type guardedBody struct {
	io.ReadCloser
	timer *time.Timer
	end   func()
}

// Read implements io.Reader.
func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.timer.Reset(stallTimeout)
	}
	return n, err
}

// Close implements io.Closer.
func (b *guardedBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}
