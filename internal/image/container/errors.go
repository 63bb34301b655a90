package container

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what is wrong with an image.
type Kind string

// The kinds.
const (
	InvalidURI   Kind = "not the URI of an image"
	NotFound     Kind = "no such image"
	AccessDenied Kind = "access denied"
	Unreachable  Kind = "registry cannot be reached"
	NotPermitted Kind = "address that the operator must permit"
	Unsupported  Kind = "unsupported media type"
	Invalid      Kind = "invalid image"
	TooLarge     Kind = "image too large"
	Architecture Kind = "image of another architecture"
)

// Error says why an image cannot be used. Errors of other types are faults of
// this host.
type Error struct {
	Kind Kind
	Err  error // the particulars; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return "container: " + string(e.Kind)
	}
	return fmt.Sprintf("container: %s: %s", e.Kind, e.Reason())
}

// Reason returns the particulars in one line.
func (e *Error) Reason() string {
	if e.Err == nil {
		return string(e.Kind)
	}
	return strings.TrimPrefix(strings.Join(strings.Fields(e.Err.Error()), " "), "image: ")
}

// Unwrap returns the particulars.
func (e *Error) Unwrap() error { return e.Err }

func fail(kind Kind, format string, args ...any) *Error {
	return &Error{kind, fmt.Errorf(format, args...)}
}

// Is tells whether err is an *Error of one of the kinds.
func Is(err error, kinds ...Kind) bool {
	e, ok := errors.AsType[*Error](err)
	for _, k := range kinds {
		if ok && e.Kind == k {
			return true
		}
	}
	return false
}
