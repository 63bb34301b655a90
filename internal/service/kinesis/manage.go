package kinesis

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/state"
)

// Retention of records, in hours, and the size of one, in KiB.
const (
	minRetention  = 24
	maxRetention  = 8760
	defaultRecord = 1024
)

// CreateStream implements api.API. The stream is CREATING until its shards are on
// the disk.
func (s *Service) CreateStream(ctx context.Context, in *api.CreateStreamInput) (*api.CreateStreamOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	mode, shards := api.StreamModeProvisioned, int(aws.Value(in.ShardCount))
	if in.StreamModeDetails != nil {
		mode = in.StreamModeDetails.StreamMode
	}
	switch {
	case in.WarmThroughputMiBps != nil:
		return nil, invalid("WarmThroughputMiBps is not supported by Lapwing.")
	case mode == api.StreamModeOnDemand && in.ShardCount != nil:
		return nil, api.NewValidationException("ShardCount cannot be specified for a stream in ON_DEMAND mode.")
	case mode == api.StreamModeOnDemand:
		shards = onDemandShards
	case shards < 1:
		return nil, invalid("ShardCount must be specified, and at least 1, for a stream in PROVISIONED mode.")
	}
	if _, ok := s.records.Get(*in.StreamName); ok {
		return nil, api.NewResourceInUseException("Stream %s under account %s already exists.", *in.StreamName, s.opts.AccountID)
	}
	if err := s.room(shards, mode); err != nil {
		return nil, err
	}
	tags, err := addTags(*in.StreamName, s.opts.AccountID, nil, in.Tags)
	if err != nil {
		return nil, err
	}
	now := s.opts.Now().UTC()
	r := record{
		Format: format, Name: *in.StreamName, ID: newID(), Status: api.StreamStatusCreating, Mode: mode, Created: now,
		Retention: minRetention, MaxRecord: int(cmp.Or(aws.Value(in.MaxRecordSizeInKiB), defaultRecord)), Tags: tags,
	}
	begin := starts(shards)
	for i, start := range begin {
		end := lastKey
		if i < len(begin)-1 {
			end = begin[i+1].before()
		}
		r.Shards = append(r.Shards, shard{Number: i, Start: start, End: end, Created: now})
	}
	if _, err := s.records.Create(ctx, r.Name, r); err != nil {
		return nil, err
	}
	s.done.Go(func() {
		if err := s.activate(context.WithoutCancel(ctx), r); err != nil {
			s.breaks(r, fmt.Errorf("its shards cannot be made, it stays in CREATING: %w", err))
		}
	})
	return &api.CreateStreamOutput{}, nil
}

// room tells whether the account may have so many more shards, and a stream more.
func (s *Service) room(shards int, mode api.StreamMode) error {
	open, onDemand := s.counts()
	if open+shards > maxShards {
		return api.NewLimitExceededException("This request would exceed the shard limit for the account %s in %s. Current shard count for the account: %d. Limit: %d. Number of additional shards that would have resulted from this request: %d.",
			s.opts.AccountID, s.opts.Region, open, maxShards, shards)
	}
	if mode == api.StreamModeOnDemand && onDemand >= maxOnDemand {
		return api.NewLimitExceededException("This request would exceed the limit of %d streams in ON_DEMAND mode for the account %s.", maxOnDemand, s.opts.AccountID)
	}
	return nil
}

// counts returns how many open shards and streams on demand the account has.
func (s *Service) counts() (open, onDemand int) {
	for item := range s.records.Scan("", "") {
		open += len(item.Value.open())
		if item.Value.Mode == api.StreamModeOnDemand {
			onDemand++
		}
	}
	return open, onDemand
}

// DeleteStream implements api.API. The stream is DELETING until its records are
// off the disk.
func (s *Service) DeleteStream(ctx context.Context, in *api.DeleteStreamInput) (*api.DeleteStreamOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.findActive(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	if len(r.Consumers) > 0 && !aws.Value(in.EnforceConsumerDeletion) {
		return nil, api.NewResourceInUseException("Stream %s under account %s has registered consumers. Deregister them, or set EnforceConsumerDeletion.", r.Name, s.opts.AccountID)
	}
	if _, err := s.records.Modify(ctx, r.Name, func(r *record) error { r.Status = api.StreamStatusDeleting; return nil }); err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.live, r.ID)
	delete(s.broken, r.ID)
	s.mu.Unlock()
	s.done.Go(func() {
		if err := s.remove(context.WithoutCancel(ctx), r); err != nil {
			s.log.Error("a data stream stays in DELETING until the next start", "stream", r.Name, "error", err)
		}
	})
	return &api.DeleteStreamOutput{}, nil
}

// remove takes a stream off the disk.
func (s *Service) remove(ctx context.Context, r record) error {
	if err := s.opts.Streams.Remove(r.ID); err != nil {
		return err
	}
	item, ok := s.records.Get(r.Name)
	if !ok {
		return nil
	}
	if err := s.records.Delete(ctx, item.Key, item.Revision); err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	return nil
}

// amend changes the record of a stream that a request names and that is ACTIVE.
func (s *Service) amend(ctx context.Context, name, arn, id *string, f func(*record) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.findActive(name, arn, id)
	if err != nil {
		return err
	}
	_, err = s.change(ctx, r.Name, f)
	return err
}

// setRetention sets the retention of a stream, which is longer or shorter than it
// was by the name of the operation.
func (s *Service) setRetention(ctx context.Context, name, arn, id *string, hours int, longer bool) error {
	return s.amend(ctx, name, arn, id, func(r *record) error {
		switch {
		case hours < minRetention:
			return invalid("Minimum allowed retention period is %d hours. Requested retention period (%d hours) is too short.", minRetention, hours)
		case hours > maxRetention:
			return invalid("Maximum allowed retention period is %d hours. Requested retention period (%d hours) is too long.", maxRetention, hours)
		case longer && hours < r.Retention:
			return invalid("Requested retention period (%d hours) for stream %s can not be shorter than existing retention period (%d hours). Use DecreaseRetentionPeriod API.", hours, r.Name, r.Retention)
		case !longer && hours > r.Retention:
			return invalid("Requested retention period (%d hours) for stream %s can not be longer than existing retention period (%d hours). Use IncreaseRetentionPeriod API.", hours, r.Name, r.Retention)
		}
		r.Retention = hours
		return nil
	})
}

// IncreaseStreamRetentionPeriod implements api.API.
func (s *Service) IncreaseStreamRetentionPeriod(ctx context.Context, in *api.IncreaseStreamRetentionPeriodInput) (*api.IncreaseStreamRetentionPeriodOutput, error) {
	return &api.IncreaseStreamRetentionPeriodOutput{}, s.setRetention(ctx, in.StreamName, in.StreamARN, in.StreamId, int(*in.RetentionPeriodHours), true)
}

// DecreaseStreamRetentionPeriod implements api.API: older records cannot be read
// from then on, and are removed.
func (s *Service) DecreaseStreamRetentionPeriod(ctx context.Context, in *api.DecreaseStreamRetentionPeriodInput) (*api.DecreaseStreamRetentionPeriodOutput, error) {
	return &api.DecreaseStreamRetentionPeriodOutput{}, s.setRetention(ctx, in.StreamName, in.StreamARN, in.StreamId, int(*in.RetentionPeriodHours), false)
}

// UpdateStreamMode implements api.API. The stream keeps its shards; one on demand is
// scaled from then on.
func (s *Service) UpdateStreamMode(ctx context.Context, in *api.UpdateStreamModeInput) (*api.UpdateStreamModeOutput, error) {
	if in.WarmThroughputMiBps != nil {
		return nil, invalid("WarmThroughputMiBps is not supported by Lapwing.")
	}
	return &api.UpdateStreamModeOutput{}, s.amend(ctx, nil, in.StreamARN, in.StreamId, func(r *record) error {
		mode := in.StreamModeDetails.StreamMode
		if mode == r.Mode {
			return nil
		}
		if err := s.room(0, mode); err != nil {
			return err
		}
		r.Mode, r.Needs = mode, nil
		return nil
	})
}

// UpdateMaxRecordSize implements api.API.
func (s *Service) UpdateMaxRecordSize(ctx context.Context, in *api.UpdateMaxRecordSizeInput) (*api.UpdateMaxRecordSizeOutput, error) {
	return &api.UpdateMaxRecordSizeOutput{}, s.amend(ctx, nil, in.StreamARN, in.StreamId, func(r *record) error {
		r.MaxRecord = int(*in.MaxRecordSizeInKiB)
		return nil
	})
}
