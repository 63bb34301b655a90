package sentry

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/seccomp"
)

// stubsEvery is how often a sandbox looks after its stubs. To be told by SIGCHLD
// was tried, and costs a function of little memory much of the CPU time it has,
// since gVisor stops stubs often.
const stubsEvery = 200 * time.Millisecond

// watchStubs calls lost once a stub has died: a process that runs guest code for
// the sentry. gVisor keeps and reuses its stubs, so one that ends was killed from
// outside, and what it was about is lost: "It's simply not possible to safely
// handle a single stub getting killed" (package systrap). But gVisor finds out
// only when it next needs something of that stub. Where a guest thread was
// computing in it that is never, and a function hung until its timeout. Where
// gVisor is first, it kills the guest process, and this may miss it.
//
// A stub's threads are processes too; their end kills the stub.
func watchStubs(lost func()) {
	go func() {
		for !stubDied() {
			time.Sleep(stubsEvery)
		}
		log.Warningf("A process that ran guest code was killed")
		lost()
	}()
}

// howStubDied are the options of the one waitid that the system call filter
// allows: what gVisor itself waits for is left to it.
const howStubDied = unix.WEXITED | unix.WNOHANG | unix.WNOWAIT

// waitRule lets stubDied through the system call filter.
var waitRule = seccomp.PerArg{
	seccomp.EqualTo(unix.P_ALL), seccomp.AnyValue{}, seccomp.AnyValue{}, seccomp.EqualTo(howStubDied), seccomp.EqualTo(0),
}

// stubDied tells whether a child of this process has ended, as far as can be
// seen now; all of them are stubs.
func stubDied() bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, howStubDied, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || info.Signo == 0:
			return false
		case info.Code == linux.CLD_EXITED || info.Code == linux.CLD_KILLED || info.Code == linux.CLD_DUMPED:
			return true
		default:
			// gVisor has stopped one, to start a thread in it. Linux tells of
			// that whatever the options, and of nothing else meanwhile: what
			// has ended is found at the next look.
			return false
		}
	}
}
