package http1

import (
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"

	"lapwing.dev/lapwing/internal/httpsyntax"
)

// Field is one header or trailer field.
type Field struct{ Name, Value string }

// Fields are header or trailer fields in the order of the message.
type Fields []Field

// Get returns the value of the first field of that name in any case, or "".
func (f Fields) Get(name string) string {
	for i := range f {
		if equalFold(f[i].Name, name) {
			return f[i].Value
		}
	}
	return ""
}

// Request is one request.
type Request struct {
	Method string
	Path   string // the target's path, not unescaped, without the query
	Proto  string // HTTP/1.1 or HTTP/1.0
	Header Fields
	Body   *Body
	// Pipelined tells that the request came together with the one before it.
	Pipelined bool

	close  bool // the connection ends after the response
	conn   net.Conn
	waiter Waiter // of an exchange
}

// HasNext tells, once the body has been read, whether the client has sent its
// next request too.
func (r *Request) HasNext() bool { return !r.close && r.Body.c != nil && r.Body.c.hasRequest() }

// Gone reports whether the client has closed its end of the connection, so
// that a response would be lost.
func (r *Request) Gone() bool {
	if c, ok := r.conn.(interface{ Gone() bool }); ok {
		return c.Gone()
	}
	sc, ok := r.conn.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == nil:
			gone = n == 0
		case err != syscall.EAGAIN && err != syscall.EINTR:
			gone = true
		}
	})
	return gone || err != nil
}

// badRequest is a request that is answered without the handler.
type badRequest struct {
	status int
	why    string
}

func (e *badRequest) Error() string { return e.why }

var errLong = &badRequest{431, "header too large"}

func bad(why string) error { return &badRequest{400, why} }

// readRequest reads the head of the next request.
func (c *serverConn) readRequest() (*Request, error) {
	c.head = c.head[:0]
	if cap(c.head) > 64*1024 {
		c.head = nil
	}
	if err := c.readBlock(true); err != nil {
		return nil, err
	}
	req, err := parseHead(string(c.head))
	if err != nil {
		return nil, err
	}
	req.conn = c.conn
	req.Body.c = c
	return req, nil
}

// readBlock appends lines to c.head until an empty one. With request set, it
// skips an empty line before the first, and an end there is io.EOF.
func (c *serverConn) readBlock(request bool) error {
	skipped := false
	for {
		start := len(c.head)
		if err := c.readLine(); err != nil {
			if err == io.EOF && (!request || len(c.head) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		line := c.head[start:]
		if len(line) == 1 || len(line) == 2 && line[0] == '\r' {
			if request && start == 0 && !skipped {
				skipped = true
				c.head = c.head[:0]
				continue
			}
			return nil
		}
	}
}

// readLine appends the next line, with its end, to c.head.
func (c *serverConn) readLine() error {
	for {
		part, err := c.br.ReadSlice('\n')
		if len(c.head)+len(part) > MaxHead {
			return errLong
		}
		c.head = append(c.head, part...)
		if err == nil {
			return nil
		}
		if !isBufferFull(err) {
			return err
		}
	}
}

// parseHead parses a head that ends with an empty line, and decides how the
// body is framed (RFC 9112).
func parseHead(s string) (*Request, error) {
	line, rest := cutLine(s)
	method, rest2, ok := strings.Cut(line, " ")
	if !ok || !httpsyntax.IsToken(method) {
		return nil, bad("malformed request line")
	}
	target, proto, ok := strings.Cut(rest2, " ")
	if !ok || target == "" {
		return nil, bad("malformed request line")
	}
	if proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		if len(proto) == 8 && strings.HasPrefix(proto, "HTTP/") && httpsyntax.IsDigit(proto[5]) && proto[6] == '.' && httpsyntax.IsDigit(proto[7]) {
			return nil, &badRequest{505, "unsupported version"}
		}
		return nil, bad("malformed version")
	}
	path, err := targetPath(target)
	if err != nil {
		return nil, err
	}
	req := &Request{Method: method, Path: path, Proto: proto, Body: &Body{}}
	if req.Header, err = parseFields(rest); err != nil {
		return nil, err
	}
	return req, req.frame()
}

// targetPath returns the path of a request target in origin or absolute form.
func targetPath(target string) (string, error) {
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return "", bad("malformed request target")
		}
	}
	if target[0] != '/' {
		_, after, ok := strings.Cut(target, "://")
		if !ok {
			return "", bad("malformed request target")
		}
		i := strings.IndexAny(after, "/?")
		if i < 0 || after[i] == '?' {
			return "/", nil
		}
		target = after[i:]
	}
	path, _, _ := strings.Cut(target, "?")
	return path, nil
}

// parseFields parses field lines up to an empty line.
func parseFields(s string) (Fields, error) {
	fields := make(Fields, 0, min(strings.Count(s, "\n"), 16))
	for {
		var line string
		line, s = cutLine(s)
		if line == "" {
			return fields, nil
		}
		if len(fields) == MaxFields {
			return nil, errLong
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpsyntax.IsToken(name) { // also a folded line, which starts with a blank
			return nil, bad("malformed header field")
		}
		value = strings.Trim(value, " \t")
		for i := range len(value) {
			if ch := value[i]; ch < ' ' && ch != '\t' || ch == 0x7f {
				return nil, bad("malformed header value")
			}
		}
		fields = append(fields, Field{name, value})
	}
}

// cutLine cuts the first line off s, without its CRLF or LF.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// frame reads the fields that say where the request ends and whether another
// follows it.
func (r *Request) frame() error {
	var (
		hosts   int
		length  = int64(-1)
		coded   bool
		keep10  bool
		length2 bool
	)
	for _, f := range r.Header {
		switch {
		case equalFold(f.Name, "Host"):
			hosts++
		case equalFold(f.Name, "Content-Length"):
			n, err := parseLength(f.Value)
			if err != nil {
				return err
			}
			length2 = length2 || length >= 0 && length != n
			length = n
		case equalFold(f.Name, "Transfer-Encoding"):
			if coded || !equalFold(f.Value, "chunked") {
				return &badRequest{501, "unsupported transfer encoding"}
			}
			coded = true
		case equalFold(f.Name, "Connection"):
			for opt := range strings.SplitSeq(f.Value, ",") {
				opt = strings.Trim(opt, " \t")
				r.close = r.close || equalFold(opt, "close")
				keep10 = keep10 || equalFold(opt, "keep-alive")
			}
		case equalFold(f.Name, "Expect"):
			if !equalFold(f.Value, "100-continue") {
				return &badRequest{417, "unsupported expectation"}
			}
			r.Body.expect = r.Proto == "HTTP/1.1"
		}
	}
	switch {
	case r.Proto == "HTTP/1.1" && hosts != 1:
		return bad("missing or repeated Host")
	case length2:
		return bad("differing Content-Length")
	case coded && r.Proto == "HTTP/1.0":
		return bad("transfer encoding in HTTP/1.0")
	case coded:
		// A length beside it is ignored, and the connection not trusted further.
		r.close = r.close || length >= 0
		r.Body.chunked, length = true, -1
	}
	if r.Proto == "HTTP/1.0" && !keep10 {
		r.close = true
	}
	r.Body.length = length
	r.Body.left = max(length, 0)
	if !coded && length <= 0 {
		r.Body.expect = false
	}
	return nil
}

func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 {
		return 0, bad("malformed Content-Length")
	}
	for i := range len(s) {
		if !httpsyntax.IsDigit(s[i]) {
			return 0, bad("malformed Content-Length")
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, bad("malformed Content-Length")
	}
	return n, nil
}

// equalFold compares in ASCII without case.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
