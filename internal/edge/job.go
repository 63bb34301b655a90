package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/compress"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/freshness"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// job is a request to the origin of a behaviour. It has all that it needs of the
// viewer's request, which may end before it.
type job struct {
	s      *Server
	site   *site
	plan   *policy.Plan
	id     string
	client netip.Addr
	secure bool

	method, path, query string
	asked               string // the host that the viewer asked for
	host                string // forwarded; empty: the origin's own
	header              http.Header
	body                io.Reader // nil: none
	length              int64
	grpc                bool
	// coding is what an object is compressed by for those who will share it; empty:
	// nothing.
	coding compress.Coding

	// key is the object's. Locations above level are asked for it before an origin is.
	key   cache.Key
	level tier.Level
	// origin is the id of the one origin that is asked, of a group; empty: the
	// behaviour's.
	origin string
	// route, where a function chose one, is asked instead.
	route *trigger.Route
}

// job makes the request to the origin for a viewer's.
func (x *exchange) job() *job {
	f := x.plan.Forward(&x.request)
	j := &job{
		s: x.s, site: x.site, plan: x.plan, id: x.id, client: x.client.Addr(), secure: x.secure,
		method: x.request.Method, path: x.request.Path, query: f.Query, asked: x.request.Host, host: f.Host, header: f.Header,
		body: x.body, length: x.length, level: tier.Shield, origin: x.origin, route: x.route,
	}
	if x.tiered() {
		j.level, j.key = x.level, x.key("")
	}
	if isGRPC(x.r) && x.plan.Behaviour.GRPC {
		j.passGRPC(x.request.Header)
	}
	if x.plan.Behaviour.Compress {
		j.coding = coding(x.plan.Encodings(&x.request))
	}
	if x.level > tier.Edge { // the location that the viewer came to has added its own
		j.header["Via"], j.header["X-Forwarded-For"] = x.request.Header["Via"], x.request.Header["X-Forwarded-For"]
		return j
	}
	via := x.request.Header["Via"]
	j.header["Via"] = append(slices.Clone(via), viaVersion(x.r)+" "+x.s.viaOrigin)
	j.header["X-Forwarded-For"] = []string{forwardedFor(x.request.Header["X-Forwarded-For"], j.client)}
	return j
}

// coding is the one that is preferred of those that are accepted.
func coding(e policy.Encodings) compress.Coding {
	switch {
	case e&policy.Brotli != 0:
		return compress.Brotli
	case e&policy.Zstd != 0:
		return compress.Zstd
	case e&policy.Gzip != 0:
		return compress.Gzip
	}
	return ""
}

func viaVersion(r *http.Request) string {
	if r.ProtoMajor >= 2 {
		return string(rune('0'+r.ProtoMajor)) + ".0"
	}
	return "1." + string(rune('0'+r.ProtoMinor))
}

func forwardedFor(sent []string, client netip.Addr) string {
	return strings.Join(append(slices.Clone(sent), client.String()), ", ")
}

// conditional are the headers by which a viewer asks for a part of an object, or
// for it only if it has changed. An origin gets them of requests that are its own
// to answer; for what is cached the edge asks in its own words.
var conditional = []string{"Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"}

// passConditions lets the origin have the viewer's.
func (j *job) passConditions(h http.Header) {
	for _, name := range conditional {
		if v := h[name]; len(v) > 0 {
			j.header[name] = v
		}
	}
}

// dropConditions keeps the viewer's from the origin.
func (j *job) dropConditions() {
	for _, name := range conditional {
		delete(j.header, name)
	}
}

// revalidate asks for the object only if it is not the one that is there.
func (j *job) revalidate(h http.Header) {
	for name, v := range freshness.Revalidation(freshness.ValidatorsOf(h)) {
		j.header[name] = v
	}
}

// fetched is what an origin, or its functions, answered.
type fetched struct {
	status int
	header http.Header // as it is stored
	body   io.ReadCloser
	length int64 // -1: not known
	// result is set where a function made the answer.
	result              string
	requested, received time.Time
	// cut tells that the end of the body cannot be told from a broken connection.
	cut bool
	// from tells of an answer that another location gave; nil: none did.
	from *tier.Reply
	// trailer returns what has come after the body, once that has been read.
	trailer func() http.Header
}

// close gives the answer up.
func (f *fetched) close() {
	if f.body != nil {
		_ = f.body.Close() // what is left of it is not wanted
	}
}

// ask asks the regional edge cache, where there is one, or else the behaviour's
// origin, or the members of its origin group in turn. An error is an *origin.Error, a
// *trigger.Error, or the end of ctx.
func (j *job) ask(ctx context.Context) (*fetched, error) {
	if f, err := j.askRegional(ctx); f != nil || err != nil {
		return f, err
	}
	to := j.targets()
	f, err := j.askOne(ctx, to.Targets[0])
	if len(to.Targets) == 1 || j.method != http.MethodGet && j.method != http.MethodHead && j.method != http.MethodOptions {
		return f, err
	}
	if !failsOver(to.StatusCodes, f, err) || ctx.Err() != nil {
		return f, err
	}
	if f != nil {
		f.close()
	}
	return j.askOne(ctx, to.Targets[1])
}

// targets returns what is to be asked.
func (j *job) targets() *trigger.Route {
	if j.route != nil {
		return j.route
	}
	id := j.plan.Behaviour.Origin
	if j.origin != "" {
		id = j.origin
	}
	if g := j.site.groups[id]; g != nil {
		return &trigger.Route{
			Targets:     []trigger.Target{{Origin: j.site.origins[g.Members[0]]}, {Origin: j.site.origins[g.Members[1]]}},
			StatusCodes: g.StatusCodes,
		}
	}
	return &trigger.Route{Targets: []trigger.Target{{Origin: j.site.origins[id]}}}
}

// failsOver tells whether the second member of a group is to be asked.
func failsOver(codes []int, f *fetched, err error) bool {
	if err != nil {
		_, ofOrigin := errors.AsType[*origin.Error](err)
		return ofOrigin
	}
	return slices.Contains(codes, f.status)
}

var errNoOrigin = errors.New("the behaviour names no origin of the distribution")

// askOne asks one origin: its shield, where it has one, or else itself, with its
// functions before and after.
func (j *job) askOne(ctx context.Context, to trigger.Target) (*fetched, error) {
	o := to.Origin
	if o == nil {
		return nil, &origin.Error{Detail: origin.OriginFailure, Err: errNoOrigin}
	}
	if f, err := j.askShield(ctx, o); f != nil || err != nil {
		return f, err
	}
	r := &origin.Request{
		Origin: o, Secure: j.secure, Method: j.method, Path: j.path, Query: j.query, Host: j.host,
		Header: j.header.Clone(), Body: j.body, Length: j.length, GRPC: j.grpc,
	}
	if to.Host != nil {
		r.Host = *to.Host
	}
	var t *trigger.Exchange
	if j.plan.Has(distribution.OriginRequest) || j.plan.Has(distribution.OriginResponse) {
		t = j.event(r)
	}
	requested := time.Now()
	if j.plan.Has(distribution.OriginRequest) {
		made, err := j.runOriginRequest(ctx, r, t)
		if err != nil {
			return nil, err
		}
		if made != nil {
			made.requested, made.received = requested, time.Now()
			j.plan.Clean(made.header)
			return made, nil
		}
	}
	r.Header["X-Amz-Cf-Id"] = []string{j.id}
	requested = time.Now()
	response, err := j.s.options.Origins.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	f := &fetched{
		status: response.StatusCode, header: response.Header, body: response.Body, length: response.ContentLength,
		requested: requested, received: time.Now(), trailer: func() http.Header { return response.Trailer },
		cut: response.ContentLength < 0 && response.ProtoMajor == 1 && len(response.TransferEncoding) == 0 && response.Close,
	}
	if j.plan.Has(distribution.OriginResponse) {
		if err := j.runOriginResponse(ctx, f, t); err != nil {
			f.close()
			return nil, err
		}
	}
	j.plan.Clean(f.header)
	return f, nil
}

// event makes what the functions of an origin see of the request to it.
func (j *job) event(r *origin.Request) *trigger.Exchange {
	host := r.Host
	if host == "" {
		host = r.Origin.DomainName
	}
	return &trigger.Exchange{
		RequestID: j.id, Secure: j.secure,
		Request: trigger.Request{
			ClientIP: j.client.String(), Method: r.Method, URI: r.Path, Query: r.Query, Origin: r.Origin,
			Header: toFields(r.Header, host),
		},
	}
}

// runOriginRequest runs the origin-request function and takes over what it made of
// the request; or it returns the answer that the function made.
func (j *job) runOriginRequest(ctx context.Context, r *origin.Request, t *trigger.Exchange) (*fetched, error) {
	// CloudFront resolves the configured name first, and does not run the function
	// where it cannot.
	if err := j.s.options.Origins.Resolve(ctx, r.Origin.DomainName); err != nil {
		return nil, err
	}
	shown, rest, err := showBody(j.plan.Behaviour, distribution.OriginRequest, r.Body)
	if err != nil {
		return nil, err
	}
	r.Body, t.Request.Body = rest, shown
	if err := j.s.run(ctx, j.site, j.plan, distribution.OriginRequest, t); err != nil {
		return nil, err
	}
	if t.Response != nil {
		f := &fetched{status: t.Response.Status, result: resultOf(true)}
		f.header, _ = fromFields(t.Response.Header)
		f.setBody(t.Response.Body)
		return f, nil
	}
	forwarded := r.Host != ""
	r.Origin, r.Path, r.Query = t.Request.Origin, t.Request.URI, t.Request.Query
	if r.Header, r.Host = fromFields(t.Request.Header); !forwarded && r.Host == r.Origin.DomainName {
		r.Host = "" // as without a function, which is with the port
	}
	replaced(t.Request.Body, &r.Body, &r.Length)
	t.Request.Body = nil
	return nil, nil
}

// runOriginResponse runs the origin-response function and takes over what it made
// of the answer.
func (j *job) runOriginResponse(ctx context.Context, f *fetched, t *trigger.Exchange) error {
	t.Response = &trigger.Response{Status: f.status, Header: toFields(f.header, "")}
	if err := j.s.run(ctx, j.site, j.plan, distribution.OriginResponse, t); err != nil {
		return err
	}
	f.status = t.Response.Status
	f.header, _ = fromFields(t.Response.Header)
	if t.Response.Replaced {
		f.close()
		f.setBody(t.Response.Body)
	}
	return nil
}

func (f *fetched) setBody(b []byte) {
	f.body, f.length, f.cut = io.NopCloser(bytes.NewReader(b)), int64(len(b)), false
}
