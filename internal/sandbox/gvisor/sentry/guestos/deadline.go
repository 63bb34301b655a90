package guestos

import (
	"sync"
	"time"
)

// deadline is a time that waiting ends at. The zero value and nil are none.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed once it has passed
}

// set changes the deadline; the zero time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		d.over = nil // that one is closed, or about to be
	}
	d.timer = nil
	if !t.IsZero() {
		over := d.channel()
		d.timer = time.AfterFunc(time.Until(t), func() { close(over) })
	}
}

// passed returns what is closed when the deadline has passed.
func (d *deadline) passed() <-chan struct{} {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channel()
}

func (d *deadline) channel() chan struct{} {
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}
