package http1

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// serving is a request and its answer, as the handler has them. It may keep some of
// it for longer than the connection does, so each is set aside anew, in one piece.
type serving struct {
	head  Head
	watch watcher
	body  body
	given requestBody
	w     response
}

// serveHandler has the handler answer the request whose head has been parsed, and
// tells whether the connection goes on.
func (c *Conn) serveHandler() bool {
	x := &serving{head: c.head}
	c.head.Fields = nil
	h, w, watch := &x.head, &x.w, &x.watch
	watch.Context, watch.c, watch.head = c.ctx, c, h
	defer watch.end()
	req, refused := c.request(h, watch)
	if refused != nil {
		c.refuse(refused)
		return false
	}
	x.body.init(c, h)
	w.c, w.head, w.body, w.watch, w.header = c, h, &x.body, watch, make(http.Header)
	if h.expect {
		w.waits, x.body.cont = true, w.proceed
	}
	req.Body = http.NoBody // the handler may put another one into req
	if h.HasBody() {
		x.given.b, x.given.watch = &x.body, watch
		req.Body = &x.given
	} else {
		watch.bodyEnded()
	}
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
	x.given.Close()
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
	watch  *watcher // to be told when the body has been read; nil: it was
}

// Read implements io.Reader.
func (r *requestBody) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, errBodyClosed
	}
	n, err := r.b.Read(p)
	if err != nil && r.watch != nil {
		r.watch.bodyEnded()
		r.watch = nil
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
	context.Context // the connection's, which has no end
	c               *Conn
	head            *Head

	mu       sync.Mutex
	own      context.Context // which ends; nil: nobody has asked for that
	cancel   context.CancelFunc
	ended    bool          // the request is over
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
	w.mu.Lock()
	own := w.own
	w.mu.Unlock()
	if own != nil {
		return own.Value(key) // by which package context finds what it has made
	}
	return w.Context.Value(key)
}

// Done implements context.Context.
func (w *watcher) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.own == nil {
		w.own, w.cancel = context.WithCancel(w.Context)
		if w.ended {
			w.cancel()
		}
	}
	w.start()
	return w.own.Done()
}

// Err implements context.Context.
func (w *watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.own != nil:
		return w.own.Err()
	case w.ended:
		return context.Canceled
	}
	return nil
}

// end ends the context.
func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.cancel != nil {
		w.cancel()
	}
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
	if w.own == nil || !w.readable || w.stopped || w.reading != nil || c.w-c.r >= orDefault(c.s.MaxHead, MaxHead) {
		return
	}
	w.reading = make(chan struct{})
	c.readBy = time.Time{}
	c.nc.SetReadDeadline(c.readBy)
	cancel := w.cancel
	go func() {
		defer close(w.reading)
		if err := c.fill(); err != nil {
			if os.IsTimeout(err) {
				return // stop did it
			}
			c.err = err
			cancel()
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
