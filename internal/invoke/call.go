package invoke

import (
	"io"
	"sync"
)

// Call is the caller's end of one invocation. The caller may leave before the
// invocation is over: Lambda does not stop a function because its client went
// away, so from then on what the environment writes is dropped.
type Call struct {
	done  chan struct{}
	onEnd func() // told, without the lock, when the caller has its answer; may be nil

	mu       sync.Mutex
	w        io.Writer // nil once the caller has left or the call is finished
	finished bool
	result   *Result
	err      error
}

func newCall(w io.Writer) *Call { return &Call{w: w, done: make(chan struct{})} }

// Write passes a piece of the response on. It never fails: a caller that
// cannot take the response must not disturb the function.
func (c *Call) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w != nil {
		if _, err := c.w.Write(p); err != nil {
			c.w = nil
		}
	}
	return len(p), nil
}

// Finish answers the caller. Only the first of Finish and Fail counts.
func (c *Call) Finish(r *Result) { c.end(r, nil) }

// Fail answers the caller with an error of the service: the function has not
// been run, or what became of it is unknown.
func (c *Call) Fail(err error) { c.end(nil, err) }

func (c *Call) end(r *Result, err error) {
	c.mu.Lock()
	first := !c.finished
	if first {
		c.finished = true
		c.w, c.result, c.err = nil, r, err
	}
	c.mu.Unlock()
	if first {
		if c.onEnd != nil {
			c.onEnd()
		}
		close(c.done)
	}
}

// leave cuts the writer off; after it no Write reaches it.
func (c *Call) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w = nil
}
