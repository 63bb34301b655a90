package worker

import (
	"bytes"
	"context"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
)

// maxResponse returns how many bytes the response to a request may have.
func maxResponse(req *invoke.Request) int64 {
	inv := proto.Invocation{Streaming: req.Streaming}
	return inv.MaxResponse()
}

// The bandwidth of a streamed response: its first 6 MB go as fast as they can,
// the rest at 2 MB/s (Lambda developer guide, "Bandwidth limits for response
// streaming"). As in Lambda's supervisor that is a bucket of tokens, which fills
// up again while a function sends less.
const (
	streamBurst = 6 << 20 // bytes
	streamRate  = 2 << 20 // bytes/s
	// streamPiece is how much is passed on at once, so that a paced response
	// trickles rather than jerks, and is all that is held beside the window of
	// the guest's connection.
	streamPiece = 64 << 10
)

// response takes the response of one invocation from the guest to the caller.
// A buffered response is held back until it is whole, since a failure replaces
// it; a streamed one is passed on as it comes.
type response struct {
	ctx   context.Context // of the invocation: ends at its deadline
	req   *invoke.Request
	call  *invoke.Call
	trace invocationTrace
	began time.Time

	contentType string
	held        bytes.Buffer
	whole       []byte        // what goes to the caller with the result
	pace        *rate.Limiter // of a streamed response; made by its first byte
	sent        bool          // the caller has had a part of a streamed response
	streamed    int64         // bytes of a streamed response, whether or not the caller took them
	ended       bool          // result is what the caller gets
	result      *invoke.Result
	failure     *failure // of a response that ended in an error
}

// Start implements host.ResponseWriter.
func (r *response) Start(s proto.ResponseStart) { r.contentType = s.ContentType }

// begin tells the caller of a streamed response that it is one and not an error.
func (r *response) begin() {
	if r.req.Streaming && !r.sent {
		r.sent = true
		r.call.Begin(r.ctx, r.contentType)
	}
}

// Write implements host.ResponseWriter.
func (r *response) Write(p []byte) (int, error) {
	if !r.req.Streaming {
		return r.held.Write(p)
	}
	for part := range slices.Chunk(p, streamPiece) {
		if err := r.wait(len(part)); err != nil {
			return 0, err
		}
		r.begin()
		r.streamed += int64(len(part))
		r.call.Write(r.ctx, bytes.Clone(part))
	}
	return len(p), nil
}

// wait waits until n bytes may be sent. A caller that has left changes nothing:
// its function takes the time, and is billed for it, that it would have taken.
func (r *response) wait(n int) error {
	if r.pace == nil {
		r.pace = rate.NewLimiter(streamRate, streamBurst)
	}
	delay := r.pace.ReserveN(time.Now(), n).Delay()
	if delay == 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// End implements host.ResponseWriter.
func (r *response) End(e *host.RuntimeError) {
	if e != nil {
		r.fail(runtimeFailure(e))
	} else {
		r.begin()
		r.whole = r.held.Bytes()
		r.finish(&invoke.Result{ContentType: r.contentType})
	}
}

// fail ends the response with an error, unless it has ended already.
func (r *response) fail(f *failure) {
	if r.ended {
		return
	}
	r.failure = f
	payload := f.payload(r.req)
	if r.sent {
		r.finish(&invoke.Result{ErrorType: f.payloadType, ErrorDetails: string(payload)})
		return
	}
	r.whole = payload
	r.finish(&invoke.Result{FunctionError: "Unhandled", ContentType: "application/json"})
}

func (r *response) finish(result *invoke.Result) {
	r.req.Start.Add("invoke", r.began, time.Now())
	r.ended, r.result = true, result
	if !r.req.Tail {
		r.call.Finish(result, r.whole)
	}
}

// answer answers a caller who waited for the log as well.
func (r *response) answer(tail []byte) {
	if r.req.Tail {
		r.result.LogTail = tail
		r.call.Finish(r.result, r.whole)
	}
}
