package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// hello answers each request whose body has come.
func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "hello")
}

func TestMalformedRequestsEndTheirStream(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(hello)})
	p := dial(t, addr)
	id := uint32(1)
	for name, fields := range map[string][]string{
		"capitals":                  {"X-A", "b"},
		"a name with a blank":       {"x a", "b"},
		"a line break":              {"x-a", "b\r\nc: d"},
		"a zero":                    {"x-a", "b\x00"},
		"blanks around":             {"x-a", " b"},
		"a field of the connection": {"connection", "close"},
		"a transfer encoding":       {"transfer-encoding", "chunked"},
		"an upgrade":                {"upgrade", "websocket"},
		"TE":                        {"te", "gzip"},
		"another host":              {"host", "other"},
		"two hosts":                 {"host", "h", "host", "h"},
		"a length without a body":   {"content-length", "3"},
		"a length that is none":     {"content-length", "+3"},
		"two lengths":               {"content-length", "0", "content-length", "0"},
		"a late pseudo-header":      {"x-a", "b", ":path", "/"},
		"a method with a blank":     {":method", "G T"},
		"a path that is none":       {":path", "a"},
		"a path with a blank":       {":path", "/a HTTP/1.1"},
		"an authority with a path":  {":authority", "h/a"},
		"an authority with a user":  {":authority", "u@h"},
		"an unknown pseudo-header":  {":protocol", "websocket"},
		"a path twice":              {":path", "/", ":path", "/"},
	} {
		p.request(id, true, fields...)
		if a := p.answer(id); a.reset != "PROTOCOL_ERROR" || a.status != "" {
			t.Errorf("%s: %+v", name, a)
		}
		id += 2
	}
	p.request(id, true, "host", "H", "te", "trailers", "content-length", "0") // the connection is as good as ever
	if a := p.answer(id); a.body != "hello" {
		t.Errorf("%+v", a)
	}
}

func TestRequestsThatAreNotServedAreAnswered(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(hello), Refusal: func(status int, why string) (string, []byte) {
		return "text/html", fmt.Appendf(nil, "%d page", status)
	}})
	p := dial(t, addr)
	p.check(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: p.encodeOnly(":method", "CONNECT", ":authority", "h:443")}))
	if a := p.answer(1); a.status != "501" || a.body != "501 page" {
		t.Errorf("CONNECT: %+v", a)
	}
	p.request(3, true, ":path", "/%zz")
	if a := p.answer(3); a.status != "400" {
		t.Errorf("a path that cannot be read: %+v", a)
	}
	// A small block that stands for a large header.
	p.encoder.SetMaxDynamicTableSize(4096)
	fields := []string{}
	for range 40 {
		fields = append(fields, "x-bomb", strings.Repeat("x", 3000))
	}
	p.request(5, false, fields...)
	if a := p.answer(5); a.status != "413" || a.reset != "NO_ERROR" {
		t.Errorf("a header too large: %+v", a)
	}
	p.request(7, true)
	if a := p.answer(7); a.body != "hello" {
		t.Errorf("%+v", a)
	}
}

func TestAnswersThatAreGivenUpWaitForNoWindow(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConn(t.Context(), &Server{}, near)
	c.window = 0
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := uint32(1); id < 6; id += 2 {
		st := c.newStream(id, -1, true)
		st.rest, st.end = []byte("text"), true
		c.enqueue(st)
		c.pump()
	}
	c.reset(3, codeCancel, errReset)
	c.reset(5, codeCancel, errReset)
	if len(c.queue) != 1 || c.queue[0].id != 1 {
		t.Errorf("%d streams wait", len(c.queue))
	}
}

func TestFloodsEndTheConnection(t *testing.T) {
	var running atomic.Int32
	s := &Server{MaxStreams: 10, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := running.Add(1); n > 20 {
			t.Errorf("%d handlers run", n)
		}
		defer running.Add(-1)
		time.Sleep(10 * time.Millisecond) // one that does not look at its context
	})}
	addr := start(t, s)
	for name, send := range map[string]func(p *peer, i int) error{
		"PING":     func(p *peer, _ int) error { return p.WritePing(false, [8]byte{}) },
		"SETTINGS": func(p *peer, _ int) error { return p.WriteSettings() },
		"PRIORITY": func(p *peer, _ int) error { return p.WritePriority(1, xhttp2.PriorityParam{}) },
		"unknown":  func(p *peer, _ int) error { return p.WriteRawFrame(99, 0, 0, nil) },
		"empty DATA": func(p *peer, i int) error {
			if i == 0 {
				return p.try(1, false, ":method", "POST")
			}
			return p.WriteData(1, false, nil)
		},
		"requests taken back": func(p *peer, i int) error {
			return errors.Join(p.try(uint32(2*i+1), true), p.WriteRSTStream(uint32(2*i+1), 8))
		},
		"malformed requests": func(p *peer, i int) error {
			return p.try(uint32(2*i+1), true, ":path", "x")
		},
		"CONTINUATION": func(p *peer, i int) error {
			if i == 0 {
				return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode()})
			}
			return p.WriteContinuation(1, false, nil)
		},
		"a block without end": func(p *peer, i int) error {
			if i == 0 {
				return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode()})
			}
			return p.WriteContinuation(1, false, bytes.Repeat([]byte{0x82}, maxFrame))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, addr)
			p.t = t
			var sending sync.WaitGroup
			sending.Go(func() {
				for i := 0; i < 100_000 && send(p, i) == nil; i++ {
				}
			})
			p.refused("ENHANCE_YOUR_CALM")
			_ = p.conn.Close()
			sending.Wait()
		})
	}
}

func TestMoreStreamsThanAreAllowedAreRefused(t *testing.T) {
	answer := make(chan struct{})
	p := dial(t, start(t, &Server{MaxStreams: 2, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-answer })}))
	for id := uint32(1); id <= 5; id += 2 {
		p.request(id, true)
	}
	if a := p.answer(5); a.reset != "REFUSED_STREAM" {
		t.Errorf("%+v", a)
	}
	close(answer)
	for id := uint32(1); id <= 3; id += 2 {
		if a := p.answer(id); a.status != "200" {
			t.Errorf("%+v", a)
		}
	}
	p.request(7, true)
	if a := p.answer(7); a.status != "200" {
		t.Errorf("%+v", a)
	}
}

func TestWindowsHoldBodies(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 20_000)
	for name, s := range map[string]*Server{
		"the handler": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body) })},
		"a hit":       {Fast: fast(body)},
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, start(t, s), xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
			p.request(1, true)
			if e := p.next("DATA"); e.text != "0123456789" {
				t.Errorf("%q", e.text)
			}
			// A wider window for all streams, and one below nothing for this.
			p.check(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 15}))
			if e := p.next("DATA"); e.text != "01234" {
				t.Errorf("%q", e.text)
			}
			p.check(p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}))
			p.check(p.WriteWindowUpdate(1, 20))
			if e := p.next("DATA"); e.text != "56789" {
				t.Errorf("%q", e.text)
			}
			p.check(p.WriteWindowUpdate(1, 1<<20)) // then the connection's is what holds it
			n := 20
			for n < firstWindow {
				n += len(p.next("DATA").text)
			}
			if n != firstWindow {
				t.Errorf("%d bytes", n)
			}
			// Another stream waits for the connection, too.
			p.request(3, true)
			p.check(p.WriteWindowUpdate(0, 1<<20))
			if a := p.answer(1); n+len(a.body) != len(body) {
				t.Errorf("%d bytes", n+len(a.body))
			}
			p.check(p.WriteWindowUpdate(3, 1<<20))
			if a := p.answer(3); a.body != string(body) {
				t.Errorf("%d bytes", len(a.body))
			}
		})
	}
}

// fast answers all with a body.
type fast []byte

func (f fast) ServeHit(h *Head, r *Reply) bool {
	r.Block = AppendStatus(r.Block, 200)
	r.Block = AppendPlainField(r.Block, "Content-Length", fmt.Sprint(len(f)))
	if h.Method != http.MethodHead {
		r.Body = f
	}
	return true
}

func TestHitsAreAnsweredTogether(t *testing.T) {
	p := dial(t, start(t, &Server{Fast: fast("hit")}))
	p.check(p.WriteWindowUpdate(0, 1<<20))
	for i := range uint32(1000) {
		method := []string{"GET", "HEAD"}[i%2]
		p.request(2*i+1, true, ":method", method)
	}
	for i := range uint32(1000) {
		if e := p.next("HEADERS"); e.stream != 2*i+1 || e.fields[1].Value != "3" || e.end != (i%2 == 1) {
			t.Fatalf("%+v", e)
		}
		if i%2 == 0 {
			if e := p.next("DATA"); e.stream != 2*i+1 || e.text != "hit" || !e.end {
				t.Fatalf("%+v", e)
			}
		}
	}
}

func TestAViewerThatTakesNothingIsNotWaitedForForLong(t *testing.T) {
	large := make([]byte, 64<<20) // more than sockets hold
	failed := make(chan error, 1)
	s := func() *Server {
		return &Server{WriteTimeout: 200 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := w.Write(large)
			failed <- err
		})}
	}
	t.Run("its window is closed", func(t *testing.T) {
		p := dial(t, start(t, s()), xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		p.request(1, true)
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if a := p.answer(1); a.status != "200" || a.reset != "CANCEL" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("its window is closed, and it sends PINGs", func(t *testing.T) {
		p := dial(t, start(t, &Server{WriteTimeout: 200 * time.Millisecond, Fast: fast(large)}), xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		p.request(1, true)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					_ = p.WritePing(false, [8]byte{})
				}
			}
		}()
		defer close(stop)
		if e := p.next("RST_STREAM"); e.text != "CANCEL" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("it does not read", func(t *testing.T) {
		p := dial(t, start(t, s()), xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: maxWindow})
		// A socket whose size is set does not grow: some kernels let it hold all of it.
		p.check(p.conn.NetConn().(*net.TCPConn).SetReadBuffer(1 << 20))
		p.check(p.WriteWindowUpdate(0, maxWindow-firstWindow))
		p.request(1, true)
		if err := <-failed; err == nil {
			t.Error("all of it was taken")
		}
	})
}

func TestAViewerThatReadsNothingHoldsLittleMemory(t *testing.T) {
	large := make([]byte, 1<<20)
	s := &Server{Fast: fast(large)}
	p := dial(t, start(t, s), xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: maxWindow})
	p.check(p.WriteWindowUpdate(0, maxWindow-firstWindow))
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range uint32(100_000) {
		if p.try(2*i+1, true, ":method", []string{"GET", "HEAD"}[i/100%2]) != nil {
			break
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes more are held", grown)
	}
}

func TestTimeLimitsOfConnections(t *testing.T) {
	addr := start(t, &Server{
		HeaderTimeout: 100 * time.Millisecond, IdleTimeout: 300 * time.Millisecond,
		Handler: http.HandlerFunc(hello),
	})
	t.Run("idle", func(t *testing.T) {
		p := dial(t, addr)
		p.request(1, true)
		p.answer(1)
		p.refused("NO_ERROR")
	})
	t.Run("a block in parts", func(t *testing.T) {
		p := dial(t, addr)
		p.check(p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode()}))
		p.refused("NO_ERROR")
	})
	t.Run("a block in ever more parts", func(t *testing.T) {
		p := dial(t, addr)
		p.request(1, false) // as long as it is under way, the connection is not idle
		go func() {
			for err := p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: p.encode()}); err == nil; err = p.WriteContinuation(3, false, nil) {
				time.Sleep(20 * time.Millisecond)
			}
		}()
		p.refused("NO_ERROR")
	})
	t.Run("a frame that drips", func(t *testing.T) {
		p := dial(t, addr)
		go func() {
			for _, err := p.conn.Write([]byte{0, 1, 0, 1, 4, 0, 0, 0, 1}); err == nil; _, err = p.conn.Write([]byte{0x82}) {
				time.Sleep(20 * time.Millisecond)
			}
		}()
		p.refused("NO_ERROR")
	})
}

func TestASilentViewerIsAskedWhetherItIsThere(t *testing.T) {
	answer := make(chan struct{})
	p := dial(t, start(t, &Server{IdleTimeout: 50 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-answer })}))
	p.request(1, true)
	for range 3 {
		p.pong()
	}
	close(answer)
	if a := p.answer(1); a.status != "200" {
		t.Errorf("%+v", a)
	}
}
