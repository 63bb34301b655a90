package host

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// unread returns a Conn and the guest's end, of which the test reads frames.
func unread(t *testing.T) (*Conn, net.Conn, *proto.Reader) {
	t.Helper()
	a, b := net.Pipe()
	c := New(a, nolog{})
	t.Cleanup(func() { b.Close(); c.Close() })
	b.SetDeadline(time.Now().Add(30 * time.Second))
	return c, b, proto.NewReader(b)
}

func next(t *testing.T, r *proto.Reader, want proto.Type) proto.Frame {
	t.Helper()
	f, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if f.Type != want {
		t.Fatalf("frame type %d, want %d", f.Type, want)
	}
	return f
}

func TestEventsPrecedeWhatIsSentAfterThem(t *testing.T) {
	c, _, r := unread(t)
	c.Event(time.UnixMicro(7), "platform.initStart", []byte(`{"a":1}`))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Start(ctx, proto.Start{})
	}()
	var e proto.Event
	body, err := next(t, r, proto.TypeEvent).Split(&e)
	if err != nil || string(body) != `{"a":1}` || e != (proto.Event{TimeUs: 7, Type: "platform.initStart"}) {
		t.Errorf("got %+v %s %v", e, body, err)
	}
	next(t, r, proto.TypeStart)
	cancel()
	<-done
}

func TestEventsGoAloneWhereNothingFollows(t *testing.T) {
	c, _, r := unread(t)
	for range 3 {
		c.Event(time.Now(), "platform.report", []byte(`{}`))
		next(t, r, proto.TypeEvent)
	}
}

func TestEventsNeverWaitForTheGuest(t *testing.T) {
	c, _, _ := unread(t)
	record := make([]byte, 4096)
	for range 1000 {
		c.Event(time.Now(), "platform.report", record)
	}
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	if n := len(c.events.frames); n > maxEvents+proto.MaxEvent {
		t.Errorf("%d bytes wait", n)
	}
}

func TestEventsAreWantedByThoseWhoSubscribed(t *testing.T) {
	subscription := proto.AppendFrame(nil, proto.TypeSubscription, proto.Subscription{Name: "x"})
	for name, c := range map[string]struct {
		frames []byte
		want   bool
	}{
		"nobody":           {initDone, false},
		"an extension":     {frames(subscription, initDone), true},
		"before Init ends": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, g := net.Pipe()
			conn := New(a, nolog{})
			t.Cleanup(func() { g.Close(); conn.Close() })
			go io.Copy(io.Discard, g)
			go conn.Start(t.Context(), proto.Start{})
			// What is written to a pipe has been read, and its frames acted on
			// when the next has been.
			for _, b := range [][]byte{hello, c.frames, proto.AppendMeta(nil, proto.TypeLog, proto.Log{}, 0), proto.AppendMeta(nil, proto.TypeLog, proto.Log{}, 0)} {
				if _, err := g.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			if conn.Wanted() != c.want {
				t.Errorf("wanted %v", conn.Wanted())
			}
		})
	}
}
