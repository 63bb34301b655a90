package guestos

import (
	"fmt"
	"net"
	"syscall"

	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"lapwing.dev/lapwing/internal/guest/system"
)

// A snapshot has what is open as files of process 1, and knows nothing of the
// goroutines here, or of the entries that they have in waiter queues, which could
// not be saved. So Park has them leave the queues and wait for the end of the
// process, and the references that are held here are given up.

// Park implements system.Keeper.
func (s *System) Park() { close(s.parked) }

// rest waits for the end of the process.
func (f *file) rest() {
	f.resting.Store(true)
	select {}
}

// Resting implements system.Kept.
func (f *file) Resting() bool { return f.resting.Load() }

// Keep implements system.Kept.
func (f *file) Keep() int {
	f.DecRef(f.sys.ctx)
	return int(f.fd)
}

// adopt returns a file of process 1.
func (s *System) adopt(handle int) (*file, error) {
	fd, _ := s.init.FDTable().Get(int32(handle))
	if fd == nil {
		return nil, fmt.Errorf("guestos: file %d: %w", handle, syscall.EBADF)
	}
	return &file{sys: s, fd: int32(handle), FileDescription: fd}, nil
}

// Listener implements system.Keeper.
func (s *System) Listener(handle int, network, name string) (net.Listener, error) {
	f, err := s.adopt(handle)
	if err != nil {
		return nil, err
	}
	return listener{newSock(f, address{network, name})}, nil
}

// Conn implements system.Keeper.
func (s *System) Conn(handle int) (net.Conn, error) {
	f, err := s.adopt(handle)
	if err != nil {
		return nil, err
	}
	return &conn{sock: newSock(f, address{})}, nil
}

// OpenPipe implements system.Keeper.
func (s *System) OpenPipe(handle int) (system.Pipe, error) {
	f, err := s.adopt(handle)
	if err != nil {
		return nil, err
	}
	return &pipe{f}, nil
}

// Process implements system.Keeper.
func (s *System) Process(handle int, exited func(syscall.WaitStatus)) (system.Process, error) {
	tg := s.kernel.RootPIDNamespace().ThreadGroupWithID(kernel.ThreadID(handle))
	if tg == nil {
		return nil, fmt.Errorf("guestos: process %d: %w", handle, syscall.ESRCH)
	}
	return s.watch(tg, exited), nil
}

// Resting implements system.Kept.
func (p *process) Resting() bool { return true }

// Keep implements system.Kept.
func (p *process) Keep() int { return int(p.group) }
