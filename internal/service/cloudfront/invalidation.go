package cloudfront

import (
	"context"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Quotas of invalidations that are in progress (CloudFront developer guide,
// "Concurrent invalidation request maximum").
const (
	maxPaths     = 3000 // without a wildcard
	maxWildcards = 15
	maxPath      = 4000 // characters
)

// invalidationAge is for how long an invalidation is kept. A location that was
// away for longer than that must not serve from its old cache.
const invalidationAge = 90 * 24 * time.Hour

// completed is the status of an invalidation that every location has.
const completed = "Completed"

// invalidationResource is an invalidation.
type invalidationResource struct {
	Distribution string
	Batch        api.InvalidationBatch
}

type invalidationRecord = record[invalidationResource]

// CreateInvalidation implements api.API.
func (s *Service) CreateInvalidation(ctx context.Context, in *api.CreateInvalidationInput) (*api.CreateInvalidationOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	d, err := s.distributions.get(in.DistributionId)
	if err != nil {
		return nil, err
	}
	if err := checkQuantities(in.InvalidationBatch); err != nil {
		return nil, err
	}
	made, ok := s.invalidations.first(func(i *invalidationRecord) bool {
		return i.Resource.Distribution == d.ID && *i.Resource.Batch.CallerReference == *in.InvalidationBatch.CallerReference
	})
	if ok {
		if !equal(&made.Resource.Batch, in.InvalidationBatch) {
			return nil, api.NewInvalidArgument("Your request contains a caller reference that was used for a previous invalidation batch, but the contents of the batch differ.")
		}
	} else if made, err = s.invalidate(ctx, d.ID, in.InvalidationBatch); err != nil {
		return nil, err
	}
	return &api.CreateInvalidationOutput{
		Invalidation: s.describeInvalidation(made), Location: location(ctx, "distribution/"+d.ID+"/invalidation/"+made.ID),
	}, nil
}

func (s *Service) invalidate(ctx context.Context, id string, batch *api.InvalidationBatch) (invalidationRecord, error) {
	if err := s.checkPaths(id, batch.Paths.Items); err != nil {
		return invalidationRecord{}, err
	}
	made, err := s.invalidations.create(ctx, newID("I"), invalidationResource{Distribution: id, Batch: *batch})
	if err != nil {
		return made, err
	}
	return made, s.publishInvalidation(ctx, made)
}

// publishInvalidation has the locations take a batch out of their caches.
func (s *Service) publishInvalidation(ctx context.Context, i invalidationRecord) error {
	if _, ok := s.records.Invalidations.Get(i.ID); ok {
		return nil
	}
	_, err := s.records.Invalidations.Put(ctx, i.ID, distribution.Invalidation{
		Format: distribution.Format, ID: i.ID, Distribution: i.Resource.Distribution, Paths: i.Resource.Batch.Paths.Items, At: i.Created,
	})
	return err
}

func wildcard(path string) bool { return strings.HasSuffix(path, "*") }

func countWildcards(paths []string) (n int) {
	for _, p := range paths {
		if wildcard(p) {
			n++
		}
	}
	return n
}

func (s *Service) checkPaths(id string, paths []string) error {
	if len(paths) == 0 {
		return api.NewInvalidArgument("The parameter Paths must have at least one path.")
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || len(p) > maxPath || slices.ContainsFunc([]byte(p), func(c byte) bool { return c <= ' ' || c >= 0x7f }) {
			return api.NewInvalidArgument("Your request contains one or more invalid invalidation paths.")
		}
	}
	wildcards := countWildcards(paths)
	plain := len(paths) - wildcards
	if plain > maxPaths || wildcards > maxWildcards {
		return api.NewBatchTooLarge("Processing your request will cause you to exceed the maximum number of in-progress invalidations.")
	}
	for _, i := range s.invalidations.all() {
		if i.Resource.Distribution == id && s.invalidationStatus(i.ID) == inProgress {
			n := countWildcards(i.Resource.Batch.Paths.Items)
			wildcards, plain = wildcards+n, plain+len(i.Resource.Batch.Paths.Items)-n
		}
	}
	if plain > maxPaths || wildcards > maxWildcards {
		return api.NewTooManyInvalidationsInProgress("Processing your request will cause you to exceed the maximum number of in-progress invalidations.")
	}
	return nil
}

// invalidationStatus tells whether every location has an invalidation.
func (s *Service) invalidationStatus(id string) string {
	i, ok := s.records.Invalidations.Get(id)
	if ok && i.Revision > s.opts.Locations.Applied().Invalidations {
		return inProgress
	}
	return completed
}

func (s *Service) invalidationsInProgress(id string) (n int32) {
	for i := range s.records.Invalidations.Scan("", "") {
		if i.Value.Distribution == id && s.invalidationStatus(i.Key) == inProgress {
			n++
		}
	}
	return n
}

func (s *Service) describeInvalidation(i invalidationRecord) *api.Invalidation {
	return &api.Invalidation{Id: &i.ID, Status: aws.Ptr(s.invalidationStatus(i.ID)), CreateTime: &i.Created, InvalidationBatch: &i.Resource.Batch}
}

// GetInvalidation implements api.API.
func (s *Service) GetInvalidation(_ context.Context, in *api.GetInvalidationInput) (*api.GetInvalidationOutput, error) {
	d, err := s.distributions.get(in.DistributionId)
	if err != nil {
		return nil, err
	}
	i, err := s.invalidations.get(in.Id)
	if err != nil {
		return nil, err
	}
	if i.Resource.Distribution != d.ID {
		return nil, s.invalidations.missing
	}
	return &api.GetInvalidationOutput{Invalidation: s.describeInvalidation(i)}, nil
}

// ListInvalidations implements api.API. The newest comes first.
func (s *Service) ListInvalidations(_ context.Context, in *api.ListInvalidationsInput) (*api.ListInvalidationsOutput, error) {
	d, err := s.distributions.get(in.DistributionId)
	if err != nil {
		return nil, err
	}
	var of []invalidationRecord
	for _, i := range s.invalidations.all() {
		if i.Resource.Distribution == d.ID {
			of = append(of, i)
		}
	}
	slices.SortFunc(of, func(a, b invalidationRecord) int { return b.Created.Compare(a.Created) })
	p, err := paginate(of, func(i invalidationRecord) string { return i.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.InvalidationList{Marker: or(in.Marker, ""), NextMarker: p.NextMarker, MaxItems: p.MaxItems, IsTruncated: p.truncated(), Quantity: p.Quantity}
	for _, i := range p.Items {
		list.Items = append(list.Items, &api.InvalidationSummary{Id: aws.Ptr(i.ID), CreateTime: aws.Ptr(i.Created), Status: aws.Ptr(s.invalidationStatus(i.ID))})
	}
	return &api.ListInvalidationsOutput{InvalidationList: list}, nil
}

// dropInvalidation forgets an invalidation.
func (s *Service) dropInvalidation(ctx context.Context, id string) error {
	if err := s.invalidations.remove(ctx, id); err != nil {
		return err
	}
	if i, ok := s.records.Invalidations.Get(id); ok {
		return s.records.Invalidations.Delete(ctx, id, i.Revision)
	}
	return nil
}

// dropOldInvalidations forgets the invalidations that are of no use any more.
func (s *Service) dropOldInvalidations(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	before := s.opts.Now().Add(-invalidationAge)
	for _, i := range s.invalidations.all() {
		if i.Created.Before(before) {
			if err := s.dropInvalidation(ctx, i.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
