// Package httpsyntax has the pieces of the syntax of HTTP/1.1 (RFC 9110, RFC 9112)
// that our two servers of it share, the one of edge locations and the one of the
// Runtime API. They are strict: what two programs in a row might read in different
// ways is malformed.
package httpsyntax

import (
	"encoding/binary"
	"errors"
	"strings"
)

// ErrChunk is that of a chunked body that is not well formed.
var ErrChunk = errors.New("http1: malformed chunked body")

// IsDigit tells whether c is a decimal digit.
func IsDigit(c byte) bool { return c >= '0' && c <= '9' }

// tokens tells the characters of a token.
var tokens = func() (t [256]bool) {
	for c := range 256 {
		t[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || IsDigit(byte(c)) || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

// IsTokenByte tells whether c may be in a token.
func IsTokenByte(c byte) bool { return tokens[c] }

// IsToken tells whether s is a token, such as a method or the name of a field.
func IsToken[T []byte | string](s T) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

// IsTarget tells whether a request target has no blanks and no control characters,
// with which a request line would be read in more than one way.
func IsTarget[T []byte | string](s T) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// IsHost tells whether a Host has only characters of host names, addresses and
// ports. It may be empty.
func IsHost[T []byte | string](s T) bool {
	for i := range len(s) {
		switch c := s[i]; c {
		case ':', '[', ']', '(', ')', ',', ';', '=':
		default:
			if !tokens[c] {
				return false
			}
		}
	}
	return true
}

// IsValue tells whether a field value has no control characters but tabs.
func IsValue(b []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for len(b) >= 8 {
		// Eight at a time: a byte below 0x20 or equal to 0x7f leaves its high bit.
		x := binary.LittleEndian.Uint64(b)
		del := x ^ 0x7f*ones
		if ((x-0x20*ones)&^x|(del-ones)&^del)&high != 0 && !isValueSlow(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return isValueSlow(b)
}

func isValueSlow(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// Trim returns b without optional white space around it.
func Trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// CutCRLF takes the line feed that ends a line, and the carriage return that must be
// before it, off the line.
func CutCRLF(line []byte) ([]byte, bool) {
	n := len(line) - 2
	if n < 0 || line[n] != '\r' || line[n+1] != '\n' {
		return nil, false
	}
	return line[:n], true
}

// ChunkSize parses the line before a chunk, without its end. It ignores extensions,
// which must not have control characters. A size has at most 15 digits.
func ChunkSize(line []byte) (int64, error) {
	var n int64
	for i, c := range line {
		var d byte
		switch {
		case IsDigit(c):
			d = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = c | 0x20 - 'a' + 10
		case i > 0 && (c == ';' || c == ' ' || c == '\t'):
			if rest := Trim(line[i:]); len(rest) > 0 && rest[0] != ';' || !IsValue(line[i:]) {
				return 0, ErrChunk
			}
			return n, nil
		default:
			return 0, ErrChunk
		}
		if i == 15 {
			return 0, ErrChunk
		}
		n = n<<4 | int64(d)
	}
	if len(line) == 0 {
		return 0, ErrChunk
	}
	return n, nil
}
