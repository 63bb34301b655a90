package http1

import (
	"bufio"
	"io"
	"net"
	"sync"
	"time"
)

// Exchange answers requests that a client has handed over whole, without a
// connection, and is waiting for, and appends the answers to b. Of what was asked
// before the last request only refusals are answered, and what a handler gave up is
// not: see Request.Wait.
func (s *Server) Exchange(b, requests []byte, w Waiter) []byte {
	x := exchanges.Get().(*exchange)
	defer x.release()
	x.in, x.out = requests, b
	c := &x.serverConn
	for pipelined := false; ; {
		req, err := c.readRequest()
		if err != nil {
			if bad, ok := err.(*badRequest); ok {
				c.refuse(bad)
			}
			break
		}
		req.Pipelined, req.waiter = pipelined, w
		resp := s.handler(req)
		if resp.Status == 0 || !req.Body.discard() {
			break
		}
		pipelined = !req.close && c.hasRequest()
		if pipelined && resp.Status < 300 {
			continue
		}
		if err := c.write(req, &resp, false); err != nil || !pipelined {
			break
		}
	}
	return x.out
}

// Waiter waits for the answer to a request of an exchange.
type Waiter interface {
	// Wait waits until something is sent on ready. It tells whether it was worth it.
	Wait(ready chan struct{}) bool
	// Wake is called when something has been sent on ready.
	Wake()
}

// Exchanged tells whether the request is one of an exchange.
func (r *Request) Exchanged() bool { return r.waiter != nil }

// Wait waits for ready, on which something is sent before Wake is called. It tells
// whether the client still waits for the answer, which else is the zero Response.
func (r *Request) Wait(ready chan struct{}) bool {
	if r.waiter != nil {
		return r.waiter.Wait(ready)
	}
	<-ready
	return true
}

// Wake ends Wait.
func (r *Request) Wake() {
	if r.waiter != nil {
		r.waiter.Wake()
	}
}

// exchanges keeps what an exchange needs for the next one.
var exchanges = sync.Pool{New: func() any {
	x := new(exchange)
	x.conn = x
	x.br = bufio.NewReaderSize(x, readBuffer)
	return x
}}

// exchange is the connection that an exchange does without.
type exchange struct {
	serverConn
	in, out []byte
}

var _ net.Conn = (*exchange)(nil)

func (x *exchange) release() {
	x.in, x.out = nil, nil
	x.br.Reset(x)
	exchanges.Put(x)
}

// Read implements net.Conn.
func (x *exchange) Read(p []byte) (int, error) {
	if len(x.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, x.in)
	x.in = x.in[n:]
	return n, nil
}

// Write implements net.Conn.
func (x *exchange) Write(p []byte) (int, error) {
	x.out = append(x.out, p...)
	return len(p), nil
}

// The rest of net.Conn means nothing here.

func (*exchange) Close() error                     { return nil }
func (*exchange) LocalAddr() net.Addr              { return nil }
func (*exchange) RemoteAddr() net.Addr             { return nil }
func (*exchange) SetDeadline(time.Time) error      { return nil }
func (*exchange) SetReadDeadline(time.Time) error  { return nil }
func (*exchange) SetWriteDeadline(time.Time) error { return nil }
