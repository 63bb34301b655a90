package guest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
)

const (
	errorTypeHeader    = "Lambda-Runtime-Function-Error-Type"
	errorBodyTrailer   = "Lambda-Runtime-Function-Error-Body"
	responseModeHeader = "Lambda-Runtime-Function-Response-Mode"
	causeContentType   = "application/vnd.aws.lambda.error.cause+json"

	oversized = "Function.ResponseSizeTooLarge"
	truncated = "Runtime.TruncatedResponse"
)

// begin checks that the runtime may post the outcome of invocation id and
// moves it to state to; a non-nil response refuses it.
func (g *guest) begin(id string, to runtimeState) (*event, *http1.Response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.event == nil || !g.event.delivered || id != g.event.inv.RequestID {
		r := failure(400, "InvalidRequestID", "Invalid request ID")
		return nil, &r
	}
	if g.state != stateRunning {
		r := badTransition(g.state, to)
		return nil, &r
	}
	g.state = to
	return g.event, nil
}

// sent ends what begin began.
func (g *guest) sent(ev *event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ev.ended = true
	g.state = stateResponseSent
	g.window.Broadcast() // a reaper may wait for the end of the response
	g.settle()
}

// response takes the response of the function and passes it on as it arrives.
func (g *guest) response(r *http1.Request, id string) http1.Response {
	ev, refusal := g.begin(id, stateResponse)
	if refusal != nil {
		return *refusal
	}
	g.drainLogs()
	defer g.sent(ev)

	mode := r.Header.Get(responseModeHeader)
	if mode != "" && mode != "streaming" {
		g.link.meta(proto.TypeResponseError, proto.ErrorMeta{RequestID: id, ErrorType: "Runtime.InvalidResponseModeHeader"}, nil)
		return failure(400, "InvalidFunctionResponseMode", "Invalid function response mode")
	}
	start := proto.ResponseStart{RequestID: id, ContentType: r.Header.Get("Content-Type"), Streaming: mode != ""}
	switch err := g.forward(r, start, ev.inv.MaxResponse()); {
	case errors.Is(err, errTooLarge):
		return failure(413, "RequestEntityTooLarge", "Exceeded maximum allowed payload size (%d bytes).", ev.inv.MaxResponse())
	case err != nil:
		return failure(400, "TruncatedHTTPRequest", "HTTP request detected as truncated")
	}
	return accepted() // an error in the trailers too
}

var (
	errTooLarge = errors.New("guest: response too large")
	errEnding   = errors.New("guest: shutting down")
)

// forward sends a response to the host, as far as its window allows. A small
// response that has arrived whole leaves in one write.
func (g *guest) forward(r *http1.Request, start proto.ResponseStart, limit int64) error {
	var (
		body  = r.Body
		end   proto.ResponseEnd
		total int64
		size  = chunkSize(body)
		out   = proto.AppendFrame(make([]byte, 0, size+frameRoom), proto.TypeResponseStart, start)
		rerr  error
	)
	for rerr == nil {
		// Room for the largest frame that may come of what is read; how large
		// it is is put in then.
		at := len(out)
		out = slices.Grow(proto.AppendData(out, proto.TypeResponseData, 0), size)
		chunk := out[len(out):][:size]
		n := 0
		for n < len(chunk) && rerr == nil && (n == 0 || body.Buffered()) {
			var m int
			m, rerr = body.Read(chunk[n:])
			n += m
		}
		if total += int64(n); total > limit {
			n -= int(total - limit) // what is within the limit is sent
			rerr = errTooLarge
		}
		if n > 0 {
			if err := g.acquire(n); err != nil {
				return err
			}
			out = append(proto.AppendData(out[:at], proto.TypeResponseData, n), chunk[:n]...)
		} else {
			out = out[:at]
		}
		if rerr == nil {
			g.link.raw(out)
			out = out[:0]
		}
	}
	switch {
	case rerr == io.EOF:
		rerr = nil
		if t := body.Trailer.Get(errorTypeHeader); t != "" {
			end.ErrorType = t
			end.ErrorBody = decodeErrorBody(body.Trailer.Get(errorBodyTrailer))
		}
	case errors.Is(rerr, errTooLarge):
		end.ErrorType = oversized
	case !start.Streaming && g.runtimeEnds():
		g.link.raw(out)
		return rerr // why it ended is what the caller is told; of a stream Lambda says that it is truncated
	default:
		end.ErrorType = truncated
	}
	out = proto.AppendFrame(out, proto.TypeResponseEnd, end)
	if rerr == nil && r.HasNext() {
		// The runtime has asked for the next event too: the word of that goes
		// with the response. What it has asked for is served next, or its
		// connection ends.
		g.link.hold(out)
	} else {
		g.link.raw(out)
	}
	return rerr
}

// exitGrace is how long after the end of a connection the end of the process
// that had it is waited for. A process closes its files before it is reaped.
const exitGrace = time.Second

// runtimeEnds tells whether the runtime has ended, or is about to.
func (g *guest) runtimeEnds() bool {
	g.mu.Lock()
	p := g.runtime
	g.mu.Unlock()
	if p == nil {
		return false // it is just being started
	}
	timer := time.NewTimer(exitGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-g.stop:
	case <-timer.C:
	}
	return false
}

// chunkSize returns the size of the buffer for a response body: no more than
// needed where its length is known, and one byte for seeing its end at once.
func chunkSize(body *http1.Body) int {
	if n := body.Length(); n >= 0 {
		return int(min(n+1, proto.MaxChunk))
	}
	return proto.MaxChunk
}

// frameRoom is what the frames around a small response take, as a rule.
const frameRoom = 256

// acquire waits until the host takes n bytes more.
func (g *guest) acquire(n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.granted < n {
		if g.ending {
			return errEnding
		}
		g.in.recall()
		g.window.Wait()
	}
	g.granted -= n
	return nil
}

// decodeErrorBody decodes the base64 of an error trailer; what is not base64
// is passed on as it is.
func decodeErrorBody(s string) string {
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		return string(b)
	}
	return s
}

// invocationError takes the error that the function ended with.
func (g *guest) invocationError(r *http1.Request, id string) http1.Response {
	// The body first: where it is cut short or too large, the runtime can still
	// report something else.
	body, refusal := readError(r)
	if refusal != nil {
		return *refusal
	}
	ev, refusal := g.begin(id, stateErrorResponse)
	if refusal != nil {
		return *refusal
	}
	g.drainLogs()
	defer g.sent(ev)
	meta := errorMeta(r, id)
	if meta.ContentType == causeContentType {
		body, meta.ContentType = withoutCause(body)
	}
	g.link.meta(proto.TypeResponseError, meta, body)
	return accepted()
}

// initError takes the error that the runtime failed to initialise with.
func (g *guest) initError(r *http1.Request) http1.Response {
	body, refusal := readError(r)
	if refusal != nil {
		return *refusal
	}
	g.drainLogs()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.state == stateRestoring: // Lambda takes errors of restored runtimes here too
		return g.initFailed(r, stateRestoreError, body)
	case g.state != stateStarted || g.initOver:
		return badTransition(g.state, stateInitError)
	}
	return g.initFailed(r, stateInitError, body)
}

// initFailed passes on the error that ended initialisation, or what follows a
// restore. g.mu is held.
func (g *guest) initFailed(r *http1.Request, to runtimeState, body []byte) http1.Response {
	g.state = to
	g.initOver = true
	meta := errorMeta(r, "")
	if meta.ContentType == causeContentType {
		body, meta.ContentType = withoutCause(body)
	}
	g.flushLogs()
	g.reportExtensions()
	g.link.meta(proto.TypeInitError, meta, body)
	return accepted()
}

// readError reads the body of an error report.
func readError(r *http1.Request) ([]byte, *http1.Response) {
	body, err := io.ReadAll(io.LimitReader(r.Body, proto.MaxPayload+1))
	if err != nil {
		r := failure(400, "TruncatedHTTPRequest", "HTTP request detected as truncated")
		return nil, &r
	}
	if len(body) > proto.MaxPayload {
		r := failure(413, "RequestEntityTooLarge", "Exceeded maximum allowed payload size (%d bytes).", proto.MaxPayload)
		return nil, &r
	}
	return body, nil
}

func errorMeta(r *http1.Request, id string) proto.ErrorMeta {
	return proto.ErrorMeta{
		RequestID:   id,
		ErrorType:   validErrorType(r.Header.Get(errorTypeHeader)),
		ContentType: r.Header.Get("Content-Type"),
	}
}

// validErrorType returns the error type as Lambda keeps it: what holds
// (Runtime|Function)\.[A-Z][a-zA-Z]+, or the unknown type of its family.
func validErrorType(t string) string {
	for _, family := range []string{"Runtime.", "Function."} {
		for rest := t; ; {
			_, after, ok := strings.Cut(rest, family)
			if !ok {
				break
			}
			if len(after) >= 2 && isUpper(after[0]) && (isUpper(after[1]) || isUpper(after[1]&^0x20)) {
				return t
			}
			rest = after
		}
	}
	if strings.HasPrefix(t, "Function.") {
		return "Function.Unknown"
	}
	return "Runtime.Unknown"
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }

// withoutCause takes the X-Ray cause out of an error document that carries
// one, and returns the document and its content type.
func withoutCause(body []byte) ([]byte, string) {
	var doc struct {
		Message    string   `json:"errorMessage"`
		Type       string   `json:"errorType"`
		StackTrace []string `json:"stackTrace,omitempty"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return []byte(`"Invalid error body"`), "application/octet-stream"
	}
	b, err := json.Marshal(doc)
	if err != nil { // strings only
		panic(err)
	}
	return b, "application/json"
}
