package lambda

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// byUser marks an error as the caller's fault, as Lambda's error shapes do.
func byUser(e *aws.Error) *aws.Error {
	e.Extra = map[string]string{"Type": "User"}
	return e
}

func invalidParameter(format string, args ...any) *aws.Error {
	return byUser(api.NewInvalidParameterValueException(format, args...))
}

func notFound(format string, args ...any) *aws.Error {
	return byUser(api.NewResourceNotFoundException(format, args...))
}

func conflict(format string, args ...any) *aws.Error {
	return byUser(api.NewResourceConflictException(format, args...))
}

func invalidContent(format string, args ...any) *aws.Error {
	return byUser(api.NewInvalidRequestContentException(format, args...))
}

func functionNotFound(arn string) *aws.Error { return notFound("Function not found: %s", arn) }

func aliasNotFound(arn string) *aws.Error { return notFound("Cannot find alias arn: %s", arn) }

// preconditionFailed refuses a RevisionId that is not the latest; operation is
// what returns the latest.
func preconditionFailed(operation string) *aws.Error {
	return byUser(api.NewPreconditionFailedException("The Revision Id provided does not match the latest Revision Id. Call the %s API to retrieve the latest Revision Id", operation))
}

// unsupported refuses an option that Lapwing does not have, rather than accept
// it and do nothing.
func unsupported(option string) *aws.Error {
	return invalidParameter("%s is not supported by Lapwing.", option)
}

// validation is the form of constraint failures, which come from the framework
// in front of Lambda and carry no Type.
func validation(format string, args ...any) *aws.Error {
	return &aws.Error{Code: "ValidationException", Status: http.StatusBadRequest,
		Message: "1 validation error detected: " + fmt.Sprintf(format, args...)}
}

// bracketed writes a list as such messages do.
func bracketed[T ~string](list []T) string {
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(v))
	}
	return "[" + b.String() + "]"
}

func accessDenied(format string, args ...any) *aws.Error {
	return &aws.Error{Code: "AccessDeniedException", Status: http.StatusForbidden, MessageKey: "Message", Message: fmt.Sprintf(format, args...)}
}

func entityTooLarge(format string, args ...any) *aws.Error {
	return &aws.Error{Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf(format, args...)}
}

// internal is a fault of Lapwing; the cause is for the log.
func internal(err error) error {
	if _, ok := errors.AsType[*aws.Error](err); ok || err == nil {
		return err
	}
	e := api.NewServiceException("The service encountered an internal error.")
	e.Extra = map[string]string{"Type": "Service"}
	return e.WithCause(err)
}
