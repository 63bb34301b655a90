package sentry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"

	"lapwing.dev/lapwing/internal/quiet"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// hostConn is the host connection. A task in an exchange waits for it in a system call,
// and is woken by the kernel. In Go's poller one thread waits for whatever comes, and
// wakes another to have that acted on; so the connection is in there only while the
// guest's own goroutine waits for it.
type hostConn struct {
	in     int   // a pipe
	out    int   // a socket
	caller *bell // wakes the task in an exchange

	mu     sync.Mutex
	polled *os.File // the connection in Go's poller; nil where it is not
	woken  bool     // Wake has been called
}

// takeHostConnection takes over the host connection, unless process 1 has it. It must
// be called before the system call filter is there.
func (j *job) takeHostConnection() error {
	if j.InitConn {
		return nil
	}
	j.host = &hostConn{in: j.descriptors[j.Inbox], out: j.descriptors[wire.GuestConn], caller: j.interrupted}
	for _, fd := range [...]int{j.host.in, j.host.out} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("taking over the host connection: %w", err)
		}
	}
	return j.host.caller.hang()
}

// Await implements guest.Host.
func (c *hostConn) Await() (readable bool) {
	raw, err := c.begin()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			readable = c.readable()
			return readable
		})
	}
	if err != nil && !errors.Is(err, errWoken) && !errors.Is(err, os.ErrDeadlineExceeded) {
		log.Warningf("Waiting for the host: %v", err)
		await(c.in, unix.POLLIN)
		return true
	}
	return readable
}

var errWoken = errors.New("woken")

// begin puts the connection into Go's poller, unless it has been woken.
func (c *hostConn) begin() (syscall.RawConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.polled == nil {
		fd, err := unix.Dup(c.in)
		if err != nil {
			return nil, err
		}
		c.polled = os.NewFile(uintptr(fd), "host connection")
	}
	if c.woken {
		c.woken = false
		if err := c.polled.SetReadDeadline(time.Time{}); err != nil {
			return nil, err
		}
		return nil, errWoken
	}
	return c.polled.SyscallConn()
}

// Wake implements guest.Host.
func (c *hostConn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = true
	if c.polled != nil {
		c.polled.SetReadDeadline(time.Unix(1, 0))
	}
}

// StandBack implements guest.Host.
func (c *hostConn) StandBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.polled != nil {
		c.polled.Close()
		c.polled = nil
	}
}

// readable tells whether there is something to read.
func (c *hostConn) readable() bool {
	fd, zero := unix.PollFd{Fd: int32(c.in), Events: unix.POLLIN}, unix.Timespec{}
	n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fd)), 1, uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
	return n == 1
}

// poll waits until there is something to read, or the task in an exchange is woken.
func (c *hostConn) poll() (readable bool) {
	fds := [...]unix.PollFd{{Fd: int32(c.in), Events: unix.POLLIN}, {Fd: int32(c.caller.fd), Events: unix.POLLIN}}
	if n, _ := unix.Ppoll(fds[:], nil, nil); n <= 0 {
		return false
	}
	if fds[1].Revents != 0 {
		c.caller.still()
	}
	return fds[0].Revents != 0
}

// Read implements net.Conn.
func (c *hostConn) Read(p []byte) (int, error) {
	for {
		n, errno := quiet.Read(c.in, p)
		switch {
		case errno == unix.EAGAIN:
			await(c.in, unix.POLLIN)
		case errno != 0:
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write implements net.Conn.
func (c *hostConn) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, errno := quiet.Write(c.out, p[written:])
		switch errno {
		case 0:
			written += n
		case unix.EAGAIN:
			await(c.out, unix.POLLOUT)
		default:
			return written, os.NewSyscallError("write", errno)
		}
	}
	return written, nil
}

// await waits until a descriptor can be read or written.
func await(fd int, events int16) {
	unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: events}}, nil, nil)
}

// Close implements net.Conn. The connection ends with the process.
func (*hostConn) Close() error { return nil }

// The rest of net.Conn means nothing here.

func (*hostConn) LocalAddr() net.Addr              { return nil }
func (*hostConn) RemoteAddr() net.Addr             { return nil }
func (*hostConn) SetDeadline(time.Time) error      { return nil }
func (*hostConn) SetReadDeadline(time.Time) error  { return nil }
func (*hostConn) SetWriteDeadline(time.Time) error { return nil }
