// Package kinesis is the behaviour of Kinesis Data Streams over package stream: a
// data stream is a record in the state, and its shards are logs on the disk.
//
// Both capacity modes are there; a stream on demand grows and shrinks with what is
// written to it. A shard takes and gives as much as on AWS, and no more; consumers
// with enhanced fan-out have its records pushed to them. Encryption, resource policies
// and enhanced monitoring are not served.
//
// Facts on the API are from its model, version 2013-12-02, and the Kinesis Data
// Streams developer guide.
package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/stream"
)

// Quotas (developer guide, "Quotas and limits").
const (
	// maxShards is how many open shards an account has; AWS has 1,000 or more by
	// Region.
	maxShards = 1000
	// maxOnDemand is how many streams on demand it has.
	maxOnDemand = 50
)

// trimEvery is how often records past their retention are removed, and streams on
// demand scaled.
const trimEvery = time.Minute

// Options configures a Service. All fields above the blank line are required.
type Options struct {
	Store     *state.Store
	Streams   *stream.Store // which the caller closes after the Service
	AccountID string
	Region    string
	Logger    *slog.Logger

	// Now tells the time; time.Now when nil.
	Now func() time.Time
}

// Service is the behaviour of the Kinesis API; it implements api.API.
type Service struct {
	opts    Options
	log     *slog.Logger
	records *state.Collection[record] // by name

	// writing is held by whatever changes which streams there are, or one's record.
	writing sync.Mutex

	mu     sync.RWMutex
	live   map[string]*live // by id: the streams that can be used
	broken map[string]bool  // by id: those that cannot, until the next start

	subscriptions subscriptions

	cancel context.CancelFunc
	done   sync.WaitGroup
}

var _ api.API = (*Service)(nil)

// New opens the service: it goes on with what a crash cut short.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{opts: o, log: o.Logger, live: map[string]*live{}, broken: map[string]bool{}}
	var err error
	if s.records, err = state.Collect[record](ctx, o.Store, "kinesis-streams"); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	if err := s.recover(ctx); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	var running context.Context
	running, s.cancel = context.WithCancel(context.Background())
	s.done.Go(func() { s.run(running) })
	return s, nil
}

// Close ends what the service does in the background.
func (s *Service) Close() {
	s.cancel()
	s.done.Wait()
}

// recover opens the streams that are there, and removes what is left of others. A
// stream that cannot be opened answers so, and the others serve.
func (s *Service) recover(ctx context.Context) error {
	known := map[string]bool{}
	for item := range s.records.Scan("", "") {
		r := item.Value
		switch {
		case r.Format > format:
			return fmt.Errorf("the stream %q has format %d, which is newer than this program", r.Name, r.Format)
		case r.Status == api.StreamStatusDeleting:
			if err := s.records.Delete(ctx, item.Key, item.Revision); err != nil {
				return err
			}
			continue
		}
		known[r.ID] = true
		err := s.removeDropped(r)
		if err == nil {
			err = s.activate(ctx, r)
		}
		if err != nil {
			s.breaks(r, err)
		}
	}
	there, err := s.opts.Streams.Streams()
	if err != nil {
		return err
	}
	for _, id := range there {
		if !known[id] {
			if err := s.opts.Streams.Remove(id); err != nil {
				s.log.Error("what is left of a deleted data stream is still on the disk", "id", id, "error", err)
			}
		}
	}
	return nil
}

// breaks takes a stream out of use until the next start, or until it is deleted.
func (s *Service) breaks(r record, err error) {
	s.log.Error("a data stream cannot be used: put its files right and start again, or delete it", "stream", r.Name, "id", r.ID, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, r.ID)
	s.broken[r.ID] = true
}

func (s *Service) isBroken(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.broken[id]
}

// unusable returns what a client is told of a stream that is there and not in use.
func (s *Service) unusable(r record) error {
	if s.isBroken(r.ID) {
		return api.NewInternalFailureException("Stream %s under account %s cannot be used: its files on the server could not be opened. The server's log says why. Restore them and restart the server, or delete the stream.",
			r.Name, s.opts.AccountID)
	}
	return s.notFound(r.Name)
}

// removeDropped takes off the disk the shards that a crash left there when they
// were off the record.
func (s *Service) removeDropped(r record) error {
	there, err := s.opts.Streams.Shards(r.ID)
	if err != nil {
		return err
	}
	for _, number := range there {
		if _, ok := r.shard(number); ok {
			continue
		}
		if err := s.opts.Streams.RemoveShard(r.ID, number); err != nil {
			return err
		}
	}
	return nil
}

// run trims and scales streams until the service is closed.
func (s *Service) run(ctx context.Context) {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.trimAll(ctx)
			s.scaleAll(ctx)
		}
	}
}

func (s *Service) trimAll(ctx context.Context) {
	for item := range s.records.Scan("", "") {
		if err := s.trim(ctx, item.Value, s.opts.Now()); err != nil && ctx.Err() == nil {
			s.log.Error("a data stream was not trimmed", "stream", item.Key, "error", err)
		}
	}
}

// trim removes what is past its retention: records, and shards that were closed
// before it.
func (s *Service) trim(ctx context.Context, r record, now time.Time) error {
	l := s.usable(r.ID)
	if l == nil {
		return nil
	}
	horizon := r.horizon(now)
	gone := func(sh shard) bool { return sh.closed() && sh.ClosedAt.Before(horizon) }
	var errs []error
	for _, sh := range r.Shards {
		if gone(sh) {
			errs = append(errs, s.dropShards(ctx, r.Name, gone))
			break
		}
	}
	for _, sh := range l.all() {
		errs = append(errs, sh.log.Trim(horizon))
	}
	return errors.Join(errs...)
}

// dropShards takes shards off the record of a stream, and then off the disk.
func (s *Service) dropShards(ctx context.Context, name string, gone func(shard) bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var dropped []shard
	r, err := s.change(ctx, name, func(r *record) error {
		var kept []shard
		dropped = nil
		for _, sh := range r.Shards {
			if gone(sh) {
				dropped = append(dropped, sh)
			} else {
				kept = append(kept, sh)
			}
		}
		r.Shards = kept
		return nil
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, sh := range dropped {
		errs = append(errs, s.opts.Streams.RemoveShard(r.ID, sh.Number))
	}
	return errors.Join(errs...)
}

// change changes the record of a stream and what is in use of it, with s.writing
// held. A stream whose new shards cannot be made is out of use until the next
// start: nothing may be put into a shard that is closed by now.
func (s *Service) change(ctx context.Context, name string, f func(*record) error) (record, error) {
	item, err := s.records.Modify(ctx, name, f)
	if err != nil {
		return record{}, err
	}
	r := item.Value
	if l := s.usable(r.ID); l != nil {
		if err := l.use(r, s.opts.Streams); err != nil {
			s.breaks(r, err)
			return r, s.unusable(r)
		}
	}
	return r, nil
}

// usable returns what is in use of a stream; nil where it is not there, or not yet.
func (s *Service) usable(id string) *live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.live[id]
}

// activate opens a stream's shards and makes it ACTIVE. Whoever sees that it is
// can use it, change it and delete it: it is among the live ones before.
func (s *Service) activate(ctx context.Context, r record) error {
	was := r.Status
	r.Status = api.StreamStatusActive
	l := &live{load: load{since: s.opts.Now()}}
	if err := l.use(r, s.opts.Streams); err != nil {
		return err
	}
	s.mu.Lock()
	s.live[r.ID] = l
	s.mu.Unlock()
	if was == api.StreamStatusActive {
		return nil
	}
	_, err := s.records.Modify(ctx, r.Name, func(r *record) error { r.Status = api.StreamStatusActive; return nil })
	return err
}

func (s *Service) arn(name string) string {
	return fmt.Sprintf("arn:aws:kinesis:%s:%s:stream/%s", s.opts.Region, s.opts.AccountID, name)
}

func (s *Service) notFound(name string) error {
	return api.NewResourceNotFoundException("Stream %s under account %s not found.", name, s.opts.AccountID)
}

func invalid(format string, args ...any) error {
	return api.NewInvalidArgumentException(format, args...)
}

// find returns the stream of a request, which names it in one or more of three
// ways.
func (s *Service) find(name, arn, id *string) (record, error) {
	var r record
	switch {
	case name != nil:
		item, ok := s.records.Get(*name)
		if !ok {
			return r, s.notFound(*name)
		}
		r = item.Value
	case arn != nil:
		_, named, _ := strings.Cut(*arn, ":stream/")
		item, ok := s.records.Get(named)
		if !ok || s.arn(named) != *arn {
			return r, api.NewResourceNotFoundException("Stream %s not found.", *arn)
		}
		r = item.Value
	case id != nil:
		for item := range s.records.Scan("", "") {
			if item.Value.ID == *id {
				r = item.Value
			}
		}
		if r.Name == "" {
			return r, api.NewResourceNotFoundException("Stream %s not found.", *id)
		}
	default:
		return r, invalid("Either StreamName or StreamARN must be provided.")
	}
	if arn != nil && *arn != s.arn(r.Name) || id != nil && *id != r.ID {
		return r, invalid("StreamName, StreamARN and StreamId do not name the same stream.")
	}
	return r, nil
}

// findActive returns the stream of a request that changes it, which one that cannot
// be used can be, too: it can be deleted.
func (s *Service) findActive(name, arn, id *string) (record, error) {
	r, err := s.find(name, arn, id)
	if err == nil && r.Status != api.StreamStatusActive && !s.isBroken(r.ID) {
		err = api.NewResourceInUseException("Stream %s under account %s not ACTIVE, instead in state %s", r.Name, s.opts.AccountID, r.Status)
	}
	return r, err
}

// findLive returns the stream of a request for records.
func (s *Service) findLive(name, arn, id *string) (*live, error) {
	r, err := s.find(name, arn, id)
	if err != nil {
		return nil, err
	}
	l := s.usable(r.ID)
	if l == nil || r.Status == api.StreamStatusCreating {
		return nil, s.unusable(r)
	}
	return l, nil
}
