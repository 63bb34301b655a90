package http1

import (
	"net"
)

// A server can be taken apart while nothing happens on its connections, and put
// together again from what Resting returns.

// Rested is a connection on which nothing happens.
type Rested struct {
	Conn net.Conn
	// Request is under way: the handler has it, and whoever knows that nothing
	// happens there can tell by its Alone that nothing of another has come. nil
	// means that the connection waits for a request.
	Request *Request
}

// Resting returns the connections, and whether they all rest: that needs
// connections that can tell of themselves, by a method Resting, that the goroutine
// that reads from them waits for good. It must not be called on a server that goes
// on.
func (s *Server) Resting() ([]Rested, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Rested, 0, len(s.conns))
	for conn, c := range s.conns {
		r := Rested{conn, c.request.Load()}
		if r.Request == nil {
			reader, ok := conn.(interface{ Resting() bool })
			if !ok || !reader.Resting() || len(c.head) > 0 || !c.empty() {
				return nil, false
			}
		}
		all = append(all, r)
	}
	return all, true
}

// empty tells whether nothing has been read of the connection, or is to be
// written, but the request under way.
func (c *serverConn) empty() bool { return c.br.Buffered() == 0 && len(c.out) == 0 }

// Alone tells, of a request without a body in the hands of a handler that waits,
// whether there is nothing on its connection beside it.
func (r *Request) Alone() bool { return r.Body.c.empty() }

// Close tells whether the connection ends after the response.
func (r *Request) Close() bool { return r.close }

// Resume serves a connection of an earlier server. method, where it is not empty,
// is that of a request under way without a body, of protocol proto, after whose
// response the connection is closed or not; handle answers it.
func (s *Server) Resume(conn net.Conn, method, proto string, close bool, handle Handler) {
	c := s.add(conn)
	if c == nil {
		conn.Close()
		return
	}
	var req *Request
	if method != "" {
		req = &Request{Method: method, Proto: proto, Body: &Body{c: c}, close: close, conn: conn}
	}
	go s.serve(c, req, handle)
}
