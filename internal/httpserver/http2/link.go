package http2

import (
	"errors"
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
	held    [][]byte      // not sent yet, in buffers
	size    int           // of it, and of what the goroutine is sending
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

// bufferSize is that of a buffer: it has room for what is gathered before it is
// sealed, one more frame, and what TLS adds to it.
const bufferSize = sealAt + 2*maxFrame

// buffers are for what is held; a connection that is idle has none.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// getBuffer returns an empty buffer.
func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

// putBuffer takes a buffer back, unless it has grown.
func putBuffer(b []byte) {
	if cap(b) == bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
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
	l.size += len(p)
	for rest := p; len(rest) > 0; {
		i := len(l.held) - 1
		if i < 0 || len(l.held[i]) == cap(l.held[i]) {
			l.held = append(l.held, getBuffer())
			continue
		}
		b := l.held[i]
		n := copy(b[len(b):cap(b)], rest)
		l.held[i], rest = b[:len(b)+n], rest[n:]
	}
	return len(p), nil
}

// flush sends what is held, as much as the socket takes now, and leaves the rest to
// the goroutine.
func (l *Link) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending || l.err != nil {
		return l.err
	}
	for len(l.held) > 0 && l.err == nil {
		b, n := l.held[0], 0
		if l.raw != nil {
			n, l.err = writeNow(l.raw, b)
			l.size -= n
		}
		if n < len(b) {
			l.held[0] = b[:copy(b, b[n:])]
			l.sending = true
			go l.send()
			break
		}
		l.pop()
		putBuffer(b)
	}
	return l.err
}

// pop takes the first of what is held. l.mu is held.
func (l *Link) pop() []byte {
	b := l.held[0]
	l.held = append(l.held[:0], l.held[1:]...)
	return b
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

// send sends what is held until nothing is, waiting for the viewer.
func (l *Link) send() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.held) > 0 && l.err == nil {
		b := l.pop()
		deadline := time.Now().Add(l.patient)
		l.mu.Unlock()
		err := l.Conn.SetWriteDeadline(deadline)
		if err == nil {
			_, err = l.Conn.Write(b)
		}
		l.mu.Lock()
		l.size -= len(b)
		l.err = errors.Join(l.err, err)
		l.changed.Broadcast()
		putBuffer(b)
		if l.sent != nil {
			l.mu.Unlock()
			l.sent()
			l.mu.Lock()
		}
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
	return l.size
}

// wait waits until at most n bytes are held.
func (l *Link) wait(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.size > n && l.err == nil && l.sending {
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
