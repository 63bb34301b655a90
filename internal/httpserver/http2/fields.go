package http2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// staticNames are names of HPACK's static table that answers have, as http.Header
// has them.
var staticNames = map[string]byte{
	"Accept-Ranges": 18, "Access-Control-Allow-Origin": 20, "Age": 21, "Allow": 22, "Cache-Control": 24,
	"Content-Disposition": 25, "Content-Encoding": 26, "Content-Language": 27, "Content-Length": 28,
	"Content-Location": 29, "Content-Range": 30, "Content-Type": 31, "Date": 33, "Etag": 34, "Expires": 36,
	"Last-Modified": 44, "Link": 45, "Location": 46, "Proxy-Authenticate": 48, "Retry-After": 53, "Server": 54,
	"Set-Cookie": 55, "Strict-Transport-Security": 56, "Vary": 59, "Via": 60, "Www-Authenticate": 61,
}

// AppendStatus appends the first field of an answer's block.
func AppendStatus(b []byte, status int) []byte {
	const table = 8 // of the statuses that the static table has
	for i, known := range [...]int{200, 204, 206, 304, 400, 404, 500} {
		if status == known {
			return append(b, 0x80|byte(table+i))
		}
	}
	b = append(b, table)
	return appendPlain(b, strconv.Itoa(status))
}

// AppendField appends a header field, with the name as http.Header has it and the
// value in Huffman's code where that is shorter. Line breaks in the value become
// spaces. Blocks hold no references to the dynamic table, so that they can be kept
// and sent to any peer.
func AppendField(b []byte, name, value string) []byte {
	b = appendName(b, name)
	value = clean(value)
	if n := hpack.HuffmanEncodeLength(value); n < uint64(len(value)) {
		b = appendInt(b, 0x80, 7, n)
		return hpack.AppendHuffmanString(b, value)
	}
	return appendPlain(b, value)
}

// AppendPlainField appends a field as AppendField does, but the value, which has no
// line breaks, as it is. That costs less time.
func AppendPlainField[T []byte | string](b []byte, name string, value T) []byte {
	return appendPlain(appendName(b, name), value)
}

// appendName begins a literal field that is not to be indexed.
func appendName(b []byte, name string) []byte {
	if i, ok := staticNames[name]; ok {
		return appendInt(b, 0, 4, uint64(i))
	}
	return appendPlain(append(b, 0), strings.ToLower(name))
}

// appendPlain appends a string literal without Huffman's code.
func appendPlain[T []byte | string](b []byte, s T) []byte {
	return append(appendInt(b, 0, 7, uint64(len(s))), s...)
}

// appendInt appends an integer with a prefix of n bits, behind the bits that first
// has (RFC 7541, 5.1).
func appendInt(b []byte, first byte, n uint, i uint64) []byte {
	limit := uint64(1)<<n - 1
	if i < limit {
		return append(b, first|byte(i))
	}
	b = append(b, first|byte(limit))
	for i -= limit; i >= 0x80; i >>= 7 {
		b = append(b, 0x80|byte(i))
	}
	return append(b, byte(i))
}

var breaks = strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ")

// clean returns a field's value without what would be another field.
func clean(value string) string {
	if strings.ContainsAny(value, "\r\n\x00") {
		return breaks.Replace(value)
	}
	return value
}
