package loops

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/quiet"
)

const (
	// readSize is the most that a turn reads.
	readSize = 16 << 10
	// restAfter is how long a loop runs without having slept until it rests. The kernel
	// takes a rest for the end of its slice, so it must not come often: after each answer
	// it would halve the rate beside others who compute.
	restAfter = 200 * time.Microsecond
	// wakeSlot marks the event of a loop's own descriptor.
	wakeSlot = -1
)

// loop serves the sockets of its table. All but the orders is its own.
type loop struct {
	limits Limits
	epoll  int
	wake   int // an eventfd: there are orders
	pause  *pause

	mu     sync.Mutex
	orders []order
	ended  bool // it takes no orders, and its descriptors are closed

	sockets []*Socket
	free    []int     // slots of sockets that have none
	now     time.Time // when the present turns began
	sweepAt time.Time // when to look for sockets whose time is over; zero: there are none
	buf     []byte    // what is read
	scratch []byte    // answers
}

// order is what a loop is to do, with a socket unless it is to stop.
type order struct {
	s    *Socket
	what int
}

const (
	start = iota
	drain
	abort
	stop
)

func newLoop(limits Limits) (l *loop, err error) {
	l = &loop{limits: limits, epoll: -1, wake: -1, buf: make([]byte, readSize)}
	defer func() {
		if err != nil {
			l.release()
			err = fmt.Errorf("an event loop: %w", err)
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeSlot}); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	l.pause, err = newPause()
	return l, err
}

// release closes the loop's own descriptors.
func (l *loop) release() {
	unix.Close(l.wake)
	unix.Close(l.epoll)
	if l.pause != nil {
		l.pause.file.Close()
	}
}

// tell gives the loop an order. One that has ended closes what it is to start.
func (l *loop) tell(o order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		if o.what == start {
			o.s.slot = gone
			unix.Close(o.s.fd)
			go o.s.conn.Ended(nil) // whoever tells may hold what that needs
		}
		return
	}
	if l.orders = append(l.orders, o); len(l.orders) == 1 {
		one := binary.NativeEndian.AppendUint64(nil, 1)
		unix.Write(l.wake, one) // fails only where the loop is told already
	}
}

// run serves until the loop is told to stop. It has a thread of its own: what the
// kernel counts, and lets rest, are threads.
func (l *loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var events [128]unix.EpollEvent
	l.now = time.Now()
	for awake := l.now; ; {
		n, slept := l.wait(events[:])
		l.now = time.Now()
		if slept {
			awake = l.now
		}
		told := false
		for i := range events[:n] {
			if e := &events[i]; e.Fd == wakeSlot {
				told = true
			} else if s := l.sockets[e.Fd]; s != nil { // an earlier turn closes no other's socket
				l.turn(s)
			}
		}
		if told && l.obey() {
			return
		}
		if !l.sweepAt.IsZero() && l.now.After(l.sweepAt) {
			l.sweep()
		}
		if !slept && l.now.Sub(awake) > restAfter {
			l.pause.rest()
			awake = time.Now()
		}
	}
}

// wait waits for events, and tells whether it has slept for them. Go's scheduler is
// told only of that.
func (l *loop) wait(events []unix.EpollEvent) (n int, slept bool) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno == 0 && r > 0 {
		return int(r), false
	}
	timeout := -1
	if !l.sweepAt.IsZero() {
		timeout = int(max(time.Until(l.sweepAt), 0)/time.Millisecond) + 1
	}
	n, err := unix.EpollWait(l.epoll, events, timeout)
	if err != nil { // a signal
		return 0, true
	}
	return n, true
}

// turn serves a socket on which something has come, or which takes more.
func (l *loop) turn(s *Socket) {
	if s.Full() {
		l.resume(s)
		return
	}
	n, errno := quiet.Read(s.fd, l.buf)
	switch {
	case errno == unix.EAGAIN:
		return
	case errno != 0 || n == 0: // the client has ended it
		l.close(s, nil)
		return
	}
	s.Scratch = l.scratch
	used, then := s.conn.Serve(s, l.buf[:n])
	l.scratch, s.Scratch = s.Scratch[:0], nil
	s.since = l.now
	switch {
	case then == Leave || then == Stay && used < n:
		l.leave(s, l.buf[used:n])
	case then == End && !s.Full():
		l.close(s, nil)
	case s.Full():
		s.end = then == End
		l.watch(unix.EPOLL_CTL_MOD, s, unix.EPOLLOUT)
		l.within(l.limits.Write)
	}
}

// resume sends more of what the client did not take at once.
func (l *loop) resume(s *Socket) {
	err := s.send()
	switch {
	case err != nil || !s.Full() && s.end: // the client has ended it, or has got all
		l.close(s, nil)
	case !s.Full():
		s.unsent = [2][]byte{}
		l.watch(unix.EPOLL_CTL_MOD, s, unix.EPOLLIN)
		l.within(l.limits.Idle)
	}
}

// watch changes for what the loop waits on a socket.
func (l *loop) watch(how int, s *Socket, events uint32) {
	err := unix.EpollCtl(l.epoll, how, s.fd, &unix.EpollEvent{Events: events, Fd: int32(s.slot)})
	if err != nil { // no memory: it would never be served again
		l.close(s, os.NewSyscallError("epoll_ctl", err))
	}
}

// close ends a socket; err says why, unless it was for its client or for somebody else
// to end it.
func (l *loop) close(s *Socket, err error) {
	l.remove(s)
	unix.Close(s.fd)
	s.conn.Ended(err)
}

// remove takes a socket out of the table.
func (l *loop) remove(s *Socket) {
	if s.slot >= 0 {
		l.sockets[s.slot] = nil
		l.free = append(l.free, s.slot)
	}
	s.slot = gone
}

// leave gives a socket to a goroutine. Nothing of it stays in the loop: its events
// must not go on behind the descriptor that the connection gets.
func (l *loop) leave(s *Socket, read []byte) {
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil); err != nil {
		l.close(s, os.NewSyscallError("epoll_ctl", err))
		return
	}
	l.remove(s)
	read, unsent := bytes.Clone(read), s.unsent
	s.unsent = [2][]byte{}
	go func() { // ends with the connection, whose owner ends it
		nc, err := connOf(s.fd)
		if err != nil { // too many open files
			s.conn.Ended(err)
			return
		}
		s.conn.Leave(nc, read, unsent)
	}()
}

// obey does what the loop has been told, and tells whether that was to stop. It comes
// after the turns, so that no event is of a socket that had its slot before.
func (l *loop) obey() (stopped bool) {
	var count [8]byte
	l.mu.Lock()
	quiet.Read(l.wake, count[:])
	orders := l.orders
	l.orders = nil
	for _, o := range orders {
		stopped = stopped || o.what == stop
	}
	if stopped {
		l.ended = true
		l.release()
	}
	l.mu.Unlock()
	for _, o := range orders {
		switch s := o.s; {
		case o.what == stop || s.slot == gone:
		case o.what == start && !stopped && !s.end:
			l.start(s)
		case o.what == start, s.slot >= 0 && (o.what == abort || !s.Full()):
			l.close(s, nil)
		default: // when it has started, or all is sent
			s.end = true
		}
	}
	if stopped {
		for _, s := range l.sockets {
			if s != nil {
				l.close(s, nil)
			}
		}
	}
	return stopped
}

// start takes a socket into the table. What has come already is an event, too.
func (l *loop) start(s *Socket) {
	if n := len(l.free); n > 0 {
		s.slot = l.free[n-1]
		l.free = l.free[:n-1]
		l.sockets[s.slot] = s
	} else {
		s.slot = len(l.sockets)
		l.sockets = append(l.sockets, s)
	}
	s.since = l.now
	l.watch(unix.EPOLL_CTL_ADD, s, unix.EPOLLIN)
	l.within(l.limit(s))
}

// limit is how long a socket may do nothing.
func (l *loop) limit(s *Socket) time.Duration {
	if s.Full() {
		return l.limits.Write
	}
	return l.limits.Idle
}

// within has the loop look at its sockets when that time is over. A time that is
// looked at is up to a sixteenth late: not each socket's end needs a look at all.
func (l *loop) within(d time.Duration) {
	if at := l.now.Add(d + d/16); l.sweepAt.IsZero() || at.Before(l.sweepAt) {
		l.sweepAt = at
	}
}

// sweep closes the sockets whose time is over.
func (l *loop) sweep() {
	l.sweepAt = time.Time{}
	for _, s := range l.sockets {
		if s == nil {
			continue
		}
		limit := l.limit(s)
		if left := limit - l.now.Sub(s.since); left <= 0 {
			l.close(s, nil)
		} else {
			at := l.now.Add(left + limit/16)
			if l.sweepAt.IsZero() || at.Before(l.sweepAt) {
				l.sweepAt = at
			}
		}
	}
}
