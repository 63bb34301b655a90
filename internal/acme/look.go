package acme

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
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
	port     string
	http     *http.Client
}

func newLooks(o Options) *looks {
	l := &looks{resolver: net.DefaultResolver, port: strconv.Itoa(cmp.Or(o.HTTPPort, 80))}
	if o.Resolver != "" {
		l.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.Resolver)
		}}
	}
	l.http = &http.Client{
		Timeout: lookTimeout,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: lookTimeout, Resolver: l.resolver}).DialContext, DisableKeepAlives: true,
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
// answer of either method with the probe for its value, and its token, is given;
// empty: by none. Names with a star can be proven by DNS only.
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
	host := base
	if c.looks.port != "80" {
		host = net.JoinHostPort(base, c.looks.port)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+WellKnown+probe, nil)
	if err != nil {
		return ""
	}
	res, err := c.looks.http.Do(r)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(len(probe))+1))
	if err != nil || res.StatusCode != http.StatusOK || string(body) != probe {
		return ""
	}
	return HTTP01
}
