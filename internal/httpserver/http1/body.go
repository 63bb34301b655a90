package http1

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/httpsyntax"
)

// maxChunkLine is the longest line of a chunk's size with its extensions, and
// maxTrailer the largest trailer section.
const (
	maxChunkLine = 1 << 10
	maxTrailer   = 8 << 10
)

// errBodyClosed is that of a body that is read after the handler has returned.
var errBodyClosed = http.ErrBodyReadAfterClose

// unknownRest is more than is passed over to save a connection.
const unknownRest = maxDiscard + 1

// init makes b the body of a request that c reads.
func (b *body) init(c *Conn, h *Head) {
	b.c, b.left, b.chunked, b.expect = c, max(h.length, 0), h.chunked, h.expect
	b.rest.Store(b.left)
	if b.chunked {
		b.rest.Store(unknownRest)
	}
}

// body is the body of a request.
type body struct {
	c       *Conn
	left    int64 // of the body, or of the present chunk
	chunked bool
	begun   bool // a chunk has been begun: its CRLF follows its data
	expect  bool // the viewer waits for 100 Continue
	err     error
	// rest is what has not been read, for who does not read: unknownRest of a chunked
	// body that has not ended.
	rest atomic.Int64
	// cont is called before the first read, where expect is true.
	cont func() error
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.expect {
		b.expect = false
		if err := b.cont(); err != nil {
			b.err = err
			return 0, err
		}
	}
	if b.left == 0 {
		if b.chunked {
			b.err = b.nextChunk()
		} else {
			b.err = io.EOF
		}
		if b.err != nil {
			b.rest.Store(0)
			return 0, b.err
		}
	}
	n, err := b.read(p[:min(int64(len(p)), b.left)])
	if b.left -= int64(n); !b.chunked {
		b.rest.Store(b.left)
	}
	switch {
	case err != nil:
		b.err = unexpected(err)
	case b.left == 0 && !b.chunked:
		b.err = io.EOF
	}
	return n, b.err
}

// Close implements io.Closer: what is left is for the server to pass over.
func (b *body) Close() error { return nil }

// read reads data, past the buffer where that is empty and p is large.
func (b *body) read(p []byte) (int, error) {
	c := b.c
	if c.r == c.w {
		b.wait()
		if len(p) >= len(c.buf) && c.err == nil {
			return c.nc.Read(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

// wait gives the viewer time to send more.
func (b *body) wait() {
	b.c.setReadDeadline(orDefault(b.c.s.BodyTimeout, time.Minute), time.Second)
}

// nextChunk reads the line before a chunk, and all that follows the last one.
func (b *body) nextChunk() error {
	if b.begun {
		line, err := b.line(0)
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return httpsyntax.ErrChunk
		}
	}
	b.begun = true
	line, err := b.line(maxChunkLine)
	if err != nil {
		return err
	}
	if b.left, err = httpsyntax.ChunkSize(line); err != nil || b.left > 0 {
		return err
	}
	for size := 0; ; {
		line, err := b.line(maxTrailer)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		colon := bytes.IndexByte(line, ':')
		if size += len(line); size > maxTrailer || colon < 0 || !httpsyntax.IsToken(line[:colon]) || !httpsyntax.IsValue(httpsyntax.Trim(line[colon+1:])) {
			return httpsyntax.ErrChunk
		}
	}
}

// line reads a line of at most limit bytes, without its CRLF.
func (b *body) line(limit int) ([]byte, error) {
	c := b.c
	for {
		if i := bytes.IndexByte(c.buf[c.r:c.w], '\n'); i >= 0 {
			line, ok := httpsyntax.CutCRLF(c.buf[c.r : c.r+i+1])
			c.r += i + 1
			if !ok || len(line) > limit {
				return nil, httpsyntax.ErrChunk
			}
			return line, nil
		}
		if c.w-c.r > limit+1 {
			return nil, httpsyntax.ErrChunk
		}
		b.wait()
		if err := c.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
}

// discard reads what is left away, and tells whether another request can follow.
func (b *body) discard() bool {
	if b.expect {
		return false // the viewer may or may not send it
	}
	switch {
	case !b.chunked && b.left > maxDiscard:
		return false
	case !b.chunked && b.left == 0:
		return true // without the memory for the rest
	}
	var p [4096]byte
	for n := 0; b.err == nil && n <= maxDiscard; {
		m, _ := b.Read(p[:])
		n += m
	}
	return b.err == io.EOF
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
