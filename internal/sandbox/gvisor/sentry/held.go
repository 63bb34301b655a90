package sentry

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// hold tells that a clone is loaded, and waits until the host has something to say to
// its guest. Until then it is like any clone whose processes have not been started:
// what it has that differs from others, such as its clock, it gets when it goes on.
func (j *job) hold() error {
	j.report(wire.Report{Steps: j.steps, Copied: int64(j.copied)})
	runtime.GC() // of what the loading has left, which would be due just when it goes on
	return awaitInput(j.descriptors[j.Inbox])
}

// awaitInput waits until something can be read. That the other end is gone is an
// error: what is held has nobody to be, and none of its timers is to go off.
func awaitInput(fd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		switch _, err := unix.Ppoll(fds, nil, nil); {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("waiting for the host: %w", err)
		case fds[0].Revents&^unix.POLLIN != 0:
			return errors.New("the host is gone")
		default:
			return nil
		}
	}
}
