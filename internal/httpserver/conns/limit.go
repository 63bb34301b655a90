package conns

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// Limit returns a listener of l's connections that has at most n of them at once;
// more wait in the kernel. They stay sockets, of which one direction can be ended and
// the descriptor be had.
func Limit(l net.Listener, n int) net.Listener {
	return &limit{Listener: l, taken: make(chan struct{}, n), ended: make(chan struct{})}
}

type limit struct {
	net.Listener
	taken chan struct{} // a value for each connection
	ended chan struct{}
	once  sync.Once
}

// Accept implements net.Listener.
func (l *limit) Accept() (net.Conn, error) {
	select {
	case l.taken <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.taken
		return nil, err
	}
	return &limited{Conn: c, limit: l}, nil
}

// Close implements net.Listener.
func (l *limit) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// limited is a connection that counts until it is closed.
type limited struct {
	net.Conn
	limit *limit
	once  sync.Once
}

// Close implements net.Conn.
func (c *limited) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.limit.taken })
	return err
}

// CloseWrite ends the sending direction, where the connection can.
func (c *limited) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn implements syscall.Conn.
func (c *limited) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
