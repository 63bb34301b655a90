package gvisor

import (
	"errors"
	"fmt"

	"lapwing.dev/lapwing/internal/sandbox"
)

const (
	mib = 1 << 20
	// overheadMB is what a sandbox may use beyond Spec.MemoryMB: the kernel's
	// heap and tables, of which an idle sandbox uses some 10 MB.
	overheadMB = 64
	// reserveMB of the host's memory is never given to sandboxes.
	reserveMB = 256
)

var errClosed = errors.New("gvisor: driver is closed")

// reserve admits s, or tells why not.
func (d *Driver) reserve(s *instance) error {
	available, err := sandbox.MemInfo("MemAvailable")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	if d.live[s.spec.ID] != nil {
		return fmt.Errorf("gvisor: sandbox %s exists", s.spec.ID)
	}
	if d.opts.MemoryMB > 0 && d.memoryMB+s.spec.MemoryMB > d.opts.MemoryMB {
		return fmt.Errorf("%w: %d of %d MB are given away and %d are asked for",
			sandbox.ErrNoCapacity, d.memoryMB, d.opts.MemoryMB, s.spec.MemoryMB)
	}
	// Those that start now have not yet taken what they will.
	coming := overheadMB
	for _, other := range d.live {
		if !other.isUp() {
			coming += overheadMB
		}
	}
	if free := int(available/mib) - coming - s.spec.MemoryMB; free < reserveMB {
		return fmt.Errorf("%w: %d MB of memory are available on the host", sandbox.ErrNoCapacity, available/mib)
	}
	d.live[s.spec.ID] = s
	d.memoryMB += s.spec.MemoryMB
	d.starting.Add(1)
	return nil
}

// forget undoes reserve once s is gone.
func (d *Driver) forget(s *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[s.spec.ID] == s {
		delete(d.live, s.spec.ID)
		d.memoryMB -= s.spec.MemoryMB
	}
}
