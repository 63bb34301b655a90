package sentry

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
	pkgcontext "gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/platform"

	"lapwing.dev/lapwing/internal/quiet"
)

// bell wakes who waits in a system call.
type bell struct {
	fd     int // an eventfd
	asleep atomic.Bool
}

// hang has the bell ring from now on. It must be called before the system call filter
// is there.
func (b *bell) hang() (err error) {
	if b.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("making an eventfd: %w", err)
	}
	return nil
}

// ring wakes who has said to be asleep. What it is to be told of is there before.
func (b *bell) ring() {
	if b.asleep.Load() && b.asleep.CompareAndSwap(true, false) {
		quiet.Write(b.fd, one[:])
	}
}

// still ends the ringing.
func (b *bell) still() {
	var count [8]byte
	quiet.Read(b.fd, count[:])
}

// one is what is added to the counter of an eventfd, in any order of bytes.
var one = [8]byte{1, 1, 1, 1, 1, 1, 1}

// ringing makes platforms on which the interruption of any task rings a bell, since
// gVisor has no other way to be told of one than a channel.
type ringing struct {
	platform.Constructor
	bell *bell
}

// ringFor has platforms of a name ring b.
func ringFor(name string, b *bell) error {
	of, err := platform.Lookup(name)
	if err != nil {
		return err
	}
	platform.Register(name, ringing{of, b})
	return nil
}

// New implements platform.Constructor.
func (r ringing) New(opts platform.Options) (platform.Platform, error) {
	p, err := r.Constructor.New(opts)
	if err != nil {
		return nil, err
	}
	return ringingPlatform{p, r.bell}, nil
}

type ringingPlatform struct {
	platform.Platform
	bell *bell
}

// NewContext implements platform.Platform.
func (p ringingPlatform) NewContext(ctx pkgcontext.Context) platform.Context {
	return ringingContext{p.Platform.NewContext(ctx), p.bell}
}

type ringingContext struct {
	platform.Context
	bell *bell
}

// Interrupt implements platform.Context. The task has been told of it before.
func (c ringingContext) Interrupt() {
	c.Context.Interrupt()
	c.bell.ring()
}
