package lambda

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
)

// enqueue makes an asynchronous invocation of a request.
func (s *Service) enqueue(ctx context.Context, req *invoke.Request) error {
	target, ok := events.TargetOf(req.InvokedARN)
	if !ok {
		return internal(fmt.Errorf("%s is no function", req.InvokedARN))
	}
	if e := s.entries.get(functionKey{target.Region, target.Function}); e != nil {
		target.FunctionID = e.function.Value.ID
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	return internal(s.opts.Events.Accept(ctx, &events.Event{
		Target: target, RequestID: req.RequestID, Payload: req.Payload,
		ClientContext: req.ClientContext, TenantID: req.TenantID, Trace: req.TraceID,
	}))
}

// InvokeAsync implements lambda.API: what there was before Invoke.
func (s *Service) InvokeAsync(ctx context.Context, in *api.InvokeAsyncInput) (*api.InvokeAsyncOutput, error) {
	payload, err := io.ReadAll(in.InvokeArgs) // which the operation's limit bounds
	if err != nil {
		return nil, err
	}
	req, err := s.prepare(ctx, call{name: in.FunctionName, payload: payload, async: true})
	if err != nil {
		return nil, err
	}
	if err := s.enqueue(ctx, req); err != nil {
		return nil, err
	}
	return &api.InvokeAsyncOutput{Status: aws.Ptr(int32(http.StatusAccepted))}, nil
}

// Plan implements events.Functions.
func (s *Service) Plan(t events.Target) (*events.Plan, error) {
	ref := s.reference(t.Region, t.Function, t.Qualifier)
	e := s.entries.get(ref.functionKey)
	if e == nil || t.FunctionID != "" && t.FunctionID != e.function.Value.ID {
		return nil, events.ErrNoFunction
	}
	r := e.routes[t.Qualifier]
	if r == nil {
		return nil, events.ErrNoFunction
	}
	chosen := r.choose(s.opts.Rand)
	if chosen.state != api.StateActive {
		return nil, fmt.Errorf("lambda: %s is %s", ref.qualified(), chosen.state)
	}
	h := s.asyncHolder(e, ref)
	p := &events.Plan{
		Version: chosen.version, InvokedARN: r.invokedARN, RecordARN: h.asyncARN(), FunctionID: e.function.Value.ID,
		Reserved: e.function.Value.ReservedConcurrency, MaxAge: events.DefaultMaxAge, MaxRetries: events.DefaultMaxRetries,
		AllowRecursion: e.function.Value.RecursiveLoop == api.RecursiveLoopAllow,
	}
	if v, ok := e.version(chosen.version.Version); ok {
		p.DeadLetter = v.config.DeadLetter
	}
	if c := h.Async; c != nil {
		if c.MaxAgeSec != nil {
			p.MaxAge = time.Duration(*c.MaxAgeSec) * time.Second
		}
		if c.MaxRetries != nil {
			p.MaxRetries = int(*c.MaxRetries)
		}
		p.OnSuccess, p.OnFailure = c.OnSuccess, c.OnFailure
	}
	return p, nil
}

// choose decides between the versions of a weighted alias.
func (r *route) choose(chance func() float64) *target {
	if r.other != nil && chance() < r.weight {
		return r.other
	}
	return r.target
}

// checkDeadLetter takes a dead-letter target, empty for none. AWS takes queues
// and topics; until there are such, Lapwing takes functions.
func (s *Service) checkDeadLetter(arn string) error {
	if arn == "" {
		return nil
	}
	target, ok := events.TargetOf(arn)
	if !ok {
		return unsupported("DeadLetterConfig with a target other than a Lambda function")
	}
	if !s.invocable(arn, target) {
		return invalidParameter("The dead-letter target ARN %s is invalid.", arn)
	}
	return nil
}

// invocable tells whether an ARN names a function, version or alias that is
// there.
func (s *Service) invocable(arn string, t events.Target) bool {
	e := s.entries.get(functionKey{t.Region, t.Function})
	return e != nil && qualify(e.arn, t.Qualifier) == arn && e.routes[t.Qualifier] != nil
}

// enterChain counts an invocation of a function in the chain of requests that a
// trace header tells of, and returns the header for the invocation. A chain in
// which the function has been too often is a loop, and stopped unless the
// function allows loops.
func (s *Service) enterChain(ref reference, h trace.Header) (trace.Header, error) {
	h, visits := h.Visit(ref.arn)
	if visits <= trace.MaxLineage {
		return h, nil
	}
	if e := s.entries.get(ref.functionKey); e != nil && e.function.Value.RecursiveLoop != api.RecursiveLoopAllow {
		if told := s.opts.RecursionStopped; told != nil {
			told(events.Target{Region: ref.region, Function: ref.name, Qualifier: ref.qualifier})
		}
		return h, byUser(api.NewRecursiveInvocationException("Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources and stopped your function's invocation."))
	}
	return h, nil
}

// PutFunctionRecursionConfig implements lambda.API.
func (s *Service) PutFunctionRecursionConfig(ctx context.Context, in *api.PutFunctionRecursionConfigInput) (*api.PutFunctionRecursionConfigOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	err = s.modifyFunction(ctx, ref, func(f *functionRecord) error {
		f.RecursiveLoop = in.RecursiveLoop
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.PutFunctionRecursionConfigOutput{RecursiveLoop: in.RecursiveLoop}, nil
}

// GetFunctionRecursionConfig implements lambda.API.
func (s *Service) GetFunctionRecursionConfig(ctx context.Context, in *api.GetFunctionRecursionConfigInput) (*api.GetFunctionRecursionConfigOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	out := &api.GetFunctionRecursionConfigOutput{RecursiveLoop: e.function.Value.RecursiveLoop}
	if out.RecursiveLoop == "" {
		out.RecursiveLoop = api.RecursiveLoopTerminate
	}
	return out, nil
}
