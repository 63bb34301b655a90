package http2

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Link is a socket, below a TLS connection, on which the server holds back what TLS
// writes: the records of many frames go out in one system call, and no write waits
// for the viewer. What the socket does not take at once a goroutine sends, which
// Close ends.
type Link struct {
	net.Conn
	raw syscall.RawConn // nil: everything goes through the goroutine

	mu      sync.Mutex
	changed sync.Cond // less is held, or err is set
	holds   bool
	held    []byte        // not sent yet
	flying  int           // what the goroutine is sending
	sending bool          // the goroutine runs
	patient time.Duration // how long a viewer may take none of it
	err     error
	sent    func() // is told when the goroutine has sent something
}

// NewLink returns a Link over a socket, on which nothing is held back yet.
func NewLink(c net.Conn) *Link {
	l := &Link{Conn: c, patient: time.Minute}
	l.changed.L = &l.mu
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			l.raw = raw
		}
	}
	return l
}

// hold begins to hold writes back.
func (l *Link) hold(patient time.Duration, sent func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds, l.patient, l.sent = true, patient, sent
}

// buffers are for what is held; a connection that is idle has none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2*sealAt); return &b }}

// getBuffer returns an empty buffer, and putBuffer takes it back.
func getBuffer() []byte { return *buffers.Get().(*[]byte) }

func putBuffer(b []byte) {
	if c := cap(b); c >= 2*sealAt && c <= 8*sealAt {
		b = b[:0]
		buffers.Put(&b)
	}
}

// Write implements io.Writer.
func (l *Link) Write(p []byte) (int, error) {
	l.mu.Lock()
	if !l.holds {
		l.mu.Unlock()
		return l.Conn.Write(p)
	}
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	if l.held == nil {
		l.held = getBuffer()
	}
	l.held = append(l.held, p...)
	return len(p), nil
}

// flush sends what is held, as much as the socket takes now, and leaves the rest to
// the goroutine.
func (l *Link) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending || len(l.held) == 0 || l.err != nil {
		return l.err
	}
	n := 0
	if l.raw != nil {
		if n, l.err = writeNow(l.raw, l.held); l.err != nil {
			return l.err
		}
	}
	if n == len(l.held) {
		putBuffer(l.held)
		l.held = nil
		return nil
	}
	l.held = l.held[:copy(l.held, l.held[n:])]
	l.sending = true
	go l.send()
	return nil
}

// writeNow writes what a socket takes without waiting.
func writeNow(raw syscall.RawConn, p []byte) (n int, err error) {
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			m, e := unix.Write(int(fd), p[n:])
			switch {
			case e == unix.EINTR:
				continue
			case e == unix.EAGAIN:
				return true
			case e != nil:
				failed = os.NewSyscallError("write", e)
				return true
			}
			n += m
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// maxWrite is the most that is written under one deadline.
const maxWrite = 64 << 10

// send sends what is held until nothing is, waiting for the viewer.
func (l *Link) send() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.held) > 0 && l.err == nil {
		b := l.held
		l.held, l.flying = nil, len(b)
		for p := b; len(p) > 0 && l.err == nil; {
			n := min(len(p), maxWrite)
			deadline := time.Now().Add(l.patient)
			l.mu.Unlock()
			err := l.Conn.SetWriteDeadline(deadline)
			if err == nil {
				n, err = l.Conn.Write(p[:n])
			}
			l.mu.Lock()
			p, l.flying, l.err = p[n:], l.flying-n, err
			l.changed.Broadcast()
			if l.sent != nil {
				l.mu.Unlock()
				l.sent()
				l.mu.Lock()
			}
		}
		l.flying = 0
		putBuffer(b)
	}
	if l.err == nil {
		l.err = l.Conn.SetWriteDeadline(time.Time{}) // or it would fail the next flush
	}
	l.sending = false
	l.changed.Broadcast()
}

// backlog is how many bytes are held.
func (l *Link) backlog() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held) + l.flying
}

// wait waits until at most n bytes are held.
func (l *Link) wait(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.held)+l.flying > n && l.err == nil && l.sending {
		l.changed.Wait()
	}
	return l.err
}

// hurry has the viewer take what is held within a time.
func (l *Link) hurry(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.patient = d
	_ = l.Conn.SetWriteDeadline(time.Now().Add(d)) // of a socket that is closed soon
}

// SetWriteDeadline implements net.Conn. Writes that are held back have none.
func (l *Link) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds {
		return nil
	}
	return l.Conn.SetWriteDeadline(t)
}

// CloseWrite shuts the writing side down.
func (l *Link) CloseWrite() error {
	if w, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close closes the socket. What is held is sent as far as the socket takes it.
func (l *Link) Close() error {
	_ = l.flush() // such as TLS's last record; the socket is closed all the same
	l.mu.Lock()
	if l.holds && l.err == nil {
		l.err = net.ErrClosed
	}
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.Conn.Close()
}

var _ io.WriteCloser = (*Link)(nil)
