package host

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

var resetDone = proto.AppendData(nil, proto.TypeResetDone, 0)

// under is a ResponseWriter that tells when the response is under way.
type under struct {
	discard
	way chan struct{}
}

func (u *under) Start(proto.ResponseStart) { close(u.way) }

func TestNothingOfTheOldRuntimeCountsAfterAReset(t *testing.T) {
	c, g := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	go c.Start(ctx, proto.Start{})
	if _, err := g.Write(frames(hello, initDone)); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error)
	w := &under{way: make(chan struct{})}
	go func() {
		_, err := invoke(ctx, c, proto.Invocation{RequestID: id}, w)
		gone <- err
	}()
	for busy := false; !busy; time.Sleep(100 * time.Microsecond) {
		c.mu.Lock()
		busy = c.life.inv != nil
		c.mu.Unlock()
	}
	if _, err := g.Write(start); err != nil {
		t.Fatal(err)
	}
	<-w.way
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- c.Reset(t.Context(), proto.ReasonTimeout) }()
	for resetting := false; !resetting; time.Sleep(100 * time.Microsecond) {
		c.mu.Lock()
		resetting = c.reset != nil
		c.mu.Unlock()
	}
	exit := proto.AppendFrame(nil, proto.TypeRuntimeExit, proto.RuntimeExit{RequestID: id})
	if _, err := g.Write(frames(data(10), end, exit, exit, resetDone)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c.Exited() != nil {
		t.Error("the new runtime has exited")
	}
	started := make(chan InitResult)
	go func() {
		res, _ := c.Start(t.Context(), proto.Start{})
		started <- res
	}()
	if _, err := g.Write(initDone); err != nil {
		t.Fatal(err)
	}
	if res := <-started; res.Err != nil {
		t.Error(res.Err)
	}
}

// cancelling is a connection whose writes end together with their context.
type cancelling struct {
	net.Conn
	cancel context.CancelFunc
	seen   chan struct{} // a deadline was set
}

func (c *cancelling) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.cancel != nil {
		c.cancel()
		<-c.seen
		c.cancel = nil
	}
	return n, err
}

func (c *cancelling) SetWriteDeadline(t time.Time) error {
	err := c.Conn.SetWriteDeadline(t)
	if c.cancel != nil {
		close(c.seen)
	}
	return err
}

func TestContextThatEndsWithAWriteLeavesTheConnectionWhole(t *testing.T) {
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	c := New(&cancelling{Conn: a, cancel: cancel, seen: make(chan struct{})}, nolog{})
	t.Cleanup(func() { b.Close(); c.Close() })
	r := proto.NewReader(b)
	types := make(chan proto.Type, 2)
	go func() {
		for {
			f, err := r.Read()
			if err != nil {
				return
			}
			types <- f.Type
			if f.Type == proto.TypeReset {
				b.Write(resetDone)
			}
		}
	}()
	if _, err := c.Start(ctx, proto.Start{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := c.Reset(t.Context(), proto.ReasonTimeout); err != nil {
		t.Fatal(err)
	}
	if first, second := <-types, <-types; first != proto.TypeStart || second != proto.TypeReset {
		t.Errorf("got frames %d, %d", first, second)
	}
}
