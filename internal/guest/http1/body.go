package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"lapwing.dev/lapwing/internal/httpsyntax"
)

// Body is the body of a request. Reading it to io.EOF makes Trailer valid; an
// end of the connection before that is io.ErrUnexpectedEOF.
type Body struct {
	// Trailer holds the trailer fields, once the body has been read to its end.
	Trailer Fields

	c       *serverConn
	length  int64 // Content-Length, or -1
	left    int64 // of the body, or of the present chunk
	chunked bool
	begun   bool // a chunk has been begun: its CRLF follows its data
	expect  bool // the client waits for 100 Continue
	err     error
}

// Length returns the body's length where the client announced it, else -1.
func (b *Body) Length() int64 {
	if b.length < 0 && !b.chunked {
		return 0
	}
	return b.length
}

// Buffered tells whether more of the body, or its end, has arrived already, so
// that a Read does not wait.
func (b *Body) Buffered() bool {
	if b.err != nil || !b.chunked && b.left == 0 {
		return true
	}
	n := b.c.br.Buffered()
	if b.left > 0 || n == 0 {
		return n > 0
	}
	// Between chunks: the line with the next size must be there whole.
	next, err := b.c.br.Peek(n)
	if err != nil {
		return false
	}
	if b.begun {
		_, next, _ = bytes.Cut(next, []byte{'\n'})
	}
	return bytes.IndexByte(next, '\n') >= 0
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.expect {
		b.expect = false
		if _, err := io.WriteString(b.c.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
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
			return 0, b.err
		}
	}
	n, err := b.c.br.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil {
		b.err = unexpected(err)
	}
	return n, b.err
}

// nextChunk reads the line before a chunk, and all that follows the last one.
func (b *Body) nextChunk() error {
	if b.begun {
		line, err := b.line()
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return httpsyntax.ErrChunk
		}
	}
	b.begun = true
	line, err := b.line()
	if err != nil {
		return err
	}
	if b.left, err = httpsyntax.ChunkSize(line); err != nil {
		return err
	}
	if b.left > 0 {
		return nil
	}
	b.c.head = b.c.head[:0]
	if err := b.c.readBlock(false); err != nil {
		return err
	}
	if b.Trailer, err = parseFields(string(b.c.head)); err != nil {
		return err
	}
	return io.EOF
}

// line reads a short line without its end.
func (b *Body) line() ([]byte, error) {
	line, err := b.c.br.ReadSlice('\n')
	if err != nil {
		if isBufferFull(err) {
			return nil, httpsyntax.ErrChunk
		}
		return nil, unexpected(err)
	}
	line, ok := httpsyntax.CutCRLF(line)
	if !ok {
		return nil, httpsyntax.ErrChunk
	}
	return line, nil
}

// discard reads the rest of the body away and tells whether another request
// can follow on the connection.
func (b *Body) discard() bool {
	if b.expect {
		return false // the client may or may not send it
	}
	for b.err == nil {
		if b.left > 0 {
			n, err := b.c.br.Discard(int(min(b.left, 1<<30)))
			b.left -= int64(n)
			if err != nil {
				b.err = unexpected(err)
			}
			continue
		}
		var one [1]byte
		if n, _ := b.Read(one[:]); n == 0 && b.err == nil {
			return false
		}
	}
	return errors.Is(b.err, io.EOF)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isBufferFull(err error) bool { return err == bufio.ErrBufferFull }
