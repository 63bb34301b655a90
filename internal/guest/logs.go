package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/system"
)

// logPipe carries the output of processes to the host, message by message. Its
// reading goroutine takes what arrives; drain takes at once what has arrived,
// so that a message written before a response leaves before it.
type logPipe struct {
	link   *link
	source string                  // Log.Source
	tap    func(proto.Log, []byte) // is given every message too
	framed bool                    // the pipe behind _LAMBDA_TELEMETRY_LOG_FD

	r system.Pipe
	w io.Closer // the writing end, for children

	mu      sync.Mutex
	ended   bool
	partial []byte // an unfinished line or frame
	buf     []byte
	out     []byte // frames for the host
	done    chan struct{}
}

// newLogPipe makes a pipe and starts its reading goroutine, which ends when
// the last writer has.
func (g *guest) newLogPipe(source string, framed bool) (*logPipe, error) {
	r, w, err := g.sys.Pipe()
	if err != nil {
		return nil, err
	}
	p := g.logPipe(r, source, framed)
	p.w = w
	go p.run()
	return p, nil
}

// logPipe returns a log pipe of which only the reading end is known.
func (g *guest) logPipe(r system.Pipe, source string, framed bool) *logPipe {
	return &logPipe{
		link: g.link, source: source, tap: g.publishLine, framed: framed, r: r,
		buf:  make([]byte, 32*1024),
		done: make(chan struct{}),
	}
}

func (p *logPipe) run() {
	defer close(p.done)
	p.r.Await(func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for p.readOnce() {
		}
		return p.ended
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.flushLocked()
	p.r.Close()
}

// readOnce reads and passes on what one read gives; it returns false where
// there is nothing more now. p.mu is held.
func (p *logPipe) readOnce() bool {
	if p.ended {
		return false
	}
	n, err := p.r.TryRead(p.buf)
	if err != nil {
		p.ended = !errors.Is(err, syscall.EAGAIN)
		return false
	}
	p.take(p.buf[:n])
	return true
}

// drain passes on the bytes that wait in the pipe, and no more: a process that
// goes on writing would keep it from ever being empty.
func (p *logPipe) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	for left := p.r.Waiting(); left > 0; left -= len(p.buf) {
		if !p.readOnce() {
			return
		}
	}
}

// flush passes on an unfinished line as it is.
func (p *logPipe) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flushLocked()
}

func (p *logPipe) flushLocked() {
	if !p.framed && len(p.partial) > 0 {
		p.emit(proto.Log{TimeUs: time.Now().UnixMicro(), Source: p.source}, p.partial)
		p.partial = p.partial[:0]
		p.send()
	}
}

// take splits what was read into messages.
func (p *logPipe) take(b []byte) {
	if p.framed {
		p.takeFrames(b)
	} else {
		p.takeLines(b)
	}
	p.send()
	if cap(p.partial) > 64*1024 && len(p.partial) == 0 {
		p.partial = nil
	}
}

func (p *logPipe) takeLines(b []byte) {
	l := proto.Log{TimeUs: time.Now().UnixMicro(), Source: p.source}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		line, whole := b, i >= 0
		if whole {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		for len(p.partial)+len(line) > proto.MaxLogLine {
			n := proto.MaxLogLine - len(p.partial)
			p.partial = append(p.partial, line[:n]...)
			line = line[n:]
			p.emit(l, p.partial)
			p.partial = p.partial[:0]
		}
		switch {
		case !whole:
			p.partial = append(p.partial, line...)
		case len(p.partial) > 0:
			p.partial = append(p.partial, line...)
			p.emit(l, p.partial)
			p.partial = p.partial[:0]
		default:
			p.emit(l, line)
		}
	}
}

// The frames of _LAMBDA_TELEMETRY_LOG_FD, in big endian: type u32, length u32,
// time u64 in µs, message. The type's low byte holds the kind and the level.
const (
	logFrameHeader = 16
	logFrameMagic  = 0xa55a0000
	logFrameText   = 3
	logFrameJSON   = 2
)

var logLevels = [8]string{"", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", ""}

func (p *logPipe) takeFrames(b []byte) {
	p.partial = append(p.partial, b...)
	rest := p.partial
	for len(rest) >= logFrameHeader {
		kind := binary.BigEndian.Uint32(rest)
		n := int(binary.BigEndian.Uint32(rest[4:]))
		l := proto.Log{
			TimeUs: int64(binary.BigEndian.Uint64(rest[8:])),
			Source: p.source,
			Level:  logLevels[kind>>2&7],
			JSON:   kind&3 == logFrameJSON,
		}
		if kind&^0x1f != logFrameMagic || kind&3 != logFrameText && kind&3 != logFrameJSON {
			// Not the runtime's: whoever found the descriptor wrote lines.
			p.framed = false
			tail := append([]byte(nil), rest...)
			p.partial = p.partial[:0]
			p.takeLines(tail)
			return
		}
		if l.TimeUs < 0 {
			l.TimeUs = time.Now().UnixMicro()
		}
		if have := len(rest) - logFrameHeader; have < n {
			if have < proto.MaxLogLine {
				break
			}
			// A message over the limit leaves in parts: what is left of it
			// becomes the frame to come.
			p.emit(l, rest[logFrameHeader:][:proto.MaxLogLine])
			rest = rest[proto.MaxLogLine:]
			putFrameHeader(rest, kind, n-proto.MaxLogLine, l.TimeUs)
			continue
		}
		msg := rest[logFrameHeader:][:n]
		rest = rest[logFrameHeader+n:]
		for len(msg) > proto.MaxLogLine {
			p.emit(l, msg[:proto.MaxLogLine])
			msg = msg[proto.MaxLogLine:]
		}
		p.emit(l, msg)
	}
	p.partial = append(p.partial[:0], rest...)
}

func putFrameHeader(b []byte, kind uint32, n int, timeUs int64) {
	binary.BigEndian.PutUint32(b, kind)
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	binary.BigEndian.PutUint64(b[8:], uint64(timeUs))
}

// emit adds one message to what send sends.
func (p *logPipe) emit(l proto.Log, msg []byte) {
	p.out = append(proto.AppendMeta(p.out, proto.TypeLog, l, len(msg)), msg...)
	p.tap(l, msg)
	if len(p.out) > 64*1024 {
		p.send()
	}
}

func (p *logPipe) send() {
	if len(p.out) > 0 {
		p.link.raw(p.out)
	}
	if cap(p.out) > 256*1024 {
		p.out = nil
	}
	p.out = p.out[:0]
}

// drainLogs passes on what the function's processes have written so far. As a
// rule that is nothing.
func (g *guest) drainLogs() {
	g.mu.Lock()
	logs := g.logs
	g.mu.Unlock()
	for _, p := range logs {
		p.drain()
	}
}

// flushLogs passes on unfinished lines: an invocation's output ends with it.
// g.mu is held.
func (g *guest) flushLogs() {
	for _, p := range g.logs {
		p.flush()
	}
}
