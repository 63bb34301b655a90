package kinesis

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/stream"
)

const (
	// iteratorLife is how long an iterator can be used.
	iteratorLife = 5 * time.Minute
	// maxRead and maxReadRecords bound what one call of GetRecords returns (API
	// reference, "GetRecords").
	maxRead        = 10 << 20
	maxReadRecords = 10000
)

// iterator is a place in a shard.
type iterator struct {
	stream string // id
	shard  int
	offset uint64 // of the next record
	made   time.Time
}

const (
	iteratorVersion = 1
	iteratorSize    = 1 + 8 + 4 + 8 // and the stream's id
)

// String returns the iterator as clients have it.
func (it iterator) String() string {
	b := make([]byte, 0, iteratorSize+len(it.stream))
	b = append(b, iteratorVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(it.made.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, uint32(it.shard))
	b = binary.BigEndian.AppendUint64(b, it.offset)
	return base64.StdEncoding.EncodeToString(append(b, it.stream...))
}

var errIterator = errors.New("no iterator")

func parseIterator(s string) (iterator, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) <= iteratorSize || b[0] != iteratorVersion {
		return iterator{}, errIterator
	}
	return iterator{
		made:   time.UnixMilli(int64(binary.BigEndian.Uint64(b[1:]))),
		shard:  int(binary.BigEndian.Uint32(b[9:])),
		offset: binary.BigEndian.Uint64(b[13:]),
		stream: string(b[iteratorSize:]),
	}, nil
}

// noShard is the error where a stream has no such shard.
func (s *Service) noShard(id, name string) error {
	return api.NewResourceNotFoundException("Shard %s in stream %s under account %s does not exist", id, name, s.opts.AccountID)
}

// GetShardIterator implements api.API.
func (s *Service) GetShardIterator(_ context.Context, in *api.GetShardIteratorInput) (*api.GetShardIteratorOutput, error) {
	l, err := s.findLive(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	number, ok := parseShardID(*in.ShardId)
	sh, r := l.shard(number)
	if !ok || sh == nil {
		return nil, s.noShard(*in.ShardId, r.Name)
	}
	now := s.opts.Now()
	it := iterator{stream: r.ID, shard: number, made: now}
	if it.offset, err = s.start(sh, r.Name, in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp, now); err != nil {
		return nil, err
	}
	if !sh.rate.iterator(now) {
		return nil, s.rateExceeded(l, sh)
	}
	return &api.GetShardIteratorOutput{ShardIterator: aws.Ptr(it.String())}, nil
}

// start returns the offset that a new iterator or subscription begins at.
func (s *Service) start(sh *liveShard, name string, t api.ShardIteratorType, sequence *string, at *time.Time, now time.Time) (uint64, error) {
	const either = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified %s and %s StartingSequenceNumber."
	switch t {
	case api.ShardIteratorTypeAtSequenceNumber, api.ShardIteratorTypeAfterSequenceNumber:
		if sequence == nil {
			return 0, invalid(either, t, "no")
		}
		offset, ok := sh.offset(*sequence)
		if !ok {
			return 0, invalid("StartingSequenceNumber %s used in GetShardIterator on shard %s in stream %s under account %s is invalid because it did not come from this stream.",
				*sequence, sh.id(), name, s.opts.AccountID)
		}
		if t == api.ShardIteratorTypeAfterSequenceNumber {
			offset++
		}
		return offset, nil
	case api.ShardIteratorTypeAtTimestamp:
		if at == nil {
			return 0, invalid("Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
		}
		if at.After(now) {
			return 0, invalid("The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d",
				at.UnixMilli(), now.UnixMilli())
		}
		offset, err := sh.log.Find(*at)
		if err != nil {
			return 0, s.failure("find records by time", err)
		}
		return offset, nil
	default:
		if sequence != nil {
			return 0, invalid(either, t, "also a")
		}
		if t == api.ShardIteratorTypeLatest {
			return sh.log.End(), nil
		}
		return 0, nil // TRIM_HORIZON: what is past its retention is left out when it is read
	}
}

// GetRecords implements api.API.
func (s *Service) GetRecords(_ context.Context, in *api.GetRecordsInput) (*api.GetRecordsOutput, error) {
	it, err := parseIterator(*in.ShardIterator)
	if err != nil {
		return nil, invalid("Invalid ShardIterator.")
	}
	now := s.opts.Now()
	if age := now.Sub(it.made); age > iteratorLife {
		const layout = "Mon Jan 02 15:04:05 MST 2006"
		return nil, api.NewExpiredIteratorException("Iterator expired. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			it.made.UTC().Format(layout), now.UTC().Format(layout), iteratorLife.Milliseconds())
	}
	l := s.usable(it.stream)
	if l == nil {
		if r, err := s.find(nil, nil, &it.stream); err == nil {
			return nil, s.unusable(r)
		}
		return nil, api.NewResourceNotFoundException("The stream of the shard iterator does not exist under account %s.", s.opts.AccountID)
	}
	sh, r := l.shard(it.shard)
	if sh == nil {
		return nil, s.noShard(shardID(it.shard), r.Name)
	}
	if in.StreamARN != nil && *in.StreamARN != s.arn(r.Name) || in.StreamId != nil && *in.StreamId != r.ID {
		return nil, invalid("The shard iterator is of another stream.")
	}
	if !sh.rate.call(now) {
		return nil, s.rateExceeded(l, sh)
	}
	limit := maxReadRecords
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	records, next, err := sh.log.Read(it.offset, stream.Limits{Records: limit, Bytes: maxRead, Since: r.horizon(now)})
	if errors.Is(err, stream.ErrClosed) {
		return nil, s.noShard(sh.id(), r.Name)
	}
	if err != nil {
		return nil, s.failure("read a shard", err)
	}
	out := &api.GetRecordsOutput{}
	var bytes int
	out.Records, bytes, out.MillisBehindLatest = sh.give(records, next, now)
	sh.rate.gave(bytes)
	if sh.over(next) {
		out.ChildShards = children(&r, sh.Number)
		return out, nil
	}
	it.offset, it.made = next, now
	out.NextShardIterator = aws.Ptr(it.String())
	return out, nil
}

// give returns records as clients have them, how many bytes they are, and how far
// their reader is behind.
func (sh *liveShard) give(records []stream.Record, next uint64, now time.Time) (list []*api.Record, bytes int, behind *int64) {
	list, behind = make([]*api.Record, 0, len(records)), aws.Ptr(int64(0))
	for _, rec := range records {
		bytes += len(rec.Data) + len(rec.Key)
		list = append(list, &api.Record{
			SequenceNumber: aws.Ptr(sh.sequence(rec.Offset)), ApproximateArrivalTimestamp: aws.Ptr(rec.Arrived), Data: rec.Data, PartitionKey: aws.Ptr(rec.Key), EncryptionType: api.EncryptionTypeNone,
		})
	}
	if n := len(records); n > 0 && next < sh.log.End() {
		*behind = max(0, now.Sub(records[n-1].Arrived).Milliseconds())
	}
	return list, bytes, behind
}

// over tells whether a shard is closed and read to its end. It ends where its records
// do, also where the disk lost its last ones.
func (sh *liveShard) over(next uint64) bool {
	return sh.closed() && (next >= sh.Closed || next >= sh.log.End())
}

// children are the shards that were made of one.
func children(r *record, parent int) []*api.ChildShard {
	list := []*api.ChildShard{}
	for i := range r.Shards {
		sh := &r.Shards[i]
		c := &api.ChildShard{ShardId: aws.Ptr(sh.id()), HashKeyRange: hashRange(sh)}
		ours := false
		for _, p := range sh.Parents {
			c.ParentShards = append(c.ParentShards, shardID(p))
			ours = ours || p == parent
		}
		if ours {
			list = append(list, c)
		}
	}
	return list
}

func hashRange(sh *shard) *api.HashKeyRange {
	return &api.HashKeyRange{StartingHashKey: aws.Ptr(sh.Start.String()), EndingHashKey: aws.Ptr(sh.End.String())}
}
