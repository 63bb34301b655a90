package sentry

import (
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/waiter"

	"lapwing.dev/lapwing/internal/guest"
)

// A system call costs a guest two switches between processes, and a bootstrap that
// speaks to the Runtime API over a socket makes three or four an invocation. Our
// own make one: pread, or preadv with one buffer, of guest.ExchangeFile, with requests in the buffer and their
// length in place of the offset, returns the answers in the buffer. An event that
// has no room in it is EMSGSIZE, and can be asked for again.
//
// An event loop does not turn meanwhile. So the call returns, without an answer to
// a request for the next event, when an epoll instance of the process has
// something to tell, or a signal comes.

// maxExchange is the largest buffer of an exchange.
const maxExchange = 1 << 20

// serveExchanges adds the exchange to the guest's system calls. It must be called
// before the guest runs.
func (j *job) serveExchanges() {
	table := syscallTable()
	for number, call := range table.Table {
		var buffer func(*kernel.Task, arch.SyscallArguments) (hostarch.Addr, uint, error)
		switch call.Name {
		case "pread64":
			buffer = func(_ *kernel.Task, args arch.SyscallArguments) (hostarch.Addr, uint, error) {
				return args[1].Pointer(), args[2].SizeT(), nil
			}
		case "preadv", "preadv2":
			buffer = onlyBuffer
		default:
			continue
		}
		read := call.Fn
		call.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
			if args[0].Int() != guest.ExchangeFile || j.guest == nil {
				return read(t, sysno, args)
			}
			addr, size, err := buffer(t, args)
			if err != nil {
				return 0, nil, err
			}
			n, err := exchange(t, j.guest, addr, size, args[3].Int64())
			return n, nil, err
		}
		table.Table[number] = call
	}
	table.Init()
}

// onlyBuffer returns the one buffer that preadv and preadv2 are given.
func onlyBuffer(t *kernel.Task, args arch.SyscallArguments) (hostarch.Addr, uint, error) {
	if args[2].Int() != 1 {
		return 0, 0, linuxerr.EINVAL
	}
	var vector [16]byte // struct iovec
	if _, err := t.CopyInBytes(args[1].Pointer(), vector[:]); err != nil {
		return 0, 0, err
	}
	return hostarch.Addr(hostarch.ByteOrder.Uint64(vector[:])), uint(hostarch.ByteOrder.Uint64(vector[8:])), nil
}

// exchange hands the requests at the start of a buffer of the guest to the
// Runtime API, and leaves the answers there.
func exchange(t *kernel.Task, g *guest.Supervisor, buffer hostarch.Addr, size uint, length int64) (uintptr, error) {
	if size > maxExchange || length <= 0 || length > int64(size) {
		return 0, linuxerr.EINVAL
	}
	m := messages.Get().(*message)
	defer m.release()
	m.requests = slices.Grow(m.requests[:0], int(length))[:length]
	if _, err := t.CopyInBytes(buffer, m.requests); err != nil {
		return 0, err
	}
	m.answers = g.Exchange(m.answers[:0], m.requests, func(ready chan struct{}) bool { return wait(t, ready) })
	if uint(len(m.answers)) > size {
		return 0, linuxerr.EMSGSIZE
	}
	n, err := t.CopyOutBytes(buffer, m.answers)
	return uintptr(n), err
}

// message is memory for an exchange.
type message struct{ requests, answers []byte }

// messages keeps it for the next one: Go's collector runs the less often, which
// takes all processors when it does.
var messages = sync.Pool{New: func() any { return new(message) }}

// keepMessage is the largest one that is kept.
const keepMessage = 64 << 10

func (m *message) release() {
	if cap(m.requests)+cap(m.answers) <= keepMessage {
		messages.Put(m)
	}
}

// wait waits until something is sent on ready. It returns false where the process
// has something else to do, be it as well.
func wait(t *kernel.Task, ready chan struct{}) bool {
	loops := eventLoops(t)
	for _, l := range loops {
		defer l.leave(t)
	}
	busy := func() bool {
		return slices.ContainsFunc(loops, func(l *eventLoop) bool { return !l.watch(ready) || l.file.Readiness(waiter.ReadableEvents) != 0 })
	}
	return !busy() && t.Block(ready) == nil && !busy()
}

// eventLoop is an epoll instance of a process.
type eventLoop struct {
	file    *vfs.FileDescription
	entry   waiter.Entry
	watched bool
}

// eventLoops returns those of the process of t.
func eventLoops(t *kernel.Task) (loops []*eventLoop) {
	t.FDTable().ForEach(t, func(_ int32, file *vfs.FileDescription, _ kernel.FDFlags) bool {
		if _, ok := file.Impl().(*vfs.EpollInstance); ok {
			file.IncRef()
			loops = append(loops, &eventLoop{file: file})
		}
		return true
	})
	return loops
}

// watch has something sent on ready when the loop has something to do.
func (l *eventLoop) watch(ready chan struct{}) bool {
	if !l.watched {
		l.entry.Init(waiter.ChannelNotifier(ready), waiter.ReadableEvents)
		l.watched = l.file.EventRegister(&l.entry) == nil
	}
	return l.watched
}

// leave ends the watch.
func (l *eventLoop) leave(t *kernel.Task) {
	if l.watched {
		l.file.EventUnregister(&l.entry)
	}
	l.file.DecRef(t)
}
