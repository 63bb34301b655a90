// Package origin asks origins: custom ones anywhere, S3 buckets and function URLs
// of Lapwing's own. It holds to an origin's timeouts and attempts, signs where an
// access control or identity says so, and refuses addresses that only the
// operator may let a distribution reach.
//
// The rules are those of "Request and response behavior for custom origins" and
// "Restricting access to an origin" in the CloudFront developer guide.
package origin

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Options configures a Client. The zero value reaches public addresses only.
type Options struct {
	// Allow are the loopback and private addresses that origins may have.
	Allow []netip.Prefix
	// Local returns how a host is reached that is Lapwing's own, if it is.
	Local func(host string) (Dial, bool)
	// Sign signs requests to origins with an access control or identity; nil:
	// such requests fail.
	Sign Signer
	// RootCAs are whose certificates origins may have; nil: the system's.
	RootCAs *x509.CertPool
	// Resolver looks names up; nil: net.DefaultResolver.
	Resolver *net.Resolver
}

// Dial connects to a host of Lapwing's own, which speaks HTTP/1.1 in clear text.
type Dial func(ctx context.Context) (net.Conn, error)

// Signer signs a request as CloudFront for a service ("s3" or "lambda").
type Signer interface {
	Sign(ctx context.Context, r *http.Request, service, payloadHash string) error
}

// Request is a request to an origin.
type Request struct {
	Origin *distribution.Origin
	// Secure tells that the viewer came by TLS, for origins of match-viewer.
	Secure bool
	Method string
	// Path is escaped, without the origin's own; Query is raw.
	Path, Query string
	// Host is empty for the origin's domain name.
	Host string
	// Header is the client's from here on: the origin's custom ones go into it.
	Header http.Header
	// Body is nil for none; Length -1 for one of unknown length.
	Body   io.Reader
	Length int64
	// GRPC asks over HTTP/2, with trailers.
	GRPC bool
}

// Client asks origins. It is safe for concurrent use.
type Client struct {
	options    Options
	transports transports
}

// New returns a Client. Close ends its idle connections.
func New(o Options) *Client {
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	return &Client{options: o, transports: transports{options: o, byKey: map[profile]*http.Transport{}}}
}

// Close ends the connections that are idle.
func (c *Client) Close() { c.transports.close() }

// errCompletion ends an answer that takes longer than the origin may.
var errCompletion = errors.New("the answer was not complete in time")

// errRead ends a wait for an origin's bytes.
var errRead = errors.New("the origin sent nothing in time")

// errUnasked is an origin that changes the protocol without being asked to.
var errUnasked = errors.New("the origin switched protocols unasked")

// Do asks an origin. The error is an *Error, or the end of ctx. The answer's body
// ends with an error where the origin stays silent for longer than it may, and
// must be closed.
func (c *Client) Do(ctx context.Context, r *Request) (*http.Response, error) {
	o := r.Origin
	for _, h := range o.Header {
		r.Header[http.CanonicalHeaderKey(h.Name)] = []string{h.Value}
	}
	attempts := max(o.ConnectionAttempts, 1)
	var err error
	for range attempts {
		var answer *http.Response
		if answer, err = c.attempt(ctx, r); err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if e, ok := errors.AsType[*Error](err); !ok || !e.retry(r) {
			break
		}
	}
	return nil, err
}

// retry tells whether a request may be tried again: where no connection was made,
// always, and where the origin stayed silent, for methods that change nothing.
func (e *Error) retry(r *Request) bool {
	return e.unsent && e.Detail == ConnectError || e.timeout && r.Body == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// attempt asks once.
func (c *Client) attempt(ctx context.Context, r *Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{cancel: cancel, timeout: r.Origin.ReadTimeout}
	if d := r.Origin.ResponseCompletionTimeout; d > 0 {
		w.completion = time.AfterFunc(d, func() { cancel(errCompletion) })
	}
	answer, err := c.send(ctx, r)
	if err != nil {
		w.stop()
		if cause := context.Cause(ctx); errors.Is(cause, errCompletion) {
			err = &Error{Detail: ReadError, timeout: true, Err: cause}
		}
		cancel(nil)
		return nil, classify(err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		w.ctx, w.body = ctx, answer.Body
		answer.Body = w
	}
	return answer, nil
}

func (c *Client) send(ctx context.Context, r *Request) (*http.Response, error) {
	dial, local := Dial(nil), false
	if c.options.Local != nil {
		dial, local = c.options.Local(r.Origin.DomainName)
	}
	p := profileOf(r, local)
	request, err := newRequest(ctx, r, p)
	if err != nil {
		return nil, &Error{Detail: InvalidRequest, Err: err}
	}
	if err := c.sign(ctx, r, request); err != nil {
		return nil, &Error{Detail: OriginFailure, Err: err}
	}
	if raw := r.Origin.Path + r.Path; request.URL.Opaque != "" && !strings.HasPrefix(raw, "//") {
		request.URL.Opaque = raw // which signers do not understand
	}
	answer, err := c.transports.get(p, dial).RoundTrip(request.WithContext(interim(request.Context())))
	if err == nil && answer.StatusCode == http.StatusSwitchingProtocols && request.Header["Upgrade"] == nil {
		_ = answer.Body.Close() // nothing that it says counts
		return nil, &Error{Detail: InvalidResponse, Err: errUnasked}
	}
	return answer, err
}

// newRequest makes the request as net/http sends it, its path as it is.
func newRequest(ctx context.Context, r *Request, p profile) (*http.Request, error) {
	o := r.Origin
	u := &url.URL{Scheme: "http", Host: authority(o.DomainName, o.HTTPPort, 80), RawQuery: r.Query}
	switch {
	case p.local != "": // whatever port it has elsewhere
		u.Host = o.DomainName
	case p.secure:
		u.Scheme, u.Host = "https", authority(o.DomainName, o.HTTPSPort, 443)
	}
	host := r.Host
	if host == "" {
		host = u.Host
	}
	raw := o.Path + r.Path
	path, err := url.PathUnescape(raw)
	if err != nil {
		// The viewer's path is no proper escaping: it goes out as it came.
		u.Opaque = "//" + host + raw
	} else {
		u.Path, u.RawPath = path, raw
		if u.EscapedPath() != raw {
			u.Opaque = "//" + host + raw
		}
	}
	request := &http.Request{
		Method: r.Method, URL: u, Host: host, Header: r.Header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if r.Body != nil {
		request.Body, request.ContentLength = io.NopCloser(r.Body), r.Length
	}
	return request.WithContext(ctx), nil
}

// authority is the host of a URL: without the port where it is the scheme's own.
func authority(host string, port, usual int) string {
	if port == 0 || port == usual {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// watch is the body of an answer that ends when the origin is silent for too
// long.
type watch struct {
	ctx        context.Context
	cancel     context.CancelCauseFunc
	body       io.ReadCloser
	timeout    time.Duration
	completion *time.Timer
	idle       *time.Timer
}

// Read implements io.Reader.
func (w *watch) Read(b []byte) (int, error) {
	if w.timeout > 0 {
		if w.idle == nil {
			w.idle = time.AfterFunc(w.timeout, func() { w.cancel(errRead) })
		} else {
			w.idle.Reset(w.timeout)
		}
	}
	n, err := w.body.Read(b)
	if w.idle != nil {
		w.idle.Stop()
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(w.ctx); cause != nil && w.ctx.Err() != nil {
			err = cause
		}
		err = &Error{Detail: ReadError, Err: err, timeout: errors.Is(err, errRead) || errors.Is(err, errCompletion)}
	}
	return n, err
}

// Close implements io.Closer.
func (w *watch) Close() error {
	w.stop()
	err := w.body.Close()
	w.cancel(nil)
	return err
}

func (w *watch) stop() {
	if w.completion != nil {
		w.completion.Stop()
	}
	if w.idle != nil {
		w.idle.Stop()
	}
}
