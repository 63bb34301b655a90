// Package invoke is the invocation data plane: it admits or throttles an
// invocation, chooses an idle execution environment of the function version or
// starts a new one, runs the invocation there and takes the environment back.
//
// It holds soft state only. What a function is comes in with each Request as a
// *function.Version, and what it may use by Configure. How an environment is made
// and driven is the business of package worker, which it uses through the small
// interfaces Starter and Environment. One lock a function, none across functions
// on the warm path, so functions scale side by side. Where the host's processors
// are all wanted, functions that compute share few environments: see crowded.
package invoke

import (
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// Request is one invocation of a function version.
type Request struct {
	Version       *function.Version // resolved; a weighted alias is already decided
	InvokedARN    string            // as the caller named it, with the qualifier if any
	RequestID     string
	Payload       []byte
	ClientContext string // decoded JSON, may be empty
	TraceID       string // X-Amzn-Trace-Id, may be empty
	Tail          bool   // return the last 4 KB of the log; waits for END and REPORT
	Streaming     bool   // InvokeWithResponseStream: the response may exceed 6 MB
	Asynchronous  bool   // comes from the event queue: no limit of requests a second
	TenantID      string // X-Amz-Tenant-Id; only for functions with tenant isolation
	// After, where it is not nil, has the invocation run in its caller's goroutine,
	// whatever becomes of ctx, which saves a hand-over: for callers who can wait, as
	// the function runs on anyway. It is given what is left to do when the answer is
	// small and there, if that does not wait for anything and nobody waits for the
	// environment, and must call it soon, once. Not for streamed responses.
	After func(rest func())
	// Start, where it is not nil, asks for an environment that is started for this
	// invocation and serves no other, and takes the steps of that.
	Start *timeline.Line
}

// Result tells how an invocation ended. The response itself, or the error
// payload, went to the writer given to Invoke.
type Result struct {
	// FunctionError is empty on success, else "Unhandled": then what was
	// written is the error payload (Lambda API reference, Invoke).
	FunctionError string
	// ErrorType and ErrorDetails describe an error that came after the first
	// bytes of a streamed response, which ends the stream.
	ErrorType    string
	ErrorDetails string
	ContentType  string
	LogTail      []byte // the last 4 KB of the invocation's log, where asked for
}

// Beginner is implemented by writers that want to know when a streamed response
// begins, and of what content type the function says it is. What is written
// without that is an error payload.
type Beginner interface {
	Begin(contentType string)
}
