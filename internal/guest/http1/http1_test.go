package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
)

// pipeConn is a net.Conn that reads from a string.
type pipeConn struct {
	net.Conn
	r io.Reader
	w bytes.Buffer
}

func (c *pipeConn) Read(p []byte) (int, error)      { return c.r.Read(p) }
func (c *pipeConn) Write(p []byte) (int, error)     { return c.w.Write(p) }
func (c *pipeConn) Close() error                    { return nil }
func (c *pipeConn) SetReadDeadline(time.Time) error { return nil }

// serveBytes serves one connection that sends in and then ends, and returns
// what the server wrote and what its handler saw.
func serveBytes(in string) (out string, seen []string) {
	s := NewServer(func(r *Request) Response {
		body, err := io.ReadAll(r.Body)
		line := fmt.Sprintf("%s %s %q", r.Method, r.Path, body)
		for _, f := range r.Body.Trailer {
			line += fmt.Sprintf(" [%s=%s]", f.Name, f.Value)
		}
		if err != nil {
			line += " error"
		}
		seen = append(seen, line)
		return Response{Status: 200, Body: []byte("ok")}
	}, nil)
	c := &pipeConn{r: strings.NewReader(in)}
	s.serve(s.add(c), nil, nil)
	return c.w.String(), seen
}

func statuses(t *testing.T, out string) (codes []int) {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(out))
	for {
		if _, err := br.Peek(1); err != nil {
			return codes
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		io.Copy(io.Discard, resp.Body)
		codes = append(codes, resp.StatusCode)
	}
}

func TestServe(t *testing.T) {
	const h = "Host: x\r\n"
	for _, c := range []struct {
		name, in string
		codes    []int
		seen     []string
	}{
		{"get", "GET /a?b=c HTTP/1.1\r\n" + h + "\r\n", []int{200}, []string{`GET /a ""`}},
		{"absolute target", "GET http://x:9001/a/b HTTP/1.1\r\n" + h + "\r\n", []int{200}, []string{`GET /a/b ""`}},
		{"bare line feeds", "GET / HTTP/1.1\nHost: x\n\n", []int{200}, []string{`GET / ""`}},
		{"empty line before", "\r\nGET / HTTP/1.1\r\n" + h + "\r\n", []int{200}, []string{`GET / ""`}},
		{"pipelined", "POST /1 HTTP/1.1\r\n" + h + "Content-Length: 2\r\n\r\nhiGET /2 HTTP/1.1\r\n" + h + "\r\n", []int{200, 200}, []string{`POST /1 "hi"`, `GET /2 ""`}},
		{"close", "GET /1 HTTP/1.1\r\n" + h + "Connection: foo, Close\r\n\r\nGET /2 HTTP/1.1\r\n" + h + "\r\n", []int{200}, []string{`GET /1 ""`}},
		{"chunked", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET /2 HTTP/1.1\r\n" + h + "\r\n", []int{200, 200}, []string{`POST / "abc0123456789" [T=v]`, `GET /2 ""`}},
		{"length beside chunked", "POST / HTTP/1.1\r\n" + h + "Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n" + h + "\r\n", []int{200}, []string{`POST / ""`}},
		{"equal lengths", "POST / HTTP/1.1\r\n" + h + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", []int{200}, []string{`POST / "x"`}},
		{"1.0", "GET / HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n", []int{200}, []string{`GET / ""`}},
		{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n", []int{200, 200}, []string{`GET / ""`, `GET /2 ""`}},
		{"truncated", "POST / HTTP/1.1\r\n" + h + "Content-Length: 5\r\n\r\nab", []int{200}, []string{`POST / "ab" error`}},
		{"truncated chunk", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", []int{200}, []string{`POST / "ab" error`}},
		{"chunk without end", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n2\r\nabX\r\n0\r\n\r\n", []int{200}, []string{`POST / "ab" error`}},
		{"chunk size", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", []int{200}, []string{`POST / "" error`}},
		{"huge chunk size", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", []int{200}, []string{`POST / "" error`}},
		{"no host", "GET / HTTP/1.1\r\n\r\n", []int{400}, nil},
		{"two hosts", "GET / HTTP/1.1\r\n" + h + h + "\r\n", []int{400}, nil},
		{"differing lengths", "POST / HTTP/1.1\r\n" + h + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", []int{400}, nil},
		{"signed length", "POST / HTTP/1.1\r\n" + h + "Content-Length: +1\r\n\r\nx", []int{400}, nil},
		{"folded", "GET / HTTP/1.1\r\n" + h + "A: b\r\n c\r\n\r\n", []int{400}, nil},
		{"blank before colon", "GET / HTTP/1.1\r\n" + h + "A : b\r\n\r\n", []int{400}, nil},
		{"control in value", "GET / HTTP/1.1\r\n" + h + "A: b\x01\r\n\r\n", []int{400}, nil},
		{"no version", "GET /\r\n\r\n", []int{400}, nil},
		{"two blanks", "GET  / HTTP/1.1\r\n" + h + "\r\n", []int{400}, nil},
		{"http 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{505}, nil},
		{"encoding", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: gzip, chunked\r\n\r\n", []int{501}, nil},
		{"expectation", "POST / HTTP/1.1\r\n" + h + "Expect: tea\r\nContent-Length: 1\r\n\r\nx", []int{417}, nil},
		{"long header", "GET / HTTP/1.1\r\n" + h + "A: " + strings.Repeat("a", MaxHead) + "\r\n\r\n", []int{431}, nil},
		{"many fields", "GET / HTTP/1.1\r\n" + h + strings.Repeat("a:b\n", MaxFields) + "\r\n", []int{431}, nil},
		{"endless line", strings.Repeat("G", MaxHead+1), []int{431}, nil},
		{"large header", "GET / HTTP/1.1\r\n" + h + "A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", []int{200}, []string{`GET / ""`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, seen := serveBytes(c.in)
			if got := statuses(t, out); !slices.Equal(got, c.codes) {
				t.Errorf("status %v, want %v", got, c.codes)
			}
			if !slices.Equal(seen, c.seen) {
				t.Errorf("seen %q, want %q", seen, c.seen)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	out, seen := serveBytes("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx")
	if !strings.HasPrefix(out, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") || len(seen) != 1 {
		t.Errorf("got %q, %q", out, seen)
	}
	// Refused without reading: no 100, and the connection ends, since the
	// body may come or not.
	s := NewServer(func(*Request) Response { return Response{Status: 403} }, nil)
	c := &pipeConn{r: strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")}
	s.serve(s.add(c), nil, nil)
	if out := c.w.String(); !strings.HasPrefix(out, "HTTP/1.1 403 ") || !strings.Contains(out, "Connection: close\r\n") {
		t.Errorf("got %q", out)
	}
}

func TestResponseHeaderCannotBeSplit(t *testing.T) {
	r := Response{Status: 200, Header: Fields{{"A", "b\r\nInjected: x\x00"}}}
	if got := string(appendHead(nil, &r, false)); !strings.Contains(got, "\r\nA: b  Injected: x \r\n") {
		t.Errorf("got %q", got)
	}
}

func TestNetHTTPClientOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(func(r *Request) Response {
		b, _ := io.ReadAll(r.Body)
		return Response{Status: 202, Header: Fields{{"X-Type", r.Header.Get("content-type")}}, Body: b}
	}, nil)
	go s.Serve(l)
	defer l.Close()
	tr := new(http.Transport)
	client := http.Client{Transport: tr, Timeout: 20 * time.Second}
	for _, n := range []int{0, 1, 4095, 8192, 100_000, 7_000_000} {
		body := strings.Repeat("z", n)
		// A plain reader makes the client send it chunked.
		for _, r := range []io.Reader{strings.NewReader(body), io.MultiReader(strings.NewReader(body))} {
			resp, err := client.Post("http://"+l.Addr().String()+"/x", "a/b", r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != body || resp.StatusCode != 202 || resp.Header.Get("X-Type") != "a/b" {
				t.Errorf("%d bytes: got %d, %v, %v", n, len(got), resp.Status, err)
			}
		}
	}
	if s.Idle(time.Millisecond) {
		t.Error("idle with a connection kept alive")
	}
	tr.CloseIdleConnections()
	if !s.Idle(10 * time.Second) {
		t.Error("a closed connection is still counted")
	}
}

func TestGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := &Request{conn: conn}
	if r.Gone() {
		t.Error("gone while connected")
	}
	client.Close()
	for deadline := time.Now().Add(30 * time.Second); !r.Gone(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never gone")
		}
	}
}

// FuzzServe compares the parser with that of net/http: what this one accepts,
// that one accepts too, and they agree on what was said. (It may be stricter.)
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		"GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;e\r\nabc\r\n0\r\nT: v\r\n\r\n",
		"POST http://y/b HTTP/1.1\nHost: x\nConnection: close\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &serverConn{conn: &pipeConn{}, br: bufio.NewReaderSize(bytes.NewReader(in), readBuffer)}
		req, err := c.readRequest()
		if err != nil {
			return
		}
		body, bodyErr := io.ReadAll(req.Body)
		in = bytes.TrimPrefix(bytes.TrimPrefix(in, []byte("\r")), []byte("\n")) // the empty line before
		ref, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			// It also reads the target as a URL, and the host.
			if strings.Contains(err.Error(), "parse ") || strings.Contains(err.Error(), "Host") || strings.Contains(err.Error(), "method") {
				return
			}
			t.Fatalf("accepted what net/http refuses: %v", err)
		}
		if ref.Method != req.Method || len(ref.URL.Opaque) == 0 && ref.URL.EscapedPath() != req.Path && !(ref.URL.Path == "" && req.Path == "/") && ref.URL.RawPath == "" && ref.URL.Path != req.Path {
			t.Fatalf("%q %q, net/http: %q %q", req.Method, req.Path, ref.Method, ref.URL)
		}
		for _, f := range req.Header {
			name := textproto.CanonicalMIMEHeaderKey(f.Name)
			switch name {
			case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Trailer", "Cache-Control", "Pragma":
				continue
			}
			if !slices.Contains(ref.Header[name], f.Value) {
				t.Fatalf("field %q, net/http has %q", f, ref.Header)
			}
		}
		refBody, refErr := io.ReadAll(ref.Body)
		if bodyErr == nil && refErr == nil && !bytes.Equal(body, refBody) {
			t.Fatalf("body %q, net/http %q", body, refBody)
		}
		if bodyErr == nil && refErr != nil && !strings.Contains(refErr.Error(), "trailer") && !strings.Contains(refErr.Error(), "chunk") && !strings.Contains(refErr.Error(), "malformed") {
			t.Fatalf("body %q without the error of net/http: %v", body, refErr)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	in := []byte("POST /2018-06-01/runtime/invocation/8476a536-e9f4-11e8-9739-2dfe598c3fcd/response HTTP/1.1\r\n" +
		"Host: 127.0.0.1:9001\r\nUser-Agent: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	r := bytes.NewReader(in)
	c := &serverConn{conn: &pipeConn{}, br: bufio.NewReader(r)}
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(in)
		c.br.Reset(r)
		req, err := c.readRequest()
		if err != nil || !req.Body.discard() {
			b.Fatal(err)
		}
	}
}
