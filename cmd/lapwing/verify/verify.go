// Package verify finds out whether runtimes behave as Lambda's do: it deploys
// small functions of its own through the AWS API, invokes them, and compares
// what comes back with what Lambda documents.
package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// Target is a runtime to verify.
type Target struct {
	ID      string
	Version string // what the id resolves to
	// Missing says why the runtime cannot be used here; empty where it can.
	Missing string
}

// Options are what Run needs.
type Options struct {
	Lambda *lambda.Client
	Logs   *cloudwatchlogs.Client
	Role   string // the ARN of the functions' execution role
	// Progress, which may be nil, is told what is verified now. It is called
	// from several goroutines.
	Progress func(runtime, check string)
}

// Result is what a check has come to.
type Result string

// Results of a check.
const (
	OK            Result = "ok"
	NotApplicable Result = "n/a"
	Failed        Result = "FAILED"
)

// Check is one check on one runtime.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Reason string `json:"reason,omitempty"` // where it is not OK
}

// Report is all checks on one runtime, in the order of Names.
type Report struct {
	Runtime string  `json:"runtime"`
	Version string  `json:"version,omitempty"`
	Checks  []Check `json:"checks"`
}

// Failed reports whether a check failed.
func (r Report) Failed() bool {
	for _, c := range r.Checks {
		if c.Result == Failed {
			return true
		}
	}
	return false
}

// notApplicable says why a check makes no sense for a runtime.
type notApplicable string

// Error implements error.
func (n notApplicable) Error() string { return string(n) }

// atOnce is how many runtimes are verified side by side.
const atOnce = 2

// Run verifies runtimes. It returns a report for each, in their order.
func Run(ctx context.Context, o Options, targets []Target) []Report {
	if o.Progress == nil {
		o.Progress = func(string, string) {}
	}
	reports := make([]Report, len(targets))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, target := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			reports[i] = verify(ctx, o, target)
		})
	}
	wg.Wait()
	return reports
}

// verify runs all checks on one runtime.
func verify(ctx context.Context, o Options, target Target) Report {
	report := Report{Runtime: target.ID, Version: target.Version}
	s := &subject{Options: o, target: target, suite: suiteOf(target.ID)}
	for _, c := range checks {
		o.Progress(target.ID, c.name)
		check := Check{Name: c.name, Result: OK}
		if err := s.run(ctx, c.run); err != nil {
			check.Result, check.Reason = Failed, err.Error()
			if _, ok := errors.AsType[notApplicable](err); ok {
				check.Result = NotApplicable
			}
		}
		report.Checks = append(report.Checks, check)
	}
	if err := s.clean(context.WithoutCancel(ctx)); err != nil {
		report.Checks = append(report.Checks, Check{Name: "clean", Result: Failed, Reason: err.Error()})
	}
	return report
}

// run runs one check, unless nothing can be run on the runtime.
func (s *subject) run(ctx context.Context, check func(context.Context, *subject) error) error {
	switch {
	case s.target.Missing != "":
		return errors.New(s.target.Missing)
	case s.suite == nil:
		return notApplicable(fmt.Sprintf("Lapwing carries no conformance function for %s", s.target.ID))
	case ctx.Err() != nil:
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return check(ctx, s)
}
