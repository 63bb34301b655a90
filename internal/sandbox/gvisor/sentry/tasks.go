package sentry

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// limitTasks limits the processes and threads of the guest: gVisor does not heed
// RLIMIT_NPROC. System calls that would make one more fail with EAGAIN, as on
// Linux. It must be called before the guest runs.
func limitTasks(most int) {
	table, ok := kernel.LookupSyscallTable(abi.Linux, arch.Host)
	if !ok {
		panic("gVisor has no system call table for this machine")
	}
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
