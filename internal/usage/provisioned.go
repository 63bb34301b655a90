package usage

import (
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/meter"
)

const (
	// allocationEvery is how often provisioned concurrency is recorded while it
	// does not change: kill -9 loses at most that.
	allocationEvery = time.Minute
	// releaseTime is within which environments that go one by one are taken to
	// go together, when the end of a configuration is rounded.
	releaseTime = time.Minute
)

// Provisioned meters provisioned concurrency: environments by the time for which
// they are kept ready, used or not. Its methods are safe for concurrent use.
type Provisioned struct {
	journal *Journal
	now     func() time.Time
	stop    chan struct{}
	done    sync.WaitGroup

	mu     sync.Mutex
	levels map[string]*level // by version ARN
	closed bool
}

// level is how many environments a version has.
type level struct {
	allocation meter.Allocation // since From; its Environments are those of now
	began      time.Time        // when there was the first one
	falling    time.Time        // since when environments go, none coming; zero otherwise
	peak       int              // environments before they began to go
}

// NewProvisioned returns a meter of provisioned concurrency. Close ends it.
func NewProvisioned(j *Journal) *Provisioned {
	p := &Provisioned{journal: j, now: time.Now, stop: make(chan struct{}), levels: map[string]*level{}}
	p.done.Go(p.run)
	return p
}

func (p *Provisioned) run() {
	t := time.NewTicker(allocationEvery)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.record()
		}
	}
}

// record records what has been kept so far.
func (p *Provisioned) record() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.levels {
		p.until(l, p.now())
	}
}

// until records what l has had until now; mu is held.
func (p *Provisioned) until(l *level, now time.Time) {
	a := l.allocation
	a.To = now
	l.allocation.From = now
	if a.Environments > 0 && a.To.After(a.From) {
		p.journal.Allocate(a, l.began, false)
	}
}

// Change notes that a version has n more environments, or fewer.
func (p *Provisioned) Change(v *function.Version, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	now := p.now()
	l := p.levels[v.ARN()]
	if l == nil {
		l = &level{began: now, allocation: meter.Allocation{
			Function: v.Name, Version: v.Version, Architecture: v.Architecture, MemoryMB: v.MemoryMB, From: now,
		}}
		p.levels[v.ARN()] = l
	}
	p.until(l, now)
	switch {
	case n > 0:
		l.falling = time.Time{}
	case l.falling.IsZero():
		l.falling, l.peak = now, l.allocation.Environments
	}
	l.allocation.Environments += n
	if l.allocation.Environments > 0 {
		return
	}
	delete(p.levels, v.ARN())
	a := l.allocation
	a.To, a.Environments = now, 1
	if now.Sub(l.falling) < releaseTime {
		a.Environments = l.peak
	}
	p.journal.Allocate(a, l.began, true) // no time but that of rounding
}

// Close records what has been kept. What goes after it is not the end of a
// configuration, but of the program.
func (p *Provisioned) Close() {
	close(p.stop)
	p.done.Wait()
	p.record()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}
