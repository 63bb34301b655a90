// Package http1 is a small, strict HTTP/1.1 server for the Runtime API inside
// a sandbox. It exists because net/http costs about 100 µs more per request
// under gVisor, twice per invocation (goroutine hand-overs and deadlines that
// this server does not need); its parser is compared with net/http's by a fuzz
// test.
//
// It does keep-alive, pipelining, Content-Length and chunked request bodies,
// trailers and 100-continue. Responses are whole values with a known length;
// there are no timeouts, because the only client is the function itself, which
// pays for the time.
package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lapwing.dev/lapwing/internal/httpsyntax"
	"lapwing.dev/lapwing/internal/quiet"
)

// Limits of what a client may send.
const (
	// MaxHead is the largest request line and header together, and the largest
	// trailer section. The Runtime API carries X-Ray causes of up to 1 MiB in a
	// header.
	MaxHead = 1024*1024 + 4096
	// MaxFields is the largest number of header fields.
	MaxFields = 1000
	// MaxConns is the largest number of connections served at a time.
	MaxConns = 128

	readBuffer = 8 * 1024
	// smallBody is the largest body that is copied behind its head so that
	// both leave in one write.
	smallBody = 32 * 1024
)

// Response is a whole response.
type Response struct {
	Status int
	Header Fields // without Content-Length, Date and Connection
	Body   []byte
}

// Handler answers a request. It may block; other connections go on.
type Handler func(*Request) Response

// Server serves connections of one listener.
type Server struct {
	handler Handler
	ended   func()

	mu    sync.Mutex
	conns map[net.Conn]*serverConn
	none  chan struct{} // closed and replaced when the last connection ends
}

// NewServer returns a Server that answers with h. It calls ended, if that is not
// nil, when a connection has ended.
func NewServer(h Handler, ended func()) *Server {
	return &Server{handler: h, ended: ended, conns: map[net.Conn]*serverConn{}, none: make(chan struct{})}
}

// Serve accepts connections until l is closed; it returns the error of Accept.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			return err
		}
		conn = quiet.New(conn)
		c := s.add(conn)
		if c == nil {
			refusal := Response{Status: 503}
			conn.Write(appendHead(nil, &refusal, true))
			conn.Close()
			continue
		}
		go s.serve(c, nil, nil)
	}
}

// Idle waits until no connection is open, but no longer than limit.
func (s *Server) Idle(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		s.mu.Lock()
		n, none := len(s.conns), s.none
		s.mu.Unlock()
		if n == 0 {
			return true
		}
		select {
		case <-none:
		case <-timer.C:
			return false
		}
	}
}

// add returns the new connection conn, or nil where there are too many.
func (s *Server) add(conn net.Conn) *serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= MaxConns {
		return nil
	}
	c := &serverConn{conn: conn, br: bufio.NewReaderSize(conn, readBuffer)}
	s.conns[conn] = c
	return c
}

func (s *Server) remove(conn net.Conn) {
	conn.Close()
	if s.ended != nil {
		s.ended()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	if len(s.conns) == 0 {
		close(s.none)
		s.none = make(chan struct{})
	}
}

// serve answers the requests of one connection, one after the other. req, where
// it is not nil, has been read already and is answered by handle.
func (s *Server) serve(c *serverConn, req *Request, handle Handler) {
	defer s.remove(c.conn)
	defer c.flush()
	pipelined := false
	for ; ; req = nil {
		if req == nil {
			var err error
			if req, err = c.readRequest(); err != nil {
				var bad *badRequest
				if errors.As(err, &bad) {
					c.refuse(bad)
				}
				return
			}
			req.Pipelined, handle = pipelined, s.handler
		}
		c.request.Store(req)
		resp := handle(req)
		// Take the rest of the request before the answer: a client that still
		// writes would otherwise not read it, or lose it to a reset.
		if !req.Body.discard() {
			req.close = true
		}
		pipelined = !req.close && c.hasRequest()
		if err := c.write(req, &resp, pipelined); err != nil || req.close {
			return
		}
		c.request.Store(nil)
	}
}

// hasRequest tells whether another request without a body has come already.
func (c *serverConn) hasRequest() bool {
	b, _ := c.br.Peek(c.br.Buffered())
	return bytes.HasPrefix(b, []byte("GET ")) && bytes.Contains(b, []byte("\r\n\r\n"))
}

// serverConn is one connection.
type serverConn struct {
	conn net.Conn
	br   *bufio.Reader
	head []byte // the head of the request being read; reused

	request atomic.Pointer[Request] // being answered

	out []byte // responses on their way; reused
}

// refuse answers a request that could not be understood and gives the client a
// moment to read the answer.
func (c *serverConn) refuse(bad *badRequest) {
	resp := Response{
		Status: bad.status,
		Header: Fields{{"Content-Type", "text/plain; charset=utf-8"}},
		Body:   []byte(strconv.Itoa(bad.status) + " " + reason(bad.status) + ": " + bad.why + "\n"),
	}
	if c.write(&Request{Proto: "HTTP/1.1", close: true}, &resp, false) != nil {
		return
	}
	if w, ok := c.conn.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
	c.conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	io.Copy(io.Discard, io.LimitReader(c.conn, MaxHead))
}

// write sends a response, or holds it back for the next one to take along: a
// client that sends its next request without waiting for the answer is not in a
// hurry for it, and each write wakes the client. That next request may be the
// one for the next event, which may be long in coming; but then the client may be
// frozen until it comes, and could not count on an answer before.
func (c *serverConn) write(req *Request, resp *Response, hold bool) error {
	c.out = appendHead(c.out, resp, req.close)
	if req.Proto == "HTTP/1.0" && !req.close {
		c.out = append(c.out[:len(c.out)-2], "Connection: keep-alive\r\n\r\n"...)
	}
	body := resp.Body
	if req.Method == "HEAD" {
		body = nil
	}
	if len(body) > smallBody {
		head := c.out
		c.out = c.out[:0]
		_, err := (&net.Buffers{head, body}).WriteTo(c.conn)
		return err
	}
	c.out = append(c.out, body...)
	if hold && resp.Status < 300 && len(c.out) <= smallBody {
		return nil
	}
	return c.flush()
}

// flush sends what is held back.
func (c *serverConn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// appendHead appends the status line and header of resp.
func appendHead(b []byte, resp *Response, close bool) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	b = append(b, ' ')
	b = append(b, reason(resp.Status)...)
	b = append(b, "\r\n"...)
	for _, f := range resp.Header {
		b = append(b, f.Name...)
		b = append(b, ": "...)
		b = appendValue(b, f.Value)
		b = append(b, "\r\n"...)
	}
	b = append(b, "Date: "...)
	b = httpsyntax.AppendDate(b, time.Now())
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(resp.Body)), 10)
	if close {
		b = append(b, "\r\nConnection: close"...)
	}
	return append(b, "\r\n\r\n"...)
}

// appendValue appends a header value, which may come from a caller of the
// function, with line breaks made spaces: no value can add a field.
func appendValue(b []byte, v string) []byte {
	for i := range len(v) {
		if ch := v[i]; ch == '\r' || ch == '\n' || ch == 0 {
			b = append(b, ' ')
		} else {
			b = append(b, ch)
		}
	}
	return b
}

func reason(status int) string {
	switch status {
	case 200:
		return "OK"
	case 202:
		return "Accepted"
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 413:
		return "Request Entity Too Large"
	case 417:
		return "Expectation Failed"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 503:
		return "Service Unavailable"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Status"
}
