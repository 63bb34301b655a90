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
	stall   time.Duration
	limited bool // the server limits how long a client may stall by itself
	status  int  // 0 until the header has been written
	bytes   int64
}

// init makes w write to the client of r.
func (w *response) init(writer http.ResponseWriter, r *http.Request, stall time.Duration) {
	w.ResponseWriter, w.stall, w.limited = writer, stall, http1.HeadOf(r) != nil
	if !w.limited {
		// The limit of the connection's previous request has no say here.
		_ = w.control().SetWriteDeadline(time.Time{})
	}
}

func (w *response) control() *http.ResponseController {
	return http.NewResponseController(w.ResponseWriter)
}

// limitWrites gives what was written time to leave. Writers without deadlines
// (those of tests) have no slow client either.
func (w *response) limitWrites() {
	if !w.limited {
		_ = w.control().SetWriteDeadline(time.Now().Add(w.stall))
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
	w.limitWrites()
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
	w.limitWrites()
	return w.control().Flush()
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

// init makes b the body that body is.
func (b *patientBody) init(body io.ReadCloser, w *response) {
	b.ReadCloser, b.w = body, w
	b.limitReads()
}

// limitReads gives the client time to send more; see limitWrites.
func (b *patientBody) limitReads() {
	if !b.w.limited {
		_ = b.w.control().SetReadDeadline(time.Now().Add(b.w.stall))
	}
}

// unlimitReads takes the limit away.
func (b *patientBody) unlimitReads() {
	if !b.w.limited {
		_ = b.w.control().SetReadDeadline(time.Time{})
	}
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.limitReads()
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		// The server goes on reading the connection, to notice when the client
		// leaves; that may take as long as it likes.
		b.unlimitReads()
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
