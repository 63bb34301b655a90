// Package aws holds what every AWS API that Lapwing serves has in common: the
// error that goes on the wire, the facts of a request that travel in its
// context, and the description of a service and its operations.
//
// The packages below it are generated from the public AWS API models by
// cmd/awsgen, one a service: they hold shapes, an API interface that the
// service's behaviour implements, and a NewService function that joins the
// two. Package wire turns HTTP requests into those shapes and back; package
// sigv4 verifies signatures. Behaviour lives in internal/service, never here.
package aws

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Error is an error as AWS puts it on the wire. Services return it (usually
// through a generated constructor); every other error that reaches the gateway
// becomes an InternalFailure with status 500 and is logged, not shown.
type Error struct {
	Code    string // AWS error code, e.g. "ResourceNotFoundException"
	Shape   string // name of the error in the JSON protocols and CBOR where it is not Code
	Status  int    // HTTP status
	Message string // shown to the caller

	// MessageKey is the name of the message member in JSON protocols, where
	// models differ ("message" or "Message"). Empty means "message".
	MessageKey string
	// Extra holds further members of the error shape by their wire names,
	// e.g. "Type" or "Reason".
	Extra map[string]string
	// Header holds response headers that belong to the error, e.g. Retry-After.
	Header http.Header

	// Cause is what happened inside, for the log only.
	Cause error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// WithCause returns a copy of e that carries cause for the log.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Identity is the principal that signed a request.
type Identity struct {
	AccountID   string
	ARN         string // e.g. arn:aws:iam::123456789012:root, or an assumed-role ARN
	UserID      string // unique id as GetCallerIdentity shows it
	AccessKeyID string
}

// Request holds the facts of one API request that behaviour may need. The
// gateway puts it into the context; it is read-only from there on.
type Request struct {
	ID        string // x-amzn-RequestId
	Service   string // signing name
	Operation string
	Region    string
	AccountID string
	Caller    Identity
	BaseURL   string // scheme://host[:port] by which the client reached Lapwing
	SourceIP  string
	UserAgent string
	Header    http.Header // as received
	Trailer   http.Header // filled by the time that the body has been read to its end; nil: none
	Time      time.Time   // of arrival
	// Response are the headers of the response, for those that no output shape
	// has. They may be set before behaviour returns; nil: none can be.
	Response http.Header
	// After, where it is not nil, takes what is to be done once the answer has been
	// handed to the system.
	After func(f func())
}

type requestKey struct{}

// WithRequest returns a context that carries r.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the request in ctx, or an empty one: never nil.
func RequestFrom(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey{}).(*Request); ok {
		return r
	}
	return &Request{}
}
