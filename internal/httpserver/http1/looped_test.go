package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// looped has the servers of tests serve connections in event loops, though there may be
// nothing that these can answer.
var looped bool

func TestServersWithEventLoopsDoTheSame(t *testing.T) {
	looped = true
	defer func() { looped = false }()
	for name, test := range map[string]func(*testing.T){
		"raw requests":               TestRequestsInRawForm,
		"pieces":                     TestHeadMayComeInPieces,
		"the largest head":           TestLargestHeadIsAccepted,
		"answers":                    TestAnswersReadByAStandardClient,
		"HTTP/1.0":                   TestHTTP10ClientGetsTheEndOfTheConnection,
		"100-continue":               TestExpectContinueIsAnsweredWhenTheBodyIsRead,
		"early answers":              TestAnswersDoNotWaitForWhoReadsTheBody,
		"viewers that go":            TestHandlerNoticesThatTheViewerHasGone,
		"requests during others":     TestRequestThatComesDuringAnotherIsAnsweredAfterIt,
		"Hijack":                     TestHijackedConnectionHasWhatWasRead,
		"parts of files":             TestPartsOfFilesAreSent,
		"answers that are short":     TestAnswerThatIsTooShortEndsTheConnection,
		"panics":                     TestPanicIsAnsweredWith500,
		"timeouts":                   TestTimeouts,
		"Shutdown":                   TestShutdownLetsRequestsEnd,
		"heads as they came":         TestHeadOfARequestIsAsItCame,
		"limits":                     TestServersHaveLimitsOfTheirOwn,
		"HTTP/2":                     TestHTTP2WithPriorKnowledgeIsHandedOverAsItCame,
		"megabytes that are refused": TestClientThatSendsMegabytesReadsWhyTheyAreNotWanted,
	} {
		t.Run(name, test)
	}
}

// plain hides the sockets of a listener's connections, which keeps them out of event
// loops.
type plain struct{ net.Listener }

func (l plain) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return closeWriter{c, c.(*net.TCPConn)}, nil
}

type closeWriter struct {
	net.Conn
	tcp *net.TCPConn
}

func (c closeWriter) CloseWrite() error { return c.tcp.CloseWrite() }

var large = bytes.Repeat([]byte("large "), 50_000)

// mixed answers paths that begin with /f in the fast way, and others by a handler. The
// answers are the same each time.
func mixed() *Server {
	return &Server{
		eager: true,
		Fast: fastFunc(func(c *Conn, h *Head, r *Reply) bool {
			path := string(h.Target)
			if !strings.HasPrefix(path, "/f") {
				return false
			}
			body := []byte("fast " + path)
			if strings.HasPrefix(path, "/flarge") {
				body = large
			}
			r.Buffer = fmt.Appendf(r.Buffer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
			if string(h.Method) != http.MethodHead {
				r.Body = body
			}
			return true
		}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = []string{"now"}
			echo(w, r)
		}),
		Refusal: func(status int, why string) (string, []byte) { return "text/plain", nil },
	}
}

// conversation makes requests of all kinds.
func conversation(random *rand.Rand) string {
	var b strings.Builder
	for range random.IntN(60) {
		switch path := random.Uint32N(1000); random.IntN(12) {
		case 0:
			fmt.Fprintf(&b, "GET /slow%d HTTP/1.1\r\nHost: h\r\n\r\n", path)
		case 1:
			fmt.Fprintf(&b, "POST /f%d HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde", path)
		case 2:
			fmt.Fprintf(&b, "POST /x%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", path)
		case 3:
			fmt.Fprintf(&b, "GET /flarge%d HTTP/1.1\r\nHost: h\r\n\r\n", path)
		case 4:
			fmt.Fprintf(&b, "\r\nHEAD /f%d HTTP/1.1\r\nHost: h\r\n\r\n", path)
		default:
			fmt.Fprintf(&b, "GET /f%d HTTP/1.1\r\nHost: h\r\nX-A: %s\r\n\r\n", path, strings.Repeat("a", random.IntN(100)))
		}
	}
	return b.String()
}

var dates = regexp.MustCompile(`Date: [A-Z][a-z]{2}, [^\r]*`)

// FuzzLoopsAnswerAsGoroutinesDo sends the same bytes to two servers, in pieces, of which
// only the first has event loops.
func FuzzLoopsAnswerAsGoroutinesDo(f *testing.F) {
	for i := range uint64(40) {
		f.Add([]byte(conversation(rand.New(rand.NewPCG(i, 1)))), i)
	}
	f.Add([]byte("GET /f HTTP/1.1\r\nHost: h\r\n\r\nGET /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /f"), uint64(0))
	f.Add([]byte("GET /f HTTP/1.1\r\nHost: h\r\n\r\nGET /f HTTP/1.1\r\n\r\nGET /f"), uint64(0))
	f.Add([]byte("GET /f HTTP/1.1\r\nHost: h\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), uint64(0))
	f.Add([]byte(strings.Repeat("GET /f HTTP/1.1\r\nHost: h\r\n\r\n", 500)), uint64(0))
	addrs := [2]string{}
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.Fatal(err)
		}
		addrs[i] = l.Addr().String()
		if i == 1 {
			l = plain{l}
		}
		s := mixed()
		s.Logger = slog.New(slog.DiscardHandler)
		go func() { _ = s.Serve(l) }()
		f.Cleanup(func() { s.Close() })
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		var got [2]string
		for i, addr := range addrs {
			c := dial(t, addr)
			go func() {
				random := rand.New(rand.NewPCG(seed, uint64(i)))
				for left := in; len(left) > 0; {
					n := min(1+random.IntN(1<<random.IntN(12)), len(left))
					if _, err := c.Write(left[:n]); err != nil {
						return
					}
					left = left[n:]
				}
				c.CloseWrite()
			}()
			b, err := io.ReadAll(c)
			if os.IsTimeout(err) { // others come where a server has answered the last request
				t.Errorf("server %d: %v", i, err)
			}
			got[i] = string(dates.ReplaceAll(b, []byte("Date: now"))) // of refusals
		}
		if got[0] != got[1] {
			t.Errorf("%q\nis answered in a loop (%d bytes)\n%.2000q\nin a goroutine (%d bytes)\n%.2000q", in, len(got[0]), got[0], len(got[1]), got[1])
		}
	})
}

// get asks for a path that is answered fast, and returns an error unless it is.
func get(c net.Conn, br *bufio.Reader, path string) error {
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if want := "fast " + path; err == nil && string(b) != want && !strings.HasPrefix(path, "/flarge") {
		err = fmt.Errorf("%q, want %q", b, want)
	}
	return err
}

func TestConnectionsLeaveTheirLoopAndReturn(t *testing.T) {
	s := mixed()
	fast := s.Fast
	var in, out, strange atomic.Int32
	s.Fast = fastFunc(func(c *Conn, h *Head, r *Reply) bool {
		if c.socket != nil {
			in.Add(1)
		} else {
			out.Add(1)
		}
		if c.Value == nil {
			c.Value = [2]string{c.RemoteAddr(), c.LocalAddr().String()}
		}
		if c.Value != [2]string{string(h.Get("remote")), string(h.Get("local"))} {
			strange.Add(1)
		}
		return fast.ServeFast(c, h, r)
	})
	addr := start(t, s)
	c := dial(t, addr)
	br := bufio.NewReader(c)
	ask := func(path string) {
		t.Helper()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: h\r\nRemote: %s\r\nLocal: %s\r\n\r\n", path, c.LocalAddr(), addr)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	for _, round := range []struct{ stay, patience int }{
		{3, returnAfter}, {3, 2 * returnAfter}, {worthwhile - 2, 4 * returnAfter}, // one has been asked for before
		{worthwhile - 1, 2 * returnAfter}, {worthwhile, returnAfter}, {worthwhile, returnAfter},
	} {
		for range round.stay {
			ask("/f")
		}
		in.Store(0)
		out.Store(0)
		ask("/slow") // asked for in the loop, and again out of it
		for range round.patience {
			ask("/f")
		}
		if in.Load() != 1 || out.Load() != int32(1+round.patience) {
			t.Errorf("after a stay of %d, %d were asked for in the loop, %d in a goroutine", round.stay, in.Load(), out.Load())
		}
		ask("/f")
		if in.Load() != 2 {
			t.Errorf("after a stay of %d, the connection did not return after %d", round.stay, round.patience)
		}
	}
	if strange.Load() > 0 {
		t.Error("the connection's addresses or value change")
	}
}

func TestClientsThatAskOnceAreSparedTheMoveIntoALoop(t *testing.T) {
	s := mixed()
	s.eager = false
	fast := s.Fast
	where := make(chan string, 5)
	s.Fast = fastFunc(func(c *Conn, h *Head, r *Reply) bool {
		if c.socket != nil {
			where <- "loop"
		} else {
			where <- "goroutine"
		}
		return fast.ServeFast(c, h, r)
	})
	c := dial(t, start(t, s))
	br := bufio.NewReader(c)
	for i, want := range []string{"goroutine", "goroutine", "loop", "loop", "loop"} {
		if err := get(c, br, "/f"); err != nil {
			t.Fatal(err)
		}
		if got := <-where; got != want {
			t.Errorf("request %d is answered in a %s, want a %s", i, got, want)
		}
	}
}

func TestConnectionsThatRestKeepNoMemoryForManyFields(t *testing.T) {
	s := mixed()
	fast := s.Fast
	room := make(chan int, 2)
	s.Fast = fastFunc(func(c *Conn, h *Head, r *Reply) bool {
		room <- cap(h.Fields)
		return fast.ServeFast(c, h, r)
	})
	c := dial(t, start(t, s))
	br := bufio.NewReader(c)
	for _, more := range []int{MaxFields - 1, 1} {
		fmt.Fprintf(c, "GET /f HTTP/1.1\r\nHost: h\r\n%s\r\n", strings.Repeat("A: b\r\n", more))
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	if first, next := <-room, <-room; first < MaxFields || next > maxIdleFields {
		t.Errorf("room for %d and then %d fields", first, next)
	}
}

func TestSlowReadersGetAllOfAnAnswer(t *testing.T) {
	addr := start(t, mixed())
	c := dial(t, addr)
	c.SetReadBuffer(64 << 10)
	const n = 20
	go io.WriteString(c, strings.Repeat("GET /flarge HTTP/1.1\r\nHost: h\r\n\r\n", n))
	br := bufio.NewReader(c)
	for i := range n {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, large) {
			t.Fatalf("answer %d: %d bytes, %v", i, len(b), err)
		}
	}
	if err := get(c, br, "/f"); err != nil {
		t.Error(err)
	}
}

func TestLoopsEndConnectionsThatTakeTooLong(t *testing.T) {
	s := mixed()
	s.FirstTimeout, s.IdleTimeout, s.WriteTimeout = 100*time.Millisecond, 200*time.Millisecond, 300*time.Millisecond
	addr := start(t, s)
	silent, resting, full := dial(t, addr), dial(t, addr), dial(t, addr)
	if err := get(resting, bufio.NewReader(resting), "/f"); err != nil {
		t.Fatal(err)
	}
	full.SetReadBuffer(4 << 10)
	go io.WriteString(full, strings.Repeat("GET /flarge HTTP/1.1\r\nHost: h\r\n\r\n", 100))
	for name, c := range map[string]net.Conn{"that says nothing": silent, "that rests": resting} {
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("a connection %s stays: %v", name, err)
		}
	}
	for until := time.Now().Add(20 * time.Second); s.connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a viewer that reads nothing is waited for")
		}
	}
}

// connections is how many connections the server has.
func (s *Server) connections() int { return s.conns.Len() }

func TestFloodsDoNotKeepOthersWaiting(t *testing.T) {
	addr := start(t, mixed())
	flood := strings.Repeat("GET /f HTTP/1.1\r\nHost: h\r\n\r\n", 2000)
	var floods sync.WaitGroup
	for range 3 {
		c := dial(t, addr)
		floods.Go(func() { io.Copy(io.Discard, c) })
		floods.Go(func() {
			for {
				if _, err := io.WriteString(c, flood); err != nil {
					return
				}
			}
		})
		defer c.Close()
	}
	for range 8 { // some in each loop
		c := dial(t, addr)
		br := bufio.NewReader(c)
		for range 20 {
			if err := get(c, br, "/f"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPanicOfTheFastHandlerEndsThatConnectionOnly(t *testing.T) {
	s := mixed()
	fast := s.Fast
	s.Fast = fastFunc(func(c *Conn, h *Head, r *Reply) bool {
		if string(h.Target) == "/fpanic" {
			panic("oops")
		}
		return fast.ServeFast(c, h, r)
	})
	addr := start(t, s)
	var others []net.Conn
	for range 4 {
		others = append(others, dial(t, addr))
	}
	for range 4 {
		if got := exchange(t, addr, "GET /fpanic HTTP/1.1\r\nHost: h\r\n\r\n"); got != "" {
			t.Errorf("%q", got)
		}
	}
	for _, c := range others {
		if err := get(c, bufio.NewReader(c), "/f"); err != nil {
			t.Error(err)
		}
	}
}

func TestLoopsServeAsManyConnectionsAsTheServerMay(t *testing.T) {
	s := mixed()
	s.MaxConns = 2
	addr := start(t, s)
	for range 3 {
		a, b := dial(t, addr), dial(t, addr)
		for _, c := range []net.Conn{a, b} {
			if err := get(c, bufio.NewReader(c), "/f"); err != nil {
				t.Fatal(err)
			}
		}
		if got := exchange(t, addr, "GET /f HTTP/1.1\r\nHost: h\r\n\r\n"); got != "" {
			t.Errorf("a third is served: %q", got)
		}
		a.Close()
		b.Close()
		for s.connections() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// descriptors is how many the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestShutdownUnderLoadLosesNoAnswerAndNoDescriptor(t *testing.T) {
	for name, end := range map[string]func(*Server) error{
		"Shutdown": func(s *Server) error {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			return s.Shutdown(ctx)
		},
		"Shutdown that takes too long": func(s *Server) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		},
		"Close": (*Server).Close,
	} {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			s := mixed()
			s.Logger = slog.New(slog.DiscardHandler)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			var clients sync.WaitGroup
			var answers atomic.Int32
			for i := range 16 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				clients.Go(func() {
					defer c.Close()
					br := bufio.NewReader(c)
					for n := 0; ; n++ {
						path := fmt.Sprintf("/f%d", n)
						switch {
						case i%4 == 0 && n%20 == 0:
							path = "/slow"
						case i%4 == 1:
							path = "/flarge"
						}
						io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
						resp, err := http.ReadResponse(br, nil)
						if err != nil {
							return
						}
						if _, err := io.Copy(io.Discard, resp.Body); err != nil {
							if name == "Shutdown" {
								t.Errorf("an answer was cut: %v", err)
							}
							return
						}
						answers.Add(1)
					}
				})
			}
			silent, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			for answers.Load() < 500 {
				time.Sleep(time.Millisecond)
			}
			if err := end(s); err != nil {
				t.Error(err)
			}
			clients.Wait()
			silent.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := silent.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("a connection that says nothing stays: %v", err)
			}
			silent.Close()
			if err := <-served; !errors.Is(err, ErrServerClosed) {
				t.Error(err)
			}
			for until := time.Now().Add(10 * time.Second); descriptors(t) > before || s.connections() > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("%d descriptors before, %d afterwards, %d connections", before, descriptors(t), s.connections())
				}
			}
		})
	}
}
