package invoke

import (
	"errors"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

const (
	// provisionRetry and provisionRetryMax bound the wait after a provisioned
	// environment could not be started.
	provisionRetry, provisionRetryMax = time.Second, time.Minute
	// unitRetry is how often a provisioned environment looks for a unit of the
	// account's concurrency where all are in use by other functions.
	unitRetry = 250 * time.Millisecond
)

// provision keeps the provisioned environments of one version. Each holds a unit
// of concurrency for as long as it is there, so that an invocation that finds
// one needs no other leave.
//
// Those of a new allocation serve only when all of it is up (Lambda developer
// guide, "Configuring provisioned concurrency"); one that replaces another then
// serves at once.
type provision struct {
	version  *function.Version
	want     int
	token    string
	requests bucket

	allocated int            // units held: environments that are up or starting
	starting  int            // of these, those that are not up
	staged    []*environment // up, and kept back until all are
	idle      []*environment // the most recently used last
	finishing int            // environments that have answered and will be free soon

	complete bool // the allocation has been up as a whole
	failed   bool // the function does not initialise: no more is started
	failures int  // starts that failed in a row
	waiting  bool // a retry is on its way
	held     bool // nothing is started until then
}

func (pr *provision) status() AllocationStatus {
	s := AllocationStatus{Allocated: pr.allocated - pr.starting, Available: pr.allocated - pr.starting - len(pr.staged)}
	switch {
	case pr.failed:
		s.State = Failed
	case pr.complete:
		s.State = Ready
	}
	return s
}

// take returns an environment that is ready for an invocation. Beyond ten
// requests a second for each of them, invocations spill over.
func (pr *provision) take(now time.Duration) *environment {
	for len(pr.idle) > 0 {
		e := pr.idle[len(pr.idle)-1]
		if !e.Alive() {
			pr.idle = pr.idle[:len(pr.idle)-1]
			e.home.deallocate(e)
			e.home.fill(pr)
			continue
		}
		if !pr.requests.take(now, pr.want*requestsPerUnit, time.Second) {
			return nil
		}
		pr.idle = pr.idle[:len(pr.idle)-1]
		return e
	}
	return nil
}

// provide makes list what is kept ready of the function.
func (h *home) provide(list []Allocation) {
	wanted := map[poolKey]Allocation{}
	for _, a := range list {
		key := keyOf(a.Version, "")
		wanted[key] = a
		if h.provisions[key] == nil {
			h.provisions[key] = &provision{}
		}
	}
	// First what gives units back, then what needs them.
	for key, pr := range h.provisions {
		a := wanted[key]
		if a.Version != nil {
			pr.version = a.Version
		}
		if a.Token != pr.token || a.Count > pr.want {
			pr.complete = pr.complete && a.Count <= pr.want
			pr.failed, pr.failures, pr.held = false, 0, false
		}
		pr.want, pr.token = a.Count, a.Token
		h.trim(pr)
	}
	h.fillAll()
}

// trim ends environments beyond what is wanted; those that are busy or starting
// follow when they are free.
func (h *home) trim(pr *provision) {
	for pr.allocated > pr.want && len(pr.staged)+len(pr.idle) > 0 {
		list := &pr.staged
		if len(*list) == 0 {
			list = &pr.idle // the longest idle first
		}
		e := (*list)[0]
		*list = slices.Delete(*list, 0, 1)
		h.deallocate(e)
	}
	h.settle(pr)
	if pr.want == 0 && pr.allocated == 0 {
		delete(h.provisions, keyOf(pr.version, ""))
	}
}

func (h *home) fillAll() {
	for _, pr := range h.provisions {
		h.fill(pr)
	}
}

// fill starts what is missing of an allocation.
func (h *home) fill(pr *provision) {
	for pr.allocated < pr.want && !pr.failed && !pr.held {
		if h.claim() != "" {
			h.retry(pr, unitRetry)
			return
		}
		pr.allocated++
		pr.starting++
		if !h.d.fork(func() { h.startProvisioned(pr) }) {
			pr.starting--
			h.surrender(pr)
			return
		}
	}
}

// retry looks after pr again in a while.
func (h *home) retry(pr *provision, after time.Duration) {
	if pr.waiting {
		return
	}
	pr.waiting = h.d.fork(func() {
		t := time.NewTimer(after)
		defer t.Stop()
		select {
		case <-t.C:
		case <-h.d.ctx.Done():
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		pr.waiting, pr.held = false, false
		h.fill(pr)
	})
}

// startProvisioned starts one environment of pr, when it is its turn.
func (h *home) startProvisioned(pr *provision) {
	var env Environment
	var err error
	h.d.inTurn(func() {
		h.mu.Lock()
		spec, wanted := Spec{Version: pr.version, Provisioned: true}, pr.allocated <= pr.want && !pr.failed
		h.mu.Unlock()
		if wanted {
			env, err = h.d.start(h.d.ctx, spec)
		}
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	pr.starting--
	if env == nil {
		h.surrender(pr)
		if err != nil {
			h.startFailed(pr, err)
		}
	} else {
		pr.failures = 0
		h.d.opts.Observer.Allocated(pr.version, 1)
		e := &environment{Environment: env, home: h, provision: pr, started: time.Now()}
		if pr.failed && !pr.complete {
			h.deallocate(e)
		} else {
			pr.staged = append(pr.staged, e)
		}
	}
	h.trim(pr)
	h.fill(pr)
}

// inTurn runs f when it is its turn among the provisioned starts, unless the
// dispatcher closes before: they must not crowd out what callers wait for.
func (d *Dispatcher) inTurn(f func()) {
	select {
	case d.ahead <- struct{}{}:
		defer func() { <-d.ahead }()
		f()
	case <-d.ctx.Done():
	}
}

// startFailed decides what becomes of pr after a start that failed.
func (h *home) startFailed(pr *provision, err error) {
	if h.d.ctx.Err() != nil {
		return
	}
	h.d.log.Error("provisioned environment did not start", "function", pr.version.ARN(), "error", err)
	pr.failures++
	if errors.Is(err, ErrInit) && pr.failures >= maxInitFailures {
		pr.failed = true
		for _, e := range pr.staged {
			h.deallocate(e)
		}
		pr.staged = nil
		return
	}
	pr.held = true
	h.retry(pr, min(provisionRetry<<min(pr.failures-1, 10), provisionRetryMax))
}

// settle lets an allocation serve once all of it is up.
func (h *home) settle(pr *provision) {
	if pr.want > 0 && pr.starting == 0 && pr.allocated == pr.want {
		pr.complete, pr.failures = true, 0
	}
	if !pr.complete || len(pr.staged) == 0 {
		return
	}
	for _, e := range pr.staged {
		e.idleAt = time.Now()
	}
	pr.idle = append(pr.staged, pr.idle...)
	pr.staged = nil
	h.wake()
}

// releaseProvisioned takes a provisioned environment back after an invocation.
func (h *home) releaseProvisioned(e *environment, reusable bool) {
	pr := e.provision
	if reusable && h.d.ctx.Err() == nil {
		e.idleAt = time.Now()
		pr.idle = append(pr.idle, e)
	} else {
		h.deallocate(e)
	}
	h.trim(pr)
}

// deallocate ends a provisioned environment.
func (h *home) deallocate(e *environment) {
	h.d.opts.Observer.Allocated(e.provision.version, -1)
	h.surrender(e.provision)
	e.end()
}

// surrender gives back the unit of a provisioned environment.
func (h *home) surrender(pr *provision) {
	pr.allocated--
	h.unclaim()
}

// renew ends provisioned environments that have died or grown too old, of the
// latter only a few at once, so that enough are left while they are replaced.
func (h *home) renew(pr *provision) {
	old := max(1, pr.allocated/50)
	pr.idle = slices.DeleteFunc(pr.idle, func(e *environment) bool {
		over := !e.Alive()
		if !over && old > 0 && pr.starting == 0 && time.Since(e.started) >= maxLifetime {
			over = true
			old--
		}
		if over {
			h.deallocate(e)
		}
		return over
	})
	h.trim(pr)
	h.fill(pr)
}
