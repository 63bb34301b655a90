package worker

import (
	"encoding/json"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/invoke"
)

// Error types that Lambda itself gives, as opposed to the runtime.
const (
	typeTimeout     = "Sandbox.Timedout"
	typeExit        = "Runtime.ExitError"
	typeOutOfMemory = "Runtime.OutOfMemory"
)

// Statuses of a failed phase, as REPORT shows them.
const (
	statusTimeout = "timeout"
	statusError   = "error"
)

// failure is a failed phase of an environment.
type failure struct {
	status    string
	errorType string // as REPORT shows it
	// platform tells that the environment failed, not just the function: the
	// status is shown in text logs too, and the environment is reset.
	platform bool
	// exhausted tells that the sandbox had no memory or process left for the
	// runtime to start.
	exhausted bool

	// What the caller sees: the runtime's own document, or one made of
	// payloadType and message.
	document    []byte
	payloadType string
	message     string
}

// timeoutFailure is a Timeout that passed. The wording is AWS's: the configured
// timeout with two decimals.
func timeoutFailure(limit time.Duration) *failure {
	return &failure{
		status: statusTimeout, errorType: typeTimeout, platform: true,
		payloadType: typeTimeout,
		message:     fmt.Sprintf("Task timed out after %.2f seconds", limit.Seconds()),
	}
}

// outOfMemoryFailure is an overrun of the memory limit: the caller sees a
// killed runtime, REPORT tells why.
func outOfMemoryFailure() *failure {
	return &failure{
		status: statusError, errorType: typeOutOfMemory, platform: true,
		payloadType: typeExit, message: "Runtime exited with error: signal: killed",
	}
}

// crashFailure is the end of a sandbox for no reason that the guest could tell.
func crashFailure() *failure {
	return &failure{
		status: statusError, errorType: typeExit, platform: true,
		payloadType: typeExit, message: "Runtime exited with error: signal: killed",
	}
}

// runtimeFailure is what the runtime reported, or its exit.
func runtimeFailure(e *host.RuntimeError) *failure {
	f := &failure{
		status: statusError, errorType: e.Type, document: e.Body, payloadType: e.Type,
		message: "Unknown application error occurred", // Lambda's words where nothing is known
	}
	if e.Exit != nil {
		f.platform = true
		f.message = host.ExitMessage(e.Exit)
		f.exhausted = e.Exit.Exhausted
	}
	return f
}

// typeOf returns the error type, empty where there is no failure.
func (f *failure) typeOf() string {
	if f == nil {
		return ""
	}
	return f.errorType
}

// payload returns the error document that the caller of an invocation gets.
func (f *failure) payload(req *invoke.Request) []byte {
	if len(f.document) > 0 {
		return f.document
	}
	message := f.message
	switch {
	case f.payloadType == "Function.ResponseSizeTooLarge":
		message = fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", maxResponse(req))
	default:
		message = "RequestId: " + req.RequestID + " Error: " + message
	}
	b, err := json.Marshal(struct {
		ErrorType    string `json:"errorType"`
		ErrorMessage string `json:"errorMessage"`
	}{f.payloadType, message})
	if err != nil {
		panic(err) // two strings
	}
	return b
}
