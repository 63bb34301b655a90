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

// admit reserves what a sandbox needs, for which prepared ones give way, unless
// nobody waits for it either.
func (d *Driver) admit(spec *sandbox.Spec) error {
	missing, err := d.reserve(spec)
	if missing > 0 && !spec.Held && d.pool.giveUp(missing) {
		_, err = d.reserve(spec)
	}
	return err
}

// reserve admits a sandbox, or tells why not, and how many MB the host lacks.
func (d *Driver) reserve(spec *sandbox.Spec) (missing int, err error) {
	available, err := sandbox.MemInfo("MemAvailable")
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, errClosed
	}
	if _, exists := d.live[spec.ID]; exists {
		return 0, fmt.Errorf("gvisor: sandbox %s exists", spec.ID)
	}
	if d.opts.MemoryMB > 0 && d.memoryMB+spec.MemoryMB > d.opts.MemoryMB {
		return 0, fmt.Errorf("%w: %d of %d MB are given away and %d are asked for",
			sandbox.ErrNoCapacity, d.memoryMB, d.opts.MemoryMB, spec.MemoryMB)
	}
	// Those that start now have not yet taken what they will.
	coming := overheadMB
	for _, other := range d.live {
		if other == nil || !other.isUp() {
			coming += overheadMB
		}
	}
	if free := int(available/mib) - coming - spec.MemoryMB; free < reserveMB {
		return reserveMB - free, fmt.Errorf("%w: %d MB of memory are available on the host", sandbox.ErrNoCapacity, available/mib)
	}
	d.live[spec.ID] = nil // until there is one
	d.reserved[spec.ID] = spec.MemoryMB
	d.memoryMB += spec.MemoryMB
	d.starting.Add(1)
	return 0, nil
}

// assign makes s the sandbox that was reserved.
func (d *Driver) assign(s *instance, spec sandbox.Spec, from *sandbox.Snapshot) {
	s.mu.Lock() // somebody might kill it meanwhile
	s.spec, s.from = spec, from
	s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[spec.ID] = s
}

// forget undoes reserve once the sandbox is gone.
func (d *Driver) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.memoryMB -= d.reserved[id]
	delete(d.live, id)
	delete(d.reserved, id)
}
