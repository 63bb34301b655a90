package lambda

import (
	"context"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
)

// traceOf returns the trace header of an invocation of v: what the caller sent,
// completed, and with a decision about sampling.
func (s *Service) traceOf(ctx context.Context, v *function.Version) trace.Header {
	now := s.opts.Now()
	h := trace.Parse(aws.RequestFrom(ctx).Header.Get(trace.HeaderName)).Complete(now)
	return s.opts.Sampler.Decide(h, v.ActiveTracing, now)
}

// tellTrace tells the caller the trace of an invocation, in AWS's letters. It is
// called before the response begins.
func tellTrace(ctx context.Context, req *invoke.Request) {
	if header := aws.RequestFrom(ctx).Response; header != nil {
		header.Set(trace.HeaderName, strings.ToLower(req.TraceID))
	}
}
