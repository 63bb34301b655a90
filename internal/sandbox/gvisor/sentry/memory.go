package sentry

import (
	"time"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

const (
	mib = 1 << 20
	// processOne is what process 1 may come to use where it is more than idle. It
	// is no part of what the function has.
	processOne = 16 * mib
)

// watchMemory returns a function that begins to watch: over is called once the guest's
// memory exceeds limit bytes by more than the guest of kernel k has used so far. What it still has of a snapshot's memory,
// in bytes, counts too. gVisor itself limits nothing, and the
// sandbox's cgroup cannot: it counts the sentry's own memory too, so it leaves
// room for that and is there for what grows faster than this sees.
func watchMemory(k *kernel.Kernel, limit uint64, lent func() uint64, over func()) (begin func()) {
	memory := k.MemoryFile()
	base, err := memory.TotalUsage()
	if err != nil {
		log.Warningf("Memory is limited by the cgroup alone: %v", err)
		return func() {}
	}
	limit += base
	watch := func() {
		for {
			used, err := memory.TotalUsage() // one fstat
			if err != nil {
				log.Warningf("Memory is limited by the cgroup alone from now on: %v", err)
				return
			}
			if used += lent(); used > limit {
				over()
				return
			}
			time.Sleep(nextLook(limit - used))
		}
	}
	return func() { go watch() }
}

// nextLook returns when to look again where room bytes are left: a guest takes
// hardly more than 1 MiB in a millisecond, of new memory from gVisor.
func nextLook(room uint64) time.Duration {
	return min(max(time.Duration(room/mib)*time.Millisecond, 5*time.Millisecond), 200*time.Millisecond)
}
