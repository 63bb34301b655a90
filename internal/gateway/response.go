package gateway

import (
	"io"
	"net/http"
	"time"
)

// stall is how long a client may keep us waiting: for the next bytes of its
// request's body, and for room to write more of the response. A function may
// run for minutes in between; that does not count.
const stall = time.Minute

// response is the writer that handlers write to. It remembers what was
// written, and gives every write its own time limit.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int // 0 until the header has been written
	bytes   int64
}

func newResponse(w http.ResponseWriter) *response {
	res := &response{ResponseWriter: w, control: http.NewResponseController(w)}
	// The limit of the connection's previous request has no say here.
	res.limitWrites(time.Time{})
	return res
}

// limitWrites sets the time by which what was written must have left. Writers
// without deadlines (those of tests) have no slow client either.
func (w *response) limitWrites(t time.Time) { _ = w.control.SetWriteDeadline(t) }

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.limitWrites(time.Now().Add(stall))
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError serves http.ResponseController.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.limitWrites(time.Now().Add(stall))
	return w.control.Flush()
}

// patientBody is a request's body that fails when the client stalls.
type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(stall)) // see limitWrites
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// The server goes on reading the connection, to notice when the client
		// leaves; that may take as long as it likes.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
