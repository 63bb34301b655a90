package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// What the parser accepts, net/http reads in the same way: method, target, Host,
// fields, body, and what is left for the next request.
func FuzzRequestAgainstNetHTTP(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET http://a/b?c HTTP/1.1\r\nHost: h\r\nA: b\r\na: c\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\nGET",
		"GET / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: h:80\r\nExpect: 100-continue\r\n\r\n",
		"GET /%zz HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, body, rest, ok := ours(in)
		if !ok {
			return
		}
		br := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(in, "\r\n")))
		want, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		wantBody, err := io.ReadAll(want.Body)
		if err != nil {
			t.Fatalf("net/http refuses the body: %v", err)
		}
		wantRest, _ := io.ReadAll(br)
		if got.Method != want.Method || got.RequestURI != want.RequestURI || got.Host != want.Host ||
			got.ContentLength != want.ContentLength || got.Proto != want.Proto || got.URL.String() != want.URL.String() {
			t.Errorf("%+v\n%+v", got, want)
		}
		want.Header.Del("Host")
		if len(got.Header) != len(want.Header) {
			t.Errorf("%v\n%v", got.Header, want.Header)
		}
		if !bytes.Equal(body, wantBody) || !bytes.Equal(rest, wantRest) {
			t.Errorf("body %q, rest %q; net/http has %q and %q", body, rest, wantBody, wantRest)
		}
	})
}

// script is a connection that has something to read.
type script struct {
	net.Conn
	r io.Reader
}

func (s script) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s script) Write(p []byte) (int, error)      { return len(p), nil }
func (s script) SetReadDeadline(time.Time) error  { return nil }
func (s script) SetWriteDeadline(time.Time) error { return nil }
func (s script) RemoteAddr() net.Addr             { return nil }
func (s script) LocalAddr() net.Addr              { return nil }

// ours reads a request with its body, and tells whether it is accepted.
func ours(in []byte) (r *http.Request, content, rest []byte, ok bool) {
	reader := bytes.NewReader(in)
	c := newConn(context.Background(), &Server{}, script{r: reader})
	raw, err := c.readHead()
	if err != nil || c.head.parse(raw) != nil || !c.head.own(raw) {
		return nil, nil, nil, false
	}
	h := &c.head
	r, refused := c.request(h, context.Background())
	if refused != nil {
		return nil, nil, nil, false
	}
	b := &body{c: c, left: max(h.length, 0), chunked: h.chunked}
	if content, err = io.ReadAll(b); err != nil {
		return nil, nil, nil, false
	}
	rest = append(bytes.Clone(c.buf[c.r:c.w]), in[len(in)-reader.Len():]...)
	return r, content, rest, true
}
