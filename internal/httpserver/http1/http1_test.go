package http1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// start serves h on a port of the loopback.
func start(t *testing.T, s *Server) string {
	t.Helper()
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if looped && s.Fast == nil {
		s.Fast = fastFunc(func(*Conn, *Head, *Reply) bool { return false })
	}
	s.eager = s.eager || looped
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func handle(t *testing.T, h http.HandlerFunc) string { return start(t, &Server{Handler: h}) }

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// exchange sends bytes and returns all that comes until the connection ends.
func exchange(t *testing.T, addr, send string) string {
	t.Helper()
	c := dial(t, addr)
	io.WriteString(c, send)
	c.CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Logf("read: %v", err)
	}
	return string(b)
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s %s %s %s %q", r.Method, r.Host, r.RequestURI, r.Header.Get("X-A"), b)
}

func TestRequestsInRawForm(t *testing.T) {
	addr := handle(t, echo)
	for _, c := range []struct{ name, send, want string }{
		{"a plain GET", "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", `GET h /a?b  ""`},
		{"an empty line before it", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", `GET h /  ""`},
		{"the absolute form", "GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n", `GET other http://other/x  ""`},
		{"a body with a length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", `"abc"`},
		{"a chunked body", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n", `"abcd"`},
		{"a value with spaces", "GET / HTTP/1.1\r\nHost: h\r\nX-A: \t v w \r\n\r\n", `GET h / v w ""`},
		{"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "Connection: close"},
		{"HTTP/1.0 that stays", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", `OPTIONS h *`},
		{"two that come together", "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n", "GET h /2"},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", "400 "},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400 "},
		{"a Host with a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 "},
		{"a bare line feed", "GET / HTTP/1.1\nHost: h\n\n\r\n\r\n", "400 "},
		{"a carriage return in a value", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\rb\r\n\r\n", "400 "},
		{"NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\x00b\r\n\r\n", "400 "},
		{"a folded line", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\r\n b\r\n\r\n", "400 "},
		{"a space before the colon", "GET / HTTP/1.1\r\nHost: h\r\nX-A : a\r\n\r\n", "400 "},
		{"no colon", "GET / HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n", "400 "},
		{"a space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "400 "},
		{"no target", "GET  HTTP/1.1\r\nHost: h\r\n\r\n", "400 "},
		{"a relative target", "GET a HTTP/1.1\r\nHost: h\r\n\r\n", "400 "},
		{"HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 "},
		{"HTTP/0.9", "GET /\r\n\r\n", "400 "},
		{"length and chunks", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 "},
		{"two lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "400 "},
		{"a list of lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc", "400 "},
		{"a signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", "400 "},
		{"an empty length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\nabc", "400 "},
		{"gzip as transfer encoding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501 "},
		{"chunked twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501 "},
		{"chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 "},
		{"a chunk's size with a sign", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", "400 "},
		{"a chunk without its end", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "400 "},
		{"a chunk that ends with a line feed", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", "400 "},
		{"a huge chunk", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n", "400 "},
		{"a body that is cut", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc", "400 "},
		{"another expectation", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n", "417 "},
		{"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", "501 "},
		{"a long URL", "GET /" + strings.Repeat("a", MaxTarget) + " HTTP/1.1\r\nHost: h\r\n\r\n", "414 "},
		{"a large header", "GET / HTTP/1.1\r\nHost: h\r\nX-A: " + strings.Repeat("a", MaxHead) + "\r\n\r\n", "413 "},
		{"many fields", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("a:b\r\n", MaxFields) + "\r\n", "413 "},
	} {
		if got := exchange(t, addr, c.send); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestHeadMayComeInPieces(t *testing.T) {
	addr := handle(t, echo)
	c := dial(t, addr)
	for _, b := range []byte("POST /x HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n") {
		c.Write([]byte{b})
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != `POST h /x 1 "abc"` {
		t.Errorf("%q", b)
	}
}

func TestLargestHeadIsAccepted(t *testing.T) {
	addr := handle(t, echo)
	line := "GET / HTTP/1.1\r\nHost: h\r\nX-B: "
	send := line + strings.Repeat("b", MaxHead-len(line))
	if got := exchange(t, addr, send+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("%.60q", got)
	}
	if got := exchange(t, addr, send+"b\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413") {
		t.Errorf("a byte more: %.60q", got)
	}
}

func TestAnswersReadByAStandardClient(t *testing.T) {
	big := make([]byte, 3<<20)
	rand.Read(big)
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", strconv.Itoa(len(big)))
			w.Write(big)
		case "/chunked":
			for b := big; len(b) > 0; {
				n := min(len(b), 70_000)
				w.Write(b[:n])
				b = b[n:]
			}
		case "/small":
			io.WriteString(w, "sm")
			io.WriteString(w, "all")
		case "/copy":
			io.Copy(w, bytes.NewReader(big))
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/fields":
			w.Header()["X-A"] = []string{"1", "2"}
			w.Header().Set("X-Break", "a\r\nX-Evil: b")
			w.Header().Set("Bad Name", "x")
		}
	})
	client := &http.Client{}
	for range 2 {
		for path, want := range map[string]string{"/length": string(big), "/chunked": string(big), "/small": "small", "/copy": string(big), "/none": "", "/fields": ""} {
			for _, method := range []string{"GET", "HEAD"} {
				req, _ := http.NewRequest(method, "http://"+addr+path, nil)
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if method == "HEAD" {
					want = ""
				}
				if err != nil || string(got) != want {
					t.Errorf("%s %s: %d bytes, %v", method, path, len(got), err)
				}
				if resp.Header.Get("Date") == "" {
					t.Errorf("%s has no date", path)
				}
				switch path {
				case "/length":
					if resp.ContentLength != int64(len(big)) {
						t.Errorf("%s %s: length %d", method, path, resp.ContentLength)
					}
				case "/small":
					if method == "GET" && resp.ContentLength != 5 {
						t.Errorf("a small answer has no length: %d", resp.ContentLength)
					}
				case "/fields":
					if fmt.Sprint(resp.Header["X-A"]) != "[1 2]" || resp.Header.Get("X-Evil") != "" || resp.Header.Get("X-Break") != "a  X-Evil: b" {
						t.Errorf("%v", resp.Header)
					}
				}
			}
		}
	}
}

func TestHTTP10ClientGetsTheEndOfTheConnection(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		io.WriteString(w, "b")
	})
	got := exchange(t, addr, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	if !strings.HasSuffix(got, "\r\n\r\nab") || strings.Contains(got, "chunked") || !strings.Contains(got, "Connection: close") {
		t.Errorf("%q", got)
	}
}

func TestExpectContinueIsAnsweredWhenTheBodyIsRead(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/read" {
			io.Copy(io.Discard, r.Body)
		}
	})
	const rest = " HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
	c := dial(t, addr)
	io.WriteString(c, "POST /read"+rest)
	br := bufio.NewReader(c)
	if line, _ := br.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q", line)
	}
	br.ReadString('\n')
	io.WriteString(c, "abcPOST /refuse"+rest)
	for _, close := range []bool{false, true} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		if resp.Close != close {
			t.Errorf("the answer says of the connection's end: %v", resp.Close)
		}
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the connection goes on though the body may come: %v", err)
	}
}

// A handler may leave a goroutine behind that reads the body, such as a transport that
// sends it on to a server which has answered early.
func TestAnswersDoNotWaitForWhoReadsTheBody(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		body := r.Body
		r.Body = struct{ io.ReadCloser }{body} // as middleware does
		begun := make(chan struct{})
		go func() {
			io.ReadFull(body, make([]byte, 3))
			close(begun)
			for {
				if _, err := body.Read(make([]byte, 1)); err != nil {
					return
				}
			}
		}()
		<-begun
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "early")
	})
	const rest = " HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc"
	c := dial(t, addr)
	br := bufio.NewReader(c)
	io.WriteString(c, "POST /"+rest)
	for _, more := range []string{"dePOST /" + rest, "de"} { // the next request is nobody else's
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "early" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
		io.WriteString(c, more)
	}
	c = dial(t, addr)
	io.WriteString(c, "POST /abort"+rest)
	if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestContinueAndAnswerMayRace(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		go io.Copy(io.Discard, r.Body)
		io.WriteString(w, "early")
	})
	for range 200 {
		c := dial(t, addr)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && resp.StatusCode == http.StatusContinue {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "early" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
		c.Close()
	}
}

func TestHandlerNoticesThatTheViewerHasGone(t *testing.T) {
	gone := make(chan error, 1)
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			gone <- nil
		case <-time.After(10 * time.Second):
			gone <- errors.New("nobody said")
		}
	})
	for _, send := range []string{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na"} {
		c := dial(t, addr)
		io.WriteString(c, send)
		time.Sleep(20 * time.Millisecond)
		c.Close()
		if err := <-gone; err != nil {
			t.Error(err)
		}
	}
}

func TestRequestThatComesDuringAnotherIsAnsweredAfterIt(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Error("the context has ended")
		case <-time.After(30 * time.Millisecond):
		}
		io.WriteString(w, r.URL.Path)
	})
	c := dial(t, addr)
	io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	time.Sleep(10 * time.Millisecond)
	io.WriteString(c, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTT")
	time.Sleep(10 * time.Millisecond)
	io.WriteString(c, "P/1.1\r\nHost: h\r\n\r\n")
	br := bufio.NewReader(c)
	for _, want := range []string{"/1", "/2", "/3"} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != want {
			t.Errorf("%q", b)
		}
	}
}

func TestHijackedConnectionHasWhatWasRead(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		go func() { <-r.Context().Done() }() // as proxies do
		time.Sleep(20 * time.Millisecond)
		nc, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer nc.Close()
			line, _ := rw.ReadString('\n')
			rw.WriteString("got " + line)
			rw.Flush()
			io.Copy(nc, rw)
		}()
	})
	c := dial(t, addr)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nfirst\n")
	br := bufio.NewReader(c)
	if line, _ := br.ReadString('\n'); line != "got first\n" {
		t.Errorf("%q", line)
	}
	io.WriteString(c, "second\n")
	if line, _ := br.ReadString('\n'); line != "second\n" {
		t.Errorf("%q", line)
	}
}

type sections struct {
	f        *os.File
	off, end int64
}

func (s *sections) Read(p []byte) (int, error) { return 0, errors.New("read") }

func (s *sections) Section() (*os.File, int64, int64, error) {
	if s.off == s.end {
		return nil, 0, 0, io.EOF
	}
	off, n := s.off, min(s.end-s.off, 1<<20)
	s.off += n
	return s.f, off, n, nil
}

func TestPartsOfFilesAreSent(t *testing.T) {
	data := make([]byte, 20<<20)
	rand.Read(data)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
		}
		defer f.Close()
		w.Header().Set("Content-Length", strconv.Itoa(len(data)-1000))
		if n, err := io.Copy(w, &sections{f, 1000, int64(len(data))}); err != nil || n != int64(len(data)-1000) {
			t.Errorf("%d, %v", n, err)
		}
	})
	for range 3 {
		resp, err := http.Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, data[1000:]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		resp.Body.Close()
	}
}

func TestAnswerThatIsTooShortEndsTheConnection(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "short")
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
	})
	for _, path := range []string{"/", "/abort"} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q was taken as whole", b)
		}
		resp.Body.Close()
	}
}

func TestPanicIsAnsweredWith500(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) { panic("oops") })
	if got := exchange(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500") {
		t.Errorf("%q", got)
	}
}

func TestTimeouts(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			w.Header().Set("Content-Length", strconv.Itoa(64<<20))
			for range 64 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}), HeaderTimeout: 100 * time.Millisecond, IdleTimeout: 300 * time.Millisecond, BodyTimeout: 100 * time.Millisecond, WriteTimeout: 200 * time.Millisecond})
	for _, c := range []struct {
		name, send string
		wait       bool
	}{
		{"nothing", "", true},
		{"half a head", "GET / HTTP/1.1\r\nHo", true},
		{"half a body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc", true},
		{"nothing after an answer", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
	} {
		conn := dial(t, addr)
		io.WriteString(conn, c.send)
		if _, err := io.ReadAll(conn); err != nil && os.IsTimeout(err) {
			t.Errorf("%s: the connection stays", c.name)
		}
	}
	// One that drips a byte now and then does not get more time for its head.
	conn := dial(t, addr)
	began := time.Now()
	for time.Since(began) < 5*time.Second {
		if _, err := conn.Write([]byte("G")); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if time.Since(began) > 4*time.Second {
		t.Error("a head that drips is waited for")
	}
	// Nor does one that sends empty lines.
	conn = dial(t, addr)
	began = time.Now()
	for time.Since(began) < 5*time.Second {
		if _, err := conn.Write([]byte("\r\n")); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if time.Since(began) > 4*time.Second {
		t.Error("a viewer that sends empty lines is waited for")
	}
	// One that reads nothing.
	conn = dial(t, addr)
	io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
	time.Sleep(time.Second)
	if _, err := io.CopyN(io.Discard, conn, 64<<20); err == nil {
		t.Error("a viewer that reads nothing is waited for")
	}
}

type fastFunc func(c *Conn, h *Head, r *Reply) bool

func (f fastFunc) ServeFast(c *Conn, h *Head, r *Reply) bool { return f(c, h, r) }

func TestFastAnswers(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 100_000)
	addr := start(t, &Server{Handler: http.HandlerFunc(echo), Fast: fastFunc(func(c *Conn, h *Head, r *Reply) bool {
		if string(h.Host) != "h" || string(h.Get("x-fast")) == "" {
			return false
		}
		body := []byte("fast " + string(h.Target))
		if string(h.Target) == "/large" {
			body = large
		}
		r.Buffer = fmt.Appendf(r.Buffer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
		r.Body = body
		return true
	})})
	var send strings.Builder
	var want strings.Builder
	for i := range 300 {
		path := fmt.Sprint("/", i)
		switch {
		case i%100 == 50:
			path = "/large"
			fallthrough
		case i%3 > 0:
			fmt.Fprintf(&send, "GET %s HTTP/1.1\r\nHost: h\r\nX-FAST: 1\r\n\r\n", path)
			if path == "/large" {
				want.Write(large)
			} else {
				want.WriteString("fast " + path)
			}
		default:
			fmt.Fprintf(&send, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
			fmt.Fprintf(&want, `GET h %s  ""`, path)
		}
	}
	c := dial(t, addr)
	go func() {
		io.WriteString(c, send.String())
	}()
	br := bufio.NewReader(c)
	var got strings.Builder
	for i := range 300 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		io.Copy(&got, resp.Body)
	}
	if got.String() != want.String() {
		t.Error("the answers differ")
	}
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	began := make(chan struct{})
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		time.Sleep(100 * time.Millisecond)
		io.WriteString(w, "done")
	})}
	addr := start(t, s)
	resting := dial(t, addr)
	c := dial(t, addr)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if b, _ := io.ReadAll(c); !strings.HasSuffix(string(b), "done") || !strings.Contains(string(b), "Connection: close") {
		t.Errorf("%q", b)
	}
	if _, err := resting.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Error("an idle connection stays")
	}
}

func TestHeadOfARequestIsAsItCame(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		for _, f := range HeadOf(r.WithContext(context.WithoutCancel(r.Context()))).Fields {
			fmt.Fprintf(w, "%s=%s;", f.Name, f.Value)
		}
	})
	if got := exchange(t, addr, "GET / HTTP/1.1\r\nhOsT: h\r\nx-B: 2\r\nX-a: 1\r\n\r\n"); !strings.HasSuffix(got, "hOsT=h;x-B=2;X-a=1;") {
		t.Errorf("%q", got)
	}
	if HeadOf(httptest.NewRequest("GET", "/", nil)) != nil {
		t.Error("a request of another server has a head")
	}
}

func TestInterimAnswers(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-A", "1")
		w.WriteHeader(http.StatusAccepted)
	})
	got := exchange(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 202 Accepted\r\n") {
		t.Errorf("%q", got)
	}
}

func TestShutdownWaitsForNoViewerThatDoesNotRead(t *testing.T) {
	cert := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: http.HandlerFunc(echo), IdleTimeout: time.Hour, Logger: slog.New(slog.DiscardHandler)}
		var serving sync.WaitGroup
		for range 3 {
			near, far := net.Pipe()
			defer far.Close()
			server := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{cert}})
			client := tls.Client(far, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec
			serving.Go(func() {
				if err := server.Handshake(); err != nil {
					t.Error(err)
				}
				s.ServeConn(t.Context(), server)
			})
			io.WriteString(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(client), nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		serving.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// certificate makes a certificate that nobody trusts.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestContextEndsWithItsRequest(t *testing.T) {
	type key struct{}
	kept := make(chan context.Context, 2)
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if ctx.Err() != nil || context.Cause(ctx) != nil {
			t.Error("it has ended before the request")
		}
		if r.URL.Path == "/asked" {
			child, cancel := context.WithCancel(context.WithValue(ctx, key{}, 1))
			context.AfterFunc(child, cancel)
			if child.Err() != nil || HeadOf(r.WithContext(child)) == nil {
				t.Error("a context of it is another")
			}
			ctx = child
		}
		kept <- ctx
	})
	for _, path := range []string{"/", "/asked"} {
		exchange(t, addr, "GET "+path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		ctx := <-kept
		for until := time.Now().Add(10 * time.Second); ctx.Err() == nil && time.Now().Before(until); {
			time.Sleep(time.Millisecond) // the answer comes first
		}
		if ctx.Err() != context.Canceled || context.Cause(ctx) != context.Canceled {
			t.Errorf("%s: %v", path, ctx.Err())
		}
		late, cancel := context.WithCancel(ctx)
		<-late.Done()
		<-ctx.Done()
		cancel()
	}
}

func TestUsualNamesAndPathsAreAsPackageHTTPHasThem(t *testing.T) {
	for in, name := range usual {
		if want := http.CanonicalHeaderKey(in); name != want || canonical([]byte(in)) != want {
			t.Errorf("%s: %s, want %s", in, name, want)
		}
	}
	for _, s := range []string{"x-other", "X-OTHER", "cONTENT-tYPE", "a b"} {
		if got, want := canonical([]byte(s)), http.CanonicalHeaderKey(s); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
	for _, s := range []string{
		"/", "//", "/a/B-c._~/9", "/a?b", "/a?", "/a??", "/a?b?", "/?x=%2F&y#z", "/a%41", "/%2f", "/a:b", "/a+b", "/a=b", "/$LATEST", "/é", "/a#b", "/a;b", "*", "", "a", "http://h/p?q", "//h/p", "/a\"", "/[",
	} {
		got, err := parseTarget(s)
		want, wantErr := url.ParseRequestURI(s)
		if (err == nil) != (wantErr == nil) || err == nil && *got != *want {
			t.Errorf("%s: %+v, %v; want %+v, %v", s, got, err, want, wantErr)
		}
	}
}
