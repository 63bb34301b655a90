package invoke

import (
	"errors"
	"net/http"

	"lapwing.dev/lapwing/internal/aws"
)

// Reasons of a TooManyRequestsException (Lambda API reference, Invoke).
// AWS does not say which one means that a function gets no further environments
// for a while; we take it to be a rate of the function like the other.
const (
	reasonReserved     = "ReservedFunctionConcurrentInvocationLimitExceeded"
	reasonAccount      = "ConcurrentInvocationLimitExceeded"
	reasonReservedRate = "ReservedFunctionInvocationRateLimitExceeded"
	reasonRate         = "FunctionInvocationRateLimitExceeded"
)

func errThrottled(reason string) *aws.Error {
	return &aws.Error{
		Code: "TooManyRequestsException", Status: 429, Message: "Rate Exceeded.",
		Extra:  map[string]string{"Reason": reason, "Type": "User"},
		Header: http.Header{"Retry-After": {"1"}},
	}
}

// asRefusal is an error for the caller: what a Starter says of the function, or
// a fault of the service.
func asRefusal(err error) *aws.Error {
	if refusal, ok := errors.AsType[*aws.Error](err); ok {
		return refusal
	}
	return errService(err)
}

func errService(cause error) *aws.Error {
	return &aws.Error{
		Code: "ServiceException", Status: 500, MessageKey: "Message",
		Message: "The service encountered an internal error.",
		Extra:   map[string]string{"Type": "Service"}, Cause: cause,
	}
}

func errNoCapacity(cause error) *aws.Error {
	return &aws.Error{
		Code: "ServiceException", Status: 500, MessageKey: "Message",
		Message: "Lambda was not able to set up an execution environment: the host has no capacity left. Try again later.",
		Extra:   map[string]string{"Type": "Service"}, Cause: cause,
	}
}

func errClosing() *aws.Error {
	return &aws.Error{
		Code: "ServiceException", Status: 503, MessageKey: "Message",
		Message: "The service is shutting down.",
		Extra:   map[string]string{"Type": "Service"},
	}
}
