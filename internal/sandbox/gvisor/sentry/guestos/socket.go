package guestos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/ktime"
	"gvisor.dev/gvisor/pkg/sentry/socket"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections wait to be accepted.
const backlog = 128

// address is an address of a socket, as it was given.
type address struct{ network, name string }

// Network implements net.Addr.
func (a address) Network() string { return a.network }

// String implements net.Addr.
func (a address) String() string { return a.name }

// encode returns the address family and the address as bind and connect take it.
func (a address) encode() (family int, sockaddr []byte, err error) {
	if a.network == "unix" {
		name := []byte(a.name)
		name[0] = 0 // abstract
		return linux.AF_UNIX, append(binary.NativeEndian.AppendUint16(nil, linux.AF_UNIX), name...), nil
	}
	ap, err := netip.ParseAddrPort(a.name)
	if err != nil || !ap.Addr().Is4() {
		return 0, nil, fmt.Errorf("guestos: address %s %s: %w", a.network, a.name, syscall.EAFNOSUPPORT)
	}
	b := binary.NativeEndian.AppendUint16(nil, linux.AF_INET)
	b = binary.BigEndian.AppendUint16(b, ap.Port())
	return linux.AF_INET, append(append(b, ap.Addr().AsSlice()...), make([]byte, 8)...), nil
}

// sock is a socket of process 1. Its methods do not wait, so mu may be held over
// each: what is closed is used no more.
type sock struct {
	*file
	addr   address
	closed chan struct{}

	mu sync.Mutex
}

func newSock(f *file, addr address) *sock {
	return &sock{file: f, addr: addr, closed: make(chan struct{})}
}

// impl returns what there is of a socket beside its being a file.
func (s *sock) impl() socket.Socket { return s.file.Impl().(socket.Socket) }

// newSocket makes a socket and, where it is one of TCP, sets a switch of it.
func (s *System) newSocket(addr address, family, level, option int) (*sock, error) {
	fd, err := socket.New(s.init, family, linux.SOCK_STREAM, 0)
	if err != nil {
		return nil, sysErrno(err)
	}
	f, ferr := s.own(fd)
	if ferr != nil {
		return nil, ferr
	}
	so := newSock(f, addr)
	if family == linux.AF_INET {
		if err := so.set(level, option); err != nil {
			so.Close()
			return nil, err
		}
	}
	return so, nil
}

// set turns a switch of the socket on.
func (s *sock) set(level, option int) error {
	return sysErrno(s.impl().SetSockOpt(s.sys.init, level, option, binary.NativeEndian.AppendUint32(nil, 1)))
}

// try calls f, which must not wait, unless the socket is closed.
func (s *sock) try(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return net.ErrClosed
	case <-s.sys.parked:
		return errParked
	default:
		return f()
	}
}

// Close closes the socket.
func (s *sock) Close() error {
	return s.try(func() error {
		close(s.closed)
		return s.file.Close()
	})
}

// wait calls f until it returns anything but syscall.EAGAIN: first at once, and
// then after each of the events. It does not return where the System is parked.
func (s *sock) wait(events waiter.EventMask, d *deadline, f func() error) error {
	err := s.try(f)
	if err == syscall.EAGAIN {
		err = s.await(events, d, f)
	}
	if err == errParked {
		if events == waiter.ReadableEvents {
			s.rest()
		}
		select {}
	}
	return err
}

func (s *sock) await(events waiter.EventMask, d *deadline, f func() error) error {
	entry, ready := waiter.NewChannelEntry(events | waiter.EventHUp | waiter.EventErr)
	if err := s.try(func() error { return errno(s.EventRegister(&entry)) }); err != nil {
		return err
	}
	defer s.leave(&entry)
	for {
		if err := s.try(f); err != syscall.EAGAIN {
			return err
		}
		select {
		case <-ready:
		case <-s.closed:
		case <-s.sys.parked:
		case <-d.passed():
			return os.ErrDeadlineExceeded
		}
	}
}

// leave undoes EventRegister, unless closing the socket has.
func (s *sock) leave(entry *waiter.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		s.EventUnregister(entry)
	}
}

// errParked tells that Park was called.
var errParked = errors.New("guestos: parked")

// failure wraps an error as package net does.
func (s *sock) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: s.addr.network, Addr: s.addr, Err: err}
}

// listener implements net.Listener.
type listener struct{ *sock }

// Listen implements system.System.
func (s *System) Listen(network, name string) (net.Listener, error) {
	addr := address{network, name}
	family, sockaddr, err := addr.encode()
	if err != nil {
		return nil, err
	}
	// So that connections of an earlier listener are not in the way.
	so, err := s.newSocket(addr, family, linux.SOL_SOCKET, linux.SO_REUSEADDR)
	if err != nil {
		return nil, fmt.Errorf("guestos: listening on %s %s: %w", network, name, err)
	}
	l := listener{so}
	if err := l.impl().Bind(s.init, sockaddr); err != nil {
		l.Close()
		return nil, l.failure("bind", sysErrno(err))
	}
	if err := l.impl().Listen(s.init, backlog); err != nil {
		l.Close()
		return nil, l.failure("listen", sysErrno(err))
	}
	return l, nil
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	var c *conn
	err := l.wait(waiter.ReadableEvents, nil, func() error {
		n, _, _, err := l.impl().Accept(l.sys.init, false, linux.SOCK_CLOEXEC, false)
		if err != nil {
			return sysErrno(err)
		}
		fd, _ := l.sys.init.FDTable().Get(n)
		c = &conn{sock: newSock(&file{sys: l.sys, fd: n, FileDescription: fd}, l.addr)}
		return nil
	})
	if err == nil && l.addr.network == "tcp" {
		if err = c.set(linux.SOL_TCP, linux.TCP_NODELAY); err != nil {
			c.Close()
		}
	}
	if err != nil {
		return nil, l.failure("accept", err)
	}
	return c, nil
}

// Addr implements net.Listener.
func (l listener) Addr() net.Addr { return l.addr }

// conn implements net.Conn.
type conn struct {
	*sock
	reads, writes deadline
}

// Dial implements system.System.
func (s *System) Dial(ctx context.Context, name string) (net.Conn, error) {
	addr := address{"tcp", name}
	family, sockaddr, err := addr.encode()
	if err != nil {
		return nil, err
	}
	so, err := s.newSocket(addr, family, linux.SOL_TCP, linux.TCP_NODELAY)
	if err != nil {
		return nil, fmt.Errorf("guestos: dialing %s: %w", name, err)
	}
	c := &conn{sock: so}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err = c.wait(waiter.WritableEvents, &c.writes, func() error {
		switch err := sysErrno(c.impl().Connect(s.init, sockaddr, false)); err {
		case syscall.EINPROGRESS, syscall.EALREADY:
			return syscall.EAGAIN
		case syscall.EISCONN:
			return nil
		default:
			return err
		}
	})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, c.failure("dial", err)
	}
	return c, nil
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	err = c.wait(waiter.ReadableEvents, &c.reads, func() (err error) {
		n, err = c.tryRead(p)
		return err
	})
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	err = c.wait(waiter.WritableEvents, &c.writes, func() error {
		m, err := c.file.Write(c.sys.ctx, usermem.BytesIOSequence(p[n:]), vfs.WriteOptions{})
		n += int(m)
		switch {
		case n == len(p):
			return nil
		case err == nil || linuxerr.Equals(linuxerr.ErrWouldBlock, err):
			return syscall.EAGAIN
		}
		return errno(err)
	})
	return n, err
}

// CloseWrite shuts the writing side down.
func (c *conn) CloseWrite() error {
	return c.try(func() error { return sysErrno(c.impl().Shutdown(c.sys.init, linux.SHUT_WR)) })
}

// Gone tells whether the other end has closed the connection, and all that it
// had sent has been read.
func (c *conn) Gone() bool {
	err := c.try(func() error {
		var b [1]byte
		n, _, _, _, control, err := c.impl().RecvMsg(c.sys.init, usermem.BytesIOSequence(b[:]),
			linux.MSG_PEEK|linux.MSG_DONTWAIT, false, ktime.Time{}, false, 0)
		control.Release(c.sys.ctx)
		if err == nil && n == 0 {
			return net.ErrClosed
		}
		return sysErrno(err)
	})
	return err != nil && err != syscall.EAGAIN
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.addr }

// RemoteAddr implements net.Conn. Nobody asks who it is.
func (c *conn) RemoteAddr() net.Addr { return c.addr }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.reads.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writes.set(t)
	return nil
}
