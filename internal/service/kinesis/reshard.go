package kinesis

import (
	"context"
	"errors"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/state"
)

// A stream can have maxScalings of UpdateShardCount in any scaleWindow (API reference,
// "UpdateShardCount"): each may close all shards and make as many new ones, and those
// that are closed stay for their retention.
const (
	maxScalings = 10
	scaleWindow = 24 * time.Hour
)

// resharding is a change of a stream's shards: some are closed, and others made of
// them.
type resharding struct {
	r   *record
	now time.Time
	end func(number int) uint64 // the offset after a shard's last record
}

// add makes a shard of others, which are closed. It is newer than they are: so are
// its sequence numbers.
func (c *resharding) add(start, end hashKey, parents ...int) {
	sh := shard{Start: start, End: end, Created: c.now, Parents: parents}
	for i := range c.r.Shards {
		p := &c.r.Shards[i]
		sh.Number = max(sh.Number, p.Number+1)
		if !slices.Contains(parents, p.Number) {
			continue
		}
		if !p.closed() {
			p.Closed, p.ClosedAt = c.end(p.Number), c.now
		}
		if !sh.Created.After(p.Created) {
			sh.Created = p.Created.Add(time.Millisecond)
		}
	}
	c.r.Shards = append(c.r.Shards, sh)
}

func (c *resharding) split(sh shard, at hashKey) {
	c.add(sh.Start, at.before(), sh.Number)
	c.add(at, sh.End, sh.Number)
}

func (c *resharding) merge(a, b shard) { c.add(a.Start, b.End, a.Number, b.Number) }

// uniform splits and merges until there are n shards of the same size.
func (c *resharding) uniform(n int) {
	bounds := starts(n)
	for _, at := range bounds {
		open := c.r.open()
		i := slices.IndexFunc(open, func(s shard) bool { return s.Start.compare(at) <= 0 && at.compare(s.End) <= 0 })
		if open[i].Start != at {
			c.split(open[i], at)
		}
	}
	for i := 0; i < n; i++ { // what is in the place of the new shard i
		for {
			open := c.r.open()
			if i+1 >= len(open) || i+1 < n && open[i+1].Start == bounds[i+1] {
				break
			}
			c.merge(open[i], open[i+1])
		}
	}
}

// reshard changes the shards of a stream that a request names: nobody puts records
// meanwhile.
func (s *Service) reshard(ctx context.Context, name, arn, id *string, f func(*resharding) error) (record, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.findActive(name, arn, id)
	if err != nil {
		return r, err
	}
	if r.Mode == api.StreamModeOnDemand {
		return r, api.NewValidationException("Request is invalid. Stream %s under account %s is in On-Demand mode.", r.Name, s.opts.AccountID)
	}
	l := s.usable(r.ID)
	if l == nil {
		return r, s.unusable(r)
	}
	return s.reshape(ctx, r, l, func(c *resharding) error {
		before := len(c.r.open())
		if err := f(c); err != nil {
			return err
		}
		return s.room(len(c.r.open())-before, c.r.Mode)
	})
}

// reshape changes the shards of a stream in use, with s.writing held.
func (s *Service) reshape(ctx context.Context, r record, l *live, f func(*resharding) error) (record, error) {
	l.resharding.Lock()
	defer l.resharding.Unlock()
	r, err := s.change(ctx, r.Name, func(r *record) error {
		c := &resharding{r: r, now: s.opts.Now().UTC().Truncate(time.Millisecond), end: func(number int) uint64 {
			if sh, _ := l.shard(number); sh != nil {
				return sh.log.End()
			}
			return 1 // made a moment ago, without records
		}}
		return f(c)
	})
	if errors.Is(err, state.ErrTooLarge) {
		err = api.NewLimitExceededException("Stream %s under account %s would have more shards, open and closed, than Lapwing keeps for one stream: closed ones go with their retention.", r.Name, s.opts.AccountID)
	}
	return r, err
}

// scaled counts a call of UpdateShardCount, if there may be one more.
func (c *resharding) scaled() error {
	c.r.Scaled = slices.DeleteFunc(slices.Clone(c.r.Scaled), func(t time.Time) bool { return c.now.Sub(t) >= scaleWindow })
	if len(c.r.Scaled) >= maxScalings {
		return api.NewLimitExceededException("Stream %s has been scaled %d times within %v, which is the maximum for a stream.", c.r.Name, maxScalings, scaleWindow)
	}
	c.r.Scaled = append(c.r.Scaled, c.now)
	return nil
}

// openShard returns an open shard that a request names.
func (s *Service) openShard(r *record, id string) (shard, error) {
	number, ok := parseShardID(id)
	sh, there := r.shard(number)
	if !ok || !there {
		return sh, api.NewResourceNotFoundException("Could not find shard %s in stream %s under account %s.", id, r.Name, s.opts.AccountID)
	}
	if sh.closed() {
		return sh, invalid("Shard %s in stream %s under account %s is not open.", sh.id(), r.Name, s.opts.AccountID)
	}
	return sh, nil
}

// SplitShard implements api.API.
func (s *Service) SplitShard(ctx context.Context, in *api.SplitShardInput) (*api.SplitShardOutput, error) {
	_, err := s.reshard(ctx, in.StreamName, in.StreamARN, in.StreamId, func(c *resharding) error {
		sh, err := s.openShard(c.r, *in.ShardToSplit)
		if err != nil {
			return err
		}
		at, ok := parseKey(*in.NewStartingHashKey)
		if !ok || at.compare(sh.Start) <= 0 || at.before() == sh.Start || at.compare(sh.End) >= 0 {
			return invalid("NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s is not both greater than one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s.",
				*in.NewStartingHashKey, sh.id(), c.r.Name, s.opts.AccountID, sh.Start, sh.End)
		}
		c.split(sh, at)
		return nil
	})
	return &api.SplitShardOutput{}, err
}

// MergeShards implements api.API.
func (s *Service) MergeShards(ctx context.Context, in *api.MergeShardsInput) (*api.MergeShardsOutput, error) {
	_, err := s.reshard(ctx, in.StreamName, in.StreamARN, in.StreamId, func(c *resharding) error {
		a, err := s.openShard(c.r, *in.ShardToMerge)
		if err != nil {
			return err
		}
		b, err := s.openShard(c.r, *in.AdjacentShardToMerge)
		if err != nil {
			return err
		}
		if b.End.compare(a.Start) < 0 {
			a, b = b, a
		}
		if a.End == lastKey || a.End.after() != b.Start {
			return invalid("Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging", a.id(), b.id(), c.r.Name, s.opts.AccountID)
		}
		c.merge(a, b)
		return nil
	})
	return &api.MergeShardsOutput{}, err
}

// UpdateShardCount implements api.API. It is done when it is answered.
func (s *Service) UpdateShardCount(ctx context.Context, in *api.UpdateShardCountInput) (*api.UpdateShardCountOutput, error) {
	target, current := int(*in.TargetShardCount), 0
	r, err := s.reshard(ctx, in.StreamName, in.StreamARN, in.StreamId, func(c *resharding) error {
		current = len(c.r.open())
		switch {
		case target > 2*current:
			return invalid("UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: %d Target shard count: %d", current, target)
		case 2*target < current:
			return invalid("UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: %d Target shard count: %d", current, target)
		}
		if err := c.scaled(); err != nil {
			return err
		}
		c.uniform(target)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.UpdateShardCountOutput{
		StreamName: &r.Name, StreamARN: aws.Ptr(s.arn(r.Name)), CurrentShardCount: aws.Ptr(int32(current)), TargetShardCount: in.TargetShardCount,
	}, nil
}
