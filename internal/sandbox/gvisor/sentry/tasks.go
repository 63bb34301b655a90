package sentry

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// limitTasks limits the processes and threads of the guest: gVisor does not heed
// RLIMIT_NPROC. System calls that would make one more fail with EAGAIN, as on
// Linux. It must be called before the guest runs.
func limitTasks(most int) {
	table := syscallTable()
	var starting atomic.Int64 // calls under way
	for number, call := range table.Table {
		switch call.Name {
		case "clone", "clone3", "fork", "vfork":
			clone := call.Fn
			call.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
				defer starting.Add(-1)
				if int(starting.Add(1))+t.PIDNamespace().Root().NumTasks() > most {
					return 0, nil, linuxerr.EAGAIN
				}
				return clone(t, sysno, args)
			}
			table.Table[number] = call
		}
	}
	table.Init()
}

// settle changes what gVisor's configuration has no option for.
func settle(k *kernel.Kernel) {
	if err := removeShm(k); err != nil {
		log.Warningf("Removing /dev/shm: %v", err)
	}
	if err := recoverPlainly(k); err != nil {
		log.Warningf("Choosing how TCP recovers from losses: %v", err)
	}
}

// settleClocks has the clocks of a new kernel ready when process 1 starts. gVisor
// reads time without a system call once it has two samples of the host's clocks, the
// second of which it takes a second after the first. Interpreters look at the clock
// hundreds of times in their first second. Where updates have been paused the second
// sample is taken at the start of the kernel instead, and corrected by those that
// follow; some 10 ms apart they tell the frequency to within 50 ppm or so.
func settleClocks(k *kernel.Kernel) { k.Timekeeper().PauseUpdates() }

// recoverPlainly has TCP recover from losses by SACK without RACK. With gVisor's
// RACK a connection that lost many segments at once, as at the end of a burst,
// went on at two segments a timeout: 15 KB/s where 1 MB/s were to be had.
func recoverPlainly(k *kernel.Kernel) error {
	const withoutRACK = 0
	return k.RootNetworkNamespace().Stack().SetTCPRecovery(withoutRACK)
}

// removeShm removes /dev/shm, which gVisor always makes and Lambda does not have:
// by its absence the C library knows that there are no POSIX semaphores.
func removeShm(k *kernel.Kernel) error {
	ctx := k.SupervisorContext()
	root := k.GlobalInit().Leader().MountNamespace().Root(ctx)
	defer root.DecRef(ctx)
	pop := &vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse("/dev/shm")}
	return k.VFS().RmdirAt(ctx, auth.NewRootCredentials(k.RootUserNamespace()), pop)
}
