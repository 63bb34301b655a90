// Package functionurl is the HTTP side of function URLs: it lets a request in
// (or not), makes it the event that the function gets, in payload format 2.0,
// and makes what the function returns the response, whole or as a stream.
//
// What a URL is, and the invocation itself, are the Lambda service's, which it
// uses through the interface Functions. Which requests are for which URL is the
// gateway's to tell.
//
// The rules are those of "Invoking Lambda function URLs" and "Control access to
// Lambda function URLs" in the Lambda developer guide.
package functionurl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/sigv4"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
)

// maxPayload is the largest event, and hence bounds the body of a request, in
// bytes (Lambda quotas: invocation payload). A body that is not text is the
// larger for its base64.
const maxPayload = 6 << 20

// methods are those that a function URL takes.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// Functions finds and invokes the functions behind URLs. The Lambda service
// implements it.
type Functions interface {
	// FunctionURL returns the URL of an id, or nil where there is none.
	FunctionURL(id string) *function.URL
	// InvokeURL invokes the function of a URL with an event and writes the
	// response, or the error payload, to w, in pieces where the URL streams.
	// The request in ctx names the invocation. Refusals are *aws.Error.
	InvokeURL(ctx context.Context, u *function.URL, event []byte, w io.Writer) (*invoke.Result, error)
}

// Credentials finds the secret with which a principal signs.
type Credentials interface {
	Lookup(accessKeyID, sessionToken string) (secret string, id aws.Identity, err error)
}

// Options configures a Handler. All fields but Now are required.
type Options struct {
	Functions   Functions
	Credentials Credentials
	Logger      *slog.Logger
	Now         func() time.Time // nil: time.Now
}

// Handler serves function URLs.
type Handler struct {
	options  Options
	verifier *sigv4.Verifier
}

// New returns a Handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Handler{options: o, verifier: sigv4.NewVerifier(o.Now)}
}

// ServeURL serves a request to the URL of an id. prefix is what stands before
// the path that the function sees, without a slash at its end. The context
// carries the *aws.Request.
func (h *Handler) ServeURL(w http.ResponseWriter, r *http.Request, id, prefix string) {
	x := &exchange{h: h, w: w, r: r, request: aws.RequestFrom(r.Context()), prefix: prefix}
	x.join()
	if x.url = h.options.Functions.FunctionURL(strings.ToLower(id)); x.url == nil {
		x.refuse(&aws.Error{Code: codeDenied, Status: http.StatusForbidden}) // as AWS does where nothing is
		return
	}
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

// exchange is one request on its way through a Handler.
type exchange struct {
	h       *Handler
	w       http.ResponseWriter
	r       *http.Request
	request *aws.Request
	url     *function.URL
	prefix  string
	caller  *aws.Identity // of a signed request
}

// serve serves the request. It returns an error only while nothing has been
// written.
func (x *exchange) serve() error {
	if x.url.CORS != nil && x.r.Method == http.MethodOptions {
		x.preflight()
		return nil
	}
	if !slices.Contains(methods, x.r.Method) {
		x.w.Header().Set("Allow", strings.Join(methods, ", "))
		return &aws.Error{Code: "MethodNotAllowedException", Status: http.StatusMethodNotAllowed, Message: "Method Not Allowed"}
	}
	if err := x.admit(); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxPayload+1))
	if err != nil {
		return err
	}
	if len(body) > maxPayload {
		return tooLarge()
	}
	event, err := x.event(body)
	if err != nil {
		return err
	}
	if len(event) > maxPayload {
		return tooLarge()
	}
	if x.url.Streaming {
		return x.stream(event)
	}
	return x.buffer(event)
}

// buffer invokes the function and answers when it is done.
func (x *exchange) buffer(event []byte) error {
	var payload bytes.Buffer
	result, err := x.h.options.Functions.InvokeURL(x.r.Context(), x.url, event, &payload)
	if err != nil {
		return err
	}
	if result.FunctionError != "" {
		return badGateway(nil)
	}
	res, err := interpret(payload.Bytes(), result.ContentType)
	if err != nil {
		return badGateway(err)
	}
	x.writeHeader(&res.head, len(res.body))
	_, _ = x.w.Write(res.body) // fails only when the client has left
	return nil
}

// hopByHop are headers that concern one connection only (RFC 9110, 7.6.1), and
// the length, which is ours to tell.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length",
}

// remapped are headers that a function cannot set: as on AWS the client gets
// them under another name.
var remapped = []string{"Date", "Server", "Www-Authenticate", "X-Amzn-Requestid", "X-Amzn-Trace-Id"}

const remappedPrefix = "X-Amzn-Remapped-"

// writeHeader writes the head of a response. length is -1 for a stream.
func (x *exchange) writeHeader(head *head, length int) {
	h := x.w.Header()
	for name, value := range head.headers {
		switch name = http.CanonicalHeaderKey(name); {
		case slices.Contains(hopByHop, name):
		case slices.Contains(remapped, name):
			h.Set(remappedPrefix+name, value)
		default:
			h.Set(name, value)
		}
	}
	for _, c := range head.cookies {
		h.Add("Set-Cookie", c)
	}
	x.allowOrigin()
	if length >= 0 && bodyAllowed(head.status) {
		h.Set("Content-Length", fmt.Sprint(length))
	}
	x.w.WriteHeader(head.status)
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// join makes the request part of a trace: of the one that its header names, or a
// new one. The function sees the header, and the invocation joins the trace.
func (x *exchange) join() {
	if x.request.Header.Get(trace.HeaderName) != "" {
		return
	}
	request := *x.request
	if request.Header = request.Header.Clone(); request.Header == nil {
		request.Header = http.Header{}
	}
	request.Header.Set(trace.HeaderName, trace.Header{Root: trace.NewRoot(x.h.options.Now())}.String())
	x.request = &request
	x.r = x.r.WithContext(aws.WithRequest(x.r.Context(), x.request))
}

const codeDenied = "AccessDeniedException"

func tooLarge() error {
	return &aws.Error{Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge, Message: "Request Entity Too Large"}
}

// errBadGateway is a function that failed, or returned what is no response.
type errBadGateway struct{ cause error }

func (e errBadGateway) Error() string {
	return fmt.Sprintf("the function failed or its response is invalid: %v", e.cause)
}

func badGateway(cause error) error { return errBadGateway{cause} }

// fail answers with an error.
func (x *exchange) fail(err error) {
	if bad, ok := errors.AsType[errBadGateway](err); ok {
		if bad.cause != nil {
			x.h.options.Logger.Debug("invalid response of a function", "function", x.url.FunctionARN, "requestId", x.request.ID, "error", bad.cause)
		}
		x.allowOrigin()
		x.write(http.StatusBadGateway, "", []byte("Internal Server Error"))
		return
	}
	e, ok := errors.AsType[*aws.Error](err)
	if !ok {
		if x.r.Context().Err() == nil { // else the client has left, which is no fault
			x.h.options.Logger.Error("a function URL failed", "function", x.url.FunctionARN, "requestId", x.request.ID, "error", err)
		}
		e = &aws.Error{Code: "InternalFailure", Status: http.StatusInternalServerError, Message: "Internal Server Error"}
	} else if e.Status >= 500 && e.Cause != nil {
		x.h.options.Logger.Error("a function URL failed", "function", x.url.FunctionARN, "requestId", x.request.ID, "error", e)
	}
	x.allowOrigin()
	x.refuse(e)
}

// refuse answers with an error of AWS's, whose body is a JSON document.
func (x *exchange) refuse(e *aws.Error) {
	body := map[string]any{}
	for k, v := range e.Extra {
		body[k] = v
	}
	key := e.MessageKey
	if key == "" && len(e.Extra) == 0 {
		key = "Message" // of refusals before Lambda itself is asked
	} else if key == "" {
		key = "message"
	}
	body[key] = e.Message
	if e.Message == "" {
		body[key] = nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings
	}
	for name, values := range e.Header {
		x.w.Header()[name] = values
	}
	x.write(e.Status, e.Code, b)
}

func (x *exchange) write(status int, errorType string, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if errorType != "" {
		h.Set("X-Amzn-Errortype", errorType)
	}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body) // fails only when the client has left
}
