package gvisor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/pace"
)

// pool keeps prepared sandboxes: processes that have loaded the program, prepared
// gVisor and practised the loading of a kernel, and wait to be told what to be. Nothing of any function is in
// them, and each becomes one sandbox, once. They are made while nothing starts, as
// many as were taken in the time that follows a burst, so that the next burst finds
// them; they go when nothing has started for a while, or when memory is short: of
// itself every few seconds, and at once where a sandbox finds no room.
type pool struct {
	driver *Driver
	wake   chan struct{}
	done   chan struct{} // closed when the goroutine has ended; nil before begin

	mu       sync.Mutex
	ready    []*instance
	starting int       // that were taken and are not initialised yet
	last     time.Time // when one was taken or initialised
	rate     pace.Rate
	stop     chan struct{}
}

const (
	// leastPrepared is how many there are after a quiet time.
	leastPrepared = 1
	// stillness is how long nothing may have been taken or been initialised before more
	// are prepared: a burst has the processors for itself, and so has what starts,
	// for patience at most.
	stillness, patience = 20 * time.Millisecond, 150 * time.Millisecond
	// preparedMB is what a prepared sandbox takes of the host's memory, about, and
	// preparedPart the part of what is available that all of them may take.
	preparedMB, preparedPart = 12, 50
	// lookEvery is how often the pool looks whether memory has become short, or
	// somebody has killed a sandbox of its own, and retryAfter how long it waits
	// after one could not be made.
	lookEvery, retryAfter = 5 * time.Second, 2 * time.Minute
)

func newPool(d *Driver) *pool {
	return &pool{driver: d, wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

// begin has sandboxes prepared from now on.
func (p *pool) begin() {
	p.done = make(chan struct{})
	go p.run()
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
	p.last = time.Now()
	p.rate.Note(p.last)
	p.starting++
	var s *instance
	for i, other := range slices.Backward(p.ready) {
		if !other.hasEnded() { // else it was killed, and refill removes it
			s = other
			p.ready = slices.Delete(p.ready, i, i+1)
			break
		}
	}
	p.mu.Unlock()
	p.hurry()
	if s == nil {
		var err error
		if s, err = p.driver.newInstance(false); err != nil {
			p.started()
			return nil, err
		}
	}
	s.started = sync.OnceFunc(p.started)
	return s, nil
}

// started notes that one of those taken has been initialised, or has ended.
func (p *pool) started() {
	p.mu.Lock()
	p.starting--
	p.last = time.Now()
	p.mu.Unlock()
	p.hurry()
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
	idle, calm := now.Sub(p.last), stillness
	if p.starting > 0 {
		calm = patience
	}
	want := p.want(now)
	surplus := slices.IndexFunc(p.ready, (*instance).hasEnded)
	if surplus < 0 && len(p.ready) > want {
		surplus = 0
	}
	var gone []*instance
	if surplus >= 0 {
		gone = []*instance{p.ready[surplus]}
		p.ready = slices.Delete(p.ready, surplus, surplus+1)
	}
	enough := len(p.ready) >= want
	p.mu.Unlock()
	switch {
	case gone != nil:
		p.remove(gone)
		return 0
	case enough:
		return lookEvery
	case idle < calm:
		return calm - idle
	}
	s, err := p.driver.newInstance(true)
	if err != nil {
		p.driver.log.Warn("no sandbox was prepared", "err", err)
		return retryAfter
	}
	select {
	case <-s.ready:
	case <-p.stop: // close removes it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, s)
	return 0
}

// want returns how many there should be. What those have taken that are there is
// theirs, or the last one would go for its own memory, and come again. p.mu is held.
func (p *pool) want(now time.Time) int {
	available, err := sandbox.MemInfo("MemAvailable")
	if err != nil {
		return 0
	}
	room := int(available/mib) - reserveMB + len(p.ready)*preparedMB
	return min(max(p.rate.Lately(now), leastPrepared), p.driver.opts.Prepared, max(0, room/preparedPart/preparedMB))
}

// giveUp removes so many prepared sandboxes as hold missing MB of memory, about, and
// tells whether there were so many.
func (p *pool) giveUp(missing int) bool {
	n := (missing + preparedMB - 1) / preparedMB
	p.mu.Lock()
	if n > len(p.ready) {
		p.mu.Unlock()
		return false
	}
	gone := slices.Clone(p.ready[:n])
	p.ready = slices.Delete(p.ready, 0, n)
	p.mu.Unlock()
	p.remove(gone)
	return true
}

// remove destroys sandboxes that are no longer in the pool.
func (p *pool) remove(gone []*instance) {
	if err := destroyAll(gone); err != nil {
		p.driver.log.Error("a prepared sandbox was not removed", "err", err)
	}
}

// close ends the goroutine and removes what is prepared.
func (p *pool) close() error {
	close(p.stop)
	if p.done != nil {
		<-p.done
	}
	p.mu.Lock()
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	return destroyAll(ready)
}

// destroyAll destroys sandboxes side by side.
func destroyAll(all []*instance) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = s.Destroy(context.Background()) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
