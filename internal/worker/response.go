package worker

import (
	"bytes"
	"context"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
)

// maxResponse is the largest buffered response: 6 MB and 100 bytes.
const maxResponse = proto.MaxPayload

// response takes the response of one invocation from the guest to the caller.
// A buffered response is held back until it is whole, since a failure replaces
// it; a streamed one is passed on as it comes.
type response struct {
	ctx  context.Context // of the invocation: ends at its deadline
	req  *invoke.Request
	call *invoke.Call

	contentType string
	held        bytes.Buffer
	sent        bool // the caller has had a part of a streamed response
	ended       bool // result is what the caller gets
	result      *invoke.Result
	failure     *failure // of a response that ended in an error
}

// Start implements host.ResponseWriter.
func (r *response) Start(s proto.ResponseStart) { r.contentType = s.ContentType }

// Write implements host.ResponseWriter.
func (r *response) Write(p []byte) (int, error) {
	if r.req.Streaming {
		r.sent = true
		r.call.Write(r.ctx, bytes.Clone(p))
		return len(p), nil
	}
	return r.held.Write(p)
}

// End implements host.ResponseWriter.
func (r *response) End(e *host.RuntimeError) {
	if e != nil {
		r.fail(runtimeFailure(e))
	} else {
		r.deliver(r.held.Bytes())
		r.finish(&invoke.Result{ContentType: r.contentType})
	}
}

// fail ends the response with an error, unless it has ended already.
func (r *response) fail(f *failure) {
	if r.ended {
		return
	}
	r.failure = f
	payload := f.payload(r.req.RequestID)
	if r.sent {
		r.finish(&invoke.Result{ErrorType: f.payloadType, ErrorDetails: string(payload)})
		return
	}
	r.deliver(payload)
	r.finish(&invoke.Result{FunctionError: "Unhandled", ContentType: "application/json"})
}

func (r *response) finish(result *invoke.Result) {
	r.ended, r.result = true, result
	if !r.req.Tail {
		r.call.Finish(result)
	}
}

// deliver writes all that there is, to a caller who has nothing else to do.
func (r *response) deliver(p []byte) { r.call.Write(context.Background(), p) }

// answer answers a caller who waited for the log as well.
func (r *response) answer(tail []byte) {
	if r.req.Tail {
		r.result.LogTail = tail
		r.call.Finish(r.result)
	}
}
