package host

import (
	"encoding/json"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// invocation is the state of the invocation under way. Conn.mu guards it.
type invocation struct {
	id     string
	limit  int64         // of the response
	notify chan struct{} // holds one token when something below has changed

	start  *proto.ResponseStart
	data   []byte // received, not yet taken by pump
	window int    // bytes that the guest may still send
	end    *ending
	timing Timing
	over   bool
	exit   *proto.RuntimeExit
	// undelivered is set where the runtime exited without having got the event.
	undelivered bool
}

// ending is the end of a response, with the error if it failed.
type ending struct{ err *RuntimeError }

func newInvocation(inv proto.Invocation) *invocation {
	return &invocation{
		id:     inv.RequestID,
		limit:  inv.MaxResponse(),
		notify: make(chan struct{}, 1),
		window: proto.Window,
	}
}

// wake wakes the invocation that has something new. Conn.mu is held.
func (l *life) wake() {
	if l.touched != nil {
		l.touched.wake()
		l.touched = nil
	}
}

func (iv *invocation) wake() {
	select {
	case iv.notify <- struct{}{}:
	default:
	}
}

// violation reports a frame that does not fit the state of the connection.
func violation(format string, args ...any) error {
	return fmt.Errorf("host: protocol violation: "+format, args...)
}

// handle acts on one frame from the guest.
func (c *Conn) handle(f proto.Frame) error {
	switch f.Type {
	case proto.TypeLog:
		return c.handleLog(f)
	case proto.TypeHello:
		return c.handleHello(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Type == proto.TypeResetDone {
		return c.handleResetDone()
	}
	if c.reset != nil {
		return nil // of the runtime that ends, of which nothing counts any more
	}
	switch f.Type {
	case proto.TypeExtension, proto.TypeSubscription:
		return c.handleExtension(f)
	case proto.TypeRuntimeDone, proto.TypeSnapshotReady, proto.TypeInitDone, proto.TypeInvokeDone:
		done, err := c.life.runtimeDone(f)
		if err != nil {
			return err
		}
		if done != nil {
			c.h.RuntimeDone(*done)
		}
		if f.Type == proto.TypeRuntimeDone {
			return nil
		}
	}
	err := c.life.handle(f)
	c.events.wanted.Store(c.life.subscribed || !c.life.initOver())
	return err
}

// handleExtension acts on a frame that tells of an extension. c.mu is held.
func (c *Conn) handleExtension(f proto.Frame) error {
	if len(f.Payload) > proto.MaxEvent {
		return violation("frame type %d of %d bytes", f.Type, len(f.Payload))
	}
	if f.Type == proto.TypeExtension {
		var e proto.Extension
		if err := f.Decode(&e); err != nil {
			return err
		}
		c.h.Extension(e)
		return nil
	}
	var s proto.Subscription
	if err := f.Decode(&s); err != nil {
		return err
	}
	c.life.subscribed = true
	c.h.Subscribed(s)
	return nil
}

// runtimeDone acts on a frame that says, or implies, that the runtime has
// finished; it returns what to tell of it, where that is news. Conn.mu is held.
func (l *life) runtimeDone(f proto.Frame) (*RuntimeDone, error) {
	var d proto.InvokeDone
	if f.Type == proto.TypeRuntimeDone || f.Type == proto.TypeInvokeDone {
		if err := f.Decode(&d); err != nil {
			return nil, err
		}
	}
	if d.RequestID == "" && f.Type != proto.TypeInvokeDone {
		again := l.runtimeReady
		if l.initOver() || closed(l.parked) && !l.restored || again && f.Type == proto.TypeRuntimeDone {
			return nil, violation("initialisation ended twice")
		}
		if l.runtimeReady = true; again {
			return nil, nil
		}
		return &RuntimeDone{}, nil
	}
	iv := l.inv
	if iv == nil || d.RequestID != iv.id || iv.end == nil {
		return nil, violation("invocation done out of place")
	}
	again := !iv.timing.Done.IsZero()
	switch {
	case again && f.Type == proto.TypeRuntimeDone:
		return nil, violation("invocation done twice")
	case again:
		return nil, nil
	}
	iv.timing.Done = time.Now()
	return &RuntimeDone{RequestID: iv.id, Err: iv.end.err, Timing: iv.timing}, nil
}

// handleResetDone begins the life of another runtime. c.mu is held.
func (c *Conn) handleResetDone() error {
	if c.reset == nil {
		return violation("reset done out of place")
	}
	close(c.reset)
	c.life.wake()
	c.reset, c.life = nil, newLife()
	c.events.wanted.Store(true)
	return nil
}

// handle acts on one frame that is about the runtime. Conn.mu is held.
func (l *life) handle(f proto.Frame) error {
	switch f.Type {
	case proto.TypeInitDone:
		var d proto.InitDone
		if err := f.Decode(&d); err != nil {
			return err
		}
		l.subscribed = l.subscribed || d.Subscribed // before the snapshot, which this end knows nothing of
		return l.endInit(InitResult{})
	case proto.TypeSnapshotReady:
		return l.handleSnapshotReady(f)
	case proto.TypeStep:
		return l.handleStep(f)
	case proto.TypeInitError:
		return l.handleInitError(f)
	case proto.TypeRuntimeExit:
		return l.handleExit(f)
	case proto.TypeResponseStart, proto.TypeResponseData, proto.TypeResponseEnd,
		proto.TypeResponseError, proto.TypeInvokeDone:
		if l.inv == nil {
			return violation("frame type %d without an invocation", f.Type)
		}
		if err := l.inv.handle(f); err != nil {
			return err
		}
		l.touched = l.inv
		if l.inv.over {
			l.inv = nil
		}
		return nil
	default:
		return violation("unknown frame type %d", f.Type)
	}
}

func (c *Conn) handleLog(f proto.Frame) error {
	var l proto.Log
	msg, err := f.Split(&l)
	if err != nil {
		return err
	}
	if len(msg) > proto.MaxLogLine {
		return violation("log message of %d bytes", len(msg))
	}
	c.h.Log(l, msg)
	return nil
}

func (c *Conn) handleHello(f proto.Frame) error {
	var h proto.Hello
	if err := f.Decode(&h); err != nil {
		return err
	}
	if h.Version != proto.Version {
		return violation("version %d, want %d", h.Version, proto.Version)
	}
	if c.greeted {
		return violation("second hello")
	}
	c.greeted = true
	if !closed(c.ready) {
		close(c.ready)
	}
	return nil
}

// endInit records the end of initialisation.
func (l *life) endInit(r InitResult) error {
	if l.initOver() {
		return violation("initialisation ended twice")
	}
	l.result = r
	l.steps.End(stepLoad)
	close(l.inited)
	return nil
}

// handleSnapshotReady records that the runtime waits to be restored.
func (l *life) handleSnapshotReady(f proto.Frame) error {
	var r proto.SnapshotReady
	if err := f.Decode(&r); err != nil {
		return err
	}
	if !l.restorable || l.initOver() || closed(l.parked) {
		return violation("snapshot ready out of place")
	}
	if !proto.ValidUnfit(r.Unfit) {
		return violation("reason of %d bytes against a snapshot", len(r.Unfit))
	}
	l.unfit = r.Unfit
	close(l.parked)
	return nil
}

func (l *life) handleInitError(f proto.Frame) error {
	var m proto.ErrorMeta
	body, err := f.Split(&m)
	if err != nil {
		return err
	}
	e := &RuntimeError{Type: m.ErrorType, Body: append([]byte{}, body...), ContentType: m.ContentType}
	if err := l.endInit(InitResult{Err: e}); err != nil {
		return err
	}
	if iv := l.inv; iv != nil { // it waited for a runtime that will not come
		iv.end, iv.over = &ending{e}, true
		l.touched, l.inv = iv, nil
	}
	return nil
}

func (l *life) handleExit(f proto.Frame) error {
	e := new(proto.RuntimeExit)
	if err := f.Decode(e); err != nil {
		return err
	}
	if l.exit != nil {
		return violation("second exit")
	}
	l.exit = e
	re := &RuntimeError{Type: e.ErrorType, Exit: e}
	if re.Type == "" {
		re.Type = "Runtime.ExitError"
	}
	initialised := l.initOver()
	if !initialised {
		l.result = InitResult{Err: re}
		close(l.inited)
	}
	if iv := l.inv; iv != nil {
		iv.exit, iv.over = e, true
		if iv.end == nil {
			iv.end = &ending{re}
			iv.undelivered = initialised && e.RequestID == ""
		}
		l.touched, l.inv = iv, nil
	}
	return nil
}

// handle acts on a frame that belongs to the invocation under way.
func (iv *invocation) handle(f proto.Frame) error {
	switch f.Type {
	case proto.TypeResponseStart:
		s := new(proto.ResponseStart)
		if err := f.Decode(s); err != nil {
			return err
		}
		if s.RequestID != iv.id || iv.start != nil || iv.end != nil {
			return violation("response start out of place")
		}
		iv.start = s
		iv.timing.Response = time.Now()
	case proto.TypeResponseData:
		n := len(f.Payload)
		iv.timing.Produced += int64(n)
		switch {
		case iv.start == nil || iv.end != nil:
			return violation("response data out of place")
		case n > proto.MaxChunk || n > iv.window:
			return violation("response data of %d bytes with a window of %d", n, iv.window)
		case iv.timing.Produced > iv.limit:
			return violation("response of over %d bytes", iv.limit)
		}
		iv.window -= n
		iv.data = append(iv.data, f.Payload...)
	case proto.TypeResponseEnd:
		var e proto.ResponseEnd
		if err := f.Decode(&e); err != nil {
			return err
		}
		if iv.start == nil || iv.end != nil {
			return violation("response end out of place")
		}
		iv.end = &ending{endError(e)}
		iv.timing.ResponseEnd = time.Now()
	case proto.TypeResponseError:
		var m proto.ErrorMeta
		body, err := f.Split(&m)
		if err != nil {
			return err
		}
		if m.RequestID != iv.id || iv.start != nil || iv.end != nil {
			return violation("response error out of place")
		}
		iv.end = &ending{&RuntimeError{Type: m.ErrorType, Body: append([]byte{}, body...), ContentType: m.ContentType}}
		iv.timing.Response = time.Now()
		iv.timing.ResponseEnd, iv.timing.Produced = iv.timing.Response, int64(len(body))
	case proto.TypeInvokeDone: // runtimeDone has checked it
		iv.over = true
	}
	return nil
}

// endError returns the error that the end of a response tells of, or nil.
func endError(e proto.ResponseEnd) *RuntimeError {
	if e.ErrorType == "" {
		return nil
	}
	re := &RuntimeError{Type: e.ErrorType}
	if e.ErrorBody != "" {
		re.Body, re.ContentType = []byte(e.ErrorBody), "application/json"
		if !json.Valid(re.Body) {
			re.ContentType = "application/octet-stream"
		}
	}
	return re
}
