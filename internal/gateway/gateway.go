// Package gateway is the AWS front door. It takes an HTTP request, finds the
// service and the operation that it is for, verifies who signed it, asks the
// Authorizer whether they may, and has package wire decode it, call the
// service and encode the answer. It decides nothing about what a service does.
//
//	request -> service (credential scope, Host, path) -> operation (wire.Find)
//	        -> principal (sigv4, credentials) -> Authorizer -> service (Call.Serve)
//
// Every answer carries a request id. Errors that are not AWS's own reach the
// log and become InternalFailure for the client.
//
// Server serves the gateway on listeners; Authority gives them certificates.
package gateway

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/sigv4"
	"lapwing.dev/lapwing/internal/aws/wire"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/otlp"
)

// Credentials finds the secret with which a principal signs. The errors are
// those of package credentials.
type Credentials interface {
	Lookup(accessKeyID, sessionToken string) (secret string, id aws.Identity, err error)
}

// Authorizer decides whether a principal may make a request. It is called once
// the principal is known and before the request's input is decoded, with the
// request that is also in ctx. A refusal is an *aws.Error, e.g.
// AccessDeniedException.
type Authorizer interface {
	Authorize(ctx context.Context, r *aws.Request) error
}

// PermitAccount is the Authorizer until policies are evaluated: every
// principal of the account may do everything, whatever policies are attached
// to it. It refuses principals of other accounts, of which there are none.
type PermitAccount struct{}

// Authorize implements Authorizer.
func (PermitAccount) Authorize(_ context.Context, r *aws.Request) error {
	if r.Caller.AccountID != r.AccountID || r.AccountID == "" {
		return &aws.Error{
			Code: "AccessDeniedException", Status: http.StatusForbidden,
			Message: fmt.Sprintf("User: %s is not authorized to perform: %s:%s", r.Caller.ARN, r.Service, r.Operation),
		}
	}
	return nil
}

// Options configures a Gateway. All fields above the blank line are required.
type Options struct {
	Services    []*aws.Service
	Credentials Credentials
	Region      string // the one that requests must be signed for
	AccountID   string
	Logger      *slog.Logger

	// Authorizer is PermitAccount when nil.
	Authorizer Authorizer
	// Domains are names by which clients reach us beside localhost. Names
	// below them address services and buckets, as in bucket.s3.domain.
	Domains []string
	// Tracer makes a span of each request; nil: none.
	Tracer *otlp.Tracer
	// FunctionURLs serves the requests for function URLs; nil: there are none.
	FunctionURLs FunctionURLs
	// Edge serves the hosts of distributions; nil: there are none.
	Edge Edge
	// Registry serves the container registry at /v2/; nil: there is none. It
	// answers for who may do what.
	Registry http.Handler
	// Now tells the time by which signatures are judged; time.Now when nil.
	Now func() time.Time
}

// Edge serves what is for a content delivery network; package edge implements it.
// It answers for who may do what.
type Edge interface {
	http.Handler
	// Serves tells whether a Host header names a distribution.
	Serves(host string) bool
}

// Gateway is the front door; it implements http.Handler.
type Gateway struct {
	options  Options
	verifier *sigv4.Verifier
	domains  []string
	services map[string][]*aws.Service // by signing name
	prefixes map[string]*aws.Service   // by endpoint prefix
	names    string                    // of all services, for messages
	regions  []string                  // that requests may be signed for; all but the first for global services only
	extra    []extraHandler
	stall    time.Duration
	uploads  *semaphore.Weighted // bytes of large bodies
}

type extraHandler struct {
	prefix  string
	handler http.Handler
}

// internalPrefix is where paths that are no AWS API live. It cannot be the
// name of a bucket.
const internalPrefix = "/_lapwing/"

// New returns a Gateway.
func New(o Options) *Gateway {
	if o.Authorizer == nil {
		o.Authorizer = PermitAccount{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Gateway{
		options: o, verifier: sigv4.NewVerifier(o.Now), domains: []string{"localhost"}, stall: defaultStall,
		uploads:  semaphore.NewWeighted(uploadMemory),
		services: map[string][]*aws.Service{}, prefixes: map[string]*aws.Service{}, regions: []string{o.Region, globalRegion},
	}
	for _, d := range o.Domains {
		g.domains = append(g.domains, strings.ToLower(d))
	}
	for _, s := range o.Services {
		g.services[s.SigningName] = append(g.services[s.SigningName], s)
		g.prefixes[s.EndpointPrefix] = s
	}
	g.names = strings.Join(slices.Sorted(maps.Keys(g.services)), ", ")
	g.Handle(internalPrefix+"health", http.HandlerFunc(health))
	return g
}

// Handle has a handler serve the paths that begin with prefix, which must
// begin with /_lapwing/. The gateway verifies no signatures there: the handler
// answers for who may do what. It must be called before the first request.
func (g *Gateway) Handle(prefix string, h http.Handler) {
	if !strings.HasPrefix(prefix, internalPrefix) {
		panic("gateway: " + prefix + " is not below " + internalPrefix)
	}
	g.extra = append(g.extra, extraHandler{prefix, h})
}

// exchange is one request on its way through the gateway, in one piece of memory.
type exchange struct {
	response response
	body     patientBody // of the request, where it has one
	request  aws.Request // for the service
	after    []func()    // what request.After has taken

	id      string
	arrived time.Time
	service *aws.Service // nil until found
	bucket  string       // that the host names
	call    *wire.Call   // nil until found
	caller  aws.Identity // once verified
	failure error        // what the client got instead of success
	span    *otlp.Span   // nil without a Tracer
	trace   trace.Header // of the span
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(writer http.ResponseWriter, r *http.Request) {
	if g.options.Edge != nil && g.options.Edge.Serves(r.Host) {
		g.options.Edge.ServeHTTP(writer, r)
		return
	}
	x := &exchange{id: uuid.NewString(), arrived: g.options.Now()}
	w := &x.response
	w.init(writer, r, g.stall)
	if r.Body != nil && r.Body != http.NoBody {
		x.body.init(r.Body, w)
		r.Body = &x.body
	}
	w.Header()["X-Amzn-Requestid"] = []string{x.id}
	g.startSpan(r, x)
	defer func() {
		g.logAccess(w, r, x)
		g.endSpan(w, r, x)
		// What the server has yet to send must leave, too.
		w.limitWrites()
	}()
	defer func() {
		if p := recover(); p != nil {
			g.recovered(w, r, x, p)
		}
	}()

	if g.serveFunctionURL(w, r, x) {
		return
	}
	if g.serveRegistry(w, r, x) {
		return
	}
	if strings.HasPrefix(r.URL.Path, internalPrefix) {
		g.serveInternal(w, r)
		return
	}
	if err := g.serve(w, r, x); err != nil {
		g.fail(w, r, x, err)
	}
}

// serve serves an AWS request. It returns an error only while nothing has been
// written.
func (g *Gateway) serve(w *response, r *http.Request, x *exchange) error {
	auth, authErr := sigv4.Parse(r)
	routed, err := g.route(r, x, auth)
	if err != nil {
		return err
	}
	identify(w, x)
	if authErr != nil {
		return authErr
	}
	secret, caller, err := g.lookup(auth)
	if err != nil {
		return err
	}
	// The name of a Query operation is in the body, which is read once the
	// signature says so. Other bodies have the limit of their operation.
	limit := int64(maxForm)
	if x.call == nil && !namedInBody(x.service) {
		if x.call, err = wire.Find(x.service, routed); err != nil {
			return err
		}
	}
	if x.call != nil {
		limit = x.call.Operation.MaxBody
	}
	release, err := g.takeTurn(r, x, limit)
	if err != nil {
		return err
	}
	defer release()
	if err := g.verify(r, x, auth, secret, limit); err != nil {
		return err
	}
	x.caller = caller
	if routed != r {
		routed.Body, routed.ContentLength, routed.Header, routed.Trailer = r.Body, r.ContentLength, r.Header, r.Trailer
	}
	if x.call == nil {
		if x.call, err = wire.Find(x.service, routed); err != nil {
			return err
		}
	}

	defer func() {
		if len(x.after) > 0 && w.status != 0 {
			w.Flush()
		}
		for _, f := range x.after {
			f()
		}
	}()
	g.describe(r, x)
	ctx := aws.WithRequest(r.Context(), &x.request)
	if err := g.options.Authorizer.Authorize(ctx, &x.request); err != nil {
		return err
	}
	return x.call.Serve(ctx, w, routed)
}

// identify gives S3 its own forms of request id.
func identify(w *response, x *exchange) {
	if dialectOf(x.service) != sigv4.S3 {
		return
	}
	x.id = strings.ToUpper(strings.ReplaceAll(x.id, "-", "")[:16])
	var id2 [56]byte
	rand.Read(id2[:])
	h := w.Header()
	h.Del("X-Amzn-Requestid")
	h.Set("X-Amz-Request-Id", x.id)
	h.Set("X-Amz-Id-2", base64.StdEncoding.EncodeToString(id2[:]))
}

// lookup finds the secret that the request should have been signed with, and
// who signs with it.
func (g *Gateway) lookup(auth *sigv4.Authorization) (secret string, caller aws.Identity, err error) {
	secret, caller, err = g.options.Credentials.Lookup(auth.AccessKeyID, auth.SessionToken)
	switch {
	case errors.Is(err, credentials.ErrExpired):
		err = sigv4.ExpiredToken()
	case errors.Is(err, credentials.ErrUnknownKey), errors.Is(err, credentials.ErrInvalidToken):
		err = sigv4.UnknownAccessKey(auth)
	}
	return secret, caller, err
}

// fromRegion is the key of the Region that From puts into a context.
type fromRegion struct{}

// From lets a request be signed for another Region than ours, too: that of the edge
// location that it comes from, which functions there take for theirs.
func From(ctx context.Context, region string) context.Context {
	return context.WithValue(ctx, fromRegion{}, region)
}

// verify verifies the signature, and limits the body.
func (g *Gateway) verify(r *http.Request, x *exchange, auth *sigv4.Authorization, secret string, limit int64) error {
	regions := g.regions[:1]
	if isGlobal(x.service) {
		regions = g.regions
	}
	if other, ok := r.Context().Value(fromRegion{}).(string); ok {
		regions = append(slices.Clip(regions), other)
	}
	return g.verifier.Verify(r, auth, secret, &sigv4.Rules{
		Dialect: dialectOf(x.service), Service: x.service.SigningName, Regions: regions, Bucket: x.bucket, MaxBody: limit,
		Asymmetric: x.service.SigningName == keyValueStore,
		TooLarge: func() error {
			if x.call == nil {
				return formTooLarge()
			}
			return x.call.TooLarge(max(r.ContentLength, limit+1))
		},
	})
}

// Bodies of operations that allow more than largeBody are held in memory whole,
// several times over while they are decoded, as code packages are. They take
// turns, so that uploadMemory bytes of them are there at once and a handful of
// clients cannot use up the host's memory. S3 reads its bodies as streams.
const (
	largeBody    = 16 << 20
	uploadMemory = 160 << 20
	smallUpload  = 1 << 20 // passes without waiting
)

// takeTurn waits until there is memory for the request's body.
func (g *Gateway) takeTurn(r *http.Request, x *exchange, limit int64) (release func(), err error) {
	size := r.ContentLength
	if size < 0 || size > limit {
		size = limit
	}
	if limit <= largeBody || size <= smallUpload || dialectOf(x.service) == sigv4.S3 {
		return func() {}, nil
	}
	size = min(size, uploadMemory)
	if err := g.uploads.Acquire(r.Context(), size); err != nil {
		return nil, err
	}
	return func() { g.uploads.Release(size) }, nil
}

// describe puts together what a service may want to know.
func (g *Gateway) describe(r *http.Request, x *exchange) {
	x.request = aws.Request{
		ID: x.id, Service: x.service.SigningName, Operation: x.call.Operation.Name,
		Region: g.options.Region, AccountID: g.options.AccountID, Caller: x.caller,
		BaseURL: baseURL(r), SourceIP: sourceIP(r), UserAgent: r.UserAgent(),
		Header: x.header(r), Trailer: r.Trailer, Time: x.arrived, Response: x.response.Header(),
		After: func(f func()) { x.after = append(x.after, f) },
	}
}

// baseURL returns the address by which the client reached us.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// serveInternal serves the paths that are no AWS API.
func (g *Gateway) serveInternal(w *response, r *http.Request) {
	for _, e := range g.extra {
		if strings.HasPrefix(r.URL.Path, e.prefix) {
			e.handler.ServeHTTP(w, r)
			return
		}
	}
	http.NotFound(w, r)
}

// health answers GET /_lapwing/health. Whoever can ask is served, so the
// answer gives nothing away.
func health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "ok"}) // fails only when the client has left
}

// recovered deals with a panic: logged once, and an InternalFailure for the
// client, or a broken connection where the answer had begun.
func (g *Gateway) recovered(w *response, r *http.Request, x *exchange, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.failure = fmt.Errorf("panic: %v", p)
	g.options.Logger.Error("panic while serving a request", "requestId", x.id, "method", r.Method, "path", r.URL.Path,
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	g.writeError(w, r, x, internalFailure(x.service))
}

// fail answers with an error.
func (g *Gateway) fail(w *response, r *http.Request, x *exchange, err error) {
	x.failure = err
	e, ok := errors.AsType[*aws.Error](err)
	if f, isFailure := errors.AsType[*sigv4.Failure](err); isFailure {
		e, ok = f.In(dialectOf(x.service)), true
	}
	switch {
	case r.Context().Err() != nil && (!ok || errors.Is(err, context.Canceled)):
		// The client has left: there is nobody to answer and nothing amiss.
		e = internalFailure(x.service)
	case !ok:
		g.options.Logger.Error("a request failed", "requestId", x.id, "method", r.Method, "path", r.URL.Path, "error", err)
		e = internalFailure(x.service)
	case e.Cause != nil && e.Status >= 500:
		g.options.Logger.Error("a request failed", "requestId", x.id, "method", r.Method, "path", r.URL.Path, "error", e)
	}
	if w.status != 0 {
		panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
	}
	g.writeError(w, r, x, e)
}

func (g *Gateway) logAccess(w *response, r *http.Request, x *exchange) {
	ctx := r.Context()
	if !g.options.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("requestId", x.id), slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Duration("duration", g.options.Now().Sub(x.arrived)),
		slog.String("client", sourceIP(r)),
	}
	if x.call != nil {
		attrs = append(attrs, slog.String("operation", x.service.SigningName+":"+x.call.Operation.Name), slog.String("caller", x.caller.ARN))
	}
	if x.failure != nil {
		attrs = append(attrs, slog.Any("error", x.failure))
	}
	g.options.Logger.LogAttrs(ctx, slog.LevelDebug, "request", attrs...)
}
