package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
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
			return errMalformed
		}
	}
	b.begun = true
	line, err := b.line()
	if err != nil {
		return err
	}
	if b.left, err = parseChunkSize(line); err != nil {
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
			return nil, errMalformed
		}
		return nil, unexpected(err)
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// parseChunkSize parses a chunk's size and ignores its extensions.
func parseChunkSize(line []byte) (int64, error) {
	var n int64
	for i, c := range line {
		var d byte
		switch {
		case isDigit(c):
			d = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = c | 0x20 - 'a' + 10
		case i > 0 && (c == ';' || c == ' ' || c == '\t'):
			return n, nil
		default:
			return 0, errMalformed
		}
		if i == 15 {
			return 0, errMalformed
		}
		n = n<<4 | int64(d)
	}
	if len(line) == 0 {
		return 0, errMalformed
	}
	return n, nil
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
