package host

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

var snapshotReady = proto.AppendFrame(nil, proto.TypeSnapshotReady, proto.SnapshotReady{Unfit: "no"})

func TestRestoreOnTheSameConnection(t *testing.T) {
	c, g := pair(t)
	result := make(chan InitResult, 1)
	go func() {
		r, _ := c.Start(t.Context(), proto.Start{Restorable: true})
		result <- r
	}()
	for begun := false; !begun; time.Sleep(100 * time.Microsecond) {
		c.mu.Lock()
		begun = c.life.begun
		c.mu.Unlock()
	}
	g.Write(frames(hello, snapshotReady))
	if r := <-result; !r.Restorable || r.Unfit != "no" || r.Err != nil {
		t.Errorf("start: %+v", r)
	}
	go func() {
		r, err := c.Restore(t.Context(), proto.Restore{})
		if err != nil {
			t.Error(err)
		}
		result <- r
	}()
	for begun := false; !begun; time.Sleep(100 * time.Microsecond) {
		c.mu.Lock()
		begun = c.life.restored
		c.mu.Unlock()
	}
	g.Write(initDone)
	if r := <-result; r != (InitResult{}) {
		t.Errorf("restore: %+v", r)
	}
}

func TestRestoreOnANewConnection(t *testing.T) {
	for _, greeting := range [][]byte{nil, hello} {
		a, g := net.Pipe()
		c := Resume(a, nolog{})
		t.Cleanup(func() { g.Close(); c.Close() })
		<-c.Ready()
		g.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if len(greeting) > 0 {
			g.Write(greeting)
		}
		if _, err := c.Start(t.Context(), proto.Start{}); err == nil {
			t.Error("started")
		}
		go func() {
			r := proto.NewReader(g)
			if f, err := r.Read(); err != nil || f.Type != proto.TypeRestore {
				t.Error(f, err)
			}
			go io.Copy(io.Discard, g)
			g.Write(proto.AppendFrame(nil, proto.TypeInitDone, proto.InitDone{Subscribed: true}))
		}()
		if r, err := c.Restore(t.Context(), proto.Restore{}); err != nil || r.Err != nil || r.Restorable {
			t.Errorf("%v, %+v", err, r)
		}
		if !c.Wanted() {
			t.Error("no event is wanted, though an extension had subscribed before the snapshot")
		}
	}
}

func TestViolationsAroundASnapshotEndTheConnection(t *testing.T) {
	exit := proto.AppendFrame(nil, proto.TypeRuntimeExit, proto.RuntimeExit{Reason: "x"})
	reason := func(s string) []byte {
		return proto.AppendFrame(nil, proto.TypeSnapshotReady, proto.SnapshotReady{Unfit: s})
	}
	resumed := func(c net.Conn) *Conn { return Resume(c, nolog{}) }
	asked := func(restorable bool) func(net.Conn) *Conn {
		return func(conn net.Conn) *Conn {
			c := New(conn, nolog{})
			go c.Start(t.Context(), proto.Start{Restorable: restorable})
			for begun := false; !begun; time.Sleep(100 * time.Microsecond) {
				c.mu.Lock()
				begun = c.life.begun
				c.mu.Unlock()
			}
			return c
		}
	}
	for name, c := range map[string]struct {
		begin func(net.Conn) *Conn
		in    []byte
	}{
		"not asked for":                {asked(false), snapshotReady},
		"twice":                        {asked(true), frames(snapshotReady, snapshotReady)},
		"after init":                   {asked(true), frames(initDone, snapshotReady)},
		"after exit":                   {asked(true), frames(exit, snapshotReady)},
		"init done before restore":     {asked(true), frames(snapshotReady, initDone)},
		"runtime done before restore":  {asked(true), frames(snapshotReady, proto.AppendFrame(nil, proto.TypeRuntimeDone, proto.InvokeDone{}))},
		"reason too long":              {asked(true), reason(strings.Repeat("x", proto.MaxUnfit+1))},
		"reason not printable":         {asked(true), reason("a\nb")},
		"of a clone":                   {resumed, snapshotReady},
		"init done of a clone":         {resumed, initDone},
		"hello of a clone, twice":      {resumed, frames(hello, hello)},
		"init done without a document": {asked(true), proto.AppendData(nil, proto.TypeInitDone, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			a, g := net.Pipe()
			conn := c.begin(a)
			t.Cleanup(func() { g.Close(); conn.Close() })
			go io.Copy(io.Discard, g)
			go g.Write(c.in)
			select {
			case <-conn.Done():
			case <-time.After(30 * time.Second):
				t.Fatal("the connection still stands")
			}
			if err := conn.Err(); err == nil || err == io.EOF {
				t.Errorf("error %v", err)
			}
		})
	}
}

func FuzzRestoredGuest(f *testing.F) {
	exit := proto.AppendFrame(nil, proto.TypeRuntimeExit, proto.RuntimeExit{Reason: "x"})
	f.Add(frames(hello, snapshotReady, initDone, start, data(3), end, invokeDone), false)
	f.Add(frames(initDone, start, data(3), end, invokeDone), true)
	f.Add(frames(snapshotReady, exit), false)
	f.Add(frames(hello, proto.AppendMeta(nil, proto.TypeInitError, proto.ErrorMeta{ErrorType: "Runtime.AfterRestoreError"}, 0)), true)
	f.Fuzz(func(t *testing.T, in []byte, resume bool) {
		a, b := net.Pipe()
		go io.Copy(io.Discard, b)
		var c *Conn
		done := make(chan struct{})
		if resume {
			c = Resume(a, nolog{})
		} else {
			c = New(a, nolog{})
		}
		go func() {
			defer close(done)
			if !resume {
				if r, err := c.Start(t.Context(), proto.Start{Restorable: true}); err != nil || !r.Restorable {
					return
				} else if !proto.ValidUnfit(r.Unfit) {
					t.Errorf("reason %q", r.Unfit)
				}
			}
			c.Restore(t.Context(), proto.Restore{})
		}()
		b.SetWriteDeadline(time.Now().Add(30 * time.Second))
		b.Write(in)
		b.Close()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatal("it still waits")
		}
		<-c.Done()
	})
}
