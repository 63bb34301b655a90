package invoke

import (
	"context"
	"errors"
	"sync"
	"time"
)

// home is where all concurrency of one function is accounted for: its
// environments, on demand and provisioned, and what waits for one.
type home struct {
	d       *Dispatcher
	arn     string
	account *account

	requests bucket // synchronous requests, where concurrency is reserved
	starts   bucket // environments on demand

	mu         sync.Mutex
	reserved   *int // configured; nil: none
	claimed    int  // units of concurrency: invocations on demand, and provisioned environments whether busy or not
	inUse      int  // invocations admitted and not over
	finishing  int  // of these, how many have answered their caller already
	tenants    int  // environments that belong to one tenant
	pools      map[poolKey]*pool
	provisions map[poolKey]*provision
	changed    chan struct{} // closed when an invocation is over; nil unless someone waits
	gone       bool          // dropped by the dispatcher; ask it for a new one
}

// errGone is never seen by a caller: the dispatcher looks the home up again.
var errGone = errors.New("invoke: function home is gone")

// acquire admits an invocation and returns an environment for it.
func (h *home) acquire(req *Request) (*environment, error) {
	if req.Start != nil {
		return h.acquireNew(req)
	}
	h.mu.Lock()
	by, e, err := h.admit(req)
	if err != nil {
		h.mu.Unlock()
		return nil, err
	}
	if e != nil {
		h.mu.Unlock()
		return e, nil
	}
	p := h.pool(req)
	crowded := h.crowded(p)
	if !crowded && len(p.waiting) == 0 {
		if e := p.takeIdle(); e != nil {
			e.begin(req, by)
			h.mu.Unlock()
			return e, nil
		}
	}
	w := &waiter{ready: make(chan struct{})}
	if p.wait(w, crowded); !crowded {
		h.serveWaiting(p, p.finishing)
	}
	h.mu.Unlock()
	h.await(p, w, crowded)
	if w.err != nil {
		h.leave(req, by, w.throttled)
		return nil, w.err
	}
	w.env.begin(req, by)
	return w.env, nil
}

// admit takes a unit of concurrency for req, or tells why there is none. Where a
// provisioned environment serves it, that is returned. Where an invocation of
// the same function has answered and is about to be over, it waits a moment for
// that: a client that calls again as soon as it has its answer must not be
// throttled, or get a cold start, because of its own last call. The lock is held
// on entry and on return.
func (h *home) admit(req *Request) (Served, *environment, error) {
	now := time.Now()
	for {
		if h.gone {
			return 0, nil, errGone
		}
		by := OnDemand
		if pr := h.provisions[keyOf(req.Version, "")]; pr != nil && pr.complete {
			if e := pr.take(h.d.clock()); e != nil {
				if reason := h.rate(req); reason != "" {
					pr.idle = append(pr.idle, e)
					return 0, nil, h.throttle(req, reason)
				}
				h.enter(req, Provisioned)
				e.begin(req, Provisioned)
				return Provisioned, e, nil
			}
			if pr.finishing > 0 && !h.hasIdle(req) && h.pause(now.Add(finishGrace)) {
				continue
			}
			by = Spillover
		}
		reason := h.claim()
		if reason != "" {
			if h.finishing > 0 && h.pause(now.Add(throttleGrace)) {
				continue
			}
			return 0, nil, h.throttle(req, reason)
		}
		if reason := h.rate(req); reason != "" {
			h.unclaim()
			return 0, nil, h.throttle(req, reason)
		}
		h.enter(req, by)
		return by, nil, nil
	}
}

// claim takes a unit of the function's reserved concurrency, or of the account's
// where it has none, for an invocation on demand or a provisioned environment.
func (h *home) claim() (reason string) {
	switch {
	case h.reserved != nil && h.claimed >= *h.reserved:
		return reasonReserved
	case h.reserved == nil && !h.account.claim():
		return reasonAccount
	}
	h.claimed++
	return ""
}

func (h *home) unclaim() {
	h.claimed--
	if h.reserved == nil {
		h.account.unclaim()
	}
}

// rate limits synchronous requests a second to ten times the concurrency (Lambda
// developer guide, "Understanding concurrency and requests per second").
func (h *home) rate(req *Request) (reason string) {
	switch {
	case req.Asynchronous:
		return ""
	case h.reserved != nil:
		if !h.requests.take(h.d.clock(), *h.reserved*requestsPerUnit, time.Second) {
			return reasonReservedRate
		}
	case !h.account.requests.take(h.d.clock(), int(h.account.limit)*requestsPerUnit, time.Second):
		return reasonRate
	}
	return ""
}

// concurrency is the most that the function can ever use at once.
func (h *home) concurrency() int {
	if h.reserved != nil {
		return *h.reserved
	}
	return int(h.account.limit)
}

func (h *home) throttle(req *Request, reason string) error {
	h.d.opts.Observer.Throttled(req, reason)
	return errThrottled(reason)
}

func (h *home) enter(req *Request, by Served) {
	h.inUse++
	h.d.opts.Observer.Admitted(req, by)
}

// exit undoes enter, and claim unless a provisioned environment keeps its unit.
func (h *home) exit(req *Request, by Served) {
	h.d.opts.Observer.Released(req, by) // before its unit can be another's
	h.inUse--
	if by != Provisioned {
		h.unclaim()
	}
	h.fillAll() // what is provisioned comes before new invocations
	h.wake()
}

// leave gives back the concurrency of an invocation that had no environment.
func (h *home) leave(req *Request, by Served, throttled string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exit(req, by)
	if throttled != "" {
		h.d.opts.Observer.Throttled(req, throttled)
	}
}

// wake lets those who wait in pause look again.
func (h *home) wake() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// pause waits, without the lock, until an invocation of the function is over,
// which it tells, or the time is over.
func (h *home) pause(until time.Time) bool {
	d := time.Until(until)
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	changed := h.change()
	h.mu.Unlock()
	defer h.mu.Lock()
	select {
	case <-changed:
		return true
	case <-t.C:
		return false
	}
}

func (h *home) change() <-chan struct{} {
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// answered notes that e has answered its caller and will soon be free, and tells
// whether somebody waits for that.
func (h *home) answered(e *environment) (wanted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.answered = true
	h.finishing++
	*e.soon()++
	return e.pool != nil && len(e.pool.waiting) > 0
}

// release takes e back after an invocation.
func (h *home) release(e *environment, reusable bool) {
	cpu := e.measure()
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.answered {
		h.finishing--
		*e.soon()--
	}
	reusable = reusable && e.request.Start == nil && e.Alive() && time.Since(e.started) < maxLifetime
	req, by := e.request, e.by
	e.request = nil
	switch {
	case e.provision != nil:
		h.releaseProvisioned(e, reusable)
	case reusable:
		p := e.pool
		follow(&p.pace.time, h.d.clock()-e.began)
		if cpu > 0 {
			follow(&p.pace.cpu, cpu)
		}
		p.busy--
		p.passed++
		h.offer(e)
	default:
		e.pool.busy--
		h.discard(e)
		h.startMissing(e.pool, e.pool.finishing) // whoever counted on it needs another one
	}
	h.exit(req, by)
}

// drain waits until no invocation of the function is under way, or ctx ends.
func (h *home) drain(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.inUse > 0 && ctx.Err() == nil {
		changed := h.change()
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		h.mu.Lock()
	}
}

// configure sets what the function may use and what is kept ready of it.
func (h *home) configure(l Limits) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return errGone
	}
	// What is in use moves along between the account and the reservation.
	was, is := h.reserved, l.Reserved
	h.account.reserved.Add(int64(valueOf(is) - valueOf(was)))
	switch {
	case was == nil && is != nil:
		h.account.claimed.Add(-int64(h.claimed))
	case was != nil && is == nil:
		h.account.claimed.Add(int64(h.claimed))
	}
	h.reserved = is
	h.provide(l.Provisioned)
	h.wake()
	return nil
}

func valueOf(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// retire ends the environments on demand of a version, or of all where version
// is empty.
func (h *home) retire(version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, p := range h.pools {
		if version == "" || k.version == version {
			h.retirePool(k, p)
		}
	}
}

// close ends all environments that are idle. Those that are busy or starting end
// by themselves when the dispatcher's context has ended.
func (h *home) close() {
	h.retire("")
	h.mu.Lock()
	defer h.mu.Unlock()
	h.provide(nil)
}

// empty tells whether there is nothing to remember of the function.
func (h *home) empty() bool {
	return h.inUse == 0 && h.reserved == nil && len(h.pools) == 0 && len(h.provisions) == 0
}

// drop marks h as gone if nothing has come since reap found it empty.
func (h *home) drop() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = h.empty()
	return h.gone
}
