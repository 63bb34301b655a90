package worker

import (
	"context"
	"sync"
	"time"
)

// deadlines gives an environment's invocations their context, which ends with
// errTimeout at the deadline. It is the same for one after the other, until one is
// late, and so is its timer, which goes off when it may be time: a context and a
// timer for each cost as much as the metrics of an invocation. The zero value is
// ready for use.
type deadlines struct {
	mu     sync.Mutex
	parent context.Context
	ctx    context.Context // nil: the next invocation needs a new one
	cancel context.CancelCauseFunc
	at     time.Time // of the invocation under way; zero: there is none
	timer  *time.Timer
	goesAt time.Time // when the timer goes off; zero: it is not set
}

// begin returns the context of an invocation, until end is called.
func (d *deadlines) begin(parent context.Context, at time.Time) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil || d.ctx.Err() != nil || d.parent != parent {
		d.drop()
		d.parent = parent
		d.ctx, d.cancel = context.WithCancelCause(parent)
	}
	d.at = at
	if d.goesAt.IsZero() || at.Before(d.goesAt) {
		d.set(time.Until(at))
	}
	return d.ctx
}

// end ends an invocation.
func (d *deadlines) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Time{}
}

// close ends the context, when there is no invocation any more.
func (d *deadlines) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
	if d.timer != nil {
		d.timer.Stop()
	}
}

// drop lets go of the context. d.mu is held.
func (d *deadlines) drop() {
	if d.ctx != nil {
		d.cancel(nil)
		d.ctx = nil
	}
}

// set has the timer go off. d.mu is held.
func (d *deadlines) set(in time.Duration) {
	d.goesAt = time.Now().Add(in)
	if d.timer == nil {
		d.timer = time.AfterFunc(in, d.expire)
	} else {
		d.timer.Reset(in)
	}
}

// expire ends the context, if the invocation under way is late.
func (d *deadlines) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.goesAt = time.Time{}
	if d.at.IsZero() || d.ctx == nil {
		return
	}
	if left := time.Until(d.at); left > 0 {
		d.set(left)
		return
	}
	d.cancel(errTimeout)
}
