package functionurl

import (
	"bytes"
	"errors"
	"net/http"
)

// stream invokes the function and passes its response on as it comes.
func (x *exchange) stream(event []byte) error {
	s := &streamWriter{x: x}
	result, err := x.h.options.Functions.InvokeURL(x.r.Context(), x.url, event, s)
	switch {
	case s.failed != nil && !s.sent:
		return badGateway(s.failed)
	case !s.sent && err != nil:
		return err
	case !s.sent && (result.FunctionError != "" || result.ErrorType != ""):
		return badGateway(nil)
	case !s.sent: // in the middle of its head
		return badGateway(errors.New("no end of the response's head"))
	case err != nil || result.ErrorType != "":
		// Half an answer must not be taken for a whole one.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// streamWriter writes the response of a function as it comes. It implements
// invoke.Beginner.
type streamWriter struct {
	x       *exchange
	begun   bool   // else what is written is an error payload
	head    []byte // so far, of a response that begins with one
	reading bool   // of the head
	sent    bool   // the response's head
	failed  error  // why there is none
}

// Begin implements invoke.Beginner.
func (s *streamWriter) Begin(contentType string) {
	s.begun = true
	if contentType == integrationType {
		s.reading = true
		return
	}
	if contentType == "" {
		contentType = streamType
	}
	s.start(&head{status: http.StatusOK, headers: map[string]string{"Content-Type": contentType}})
}

// Write implements io.Writer.
func (s *streamWriter) Write(p []byte) (int, error) {
	n := len(p)
	switch {
	case s.failed != nil:
		return 0, s.failed
	case !s.begun:
		return n, nil
	case s.reading:
		body, err := s.readHead(p)
		if err != nil {
			s.failed = err
			return 0, err
		}
		p = body
	}
	if len(p) == 0 {
		return n, nil
	}
	if _, err := s.x.w.Write(p); err != nil {
		return 0, err
	}
	return n, http.NewResponseController(s.x.w).Flush()
}

// readHead reads the head of the response and returns what follows it in p.
func (s *streamWriter) readHead(p []byte) (body []byte, err error) {
	// The separator may be cut in two.
	from := max(0, len(s.head)-len(separator)+1)
	s.head = append(s.head, p...)
	i := bytes.Index(s.head[from:], separator)
	if i < 0 {
		if len(s.head) > maxHead {
			return nil, errors.New("the response's head is too long")
		}
		return nil, nil
	}
	i += from
	h, err := parseHead(s.head[:i])
	if err != nil {
		return nil, err
	}
	body = s.head[i+len(separator):]
	s.head, s.reading = nil, false
	s.start(h)
	return body, nil
}

// start sends the head at once: the body may be long in coming.
func (s *streamWriter) start(h *head) {
	s.sent = true
	s.x.writeHeader(h, -1)
	_ = http.NewResponseController(s.x.w).Flush() // fails only when the client has left
}
