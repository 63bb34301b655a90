package guest

import (
	"io"
	"net"
	"sync"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// link writes frames to the host. A failed write is not reported: the reader
// of the same connection sees the end and ends the guest.
type link struct {
	mu   sync.Mutex
	w    io.Writer
	buf  []byte
	held []byte // frames that wait for the next one
}

// hold sends whole frames together with the next one, since each write wakes the
// host. The caller makes sure that one is about to come, or flush called.
func (l *link) hold(frames []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, frames...)
}

// end sends what is held and drops whatever is written from now on.
func (l *link) end() {
	l.flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = io.Discard
}

// flush sends what is held.
func (l *link) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) > 0 {
		l.w.Write(l.begin())
	}
}

// begin returns the start of what to write: what is held. l.mu is held.
func (l *link) begin() []byte {
	if len(l.held) == 0 {
		return l.buf[:0]
	}
	b := append(l.buf[:0], l.held...)
	l.held = l.held[:0]
	return b
}

// send sends a frame without a body.
func (l *link) send(t proto.Type, v any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = proto.AppendFrame(l.begin(), t, v)
	l.w.Write(l.buf)
}

// meta sends a frame with a meta and a body.
func (l *link) meta(t proto.Type, meta any, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = proto.AppendMeta(l.begin(), t, meta, len(body))
	if len(body) <= proto.MaxChunk {
		l.buf = append(l.buf, body...)
		l.w.Write(l.buf)
		return
	}
	(&net.Buffers{l.buf, body}).WriteTo(l.w)
}

// raw sends whole frames.
func (l *link) raw(frames []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) > 0 {
		l.buf = append(l.begin(), frames...)
		frames = l.buf
	}
	l.w.Write(frames)
}
