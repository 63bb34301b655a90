// Package trigger runs functions on the events of a request at an edge location.
//
// An Exchange is the request, and from the origin's answer on the response, as
// functions see them; an Error is what a viewer gets where one fails. Lambda@Edge
// functions get them as a JSON event and return the changed request or response,
// or one of their own, which is checked against all that AWS checks before it
// counts.
package trigger

import (
	"context"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Runner runs the function of an event, if its behaviour has one. An error is an
// *Error, or the end of ctx; the exchange is as it was then.
type Runner interface {
	Run(ctx context.Context, d *distribution.Distribution, b *distribution.Behaviour, e distribution.EventType, x *Exchange) error
}

// Runners runs the function of an event, of whichever kind it is: a behaviour has
// at most one for an event.
type Runners []Runner

// Run implements Runner.
func (r Runners) Run(ctx context.Context, d *distribution.Distribution, b *distribution.Behaviour, e distribution.EventType, x *Exchange) error {
	for _, one := range r {
		if err := one.Run(ctx, d, b, e, x); err != nil {
			return err
		}
	}
	return nil
}
