package events

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/state"
)

// Options configures a Queue. Store, Invoker are required.
type Options struct {
	Store   *state.Store
	Invoker Invoker
	// Observer is told of events; may be nil.
	Observer Observer
	Logger   *slog.Logger
}

// store is the durable part of a Queue; *state.Queue implements it.
type store interface {
	Add(ctx context.Context, h head, payload []byte) (id uint64, err error)
	Get(ctx context.Context, id uint64) (h head, payload []byte, err error)
	Remove(ctx context.Context, id uint64) error
	Heads(ctx context.Context, visit func(id uint64, h head) error) error
}

// Queue is the queue of asynchronous invocations. All its methods may be
// called from any goroutine.
type Queue struct {
	store     store
	invoker   Invoker
	observer  Observer
	log       *slog.Logger
	functions Functions // set before any lane runs

	ctx    context.Context // ends when attempts under way are given up
	cancel context.CancelFunc
	wg     sync.WaitGroup // lanes and attempts

	mu      sync.Mutex
	lanes   map[laneKey]*lane
	started bool
	closing bool
	stop    chan struct{} // closed when nothing more is to start
}

// Open opens the queue and reads what is in it. Nothing runs before Start.
func Open(ctx context.Context, o Options) (*Queue, error) {
	s, err := state.OpenQueue[head](ctx, o.Store, "events")
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	return open(ctx, s, o)
}

func open(ctx context.Context, s store, o Options) (*Queue, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	q := &Queue{
		store: s, invoker: o.Invoker, observer: o.Observer, log: o.Logger,
		lanes: map[laneKey]*lane{}, stop: make(chan struct{}),
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	if err := q.load(ctx); err != nil {
		q.cancel()
		return nil, fmt.Errorf("events: %w", err)
	}
	return q, nil
}

// load rebuilds the index. What has been put back with another attempt
// counted may be there twice after a crash: the last one counts.
func (q *Queue) load(ctx context.Context) error {
	type found struct {
		key laneKey
		p   pending
	}
	byRequest := map[string]found{}
	var superseded []uint64
	err := q.store.Heads(ctx, func(id uint64, h head) error {
		if err := h.check(); err != nil {
			return err
		}
		if old, ok := byRequest[h.RequestID]; ok {
			superseded = append(superseded, old.p.id)
		}
		due := h.Accepted
		if h.Attempts > 0 {
			due = h.NotBefore
		}
		byRequest[h.RequestID] = found{h.lane(), pending{id: id, due: due.UnixNano()}}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range superseded {
		if err := q.store.Remove(ctx, id); err != nil {
			return err
		}
	}
	for _, f := range byRequest {
		l := q.lanes[f.key]
		if l == nil {
			l = newLane()
			q.lanes[f.key] = l
		}
		l.push(f.p)
	}
	return nil
}

// Start begins to run events.
func (q *Queue) Start(f Functions) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.started || q.closing {
		return
	}
	q.functions, q.started = f, true
	for key, l := range q.lanes {
		q.wg.Go(func() { q.run(key, l) })
	}
}

// Accept queues an event and returns when it is durable. An error leaves open
// whether the event will run. What is accepted after Stop runs after the next
// start.
func (q *Queue) Accept(ctx context.Context, e *Event) error {
	now := time.Now()
	h := head{
		Version: headVersion, Target: e.Target, RequestID: e.RequestID, Accepted: now,
		ClientContext: e.ClientContext, TenantID: e.TenantID, Trace: e.Trace,
	}
	id, err := q.store.Add(ctx, h, e.Payload)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	q.observer.EventReceived(e.Target)
	q.push(h.lane(), pending{id: id, due: now.UnixNano()})
	return nil
}

// push puts an event that the store holds into its lane. After Stop it does
// nothing: the next start finds the event.
func (q *Queue) push(key laneKey, p pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return
	}
	l := q.lanes[key]
	if l == nil {
		l = newLane()
		q.lanes[key] = l
		if q.started {
			q.wg.Go(func() { q.run(key, l) })
		}
	}
	l.push(p)
}

// run starts the events of a lane until it is empty or the queue stops.
func (q *Queue) run(key laneKey, l *lane) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, over := q.launch(key, l)
		if over {
			return
		}
		var due <-chan time.Time
		if wait >= 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-l.wake:
		case <-due:
		case <-q.stop:
			return
		}
	}
}

// launch starts what can start now. It returns the time to the next event, or
// that the lane is over: it is empty then, and no longer in the map.
func (q *Queue) launch(key laneKey, l *lane) (wait time.Duration, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closing {
		p, wait, ok := l.pop(time.Now())
		if !ok {
			if len(l.events) == 0 && l.running == 0 {
				delete(q.lanes, key)
				return 0, true
			}
			return wait, false
		}
		q.wg.Go(func() { q.handle(l, p) })
	}
	return 0, true
}

// handle makes one attempt at an event and gives its place in the lane back.
func (q *Queue) handle(l *lane, p pending) {
	v := q.attempt(p)
	q.mu.Lock()
	defer q.mu.Unlock()
	l.running--
	switch v.ended {
	case ran:
		l.ran(v.room)
	case refused:
		l.refused(time.Now())
	}
	if v.again != nil && !q.closing {
		l.push(*v.again)
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Stop lets the attempts under way go on and starts no more.
func (q *Queue) Stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closing {
		q.closing = true
		close(q.stop)
	}
}

// Close stops the queue and waits for the attempts under way until ctx ends.
// What is not done by then is run again after the next start.
func (q *Queue) Close(ctx context.Context) {
	q.Stop()
	stop := context.AfterFunc(ctx, q.cancel)
	defer stop()
	q.wg.Wait()
	q.cancel()
}
