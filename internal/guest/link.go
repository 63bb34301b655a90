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
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// json sends a frame with a JSON payload.
func (l *link) json(t proto.Type, v any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = proto.AppendJSON(l.buf[:0], t, v)
	l.w.Write(l.buf)
}

// meta sends a frame with a meta and a body.
func (l *link) meta(t proto.Type, meta any, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = proto.AppendMeta(l.buf[:0], t, meta, len(body))
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
	l.w.Write(frames)
}
