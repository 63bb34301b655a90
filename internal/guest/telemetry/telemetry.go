// Package telemetry is the subscriptions of the Telemetry API and of the older
// Logs API in one sandbox: what an extension may subscribe to, the buffers of
// the subscribers, and the delivery to their listeners.
//
// A subscriber that is slow, dead or hostile holds nothing up: what does not
// fit its buffer is dropped and counted, and it is told the count. Memory is
// bounded by twice the buffer that the subscription asked for, and as much
// again on its way.
package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// API is an API to subscribe by.
type API string

// The two APIs.
const (
	Telemetry API = "Telemetry"
	Logs      API = "Logs"
)

// Closed returns the error document of a subscription after Init.
func (a API) Closed() (errorType, message string) {
	return string(a) + ".SubscriptionClosed", string(a) + " API subscription is closed already"
}

// Streams of telemetry.
const (
	Platform  = "platform"
	Function  = "function"
	Extension = "extension"
)

const (
	// maxHistory bounds what is kept of Init for extensions that subscribe
	// later in it.
	maxHistory = 256 * 1024
	// maxSubscriptions is as many as there can be extensions.
	maxSubscriptions = 10

	timeFormat = "2006-01-02T15:04:05.000Z"
)

// Event is one event.
type Event struct {
	Time time.Time
	// Type is function or extension for a log line, or platform. and a name.
	Type string
	// Record is JSON in one line.
	Record []byte
	// Object replaces Record for those who get log lines as objects.
	Object []byte
}

// stream returns the stream that the event belongs to.
func (e *Event) stream() string {
	stream, _, _ := strings.Cut(e.Type, ".")
	return stream
}

func (e *Event) size() int { return len(e.Type) + len(e.Record) + len(e.Object) }

// Line returns the event of a log line. In the JSON log format, format is true,
// it has an object form as well: the line itself where it is an object, or one
// made of it.
func Line(stream string, t time.Time, msg []byte, format bool, wrap func() []byte) Event {
	e := Event{Time: t, Type: stream}
	if !format {
		e.Record = quote(string(msg) + "\n")
		return e
	}
	e.Record = quote(string(msg))
	var compact bytes.Buffer
	if trimmed := bytes.TrimSpace(msg); len(trimmed) > 0 && trimmed[0] == '{' && json.Compact(&compact, trimmed) == nil {
		e.Object = compact.Bytes()
	} else {
		e.Object = wrap()
	}
	return e
}

func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return b
}

// Hub gives events to the subscribers of one environment. Its methods are safe
// for concurrent use; none waits for a subscriber, but Close for the ends of
// the deliveries that it cancels.
type Hub struct {
	wanted atomic.Bool
	dial   Dial

	mu      sync.Mutex
	open    bool // subscriptions are accepted, and history is kept
	history []Event
	size    int  // of history
	lost    loss // what history had no room for
	subs    []*subscriber
	closed  bool
}

// Dial connects to a TCP address in the sandbox.
type Dial func(ctx context.Context, address string) (net.Conn, error)

// NewHub returns a Hub that accepts subscriptions until CloseSubscriptions. It
// reaches the subscribers by dial.
func NewHub(dial Dial) *Hub {
	h := &Hub{open: true, dial: dial}
	h.wanted.Store(true)
	return h
}

// Wanted tells whether any event is wanted now, or may be later.
func (h *Hub) Wanted() bool { return h.wanted.Load() }

// Publish gives an event to those who have subscribed to its stream. The event
// is the Hub's from now on.
func (h *Hub) Publish(e Event) {
	if !h.Wanted() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open {
		if h.size+e.size() <= maxHistory {
			h.history = append(h.history, e)
			h.size += e.size()
		} else {
			h.lost.add(&e)
		}
	}
	for _, s := range h.subs {
		s.publish(&e)
	}
}

// ErrClosed reports a subscription after Init.
var ErrClosed = errors.New("telemetry: subscriptions are closed")

// Subscribe subscribes extension name, and gives the subscriber what has
// happened so far. A repeated subscription with the same destination replaces
// the former ("Duplicate subscribe requests do not result in duplicate
// subscriptions"): fresh is false then. Other errors than ErrClosed are the
// extension's, in words for it.
func (h *Hub) Subscribe(name string, sub Subscription) (fresh bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open || h.closed {
		return false, ErrClosed
	}
	for _, s := range h.subs {
		if s.name != name {
			continue
		}
		if s.API() != sub.API {
			// "After subscribing using one of these APIs, any attempt to
			// subscribe using the other API returns an error."
			return false, errors.New("extension is already subscribed using the " + string(s.API()) + " API")
		}
		if s.destination() == sub.Destination {
			s.replace(sub)
			return false, nil
		}
	}
	if len(h.subs) >= maxSubscriptions {
		return false, errors.New("too many subscriptions")
	}
	s := newSubscriber(name, sub, h.dial)
	s.missed(h.lost)
	for i := range h.history {
		s.publish(&h.history[i])
	}
	h.subs = append(h.subs, s)
	return true, nil
}

// CloseSubscriptions ends the time of subscriptions, with Init.
func (h *Hub) CloseSubscriptions() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open, h.history, h.size = false, nil, 0
	h.wanted.Store(len(h.subs) > 0)
}

// Flush has what waits, and what comes from now on, delivered at once, as the
// end is near. It waits for that, but no longer than limit.
func (h *Hub) Flush(limit time.Duration) {
	h.mu.Lock()
	subs := slices.Clone(h.subs)
	h.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, s := range subs {
		s.flush()
	}
	for _, s := range subs {
		select {
		case <-s.idle:
		case <-timer.C:
			return
		}
	}
}

// Close gives up what is not delivered.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed, h.open, h.history = true, false, nil
	h.wanted.Store(false)
	subs := h.subs
	h.mu.Unlock()
	for _, s := range subs {
		s.close()
	}
}

// loss counts what was dropped.
type loss struct {
	records, bytes int
}

func (l *loss) add(e *Event) {
	l.records++
	l.bytes += len(e.Record)
}

// event returns the platform.logsDropped that tells of the loss.
func (l loss) event(now time.Time) Event {
	b, err := json.Marshal(struct {
		Reason  string `json:"reason"`
		Records int    `json:"droppedRecords"`
		Bytes   int    `json:"droppedBytes"`
	}{"Consumer seems to have fallen behind as it has not acknowledged receipt of logs.", l.records, l.bytes})
	if err != nil {
		panic(err) // a string and numbers
	}
	return Event{Time: now, Type: "platform.logsDropped", Record: b}
}
