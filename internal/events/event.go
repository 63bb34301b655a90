package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
)

// MaxPayload is how large an event may be, in bytes (Lambda quotas, asynchronous
// invocation payload).
const MaxPayload = 1 << 20

// Rules of asynchronous invocation (Lambda developer guide, How Lambda handles
// errors and retries with asynchronous invocation).
const (
	// DefaultMaxAge is for how long an event is tried, and the most that can be
	// configured.
	DefaultMaxAge = 6 * time.Hour
	// DefaultMaxRetries is how often an event is tried again after a function
	// error, and the most that can be configured.
	DefaultMaxRetries = 2

	minBackoff = time.Second // after a throttle or system error, doubling
	maxBackoff = 5 * time.Minute
)

// retryWait is the wait after the nth attempt that ended in a function error.
func retryWait(n int) time.Duration { return time.Duration(n) * time.Minute }

// backoff is the wait after the nth refusal in a row.
func backoff(n int) time.Duration {
	if n > 9 {
		return maxBackoff
	}
	return min(minBackoff<<(n-1), maxBackoff)
}

// Event is one asynchronous invocation.
type Event struct {
	Target
	RequestID     string
	Payload       []byte // JSON, at most MaxPayload
	ClientContext string // JSON, may be empty
	TenantID      string // may be empty
	Trace         string // X-Amzn-Trace-Id as the caller sent it, may be empty
}

// ErrNoFunction says that there is no such function, version or alias (any
// more).
var ErrNoFunction = errors.New("events: no such function")

// Functions knows the functions that events are for. The Lambda service
// implements it.
type Functions interface {
	// Plan says how an event is to be run now. ErrNoFunction, wrapped or not,
	// is final; for another error the event is tried again later.
	Plan(Target) (*Plan, error)
}

// Plan is how an event is run, as its function is configured at that moment.
type Plan struct {
	Version    *function.Version // for a weighted alias, the one that chance chose
	InvokedARN string            // as asked for
	RecordARN  string            // as invocation records name the function: qualified
	FunctionID string            // see Target

	MaxAge         time.Duration
	MaxRetries     int
	AllowRecursion bool
	// Reserved is the function's reserved concurrency; nil means none.
	Reserved *int

	// ARNs of functions, or empty.
	OnSuccess, OnFailure, DeadLetter string
}

// Invoker runs invocations. Package invoke's Dispatcher implements it.
type Invoker interface {
	Invoke(ctx context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error)
}

// headVersion is the version of the queue's records.
const headVersion = 1

// head is what the queue holds of an event beside its payload.
type head struct {
	Version int `json:"v"`
	Target
	RequestID     string    `json:"requestId"`
	Accepted      time.Time `json:"accepted"`
	ClientContext string    `json:"clientContext,omitempty"`
	TenantID      string    `json:"tenantId,omitempty"`
	Trace         string    `json:"trace,omitempty"`
	// Attempts is how many attempts ended in a function error, and NotBefore
	// when the next one is due.
	Attempts  int       `json:"attempts,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
}

func (h *head) check() error {
	switch {
	case h.Version > headVersion:
		return fmt.Errorf("event has format version %d, written by a newer lapwing; this one reads up to %d", h.Version, headVersion)
	case h.Version < 1 || h.Region == "" || h.Function == "" || h.RequestID == "" || h.Accepted.IsZero() || h.Attempts < 0:
		return fmt.Errorf("%q is no event", h.RequestID)
	}
	return nil
}

var functionARN = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:lambda:([a-z0-9-]+):\d{12}:function:([a-zA-Z0-9-_]+)(?::([a-zA-Z0-9$_-]+))?$`)

// TargetOf returns the function that an ARN names, and whether it names one.
func TargetOf(arn string) (Target, bool) {
	m := functionARN.FindStringSubmatch(arn)
	if m == nil {
		return Target{}, false
	}
	return Target{Region: m[1], Function: m[2], Qualifier: m[3]}, true
}
