package invoke

import (
	"slices"
	"time"
)

// pressurePeriod is how often the host's memory is looked at.
const pressurePeriod = time.Second

// Memory tells how much memory the host has left.
type Memory interface {
	// Available returns what can be given away without swapping, in bytes.
	Available() (int64, error)
}

// reap ends idle environments whose time is over, or for which the host has no
// memory any more.
func (d *Dispatcher) reap() {
	idle := time.NewTicker(max(d.opts.IdleTimeout/20, 10*time.Millisecond))
	defer idle.Stop()
	var pressure <-chan time.Time
	if d.opts.Memory != nil {
		t := time.NewTicker(pressurePeriod)
		defer t.Stop()
		pressure = t.C
	}
	for {
		select {
		case <-d.ctx.Done():
			return
		case now := <-idle.C:
			for _, h := range d.snapshot() {
				if h.reap(now) {
					d.forget(h)
				}
			}
		case <-pressure:
			d.relieve()
		}
	}
}

// relieve gives up idle environments, the longest idle first, until the host
// has memory again. It waits for the end of each, so it gives up no more than it
// must. Admission of new ones is the Starter's business (ErrNoCapacity).
func (d *Dispatcher) relieve() {
	for d.ctx.Err() == nil {
		available, err := d.opts.Memory.Available()
		if err != nil {
			d.log.Error("memory of the host is not known", "error", err)
			return
		}
		if available >= d.opts.MemoryLow || !d.giveUpOne() {
			return
		}
	}
}

func (d *Dispatcher) forget(h *home) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.drop() {
		delete(d.homes, h.arn)
	}
}

// giveUpOne ends the environment that has been idle for longest, of whatever
// function, and waits until its room is free. It tells whether there was one.
// Provisioned environments are never given up.
func (d *Dispatcher) giveUpOne() bool {
	var oldest *home
	var since time.Time
	for _, h := range d.snapshot() {
		if t, ok := h.oldestIdle(); ok && (oldest == nil || t.Before(since)) {
			oldest, since = h, t
		}
	}
	return oldest != nil && oldest.giveUpOldest()
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
				h.discard(e)
			}
			return over
		})
		if len(p.idle)+len(p.waiting)+p.starting+p.busy == 0 {
			delete(h.pools, k)
		}
	}
	for _, pr := range h.provisions {
		h.renew(pr)
	}
	return h.empty()
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
	if e.tenant != "" {
		h.tenants--
	}
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
