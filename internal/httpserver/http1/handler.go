package http1

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// serveHandler has the handler answer the request whose head has been parsed, and
// tells whether the connection goes on.
func (c *Conn) serveHandler() bool {
	// The handler may keep the head for longer than the connection does.
	h := new(Head)
	*h = c.head
	c.head.Fields = nil
	ctx, cancel := context.WithCancelCause(c.ctx)
	watch := &watcher{Context: ctx, c: c, head: h, cancel: cancel}
	defer cancel(context.Canceled)
	req, refused := c.request(h, watch)
	if refused != nil {
		c.refuse(refused)
		return false
	}
	b := newBody(c, h)
	req.Body = http.NoBody
	var given *requestBody // the handler may put another one into req
	if h.HasBody() {
		given = &requestBody{b: b, ended: watch.bodyEnded}
		req.Body = given
	} else {
		watch.bodyEnded()
	}
	w := &response{c: c, head: h, body: b, watch: watch, header: make(http.Header)}
	w.waits, b.cont = h.expect, w.proceed
	whole := c.call(w, req)
	watch.stop()
	switch {
	case w.hijacked:
	case whole:
		whole = w.finish()
	default:
		c.Abort()
	}
	// The handler may have left somebody behind who reads the body, and whom the
	// viewer that waits for the answer would have waited for.
	if given != nil {
		given.Close()
	}
	return whole && !w.hijacked && w.goesOn()
}

// call calls the handler, and tells whether its answer is complete.
func (c *Conn) call(w *response, r *http.Request) (ok bool) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			c.flush() // what was sent so far, without its end
			return
		}
		c.s.log().Error("a handler panicked", "panic", p, "stack", string(debug.Stack()))
		if w.status == 0 && !w.hijacked {
			w.header = http.Header{}
			w.WriteHeader(http.StatusInternalServerError)
			w.close, ok = true, true
		}
	}()
	c.s.Handler.ServeHTTP(w, r)
	return true
}

// requestBody is the body as the handler has it, which may read it and, in another
// goroutine, give it up.
type requestBody struct {
	mu     sync.Mutex
	b      *body
	closed bool
	ended  func() // the body has been read
}

// Read implements io.Reader.
func (r *requestBody) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, errBodyClosed
	}
	n, err := r.b.Read(p)
	if err != nil && r.ended != nil {
		r.ended()
		r.ended = nil
	}
	return n, err
}

// Close implements io.Closer. What is left is for the server to pass over.
func (r *requestBody) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// watcher is the context of a request. When somebody waits for its end, it reads on
// from the connection, to notice that the viewer has gone; what it reads is part of
// the next request.
type watcher struct {
	context.Context
	c      *Conn
	head   *Head
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	wanted   bool          // somebody waits
	readable bool          // the request has been read
	stopped  bool          // the answer is complete
	reading  chan struct{} // closed when the reading has ended; nil: it has not begun
}

// Value implements context.Context.
func (w *watcher) Value(key any) any {
	switch key {
	case headKey{}:
		return w.head
	case http.LocalAddrContextKey:
		return w.c.LocalAddr()
	}
	return w.Context.Value(key)
}

// Done implements context.Context.
func (w *watcher) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = true
	w.start()
	return w.Context.Done()
}

// bodyEnded tells that what comes next on the connection is not of the request.
func (w *watcher) bodyEnded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readable = true
	w.start()
}

// start begins the reading. w.mu is held.
func (w *watcher) start() {
	c := w.c
	if !w.wanted || !w.readable || w.stopped || w.reading != nil || c.w-c.r >= orDefault(c.s.MaxHead, MaxHead) {
		return
	}
	w.reading = make(chan struct{})
	c.readBy = time.Time{}
	c.nc.SetReadDeadline(c.readBy)
	go func() {
		defer close(w.reading)
		if err := c.fill(); err != nil {
			if os.IsTimeout(err) {
				return // stop did it
			}
			c.err = err
			w.cancel(context.Canceled)
		}
	}()
}

// stop ends the reading.
func (w *watcher) stop() {
	w.mu.Lock()
	w.stopped = true
	reading := w.reading
	w.mu.Unlock()
	if reading == nil {
		return
	}
	select {
	case <-reading:
	default:
		w.c.nc.SetReadDeadline(time.Unix(1, 0))
		<-reading
	}
	w.c.readBy = time.Time{}
	w.c.nc.SetReadDeadline(time.Time{})
}
