package main

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestThreadsHaveOneMemoryAndProcessesTheirOwn(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := os.Getpid()
	if _, _, errno := unix.Syscall(unix.SYS_KCMP, uintptr(self), uintptr(self), 1); errno != 0 {
		t.Skipf("this host does not compare processes: %v", errno)
	}
	if !oneMemory(self, unix.Gettid()) {
		t.Error("a thread of this process is said to have memory of its own")
	}
	if oneMemory(self, os.Getppid()) {
		t.Error("another process is said to have this one's memory")
	}
}
