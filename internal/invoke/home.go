package invoke

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// home is where all concurrency of one function is accounted for: its
// environments, by version and revision, and what waits for one.
type home struct {
	d   *Dispatcher
	arn string

	mu        sync.Mutex
	pools     map[poolKey]*pool
	inUse     int           // invocations admitted and not over
	finishing int           // of these, how many have answered their caller already
	changed   chan struct{} // closed when an invocation is over; nil unless someone waits
	gone      bool          // dropped by the dispatcher; ask it for a new one
}

// errGone is never seen by a caller: the dispatcher looks the home up again.
var errGone = errors.New("invoke: function home is gone")

// acquire admits an invocation and returns an environment for it.
func (h *home) acquire(v *function.Version) (*environment, error) {
	h.mu.Lock()
	if h.gone {
		h.mu.Unlock()
		return nil, errGone
	}
	if err := h.admit(v); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	reserved := v.ReservedConcurrency != nil
	p := h.pool(v)
	if e := p.takeIdle(); e != nil {
		e.reserved, e.answered = reserved, false
		h.mu.Unlock()
		return e, nil
	}
	w := &waiter{ready: make(chan struct{})}
	p.waiting = append(p.waiting, w)
	h.startMissing(p, p.finishing)
	h.mu.Unlock()

	grace := time.NewTimer(finishGrace)
	defer grace.Stop()
	select {
	case <-w.ready:
	case <-grace.C:
		h.mu.Lock()
		h.startMissing(p, 0)
		h.mu.Unlock()
		<-w.ready
	}
	if w.err != nil {
		h.leave(reserved)
		return nil, w.err
	}
	w.env.reserved = reserved
	return w.env, nil
}

// admit takes a unit of concurrency or tells why there is none. Where an
// invocation of the same function has answered and is about to be over, it
// waits a moment for that: a client that calls again as soon as it has its
// answer must not be throttled by its own last call. The lock is held on entry
// and on return.
func (h *home) admit(v *function.Version) error {
	var deadline <-chan time.Time
	for {
		reason := h.tryAdmit(v)
		if reason == "" {
			return nil
		}
		if h.finishing == 0 {
			return errThrottled(reason)
		}
		if deadline == nil {
			t := time.NewTimer(throttleGrace)
			defer t.Stop()
			deadline = t.C
		}
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
			h.mu.Lock()
		case <-deadline:
			h.mu.Lock()
			return errThrottled(reason)
		}
	}
}

func (h *home) tryAdmit(v *function.Version) (reason string) {
	if v.ReservedConcurrency != nil {
		if h.inUse >= *v.ReservedConcurrency {
			return reasonReserved
		}
	} else if limit := int64(h.d.opts.AccountLimit - h.d.opts.Reserved()); h.d.unreserved.Add(1) > limit {
		h.d.unreserved.Add(-1)
		return reasonAccount
	}
	h.inUse++
	return ""
}

// leave gives back the concurrency of an invocation that had no environment.
func (h *home) leave(reserved bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.giveBack(reserved)
}

func (h *home) giveBack(reserved bool) {
	h.inUse--
	if !reserved {
		h.d.unreserved.Add(-1)
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// pool returns the pool of v, which retires the pools of the same version's
// earlier revisions.
func (h *home) pool(v *function.Version) *pool {
	key := poolKey{v.Version, v.Revision}
	p := h.pools[key]
	if p == nil || p.retired {
		for k, old := range h.pools {
			if k.version == key.version {
				h.retirePool(k, old)
			}
		}
		p = &pool{version: v}
		h.pools[key] = p
	}
	return p
}

// answered notes that e has answered its caller and will soon be free.
func (h *home) answered(e *environment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.answered = true
	h.finishing++
	e.pool.finishing++
}

// release takes e back after an invocation.
func (h *home) release(e *environment, reusable bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := e.pool
	if e.answered {
		h.finishing--
		p.finishing--
	}
	h.giveBack(e.reserved)
	if reusable && e.Alive() && time.Since(e.started) < maxLifetime {
		h.offer(e)
		return
	}
	e.end()
	h.startMissing(p, p.finishing) // whoever counted on it needs another one
}

func (h *home) retire(which func(*function.Version) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, p := range h.pools {
		if which(p.version) {
			h.retirePool(k, p)
		}
	}
}

// reap ends what has been idle for too long, has grown too old or has died. It
// tells whether nothing is left of the function here.
func (h *home) reap(now time.Time) (empty bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, p := range h.pools {
		p.idle = slices.DeleteFunc(p.idle, func(e *environment) bool {
			over := now.Sub(e.idleAt) >= h.d.opts.IdleTimeout || now.Sub(e.started) >= maxLifetime || !e.Alive()
			if over {
				e.end()
			}
			return over
		})
		if len(p.idle)+len(p.waiting)+p.starting == 0 && h.inUse == 0 {
			delete(h.pools, k)
		}
	}
	return h.inUse == 0 && len(h.pools) == 0
}

// drop marks h as gone if nothing has come since reap found it empty.
func (h *home) drop() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = h.inUse == 0 && len(h.pools) == 0
	return h.gone
}

func (h *home) oldestIdle() (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, t := h.findOldest()
	return t, !t.IsZero()
}

// giveUpOldest ends the longest idle environment and waits until it is gone.
func (h *home) giveUpOldest() bool {
	h.mu.Lock()
	p, _ := h.findOldest()
	if p == nil {
		h.mu.Unlock()
		return false
	}
	e := p.idle[0]
	p.idle = slices.Delete(p.idle, 0, 1)
	h.mu.Unlock()
	e.Close()
	return true
}

func (h *home) findOldest() (oldest *pool, since time.Time) {
	for _, p := range h.pools {
		if len(p.idle) > 0 && (oldest == nil || p.idle[0].idleAt.Before(since)) {
			oldest, since = p, p.idle[0].idleAt
		}
	}
	return oldest, since
}

// drain waits until no invocation of the function is under way, or ctx ends.
func (h *home) drain(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.inUse > 0 && ctx.Err() == nil {
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		h.mu.Lock()
	}
}
