package http1

import (
	"bytes"
	"net/http"
	"strconv"

	"lapwing.dev/lapwing/internal/httpsyntax"
)

// Field is a header field as it came.
type Field struct{ Name, Value []byte }

// Head is the head of a request as it came: names keep their spelling, and fields
// their order. What a Fast handler is given is valid until it returns.
type Head struct {
	Method, Target []byte
	Host           []byte // of the Host field; empty where HTTP/1.0 has none
	Minor          int    // of HTTP/1.x: 0 or 1
	Fields         []Field

	length        int64 // Content-Length, -1 if there is none
	chunked       bool
	expect        bool // 100-continue
	close         bool // the connection ends after the answer
	keepAlive     bool // HTTP/1.0 asks for the connection to stay
	upgrade       bool // Upgrade or other options of the connection beside the above
	contentLength int  // how often it came
}

// Get returns the value of the first field of that name, which is given in lower
// case, or nil.
func (h *Head) Get(name string) []byte {
	for i := range h.Fields {
		if f := &h.Fields[i]; len(f.Name) == len(name) && equalLower(f.Name, name) {
			return f.Value
		}
	}
	return nil
}

// HasBody tells whether a body follows.
func (h *Head) HasBody() bool { return h.chunked || h.length > 0 }

// badRequest is a request that is answered without the handler.
type badRequest struct {
	status int
	why    string
}

func (e *badRequest) Error() string { return e.why }

func bad(why string) *badRequest { return &badRequest{http.StatusBadRequest, why} }

// parse parses a head without the empty line that ends it, and decides how the
// request is framed (RFC 9112). h's memory is used again; what it holds points into
// b.
func (h *Head) parse(b []byte) *badRequest {
	if h.Fields == nil {
		h.Fields = make([]Field, 0, min(bytes.Count(b, []byte{'\n'}), MaxFields))
	}
	*h = Head{Fields: h.Fields[:0], length: -1}
	line, rest, ok := cutLine(b)
	if !ok {
		return bad("malformed line end")
	}
	if err := h.requestLine(line); err != nil {
		return err
	}
	hosts := 0
	for len(rest) > 0 {
		if line, rest, ok = cutLine(rest); !ok {
			return bad("malformed line end")
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 || !httpsyntax.IsToken(line[:colon]) { // also a folded line, which begins with a blank
			return bad("malformed header field")
		}
		f := Field{line[:colon], httpsyntax.Trim(line[colon+1:])}
		if !httpsyntax.IsValue(f.Value) {
			return bad("malformed header value")
		}
		if len(h.Fields) == MaxFields {
			return errFields
		}
		h.Fields = append(h.Fields, f)
		switch len(f.Name) {
		case 4:
			if equalLower(f.Name, "host") {
				h.Host = f.Value
				hosts++
			}
		case 6, 7, 10, 14, 17:
			if err := h.frame(f); err != nil {
				return err
			}
		}
	}
	switch {
	case hosts > 1 || h.Minor == 1 && hosts == 0:
		return bad("missing or repeated Host")
	case !httpsyntax.IsHost(h.Host):
		return bad("malformed Host")
	case h.chunked && h.contentLength > 0:
		return bad("both Content-Length and Transfer-Encoding")
	case h.chunked && h.Minor == 0:
		return bad("transfer encoding in HTTP/1.0")
	}
	h.close = h.close || h.Minor == 0 && !h.keepAlive
	h.expect = h.expect && h.Minor == 1 && h.HasBody()
	return nil
}

// requestLine parses the first line.
func (h *Head) requestLine(line []byte) *badRequest {
	sp := bytes.IndexByte(line, ' ')
	if sp < 0 || !httpsyntax.IsToken(line[:sp]) {
		return bad("malformed request line")
	}
	h.Method, line = line[:sp], line[sp+1:]
	sp = bytes.IndexByte(line, ' ')
	if sp <= 0 {
		return bad("malformed request line")
	}
	var proto []byte
	h.Target, proto = line[:sp], line[sp+1:]
	switch string(proto) {
	case "HTTP/1.1":
		h.Minor = 1
	case "HTTP/1.0":
	default:
		if len(proto) == 8 && string(proto[:5]) == "HTTP/" && httpsyntax.IsDigit(proto[5]) && proto[6] == '.' && httpsyntax.IsDigit(proto[7]) {
			return &badRequest{http.StatusHTTPVersionNotSupported, "unsupported version"}
		}
		return bad("malformed version")
	}
	if !httpsyntax.IsTarget(h.Target) {
		return bad("malformed request target")
	}
	return nil
}

// frame takes note of a field that says how the request is framed.
func (h *Head) frame(f Field) *badRequest {
	switch {
	case equalLower(f.Name, "content-length"):
		n, err := strconv.ParseInt(string(f.Value), 10, 64)
		if err != nil || n < 0 || !httpsyntax.IsDigit(f.Value[0]) {
			return bad("malformed Content-Length")
		}
		if h.contentLength++; h.contentLength > 1 {
			return bad("repeated Content-Length")
		}
		h.length = n
	case equalLower(f.Name, "transfer-encoding"):
		if h.chunked || !equalLower(f.Value, "chunked") {
			return &badRequest{http.StatusNotImplemented, "unsupported transfer encoding"}
		}
		h.chunked = true
	case equalLower(f.Name, "connection"):
		for rest := f.Value; len(rest) > 0; {
			var option []byte
			option, rest, _ = bytes.Cut(rest, []byte{','})
			switch option = httpsyntax.Trim(option); {
			case equalLower(option, "close"):
				h.close = true
			case equalLower(option, "keep-alive"):
				h.keepAlive = true
			case len(option) > 0:
				h.upgrade = true
			}
		}
	case equalLower(f.Name, "upgrade"):
		h.upgrade = true
	case equalLower(f.Name, "expect"):
		if !equalLower(f.Value, "100-continue") {
			return &badRequest{http.StatusExpectationFailed, "unsupported expectation"}
		}
		h.expect = true
	}
	return nil
}

// cutLine cuts the first line off b, without its CRLF; the last one may have none.
// It fails where a line ends otherwise.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil, true
	}
	if i == 0 || b[i-1] != '\r' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

// equalLower compares with a name in lower case.
func equalLower(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
