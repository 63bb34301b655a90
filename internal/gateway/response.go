package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/httpserver/http1"
)

// defaultStall is how long a client may keep us waiting: for the next bytes of
// its request's body, and for room to write more of the response. A function
// may run for minutes in between; that does not count.
const defaultStall = time.Minute

// response is the writer that handlers write to. It remembers what was
// written, and gives every write its own time limit.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	limited bool // the server limits how long a client may stall by itself
	status  int  // 0 until the header has been written
	bytes   int64
}

func newResponse(w http.ResponseWriter, r *http.Request, stall time.Duration) *response {
	res := &response{ResponseWriter: w, control: http.NewResponseController(w), stall: stall, limited: http1.HeadOf(r) != nil}
	// The limit of the connection's previous request has no say here.
	res.limitWrites(time.Time{})
	return res
}

// limitWrites sets the time by which what was written must have left. Writers
// without deadlines (those of tests) have no slow client either.
func (w *response) limitWrites(t time.Time) {
	if !w.limited {
		_ = w.control.SetWriteDeadline(t)
	}
}

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
	w.limitWrites(time.Now().Add(w.stall))
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
	w.limitWrites(time.Now().Add(w.stall))
	return w.control.Flush()
}

// patientBody is a request's body that fails when the client stalls, and says
// in AWS's words that it is the client who failed.
//
// The deadline stays until the body's end has been read: when a handler leaves
// some of it, the server reads that before it answers.
type patientBody struct {
	io.ReadCloser
	w *response
}

func newPatientBody(body io.ReadCloser, w *response) *patientBody {
	b := &patientBody{body, w}
	b.limitReads(time.Now().Add(w.stall))
	return b
}

func (b *patientBody) limitReads(t time.Time) { // see limitWrites
	if !b.w.limited {
		_ = b.w.control.SetReadDeadline(t)
	}
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.limitReads(time.Now().Add(b.w.stall))
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		// The server goes on reading the connection, to notice when the client
		// leaves; that may take as long as it likes.
		b.limitReads(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = (&aws.Error{
			Code: "RequestTimeout", Status: http.StatusBadRequest,
			Message: "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.",
			Header:  http.Header{"Connection": {"close"}},
		}).WithCause(err)
	default:
		err = (&aws.Error{
			Code: "IncompleteBody", Status: http.StatusBadRequest,
			Message: "The request body terminated unexpectedly.",
		}).WithCause(err)
	}
	return n, err
}
