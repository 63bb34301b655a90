package kinesis

import (
	"context"
	"errors"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/stream"
)

// Subscriptions (API reference, "SubscribeToShard").
const (
	// subscriptionLife is how long one lasts.
	subscriptionLife = 5 * time.Minute
	// subscriptionHold is how long it cannot be taken over.
	subscriptionHold = 5 * time.Second
	// quietEvery is how often a subscriber hears of a shard without new records, so
	// that its place moves on, and a connection that is gone is seen.
	quietEvery = 5 * time.Second
	// maxEvent bounds the data of an event; a record may be larger.
	maxEvent = 1 << 20
)

// subscriptionKey says whose subscription one is.
type subscriptionKey struct {
	consumer string // ARN
	shard    int
}

// subscriptions are those that are open.
type subscriptions struct {
	mu     sync.Mutex
	open   map[subscriptionKey]*subscription
	closed error // why there are no more
}

type subscription struct {
	since time.Time
	end   context.CancelCauseFunc
}

// begin adds a subscription; one of the same consumer to the same shard ends, if it
// has lasted long enough. done has to be called when it is over.
func (s *subscriptions) begin(ctx context.Context, key subscriptionKey, now time.Time, taken error) (_ context.Context, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return nil, nil, s.closed
	}
	if before := s.open[key]; before != nil {
		if now.Sub(before.since) < subscriptionHold {
			return nil, nil, taken
		}
		before.end(taken)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	sub := &subscription{since: now, end: cancel}
	if s.open == nil {
		s.open = map[subscriptionKey]*subscription{}
	}
	s.open[key] = sub
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[key] == sub {
			delete(s.open, key)
		}
	}, nil
}

// end ends subscriptions with an error for their subscribers.
func (s *subscriptions) end(why error, which func(subscriptionKey) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, sub := range s.open {
		if which(key) {
			sub.end(why)
		}
	}
}

// close ends all, and lets no other begin.
func (s *subscriptions) close(why error) {
	s.mu.Lock()
	s.closed = why
	s.mu.Unlock()
	s.end(why, func(subscriptionKey) bool { return true })
}

// EndSubscriptions ends all subscriptions, and lets no other begin: they would hold up
// a server that stops taking requests.
func (s *Service) EndSubscriptions() {
	s.subscriptions.close(api.NewResourceInUseException("The server is shutting down."))
}

// SubscribeToShard implements api.API. A subscription ends with its request, whether
// or not its events are read.
func (s *Service) SubscribeToShard(ctx context.Context, in *api.SubscribeToShardInput) (*api.SubscribeToShardOutput, error) {
	r, _, err := s.findConsumer(in.ConsumerARN, nil, nil)
	if err != nil {
		return nil, err
	}
	l, err := s.findLive(&r.Name, nil, &r.ID)
	if err != nil {
		return nil, err
	}
	number, ok := parseShardID(*in.ShardId)
	sh, _ := l.shard(number)
	if !ok || sh == nil {
		return nil, s.noShard(*in.ShardId, r.Name)
	}
	now := s.opts.Now()
	p := in.StartingPosition
	offset, err := s.start(sh, r.Name, p.Type, p.SequenceNumber, p.Timestamp, now)
	if err != nil {
		return nil, err
	}
	taken := api.NewResourceInUseException("Another active subscription exists for this consumer: %s and shard %s.", *in.ConsumerARN, sh.id())
	ctx, done, err := s.subscriptions.begin(ctx, subscriptionKey{*in.ConsumerARN, number}, now, taken)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, done)
	return &api.SubscribeToShardOutput{EventStream: func(yield func(*api.SubscribeToShardEventStream, error) bool) {
		defer done()
		err := s.push(ctx, l, number, offset, func(e *api.SubscribeToShardEvent) bool {
			return yield(&api.SubscribeToShardEventStream{SubscribeToShardEvent: e}, nil)
		})
		if err != nil {
			yield(nil, err)
		}
	}}, nil
}

// push gives a subscriber the records of a shard from an offset on, until the
// subscription is over or the subscriber takes no more.
func (s *Service) push(ctx context.Context, l *live, number int, offset uint64, send func(*api.SubscribeToShardEvent) bool) error {
	over := time.NewTimer(subscriptionLife)
	defer over.Stop()
	quiet := time.NewTicker(quietEvery)
	defer quiet.Stop()
	// wait waits for c, or for t, and tells which, and whether the subscription goes on.
	wait := func(c <-chan struct{}, t <-chan time.Time) (goesOn, timed bool, err error) {
		select {
		case <-ctx.Done():
			if e, ok := errors.AsType[*aws.Error](context.Cause(ctx)); ok {
				return false, false, e
			}
			return false, false, nil // the client has gone
		case <-over.C:
			return false, false, nil
		case <-c:
			return true, false, nil
		case <-t:
			return true, true, nil
		}
	}
	for tell := false; ; {
		sh, r := l.shard(number)
		if sh == nil {
			return s.noShard(shardID(number), r.Name) // past its retention
		}
		now := s.opts.Now()
		records, next, err := sh.log.Read(offset, stream.Limits{Records: maxReadRecords, Bytes: maxEvent, Since: r.horizon(now)})
		if err != nil {
			return s.failure("read a shard", err)
		}
		e := &api.SubscribeToShardEvent{ContinuationSequenceNumber: aws.Ptr(sh.sequence(max(next, 1) - 1))}
		var bytes int
		e.Records, bytes, e.MillisBehindLatest = sh.give(records, next, now)
		end := sh.over(next)
		if end {
			e.ContinuationSequenceNumber, e.ChildShards = nil, children(&r, number)
		}
		if (tell || end || len(records) > 0) && !send(e) || end {
			return nil
		}
		offset, tell = next, false
		if bytes > 0 { // a consumer has readBytes of each shard for itself
			pause := time.NewTimer(time.Duration(float64(bytes) / readBytes * float64(time.Second)))
			goesOn, _, err := wait(nil, pause.C)
			pause.Stop()
			if !goesOn {
				return err
			}
			continue
		}
		var goesOn bool
		if goesOn, tell, err = wait(sh.log.After(offset), quiet.C); !goesOn {
			return err
		}
	}
}
