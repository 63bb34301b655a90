package trigger

import "net/http"

// Class is what kind of failure a function's was, as the X-Cache header and the
// access logs name it.
type Class string

// The classes. Status and words are those of AWS.
const (
	// LambdaValidation: what the function returned is no request or response, or
	// changes what it may not.
	LambdaValidation Class = "LambdaValidationError"
	// LambdaExecution: the function failed, ran out of time, or cannot be run.
	LambdaExecution Class = "LambdaExecutionError"
	// LambdaLimit: the function was throttled.
	LambdaLimit Class = "LambdaLimitExceeded"
	// The same for CloudFront Functions.
	FunctionValidation Class = "FunctionValidationError"
	FunctionExecution  Class = "FunctionExecutionError"
	FunctionThrottled  Class = "FunctionThrottledError"
)

// Error is what became of a request because of a function. The viewer gets an
// error page of CloudFront's with Text in it, and never the content.
type Error struct {
	Class Class
	// Text is the sentence of the error page.
	Text string
	// Cause is for the log.
	Cause error
}

// Status is the HTTP status that the viewer gets.
func (e *Error) Status() int {
	if e.Class == LambdaValidation || e.Class == FunctionValidation {
		return http.StatusBadGateway
	}
	return http.StatusServiceUnavailable
}

// Error implements error.
func (e *Error) Error() string {
	if e.Cause == nil {
		return string(e.Class) + ": " + e.Text
	}
	return string(e.Class) + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }
