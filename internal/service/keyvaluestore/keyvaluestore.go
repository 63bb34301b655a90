// Package keyvaluestore is the API by which the pairs of CloudFront's key value
// stores are read and changed: CloudFront KeyValueStore, version 2022-07-26. The
// stores themselves are resources of the CloudFront API (package cloudfront). Every
// change names the version (ETag) that it is for.
//
// Facts are from the API's model and the CloudFront developer guide.
package keyvaluestore

import (
	"context"
	"errors"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/keyvaluestore"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
)

// maxChanges is how many pairs one UpdateKeys may name ("Quotas on key value
// stores"). The size of the request has a limit of its own, 3 MB.
const maxChanges = 50

// Pages of ListKeys.
const (
	defaultPage = 10
	maxPage     = 50
)

// Service is the behaviour of the API; it implements api.API.
type Service struct {
	stores  *keyvalue.Writer
	account string
	now     func() time.Time
}

// New returns the service over the stores of an account.
func New(stores *keyvalue.Writer, accountID string) *Service {
	return &Service{stores: stores, account: accountID, now: time.Now}
}

// store returns the id that an ARN of a store names.
func (s *Service) store(arn *string) (id string, err error) {
	id, ok := strings.CutPrefix(*arn, "arn:aws:cloudfront::"+s.account+":key-value-store/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", notFound("Key Value Store", *arn)
	}
	return id, nil
}

func notFound(what, name string) error {
	return api.NewResourceNotFoundException("%s %s was not found.", what, name)
}

// view returns a store as it is.
func (s *Service) view(arn *string) (*keyvalue.View, error) {
	id, err := s.store(arn)
	if err != nil {
		return nil, err
	}
	v, err := s.stores.View(id)
	return v, explain(err, *arn)
}

// ready returns a store whose pairs can be read.
func (s *Service) ready(arn *string) (*keyvalue.View, error) {
	v, err := s.view(arn)
	if err == nil && v.Head.State != distribution.KeyValuesReady {
		return nil, explain(keyvalue.ErrState, *arn)
	}
	return v, err
}

// explain makes the API's errors of package keyvalue's.
func explain(err error, arn string) error {
	switch {
	case errors.Is(err, keyvalue.ErrMissing):
		return notFound("Key Value Store", arn)
	case errors.Is(err, keyvalue.ErrState):
		return api.NewConflictException("Key Value Store %s is not in the expected state: READY.", arn)
	case errors.Is(err, keyvalue.ErrChanged):
		return api.NewValidationException("Pre-Condition failed")
	case errors.Is(err, keyvalue.ErrFull):
		return api.NewServiceQuotaExceededException("The size of the Key Value Store exceeds the limit: %d bytes.", keyvalue.MaxBytes)
	}
	return err
}

// change makes the pairs of a store others.
func (s *Service) change(ctx context.Context, arn, etag *string, puts []keyvalue.Pair, deletes []string) (*distribution.KeyValueHead, error) {
	id, err := s.store(arn)
	if err != nil {
		return nil, err
	}
	for _, p := range puts {
		if err := keyvalue.Check(p); err != nil {
			return nil, api.NewValidationException("Validation failed: %v.", err)
		}
	}
	head, err := s.stores.Change(ctx, id, *etag, puts, deletes, s.now().UTC())
	return head, explain(err, *arn)
}

// DescribeKeyValueStore implements api.API.
func (s *Service) DescribeKeyValueStore(_ context.Context, in *api.DescribeKeyValueStoreInput) (*api.DescribeKeyValueStoreOutput, error) {
	v, err := s.view(in.KvsARN)
	if err != nil {
		return nil, err
	}
	h := v.Head
	out := &api.DescribeKeyValueStoreOutput{
		ItemCount: count(h), TotalSizeInBytes: &h.Bytes, KvsARN: &h.ARN, Created: &h.Created, ETag: &h.ETag, LastModified: &h.Modified,
		Status: aws.Ptr(string(h.State)),
	}
	if h.Reason != "" {
		out.FailureReason = &h.Reason
	}
	return out, nil
}

func count(h *distribution.KeyValueHead) *int32 { return aws.Ptr(int32(h.Count)) }

// GetKey implements api.API.
func (s *Service) GetKey(_ context.Context, in *api.GetKeyInput) (*api.GetKeyOutput, error) {
	v, err := s.ready(in.KvsARN)
	if err != nil {
		return nil, err
	}
	value, ok := v.Get(*in.Key)
	if !ok {
		return nil, notFound("Key", *in.Key)
	}
	return &api.GetKeyOutput{Key: in.Key, Value: &value, ItemCount: count(v.Head), TotalSizeInBytes: &v.Head.Bytes}, nil
}

// ListKeys implements api.API. A page's token is its last key.
func (s *Service) ListKeys(_ context.Context, in *api.ListKeysInput) (*api.ListKeysOutput, error) {
	v, err := s.ready(in.KvsARN)
	if err != nil {
		return nil, err
	}
	after, err := readToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	n := defaultPage
	if in.MaxResults != nil {
		n = min(int(*in.MaxResults), maxPage)
	}
	pairs := v.After(after, n+1)
	out := &api.ListKeysOutput{Items: []*api.ListKeysResponseListItem{}}
	for _, p := range pairs[:min(n, len(pairs))] {
		out.Items = append(out.Items, &api.ListKeysResponseListItem{Key: &p.Key, Value: &p.Value})
	}
	if len(pairs) > n {
		out.NextToken = token(pairs[n-1].Key)
	}
	return out, nil
}

// PutKey implements api.API.
func (s *Service) PutKey(ctx context.Context, in *api.PutKeyInput) (*api.PutKeyOutput, error) {
	h, err := s.change(ctx, in.KvsARN, in.IfMatch, []keyvalue.Pair{{Key: *in.Key, Value: *in.Value}}, nil)
	if err != nil {
		return nil, err
	}
	return &api.PutKeyOutput{ItemCount: count(h), TotalSizeInBytes: &h.Bytes, ETag: &h.ETag}, nil
}

// DeleteKey implements api.API. To delete a key that is not there is no error.
func (s *Service) DeleteKey(ctx context.Context, in *api.DeleteKeyInput) (*api.DeleteKeyOutput, error) {
	h, err := s.change(ctx, in.KvsARN, in.IfMatch, nil, []string{*in.Key})
	if err != nil {
		return nil, err
	}
	return &api.DeleteKeyOutput{ItemCount: count(h), TotalSizeInBytes: &h.Bytes, ETag: &h.ETag}, nil
}

// UpdateKeys implements api.API.
func (s *Service) UpdateKeys(ctx context.Context, in *api.UpdateKeysInput) (*api.UpdateKeysOutput, error) {
	if n := len(in.Puts) + len(in.Deletes); n == 0 || n > maxChanges {
		return nil, api.NewValidationException("Validation failed: the request names %d keys; it can name 1 to %d.", n, maxChanges)
	}
	seen := map[string]bool{}
	once := func(key string) error {
		if seen[key] {
			return api.NewValidationException("Validation failed: the request names key %q more than once.", key)
		}
		seen[key] = true
		return nil
	}
	var puts []keyvalue.Pair
	for _, p := range in.Puts {
		if err := once(*p.Key); err != nil {
			return nil, err
		}
		puts = append(puts, keyvalue.Pair{Key: *p.Key, Value: *p.Value})
	}
	var deletes []string
	for _, d := range in.Deletes {
		if err := once(*d.Key); err != nil {
			return nil, err
		}
		deletes = append(deletes, *d.Key)
	}
	h, err := s.change(ctx, in.KvsARN, in.IfMatch, puts, deletes)
	if err != nil {
		return nil, err
	}
	return &api.UpdateKeysOutput{ItemCount: count(h), TotalSizeInBytes: &h.Bytes, ETag: &h.ETag}, nil
}
