package worker

import (
	"context"
	"errors"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// resetTimeout bounds a reset or Shutdown phase: the budget of the extensions,
// and time for everything to be killed on a busy host.
const resetTimeout = proto.ShutdownBudget + 8*time.Second

// reset ends the runtime after a failure, and everything that it has started.
// The environment keeps its sandbox with what is in /tmp, and its log stream;
// its next invocation begins with a suppressed init (Lambda developer guide,
// "Failures during the invoke phase"). A sandbox that does not obey is
// discarded.
func (e *environment) reset(f *failure) {
	e.ready = false
	if e.in == nil {
		return
	}
	if !e.in.alive() {
		e.discard()
		return
	}
	reason := proto.ReasonFailure
	if f.status == statusTimeout {
		reason = proto.ReasonTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	if err := e.in.conn.Reset(ctx, reason); err != nil {
		e.w.log.Warn("a sandbox could not be reset", "function", e.v.ARN(), "environment", e.id, "error", err)
		e.discard()
	}
}

// discard removes the sandbox.
func (e *environment) discard() {
	e.ready = false
	e.mu.Lock()
	in := e.in
	e.in = nil
	e.mu.Unlock()
	if in != nil {
		e.w.destroy(in)
	}
}

// suppressedInit initialises a runtime anew, within an invocation and its
// timeout. Once, a new sandbox takes the place of one that a runtime can no
// longer be started in: the function has not seen the event yet.
func (e *environment) suppressedInit(ctx context.Context) (*failure, error) {
	used := e.in != nil
	fail, err := e.initOnce(ctx)
	if used && fail != nil && (fail.exhausted || !e.in.alive()) {
		e.w.log.Warn("a sandbox is of no more use", "function", e.v.ARN(), "environment", e.id, "failure", fail.message)
		e.discard()
		fail, err = e.initOnce(ctx)
	}
	return fail, err
}

func (e *environment) initOnce(ctx context.Context) (*failure, error) {
	if e.in == nil {
		in, err := e.w.boot(ctx, e)
		if errors.Is(context.Cause(ctx), errTimeout) && err != nil {
			return timeoutFailure(e.v.Timeout), nil
		}
		if err != nil {
			return nil, err
		}
		e.in = in
	}
	began := time.Now()
	e.log.initStart(began, phaseInvoke)
	fail, err := e.startRuntime(ctx)
	if err != nil {
		return nil, err
	}
	ended := time.Now()
	e.log.initReport(ended, phaseInvoke, ended.Sub(began), fail)
	return fail, nil
}
