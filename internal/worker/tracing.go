package worker

import (
	"time"

	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/otlp"
)

// invocationTrace is what an invocation has to do with traces: the segment that
// it is, for the function and its log, and the span of it that Lapwing exports.
type invocationTrace struct {
	header trace.Header // that the function sees: the segment is its parent
	span   *otlp.Span
}

// sampled tells whether the function and the platform tell of the trace.
func (t invocationTrace) sampled() bool { return t.header.Sampled == "1" }

// beginTrace begins the trace of an invocation. One that comes without a header,
// or without a decision, is completed here. The Init that came before the first
// invocation belongs to that, as on AWS.
func (e *environment) beginTrace(req *invoke.Request, began time.Time) invocationTrace {
	h := e.w.opts.Sampler.Decide(trace.Parse(req.TraceID).Complete(began), e.v.ActiveTracing, began)
	if e.initDuration > 0 && e.initType == initOnDemand {
		span := e.w.opts.Tracer.StartAt(h, otlp.Internal, "init "+e.v.Name, e.stream.began)
		e.describe(span)
		span.EndAt(e.initEnded)
		e.w.opts.Tracer.Steps(span.Header(h), e.steps.Steps())
	}
	span := e.w.opts.Tracer.StartAt(h, otlp.Internal, "invoke "+e.v.Name, began)
	if span == nil {
		h.Parent = trace.NewSegment()
		return invocationTrace{header: h}
	}
	h = span.Header(h)
	e.describe(span)
	span.Set("faas.invocation_id", req.RequestID)
	return invocationTrace{h, span}
}

// describe notes what an environment's span is about.
func (e *environment) describe(span *otlp.Span) {
	span.Set("faas.name", e.v.Name)
	span.Set("faas.version", e.v.Version)
	span.Set("faas.instance", e.stream.name)
	span.Set("cloud.resource_id", e.v.ARN())
}

// end ends the invocation's span; errorType is empty on success.
func (t invocationTrace) end(at time.Time, errorType string) {
	if errorType != "" {
		t.span.Fail(errorType)
	}
	t.span.EndAt(at)
}

// tracing is the trace in platform events (Telemetry API, TraceContext).
func (t invocationTrace) tracing() map[string]any {
	return map[string]any{"type": trace.HeaderName, "value": t.header.String(), "spanId": t.header.Parent}
}
