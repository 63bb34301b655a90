package network

import (
	"io"
	"net"
	"testing"
	"time"
)

// BenchmarkAcquire is the time of a caller: with networks prepared, and where
// it has to wait for one to be made.
func BenchmarkAcquire(b *testing.B) {
	b.Run("prepared", func(b *testing.B) {
		w := newWorld(b)
		p := w.open(b, func(o *Options) { o.Prepare = 64 })
		var took time.Duration // without the time to make it
		for b.Loop() {
			for len(p.ready) == 0 {
				time.Sleep(100 * time.Microsecond)
			}
			began := time.Now()
			a, err := p.Acquire(b.Context(), 0)
			took += time.Since(began)
			if err != nil {
				b.Fatal(err)
			}
			a.Release()
		}
		b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/acquire")
	})
	b.Run("made", func(b *testing.B) {
		w := newWorld(b)
		p := w.open(b, func(o *Options) { o.Prepare = 1 })
		for b.Loop() {
			a, err := p.Acquire(b.Context(), 0)
			if err != nil {
				b.Fatal(err)
			}
			a.Release()
		}
	})
}

// BenchmarkPath compares the way from a sandbox's namespace through router and
// host to the internet with loopback, the floor.
func BenchmarkPath(b *testing.B) {
	w := newWorld(b)
	p := w.open(b, nil)
	a, err := p.Acquire(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Release()
	for _, c := range []struct {
		name         string
		client, peer *namespace
		addr         string
	}{
		{"internet", a.ns, w.internet, internetAddr + ":81"},
		{"loopback", w.internet, w.internet, internetAddr + ":81"},
	} {
		var l net.Listener
		must(b, c.peer.Do(func() (err error) { l, err = net.Listen("tcp4", c.addr); return err }))
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(conn, conn); conn.Close() }()
			}
		}()
		dial := func(b *testing.B) (conn net.Conn) {
			must(b, c.client.Do(func() (err error) { conn, err = net.Dial("tcp4", c.addr); return err }))
			return conn
		}
		b.Run("roundtrip/"+c.name, func(b *testing.B) {
			conn := dial(b)
			defer conn.Close()
			buf := make([]byte, 1024)
			for b.Loop() {
				conn.Write(buf)
				if _, err := io.ReadFull(conn, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("throughput/"+c.name, func(b *testing.B) {
			conn := dial(b)
			defer conn.Close()
			out, in := make([]byte, 256*1024), make([]byte, 256*1024)
			b.SetBytes(int64(len(out)))
			for b.Loop() {
				go conn.Write(out)
				if _, err := io.ReadFull(conn, in); err != nil {
					b.Fatal(err)
				}
			}
		})
		l.Close()
	}
}
