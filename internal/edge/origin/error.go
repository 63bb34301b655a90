package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
)

// Detail names what went wrong with an origin, as the access logs'
// x-edge-detailed-result-type does.
type Detail string

// The details ("Standard log file fields").
const (
	DNSError        Detail = "OriginDnsError"
	ConnectError    Detail = "OriginConnectError"
	ReadError       Detail = "OriginReadError"
	CommError       Detail = "OriginCommError"
	HeaderTooBig    Detail = "OriginHeaderTooBigError"
	InvalidResponse Detail = "OriginInvalidResponseError"
	InvalidRequest  Detail = "InvalidRequest"
	OriginFailure   Detail = "OriginError"
)

// Error is an origin that did not answer.
type Error struct {
	Detail Detail
	Err    error

	timeout bool
	unsent  bool // no connection was made
}

// errElsewhere is the cause of an error that another location has met.
var errElsewhere = errors.New("as another edge location says")

// Elsewhere returns the error of an origin that another location has asked.
func Elsewhere(d Detail, timeout bool) *Error {
	return &Error{Detail: d, Err: errElsewhere, timeout: timeout}
}

// Error implements error.
func (e *Error) Error() string { return string(e.Detail) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout tells that the origin did not answer in time.
func (e *Error) Timeout() bool { return e.timeout }

// Status is what a viewer gets: 504 where the origin did not answer in time, 502
// otherwise.
func (e *Error) Status() int {
	if e.timeout {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// classify makes an *Error of what net/http returned.
func classify(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	timeout := errors.Is(err, context.DeadlineExceeded)
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() {
		timeout = true
	}
	switch text := err.Error(); {
	case strings.Contains(text, "response headers exceeded"):
		return &Error{Detail: HeaderTooBig, Err: err}
	case timeout:
		return &Error{Detail: ReadError, Err: err, timeout: true}
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "bad Content-Length"):
		return &Error{Detail: InvalidResponse, Err: err}
	}
	return &Error{Detail: CommError, Err: err}
}

// dialError makes an *Error of a connection that was not made.
func dialError(err error) *Error {
	e := &Error{Detail: ConnectError, Err: err, unsent: true, timeout: errors.Is(err, context.DeadlineExceeded)}
	if op, ok := errors.AsType[net.Error](err); ok {
		e.timeout = e.timeout || op.Timeout()
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		e.Detail, e.timeout = DNSError, false
	}
	if errors.Is(err, ErrForbidden) || isTLS(err) {
		e.unsent = false // another attempt ends in the same way
	}
	return e
}

func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.AlertError](err)
	return ok
}
