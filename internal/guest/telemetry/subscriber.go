package telemetry

import (
	"context"
	"sync"
	"time"
)

const (
	// attemptTimeout is how long one attempt of delivery may take.
	attemptTimeout = 5 * time.Second
	// The pauses between attempts double from the first to the last.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// subscriber is one subscription and the events on their way to it.
type subscriber struct {
	name   string
	due    chan struct{} // holds one token when there is something to deliver
	hurry  chan struct{} // closed by flush: no more waiting
	idle   chan struct{} // closed when all that waited at flush is delivered
	dial   Dial
	cancel context.CancelFunc
	done   chan struct{} // closed when the delivering goroutine has ended

	mu       sync.Mutex
	sub      Subscription
	buf      []byte // events in the form of the destination, without an end
	items    int
	lost     loss
	timer    *time.Timer // of the events in buf
	flushing bool
	flushed  bool // idle is closed
}

func newSubscriber(name string, sub Subscription, dial Dial) *subscriber {
	ctx, cancel := context.WithCancel(context.Background())
	s := &subscriber{
		name: name, sub: sub, dial: dial, cancel: cancel,
		due: make(chan struct{}, 1), hurry: make(chan struct{}), idle: make(chan struct{}), done: make(chan struct{}),
	}
	go s.run(ctx)
	return s
}

// API returns the API of the subscription.
func (s *subscriber) API() API {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sub.API
}

func (s *subscriber) destination() Destination {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sub.Destination
}

// replace takes another subscription with the same destination.
func (s *subscriber) replace(sub Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sub = sub
}

// missed adds to what the subscriber is told that it lost.
func (s *subscriber) missed(l loss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.records > 0 {
		s.lost = l
		s.wait()
	}
}

// publish adds an event to the buffer, or counts it where there is no room.
func (s *subscriber) publish(e *Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sub.wants(e) {
		return
	}
	b := &s.sub.Buffering
	before := len(s.buf)
	s.buf = s.append(s.buf, e)
	// "Expect to receive payloads as large as 2 * maxBytes"
	if len(s.buf) > 2*b.MaxBytes || s.items >= 2*b.MaxItems {
		s.buf = s.buf[:before]
		s.lost.add(e)
	} else {
		s.items++
	}
	if len(s.buf) >= b.MaxBytes || s.items >= b.MaxItems || s.flushing {
		s.wake()
	} else {
		s.wait()
	}
}

// append adds an event in the form of the destination: an element of an array,
// or a line. s.mu is held.
func (s *subscriber) append(b []byte, e *Event) []byte {
	if s.sub.Destination.Protocol == "HTTP" {
		if len(b) == 0 {
			b = append(b, '[')
		} else {
			b = append(b, ',')
		}
	}
	b = append(b, `{"time":"`...)
	b = e.Time.UTC().AppendFormat(b, timeFormat)
	b = append(b, `","type":"`...)
	b = append(b, e.Type...)
	b = append(b, `","record":`...)
	if e.Object != nil && s.sub.objects() {
		b = append(b, e.Object...)
	} else {
		b = append(b, e.Record...)
	}
	b = append(b, '}')
	if s.sub.Destination.Protocol == "TCP" {
		b = append(b, '\n')
	}
	return b
}

// wait has the buffer delivered in time. s.mu is held.
func (s *subscriber) wait() {
	if s.timer == nil {
		s.timer = time.AfterFunc(s.sub.Buffering.Timeout, s.wake)
	}
}

// wake has the buffer delivered now.
func (s *subscriber) wake() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// flush has everything delivered as it comes from now on.
func (s *subscriber) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.flushing {
		s.flushing = true
		close(s.hurry)
	}
	s.wake()
}

// close ends the subscription.
func (s *subscriber) close() {
	s.cancel()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// take returns what is to be delivered together, or nil.
func (s *subscriber) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.items == 0 && s.lost.records == 0 {
		if s.flushing && !s.flushed {
			s.flushed = true
			close(s.idle)
		}
		return nil
	}
	var batch []byte
	if s.lost.records > 0 {
		// First, and whatever the subscription's types are: who reads it can
		// only know of the gap from here.
		e := s.lost.event(time.Now())
		batch = s.append(nil, &e)
		if s.items > 0 && batch[0] == '[' {
			s.buf[0] = ','
		}
		s.lost = loss{}
	}
	batch = append(batch, s.buf...)
	if batch[0] == '[' {
		batch = append(batch, ']')
	}
	s.buf, s.items = nil, 0
	return batch
}

// run delivers what is due until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	defer close(s.done)
	t := &transport{destination: s.destination(), dial: s.dial}
	defer t.close()
	for {
		select {
		case <-s.due:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			batch := s.take()
			if batch == nil {
				break
			}
			s.deliver(ctx, t, batch)
			if !s.hurried() {
				break
			}
		}
	}
}

// hurried tells whether flush was called.
func (s *subscriber) hurried() bool {
	select {
	case <-s.hurry:
		return true
	default:
		return false
	}
}

// deliver delivers a batch, which it does not give up before ctx ends: Lambda
// too "retries the attempt (with backoff) if there is no listener, or if the
// request results in an error". An answer that is lost on its way makes the
// batch come twice.
func (s *subscriber) deliver(ctx context.Context, t *transport, batch []byte) {
	hurry := s.hurry
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := t.send(attempt, batch)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-hurry:
			timer.Stop()
			hurry, pause = nil, firstPause // once at once, then in pauses again
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
