package lambda

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/jsonsyntax"
)

// Limits of an invocation (Lambda quotas; Lambda API reference, Invoke).
const (
	maxPayload       = 6 << 20 // bytes of a synchronous event
	maxClientContext = 3583    // bytes in base64
)

// call is what the two invoke operations have in common.
type call struct {
	name, qualifier *string
	payload         []byte
	clientContext   *string
	tenant          *string
	tail            bool
	streaming       bool
	async           bool
}

// Invoke implements lambda.API.
func (s *Service) Invoke(ctx context.Context, in *api.InvokeInput) (*api.InvokeOutput, error) {
	if aws.Value(in.DurableExecutionName) != "" {
		return nil, unsupported("DurableExecutionName")
	}
	req, err := s.prepare(ctx, call{
		name: in.FunctionName, qualifier: in.Qualifier, payload: in.Payload,
		clientContext: in.ClientContext, tenant: in.TenantId, tail: in.LogType == api.LogTypeTail,
		async: in.InvocationType == api.InvocationTypeEvent,
	})
	if err != nil {
		return nil, err
	}
	switch in.InvocationType {
	case api.InvocationTypeDryRun:
		return &api.InvokeOutput{StatusCode: aws.Ptr(int32(http.StatusNoContent))}, nil
	case api.InvocationTypeEvent:
		if err := s.enqueue(ctx, req); err != nil {
			return nil, err
		}
		return &api.InvokeOutput{StatusCode: aws.Ptr(int32(http.StatusAccepted))}, nil
	}
	var payload bytes.Buffer
	tellTrace(ctx, req)
	traceStart(ctx, req)
	req.After = aws.RequestFrom(ctx).After
	result, err := s.opts.Invoker.Invoke(ctx, req, &payload)
	if err == nil {
		err = tellStart(ctx, req)
	}
	if err != nil {
		return nil, internal(err)
	}
	out := &api.InvokeOutput{
		StatusCode:      aws.Ptr(int32(http.StatusOK)),
		ExecutedVersion: &req.Version.Version,
		FunctionError:   optional(result.FunctionError),
		Payload:         payload.Bytes(),
	}
	if req.Tail {
		out.LogResult = aws.Ptr(base64.StdEncoding.EncodeToString(result.LogTail))
	}
	return out, nil
}

// prepare finds the version to run and checks the event: everything that
// happens before an invocation counts. It reads memory only.
func (s *Service) prepare(ctx context.Context, c call) (*invoke.Request, error) {
	ref, err := s.resolve(ctx, aws.Value(c.name), aws.Value(c.qualifier))
	if err != nil {
		return nil, err
	}
	r, t, err := s.route(ref)
	if err != nil {
		return nil, err
	}
	if err := t.checkTenant(aws.Value(c.tenant)); err != nil {
		return nil, err
	}
	invocation, limit := api.InvocationTypeRequestResponse, maxPayload
	if c.async {
		invocation, limit = api.InvocationTypeEvent, events.MaxPayload
	}
	if len(c.payload) > limit {
		return nil, entityTooLarge("%d byte payload is too large for the %s invocation type (limit %d bytes)", len(c.payload), invocation, limit)
	}
	if len(c.payload) == 0 {
		c.payload = []byte("{}")
	} else if err := checkJSON(c.payload); err != nil {
		return nil, invalidContent("Could not parse request body into json: Could not parse payload into json: %v", err)
	}
	clientContext, err := decodeClientContext(c.clientContext)
	if err != nil {
		return nil, err
	}
	if t.state != api.StateActive {
		return nil, t.notReady()
	}
	request := aws.RequestFrom(ctx)
	header := s.traceOf(ctx, t.version)
	if !c.async { // an event is checked when it is run, to go to its destination
		if header, err = s.enterChain(ref, header); err != nil {
			return nil, err
		}
	}
	return &invoke.Request{
		Version:       t.version,
		InvokedARN:    r.invokedARN,
		RequestID:     request.ID,
		Payload:       c.payload,
		ClientContext: clientContext,
		TraceID:       header.String(),
		Tail:          c.tail,
		Streaming:     c.streaming,
		TenantID:      aws.Value(c.tenant),
	}, nil
}

// route finds the version behind a qualifier; for a weighted alias chance
// decides.
func (s *Service) route(ref reference) (*route, *target, error) {
	e := s.entries.get(ref.functionKey)
	if e == nil {
		if ref.qualifier == "" {
			ref.qualifier = "$LATEST" // AWS names it so here
		}
		return nil, nil, functionNotFound(ref.qualified())
	}
	r := e.routes[ref.qualifier]
	if r == nil {
		return nil, nil, functionNotFound(ref.qualified())
	}
	return r, r.choose(s.opts.Rand), nil
}

// notReady refuses to run a version that is not Active. AWS has an error of its
// own for one with SnapStart that was Active before (Lambda developer guide,
// "Troubleshooting SnapStart errors").
func (t *target) notReady() error {
	if t.version.SnapStart && t.why == api.StateReasonCodeRestoring {
		return byUser(api.NewSnapStartNotReadyException("Lambda is initializing your function. It will be ready to invoke once your function state becomes ACTIVE."))
	}
	return conflict("The operation cannot be performed at this time. The function is currently in the following state: %s", t.state)
}

// checkTenant insists on a tenant where the function isolates them, and only
// there (Lambda developer guide, "Troubleshooting tenant isolation").
func (t *target) checkTenant(id string) error {
	switch {
	case t.isolated && id == "":
		return invalidParameter("The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again.")
	case !t.isolated && id != "":
		return invalidParameter("The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again.")
	}
	return nil
}

// checkJSON tells whether b is one JSON value, and if not why.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) { // which package json lets pass
		return errors.New("invalid UTF-8")
	}
	if jsonsyntax.Valid(b) {
		return nil
	}
	var v any
	return json.Unmarshal(b, &v)
}

func decodeClientContext(in *string) (string, error) {
	if in == nil || *in == "" {
		return "", nil
	}
	if len(*in) > maxClientContext {
		return "", invalidContent("Client context must be at most %d bytes of Base64-encoded JSON.", maxClientContext)
	}
	b, err := base64.StdEncoding.DecodeString(*in)
	if err != nil || !json.Valid(b) {
		return "", invalidContent("Client context must be a valid Base64-encoded JSON object.")
	}
	return string(b), nil
}

// InvokeWithResponseStream implements lambda.API.
func (s *Service) InvokeWithResponseStream(ctx context.Context, in *api.InvokeWithResponseStreamInput) (*api.InvokeWithResponseStreamOutput, error) {
	req, err := s.prepare(ctx, call{
		name: in.FunctionName, qualifier: in.Qualifier, payload: in.Payload,
		clientContext: in.ClientContext, tenant: in.TenantId, tail: in.LogType == api.LogTypeTail, streaming: true,
	})
	if err != nil {
		return nil, err
	}
	if in.InvocationType == api.ResponseStreamingInvocationTypeDryRun {
		return &api.InvokeWithResponseStreamOutput{StatusCode: aws.Ptr(int32(http.StatusNoContent))}, nil
	}
	stream, err := s.stream(ctx, req)
	if err != nil {
		return nil, internal(err)
	}
	return &api.InvokeWithResponseStreamOutput{
		StatusCode:      aws.Ptr(int32(http.StatusOK)),
		ExecutedVersion: &req.Version.Version,
		EventStream:     stream,
	}, nil
}

// stream runs an invocation and returns its events. Refusals come as an error,
// before anything is sent: it waits for the first byte or the end.
func (s *Service) stream(ctx context.Context, req *invoke.Request) (iter.Seq2[*api.InvokeWithResponseStreamResponseEvent, error], error) {
	tellTrace(ctx, req)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	p := &chunks{ctx, make(chan []byte)}
	var result *invoke.Result
	var failed error
	done := make(chan struct{})
	s.wg.Go(func() {
		defer close(done)
		defer stop()
		result, failed = s.opts.Invoker.Invoke(ctx, req, p)
	})
	var first []byte
	select {
	case first = <-p.data:
	case <-done:
		if failed != nil {
			cancel()
			return nil, failed
		}
	}
	return func(yield func(*api.InvokeWithResponseStreamResponseEvent, error) bool) {
		defer func() { <-done }()
		defer cancel()
		for chunk := first; ; {
			if chunk != nil {
				ok := yield(&api.InvokeWithResponseStreamResponseEvent{PayloadChunk: &api.InvokeResponseStreamUpdate{Payload: chunk}}, nil)
				if !ok {
					return
				}
			}
			select {
			case chunk = <-p.data:
				continue
			case <-done:
			}
			break
		}
		if failed != nil {
			yield(nil, internal(failed))
			return
		}
		yield(&api.InvokeWithResponseStreamResponseEvent{InvokeComplete: complete(req, result)}, nil)
	}, nil
}

// complete is the last event of a stream.
func complete(req *invoke.Request, result *invoke.Result) *api.InvokeWithResponseStreamCompleteEvent {
	out := &api.InvokeWithResponseStreamCompleteEvent{
		ErrorCode:    optional(result.ErrorType),
		ErrorDetails: optional(result.ErrorDetails),
	}
	if out.ErrorCode == nil {
		out.ErrorCode = optional(result.FunctionError)
	}
	if req.Tail {
		out.LogResult = aws.Ptr(base64.StdEncoding.EncodeToString(result.LogTail))
	}
	return out
}

// chunks hands on what an invocation writes, when the reader of its events is
// ready for it.
type chunks struct {
	ctx  context.Context
	data chan []byte
}

func (c *chunks) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	select {
	case c.data <- bytes.Clone(b):
		return len(b), nil
	case <-c.ctx.Done():
		return 0, c.ctx.Err()
	}
}
