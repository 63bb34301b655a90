// Package conns keeps the connections of a server, so that it can end them: all at
// once, or each when it has answered what it is at.
package conns

import (
	"context"
	"sync"
	"sync/atomic"
)

// Conn is a connection of a server.
type Conn interface {
	comparable
	// Drain has the connection end as soon as it has answered what it is at. It does
	// not wait.
	Drain()
	// Abort ends the connection now.
	Abort()
}

// Set is the connections that a server has open. Its zero value is empty.
type Set[C Conn] struct {
	draining atomic.Bool
	mu       sync.Mutex
	members  map[C]struct{}
	empty    chan struct{} // closed when draining and no connection is left; nil: nobody waits
}

// Add takes a connection in. It fails where there are max already, unless that is 0,
// and once the server drains.
func (s *Set[C]) Add(c C, max int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Draining() || max > 0 && len(s.members) >= max {
		return false
	}
	if s.members == nil {
		s.members = map[C]struct{}{}
	}
	s.members[c] = struct{}{}
	return true
}

// Remove drops a connection that has ended.
func (s *Set[C]) Remove(c C) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, c)
	if len(s.members) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Len is how many connections there are.
func (s *Set[C]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.members)
}

// Draining tells whether the server ends.
func (s *Set[C]) Draining() bool { return s.draining.Load() }

// Close lets no connection in any more.
func (s *Set[C]) Close() { s.draining.Store(true) }

// Drain lets no connection in any more and waits until all have drained. When ctx
// ends first it aborts them and returns ctx's cause.
func (s *Set[C]) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for c := range s.members {
		c.Drain()
	}
	var empty chan struct{}
	if len(s.members) > 0 {
		if s.empty == nil {
			s.empty = make(chan struct{})
		}
		empty = s.empty
	}
	s.mu.Unlock()
	if empty == nil {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		s.Abort()
		return context.Cause(ctx)
	}
}

// Abort lets no connection in any more and ends all.
func (s *Set[C]) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining.Store(true)
	for c := range s.members {
		c.Abort()
	}
}
