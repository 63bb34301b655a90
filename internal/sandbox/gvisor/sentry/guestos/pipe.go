package guestos

import (
	"io"
	"math"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/pipefs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"
	"gvisor.dev/gvisor/pkg/waiter"

	"lapwing.dev/lapwing/internal/guest/system"
)

// Pipe implements system.System.
func (s *System) Pipe() (system.Pipe, io.Closer, error) {
	r, w, err := pipefs.NewConnectedPipeFDs(s.ctx, s.kernel.PipeMount(), 0)
	if err != nil {
		return nil, nil, errno(err)
	}
	reader, err := s.own(r)
	if err != nil {
		w.DecRef(s.ctx)
		return nil, nil, err
	}
	return &pipe{reader}, &writer{s, w}, nil
}

// file is a file of process 1.
type file struct {
	sys     *System
	fd      int32
	resting atomic.Bool
	*vfs.FileDescription
}

// own makes fd, whose reference it takes over, a file of process 1.
func (s *System) own(fd *vfs.FileDescription) (*file, error) {
	n, err := s.init.NewFDFrom(0, fd, kernel.FDFlags{CloseOnExec: true})
	if err != nil {
		fd.DecRef(s.ctx)
		return nil, errno(err)
	}
	return &file{sys: s, fd: n, FileDescription: fd}, nil
}

// Close closes the file.
func (f *file) Close() error {
	if table := f.sys.init.FDTable().Remove(f.sys.ctx, f.fd); table != nil {
		table.DecRef(f.sys.ctx)
	}
	f.DecRef(f.sys.ctx)
	return nil
}

// tryRead reads without waiting: syscall.EAGAIN tells that there is nothing now.
func (f *file) tryRead(p []byte) (int, error) {
	n, err := f.Read(f.sys.ctx, usermem.BytesIOSequence(p), vfs.ReadOptions{})
	switch {
	case n > 0:
		return int(n), nil
	case linuxerr.Equals(linuxerr.ErrWouldBlock, err):
		return 0, syscall.EAGAIN
	case err == nil:
		return 0, io.EOF
	}
	return 0, errno(err)
}

// pipe implements system.Pipe.
type pipe struct{ *file }

// Await implements system.Pipe.
func (p *pipe) Await(f func() bool) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	if err := p.EventRegister(&entry); err != nil {
		return errno(err)
	}
	for !f() {
		select {
		case <-ready:
		case <-p.sys.parked:
			p.EventUnregister(&entry)
			p.rest()
		}
	}
	p.EventUnregister(&entry)
	return nil
}

// TryRead implements system.Pipe.
func (p *pipe) TryRead(b []byte) (int, error) { return p.tryRead(b) }

// Waiting implements system.Pipe.
func (p *pipe) Waiting() int {
	if p.Readiness(waiter.EventIn) == 0 {
		return 0 // as a rule
	}
	var n [4]byte
	args := arch.SyscallArguments{1: {Value: linux.FIONREAD}}
	if _, err := p.Ioctl(p.sys.ctx, &usermem.BytesIO{Bytes: n[:]}, 0, args); err != nil {
		return 0
	}
	return int(min(hostarch.ByteOrder.Uint32(n[:]), math.MaxInt32))
}

// writer is the writing end of a pipe.
type writer struct {
	sys  *System
	file *vfs.FileDescription
}

// Close implements io.Closer.
func (w *writer) Close() error {
	w.file.DecRef(w.sys.ctx)
	return nil
}
