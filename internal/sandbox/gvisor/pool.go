package gvisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

// pool keeps prepared sandboxes: processes that have loaded the program and
// prepared gVisor, and wait to be told what to be. Nothing of any function is in
// them, and each becomes one sandbox, once. They are made while nothing starts, as
// many as were taken in the time that follows a burst, so that the next burst finds
// them; they go when nothing has started for a while, or when memory is short.
type pool struct {
	driver *Driver
	wake   chan struct{}
	done   chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	ready  []*instance
	closed bool
	taken  time.Time // when the last was
	burst  int       // how many were taken lately
	stop   chan struct{}
}

const (
	// leastPrepared is how many there are after a quiet time.
	leastPrepared = 1
	// quiet is how long nothing may have been taken before more are prepared: a
	// burst has the processors for itself.
	quiet = 20 * time.Millisecond
	// forgetful is how long the size of a burst is remembered.
	forgetful = 2 * time.Minute
	// preparedMB is what a prepared sandbox takes of the host's memory, about, and
	// preparedPart the part of what is available that all of them may take.
	preparedMB, preparedPart = 12, 50
)

func newPool(d *Driver) *pool {
	p := &pool{driver: d, wake: make(chan struct{}, 1), done: make(chan struct{}), stop: make(chan struct{})}
	go p.run()
	p.hurry()
	return p
}

// hurry has the goroutine look again.
func (p *pool) hurry() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take returns a prepared sandbox, or a new one where there is none.
func (p *pool) take() (*instance, error) {
	p.mu.Lock()
	p.taken = time.Now()
	p.burst++
	var s *instance
	for s == nil && len(p.ready) > 0 {
		s = p.ready[len(p.ready)-1]
		p.ready = p.ready[:len(p.ready)-1]
		select {
		case <-s.done: // somebody killed it
			s = nil
		default:
		}
	}
	p.mu.Unlock()
	p.hurry()
	if s != nil {
		return s, nil
	}
	return p.driver.newInstance()
}

// run keeps the pool filled until close.
func (p *pool) run() {
	defer close(p.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.refill())
	}
}

// refill makes or removes one prepared sandbox and returns when to look again.
func (p *pool) refill() time.Duration {
	now := time.Now()
	p.mu.Lock()
	idle := now.Sub(p.taken)
	if idle > forgetful {
		p.burst = 0
	}
	want := p.want()
	have := len(p.ready)
	var surplus *instance
	if have > want {
		surplus = p.ready[0]
		p.ready = p.ready[1:]
	}
	p.mu.Unlock()
	switch {
	case surplus != nil:
		if err := surplus.Destroy(context.Background()); err != nil {
			p.driver.log.Error("a prepared sandbox was not removed", "err", err)
		}
		return 0
	case have == want:
		return forgetful
	case idle < quiet:
		return quiet - idle
	}
	s, err := p.driver.newInstance()
	if err != nil {
		p.driver.log.Warn("no sandbox was prepared", "err", err)
		return forgetful
	}
	<-s.ready
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, s)
	return 0
}

// want returns how many there should be. p.mu is held.
func (p *pool) want() int {
	available, err := sandbox.MemInfo("MemAvailable")
	if err != nil {
		return 0
	}
	room := int(available/mib) - reserveMB
	return min(max(p.burst, leastPrepared), p.driver.opts.Prepared, max(0, room/preparedPart/preparedMB))
}

// close ends the goroutine and removes what is prepared.
func (p *pool) close() error {
	close(p.stop)
	<-p.done
	p.mu.Lock()
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	var errs []error
	for _, s := range ready {
		errs = append(errs, s.Destroy(context.Background()))
	}
	return errors.Join(errs...)
}
