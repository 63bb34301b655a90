package logs

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/logstore"
)

// Limits of Live Tail, AWS's.
const (
	tailPeriod    = time.Second
	tailSession   = 3 * time.Hour
	tailMaxEvents = 500 // in one update; of more, a sample is sent
)

// tailDelay is how long the reply to StartLiveTail is held back. The AWS SDK for
// Go (smithy-go 1.28) closes the request's body as soon as the head of the reply
// is there; if net/http has not yet seen the end of that body, which takes it
// some µs after sending it, it drops the connection, and the stream with it. A
// server on the same host is fast enough for that one time in five.
const tailDelay = 20 * time.Millisecond

// StartLiveTail implements api.API.
func (s *Service) StartLiveTail(ctx context.Context, in *api.StartLiveTailInput) (*api.StartLiveTailOutput, error) {
	var groups []string
	for _, id := range in.LogGroupIdentifiers {
		name, err := identifiedGroup(ctx, id)
		if err != nil {
			return nil, err
		}
		if _, err := s.store.Group(name); err != nil {
			return nil, storeError(err)
		}
		groups = append(groups, name)
	}
	match, err := tailFilter(in)
	if err != nil {
		return nil, err
	}
	if s.tails.Add(1) > int64(s.opts.TailSessions) {
		s.tails.Add(-1)
		return nil, api.NewLimitExceededException("The limit of %d concurrent Live Tail sessions is reached", s.opts.TailSessions)
	}
	// The session ends with its request, whether or not its events are read.
	sub := s.store.Subscribe(groups, match)
	end := sync.OnceFunc(func() {
		sub.Close()
		s.tails.Add(-1)
	})
	stop := context.AfterFunc(ctx, end)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(tailDelay):
	}
	return &api.StartLiveTailOutput{ResponseStream: func(yield func(*api.StartLiveTailResponseStream, error) bool) {
		defer end()
		defer stop()
		start := &api.LiveTailSessionStart{
			RequestId:             aws.Ptr(aws.RequestFrom(ctx).ID),
			SessionId:             aws.Ptr(uuid.NewString()),
			LogGroupIdentifiers:   in.LogGroupIdentifiers,
			LogStreamNames:        in.LogStreamNames,
			LogStreamNamePrefixes: in.LogStreamNamePrefixes,
			LogEventFilterPattern: aws.Ptr(aws.Value(in.LogEventFilterPattern)),
		}
		if yield(&api.StartLiveTailResponseStream{SessionStart: start}, nil) {
			tailUpdates(ctx, sub)(yield)
		}
	}}, nil
}

// tailFilter returns which events of its groups a session is about.
func tailFilter(in *api.StartLiveTailInput) (func(group, stream, message string) bool, error) {
	if len(in.LogStreamNames) > 0 && len(in.LogStreamNamePrefixes) > 0 {
		return nil, invalid("logStreamNames and logStreamNamePrefixes are mutually exclusive parameters.")
	}
	if len(in.LogStreamNames)+len(in.LogStreamNamePrefixes) > 0 && len(in.LogGroupIdentifiers) != 1 {
		return nil, invalid("logStreamNames and logStreamNamePrefixes need exactly one log group.")
	}
	wanted, err := messageFilter(in.LogEventFilterPattern)
	if err != nil {
		return nil, err
	}
	return func(_, stream, message string) bool {
		if len(in.LogStreamNames) > 0 && !slices.Contains(in.LogStreamNames, stream) {
			return false
		}
		if len(in.LogStreamNamePrefixes) > 0 &&
			!slices.ContainsFunc(in.LogStreamNamePrefixes, func(p string) bool { return strings.HasPrefix(stream, p) }) {
			return false
		}
		return wanted == nil || wanted(message)
	}, nil
}

// tailUpdates yields an update every second until the session's time is over.
func tailUpdates(ctx context.Context, sub *logstore.Subscription) iter.Seq2[*api.StartLiveTailResponseStream, error] {
	return func(yield func(*api.StartLiveTailResponseStream, error) bool) {
		ticker := time.NewTicker(tailPeriod)
		defer ticker.Stop()
		timeout := time.NewTimer(tailSession)
		defer timeout.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timeout.C:
				yield(nil, &aws.Error{Code: "SessionTimeoutException", Status: 400, Message: "The Live Tail session has reached its limit of 3 hours."})
				return
			case <-ticker.C:
			}
			events, dropped, ok := sub.Take()
			if !yield(&api.StartLiveTailResponseStream{SessionUpdate: tailUpdate(ctx, events, dropped)}, nil) {
				return
			}
			if !ok {
				yield(nil, &aws.Error{Code: "SessionStreamingException", Status: 400, Message: "The server is shutting down."})
				return
			}
		}
	}
}

func tailUpdate(ctx context.Context, events []logstore.TailEvent, dropped int) *api.LiveTailSessionUpdate {
	sampled := dropped > 0 || len(events) > tailMaxEvents
	if len(events) > tailMaxEvents {
		events = sample(events, tailMaxEvents)
	}
	update := &api.LiveTailSessionUpdate{
		SessionMetadata: &api.LiveTailSessionMetadata{Sampled: aws.Ptr(sampled)},
		SessionResults:  []*api.LiveTailSessionLogEvent{},
	}
	r := aws.RequestFrom(ctx)
	for i := range events {
		e := &events[i]
		update.SessionResults = append(update.SessionResults, &api.LiveTailSessionLogEvent{
			LogStreamName:      aws.Ptr(e.Stream),
			LogGroupIdentifier: aws.Ptr(r.AccountID + ":" + e.Group),
			Message:            aws.Ptr(e.Message),
			Timestamp:          millis(e.Time),
			IngestionTime:      millis(e.Ingested),
		})
	}
	return update
}

// sample picks n of events at random and keeps their order.
func sample(events []logstore.TailEvent, n int) []logstore.TailEvent {
	picks := rand.Perm(len(events))[:n]
	slices.Sort(picks)
	out := make([]logstore.TailEvent, n)
	for i, p := range picks {
		out[i] = events[p]
	}
	return out
}
