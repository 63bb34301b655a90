package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// errNoFunctions is an edge that runs no functions.
var errNoFunctions = errors.New("this edge location runs no functions")

// run runs the function of an event.
func (s *Server) run(ctx context.Context, t *site, p *policy.Plan, e distribution.EventType, x *trigger.Exchange) error {
	if s.options.Functions == nil {
		return &trigger.Error{Class: trigger.LambdaExecution, Text: textBad, Cause: errNoFunctions}
	}
	return s.options.Functions.Run(ctx, t.d, p.Behaviour, e, x)
}

// toFields makes the header of an http.Header as functions see it. Names are in
// order, for the map has none.
func toFields(h http.Header, host string) trigger.Header {
	fields := make(trigger.Header, 0, len(h)+1)
	if host != "" {
		fields = append(fields, trigger.Field{Name: "Host", Value: host})
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			fields = append(fields, trigger.Field{Name: name, Value: v})
		}
	}
	return fields
}

// fromFields is its inverse.
func fromFields(fields trigger.Header) (h http.Header, host string) {
	h = make(http.Header, len(fields))
	for _, f := range fields {
		if strings.EqualFold(f.Name, "Host") {
			host = f.Value
			continue
		}
		name := http.CanonicalHeaderKey(f.Name)
		h[name] = append(h[name], f.Value)
	}
	return h, host
}

// showBody reads of a body what an event shows, and returns it with the whole body
// to be read on.
func showBody(b *distribution.Behaviour, e distribution.EventType, body io.Reader) (shown *trigger.Body, rest io.Reader, err error) {
	if !b.Functions[e].IncludeBody {
		return nil, body, nil
	}
	if body == nil {
		return &trigger.Body{}, nil, nil
	}
	limit := trigger.BodyLimit(e)
	head, err := io.ReadAll(io.LimitReader(body, int64(limit)+1))
	if err != nil {
		return nil, nil, err
	}
	shown = &trigger.Body{Data: head}
	if len(head) > limit {
		shown.Data, shown.Truncated = head[:limit:limit], true
		return shown, io.MultiReader(bytes.NewReader(head), body), nil
	}
	return shown, bytes.NewReader(head), nil
}

// replaced takes over the body that a function made.
func replaced(shown *trigger.Body, body *io.Reader, length *int64) {
	if shown == nil || !shown.Replaced {
		return
	}
	*body, *length = nil, 0
	if len(shown.Data) > 0 {
		*body, *length = bytes.NewReader(shown.Data), int64(len(shown.Data))
	}
}

// event makes what a viewer event's function sees of the request.
func (x *exchange) event() *trigger.Exchange {
	return &trigger.Exchange{
		RequestID: x.id, Secure: x.secure,
		Request: trigger.Request{
			ClientIP: x.client.Addr().String(), Method: x.request.Method, URI: x.request.Path, Query: x.request.Query,
			Header: toFields(x.request.Header, x.request.Host),
		},
	}
}

// runViewerRequest runs the viewer-request function and takes over what it made of
// the request; or it returns the response that the function made.
func (x *exchange) runViewerRequest() (*trigger.Response, error) {
	t := x.event()
	shown, rest, err := showBody(x.plan.Behaviour, distribution.ViewerRequest, x.body)
	if err != nil {
		return nil, err
	}
	x.body, t.Request.Body = rest, shown
	if err := x.s.run(x.r.Context(), x.site, x.plan, distribution.ViewerRequest, t); err != nil {
		return nil, err
	}
	if t.Response != nil {
		return t.Response, nil
	}
	x.request.Path, x.request.Query = t.Request.URI, t.Request.Query
	x.request.Header, x.request.Host = fromFields(t.Request.Header)
	x.route = t.Request.Route
	replaced(t.Request.Body, &x.body, &x.length)
	return nil, nil
}

// runViewerResponse runs the viewer-response function on what is about to be sent.
func (x *exchange) runViewerResponse(a *answer) error {
	t := x.event()
	t.Response = &trigger.Response{Status: a.status, Header: toFields(a.header, "")}
	if err := x.s.run(x.r.Context(), x.site, x.plan, distribution.ViewerResponse, t); err != nil {
		return err
	}
	a.status = t.Response.Status
	a.header, _ = fromFields(t.Response.Header)
	if t.Response.Replaced {
		a.release()
		a.object, a.body, a.data, a.length = nil, nil, t.Response.Body, int64(len(t.Response.Body))
	}
	return nil
}

// generated makes an answer of a response that a viewer-request function made. It
// is the last word: no viewer-response function runs.
func generated(r *trigger.Response, lambda bool) *answer {
	a := &answer{status: r.Status, result: resultOf(lambda), data: r.Body, length: int64(len(r.Body)), age: -1, own: true, bare: true}
	a.header, _ = fromFields(r.Header)
	return a
}

// resultOf is how a response that a function generated is told of.
func resultOf(lambda bool) string {
	if lambda {
		return "LambdaGeneratedResponse"
	}
	return "FunctionGeneratedResponse"
}
