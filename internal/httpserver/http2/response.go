package http2

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// maxPending is how much of a body is gathered before it is sent: of an answer that
// is no larger, the length is known.
const maxPending = 4 << 10

// response writes the answer to a request.
type response struct {
	st     *stream
	header http.Header

	status   int // 0: not known yet
	length   int64
	written  int64
	bodyless bool     // HEAD, or the status has none
	block    []byte   // the head, until it is sent
	declared []string // names of the trailer
	pending  []byte
}

var (
	_ http.Flusher  = (*response)(nil)
	_ io.ReaderFrom = (*response)(nil)
)

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	switch {
	case w.status != 0:
		w.st.c.s.log().Error("edge: a second status", "status", status)
		return
	case status < 100 || status > 999 || status == http.StatusSwitchingProtocols:
		status = http.StatusInternalServerError
	case status < 200:
		w.st.interim(w.appendHeader(AppendStatus(nil, status)))
		return
	}
	w.status, w.length = status, -1
	w.bodyless = w.bodyless || status == http.StatusNoContent || status == http.StatusNotModified
	if v := w.header["Content-Length"]; len(v) > 0 {
		if n, err := strconv.ParseInt(v[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		}
	}
	w.block = w.appendHeader(AppendStatus(make([]byte, 0, 512), status))
	if w.length >= 0 && status != http.StatusNoContent { // RFC 9110, 8.6
		w.block = w.appendLength()
	}
	if w.header["Date"] == nil {
		w.block = AppendField(w.block, "Date", time.Now().UTC().Format(http.TimeFormat))
	}
}

// appendLength appends Content-Length to the head.
func (w *response) appendLength() []byte {
	return AppendPlainField(w.block, "Content-Length", strconv.FormatInt(w.length, 10))
}

// appendHeader appends the fields that the handler has set, but for the length and
// those that are the connection's.
func (w *response) appendHeader(b []byte) []byte {
	var few [32]string
	names := few[:0]
	for name := range w.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch name {
		case "Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Content-Length":
			continue
		case "Trailer":
			w.declare(w.header[name])
		}
		if strings.HasPrefix(name, http.TrailerPrefix) || slices.Contains(w.declared, name) {
			continue
		}
		b = appendFields(b, name, w.header[name])
	}
	return b
}

// declare takes note of the names of Trailer fields, of which a head after an
// interim one has the same again.
func (w *response) declare(lists []string) {
	for _, v := range lists {
		for n := range strings.SplitSeq(v, ",") {
			n = canonical(strings.TrimSpace(n))
			if httpguts.ValidTrailerHeader(n) && !slices.Contains(w.declared, n) {
				w.declared = append(w.declared, n)
			}
		}
	}
}

// appendFields appends all values of a field.
func appendFields(b []byte, name string, values []string) []byte {
	if !isName(name) {
		return b
	}
	for _, v := range values {
		b = AppendField(b, name, v)
	}
	return b
}

// isName tells whether a name can be a field's, but for its capitals.
func isName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !lowerToken[c] && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return name != ""
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if err := w.begin(len(p)); err != nil || w.bodyless {
		return len(p), err
	}
	if len(w.pending)+len(p) <= maxPending {
		w.pending = append(w.pending, p...)
		return len(p), nil
	}
	if err := w.send(false, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// begin prepares for n more bytes of the body; it fails where there must be none.
func (w *response) begin(n int) error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.status == http.StatusNoContent || w.status == http.StatusNotModified:
		return http.ErrBodyNotAllowed
	case w.bodyless:
		return nil
	case w.length >= 0 && w.written+int64(n) > w.length:
		return http.ErrContentLength
	}
	w.written += int64(n)
	return nil
}

// send sends the head, what is pending, and p.
func (w *response) send(end bool, p []byte) error {
	block, pending := w.block, w.pending
	w.block, w.pending = nil, w.pending[:0]
	return w.st.send(block, end, pending, p)
}

// ReadFrom implements io.ReaderFrom.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	b := getBuffer()
	defer putBuffer(b)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{src}, b[:cap(b)])
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() } // the handler learns it by its next write

// FlushError is what http.ResponseController's Flush calls.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.send(false, nil)
}

// finish ends the answer.
func (w *response) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.block != nil && w.length < 0 && !w.bodyless {
		w.length = int64(len(w.pending))
		w.block = w.appendLength()
	}
	if !w.bodyless && w.length >= 0 && w.written < w.length {
		w.abort()
		return
	}
	w.st.setTrailer(w.trailer())
	_ = w.send(true, nil) // who does not get it has gone
}

// trailer makes the block behind the body, nil where there is none.
func (w *response) trailer() (b []byte) {
	for name, values := range w.header {
		if n, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			b = appendFields(b, canonical(n), values)
		}
	}
	for _, name := range w.declared {
		b = appendFields(b, name, w.header[name])
	}
	return b
}

// abort breaks the answer off, so that nobody takes it for a whole one.
func (w *response) abort() {
	c := w.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.st.err == nil {
		c.reset(w.st.id, codeInternal, errAnswered)
		c.flush()
	}
}

func (st *stream) setTrailer(block []byte) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.trailer = block
}

// send sends a head, where there is one, and parts of the body, of which the last
// may be the end. It returns when they have been handed over or cannot be.
func (st *stream) send(block []byte, end bool, parts ...[]byte) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err != nil {
		return st.err
	}
	if block != nil {
		whole := end && st.trailer == nil && !slices.ContainsFunc(parts, func(p []byte) bool { return len(p) > 0 })
		st.headed = true
		c.out = appendHeaders(c.buffer(), st.id, block, whole)
		if whole {
			st.ended = true
			c.finished(st.id, st.complete)
			c.flush()
			return nil
		}
	}
	for i, p := range parts {
		st.rest, st.end = p, end && i == len(parts)-1
		c.enqueue(st)
		c.pump()
		for (len(st.rest) > 0 || st.end) && st.err == nil {
			c.flush()
			st.changed.Wait()
		}
		if st.err != nil && !st.ended {
			return st.err
		}
	}
	c.flush()
	return nil
}

// interim sends a 1xx answer, unless the final one has begun.
func (st *stream) interim(block []byte) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err == nil && !st.headed {
		c.out = appendHeaders(c.buffer(), st.id, block, false)
		c.flush()
	}
}
