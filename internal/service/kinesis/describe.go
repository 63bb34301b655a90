package kinesis

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
)

// Pages of lists.
const (
	defaultDescribed = 100   // shards of DescribeStream, streams of ListStreams
	maxListed        = 10000 // of anything
	defaultShards    = 1000  // of ListShards
	// tokenLife is how long the token of a next page can be used.
	tokenLife = 300 * time.Second
)

func limitOf(n *int32, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return min(int(*n), maxListed)
}

func describeShard(sh *shard) *api.Shard {
	out := &api.Shard{
		ShardId: aws.Ptr(sh.id()), HashKeyRange: hashRange(sh), SequenceNumberRange: &api.SequenceNumberRange{StartingSequenceNumber: aws.Ptr(sh.sequence(0))},
	}
	if sh.closed() {
		out.SequenceNumberRange.EndingSequenceNumber = aws.Ptr(sh.sequence(sh.Closed - 1))
	}
	if len(sh.Parents) > 0 {
		out.ParentShardId = aws.Ptr(shardID(sh.Parents[0]))
	}
	if len(sh.Parents) > 1 {
		out.AdjacentParentShardId = aws.Ptr(shardID(sh.Parents[1]))
	}
	return out
}

// shardsAfter returns a page of the shards for which a condition holds, from the
// one after a number on, and whether there are more.
func (r *record) shardsAfter(after, limit int, holds func(*shard) bool) (page []*api.Shard, last int, more bool) {
	page = []*api.Shard{}
	for i := range r.Shards {
		sh := &r.Shards[i]
		if sh.Number <= after || !holds(sh) {
			continue
		}
		if len(page) == limit {
			return page, last, true
		}
		page, last = append(page, describeShard(sh)), sh.Number
	}
	return page, last, false
}

func every(*shard) bool { return true }

func monitoring() []*api.EnhancedMetrics {
	return []*api.EnhancedMetrics{{ShardLevelMetrics: []api.MetricsName{}}}
}

// DescribeStream implements api.API.
func (s *Service) DescribeStream(_ context.Context, in *api.DescribeStreamInput) (*api.DescribeStreamOutput, error) {
	r, err := s.find(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	after := -1
	if in.ExclusiveStartShardId != nil {
		var ok bool
		if after, ok = parseShardID(*in.ExclusiveStartShardId); !ok {
			return nil, s.noShard(*in.ExclusiveStartShardId, r.Name)
		}
	}
	shards, more := []*api.Shard{}, false
	if r.Status != api.StreamStatusCreating {
		shards, _, more = r.shardsAfter(after, limitOf(in.Limit, defaultDescribed), every)
	}
	return &api.DescribeStreamOutput{StreamDescription: &api.StreamDescription{
		StreamName: &r.Name, StreamARN: aws.Ptr(s.arn(r.Name)), StreamStatus: r.Status, StreamModeDetails: &api.StreamModeDetails{StreamMode: r.Mode},
		Shards: shards, HasMoreShards: &more, RetentionPeriodHours: aws.Ptr(int32(r.Retention)), StreamCreationTimestamp: &r.Created,
		EnhancedMonitoring: monitoring(), EncryptionType: api.EncryptionTypeNone,
	}}, nil
}

// DescribeStreamSummary implements api.API.
func (s *Service) DescribeStreamSummary(_ context.Context, in *api.DescribeStreamSummaryInput) (*api.DescribeStreamSummaryOutput, error) {
	r, err := s.find(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	return &api.DescribeStreamSummaryOutput{StreamDescriptionSummary: &api.StreamDescriptionSummary{
		StreamName: &r.Name, StreamARN: aws.Ptr(s.arn(r.Name)), StreamId: &r.ID, StreamStatus: r.Status, StreamModeDetails: &api.StreamModeDetails{StreamMode: r.Mode},
		RetentionPeriodHours: aws.Ptr(int32(r.Retention)), StreamCreationTimestamp: &r.Created, EnhancedMonitoring: monitoring(), EncryptionType: api.EncryptionTypeNone,
		OpenShardCount: aws.Ptr(int32(len(r.open()))), ConsumerCount: aws.Ptr(int32(len(r.Consumers))), MaxRecordSizeInKiB: aws.Ptr(int32(r.MaxRecord)),
	}}, nil
}

// DescribeLimits implements api.API.
func (s *Service) DescribeLimits(context.Context, *api.DescribeLimitsInput) (*api.DescribeLimitsOutput, error) {
	open, onDemand := s.counts()
	return &api.DescribeLimitsOutput{
		ShardLimit: aws.Ptr(int32(maxShards)), OpenShardCount: aws.Ptr(int32(open)), OnDemandStreamCount: aws.Ptr(int32(onDemand)), OnDemandStreamCountLimit: aws.Ptr(int32(maxOnDemand)),
	}, nil
}

// ListStreams implements api.API. Its token is the name of the last stream, which
// does not expire.
func (s *Service) ListStreams(_ context.Context, in *api.ListStreamsInput) (*api.ListStreamsOutput, error) {
	after := aws.Value(in.ExclusiveStartStreamName)
	if in.NextToken != nil {
		if in.ExclusiveStartStreamName != nil {
			return nil, invalid("NextToken and ExclusiveStartStreamName cannot be provided together.")
		}
		b, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err != nil {
			return nil, invalid("Invalid NextToken.")
		}
		after = string(b)
	}
	out := &api.ListStreamsOutput{StreamNames: []string{}, StreamSummaries: []*api.StreamSummary{}, HasMoreStreams: aws.Ptr(false)}
	limit := limitOf(in.Limit, defaultDescribed)
	for item := range s.records.Scan("", after) {
		r := item.Value
		if r.Name <= after {
			continue
		}
		if n := len(out.StreamNames); n == limit {
			out.HasMoreStreams = aws.Ptr(true)
			out.NextToken = aws.Ptr(base64.RawURLEncoding.EncodeToString([]byte(out.StreamNames[n-1])))
			break
		}
		out.StreamNames = append(out.StreamNames, r.Name)
		out.StreamSummaries = append(out.StreamSummaries, &api.StreamSummary{
			StreamName: &r.Name, StreamARN: aws.Ptr(s.arn(r.Name)), StreamStatus: r.Status, StreamModeDetails: &api.StreamModeDetails{StreamMode: r.Mode}, StreamCreationTimestamp: &r.Created,
		})
	}
	return out, nil
}

// shardsToken is where a list of shards goes on.
type shardsToken struct {
	Stream string // id
	After  int
	Filter *api.ShardFilter
	Made   time.Time
}

// ListShards implements api.API.
func (s *Service) ListShards(_ context.Context, in *api.ListShardsInput) (*api.ListShardsOutput, error) {
	t := shardsToken{After: -1, Filter: in.ShardFilter}
	var r record
	var err error
	if in.NextToken != nil {
		if in.StreamName != nil || in.ExclusiveStartShardId != nil || in.ShardFilter != nil || in.StreamCreationTimestamp != nil {
			return nil, invalid("NextToken and StreamName cannot be provided together.")
		}
		b, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err != nil || json.Unmarshal(b, &t) != nil {
			return nil, invalid("Invalid NextToken.")
		}
		if s.opts.Now().Sub(t.Made) > tokenLife {
			return nil, api.NewExpiredNextTokenException("The NextToken has expired: it is good for %v.", tokenLife)
		}
		r, err = s.find(nil, nil, &t.Stream)
		if err != nil {
			return nil, err
		}
	} else if r, err = s.find(in.StreamName, in.StreamARN, in.StreamId); err != nil {
		return nil, err
	}
	if in.StreamCreationTimestamp != nil && !in.StreamCreationTimestamp.Equal(r.Created.Truncate(time.Millisecond)) && in.StreamCreationTimestamp.Unix() != r.Created.Unix() {
		return nil, api.NewResourceNotFoundException("Stream %s under account %s was not created at that time.", r.Name, s.opts.AccountID)
	}
	if r.Status == api.StreamStatusCreating {
		return nil, api.NewResourceInUseException("Stream %s under account %s not ACTIVE, instead in state %s", r.Name, s.opts.AccountID, r.Status)
	}
	if in.ExclusiveStartShardId != nil {
		var ok bool
		if t.After, ok = parseShardID(*in.ExclusiveStartShardId); !ok {
			return nil, s.noShard(*in.ExclusiveStartShardId, r.Name)
		}
	}
	holds, err := filter(&r, t.Filter, s.opts.Now())
	if err != nil {
		return nil, err
	}
	page, last, more := r.shardsAfter(t.After, limitOf(in.MaxResults, defaultShards), holds)
	out := &api.ListShardsOutput{Shards: page}
	if more {
		b, err := json.Marshal(shardsToken{Stream: r.ID, After: last, Filter: t.Filter, Made: s.opts.Now()})
		if err != nil {
			return nil, err
		}
		out.NextToken = aws.Ptr(base64.RawURLEncoding.EncodeToString(b))
	}
	return out, nil
}

// filter returns the condition of a shard filter (API reference, "ShardFilter").
func filter(r *record, f *api.ShardFilter, now time.Time) (func(*shard) bool, error) {
	if f == nil {
		return every, nil
	}
	openAt := func(t time.Time) func(*shard) bool {
		return func(sh *shard) bool { return !sh.Created.After(t) && (!sh.closed() || sh.ClosedAt.After(t)) }
	}
	horizon := r.horizon(now)
	if r.Created.After(horizon) {
		horizon = r.Created
	}
	at := horizon
	if f.Type == api.ShardFilterTypeAtTimestamp || f.Type == api.ShardFilterTypeFromTimestamp {
		if f.Timestamp == nil {
			return nil, invalid("Timestamp must be provided for ShardFilter of type %s.", f.Type)
		}
		at = slices.MaxFunc([]time.Time{*f.Timestamp, horizon}, time.Time.Compare)
	}
	switch f.Type {
	case api.ShardFilterTypeAfterShardId:
		if f.ShardId == nil {
			return nil, invalid("ShardId must be provided for ShardFilter of type %s.", f.Type)
		}
		after, ok := parseShardID(*f.ShardId)
		if !ok {
			return nil, invalid("ShardId %s of the ShardFilter is not valid.", *f.ShardId)
		}
		return func(sh *shard) bool { return sh.Number > after }, nil
	case api.ShardFilterTypeAtLatest:
		return func(sh *shard) bool { return !sh.closed() }, nil
	case api.ShardFilterTypeAtTrimHorizon, api.ShardFilterTypeAtTimestamp:
		return openAt(at), nil
	default: // FROM_TRIM_HORIZON, FROM_TIMESTAMP
		return func(sh *shard) bool { return !sh.closed() || !sh.ClosedAt.Before(at) }, nil
	}
}
