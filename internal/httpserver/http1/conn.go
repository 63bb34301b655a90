package http1

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/httpserver/loops"
	"lapwing.dev/lapwing/internal/httpsyntax"
)

const (
	firstBuffer = 4 << 10
	// bigReply is the size from which a body is not copied behind its head.
	bigReply = 16 << 10
	// maxHeld is how much of the answers to pipelined requests is sent at once.
	maxHeld = 64 << 10
	// maxDiscard is how much of a body that nobody wants is read away to save the
	// connection.
	maxDiscard = 256 << 10
	// lingerTime is how long a viewer whose request was refused has to read why.
	lingerTime = 500 * time.Millisecond
)

// Conn is a connection of a viewer.
type Conn struct {
	s     *Server
	ctx   context.Context // that requests' descend from
	tls   *tls.ConnectionState
	addr  string
	local net.Addr

	// A connection is served by its goroutine, which has it as nc, or by an event loop,
	// which has it as socket; the other is nil. mu is held where that changes, and by
	// those who end it.
	mu      sync.Mutex
	nc      net.Conn
	raw     syscall.RawConn // of nc in clear text; nil: there is none
	socket  *loops.Socket
	aborted bool
	home    *loops.Group // whose loops it may be in; nil: none

	streak   int // the last so many answers were fast
	patience int // how many it takes for the goroutine to leave it to a loop
	stay     int // how many answers came from the loop since

	// buf[r:w] has been read from the connection and not used yet.
	buf  []byte
	r, w int
	err  error // of the last read

	out  []byte // answers that are not sent yet
	head Head
	// readBy and writeBy are the deadlines that are set.
	readBy, writeBy time.Time
	// state tells Shutdown what the connection does.
	state    atomic.Int32
	hijacked bool
	served   bool // a request has come

	// Value is for the Fast handler to keep what it knows of the connection.
	Value any
}

// The states of a connection.
const (
	idle int32 = iota
	busy
	ending
)

func newConn(ctx context.Context, s *Server, nc net.Conn) *Conn {
	if ctx.Done() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	c := &Conn{s: s, ctx: ctx, nc: nc, tls: tlsState(nc), local: nc.LocalAddr(), buf: make([]byte, firstBuffer)}
	if c.tls == nil {
		c.raw = rawOf(nc)
	}
	if a := nc.RemoteAddr(); a != nil {
		c.addr = a.String()
	}
	return c
}

// rawOf returns what system calls on a connection need, nil where it has no socket.
func rawOf(nc net.Conn) syscall.RawConn {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// RemoteAddr is the viewer's address and port.
func (c *Conn) RemoteAddr() string { return c.addr }

// LocalAddr is the address that the viewer has connected to.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// TLS is the state of the TLS connection, nil without one.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// Drain implements conns.Conn: a connection that waits for a request ends. Its own
// goroutine closes it, since TLS may wait for the viewer then.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket != nil {
		c.socket.Drain()
	} else if c.state.CompareAndSwap(idle, ending) {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// Abort implements conns.Conn. It does not have TLS say goodbye.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	if c.socket != nil {
		c.socket.Abort()
		return
	}
	if t, ok := c.nc.(interface{ NetConn() net.Conn }); ok {
		t.NetConn().Close()
		return
	}
	c.nc.Close()
}

// run serves the connection in a goroutine.
func (c *Conn) run() {
	ended := true
	defer func() {
		if ended {
			c.s.conns.Remove(c)
		}
	}()
	ended = c.serve()
}

// serve answers requests until the connection ends, or returns to an event loop.
func (c *Conn) serve() (ended bool) {
	ended = true
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
		if ended && !c.hijacked {
			c.nc.Close()
		}
	}()
	for {
		if c.home != nil && c.streak >= c.patience && c.enterLoop() {
			return false
		}
		raw, err := c.readHead()
		if err != nil {
			if refused, ok := err.(*badRequest); ok {
				c.refuse(refused)
			}
			return
		}
		if !c.served && c.tls == nil && c.s.PriorKnowledge != nil && string(raw) == preface {
			c.hijacked = true
			c.nc.SetReadDeadline(time.Time{})
			c.s.PriorKnowledge(&begun{c.nc, append([]byte(preface+"\r\n\r\n"), c.buf[c.r:c.w]...)})
			return
		}
		c.served = true
		if c.s.Fast == nil {
			raw = bytes.Clone(raw) // what the handler has of the head outlives the buffer
		}
		if refused := c.parse(raw); refused != nil {
			c.refuse(refused)
			return
		}
		if !c.answer(raw) {
			return
		}
		if c.s.isClosing() {
			c.flush()
			return
		}
	}
}

func (c *Conn) panicked(p any) {
	c.s.log().Error("a request made the server panic", "panic", p, "stack", string(debug.Stack()))
}

// parse parses a head within the limits of the server.
func (c *Conn) parse(raw []byte) *badRequest {
	if refused := c.head.parse(raw); refused != nil {
		return refused
	}
	if len(c.head.Target) > orDefault(c.s.MaxTarget, MaxTarget) {
		return errTarget
	}
	return nil
}

// preface is the head with which HTTP/2 begins.
const preface = "PRI * HTTP/2.0"

// begun is a connection of which something has been read already.
type begun struct {
	net.Conn
	read []byte
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) > 0 {
		n := copy(p, b.read)
		b.read = b.read[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// answer answers the request whose head has been parsed, and tells whether the
// connection goes on.
func (c *Conn) answer(raw []byte) bool {
	if fast, err := c.answerFast(); fast {
		c.streak++
		return err == nil
	}
	c.streak = 0
	if c.flush() != nil {
		return false
	}
	if c.s.Fast != nil && !c.head.own(raw) {
		return false
	}
	return c.serveHandler()
}

// answerFast has the Fast handler answer the request whose head has been parsed, and
// tells whether it did. The answer is sent, or held back where the next request is
// there already.
func (c *Conn) answerFast() (answered bool, err error) {
	h := &c.head
	if c.s.Fast == nil || h.close || h.HasBody() || h.Minor != 1 || h.upgrade || h.Target[0] != '/' {
		return false, nil
	}
	r := Reply{Buffer: c.out}
	if !c.s.Fast.ServeFast(c, h, &r) {
		return false, nil
	}
	c.out = r.Buffer
	if len(r.Body) > bigReply {
		err = c.writeBoth(c.out, r.Body)
		c.out = c.out[:0]
		return true, err
	}
	c.out = append(c.out, r.Body...)
	if len(c.out) > maxHeld || !c.hasHead() {
		err = c.flush()
	}
	return true, err
}

// hasHead tells whether another head has come whole.
func (c *Conn) hasHead() bool {
	return c.w > c.r && bytes.Contains(c.buf[c.r:c.w], []byte("\r\n\r\n"))
}

// readHead reads the next head, and returns it without its last line end. It is
// valid until the next read.
func (c *Conn) readHead() ([]byte, error) {
	searched := 0
	started, waiting := false, false
	for {
		raw, err := c.nextHead(&searched)
		if err != nil {
			return nil, err
		}
		if raw != nil {
			c.state.CompareAndSwap(idle, busy)
			return raw, nil
		}
		if c.w > c.r && !started {
			// The head has begun to come: it has to go on.
			started = true
			c.state.CompareAndSwap(idle, busy)
			c.setReadDeadline(orDefault(c.s.HeaderTimeout, 30*time.Second), 0)
		} else if !started && !waiting { // empty lines that come give no more time
			waiting = true
			if err := c.awaitHead(); err != nil {
				return nil, err
			}
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// nextHead returns the next head without its last line end, nil where it has not come
// whole. searched is how much of it is known to have no end; it begins with 0.
func (c *Conn) nextHead(searched *int) ([]byte, error) {
	// An empty line before a request is to be ignored (RFC 9112, 2.2).
	for *searched == 0 && c.w-c.r >= 2 && c.buf[c.r] == '\r' && c.buf[c.r+1] == '\n' {
		c.r += 2
	}
	b, limit := c.buf[c.r:c.w], orDefault(c.s.MaxHead, MaxHead)
	end := bytes.Index(b[*searched:], []byte("\r\n\r\n"))
	if end += *searched; end >= *searched {
		if end > limit {
			return nil, errLong
		}
		c.r += end + 4
		return b[:end], nil
	}
	if len(b) > limit {
		return nil, errLong
	}
	*searched = max(len(b)-3, 0)
	return nil, nil
}

// awaitHead prepares for a head of which nothing has come.
func (c *Conn) awaitHead() error {
	if err := c.flush(); err != nil {
		return err
	}
	limit := orDefault(c.s.IdleTimeout, time.Minute)
	if !c.served {
		limit = orDefault(c.s.FirstTimeout, limit)
	}
	c.setReadDeadline(limit, time.Second) // before Drain may set its own
	if c.state.Swap(idle) == ending || c.s.isClosing() {
		return io.EOF
	}
	return nil
}

var (
	errLong   = &badRequest{0, "the header is too large"}
	errFields = &badRequest{0, "too many header fields"}
	errTarget = &badRequest{http.StatusRequestURITooLong, "the URL is too long"}
)

// fill reads more into the buffer.
func (c *Conn) fill() error {
	if c.err != nil {
		return c.err
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if c.w == len(c.buf) {
		if c.r > 0 {
			copy(c.buf, c.buf[c.r:c.w])
			c.w -= c.r
			c.r = 0
		} else {
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
	}
	n, err := c.nc.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// setReadDeadline sets when reads fail, unless one is set that is no more than
// slack earlier.
func (c *Conn) setReadDeadline(d, slack time.Duration) {
	at := time.Now().Add(d)
	if early := at.Sub(c.readBy); early >= 0 && early <= slack {
		return
	}
	c.readBy = at
	c.nc.SetReadDeadline(at)
}

// renewWriteDeadline gives a write at least half of the time that it may take.
func (c *Conn) renewWriteDeadline() {
	d := orDefault(c.s.WriteTimeout, time.Minute)
	now := time.Now()
	if c.writeBy.Sub(now) < d/2 {
		c.writeBy = now.Add(d)
		c.nc.SetWriteDeadline(c.writeBy)
	}
}

// flush sends what is held back.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	var err error
	if c.socket != nil {
		err = c.socket.Write(c.out, nil)
	} else {
		c.renewWriteDeadline()
		_, err = c.nc.Write(c.out)
	}
	if c.out = c.out[:0]; cap(c.out) > 2*maxHeld {
		c.out = nil
	}
	return err
}

// maxWrite is the most that is written under one deadline.
const maxWrite = 512 << 10

// writeBoth sends a and then b, together where that is one system call.
func (c *Conn) writeBoth(a, b []byte) error {
	if c.socket != nil {
		return c.socket.Write(a, b)
	}
	for len(b) > 0 {
		n := min(len(b), maxWrite)
		c.renewWriteDeadline()
		var err error
		switch {
		case len(a) > 0 && c.raw != nil:
			err = c.writev(a, b[:n])
			a = nil
		case len(a) > 0:
			// TLS makes records of it all the same.
			if _, err = c.nc.Write(a); err == nil {
				_, err = c.nc.Write(b[:n])
			}
			a = nil
		default:
			_, err = c.nc.Write(b[:n])
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// writev sends a and b in one system call, if they go at once.
func (c *Conn) writev(a, b []byte) error {
	v := [][]byte{a, b}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		for {
			n, err := unix.Writev(int(fd), v)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return false
			case err != nil:
				failed = os.NewSyscallError("writev", err)
				return true
			}
			for len(v) > 0 && n >= len(v[0]) {
				n -= len(v[0])
				v = v[1:]
			}
			if len(v) == 0 {
				return true
			}
			v[0] = v[0][n:]
		}
	})
	if err == nil {
		err = failed
	}
	return err
}

// refuse answers a request that was not understood, and gives the viewer a moment
// to read the answer.
func (c *Conn) refuse(refused *badRequest) {
	if refused == errLong || refused == errFields {
		refused = &badRequest{orDefault(c.s.LongHead, http.StatusRequestEntityTooLarge), refused.why}
	}
	contentType, body := "text/plain; charset=utf-8", []byte(refused.why+"\n")
	if c.s.Refusal != nil {
		contentType, body = c.s.Refusal(refused.status, refused.why)
	}
	b := append(c.out, "HTTP/1.1 "...)
	b = appendStatus(b, refused.status)
	b = append(b, "\r\nContent-Type: "...)
	b = append(b, contentType...)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\nDate: "...)
	b = httpsyntax.AppendDate(b, time.Now())
	b = append(b, "\r\nConnection: close\r\n\r\n"...)
	c.out = append(b, body...)
	if c.flush() != nil {
		return
	}
	c.linger()
}

// linger ends the sending side and reads on for a moment, so that what was sent is
// not lost to a reset. How much comes in that time does not count: a viewer that is
// still sending megabytes reads the answer behind them.
func (c *Conn) linger() {
	if w, ok := c.nc.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, c.nc)
}

// own copies what h holds out of the connection's buffer, which what the handler
// has of it outlives.
func (h *Head) own(raw []byte) bool {
	h.Fields = nil
	return h.parse(bytes.Clone(raw)) == nil
}

type headKey struct{}

// HeadOf returns the head of a request of this server as it came, nil of others.
func HeadOf(r *http.Request) *Head {
	h, _ := r.Context().Value(headKey{}).(*Head)
	return h
}

// request makes the standard request of a head.
func (c *Conn) request(h *Head, ctx context.Context) (*http.Request, *badRequest) {
	r := new(http.Request).WithContext(ctx)
	r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = method(h.Method), "HTTP/1.1", 1, h.Minor
	r.Header, r.Host, r.RemoteAddr = make(http.Header, len(h.Fields)), string(h.Host), c.addr
	r.RequestURI, r.TLS, r.Close = string(h.Target), c.tls, h.close
	if h.Minor == 0 {
		r.Proto = "HTTP/1.0"
	}
	if r.Method == http.MethodConnect {
		return nil, &badRequest{http.StatusNotImplemented, "CONNECT is not supported"}
	}
	var err error
	if r.URL, err = parseTarget(r.RequestURI); err != nil || h.Target[0] != '/' && r.URL.Opaque == "" && r.URL.Host == "" && r.RequestURI != "*" {
		return nil, bad("malformed request target")
	}
	if r.URL.Host != "" {
		if !httpsyntax.IsHost(r.URL.Host) {
			return nil, bad("malformed request target")
		}
		r.Host = r.URL.Host
	}
	values := make([]string, len(h.Fields)) // one allocation for all
	for i, f := range h.Fields {
		name := canonical(f.Name)
		if name == "Host" {
			continue
		}
		values[i] = string(f.Value)
		if have, ok := r.Header[name]; ok {
			r.Header[name] = append(have, values[i])
		} else {
			r.Header[name] = values[i : i+1 : i+1]
		}
	}
	switch {
	case h.chunked:
		r.ContentLength = -1
		r.TransferEncoding = []string{"chunked"}
		delete(r.Header, "Transfer-Encoding")
	case h.length > 0:
		r.ContentLength = h.length
	}
	return r, nil
}

// parseTarget parses a request target. Paths that need no decoding, which is most of
// them, are not looked at byte by byte four times.
func parseTarget(s string) (*url.URL, error) {
	path, query, asks := strings.Cut(s, "?")
	if isPlainPath(path) && asks == (query != "") {
		return &url.URL{Path: path, RawQuery: query}, nil
	}
	return url.ParseRequestURI(s)
}

// isPlainPath tells whether a path is what package url would decode and encode it to.
func isPlainPath(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', httpsyntax.IsDigit(c), c == '/', c == '-', c == '.', c == '_', c == '~':
		default:
			return false
		}
	}
	return path != "" && path[0] == '/'
}

// usual are the canonical names of the fields that are usual, by these and in lower
// case.
var usual = func() map[string]string {
	names := make(map[string]string)
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Authorization", "Cache-Control",
		"Connection", "Content-Encoding", "Content-Length", "Content-Md5", "Content-Type", "Cookie", "Date", "Expect", "Host",
		"If-Match", "If-Modified-Since", "If-None-Match", "Origin", "Pragma", "Range", "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
		"Sec-Fetch-Site", "Transfer-Encoding", "Upgrade-Insecure-Requests", "User-Agent", "X-Amz-Client-Context", "X-Amz-Content-Sha256",
		"X-Amz-Date", "X-Amz-Invocation-Type", "X-Amz-Log-Type", "X-Amz-Security-Token", "X-Amz-Target", "X-Amz-User-Agent",
		"X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Proto",
	} {
		names[name], names[strings.ToLower(name)] = name, name
	}
	return names
}()

// canonical returns the canonical form of a field's name, without a copy of the usual
// ones.
func canonical(name []byte) string {
	if s, ok := usual[string(name)]; ok {
		return s
	}
	return http.CanonicalHeaderKey(string(name))
}

// method returns a method's name, without a copy of the usual ones.
func method(b []byte) string {
	switch string(b) {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodHead:
		return http.MethodHead
	case http.MethodPost:
		return http.MethodPost
	}
	return string(b)
}
