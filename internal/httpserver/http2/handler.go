package http2

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"
	"time"
)

// begin has the handler answer a request, in a goroutine that ends with it: its
// context ends with the stream.
func (c *conn) begin(b block, r *http.Request) {
	ctx, cancel := context.WithCancelCause(context.WithValue(c.ctx, namesKey{}, c.head.names()))
	r = r.WithContext(ctx)
	r.RemoteAddr, r.TLS = c.addr, c.tls
	c.mu.Lock()
	st := c.newStream(b.stream, r.ContentLength, b.end)
	st.cancel = cancel
	c.running++
	c.mu.Unlock()
	w := &response{st: st, bodyless: r.Method == http.MethodHead, header: make(http.Header)}
	if b.end {
		r.Body, r.ContentLength = http.NoBody, 0
	} else {
		body := &body{st: st, trailer: r.Trailer}
		if c.head.expect {
			body.wanted = func() { st.interim(AppendStatus(nil, http.StatusContinue)) }
			delete(r.Header, "Expect")
		}
		r.Body = body
	}
	c.handlers.Go(func() {
		defer cancel(context.Canceled)
		c.call(w, r)
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
	})
}

// call calls the handler and ends its answer.
func (c *conn) call(w *response, r *http.Request) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p != http.ErrAbortHandler {
			c.s.log().Error("edge: a handler panicked", "panic", p, "stack", string(debug.Stack()))
			if w.status == 0 {
				w.header = http.Header{}
				w.WriteHeader(http.StatusInternalServerError)
				w.finish()
				return
			}
		}
		w.abort()
	}()
	c.s.Handler.ServeHTTP(w, r)
	w.finish()
}

// body is the body of a request.
type body struct {
	st      *stream
	trailer http.Header // of the request, filled when the body has been read
	wanted  func()      // is called before the first wait; nil: nobody
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if wanted := b.wanted; wanted != nil {
		b.wanted = nil
		wanted()
	}
	st, c := b.st, b.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for st.read == len(st.data) && st.readErr == nil && !st.closed && len(p) > 0 {
		st.starved = true
		st.changed.Wait()
	}
	st.starved, st.starving = false, patience{}
	n := copy(p, st.data[st.read:])
	switch {
	case st.closed:
		return 0, http.ErrBodyReadAfterClose
	case n == 0 && len(p) > 0:
		b.fillTrailer()
		return 0, st.readErr
	}
	if st.read += n; st.read == len(st.data) {
		if st.data, st.read = st.data[:0], 0; cap(st.data) > 4*maxFrame {
			st.data = nil
		}
	}
	if st.credit(n); len(c.out) > 0 {
		c.flush()
	}
	return n, nil
}

// fillTrailer takes over the fields that the request has declared. c.mu is held.
func (b *body) fillTrailer() {
	for _, f := range b.st.trailers {
		if name := canonical(f.Name); b.trailer != nil {
			if have, declared := b.trailer[name]; declared {
				b.trailer[name] = append(have, f.Value)
			}
		}
	}
	b.st.trailers = nil
}

// Close implements io.Closer: what is left is not wanted.
func (b *body) Close() error {
	st, c := b.st, b.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	st.closed = true
	c.give(len(st.data) - st.read)
	st.data, st.read = nil, 0
	st.changed.Broadcast()
	return nil
}

// SetReadDeadline is what http.ResponseController calls.
func (w *response) SetReadDeadline(t time.Time) error {
	st := w.st
	return st.setDeadline(&st.readBy, t, func() {
		if st.readErr == nil {
			st.readErr = os.ErrDeadlineExceeded
		}
		st.changed.Broadcast()
	})
}

// SetWriteDeadline is what http.ResponseController calls: an answer that is not
// complete by then is broken off.
func (w *response) SetWriteDeadline(t time.Time) error {
	st := w.st
	return st.setDeadline(&st.writeBy, t, func() {
		if st.err == nil {
			st.c.reset(st.id, codeCancel, os.ErrDeadlineExceeded)
			st.c.flush()
		}
	})
}

// setDeadline has passed called at a time, with the connection's lock held; never
// where it is zero.
func (st *stream) setDeadline(timer **time.Timer, t time.Time, passed func()) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err != nil {
		return st.err
	}
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if t.IsZero() {
		return nil
	}
	var own *time.Timer
	own = time.AfterFunc(time.Until(t), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if *timer == own { // it has not been replaced meanwhile
			passed()
		}
	})
	*timer = own
	return nil
}

// EnableFullDuplex is what http.ResponseController calls; a handler may always read
// the request while it answers.
func (w *response) EnableFullDuplex() error { return nil }
