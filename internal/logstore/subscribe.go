package logstore

import (
	"slices"
	"sync"
	"sync/atomic"
)

// What a Subscription holds for its reader.
const (
	subscriptionBuffer = 4096    // events
	subscriptionBytes  = 8 << 20 // of their messages
)

// Subscription is a live feed of the events of some groups. Its reader calls
// Take from time to time; what it does not take in time is dropped, oldest
// first, and counted.
type Subscription struct {
	store  *Store
	groups map[string]struct{}
	match  func(group, stream, message string) bool
	ready  chan struct{}

	mu      sync.Mutex
	events  []TailEvent
	bytes   int // of messages
	dropped int
	closed  bool
}

// TailEvent is an event of a live feed.
type TailEvent struct {
	Event
	Group, Stream string
}

// subscriptions is the list of live feeds; without any, publish costs one load.
type subscriptions struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*Subscription]
}

// Subscribe returns a feed of the events that Append and Put take from now on
// for the named groups (which need not exist) and that match accepts; nil
// accepts all. match is called by those who log and must be fast.
func (s *Store) Subscribe(groups []string, match func(group, stream, message string) bool) *Subscription {
	sub := &Subscription{store: s, groups: make(map[string]struct{}), match: match, ready: make(chan struct{}, 1)}
	for _, g := range groups {
		sub.groups[g] = struct{}{}
	}
	s.subs.change(func(l []*Subscription) []*Subscription { return append(l, sub) })
	return sub
}

// Ready is sent to when events are there to be taken.
func (sub *Subscription) Ready() <-chan struct{} { return sub.ready }

// Take returns the events since the last Take, and how many were dropped
// before them. ok is false when the store is closed.
func (sub *Subscription) Take() (events []TailEvent, dropped int, ok bool) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	events, dropped = sub.events, sub.dropped
	sub.events, sub.bytes, sub.dropped = nil, 0, 0
	return events, dropped, !sub.closed
}

// Close ends the feed.
func (sub *Subscription) Close() {
	sub.store.subs.change(func(l []*Subscription) []*Subscription {
		return slices.DeleteFunc(l, func(o *Subscription) bool { return o == sub })
	})
}

func (l *subscriptions) change(f func([]*Subscription) []*Subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*Subscription
	if old := l.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = f(list)
	if len(list) == 0 {
		l.list.Store(nil)
		return
	}
	l.list.Store(&list)
}

func (l *subscriptions) publish(group, stream string, events []Event, now int64) {
	list := l.list.Load()
	if list == nil {
		return
	}
	for _, sub := range *list {
		if _, ok := sub.groups[group]; ok {
			sub.offer(group, stream, events, now)
		}
	}
}

func (sub *Subscription) offer(group, stream string, events []Event, now int64) {
	for i := range events {
		if sub.match != nil && !sub.match(group, stream, events[i].Message) {
			continue
		}
		e := TailEvent{Event: events[i], Group: group, Stream: stream}
		e.Ingested = fromMillis(now)
		sub.mu.Lock()
		sub.events = append(sub.events, e)
		sub.bytes += len(e.Message)
		if len(sub.events) > subscriptionBuffer || sub.bytes > subscriptionBytes {
			sub.dropOldest()
		}
		sub.mu.Unlock()
	}
	sub.signal()
}

// dropOldest drops a quarter of the events, at least one, so that a flood does
// not move all of them for each new one; sub.mu is held.
func (sub *Subscription) dropOldest() {
	n := len(sub.events)/4 + 1
	for i := range n {
		sub.bytes -= len(sub.events[i].Message)
	}
	sub.events = slices.Delete(sub.events, 0, n)
	sub.dropped += n
}

func (sub *Subscription) signal() {
	select {
	case sub.ready <- struct{}{}:
	default:
	}
}

func (l *subscriptions) closeAll() {
	list := l.list.Load()
	if list == nil {
		return
	}
	for _, sub := range *list {
		sub.mu.Lock()
		sub.closed = true
		sub.mu.Unlock()
		sub.signal()
	}
}
