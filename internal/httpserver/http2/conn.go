package http2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

const (
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	firstBuffer = 4 << 10
	// lingerTime is how long a viewer whose connection ends has to read why.
	lingerTime = 500 * time.Millisecond
	// pingTime is how long a viewer may take to answer a PING.
	pingTime = 15 * time.Second
	// goodbyeTime is how long requests that the viewer has sent before it heard that
	// the connection ends are waited for, if it does not answer a PING.
	goodbyeTime = time.Second
)

// conn is a connection of a viewer.
type conn struct {
	s      *Server
	ctx    context.Context // that requests' descend from
	limits limits
	nc     net.Conn // frames are written to it: TLS, or the link
	link   *Link
	tls    *tls.ConnectionState
	addr   string

	// What follows is of the goroutine that reads.

	// buf[r:w] has been read and not used yet.
	buf     []byte
	r, w    int
	decoder *hpack.Decoder
	head    Head
	block   block
	reply   Reply
	budget  budget
	settled bool      // the viewer's first SETTINGS have come
	begun   time.Time // when it began what is incomplete; zero: nothing is
	now     time.Time // about when the last bytes came

	handlers sync.WaitGroup

	mu  sync.Mutex // of all that follows; it is never held while the viewer is waited for
	out []byte     // frames that are not written yet
	err error      // why the connection has ended

	streams map[uint32]*stream
	running int        // handlers
	last    uint32     // the highest stream
	given   [16]uint32 // streams that we have reset of late, of which more may come
	queue   []*stream  // have something to send, and may
	window  int64      // what the viewer lets us send
	initial int64      // the same of a new stream
	receive flow       // what we let it send
	leaving bool       // no requests are taken any more
	goodbye *[8]byte   // the PING behind which no requests come; nil: none
	clock   clock      // of the connection's time limits
}

// block is a field block that is coming.
type block struct {
	stream uint32 // 0: none
	end    bool   // the request has no body
	size   int
	self   bool // it depends on itself
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *conn {
	c := &conn{
		s: s, ctx: context.WithoutCancel(ctx), limits: s.limits(), buf: make([]byte, firstBuffer), streams: map[uint32]*stream{},
		window: firstWindow, initial: firstWindow, receive: flow{left: connWindow, full: connWindow},
	}
	c.link, c.nc, c.tls = linkOf(nc)
	c.head.TLS = c.tls
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) { c.head.add(f) })
	c.decoder.SetMaxStringLength(maxList)
	if a := nc.RemoteAddr(); a != nil {
		c.addr = a.String()
	}
	return c
}

// Drain implements conns.Conn: the viewer is told to send no more requests, and may
// have sent some before it hears that.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving || c.err != nil {
		return
	}
	c.leaving, c.goodbye = true, &[8]byte{'b', 'y', 'e'}
	c.clock.goodbye = time.Now().Add(goodbyeTime)
	c.out = appendGoAway(c.out, maxWindow, codeNone)
	c.out = appendPing(c.out, 0, c.goodbye[:])
	c.flush()
	c.wake()
}

// Abort implements conns.Conn.
func (c *conn) Abort() { _ = c.link.Conn.Close() } // what waits for it fails

// Reasons for the end of a connection that are nobody's fault.
var (
	errIdle = errors.New("http2: the connection was idle")
	errDone = errors.New("http2: the connection has done what it had to")
	errDead = errors.New("http2: the viewer does not answer")
	errLate = errors.New("http2: a head took too long")
	errGone = errors.New("http2: the viewer has gone")
)

// serve answers requests until the connection ends.
func (c *conn) serve() {
	c.link.hold(c.limits.write, c.taken)
	err := c.run()
	c.end(err)
	c.handlers.Wait()
}

func (c *conn) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.s.log().Error("edge: a connection made the server panic", "panic", p, "stack", string(debug.Stack()))
			err = &connError{codeInternal, "panic"}
		}
	}()
	c.now = time.Now()
	c.mu.Lock()
	c.clock.begin(c.now)
	c.out = appendSettings(getBuffer(), setting{settingStreams, uint32(c.limits.streams)}, setting{settingWindow, streamWindow}, setting{settingHeaderBytes, maxList})
	c.out = appendWindow(c.out, 0, connWindow-firstWindow)
	c.mu.Unlock()
	if c.tls != nil && c.tls.Version < tls.VersionTLS12 {
		return &connError{codeInsecure, "a version of TLS before 1.2"}
	}
	if err := c.readPreface(); err != nil {
		return err
	}
	for {
		f, err := c.next()
		if err != nil {
			return err
		}
		if err := c.take(&f); err != nil {
			stream, ok := err.(*streamError)
			if !ok {
				return err
			}
			if !c.budget.spend(costReset, c.now) {
				return &connError{codeCalm, "too many errors"}
			}
			c.mu.Lock()
			c.reset(stream.id, stream.code, stream)
			c.mu.Unlock()
		}
	}
}

func (c *conn) readPreface() error {
	for c.w-c.r < len(preface) {
		if string(c.buf[c.r:c.w]) != preface[:c.w-c.r] {
			return protocol("no preface")
		}
		if err := c.more(true); err != nil {
			return err
		}
	}
	if string(c.buf[c.r:c.r+len(preface)]) != preface {
		return protocol("no preface")
	}
	c.r += len(preface)
	return nil
}

// next returns the next frame, which is valid until the next call.
func (c *conn) next() (frame, error) {
	for {
		if b := c.buf[c.r:c.w]; len(b) >= frameHead {
			f := parseFrameHead(b)
			if f.length > maxFrame {
				return f, &connError{codeFrameSize, "a frame larger than was allowed"}
			}
			if end := frameHead + f.length; len(b) >= end {
				f.payload = b[frameHead:end]
				c.r += end
				if c.block.stream == 0 { // else it is takeBlock that knows when the block is whole
					c.begun = time.Time{}
				}
				return f, nil
			}
		}
		if err := c.more(c.w > c.r || c.block.stream != 0 || !c.settled); err != nil {
			return frame{}, err
		}
	}
}

// more sends what is ready and reads more into the buffer.
func (c *conn) more(incomplete bool) error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w == len(c.buf) && c.r > 0:
		c.w, c.r = copy(c.buf, c.buf[c.r:c.w]), 0
	case c.w == len(c.buf):
		c.buf = append(c.buf, make([]byte, min(3*len(c.buf), frameHead+maxFrame-len(c.buf)))...)
	}
	for {
		if err := c.prepare(incomplete); err != nil {
			return err
		}
		n, err := c.nc.Read(c.buf[c.w:])
		if n > 0 {
			c.w += n
			c.clock.heard = true
			return nil
		}
		if err != nil && !os.IsTimeout(err) {
			return errors.Join(errGone, err)
		}
	}
}

// prepare sends what is ready, keeps the time limits, and waits where the viewer
// takes too little of what it gets.
func (c *conn) prepare(incomplete bool) error {
	c.mu.Lock()
	c.flush()
	now := time.Now()
	c.now = now
	if incomplete && c.begun.IsZero() {
		c.begun = now
	}
	err := c.keepTime(now)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.link.wait(maxHeld); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// take deals with a frame.
func (c *conn) take(f *frame) error {
	switch {
	case c.block.stream != 0 && (f.kind != frameContinuation || f.stream != c.block.stream):
		return protocol("a frame within a field block")
	case !c.settled && f.kind != frameSettings:
		return protocol("the first frame is not SETTINGS")
	}
	switch f.kind {
	case frameData:
		return c.takeData(f)
	case frameHeaders:
		return c.takeHeaders(f)
	case framePriority:
		return c.takePriority(f)
	case frameReset:
		return c.takeReset(f)
	case frameSettings:
		return c.takeSettings(f)
	case framePush:
		return protocol("PUSH_PROMISE from a client")
	case framePing:
		return c.takePing(f)
	case frameGoAway:
		return c.takeGoAway(f)
	case frameWindow:
		return c.takeWindow(f)
	case frameContinuation:
		if c.block.stream == 0 {
			return protocol("CONTINUATION of nothing")
		}
		return c.takeBlock(f)
	}
	return c.spend(costControl) // of a kind that we do not know
}

func (c *conn) spend(cost int) error {
	if !c.budget.spend(cost, c.now) {
		return &connError{codeCalm, "too many frames that ask for nothing"}
	}
	return nil
}

// takeHeaders begins a field block.
func (c *conn) takeHeaders(f *frame) error {
	if f.stream%2 == 0 {
		return protocol("a stream of a client has an odd number")
	}
	if err := f.unpad(); err != nil {
		return err
	}
	c.block = block{stream: f.stream, end: f.flags&flagEndStream != 0}
	if f.flags&flagPriority != 0 {
		if len(f.payload) < 5 {
			return &connError{codeFrameSize, "HEADERS too short for its priority"}
		}
		c.block.self = dependency(f.payload) == f.stream
		f.payload = f.payload[5:]
	}
	c.mu.Lock()
	_, open := c.streams[f.stream]
	last := c.last
	c.mu.Unlock()
	if !open && f.stream <= last {
		return &connError{codeStreamClosed, "HEADERS of a stream that has ended"}
	}
	c.head.reset(open)
	return c.takeBlock(f)
}

// takeBlock takes a part of a field block.
func (c *conn) takeBlock(f *frame) error {
	if c.block.size += frameHead + len(f.payload); c.block.size > maxBlock {
		return &connError{codeCalm, "a field block that does not end"}
	}
	if _, err := c.decoder.Write(f.payload); err != nil {
		return &connError{codeCompression, err.Error()}
	}
	if f.flags&flagEndHeaders == 0 {
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return &connError{codeCompression, err.Error()}
	}
	b := c.block
	c.block, c.begun = block{}, time.Time{}
	c.clock.asked = true
	switch {
	case c.head.trailer:
		return c.takeTrailer(b)
	case b.self:
		c.mu.Lock()
		c.last = b.stream
		c.mu.Unlock()
		return &streamError{b.stream, codeProtocol, "a stream that depends on itself"}
	}
	return c.request(b)
}

// request answers a request, or has the handler do it.
func (c *conn) request(b block) error {
	c.mu.Lock()
	refuse := c.leaving && c.goodbye == nil
	busy := len(c.streams) >= c.limits.streams || c.running >= 2*c.limits.streams
	if !refuse {
		c.last = b.stream
	}
	c.mu.Unlock()
	h := &c.head
	if refuse {
		return nil // the viewer has been told that it is not served
	}
	if why := h.check(b.end); why != "" {
		return &streamError{b.stream, codeProtocol, why}
	}
	if busy {
		return &streamError{b.stream, codeRefused, "too many streams"}
	}
	if c.s.Fast != nil && b.end && !h.long && strings.HasPrefix(h.Path, "/") {
		c.reply.Block, c.reply.Body = c.reply.Block[:0], nil
		if c.s.Fast.ServeHit(h, &c.reply) {
			c.mu.Lock()
			c.answer(b, &c.reply)
			c.mu.Unlock()
			c.reply.Body = nil
			return nil
		}
	}
	r, refused := h.request()
	if refused != nil {
		c.refuse(b, refused)
		return nil
	}
	c.begin(b, r)
	return nil
}

// refuse answers a request that the handler does not see.
func (c *conn) refuse(b block, refused *refusal) {
	kind, body := "text/plain; charset=utf-8", []byte(refused.why+"\n")
	if c.s.Refusal != nil {
		kind, body = c.s.Refusal(refused.status, refused.why)
	}
	r := Reply{Block: AppendStatus(nil, refused.status)}
	r.Block = AppendField(r.Block, "Content-Type", kind)
	r.Block = AppendField(r.Block, "Date", c.now.UTC().Format(http.TimeFormat))
	if c.head.Method != http.MethodHead {
		r.Body = body
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer(b, &r)
}

// end ends the connection, telling the viewer why where it is still there.
func (c *conn) end(err error) {
	code := codeNone
	if e, ok := errors.AsType[*connError](err); ok {
		code = e.code
	}
	c.s.log().Debug("edge: an HTTP/2 connection has ended", "viewer", c.addr, "reason", err)
	gone := errors.Is(err, errGone)
	if !gone && code == codeNone {
		_ = c.link.wait(0) // answers that are complete; what fails is said below
	}
	c.mu.Lock()
	for _, st := range c.streams {
		c.drop(st, errGone)
	}
	if !gone {
		c.out = appendGoAway(c.out, c.last, code)
		if t, ok := c.nc.(*tls.Conn); ok {
			c.flush()
			_ = t.CloseWrite() // held back
		}
	}
	c.flush()
	c.err = err
	c.mu.Unlock()
	if !gone {
		c.linger()
	}
	_ = c.nc.Close() // nothing more is to be sent
}

// linger lets the viewer read what was sent before the socket is closed. How much it
// sends meanwhile does not count: a socket that is closed with something unread is
// reset, and one that floods would not learn why.
func (c *conn) linger() {
	c.link.hurry(lingerTime)
	if c.link.wait(0) != nil || c.link.CloseWrite() != nil {
		return
	}
	if c.link.Conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, c.link.Conn) // until it has closed, or the time is over
	}
}

// buffer returns the frames that are ready, in memory to append more to. c.mu is
// held.
func (c *conn) buffer() []byte {
	if c.out == nil {
		c.out = getBuffer()
	}
	return c.out
}

// flush writes the frames that are ready. It does not wait for the viewer. c.mu is
// held.
func (c *conn) flush() {
	if len(c.out) > 0 {
		_, err := c.nc.Write(c.out)
		putBuffer(c.out)
		c.out = nil
		c.fail(err)
	}
	c.fail(c.link.flush())
}

// fail takes note of an error of the socket. c.mu is held.
func (c *conn) fail(err error) {
	if err != nil && c.err == nil {
		c.err = errors.Join(errGone, err)
		c.wake()
	}
}

// taken is told that the socket has taken some of what was held.
func (c *conn) taken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 {
		c.pump()
		c.flush()
	}
}

// wake has the goroutine that reads look after the connection. c.mu is held.
func (c *conn) wake() {
	c.clock.wakeAt = time.Unix(1, 0)
	_ = c.nc.SetReadDeadline(c.clock.wakeAt) // of a socket that is closed, otherwise
}
