package invoke

import (
	"context"
	"io"
	"sync"
)

// Call is the caller's end of one invocation. The caller may leave before the
// invocation is over: Lambda does not stop a function because its client went
// away, so from then on what the environment writes is dropped. The zero Call
// has no caller at all.
type Call struct {
	data  chan piece    // to the caller, who alone writes to its writer
	left  chan struct{} // closed when the caller has left
	done  chan struct{} // closed when result or err is set
	onEnd func()        // told when the caller has its answer; may be nil

	once   sync.Once
	ended  bool // what follows is set
	result *Result
	last   []byte // of the response, to be written before result is returned
	err    error
}

// piece is a part of a response: its beginning, or some of its bytes.
type piece struct {
	begins      bool
	contentType string
	bytes       []byte
}

func newCall() *Call {
	return &Call{data: make(chan piece), left: make(chan struct{}), done: make(chan struct{})}
}

// Begin tells a caller who wants to know (see Beginner) that a streamed response
// begins, before its first Write. It waits and drops as Write does.
func (c *Call) Begin(ctx context.Context, contentType string) {
	c.pass(ctx, piece{begins: true, contentType: contentType})
}

// Write passes a piece of the response on, which must not change any more. It
// waits until the caller has dealt with the piece before, and drops this one
// where the caller has left or ctx ends first: a caller that is slow to take
// the response must not keep the function beyond its time.
func (c *Call) Write(ctx context.Context, p []byte) { c.pass(ctx, piece{bytes: p}) }

func (c *Call) pass(ctx context.Context, p piece) {
	if c.data == nil {
		return
	}
	select {
	case c.data <- p:
	case <-c.left:
	case <-ctx.Done():
	}
}

// writeTo gives a piece to the caller's writer.
func (p piece) writeTo(w io.Writer) error {
	if !p.begins {
		_, err := w.Write(p.bytes)
		return err
	}
	if b, ok := w.(Beginner); ok {
		b.Begin(p.contentType)
	}
	return nil
}

// Finish answers the caller, with what Write has not passed on of the response,
// which must not change any more: a response that is whole wakes its caller once.
// Only the first of Finish and Fail counts.
func (c *Call) Finish(r *Result, last []byte) { c.end(r, last, nil) }

// Fail answers the caller with an error of the service: the function has not
// been run, or what became of it is unknown.
func (c *Call) Fail(err error) { c.end(nil, nil, err) }

func (c *Call) end(r *Result, last []byte, err error) {
	c.once.Do(func() {
		c.result, c.last, c.err, c.ended = r, last, err, true
		if c.onEnd != nil {
			c.onEnd()
		}
		if c.done != nil {
			close(c.done)
		}
	})
}

// answer gives the caller what the call was finished with.
func (c *Call) answer(w io.Writer) (*Result, error) {
	if len(c.last) > 0 {
		_, _ = w.Write(c.last) // a caller that is broken knows
	}
	return c.result, c.err
}
