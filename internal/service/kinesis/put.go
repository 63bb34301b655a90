package kinesis

import (
	"context"
	"errors"
	"sync"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/stream"
)

// maxRequest bounds the data and partition keys of one call of PutRecords, in bytes
// (API reference, "PutRecords").
const maxRequest = 10 << 20

// placed is a record on its way to a shard.
type placed struct {
	shard  *liveShard
	record stream.Record
	size   int
}

// place finds the shard of a record and checks the record's size.
func (s *Service) place(l *live, data []byte, partitionKey string, explicit *string) (placed, error) {
	key := hashOf(partitionKey)
	if explicit != nil {
		var ok bool
		if key, ok = parseKey(*explicit); !ok {
			return placed{}, invalid("Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", *explicit)
		}
	}
	p := placed{l.at(key), stream.Record{Key: partitionKey, Data: data}, len(data) + len(partitionKey)}
	_, r := l.shard(p.shard.Number)
	if limit := r.MaxRecord << 10; p.size > limit {
		return p, invalid("The record of %d bytes, with its partition key, is larger than the maximum record size of stream %s: %d bytes.", p.size, r.Name, limit)
	}
	return p, nil
}

func (s *Service) rateExceeded(l *live, sh *liveShard) *aws.Error {
	_, r := l.shard(sh.Number)
	return api.NewProvisionedThroughputExceededException("Rate exceeded for shard %s in stream %s under account %s.", sh.id(), r.Name, s.opts.AccountID)
}

// PutRecord implements api.API. Order within a shard is that of arrival, so
// SequenceNumberForOrdering is kept by itself.
func (s *Service) PutRecord(_ context.Context, in *api.PutRecordInput) (*api.PutRecordOutput, error) {
	l, err := s.findLive(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	l.resharding.RLock()
	defer l.resharding.RUnlock()
	p, err := s.place(l, in.Data, *in.PartitionKey, in.ExplicitHashKey)
	if err != nil {
		return nil, err
	}
	if !p.shard.rate.write(s.opts.Now(), p.size) {
		return nil, s.rateExceeded(l, p.shard)
	}
	l.load.add(p.size)
	offset, err := p.shard.log.Append([]stream.Record{p.record})
	if err != nil {
		return nil, s.failure("append to a shard", err)
	}
	return &api.PutRecordOutput{ShardId: aws.Ptr(p.shard.id()), SequenceNumber: aws.Ptr(p.shard.sequence(offset)), EncryptionType: api.EncryptionTypeNone}, nil
}

// failure is what a client is told where the disk fails, or the stream was deleted
// meanwhile.
func (s *Service) failure(what string, err error) error {
	if errors.Is(err, stream.ErrClosed) {
		return api.NewResourceNotFoundException("The stream under account %s was deleted.", s.opts.AccountID)
	}
	s.log.Error("kinesis: "+what, "error", err)
	return api.NewInternalFailureException("Internal service failure.").WithCause(err)
}

// share is the records of a call for one shard, and where in the call they are.
type share struct {
	shard   *liveShard
	records []stream.Record
	indexes []int
}

// PutRecords implements api.API. Records are refused one by one where a shard has
// taken enough, as on AWS.
func (s *Service) PutRecords(_ context.Context, in *api.PutRecordsInput) (*api.PutRecordsOutput, error) {
	l, err := s.findLive(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	l.resharding.RLock()
	defer l.resharding.RUnlock()
	list := make([]placed, len(in.Records))
	size := 0
	for i, r := range in.Records {
		if list[i], err = s.place(l, r.Data, *r.PartitionKey, r.ExplicitHashKey); err != nil {
			return nil, err
		}
		size += list[i].size
	}
	if size > maxRequest {
		return nil, invalid("Records size of %d bytes exceeds the limit of %d bytes for a request.", size, maxRequest)
	}
	out := &api.PutRecordsOutput{EncryptionType: api.EncryptionTypeNone, Records: make([]*api.PutRecordsResultEntry, len(list))}
	shares := map[int]*share{}
	now := s.opts.Now()
	for i, p := range list {
		if !p.shard.rate.write(now, p.size) {
			e := s.rateExceeded(l, p.shard)
			out.Records[i] = &api.PutRecordsResultEntry{ErrorCode: &e.Code, ErrorMessage: &e.Message}
			continue
		}
		l.load.add(p.size)
		sh := shares[p.shard.Number]
		if sh == nil {
			sh = &share{shard: p.shard}
			shares[p.shard.Number] = sh
		}
		sh.records, sh.indexes = append(sh.records, p.record), append(sh.indexes, i)
	}
	var wg sync.WaitGroup
	for _, sh := range shares {
		wg.Go(func() { s.putShare(sh, out.Records) })
	}
	wg.Wait()
	failed := int32(0)
	for _, r := range out.Records {
		if r.ErrorCode != nil {
			failed++
		}
	}
	out.FailedRecordCount = &failed
	return out, nil
}

// putShare appends the records of a call for one shard, and fills in their results.
func (s *Service) putShare(sh *share, results []*api.PutRecordsResultEntry) {
	first, err := sh.shard.log.Append(sh.records)
	if err != nil && !errors.Is(err, stream.ErrClosed) { // that of a stream that was deleted meanwhile
		s.log.Error("kinesis: append to a shard", "error", err)
	}
	for i, at := range sh.indexes {
		if err != nil {
			results[at] = &api.PutRecordsResultEntry{ErrorCode: aws.Ptr("InternalFailure"), ErrorMessage: aws.Ptr("Internal service failure.")}
			continue
		}
		results[at] = &api.PutRecordsResultEntry{ShardId: aws.Ptr(sh.shard.id()), SequenceNumber: aws.Ptr(sh.shard.sequence(first + uint64(i)))}
	}
}
