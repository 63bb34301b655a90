package sentry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/quiet"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// hostConn is the host connection. It is not in Go's poller, since with that one thread
// waits for it, and wakes another to have what comes acted on: who waits here waits in
// a system call, and is woken by the kernel.
type hostConn struct {
	fd     int
	reader bell  // wakes the guest's goroutine that reads
	caller *bell // wakes a task in an exchange
}

// takeHostConnection takes over the host connection, unless process 1 has it. It must
// be called before the system call filter is there.
func (j *job) takeHostConnection() error {
	if j.InitConn {
		return nil
	}
	j.host = &hostConn{fd: j.descriptors[wire.GuestConn], caller: j.interrupted}
	if err := unix.SetNonblock(j.host.fd, true); err != nil {
		return fmt.Errorf("taking over the host connection: %w", err)
	}
	return errors.Join(j.host.reader.hang(), j.host.caller.hang())
}

// Await implements guest.Host.
func (c *hostConn) Await() (readable bool) { return c.poll(&c.reader) }

// Wake implements guest.Host.
func (c *hostConn) Wake() { c.reader.ring() }

// poll waits until there is something to read, or b rings.
func (c *hostConn) poll(b *bell) (readable bool) {
	fds := [...]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(b.fd), Events: unix.POLLIN}}
	if n, _ := unix.Ppoll(fds[:], nil, nil); n <= 0 {
		return false
	}
	if fds[1].Revents != 0 {
		b.still()
	}
	return fds[0].Revents != 0
}

// Read implements net.Conn.
func (c *hostConn) Read(p []byte) (int, error) {
	for {
		n, errno := quiet.Read(c.fd, p)
		switch {
		case errno == unix.EAGAIN:
			c.await(unix.POLLIN)
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
		n, errno := quiet.Write(c.fd, p[written:])
		switch errno {
		case 0:
			written += n
		case unix.EAGAIN:
			c.await(unix.POLLOUT)
		default:
			return written, os.NewSyscallError("write", errno)
		}
	}
	return written, nil
}

// await waits until the connection can be read or written.
func (c *hostConn) await(events int16) {
	unix.Ppoll([]unix.PollFd{{Fd: int32(c.fd), Events: events}}, nil, nil)
}

// Close implements net.Conn. The connection ends with the process.
func (*hostConn) Close() error { return nil }

// The rest of net.Conn means nothing here.

func (*hostConn) LocalAddr() net.Addr              { return nil }
func (*hostConn) RemoteAddr() net.Addr             { return nil }
func (*hostConn) SetDeadline(time.Time) error      { return nil }
func (*hostConn) SetReadDeadline(time.Time) error  { return nil }
func (*hostConn) SetWriteDeadline(time.Time) error { return nil }
