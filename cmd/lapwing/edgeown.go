package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ownListener is of connections that this process makes to itself: pairs of
// sockets, which have no name that could be too long or that others could find.
// They come from loopback.
type ownListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newOwnListener() *ownListener {
	return &ownListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// dial makes a connection, as soon as somebody accepts it.
func (l *ownListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- ownConn{theirs}:
		return ours, nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = ours.Close(), theirs.Close() // nobody has used them
	return nil, err
}

// Accept implements net.Listener.
func (l *ownListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *ownListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *ownListener) Addr() net.Addr { return ownAddr() }

type ownConn struct{ net.Conn }

// RemoteAddr implements net.Conn.
func (ownConn) RemoteAddr() net.Addr { return ownAddr() }

func ownAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// socketPair returns the two ends of a connection.
func socketPair() (_, _ net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var conns [2]net.Conn
	var errs [2]error
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "origin")
		conns[i], errs[i] = net.FileConn(f) // on a descriptor of its own
		_ = f.Close()
	}
	if err := errors.Join(errs[:]...); err != nil {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return conns[0], conns[1], nil
}
