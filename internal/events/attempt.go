package events

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/trace"
)

// ending is how an attempt ended, as far as its lane is concerned.
type ending int

const (
	other   ending = iota
	ran            // the function ran, well or not
	refused        // a throttle or system error
)

// verdict is what becomes of an event after an attempt.
type verdict struct {
	ended ending
	room  int      // of the function, where it ran: its reserved concurrency, or negative
	again *pending // to be tried again, or nil
}

// attempt is an attempt at an event.
type attempt struct {
	pending
	head
	payload []byte
	plan    *Plan

	onward string // trace header of what the attempt brings about

	result   *invoke.Result // nil where the function did not run
	response []byte
}

// attempt tries an event once.
func (q *Queue) attempt(p pending) verdict {
	a := &attempt{pending: p}
	var err error
	a.head, a.payload, err = q.store.Get(q.ctx, p.id)
	a.onward = a.Trace
	switch {
	case errors.Is(err, state.ErrNotFound):
		return verdict{} // an earlier removal of it was done though it seemed to fail
	case err != nil:
		return q.refuse(a, err)
	}
	a.plan, err = q.functions.Plan(a.Target)
	switch {
	case errors.Is(err, ErrNoFunction):
		// Its configuration is gone, and with it all destinations.
		q.log.Warn("event dropped: its function is gone", "function", a.Target.String(), "requestId", a.RequestID)
		return q.drop(a, "")
	case err != nil && a.age() >= DefaultMaxAge: // however it was configured
		q.log.Warn("event dropped: its function could not be run in time", "function", a.Target.String(), "requestId", a.RequestID, "error", err)
		return q.drop(a, "")
	case err != nil:
		return q.refuse(a, err)
	}
	room := -1
	if r := a.plan.Reserved; r != nil {
		room = *r
	}
	header, visits := trace.Arrive(a.Trace, a.plan.Version.FunctionARN(), time.Now())
	switch {
	case a.age() >= a.plan.MaxAge:
		return q.drop(a, conditionAge)
	case room == 0:
		return q.drop(a, conditionReserved)
	case visits > trace.MaxLineage && !a.plan.AllowRecursion:
		q.observer.RecursionStopped(a.Target)
		return q.drop(a, conditionRecursion)
	}
	q.observer.EventAge(a.Target, a.age())
	if err := q.invoke(a, header.String()); err != nil {
		return q.refuse(a, err)
	}
	v := q.conclude(a)
	v.ended, v.room = ran, room
	return v
}

func (a *attempt) age() time.Duration { return time.Since(a.Accepted) }

func (q *Queue) invoke(a *attempt, header string) (err error) {
	var response bytes.Buffer
	a.result, err = q.invoker.Invoke(q.ctx, &invoke.Request{
		Version: a.plan.Version, InvokedARN: a.plan.InvokedARN, RequestID: a.RequestID,
		Payload: a.payload, ClientContext: a.ClientContext, TenantID: a.TenantID, TraceID: header, Asynchronous: true,
	}, &response)
	a.response, a.onward = response.Bytes(), header
	return err
}

// refuse gives an event back that was not run: for a throttle or a fault of
// the system.
func (q *Queue) refuse(a *attempt, cause error) verdict {
	if q.ctx.Err() != nil {
		return verdict{} // the next start runs it
	}
	status := http.StatusInternalServerError
	if e, ok := errors.AsType[*aws.Error](cause); ok {
		status = e.Status
	}
	if status != http.StatusTooManyRequests {
		q.log.Info("event is tried again after a system error", "function", a.Target.String(), "requestId", a.RequestID, "error", cause)
	}
	again := a.pending
	again.refusals = min(again.refusals, 100) + 1
	again.status = uint16(status)
	due := time.Now().Add(backoff(int(again.refusals)))
	if a.plan != nil { // an event that grows too old meanwhile leaves in time
		if end := a.Accepted.Add(a.plan.MaxAge); due.After(end) {
			due = end
		}
	}
	again.due = due.UnixNano()
	return verdict{ended: refused, again: &again}
}

// conclude decides about an event whose function has run.
func (q *Queue) conclude(a *attempt) verdict {
	a.Attempts++
	if a.result.FunctionError == "" {
		return q.succeed(a)
	}
	if a.Attempts > a.plan.MaxRetries {
		return q.drop(a, conditionRetries)
	}
	wait := retryWait(a.Attempts)
	// As on AWS a retry that would come too late is not waited for.
	if a.age()+wait > a.plan.MaxAge {
		return q.drop(a, conditionAge)
	}
	return q.retry(a, wait)
}

// retry puts an event back with one more attempt counted.
func (q *Queue) retry(a *attempt, wait time.Duration) verdict {
	h := a.head
	h.NotBefore = time.Now().Add(wait)
	again := pending{due: h.NotBefore.UnixNano()}
	done := q.persist(a, func(ctx context.Context) (err error) {
		if again.id == 0 {
			if again.id, err = q.store.Add(ctx, h, a.payload); err != nil {
				return err
			}
		}
		return q.store.Remove(ctx, a.id)
	})
	if !done {
		return verdict{}
	}
	return verdict{again: &again}
}

// succeed ends an event well.
func (q *Queue) succeed(a *attempt) verdict {
	if a.plan.OnSuccess != "" && !q.deliver(a, a.plan.OnSuccess, conditionSuccess) {
		return verdict{}
	}
	q.remove(a)
	return verdict{}
}

// drop ends an event whose function has not succeeded. It goes to the on-failure
// destination and to the dead-letter target, where it has them.
func (q *Queue) drop(a *attempt, condition string) verdict {
	if condition != "" {
		if a.plan.OnFailure != "" && !q.deliver(a, a.plan.OnFailure, condition) {
			return verdict{}
		}
		if a.plan.DeadLetter != "" && !q.bury(a, condition) {
			return verdict{}
		}
	}
	if q.remove(a) {
		q.observer.EventDropped(a.Target)
	}
	return verdict{}
}

func (q *Queue) remove(a *attempt) bool {
	return q.persist(a, func(ctx context.Context) error { return q.store.Remove(ctx, a.id) })
}

// persist writes to the store until that succeeds: the function must not run
// again because the disk was full for a while. When the queue is stopped it
// tries once more at most; where it is false, the event is run again after the
// next start.
func (q *Queue) persist(a *attempt, write func(context.Context) error) bool {
	closing := false
	for n := 1; ; n++ {
		err := write(context.WithoutCancel(q.ctx))
		if err == nil {
			return true
		}
		q.log.Error("outcome of an event cannot be written", "function", a.Target.String(), "requestId", a.RequestID, "error", err)
		if closing {
			return false
		}
		select {
		case <-time.After(backoff(n)):
		case <-q.stop:
			closing = true
		}
	}
}
