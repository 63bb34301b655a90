package http2

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"lapwing.dev/lapwing/internal/httpsyntax"
)

// Field is a header field, its name in lower case.
type Field struct{ Name, Value string }

// Head is the head of a request. What a Fast handler is given is valid until it
// returns; its strings stay.
type Head struct {
	Method, Scheme, Authority, Path string
	// Fields are all but the pseudo-header fields, in their order.
	Fields []Field
	// TLS is the state of the TLS connection, nil without one.
	TLS *tls.ConnectionState

	size    int64
	long    bool   // it has more than maxList bytes
	bad     string // why the request is malformed; empty: it is not
	host    string // of a Host field
	length  int64  // Content-Length, -1 if there is none
	expect  bool   // 100-continue
	cookies int    // how many fields they came in
	trailer bool   // it follows a body
}

// reset makes h ready for the next block.
func (h *Head) reset(trailer bool) {
	*h = Head{Fields: h.Fields[:0], TLS: h.TLS, length: -1, trailer: trailer}
}

// lowerToken tells the characters of field names.
var lowerToken = func() (t [256]bool) {
	for c := range 128 {
		t[c] = httpguts.IsTokenRune(rune(c)) && (c < 'A' || c > 'Z')
	}
	return t
}()

// add adds a field as it was decoded (RFC 9113, 8.2 and 8.3).
func (h *Head) add(f hpack.HeaderField) {
	if h.size += int64(f.Size()); h.size > maxList {
		h.long = true // what follows is decoded and forgotten
	}
	if h.long || h.bad != "" {
		return
	}
	switch {
	case !isValue(f.Value):
		h.bad = "malformed field value"
	case strings.HasPrefix(f.Name, ":"):
		h.pseudo(f)
	default:
		h.regular(f)
	}
}

func (h *Head) pseudo(f hpack.HeaderField) {
	if len(h.Fields) > 0 || h.trailer {
		h.bad = "misplaced pseudo-header field"
		return
	}
	var to *string
	switch f.Name {
	case ":method":
		to = &h.Method
	case ":scheme":
		to = &h.Scheme
	case ":authority":
		to = &h.Authority
	case ":path":
		to = &h.Path
	default:
		h.bad = "unknown pseudo-header field"
		return
	}
	if *to != "" || f.Value == "" {
		h.bad = "repeated or empty pseudo-header field"
		return
	}
	*to = f.Value
}

func (h *Head) regular(f hpack.HeaderField) {
	if f.Name == "" {
		h.bad = "empty field name"
		return
	}
	for i := range len(f.Name) {
		if !lowerToken[f.Name[i]] {
			h.bad = "malformed field name"
			return
		}
	}
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.bad = "field of a connection"
	case "te":
		if f.Value != "trailers" {
			h.bad = "field of a connection"
		}
	case "host":
		if h.host != "" {
			h.bad = "repeated Host"
		}
		h.host = f.Value
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 63)
		if err != nil || h.length >= 0 {
			h.bad = "malformed or repeated Content-Length"
		}
		h.length = int64(n)
	case "expect":
		h.expect = strings.EqualFold(f.Value, "100-continue")
	case "cookie":
		h.cookies++
	}
	h.Fields = append(h.Fields, Field{f.Name, f.Value})
}

// isValue tells whether a value has no control characters but tabs, and no blanks
// around it.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == "" || !isBlank(s[0]) && !isBlank(s[len(s)-1])
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// check tells why a whole head is malformed; ended is that of the request. It
// chooses the authority.
func (h *Head) check(ended bool) string {
	switch {
	case h.bad != "" || h.long:
		return h.bad
	case h.trailer:
		return ""
	case h.Method == "" || !httpguts.ValidHeaderFieldName(h.Method):
		return "malformed or missing method"
	case h.Method == http.MethodConnect:
		return "" // refused below
	case h.Scheme == "" || h.Path == "":
		return "missing pseudo-header field"
	case h.Path[0] != '/' && (h.Path != "*" || h.Method != http.MethodOptions):
		return "malformed path"
	case !httpsyntax.IsTarget(h.Path):
		return "malformed path" // of which HTTP/1.1 would make another request line
	case !httpsyntax.IsHost(h.Authority) || !httpsyntax.IsHost(h.host):
		return "malformed authority"
	case h.host != "" && h.Authority != "" && !strings.EqualFold(h.host, h.Authority):
		return "Host is not the authority"
	case ended && h.length > 0:
		return "a length without a body"
	}
	if h.Authority == "" {
		h.Authority = h.host
	}
	return ""
}

// refusal is a request that is answered without the handler.
type refusal struct {
	status int
	why    string
}

// request makes the standard request of a head, but for its body.
func (h *Head) request() (*http.Request, *refusal) {
	switch {
	case h.long:
		return nil, &refusal{http.StatusRequestEntityTooLarge, "the header is too large"}
	case h.Method == http.MethodConnect:
		return nil, &refusal{http.StatusNotImplemented, "CONNECT is not supported"}
	}
	u, err := url.ParseRequestURI(h.Path)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "malformed request target"}
	}
	r := &http.Request{
		Method: h.Method, URL: u, Proto: "HTTP/2.0", ProtoMajor: 2, Host: h.Authority, RequestURI: h.Path,
		Header: make(http.Header, len(h.Fields)), ContentLength: h.length,
	}
	values := make([]string, len(h.Fields)) // one allocation for all
	for i, f := range h.Fields {
		name := canonical(f.Name)
		values[i] = f.Value
		switch have, ok := r.Header[name]; {
		case name == "Host":
		case name == "Trailer":
			r.Trailer = declare(r.Trailer, f.Value)
		case ok:
			r.Header[name] = append(have, f.Value)
		default:
			r.Header[name] = values[i : i+1 : i+1]
		}
	}
	if h.cookies > 1 { // they were split for HPACK's sake
		r.Header["Cookie"] = []string{strings.Join(r.Header["Cookie"], "; ")}
	}
	return r, nil
}

// names returns the names of the fields, in their order.
func (h *Head) names() []string {
	names := make([]string, len(h.Fields))
	for i, f := range h.Fields {
		names[i] = f.Name
	}
	return names
}

type namesKey struct{}

// NamesOf returns the names of the header fields of a request of this server, in the
// order in which they came, without those of pseudo-header fields; nil of others.
func NamesOf(r *http.Request) []string {
	names, _ := r.Context().Value(namesKey{}).([]string)
	return names
}

// canonical returns a name as http.Header has it.
func canonical(name string) string { return http.CanonicalHeaderKey(name) }

// declare adds the names of a Trailer field.
func declare(t http.Header, names string) http.Header {
	for name := range strings.SplitSeq(names, ",") {
		if name = canonical(strings.TrimSpace(name)); httpguts.ValidTrailerHeader(name) {
			if t == nil {
				t = http.Header{}
			}
			t[name] = nil
		}
	}
	return t
}
