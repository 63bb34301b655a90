package http1

import (
	"net"
	"time"

	"lapwing.dev/lapwing/internal/httpserver/loops"
)

const (
	// maxTurn is how many requests of a connection are answered while others of its
	// loop wait; one with more at a time is for a goroutine.
	maxTurn = 64
	// enterAfter is after how many fast answers a connection leaves its goroutine for an
	// event loop, and returnAfter after how many it returns. Each move costs some system
	// calls, which a client that asks once, and so each time on another connection, is
	// spared: they were a third of what such a request costs.
	enterAfter  = 2
	returnAfter = 16
	// worthwhile is how many answers in a loop make up for the moves. Each shorter stay
	// doubles the fast answers that the next one takes, up to maxPatience, and each other
	// one halves them: a client of whom one request in twenty is a miss keeps its
	// goroutine.
	worthwhile  = 64
	maxPatience = 1024
	// maxIdleFields is how many fields a connection keeps memory for while it waits in
	// an event loop.
	maxIdleFields = 32
)

// startLoops returns the event loops, or nil where there are none: without a Fast
// handler there is nothing that they could answer.
func (s *Server) startLoops() *loops.Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loops == nil && s.Fast != nil && !s.isClosing() { // afterwards nobody would end them
		idle := orDefault(s.IdleTimeout, time.Minute)
		group, err := loops.New(loops.Limits{Idle: idle, Write: orDefault(s.WriteTimeout, time.Minute)})
		if err != nil {
			s.log().Warn("connections are served without event loops", "error", err)
			return nil
		}
		s.loops = group
	}
	return s.loops
}

// closeLoops ends the event loops.
func (s *Server) closeLoops() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loops != nil {
		s.loops.Close()
	}
}

// Serve implements loops.Conn: it answers what the Fast handler answers, and leaves
// everything else to the goroutine, which begins with the same request anew.
func (c *Conn) Serve(s *loops.Socket, in []byte) (used int, then loops.Then) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
			then = loops.End
		}
		s.Scratch = c.out
		c.buf, c.out, c.r, c.w = nil, nil, 0, 0
		if cap(c.head.Fields) > maxIdleFields {
			c.head.Fields = nil
		}
	}()
	c.buf, c.r, c.w, c.out = in, 0, len(in), s.Scratch[:0]
	for range maxTurn {
		begin, searched := c.r, 0
		raw, err := c.nextHead(&searched)
		if raw == nil || err != nil || c.parse(raw) != nil {
			return c.stop(begin)
		}
		fast, err := c.answerFast()
		switch {
		case err != nil:
			return 0, loops.End
		case !fast:
			return c.stop(begin)
		}
		c.served = true
		c.stay++
		if c.s.isClosing() {
			if c.flush() != nil {
				return 0, loops.End
			}
			return c.r, loops.End
		}
		if s.Full() || c.r == c.w {
			return c.r, loops.Stay
		}
	}
	return c.stop(c.r)
}

// stop ends a turn before a request that is not for the loop.
func (c *Conn) stop(used int) (int, loops.Then) {
	if c.flush() != nil {
		return 0, loops.End
	}
	return used, loops.Leave
}

// Leave implements loops.Conn.
func (c *Conn) Leave(nc net.Conn, read []byte, unsent [2][]byte) {
	c.mu.Lock()
	c.nc, c.raw, c.socket = nc, rawOf(nc), nil
	c.state.Store(idle)
	aborted := c.aborted
	c.mu.Unlock()
	c.buf, c.r, c.w = append(make([]byte, 0, max(firstBuffer, len(read))), read...), 0, len(read)
	c.buf = c.buf[:cap(c.buf)]
	c.readBy, c.writeBy, c.streak = time.Time{}, time.Time{}, 0
	if c.stay < worthwhile {
		c.patience = min(2*c.patience, maxPatience)
	} else {
		c.patience /= 2
	}
	c.patience, c.stay = max(c.patience, returnAfter), 0
	if aborted || c.sendFirst(unsent) != nil {
		nc.Close()
		c.s.conns.Remove(c)
		return
	}
	c.run()
}

// sendFirst sends what the socket did not take in the loop.
func (c *Conn) sendFirst(unsent [2][]byte) error {
	c.out = append(c.out, unsent[0]...)
	if len(unsent[1]) == 0 {
		return c.flush()
	}
	err := c.writeBoth(c.out, unsent[1])
	c.out = c.out[:0]
	return err
}

// enterLoop has the connection served by an event loop from now on, unless something
// has come for the goroutine to go on with.
func (c *Conn) enterLoop() bool {
	if c.r < c.w || len(c.out) > 0 || c.err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return false
	}
	fd, err := loops.Descriptor(c.nc)
	if err != nil { // not TCP itself, or too many open files
		c.streak, c.patience = 0, returnAfter
		return false
	}
	c.nc, c.raw, c.buf, c.out, c.head = nil, nil, nil, nil, Head{}
	c.socket = c.home.Socket(fd, c)
	if c.s.isClosing() { // Drain may have found the goroutine busy
		c.socket.Drain()
	}
	c.socket.Start()
	return true
}

// Ended implements loops.Conn.
func (c *Conn) Ended(err error) {
	if err != nil {
		c.s.log().Warn("a connection was lost", "viewer", c.addr, "error", err)
	}
	c.s.conns.Remove(c)
}
