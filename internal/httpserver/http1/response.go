package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/httpsyntax"
)

// maxPending is how much of a body of unknown length is kept to the end of the
// handler, so that it has a length.
const maxPending = 4 << 10

// response writes the answer to a request. Head and body share the connection's
// buffer, so that a small answer is one write.
type response struct {
	c      *Conn
	head   *Head
	body   *body // of the request
	watch  *watcher
	header http.Header

	mu        sync.Mutex // of the head's beginning, and of proceed
	status    int        // 0: not known yet
	length    int64      // of the body; -1: not known
	written   int64
	bodyless  bool // HEAD, or the status has none
	committed bool // the head is complete
	chunked   bool
	close     bool
	hijacked  bool
	waits     bool   // the viewer waits for 100 Continue
	pending   []byte // of the body, before the head is complete
	err       error
}

var (
	_ http.Flusher  = (*response)(nil)
	_ http.Hijacker = (*response)(nil)
	_ io.ReaderFrom = (*response)(nil)
)

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked || w.status != 0 {
		w.c.s.log().Error("a second status", "status", status)
		return
	}
	if status < 100 || status > 999 {
		status = http.StatusInternalServerError
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.interim(status)
		return
	}
	w.status, w.length = status, -1
	w.bodyless = string(w.head.Method) == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified || status < 200
	// Who is not told to go on may send the body or not.
	w.close = w.head.close || w.c.s.isClosing() || w.waits
	if v := w.header["Content-Length"]; len(v) > 0 {
		if n, err := strconv.ParseInt(v[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		}
	}
	b := append(w.c.out, "HTTP/1.1 "...)
	b = appendStatus(b, status)
	b = append(b, "\r\n"...)
	w.c.out = w.appendHeader(b, true)
	if w.length >= 0 || w.bodyless {
		w.commit()
	}
}

// proceed sends 100 Continue before the body is read, which another goroutine than
// the handler's may do.
func (w *response) proceed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != 0 || w.hijacked {
		return nil
	}
	w.waits = false
	w.c.renewWriteDeadline()
	_, err := io.WriteString(w.c.nc, "HTTP/1.1 100 Continue\r\n\r\n")
	return err
}

// interim sends a 1xx answer. w.mu is held.
func (w *response) interim(status int) {
	if w.head.Minor == 0 {
		return
	}
	b := append(w.c.out, "HTTP/1.1 "...)
	b = appendStatus(b, status)
	b = append(b, "\r\n"...)
	w.c.out = append(w.appendHeader(b, false), "\r\n"...)
	w.err = w.c.flush()
}

// appendHeader appends the fields that the handler has set, but for those that
// frame the answer.
func (w *response) appendHeader(b []byte, final bool) []byte {
	var few [32]string
	names := few[:0]
	for name := range w.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Trailer", "Keep-Alive":
			continue
		case "Connection":
			for _, v := range w.header[name] {
				w.close = w.close || equalLower(httpsyntax.Trim([]byte(v)), "close")
			}
			continue
		}
		if !httpsyntax.IsToken(name) {
			continue
		}
		for _, v := range w.header[name] {
			b = AppendField(b, name, v)
		}
	}
	if final && w.header["Date"] == nil {
		b = append(b, "Date: "...)
		b = httpsyntax.AppendDate(b, time.Now())
		b = append(b, "\r\n"...)
	}
	return b
}

// commit completes the head.
func (w *response) commit() {
	w.committed = true
	// What is left of a large body is not passed over: who sends it has to know that
	// its next request would be lost.
	w.close = w.close || w.body.rest.Load() > maxDiscard
	b := w.c.out
	switch {
	case w.status == http.StatusNoContent || w.status < 200:
	case w.length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, w.length, 10)
		b = append(b, "\r\n"...)
	case w.bodyless:
	case w.head.Minor == 0:
		w.close = true // the end of the connection is the end of the body
	default:
		w.chunked = true
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case w.close:
		b = append(b, "Connection: close\r\n"...)
	case w.head.Minor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	w.c.out = append(b, "\r\n"...)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if err := w.begin(int64(len(p))); err != nil || w.bodyless {
		return len(p), err
	}
	if !w.committed {
		if len(w.pending)+len(p) <= maxPending {
			w.pending = append(w.pending, p...)
			return len(p), nil
		}
		w.commitPending()
	}
	w.put(p)
	return len(p), w.err
}

// begin prepares for n more bytes of the body; it fails where there must be none.
func (w *response) begin(n int64) error {
	switch {
	case w.hijacked:
		return http.ErrHijacked
	case w.err != nil:
		return w.err
	case w.status == 0:
		w.WriteHeader(http.StatusOK)
	}
	if w.bodyless {
		if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
			return http.ErrBodyNotAllowed
		}
		return nil
	}
	w.written += n
	if w.length >= 0 && w.written > w.length {
		w.written -= n
		return http.ErrContentLength
	}
	return nil
}

// commitPending completes the head of a body whose length is not known.
func (w *response) commitPending() {
	w.commit()
	if p := w.pending; len(p) > 0 {
		w.pending = nil
		w.put(p)
	}
}

// put sends a piece of the body, or holds it back where it is small.
func (w *response) put(p []byte) {
	if w.err != nil || len(p) == 0 {
		return
	}
	c := w.c
	if w.chunked {
		c.out = strconv.AppendInt(c.out, int64(len(p)), 16)
		c.out = append(c.out, "\r\n"...)
	}
	if len(c.out)+len(p) <= bigReply {
		c.out = append(c.out, p...)
	} else {
		w.err = c.writeBoth(c.out, p)
		c.out = c.out[:0]
	}
	if w.chunked {
		c.out = append(c.out, "\r\n"...)
	}
}

// Flush implements http.Flusher.
func (w *response) Flush() { w.FlushError() }

// FlushError is what http.ResponseController's Flush calls.
func (w *response) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.committed {
		w.commitPending()
	}
	if w.err == nil {
		w.err = w.c.flush()
	}
	return w.err
}

// SetReadDeadline is what http.ResponseController calls.
func (w *response) SetReadDeadline(t time.Time) error {
	w.c.readBy = t
	return w.c.nc.SetReadDeadline(t)
}

// SetWriteDeadline is what http.ResponseController calls.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.c.writeBy = t
	return w.c.nc.SetWriteDeadline(t)
}

// EnableFullDuplex is what http.ResponseController calls; a handler may always read
// the request while it answers.
func (w *response) EnableFullDuplex() error { return nil }

// Sectioner is a source that lies in files: Section returns its next part and
// passes over it, or fails with io.EOF at the end.
type Sectioner interface {
	Section() (f *os.File, off, n int64, err error)
}

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// ReadFrom implements io.ReaderFrom. A Sectioner goes from its file to a TCP
// connection within the kernel.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	if err := w.begin(0); err != nil || w.bodyless {
		return 0, err
	}
	if s, ok := src.(Sectioner); ok && w.committed && !w.chunked && w.c.raw != nil {
		return w.sendFile(s)
	}
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		m, err := src.Read(buf[:])
		if m > 0 {
			if _, err := w.Write(buf[:m]); err != nil {
				return n, err
			}
			n += int64(m)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// sendFile sends the parts of files.
func (w *response) sendFile(s Sectioner) (n int64, err error) {
	if w.err = w.c.flush(); w.err != nil {
		return 0, w.err
	}
	for {
		f, off, left, err := s.Section()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if err := w.begin(left); err != nil {
			return n, err
		}
		for left > 0 {
			w.c.renewWriteDeadline()
			m, err := sendFile(w.c.raw, f, off, min(left, maxWrite))
			off, left, n = off+m, left-m, n+m
			if err != nil {
				w.err = err
				return n, err
			}
		}
	}
}

var errShortFile = errors.New("http1: the file is shorter than it was")

// sendFile sends up to n bytes of a file from off.
func sendFile(conn syscall.RawConn, f *os.File, off, n int64) (sent int64, err error) {
	from, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = conn.Write(func(to uintptr) (done bool) {
		controlled := from.Control(func(fd uintptr) {
			var m int
			for {
				m, failed = unix.Sendfile(int(to), int(fd), &off, int(n))
				if failed != unix.EINTR {
					break
				}
			}
			sent = int64(max(m, 0))
		})
		if controlled != nil {
			failed = controlled
		}
		return failed != unix.EAGAIN
	})
	switch {
	case err != nil:
		return sent, err
	case failed != nil:
		return sent, os.NewSyscallError("sendfile", failed)
	case sent == 0:
		return 0, errShortFile
	}
	return sent, nil
}

// Hijack implements http.Hijacker.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	c := w.c
	w.watch.stop()
	if err := c.flush(); err != nil {
		return nil, nil, err
	}
	c.nc.SetDeadline(time.Time{})
	w.mu.Lock()
	w.hijacked, c.hijacked = true, true
	w.mu.Unlock()
	rest := bytes.Clone(c.buf[c.r:c.w])
	br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(rest), c.nc), max(len(rest), 4096))
	br.Peek(len(rest))
	return c.nc, bufio.NewReadWriter(br, bufio.NewWriter(c.nc)), nil
}

// finish ends the answer, and tells whether it is whole.
func (w *response) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.committed {
		w.length = int64(len(w.pending))
		w.commit()
		w.put(w.pending)
	}
	if w.chunked {
		w.c.out = append(w.c.out, "0\r\n\r\n"...)
	}
	if w.err == nil {
		w.err = w.c.flush()
	}
	return w.err == nil && (w.bodyless || w.length < 0 || w.written >= w.length)
}

// goesOn tells whether another request can follow; where it cannot, the viewer has
// had time to read the answer.
func (w *response) goesOn() bool {
	if !w.body.discard() || w.close {
		w.c.linger()
		return false
	}
	return true
}

// AppendField appends a header field. Line breaks in the value become spaces, so
// that no value can add a field.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	start := len(b)
	b = append(b, value...)
	if !httpsyntax.IsValue(b[start:]) {
		for i, c := range b[start:] {
			if c == '\r' || c == '\n' || c == 0 {
				b[start+i] = ' '
			}
		}
	}
	return append(b, "\r\n"...)
}

// appendStatus appends a status and its reason.
func appendStatus(b []byte, status int) []byte {
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		return append(b, text...)
	}
	return append(b, "Status"...)
}
