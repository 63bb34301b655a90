package gateway

import (
	"net/http"

	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/otlp"
)

// startSpan begins the span of a request, in the trace that its header names.
func (g *Gateway) startSpan(r *http.Request, x *exchange) {
	if g.options.Tracer == nil {
		return
	}
	in := trace.Parse(r.Header.Get(trace.HeaderName))
	x.span = g.options.Tracer.Start(in, otlp.Server, r.Method)
	x.trace = x.span.Header(in)
}

// endSpan ends it when the response has been written.
func (g *Gateway) endSpan(w *response, r *http.Request, x *exchange) {
	if x.span == nil {
		return
	}
	x.span.Set("http.request.method", r.Method)
	x.span.SetInt("http.response.status_code", w.status)
	x.span.Set("aws.request_id", x.id)
	if x.call != nil {
		x.span.Rename(x.service.ID + "/" + x.call.Operation.Name)
		x.span.Set("rpc.system", "aws-api")
		x.span.Set("rpc.service", x.service.ID)
		x.span.Set("rpc.method", x.call.Operation.Name)
	}
	if w.status >= 500 {
		x.span.Fail(http.StatusText(w.status))
	}
	x.span.End()
}

// header returns the headers of a request for what comes behind the gateway: as
// received, but that the gateway's span is the parent.
func (x *exchange) header(r *http.Request) http.Header {
	if x.span == nil {
		return r.Header
	}
	h := r.Header.Clone()
	h.Set(trace.HeaderName, x.trace.String())
	return h
}
