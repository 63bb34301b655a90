package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// lookTimeout bounds a look at a name.
	lookTimeout = 5 * time.Second
	// maxRedirects is how many are followed; authorities follow ten.
	maxRedirects = 10
)

// WellKnown is where authorities look for answers by HTTP01, with a token after it
// (RFC 8555, 8.3).
const WellKnown = "/.well-known/acme-challenge/"

// looks is how a Client looks at names.
type looks struct {
	resolver *net.Resolver
	ports    [2]int // of HTTP and HTTPS
	http     *http.Client
}

func newLooks(o Options) *looks {
	l := &looks{resolver: net.DefaultResolver, ports: [2]int{cmp.Or(o.HTTPPort, 80), cmp.Or(o.HTTPSPort, 443)}}
	if o.Resolver != "" {
		l.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.Resolver)
		}}
	}
	l.http = &http.Client{
		Timeout: lookTimeout,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: lookTimeout, Resolver: l.resolver}).DialContext, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // there is none to be verified yet
		},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	return l
}

// Look tells by which method it could be proven now that a name leads here, if an
// answer by DNS01 or HTTP01 with the probe for its value, and its token, is given;
// empty: by none. The resource counts for ALPN01 where it is found over TLS only. Names
// with a star can be proven by DNS only.
func (c *Client) Look(ctx context.Context, name, probe string) string {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	base := strings.TrimPrefix(name, "*.")
	if values, err := c.looks.resolver.LookupTXT(ctx, "_acme-challenge."+base); err == nil && slices.Contains(values, probe) {
		return DNS01
	}
	if base != name {
		return ""
	}
	byHTTP, byTLS := make(chan bool, 1), make(chan bool, 1)
	go func() { byHTTP <- c.looks.finds(ctx, "http", base, c.looks.ports[0], probe) }()
	go func() { byTLS <- c.looks.finds(ctx, "https", base, c.looks.ports[1], probe) }()
	switch {
	case <-byHTTP:
		return HTTP01
	case <-byTLS:
		return ALPN01
	}
	return ""
}

// finds tells whether the probe is where it would be on a host.
func (l *looks) finds(ctx context.Context, scheme, host string, port int, probe string) bool {
	u := url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(port)), Path: WellKnown + probe}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false
	}
	if port == 80 || port == 443 {
		r.Host = host // as an authority says it
	}
	client := *l.http
	if scheme == "https" { // a redirect leads elsewhere than a handshake
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	res, err := client.Do(r)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(len(probe))+1))
	return err == nil && res.StatusCode == http.StatusOK && string(body) == probe
}
