package conns

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestConnectionsBeyondTheLimitWaitInTheKernel(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(inner, 1)
	accepted := make(chan net.Conn)
	failed := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			accepted <- c
		}
	}()
	for range 2 { // both are connected, as far as they know
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("two connections at once")
	case <-time.After(50 * time.Millisecond):
	}
	if raw, err := first.(syscall.Conn).SyscallConn(); err != nil || raw == nil {
		t.Error("it is no socket any more:", err)
	}
	if err := first.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	first.Close()
	first.Close() // counts once
	second := <-accepted
	l.Close() // while Accept waits for room
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	second.Close()
}
