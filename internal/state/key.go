package state

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKeySize is how long a key may be, in bytes.
const MaxKeySize = 2048

const upperHex = "0123456789ABCDEF"

// escapeKey writes key in the alphabet of JetStream's keys, as one token:
// letters, digits, '_', '-' and '/' stand for themselves, every other byte is
// '=' and two hex digits.
func escapeKey(key string) (string, error) {
	switch {
	case key == "":
		return "", errors.New("the key is empty")
	case len(key) > MaxKeySize:
		return "", fmt.Errorf("the key has %d bytes, more than %d", len(key), MaxKeySize)
	case !utf8.ValidString(key):
		return "", errors.New("the key is not UTF-8")
	}
	var b strings.Builder
	b.Grow(len(key) + 16)
	for i := range len(key) {
		if c := key[i]; plainKeyByte(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String(), nil
}

// unescapeKey undoes escapeKey, and refuses what escapeKey never writes.
func unescapeKey(escaped string) (string, error) {
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if plainKeyByte(c) {
			b = append(b, c)
			continue
		}
		if c != '=' || i+2 >= len(escaped) {
			return "", fmt.Errorf("bad key %q", escaped)
		}
		hi, lo := strings.IndexByte(upperHex, escaped[i+1]), strings.IndexByte(upperHex, escaped[i+2])
		if hi < 0 || lo < 0 || plainKeyByte(byte(hi<<4|lo)) {
			return "", fmt.Errorf("bad key %q", escaped)
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	if len(b) == 0 || !utf8.Valid(b) {
		return "", fmt.Errorf("bad key %q", escaped)
	}
	return string(b), nil
}

func plainKeyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '/'
}
