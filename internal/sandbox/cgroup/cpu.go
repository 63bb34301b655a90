package cgroup

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"sync"
)

// cpuPeriod is the time, in µs, within which a group may use its quota.
const cpuPeriod = 100_000

// withKernel is how much CPU time a guest and its kernel get together, in times
// of what the guest gets. Of an invocation of a small function gVisor's kernel
// uses 1.5 times as much as the guest (docs/performance.md), so most guests use
// all that they were promised, and none much more of the host than that.
const withKernel = 3

// The names of the groups in a group.
const (
	guestGroup  = "guest"
	kernelGroup = "kernel" // version 2 only: it allows no processes beside groups
)

// cpuLimit is the limit of CPU time of a guest's group and of the whole that it
// is in.
type cpuLimit struct {
	whole, guest string // directories
	burst        string // control file: what a group may keep of a period, µs
	// quota lets the group at dir use µs in each period.
	quota func(dir string, µs int) error
	// share gives the group at dir its part of processors that are fought over.
	share func(dir string, millis int) error

	mu  sync.Mutex
	now int // thousandths of a processor; 0 before the first limit
}

// set changes the limit. A part must not have more than the whole, nor a group
// keep more than its quota, at any time; hence the order of the steps.
func (c *cpuLimit) set(millis int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if millis == Unlimited {
		c.now = 0
		return errors.Join(c.keep(c.guest, 0), c.keep(c.whole, 0), c.quota(c.guest, Unlimited), c.quota(c.whole, Unlimited))
	}
	quota := max(1000, millis*cpuPeriod/1000)
	whole := func() error { return c.quota(c.whole, withKernel*quota) }
	guest := func() error { return c.quota(c.guest, quota) }
	keepWhole := func() error { return c.keep(c.whole, withKernel*quota) }
	keepGuest := func() error { return c.keep(c.guest, quota) }
	steps := []func() error{whole, keepWhole, guest, keepGuest}
	if millis < c.now {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	c.now = millis
	return c.share(c.whole, millis)
}

// keep lets a group keep up to µs of one period for the next.
func (c *cpuLimit) keep(dir string, µs int) error {
	err := write(dir, c.burst, strconv.Itoa(µs))
	if errors.Is(err, fs.ErrNotExist) { // before Linux 5.14
		return nil
	}
	return err
}
