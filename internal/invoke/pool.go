package invoke

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// poolKey is what environments must have in common to serve one another's
// invocations.
type poolKey struct{ version, revision, tenant string }

func keyOf(v *function.Version, tenant string) poolKey {
	return poolKey{v.Version, v.Revision, tenant}
}

// pool holds the environments on demand of one revision of one version, and of
// one tenant where the function isolates them.
type pool struct {
	spec      Spec
	idle      []*environment // the most recently used last: taken first, so that the rest can be reaped
	waiting   []*waiter      // first come, first served
	patient   int            // of these, those that have no environment started for them
	starting  int            // environments on their way
	busy      int            // environments in use
	finishing int            // environments that have answered and will be free soon
	passed    int            // environments that were given back
	pace      pace
	retired   bool // takes no environment back
}

// environment is an Environment with what the home knows of it.
type environment struct {
	Environment
	home      *home
	pool      *pool      // nil where it is provisioned
	provision *provision // nil where it is on demand
	tenant    string
	started   time.Time
	idleAt    time.Time

	request  *Request // the invocation that it serves
	by       Served
	began    time.Duration // when, by the dispatcher's clock
	answered bool          // that has answered its caller

	served, sampled int           // invocations: so far, and when the CPU time was last looked at
	used            time.Duration // CPU time then
}

// begin notes the invocation that e serves next.
func (e *environment) begin(req *Request, by Served) {
	e.request, e.by, e.began, e.answered = req, by, e.home.d.clock(), false
}

// soon counts the environments like e that have answered and will be free soon.
func (e *environment) soon() *int {
	if e.provision != nil {
		return &e.provision.finishing
	}
	return &e.pool.finishing
}

// end ends an environment without holding anything up. It is called from a
// goroutine of the dispatcher, or with d.life held, so that Close waits for it.
func (e *environment) end() { e.home.d.wg.Go(e.Close) }

// waiter is an admitted invocation that waits for its environment.
type waiter struct {
	ready     chan struct{} // closed when env or err is set
	env       *environment
	err       error
	throttled string // the reason, where err is a throttle
	patient   bool   // counts on the environments in use; see home.await
}

func (w *waiter) fail(err error) {
	w.err = err
	close(w.ready)
}

// pool returns the pool that serves req, which retires the pools of the same
// version's earlier revisions.
func (h *home) pool(req *Request) *pool {
	key := keyOf(req.Version, req.TenantID)
	p := h.pools[key]
	if p == nil || p.retired {
		for k, old := range h.pools {
			if k.version == key.version && k.revision != key.revision {
				h.retirePool(k, old)
			}
		}
		p = &pool{spec: Spec{Version: req.Version, Tenant: req.TenantID}}
		h.pools[key] = p
	}
	return p
}

func (h *home) hasIdle(req *Request) bool {
	p := h.pools[keyOf(req.Version, req.TenantID)]
	return p != nil && len(p.idle) > 0
}

func (p *pool) takeIdle() *environment {
	for len(p.idle) > 0 {
		e := p.idle[len(p.idle)-1]
		p.idle = slices.Delete(p.idle, len(p.idle)-1, len(p.idle))
		if e.Alive() {
			p.busy++
			return e
		}
		e.home.discard(e)
	}
	return nil
}

// discard ends an environment on demand.
func (h *home) discard(e *environment) {
	if e.tenant != "" {
		h.tenants--
	}
	e.end()
}

// startMissing starts environments for waiters that have none on its way,
// counting on soon of those that are in use.
func (h *home) startMissing(p *pool, soon int) {
	for len(p.waiting)-p.patient > p.starting+soon {
		if reason := h.mayStart(p); reason != "" {
			w := p.leave(len(p.waiting) - 1)
			w.throttled = reason
			w.fail(errThrottled(reason))
			continue
		}
		p.starting++
		if !h.d.fork(func() { h.start(p) }) {
			h.failed(p, errClosing())
		}
	}
}

// mayStart tells why no environment may be started on demand, if so.
func (h *home) mayStart(p *pool) (reason string) {
	reason, rate := reasonAccount, reasonRate
	if h.reserved != nil {
		reason, rate = reasonReserved, reasonReservedRate
	}
	if p.spec.Tenant != "" && h.tenants >= h.concurrency()*tenantsNum/tenantsDen {
		return reason
	}
	if !h.starts.take(h.d.clock(), maxStarts, startsPeriod) {
		return rate
	}
	if p.spec.Tenant != "" {
		h.tenants++
	}
	return ""
}

// start starts one environment for p and gives it to whoever waits for longest:
// meanwhile one may have become free for the invocation that asked.
func (h *home) start(p *pool) {
	spec := p.spec
	spec.Wanted = func() bool { return h.wanted(p) }
	env, err := h.d.start(h.d.ctx, spec)
	if errors.Is(err, ErrUnwanted) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		p.starting--
		h.offer(&environment{Environment: env, home: h, pool: p, tenant: p.spec.Tenant, started: time.Now()})
		return
	}
	h.failed(p, h.d.startFailure(p.spec, err))
}

// startFailure returns what callers are told of a start that failed.
func (d *Dispatcher) startFailure(s Spec, err error) error {
	if d.ctx.Err() != nil {
		return errClosing()
	}
	d.log.Error("execution environment did not start", "function", s.Version.ARN(), "error", err)
	if errors.Is(err, ErrNoCapacity) {
		return errNoCapacity(err)
	}
	return asRefusal(err)
}

// acquireNew is acquire for an invocation that wants a new environment, with
// the steps of its start. It is admitted, counted and limited like any other.
func (h *home) acquireNew(req *Request) (*environment, error) {
	admission := req.Start.Begin("admission")
	h.mu.Lock()
	p, err := h.admitNew(req)
	h.mu.Unlock()
	admission()
	if err != nil {
		return nil, err
	}
	env, err := h.d.start(timeline.With(h.d.ctx, req.Start), p.spec)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		p.busy--
		if p.spec.Tenant != "" {
			h.tenants--
		}
		h.exit(req, OnDemand)
		return nil, h.d.startFailure(p.spec, err)
	}
	e := &environment{Environment: env, home: h, pool: p, tenant: p.spec.Tenant, started: time.Now()}
	e.begin(req, OnDemand)
	return e, nil
}

// admitNew takes a unit of concurrency for req and leave to start an environment
// for it, which counts as a busy one of the pool from then on.
func (h *home) admitNew(req *Request) (*pool, error) {
	if h.gone {
		return nil, errGone
	}
	reason := h.claim()
	if reason != "" {
		return nil, h.throttle(req, reason)
	}
	p := h.pool(req)
	if reason = h.rate(req); reason == "" {
		reason = h.mayStart(p)
	}
	if reason != "" {
		h.unclaim()
		return nil, h.throttle(req, reason)
	}
	h.enter(req, OnDemand)
	p.busy++
	return p, nil
}

// wanted tells whether the next start for p is still for someone who waits. In a
// burst of short invocations the first environments serve them all while most
// have not begun to start.
func (h *home) wanted(p *pool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(p.waiting)-p.patient >= p.starting {
		return true
	}
	h.starts.give(maxStarts, startsPeriod)
	p.starting--
	if p.spec.Tenant != "" {
		h.tenants--
	}
	return false
}

// failed answers the invocation that waits for longest, after a start has failed,
// unless those that are left serve all who wait.
func (h *home) failed(p *pool, err error) {
	p.starting--
	if p.spec.Tenant != "" {
		h.tenants--
	}
	if len(p.waiting) <= p.starting {
		return
	}
	p.leave(0).fail(err)
}

// give gives an environment, which counts as busy, to the first waiter.
func (h *home) give(p *pool, e *environment) {
	w := p.leave(0)
	w.env = e
	close(w.ready)
}

// offer gives a free environment to the first waiter, or lays it aside.
func (h *home) offer(e *environment) {
	p := e.pool
	switch {
	case len(p.waiting) > 0 && !h.crowded(p):
		p.busy++
		h.give(p, e)
	case p.retired || h.d.ctx.Err() != nil:
		h.discard(e)
	default:
		e.idleAt = time.Now()
		p.idle = append(p.idle, e)
	}
}

// serveWaiting gives an idle environment to a waiter, and starts what is missing
// then, as startMissing does.
func (h *home) serveWaiting(p *pool, soon int) {
	h.handOver(p)
	h.startMissing(p, soon)
}

// handOver gives an idle environment to who waits for longest, where there are
// both.
func (h *home) handOver(p *pool) {
	if len(p.waiting) == 0 {
		return
	}
	if e := p.takeIdle(); e != nil {
		h.give(p, e)
	}
}

func (h *home) retirePool(k poolKey, p *pool) {
	p.retired = true
	delete(h.pools, k)
	for _, e := range p.idle {
		h.discard(e)
	}
	p.idle = nil
}

// start starts an environment. A full host gives up idle ones for it, of other
// functions too, those first that have been idle for longest.
func (d *Dispatcher) start(ctx context.Context, s Spec) (Environment, error) {
	env, err := d.tryStart(ctx, s)
	for errors.Is(err, ErrNoCapacity) && d.giveUpOne() {
		env, err = d.tryStart(ctx, s)
	}
	return env, err
}

// tryStart makes an error of a panic: a fault in one start must not take the
// others along.
func (d *Dispatcher) tryStart(ctx context.Context, s Spec) (env Environment, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return d.opts.Starter.Start(ctx, s)
}
