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
// It waits for the host connection itself, so that one thread of the host, which runs
// the guest's thread, sends a response, is woken by the next event, and hands it over.
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
			n, err := exchange(t, j.guest, j.host, addr, size, args[3].Int64())
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
func exchange(t *kernel.Task, g *guest.Supervisor, host *hostConn, buffer hostarch.Addr, size uint, length int64) (uintptr, error) {
	if size > maxExchange || length <= 0 || length > int64(size) {
		return 0, linuxerr.EINVAL
	}
	m := messages.Get().(*message)
	defer m.release()
	m.requests = slices.Grow(m.requests[:0], int(length))[:length]
	if _, err := t.CopyInBytes(buffer, m.requests); err != nil {
		return 0, err
	}
	c := &caller{task: t, host: host}
	defer c.leave()
	m.answers = g.Exchange(m.answers[:0], m.requests, c)
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

// caller is a task in an exchange.
type caller struct {
	task  *kernel.Task
	host  *hostConn
	ready chan struct{} // what it waits for, once it has begun to
	loops []*eventLoop  // of its process, from then on
}

// Await implements guest.Caller.
func (c *caller) Await(ready chan struct{}, host bool) (readable, ok bool) {
	c.watch(ready)
	if !host {
		return false, !c.busy() && c.task.Block(ready) == nil && !c.busy()
	}
	select {
	case <-ready:
		return false, !c.busy()
	default:
		return c.sleep()
	}
}

// Wake implements guest.Caller.
func (c *caller) Wake() { c.host.caller.ring() }

// NotifyEvent implements waiter.EventListener: an event loop has something to do.
func (c *caller) NotifyEvent(waiter.EventMask) {
	select {
	case c.ready <- struct{}{}:
	default:
	}
	c.Wake()
}

// sleep is Await where the host connection can be read. gVisor takes the sleep for one
// that cannot be interrupted, which only shows in the state of the process: it knows of
// no other that does not end by a channel.
func (c *caller) sleep() (readable, ok bool) {
	c.task.UninterruptibleSleepStart()
	defer c.task.UninterruptibleSleepFinish()
	b := c.host.caller
	defer b.asleep.Store(false)
	for {
		b.asleep.Store(true) // what comes from here on rings
		if c.busy() {
			return false, false
		}
		select {
		case <-c.ready:
			return false, true
		default:
		}
		if c.host.poll() {
			return true, true
		}
	}
}

// busy tells whether the caller has something else to do than to wait.
func (c *caller) busy() bool {
	return c.task.Interrupted() || slices.ContainsFunc(c.loops, (*eventLoop).busy)
}

// watch has something sent on ready when there is something to do for an event loop.
func (c *caller) watch(ready chan struct{}) {
	if c.ready != nil {
		return
	}
	c.ready = ready
	c.loops = eventLoops(c.task)
	for _, l := range c.loops {
		l.entry.Init(c, waiter.ReadableEvents)
		l.watched = l.file.EventRegister(&l.entry) == nil
	}
}

// leave ends the watch.
func (c *caller) leave() {
	for _, l := range c.loops {
		if l.watched {
			l.file.EventUnregister(&l.entry)
		}
		l.file.DecRef(c.task)
	}
}

// eventLoop is an epoll instance of a process.
type eventLoop struct {
	file    *vfs.FileDescription
	entry   waiter.Entry
	watched bool
}

// busy tells whether it has something to do, or cannot be watched.
func (l *eventLoop) busy() bool { return !l.watched || l.file.Readiness(waiter.ReadableEvents) != 0 }

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
