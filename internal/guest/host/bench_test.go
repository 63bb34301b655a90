package host

import (
	"testing"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// BenchmarkInvoke is an invocation of 1 KB that is answered at once: what the
// host's end costs, beside a goroutine that reads and writes.
func BenchmarkInvoke(b *testing.B) {
	a, g := sockets(b)
	c := New(a, nolog{})
	b.Cleanup(func() { g.Close(); c.Close() })
	go func() {
		r := proto.NewReader(g)
		answer := frames(start, data(1024), end, invokeDone)
		g.Write(frames(hello, initDone))
		for {
			f, err := r.Read()
			if err != nil {
				return
			}
			if f.Type == proto.TypeInvoke {
				g.Write(answer)
			}
		}
	}()
	if _, err := c.Start(b.Context(), proto.Start{}); err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		c.CatchUp()
		running, err := c.Invoke(b.Context(), proto.Invocation{RequestID: id}, payload, new(discard))
		if err == nil {
			_, err = running.Wait(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
