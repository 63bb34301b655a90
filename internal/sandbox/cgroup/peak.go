package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
)

// peakStep is how far the kernel's counter rises unseen, far less than the
// megabyte to which the peak is told.
const peakStep = 128 << 10

// peak keeps a group's highest use of memory. It is asked for after every
// invocation, and reading all of a group's statistics takes longer than many an
// invocation: they are read only where the kernel's own counter has risen, by
// peakStep.
type peak struct {
	file heldFile // the kernel's counter

	mu      sync.Mutex
	counter int64 // as last read with the statistics
	value   int64
}

// read returns the highest Memory.Peak so far. The counter is the file called
// name in dir; where the kernel has none, memory is asked each time.
func (p *peak) read(dir, name string, memory func() (Memory, error)) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counter, err := p.file.readInt(dir, name)
	known := err == nil
	if !known && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	if known && p.counter > 0 && counter < p.counter+peakStep {
		return p.value, nil
	}
	m, err := memory()
	if err != nil {
		return 0, err
	}
	p.counter, p.value = counter, max(p.value, m.Peak)
	return p.value, nil
}
