package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/meter"
)

// invocation is one invocation in an environment.
type invocation struct {
	e     *environment
	ctx   context.Context // ends at the deadline
	req   *invoke.Request
	call  *invoke.Call
	r     response
	began time.Time

	running *host.Running // its response is complete, and the runtime not known to be done
	fail    *failure
	err     error
	done    time.Time // when all was over
}

// Invoke implements invoke.Environment.
func (e *environment) Invoke(ctx context.Context, req *invoke.Request, call *invoke.Call) invoke.Ending {
	if !e.unpark() {
		e.discard()
	}
	if e.ready {
		e.in.conn.CatchUp() // with what this invocation has no part in
	}
	i := &invocation{e: e, req: req, call: call, began: time.Now()}
	i.ctx = e.deadlines.begin(ctx, i.began.Add(e.v.Timeout))
	e.stream.begin(req.RequestID, req.Tail)
	tr := e.beginTrace(req, i.began)
	e.steps = nil // what follows is another invocation's
	e.log.join(tr)
	i.r = response{ctx: i.ctx, req: req, call: call, trace: tr, began: i.began}
	i.run()
	switch {
	case i.err != nil:
		call.Fail(fmt.Errorf("invocation of %s: %w", e.v.ARN(), i.err))
	case i.fail != nil:
		i.r.fail(i.fail)
	}
	if i.running == nil || i.running.Over() {
		i.settle()
	}
	// Whatever is wrong with an environment takes its time.
	return invoke.Ending{Run: i.end, Waits: i.running != nil || i.err != nil || i.fail != nil || i.r.failure != nil}
}

// settle waits until the runtime is done.
func (i *invocation) settle() {
	if i.running != nil {
		out, err := i.running.Wait(i.ctx)
		i.running = nil
		i.fail, i.err = i.e.outcome(i.ctx, out, err)
	}
	i.done = time.Now()
}

// end waits until the runtime is done, tells of the end of the invocation, and
// whether the environment can be used again.
func (i *invocation) end() (reusable bool) {
	e := i.e
	defer e.deadlines.end()
	if i.running != nil {
		i.settle()
	}
	if i.err != nil {
		i.r.trace.end(i.done, "ServiceException")
		i.call.Fail(fmt.Errorf("invocation of %s: %w", e.v.ARN(), i.err))
		e.stream.end()
		e.fail()
		return false
	}
	fail := i.fail
	if fail != nil {
		i.r.fail(fail)
	} else {
		fail = i.r.failure
	}
	e.log.end(i.done, &report{failure: fail, Usage: meter.Usage{
		RequestID: i.req.RequestID, Qualifier: meter.Qualifier(i.req.InvokedARN), Began: i.began, Duration: i.done.Sub(i.began),
		Init: e.initDuration, Restore: e.restored.took, BilledRestore: e.restored.billed, MaxMemoryMB: e.maxMemory(fail), StreamedBytes: i.r.streamed,
	}})
	i.r.trace.end(i.done, fail.typeOf())
	e.initDuration, e.restored = 0, restoredIn{}
	i.r.answer(e.stream.end())
	if fail != nil && fail.platform {
		e.reset(fail)
	}
	if e.in == nil {
		e.fail() // what it was ended with its sandbox
		return false
	}
	e.park()
	return true
}

// run hands the event to the runtime and waits until its response is complete. A
// failure is the function's, an error the platform's.
func (i *invocation) run() {
	e := i.e
	told := false // of the start: once, however many runtimes it takes
	if e.ready && e.in.conn.Exited() == nil {
		e.log.start(i.began, i.req.RequestID)
		told = true
		if i.deliver() == nil {
			return
		}
	}
	if e.ready {
		// The runtime ended after its last invocation and has not seen this
		// one, which a new runtime gets.
		e.reset(crashFailure())
	}
	i.fail, i.err = e.suppressedInit(i.ctx)
	if !told {
		e.log.start(time.Now(), i.req.RequestID)
	}
	if i.fail != nil || i.err != nil {
		return
	}
	err := i.deliver()
	if err == nil {
		return
	}
	if exit := e.in.conn.Exited(); exit != nil {
		i.fail = runtimeFailure(&host.RuntimeError{Type: cmp.Or(exit.ErrorType, typeExit), Exit: exit})
		return
	}
	i.fail, i.err = e.fault(i.ctx, err)
}

// deliver is run with a runtime that has been initialised. The error
// is host.ErrExited where that has ended before it got the event.
func (i *invocation) deliver() error {
	e := i.e
	running, err := e.in.conn.Invoke(i.ctx, proto.Invocation{
		RequestID:          i.req.RequestID,
		DeadlineMs:         i.began.Add(e.v.Timeout).UnixMilli(),
		InvokedFunctionARN: i.req.InvokedARN,
		TraceID:            i.r.trace.header.String(),
		ClientContext:      i.req.ClientContext,
		TenantID:           e.tenant,
		Streaming:          i.req.Streaming,
	}, i.req.Payload, &i.r)
	switch {
	case err == nil:
		i.running = running
	case errors.Is(err, host.ErrExited):
		return err
	default:
		i.fail, i.err = e.fault(i.ctx, err)
	}
	return nil
}

// outcome tells what the end of an invocation means.
func (e *environment) outcome(ctx context.Context, out host.Outcome, err error) (*failure, error) {
	switch {
	case err != nil:
		return e.fault(ctx, err)
	case out.Exit != nil && out.Error != nil:
		return runtimeFailure(out.Error), nil
	case out.Exit != nil:
		return runtimeFailure(&host.RuntimeError{Type: cmp.Or(out.Exit.ErrorType, typeExit), Exit: out.Exit}), nil
	}
	return nil, nil
}
