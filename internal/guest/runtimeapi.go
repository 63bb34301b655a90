package guest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/guest/http1"
)

// runtimeState is the state of the runtime, by the names that Lambda's
// supervisor puts into its messages.
type runtimeState string

const (
	stateStarted       runtimeState = ""
	stateInitError     runtimeState = "InitError"
	stateReady         runtimeState = "Ready"
	stateRunning       runtimeState = "Running"
	stateResponse      runtimeState = "InvocationResponse"
	stateErrorResponse runtimeState = "InvocationErrorResponse"
	stateResponseSent  runtimeState = "RuntimeResponseSentState"
	stateRestoreReady  runtimeState = "RestoreReady"
	stateRestoring     runtimeState = "Restoring"
	stateRestoreError  runtimeState = "RuntimeRestoreErrorState"
)

func (s runtimeState) String() string {
	if s == stateStarted {
		return "Started"
	}
	return string(s)
}

const notAllowed = "State transition is not allowed"

// ExchangeFile is the descriptor, of no file, that our own bootstraps give to
// pread for an exchange: see Supervisor.Exchange. It is far above all that a
// process can have, so that pread fails with EBADF where there is no such thing.
const ExchangeFile = 0x6c617077

const nextPath = "/2018-06-01/runtime/invocation/next"

// serve routes a request of the function.
func (g *guest) serve(r *http1.Request) http1.Response {
	if r.Path == nextPath {
		return only(r, "GET", g.next)
	}
	g.link.flush() // what waits for a call of next, which as a rule has something to send
	rest, ok := strings.CutPrefix(r.Path, "/2018-06-01/")
	switch {
	case r.Exchanged() && !strings.HasPrefix(rest, "runtime/invocation/"):
		return notFound() // it may wait, in a way that no signal ends
	case r.Path == credentialsPath:
		return only(r, "GET", g.serveCredentials)
	case !ok:
		return g.serveExtensionAPIs(r)
	case strings.HasPrefix(rest, "runtime/restore/"):
		return g.serveRestore(r)
	}
	switch rest {
	case "runtime/init/error":
		return only(r, "POST", g.initError)
	case "ping":
		return only(r, "GET", func(*http1.Request) http1.Response {
			return http1.Response{Status: 200, Header: http1.Fields{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}}, Body: []byte("pong")}
		})
	}
	if rest, ok = strings.CutPrefix(rest, "runtime/invocation/"); ok {
		id, what, _ := strings.Cut(rest, "/")
		switch what {
		case "response":
			return only(r, "POST", func(r *http1.Request) http1.Response { return g.response(r, id) })
		case "error":
			return only(r, "POST", func(r *http1.Request) http1.Response { return g.invocationError(r, id) })
		}
	}
	return notFound()
}

// next answers with the next event, and waits until there is one.
func (g *guest) next(r *http1.Request) http1.Response {
	if !r.Pipelined { // else it was done for the request before
		g.drainLogs() // what the function wrote before belongs before what follows
	}
	if !r.Exchanged() {
		g.in.recall()
	}
	w, answer := g.askForEvent(r)
	g.link.flush() // what is held, unless something has taken it along
	if w == nil {
		return answer
	}
	ev, ok := g.await(r, w)
	switch {
	case !ok:
		return http1.Response{}
	case ev == nil:
		return failure(500, "InternalServerError", "Internal Server Error")
	}
	return eventResponse(ev)
}

// await waits for the event of w, which is nil where there is none to come. ok is
// false where r does not wait any longer: an event that w has been given already is
// given to the next that asks for one.
func (g *guest) await(r *http1.Request, w *waiter) (ev *event, ok bool) {
	ok = r.Wait(w.ready)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !ok || !w.answered {
		g.waiters = slices.DeleteFunc(g.waiters, func(other *waiter) bool { return other == w })
		return nil, false
	}
	return w.event, true
}

// Exchange answers requests of the runtime as if they had come over a connection,
// and appends the answers to b: to the last request, and before that to those that
// are refused. Where c has something else to do before there is an answer to the last
// request there is none, and it can be made again. There is none where no runtime can
// be there.
func (s *Supervisor) Exchange(b, requests []byte, c Caller) []byte {
	s.mu.Lock()
	g := s.current
	s.mu.Unlock()
	if g == nil {
		return b
	}
	return g.srv.Exchange(b, requests, attendant{g, c})
}

// attendant waits for the next event in an exchange.
type attendant struct {
	g *guest
	c Caller
}

// Wait implements http1.Waiter.
func (a attendant) Wait(ready chan struct{}) bool { return a.g.in.attend(a.c, ready, a.g.act) }

// Wake implements http1.Waiter.
func (a attendant) Wake() { a.c.Wake() }

// askForEvent makes the runtime ready for its next event. It returns the one that
// waits for it, or the answer where there is nothing to wait for.
func (g *guest) askForEvent(r *http1.Request) (*waiter, http1.Response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.killed:
		return nil, failure(500, "InternalServerError", "Internal Server Error")
	case g.ending:
		// It has been told to end, and may not have heard it yet: it waits like
		// one that had asked before.
		w := newWaiter(r)
		g.waiters = append(g.waiters, w)
		return w, http1.Response{}
	}
	switch g.state {
	case stateStarted, stateReady, stateResponseSent, stateRestoring:
		g.state = stateReady
	case stateRunning:
		// The runtime lost its event: it is given again, as Lambda does.
		return nil, eventResponse(g.event)
	default:
		return nil, badTransition(g.state, stateReady)
	}
	g.dropGoneWaiters()
	w := newWaiter(r)
	g.waiters = append(g.waiters, w)
	g.settle()
	return w, http1.Response{}
}

// dropGoneWaiters lets go of waiting calls whose client has gone, so that they
// do not use up the connections. g.mu is held.
func (g *guest) dropGoneWaiters() {
	kept := g.waiters[:0]
	for _, w := range g.waiters {
		if w.req.Gone() {
			w.answer(nil)
		} else {
			kept = append(kept, w)
		}
	}
	g.waiters = kept
}

// eventResponse renders an event for the runtime. Empty headers are left out.
func eventResponse(ev *event) http1.Response {
	h := make(http1.Fields, 0, 10)
	add := func(name, value string) {
		if value != "" {
			h = append(h, http1.Field{Name: name, Value: value})
		}
	}
	inv := &ev.inv
	contentType := inv.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	add("Content-Type", contentType)
	add("Lambda-Runtime-Aws-Request-Id", inv.RequestID)
	add("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.DeadlineMs, 10))
	add("Lambda-Runtime-Invoked-Function-Arn", inv.InvokedFunctionARN)
	add("Lambda-Runtime-Trace-Id", inv.TraceID)
	add("Lambda-Runtime-Client-Context", inv.ClientContext)
	add("Lambda-Runtime-Cognito-Identity", inv.CognitoIdentity)
	add("Lambda-Runtime-Aws-Tenant-Id", inv.TenantID)
	return http1.Response{Status: 200, Header: h, Body: ev.payload}
}

// only answers requests of one method with h.
func only(r *http1.Request, method string, h http1.Handler) http1.Response {
	if r.Method != method {
		return http1.Response{Status: 405, Header: http1.Fields{{Name: "Allow", Value: method}}}
	}
	return h(r)
}

func notFound() http1.Response {
	return http1.Response{
		Status: 404,
		Header: http1.Fields{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}},
		Body:   []byte("404 page not found\n"),
	}
}

func jsonResponse(status int, v any) http1.Response {
	b, err := json.Marshal(v)
	if err != nil { // strings only
		panic(err)
	}
	return http1.Response{
		Status: status,
		Header: http1.Fields{{Name: "Content-Type", Value: "application/json"}},
		Body:   append(b, '\n'),
	}
}

// accepted is the answer to what was taken.
func accepted() http1.Response {
	return http1.Response{Status: 202, Header: jsonHeader, Body: acceptedBody}
}

var (
	jsonHeader   = http1.Fields{{Name: "Content-Type", Value: "application/json"}}
	acceptedBody = []byte("{\"status\":\"OK\"}\n")
)

// errorDocument is the error body of all three APIs.
type errorDocument struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
}

func failure(status int, errorType, format string, args ...any) http1.Response {
	return jsonResponse(status, errorDocument{fmt.Sprintf(format, args...), errorType})
}

func badTransition(from, to runtimeState) http1.Response {
	return failure(403, "InvalidStateTransition",
		"State transition from %s to %s failed for runtime. Error: %s", from, to, notAllowed)
}
