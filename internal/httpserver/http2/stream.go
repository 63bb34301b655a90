package http2

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// errReset is that of a stream that the viewer has given up.
var errReset = errors.New("http2: the viewer has given the request up")

// stream is a request that is not answered whole. Its connection's lock is of all of
// it.
type stream struct {
	c       *conn
	id      uint32
	changed sync.Cond
	cancel  context.CancelCauseFunc // of the request's context; nil: it has no handler
	err     error                   // why nothing is sent any more

	// The answer.
	window  int64  // what the viewer lets us send
	rest    []byte // is being sent, by pump
	end     bool   // and is the last of it
	trailer []byte // comes behind it, as a field block
	headed  bool   // its head is sent
	ended   bool   // all is sent
	queued  bool
	sending patience
	writeBy *time.Timer

	// The body of the request.
	receive  flow
	data     []byte // has come, and is not read yet
	read     int    // of data
	readErr  error  // behind data; nil: more comes
	closed   bool   // nobody reads it
	complete bool   // all has come
	starved  bool   // somebody waits for more
	declared int64  // Content-Length, -1 if there is none
	got      int64
	trailers []Field
	starving patience
	readBy   *time.Timer
}

// flow is a window of what may come.
type flow struct{ left, owed, full int64 }

func (f *flow) take(n int) bool { f.left -= int64(n); return f.left >= 0 }

// give takes back what was read, and returns by how much the sender's window is to
// be opened: not for every few bytes.
func (f *flow) give(n int) int {
	if f.owed += int64(n); 4*f.owed < f.full {
		return 0
	}
	n = int(f.owed)
	f.left, f.owed = f.left+f.owed, 0
	return n
}

// patience measures how long something waits without getting on. It is reset by
// whoever gets it on.
type patience struct{ since time.Time }

func (p *patience) over(waits bool, limit time.Duration, now time.Time) bool {
	switch {
	case !waits:
		p.since = time.Time{}
	case p.since.IsZero():
		p.since = now
	default:
		return now.Sub(p.since) >= limit
	}
	return false
}

func (c *conn) newStream(id uint32, declared int64, complete bool) *stream {
	st := &stream{
		c: c, id: id, window: c.initial, declared: declared, complete: complete,
		receive: flow{left: streamWindow, full: streamWindow},
	}
	st.changed.L = &c.mu
	c.streams[id] = st
	return st
}

// sweep ends what has waited on a stream for too long. c.mu is held.
func (c *conn) sweep(st *stream, now time.Time) {
	if st.sending.over(len(st.rest) > 0 || st.end && !st.ended, c.limits.write, now) {
		c.reset(st.id, codeCancel, os.ErrDeadlineExceeded)
		return
	}
	if st.starving.over(st.starved, c.limits.body, now) {
		st.readErr = os.ErrDeadlineExceeded
		st.changed.Broadcast()
	}
}

// reset ends a stream, and tells the viewer. c.mu is held.
func (c *conn) reset(id uint32, code code, err error) {
	c.out = appendReset(c.out, id, code)
	copy(c.given[1:], c.given[:])
	c.given[0] = id
	if st := c.streams[id]; st != nil {
		c.drop(st, err)
	}
}

// drop forgets a stream. c.mu is held.
func (c *conn) drop(st *stream, err error) {
	delete(c.streams, st.id)
	st.err, st.rest = err, nil
	if st.queued { // it would stay for as long as the queue's first stream is stopped
		i := slices.Index(c.queue, st)
		c.queue, st.queued = slices.Delete(c.queue, i, i+1), false
	}
	if st.readErr == nil {
		st.readErr = err
	}
	c.give(len(st.data) - st.read)
	st.data, st.read = nil, 0
	for _, t := range []*time.Timer{st.readBy, st.writeBy} {
		if t != nil {
			t.Stop()
		}
	}
	if st.cancel != nil && !st.ended {
		st.cancel(err)
	}
	st.changed.Broadcast()
	if len(c.streams) == 0 {
		c.clock.idleSince = time.Now()
		if c.leaving {
			c.wake()
		}
	}
}

// give opens the connection's window by what was read. c.mu is held.
func (c *conn) give(n int) {
	if n := c.receive.give(n); n > 0 {
		c.out = appendWindow(c.out, 0, n)
	}
}

// credit opens the windows of a stream and its connection. c.mu is held.
func (st *stream) credit(n int) {
	st.c.give(n)
	if st.complete || st.err != nil {
		return
	}
	if n := st.receive.give(n); n > 0 {
		st.c.out = appendWindow(st.c.out, st.id, n)
	}
}

// takeData takes a part of a request's body.
func (c *conn) takeData(f *frame) error {
	if f.stream == 0 {
		return protocol("DATA of no stream")
	}
	if err := f.unpad(); err != nil {
		return err
	}
	if len(f.payload) == 0 && f.flags&flagEndStream == 0 {
		if err := c.spend(costControl); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream > c.last {
		return protocol("DATA of a stream that has not begun")
	}
	if !c.receive.take(f.length) {
		return &connError{codeFlowControl, "more DATA than was allowed"}
	}
	st := c.streams[f.stream]
	if st == nil || st.complete {
		c.give(f.length)
		if slices.Contains(c.given[:], f.stream) {
			return nil // it was under way
		}
		return &streamError{f.stream, codeStreamClosed, "DATA of a stream that has ended"}
	}
	if err := st.takeData(f); err != nil {
		c.give(f.length)
		return err
	}
	return nil
}

func (st *stream) takeData(f *frame) error {
	if !st.receive.take(f.length) {
		return &streamError{st.id, codeFlowControl, "more DATA than was allowed"}
	}
	last := f.flags&flagEndStream != 0
	st.got += int64(len(f.payload))
	if st.declared >= 0 && (st.got > st.declared || last && st.got < st.declared) {
		return &streamError{st.id, codeProtocol, "DATA is not of the length that was declared"}
	}
	st.credit(f.length - len(f.payload)) // padding
	if st.closed || st.readErr != nil {
		st.c.give(len(f.payload))
	} else {
		st.data = append(st.data, f.payload...)
	}
	if last {
		st.finishBody()
	}
	st.starving = patience{}
	st.changed.Broadcast()
	return nil
}

func (st *stream) finishBody() {
	st.complete = true
	if st.readErr == nil {
		st.readErr = io.EOF
	}
}

// takeTrailer takes the trailer of a request.
func (c *conn) takeTrailer(b block) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[b.stream]
	switch why := c.head.check(b.end); {
	case st == nil:
		return nil // it has ended meanwhile
	case st.complete:
		return &streamError{b.stream, codeStreamClosed, "HEADERS of a request that is complete"}
	case !b.end:
		return &streamError{b.stream, codeProtocol, "a trailer that is not the end"}
	case why != "":
		return &streamError{b.stream, codeProtocol, why}
	case c.head.long:
		return &streamError{b.stream, codeCalm, "the trailer is too large"}
	case st.declared >= 0 && st.got != st.declared:
		return &streamError{b.stream, codeProtocol, "DATA is not of the length that was declared"}
	}
	st.trailers = slices.Clone(c.head.Fields)
	st.finishBody()
	st.changed.Broadcast()
	return nil
}

func (c *conn) takePriority(f *frame) error {
	switch {
	case f.stream == 0:
		return protocol("PRIORITY of no stream")
	case f.length != 5:
		return &streamError{f.stream, codeFrameSize, "PRIORITY of a wrong size"}
	case dependency(f.payload) == f.stream:
		return &streamError{f.stream, codeProtocol, "a stream that depends on itself"}
	}
	return c.spend(costControl)
}

// dependency is the stream that a priority depends on.
func dependency(b []byte) uint32 { return binary.BigEndian.Uint32(b) & (1<<31 - 1) }

func (c *conn) takeReset(f *frame) error {
	if f.length != 4 {
		return &connError{codeFrameSize, "RST_STREAM of a wrong size"}
	}
	c.mu.Lock()
	last := c.last
	if st := c.streams[f.stream]; st != nil {
		c.drop(st, errReset)
	}
	c.mu.Unlock()
	if f.stream == 0 || f.stream > last {
		return protocol("RST_STREAM of a stream that has not begun")
	}
	return c.spend(costReset)
}

func (c *conn) takeSettings(f *frame) error {
	switch {
	case f.stream != 0:
		return protocol("SETTINGS of a stream")
	case f.flags&flagAck != 0 && f.length != 0 || f.length%6 != 0:
		return &connError{codeFrameSize, "SETTINGS of a wrong size"}
	case f.flags&flagAck != 0:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.settled = true
	c.out = appendFrameHead(c.out, 0, frameSettings, flagAck, 0)
	c.pump() // windows may be wider
	return c.spend(costControl)
}

// set takes a setting of the viewer. c.mu is held.
func (c *conn) set(id uint16, value uint32) error {
	switch id {
	case settingPush:
		if value > 1 {
			return protocol("ENABLE_PUSH is neither 0 nor 1")
		}
	case settingFrame:
		if value < maxFrame || value > 1<<24-1 {
			return protocol("MAX_FRAME_SIZE out of bounds")
		}
	case settingWindow:
		if value > maxWindow {
			return &connError{codeFlowControl, "INITIAL_WINDOW_SIZE out of bounds"}
		}
		by := int64(value) - c.initial
		c.initial = int64(value)
		for _, st := range c.streams {
			if st.window += by; st.window > maxWindow {
				return &connError{codeFlowControl, "a window too wide"}
			}
			c.enqueue(st)
		}
	}
	return nil // the rest is about what we do not send
}

func (c *conn) takePing(f *frame) error {
	switch {
	case f.stream != 0:
		return protocol("PING of a stream")
	case f.length != 8:
		return &connError{codeFrameSize, "PING of a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.flags&flagAck != 0 {
		if c.goodbye != nil && [8]byte(f.payload) == *c.goodbye {
			c.farewell()
		}
		return nil
	}
	c.out = appendPing(c.out, flagAck, f.payload)
	return c.spend(costControl)
}

func (c *conn) takeGoAway(f *frame) error {
	switch {
	case f.stream != 0:
		return protocol("GOAWAY of a stream")
	case f.length < 8:
		return &connError{codeFrameSize, "GOAWAY of a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leaving || c.goodbye != nil {
		c.leaving = true
		c.farewell()
	}
	return nil
}

// farewell tells the viewer which requests were the last. c.mu is held.
func (c *conn) farewell() {
	c.goodbye = nil
	c.out = appendGoAway(c.out, c.last, codeNone)
	c.flush()
}

func (c *conn) takeWindow(f *frame) error {
	if f.length != 4 {
		return &connError{codeFrameSize, "WINDOW_UPDATE of a wrong size"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch st := c.streams[f.stream]; {
	case f.stream == 0 && n == 0:
		return protocol("WINDOW_UPDATE by nothing")
	case f.stream == 0:
		if c.window += n; c.window > maxWindow {
			return &connError{codeFlowControl, "a window too wide"}
		}
	case f.stream > c.last:
		return protocol("WINDOW_UPDATE of a stream that has not begun")
	case n == 0:
		return &streamError{f.stream, codeProtocol, "WINDOW_UPDATE by nothing"}
	case st != nil:
		if st.window += n; st.window > maxWindow {
			return &streamError{f.stream, codeFlowControl, "a window too wide"}
		}
		c.enqueue(st)
	}
	c.pump()
	return nil
}

// enqueue lets a stream send where it has something to. c.mu is held.
func (c *conn) enqueue(st *stream) {
	if !st.queued && (len(st.rest) > 0 || st.end) && st.err == nil {
		st.queued = true
		c.queue = append(c.queue, st)
	}
}

// pump makes frames of what streams have to send, by turns, as much as windows and
// the backlog of the socket allow. c.mu is held.
func (c *conn) pump() {
	for len(c.queue) > 0 {
		if c.crowded() {
			return // taken goes on
		}
		st := c.queue[0]
		if len(st.rest) > 0 && c.window <= 0 && st.err == nil {
			return
		}
		c.queue = append(c.queue[:0], c.queue[1:]...)
		st.queued = false
		if st.err == nil && (len(st.rest) == 0 || st.window > 0) {
			c.sendFrame(st)
			c.enqueue(st)
		}
	}
}

// crowded tells whether the socket has enough to take for now. One that has failed
// takes no more: what waits for it ends with the connection's error. c.mu is held.
func (c *conn) crowded() bool {
	if len(c.out) >= sealAt {
		c.flush()
	}
	return c.err != nil || len(c.out)+c.link.backlog() >= maxBacklog
}

// sendFrame sends a stream's next frame. c.mu is held.
func (c *conn) sendFrame(st *stream) {
	n := int(min(int64(len(st.rest)), maxFrame, st.window, c.window))
	last := st.end && n == len(st.rest)
	flags := byte(0)
	if last && st.trailer == nil {
		flags = flagEndStream
	}
	if n > 0 || flags != 0 {
		n = max(n, 0)
		c.out = appendFrameHead(c.buffer(), n, frameData, flags, st.id)
		c.out = append(c.out, st.rest[:n]...)
		st.rest = st.rest[n:]
		st.window -= int64(n)
		c.window -= int64(n)
		st.sending = patience{}
	}
	if last {
		if st.trailer != nil {
			c.out = appendHeaders(c.out, st.id, st.trailer, true)
		}
		st.end, st.ended = false, true
		c.finished(st.id, st.complete)
	}
	if len(st.rest) == 0 {
		st.changed.Broadcast()
	}
}

// finished ends a stream whose answer is complete: more of its request is not
// wanted. c.mu is held.
func (c *conn) finished(id uint32, complete bool) {
	if !complete {
		c.reset(id, codeNone, errAnswered)
	} else if st := c.streams[id]; st != nil {
		c.drop(st, errAnswered)
	}
}

// errAnswered is that of a stream whose answer is complete.
var errAnswered = http.ErrBodyReadAfterClose

// answer sends an answer that is there whole. c.mu is held.
func (c *conn) answer(b block, r *Reply) {
	n := int64(len(r.Body))
	c.out = appendHeaders(c.buffer(), b.stream, r.Block, n == 0)
	if n > 0 && (len(c.queue) > 0 || n > maxBacklog || n > c.initial || n > c.window || c.crowded()) {
		st := c.newStream(b.stream, -1, b.end)
		st.rest, st.end, st.closed = r.Body, true, true // nobody reads what comes
		c.enqueue(st)
		c.pump()
		return
	}
	c.window -= n
	for p := r.Body; len(p) > 0; {
		m, flags := len(p), byte(flagEndStream)
		if m > maxFrame {
			m, flags = maxFrame, 0
		}
		if len(c.out) >= sealAt {
			c.flush()
		}
		c.out = appendFrameHead(c.buffer(), m, frameData, flags, b.stream)
		c.out = append(c.out, p[:m]...)
		p = p[m:]
	}
	c.finished(b.stream, b.end)
}
