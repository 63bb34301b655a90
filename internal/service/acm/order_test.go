package acm

import (
	"errors"
	"fmt"
	"testing"
	"time"

	protocol "github.com/mholt/acmez/v3/acme"

	"lapwing.dev/lapwing/internal/acme"
	api "lapwing.dev/lapwing/internal/aws/acm"
)

func TestWhatIsDoneAboutAFailure(t *testing.T) {
	problem := func(kind string) error { return fmt.Errorf("acme: %w", protocol.Problem{Type: kind}) }
	for _, test := range []struct {
		cause  error
		wait   time.Duration
		reason api.FailureReason
	}{
		{errors.New("no route to host"), failedRetry, ""},
		{problem(protocol.ProblemTypeServerInternal), failedRetry, ""},
		{fmt.Errorf("acme: %w: %w", acme.ErrOver, problem(protocol.ProblemTypeConnection)), refusedRetry, ""},
		{problem(protocol.ProblemTypeRateLimited), limitedRetry, ""},
		{problem(protocol.ProblemTypeRejectedIdentifier), lastRetry, api.FailureReasonDomainNotAllowed},
		{fmt.Errorf("acme: %w: %w", acme.ErrOver, problem(protocol.ProblemTypeCAA)), lastRetry, api.FailureReasonCaaError},
	} {
		if wait, reason := verdict(test.cause); wait != test.wait || reason != test.reason {
			t.Errorf("%v: wait for %v, and %q, want %v and %q", test.cause, wait, reason, test.wait, test.reason)
		}
	}
}

// Let's Encrypt takes five failed validations of a name an hour.
func TestRefusedOrdersAreFewerThanAnAuthorityTakes(t *testing.T) {
	asked, at := 0, time.Duration(0)
	for ; at < time.Hour; asked++ {
		at += backOff(refusedRetry, lastRetry, asked)
	}
	if asked > 5 {
		t.Errorf("asked %d times in the first hour", asked)
	}
	if d := backOff(refusedRetry, lastRetry, 1000); d < lastRetry || d > lastRetry+lastRetry/10 {
		t.Errorf("the wait grows to %v, want %v", d, lastRetry)
	}
}
