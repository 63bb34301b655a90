package invoke

import (
	"context"
	"sync"
)

// Call is the caller's end of one invocation. The caller may leave before the
// invocation is over: Lambda does not stop a function because its client went
// away, so from then on what the environment writes is dropped. The zero Call
// has no caller at all.
type Call struct {
	data  chan []byte   // to the caller, who alone writes to its writer
	left  chan struct{} // closed when the caller has left
	done  chan struct{} // closed when result or err is set
	onEnd func()        // told when the caller has its answer; may be nil

	once   sync.Once
	result *Result
	err    error
}

func newCall() *Call {
	return &Call{data: make(chan []byte), left: make(chan struct{}), done: make(chan struct{})}
}

// Write passes a piece of the response on, which must not change any more. It
// waits until the caller has dealt with the piece before, and drops this one
// where the caller has left or ctx ends first: a caller that is slow to take
// the response must not keep the function beyond its time.
func (c *Call) Write(ctx context.Context, p []byte) {
	if c.data == nil {
		return
	}
	select {
	case c.data <- p:
	case <-c.left:
	case <-ctx.Done():
	}
}

// Finish answers the caller. Only the first of Finish and Fail counts.
func (c *Call) Finish(r *Result) { c.end(r, nil) }

// Fail answers the caller with an error of the service: the function has not
// been run, or what became of it is unknown.
func (c *Call) Fail(err error) { c.end(nil, err) }

func (c *Call) end(r *Result, err error) {
	c.once.Do(func() {
		c.result, c.err = r, err
		if c.onEnd != nil {
			c.onEnd()
		}
		if c.done != nil {
			close(c.done)
		}
	})
}
