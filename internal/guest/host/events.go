package host

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

const (
	// holdEvents is how long an event waits for a frame that it can go with.
	holdEvents = time.Millisecond
	// maxEvents bounds the bytes of the events that wait.
	maxEvents = 64 * 1024
	// eventsTimeout is when a guest that does not read is given up.
	eventsTimeout = 10 * time.Second
)

// outbox holds the events on their way to the guest, so that giving one never
// waits for the guest.
type outbox struct {
	flush  func() // sends what waits; set once
	wanted atomic.Bool

	mu     sync.Mutex
	frames []byte
	timer  *time.Timer
	closed bool
}

// Wanted tells whether the guest takes platform events: while the runtime
// initialises, as extensions may subscribe to them until that is over, and then
// if one has.
func (c *Conn) Wanted() bool { return c.events.wanted.Load() }

// Event gives the subscribers of telemetry a platform event: record is JSON of
// up to proto.MaxEvent bytes. It never blocks; an event is dropped where the
// guest has stopped reading, or does not want it.
func (c *Conn) Event(t time.Time, kind string, record []byte) {
	if !c.Wanted() || len(record) > proto.MaxEvent {
		return
	}
	o := &c.events
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.frames)+len(record) > maxEvents {
		return
	}
	o.frames = proto.AppendMeta(o.frames, proto.TypeEvent, proto.Event{TimeUs: t.UnixMicro(), Type: kind}, len(record))
	o.frames = append(o.frames, record...)
	if o.timer == nil {
		o.timer = time.AfterFunc(holdEvents, o.flush)
	} else {
		o.timer.Reset(holdEvents)
	}
}

// take moves the events that wait to the end of b.
func (o *outbox) take(b []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.frames) == 0 {
		return b
	}
	o.timer.Stop()
	b = append(b, o.frames...)
	o.frames = o.frames[:0]
	return b
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.timer != nil {
		o.timer.Stop()
	}
}

// flushEvents sends the events that no frame has taken along. A failure closes
// the connection, which its reader reports.
func (c *Conn) flushEvents() {
	ctx, cancel := context.WithTimeout(context.Background(), eventsTimeout)
	defer cancel()
	_ = c.write(ctx, 0, nil, nil)
}
