package invoke

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

type poolKey struct{ version, revision string }

// pool holds the environments of one revision of one version.
type pool struct {
	version   *function.Version
	idle      []*environment // the most recently used last: taken first, so that the rest can be reaped
	waiting   []*waiter      // first come, first served
	starting  int            // environments on their way
	finishing int            // environments that have answered and will be free soon
	retired   bool           // takes no environment back
}

// environment is an Environment with what the home knows of it.
type environment struct {
	Environment
	home     *home
	pool     *pool
	reserved bool // counted against the function's reservation, not the account
	answered bool // its invocation has answered the caller
	started  time.Time
	idleAt   time.Time
}

// waiter is an admitted invocation that waits for its environment.
type waiter struct {
	ready chan struct{} // closed when env or err is set
	env   *environment
	err   error
}

func (p *pool) takeIdle() *environment {
	for len(p.idle) > 0 {
		e := p.idle[len(p.idle)-1]
		p.idle = slices.Delete(p.idle, len(p.idle)-1, len(p.idle))
		if e.Alive() {
			return e
		}
		e.end()
	}
	return nil
}

// startMissing starts environments for waiters that have none on its way,
// counting on soon of those that are in use.
func (h *home) startMissing(p *pool, soon int) {
	for n := len(p.waiting) - p.starting - soon; n > 0; n-- {
		p.starting++
		if !h.d.spawn(func() { h.start(p) }) {
			p.starting--
			h.fail(p, errClosing())
		}
	}
}

// start starts one environment for p and gives it to whoever waits for longest:
// meanwhile one may have become free for the invocation that asked.
func (h *home) start(p *pool) {
	env, err := h.d.startEnvironment(p.version)
	for errors.Is(err, ErrNoCapacity) && h.d.giveUpOne() {
		env, err = h.d.startEnvironment(p.version)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p.starting--
	switch {
	case err == nil:
		h.offer(&environment{Environment: env, home: h, pool: p, started: time.Now()})
	case h.d.ctx.Err() != nil:
		h.fail(p, errClosing())
	case errors.Is(err, ErrNoCapacity):
		h.d.log.Error("execution environment did not start", "function", p.version.ARN(), "error", err)
		h.fail(p, errNoCapacity(err))
	default:
		h.d.log.Error("execution environment did not start", "function", p.version.ARN(), "error", err)
		h.fail(p, errService(err))
	}
}

// startEnvironment makes an error of a panic: a fault in one start must not take
// the others along.
func (d *Dispatcher) startEnvironment(v *function.Version) (env Environment, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return d.opts.Starter.Start(d.ctx, Spec{Version: v})
}

// fail answers the invocation that waits for longest, after a start has failed,
// unless those that are left serve all who wait.
func (h *home) fail(p *pool, err error) {
	if len(p.waiting) <= p.starting {
		return
	}
	w := p.waiting[0]
	p.waiting = slices.Delete(p.waiting, 0, 1)
	w.err = err
	close(w.ready)
}

// offer gives a free environment to the first waiter, or lays it aside.
func (h *home) offer(e *environment) {
	p := e.pool
	switch {
	case len(p.waiting) > 0:
		w := p.waiting[0]
		p.waiting = slices.Delete(p.waiting, 0, 1)
		e.answered = false
		w.env = e
		close(w.ready)
	case p.retired || h.d.ctx.Err() != nil:
		e.end()
	default:
		e.idleAt = time.Now()
		p.idle = append(p.idle, e)
	}
}

// end ends an environment without holding anything up. It is called from a
// goroutine of the dispatcher, or with d.life held, so that Close waits for it.
func (e *environment) end() { e.home.d.wg.Go(e.Close) }

func (h *home) retirePool(k poolKey, p *pool) {
	p.retired = true
	delete(h.pools, k)
	for _, e := range p.idle {
		e.end()
	}
	p.idle = nil
}
