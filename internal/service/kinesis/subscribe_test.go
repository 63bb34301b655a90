package kinesis

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/stream"
)

// oneShard returns a service that has nothing but a stream of one shard in use.
func oneShard(t *testing.T) (*Service, *live) {
	t.Helper()
	logs, err := stream.Open(t.TempDir(), stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = logs.Close() })
	l := &live{}
	if err := l.use(record{ID: "s", Name: "s", Retention: minRetention, Shards: []shard{{End: lastKey, Created: time.Now()}}}, logs); err != nil {
		t.Fatal(err)
	}
	return &Service{opts: Options{Now: time.Now}, log: slog.New(slog.DiscardHandler)}, l
}

func appendTo(t *testing.T, l *live, records, size int) {
	t.Helper()
	sh, _ := l.shard(0)
	list := make([]stream.Record, records)
	for i := range list {
		list[i].Data = make([]byte, size)
	}
	if _, err := sh.log.Append(list); err != nil {
		t.Fatal(err)
	}
}

func TestASubscriptionLastsFiveMinutesAndGoesOnWhereItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := oneShard(t)
		appendTo(t, l, 3, 10)
		start := time.Now()
		events, records := 0, 0
		var last *api.SubscribeToShardEvent
		if err := s.push(t.Context(), l, 0, 0, func(e *api.SubscribeToShardEvent) bool {
			events, records, last = events+1, records+len(e.Records), e
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != subscriptionLife {
			t.Errorf("it lasts %v", d)
		}
		if records != 3 || events < 50 {
			t.Errorf("%d records, %d events", records, events)
		}
		sh, _ := l.shard(0)
		if want := sh.sequence(3); *last.ContinuationSequenceNumber != want {
			t.Errorf("it goes on after %s, want %s", *last.ContinuationSequenceNumber, want)
		}
	})
}

func TestASubscriberHasTwoMiBASecondOfAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := oneShard(t)
		appendTo(t, l, 40, 1<<20)
		start, bytes := time.Now(), 0
		if err := s.push(t.Context(), l, 0, 0, func(e *api.SubscribeToShardEvent) bool {
			for _, r := range e.Records {
				bytes += len(r.Data)
			}
			return bytes < 40<<20
		}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 19*time.Second || d > 20*time.Second {
			t.Errorf("40 MiB take %v", d)
		}
	})
}

func TestASubscriptionIsTakenOverAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := oneShard(t)
		key := subscriptionKey{"arn", 0}
		taken := api.NewResourceInUseException("taken")
		ctx, done, err := s.subscriptions.begin(t.Context(), key, time.Now(), taken)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		ended := make(chan error)
		go func() { ended <- s.push(ctx, l, 0, 0, func(*api.SubscribeToShardEvent) bool { return true }) }()
		if _, _, err := s.subscriptions.begin(t.Context(), key, time.Now().Add(subscriptionHold-1), taken); err != error(taken) {
			t.Errorf("before 5 seconds: %v", err)
		}
		time.Sleep(subscriptionHold)
		_, other, err := s.subscriptions.begin(t.Context(), key, time.Now(), taken)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-ended; codeOf(err) != "ResourceInUseException" {
			t.Errorf("the subscription that was taken over ends with %v", err)
		}
		done() // does not end the other's
		if _, _, err := s.subscriptions.begin(t.Context(), key, time.Now(), taken); err == nil {
			t.Error("two subscriptions at once")
		}
		other()
		s.EndSubscriptions()
		if _, _, err := s.subscriptions.begin(t.Context(), key, time.Now(), taken); err == nil {
			t.Error("a subscription begins while the server ends")
		}
	})
}

func TestASubscriptionEndsWithItsClientOrItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := oneShard(t)
		nothing := func(*api.SubscribeToShardEvent) bool { return true }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := s.push(ctx, l, 0, 0, nothing); err != nil {
			t.Errorf("when the client has gone: %v", err)
		}
		sh, _ := l.shard(0)
		time.AfterFunc(time.Second, func() { appendTo(t, l, 1, 1) })
		start := time.Now()
		if err := s.push(t.Context(), l, 0, sh.log.End(), func(*api.SubscribeToShardEvent) bool { return false }); err != nil || time.Since(start) != time.Second {
			t.Errorf("a record is pushed after %v, %v", time.Since(start), err)
		}
		l.mu.Lock()
		l.shards = map[int]*liveShard{}
		l.mu.Unlock()
		if err := s.push(t.Context(), l, 0, 0, nothing); codeOf(err) != "ResourceNotFoundException" {
			t.Errorf("when the shard has gone: %v", err)
		}
	})
}
