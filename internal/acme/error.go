package acme

import (
	"errors"

	"github.com/mholt/acmez/v3/acme"
)

// ErrOver is an order that nothing comes of any more: another one is needed.
var ErrOver = errors.New("the order is over")

// over is an ErrOver with its cause.
type over struct{ cause error }

func (o *over) Error() string   { return o.cause.Error() }
func (o *over) Unwrap() []error { return []error{ErrOver, o.cause} }

// Reason is why an authority refuses.
type Reason int

// Reasons of an error.
const (
	// Other may be over soon: names that do not lead here among others.
	Other Reason = iota
	// RateLimited is more than the authority takes by now.
	RateLimited
	// Denied are names that the authority does not certify.
	Denied
	// CAA are names whose owner has said by DNS that others certify them (RFC 8659).
	CAA
)

// ReasonOf returns the reason of an error of a Client's.
func ReasonOf(err error) Reason {
	switch {
	case problem(err, acme.ProblemTypeRateLimited):
		return RateLimited
	case problem(err, acme.ProblemTypeCAA):
		return CAA
	case problem(err, acme.ProblemTypeRejectedIdentifier), problem(err, acme.ProblemTypeUnsupportedIdentifier):
		return Denied
	}
	return Other
}

// problem tells whether an error is an authority's, of a type.
func problem(err error, kind string) bool {
	p, ok := errors.AsType[acme.Problem](err)
	if !ok {
		var pointer *acme.Problem
		if !errors.As(err, &pointer) || pointer == nil {
			return false
		}
		p = *pointer
	}
	if p.Type == kind {
		return true
	}
	for _, s := range p.Subproblems {
		if s.Type == kind {
			return true
		}
	}
	return false
}

// because is an authority's problem as an error.
func because(p *acme.Problem) error {
	if p == nil {
		return errors.New("the authority does not say why")
	}
	return *p
}
