package sentry

import (
	"sync"
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
// Linux. Before the first of them there is only process 1 and nothing of the
// function's, so first is called then. It must be called before the guest runs.
func limitTasks(most int, first func(*kernel.Task)) {
	table := syscallTable()
	var once sync.Once
	var starting atomic.Int64 // calls under way
	for number, call := range table.Table {
		switch call.Name {
		case "clone", "clone3", "fork", "vfork":
			clone := call.Fn
			call.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
				once.Do(func() { first(t) })
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

// removeShm removes /dev/shm, which gVisor always makes and Lambda does not have:
// by its absence the C library knows that there are no POSIX semaphores.
func removeShm(t *kernel.Task) {
	root := t.FSContext().RootDirectory()
	defer root.DecRef(t)
	pop := &vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse("/dev/shm")}
	if err := t.Kernel().VFS().RmdirAt(t, auth.NewRootCredentials(t.Kernel().RootUserNamespace()), pop); err != nil {
		log.Warningf("Removing /dev/shm: %v", err)
	}
}
