// Package cffunction runs CloudFront Functions: small JavaScript functions on the
// viewer's request and response, in this process.
//
// Each run has an interpreter of its own and an amount of CPU time; nothing is
// kept from one to the next. The interpreter has no access to files, network or
// timers, and no code from strings; it has the modules that CloudFront has
// (crypto, querystring, and in runtime 2.0 buffer and cloudfront). The language is newer than
// CloudFront's: what runs there runs here, and not always the other way round.
package cffunction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/edge/trigger"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/state"
)

// What error pages say of functions that fail; AWS's words for the first.
const (
	textExecution = "The CloudFront function associated with the CloudFront distribution is invalid or could not run."
	textInvalid   = "The CloudFront function returned an invalid value: "
	textThrottled = "The CloudFront function associated with the CloudFront distribution was throttled."
)

// maxCode is the size of a function's code in bytes ("Quotas on CloudFront
// Functions").
const maxCode = 10 << 10

// MaxEvent bounds the event of a test, in bytes (TestFunction's EventObject).
const MaxEvent = 40_960

// Check tells whether code can be a function's: what CreateFunction and
// UpdateFunction ask. The error is for the caller.
func Check(runtime, code string) error {
	if len(code) > maxCode {
		return fmt.Errorf("the function code has %d bytes; the maximum is %d", len(code), maxCode)
	}
	_, err := compile(runtime, code)
	return err
}

// TestResult is what TestFunction tells of a run.
type TestResult struct {
	Output      string // JSON of what the function returned
	Error       string // why it failed, empty where it did not
	Logs        []string
	Utilization int // of the compute time allowed, 0-100 percent
}

// Test runs a function once, on an event of any content.
func Test(ctx context.Context, f distribution.Function, stores *keyvalue.Stores, event []byte) (TestResult, error) {
	p, err := compile(f.Runtime, f.Code)
	if err != nil {
		return TestResult{Error: err.Error()}, nil
	}
	o, err := p.run(ctx, newMachine(p.flavour), &values{stores: stores, id: f.Store}, &router{}, event, func() {})
	if err != nil {
		return TestResult{}, err
	}
	r := TestResult{Output: string(o.result), Logs: o.logs, Utilization: int(min(100, 100*o.cpu/budget))}
	if o.err != nil {
		r.Error = o.err.Error()
	}
	return r, nil
}

// Logs takes log events. Package logstore's Store implements it.
type Logs interface {
	Append(group, stream string, events []logstore.Event) error
}

// Options configures Functions. Records and Logs are required.
type Options struct {
	Records *state.Collection[distribution.Function]
	// Stores are the key value stores that functions read; nil: there are none.
	Stores *keyvalue.Stores
	// Location is the name of the edge location, for the log.
	Location string
	Logs     Logs
	Logger   *slog.Logger
}

// Functions runs the functions of behaviours. Close ends it.
type Functions struct {
	opts     Options
	slots    chan struct{} // bounds how many run at once
	machines *machines

	mu       sync.RWMutex
	programs map[string]*compiled // by ARN
}

var _ trigger.Runner = (*Functions)(nil)

// compiled is a function's code as of a revision of its record.
type compiled struct {
	revision uint64
	name     string
	store    string // id of the key value store; empty: none
	*program
	err error
}

// New returns Functions.
func New(opts Options) *Functions {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Functions{
		opts: opts, slots: make(chan struct{}, 8*runtime.GOMAXPROCS(0)), machines: newMachines(),
		programs: map[string]*compiled{},
	}
}

// Close ends what prepares for runs.
func (f *Functions) Close() { f.machines.close() }

// Applied returns the revision of Options.Records up to which runs are of the
// current code: code is looked up when it runs, so it is the last one's.
func (f *Functions) Applied() (revision uint64) {
	for item := range f.opts.Records.Scan("", "") {
		revision = max(revision, item.Revision)
	}
	return revision
}

// Run implements trigger.Runner.
func (f *Functions) Run(ctx context.Context, d *distribution.Distribution, b *distribution.Behaviour, e distribution.EventType, x *trigger.Exchange) error {
	arn, ok := b.Viewer[e]
	if !ok {
		return nil
	}
	c, err := f.program(arn)
	if err != nil {
		return &trigger.Error{Class: trigger.FunctionExecution, Text: textExecution, Cause: err}
	}
	to := &router{event: e, distribution: d, behaviour: b, header: x.Request.Header}
	o, err := f.run(ctx, c, to, appendEvent(make([]byte, 0, 2048), d, e, x))
	if err != nil {
		return err
	}
	if o.err != nil {
		f.log(c.name, d, x, append(o.logs, "ERROR "+o.err.Error()))
		return &trigger.Error{Class: trigger.FunctionExecution, Text: textExecution, Cause: fmt.Errorf("%s: %w", c.name, o.err)}
	}
	if err := applyResult(e, x, o.result); err != nil {
		f.log(c.name, d, x, append(o.logs, "ERROR Validation error: "+err.Error()))
		return &trigger.Error{Class: trigger.FunctionValidation, Text: textInvalid + err.Error() + ".", Cause: fmt.Errorf("%s: %w", c.name, err)}
	}
	x.Request.Route = to.route
	f.log(c.name, d, x, o.logs)
	return nil
}

// run runs a function when there is a slot for it, which one that cannot be
// interrupted keeps.
func (f *Functions) run(ctx context.Context, c *compiled, to *router, event []byte) (outcome, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case f.slots <- struct{}{}:
	case <-timer.C:
		return outcome{}, &trigger.Error{Class: trigger.FunctionThrottled, Text: textThrottled, Cause: errors.New("too many functions run at this edge location")}
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
	return c.run(ctx, f.machines.take(c.flavour), &values{stores: f.opts.Stores, id: c.store}, to, event, func() { <-f.slots })
}

// program returns the current code of a function.
func (f *Functions) program(arn string) (*compiled, error) {
	item, ok := f.opts.Records.Get(arn)
	if !ok {
		return nil, fmt.Errorf("%s is not at this location", arn)
	}
	f.mu.RLock()
	c := f.programs[arn]
	f.mu.RUnlock()
	if c == nil || c.revision != item.Revision {
		c = &compiled{revision: item.Revision, name: item.Value.Name, store: item.Value.Store}
		if item.Value.Format > distribution.Format {
			c.err = errors.New("its record is of a newer format")
		} else {
			c.program, c.err = compile(item.Value.Runtime, item.Value.Code)
		}
		f.mu.Lock()
		f.programs[arn] = c
		for other := range f.programs { // those that are gone
			if _, ok := f.opts.Records.Get(other); !ok {
				delete(f.programs, other)
			}
		}
		f.mu.Unlock()
	}
	return c, c.err
}

// log writes what a run logged, between lines that tell of the run, as CloudFront
// does; nothing where it logged nothing.
func (f *Functions) log(name string, d *distribution.Distribution, x *trigger.Exchange, lines []string) {
	if len(lines) == 0 {
		return
	}
	now := time.Now()
	events := []logstore.Event{{Time: now, Message: x.RequestID + " START DistributionID: " + d.ID}}
	for _, line := range lines {
		events = append(events, logstore.Event{Time: now, Message: x.RequestID + " " + strings.TrimRight(line, "\n")})
	}
	events = append(events, logstore.Event{Time: now, Message: x.RequestID + " END"})
	err := f.opts.Logs.Append("/aws/cloudfront/function/"+name, now.UTC().Format("2006/01/02/")+f.opts.Location, events)
	if err != nil && !errors.Is(err, logstore.ErrQueueFull) {
		f.opts.Logger.Error("log of a CloudFront function was not stored", "function", name, "error", err)
	}
}
