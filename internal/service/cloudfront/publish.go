package cloudfront

import (
	"context"
	"errors"
	"slices"

	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// publishAll brings what edge locations serve up to what the API's records say:
// a crash may have come between the two.
func (s *Service) publishAll(ctx context.Context) error {
	if err := s.publishKeyValueStores(ctx); err != nil {
		return err
	}
	if err := s.publishFunctions(ctx); err != nil {
		return err
	}
	if err := s.publishRealtimeLogs(ctx); err != nil {
		return err
	}
	if err := s.republish(ctx, func(*api.DistributionConfig) bool { return true }); err != nil {
		return err
	}
	var errs []error
	for d := range s.records.Distributions.Scan("", "") {
		if _, ok := s.distributions.find(d.Key); !ok {
			errs = append(errs, s.records.Distributions.Delete(ctx, d.Key, d.Revision))
		}
	}
	for _, i := range s.invalidations.all() {
		if _, ok := s.distributions.find(i.Resource.Distribution); !ok {
			errs = append(errs, s.dropInvalidation(ctx, i.ID))
		} else {
			errs = append(errs, s.publishInvalidation(ctx, i))
		}
	}
	return errors.Join(errs...)
}

// publish derives what edge locations serve for a distribution.
func (s *Service) publish(ctx context.Context, d *distributionRecord) error {
	compiled := s.compile(d)
	if now, ok := s.records.Distributions.Get(d.ID); ok && equal(now.Value, compiled) {
		return nil
	}
	_, err := s.records.Distributions.Put(ctx, d.ID, compiled)
	return err
}

// republish derives anew what edge locations serve for the distributions that a
// condition holds for: something that they name has changed.
func (s *Service) republish(ctx context.Context, uses func(*api.DistributionConfig) bool) error {
	for _, d := range s.distributions.all() {
		if uses(&d.Resource.Config) {
			if err := s.publish(ctx, &d); err != nil {
				return err
			}
		}
	}
	return nil
}

// withdraw takes from edge locations what a deleted distribution left there.
func (s *Service) withdraw(ctx context.Context, id string) error {
	var errs []error
	if d, ok := s.records.Distributions.Get(id); ok {
		errs = append(errs, s.records.Distributions.Delete(ctx, id, d.Revision))
	}
	for _, i := range s.invalidations.all() {
		if i.Resource.Distribution == id {
			errs = append(errs, s.dropInvalidation(ctx, i.ID))
		}
	}
	s.tidier.wake()
	return errors.Join(errs...)
}

// status tells whether every location serves a distribution as it is now, with
// all that it uses.
func (s *Service) status(id string) string {
	d, ok := s.records.Distributions.Get(id)
	if !ok {
		return inProgress
	}
	applied := s.opts.Locations.Applied()
	current := d.Revision <= applied.Distributions
	if c, ok := s.records.Certificates.Get(d.Value.Certificate.ARN); ok {
		current = current && c.Revision <= applied.Certificates
	}
	for i := range d.Value.Behaviours {
		b := &d.Value.Behaviours[i]
		for _, arn := range b.Viewer {
			if f, ok := s.records.Functions.Get(arn); ok {
				current = current && f.Revision <= applied.Functions
				current = current && (f.Value.Store == "" || s.opts.KeyValues.Served(f.Value.Store, applied.KeyValues))
			}
		}
		if l, ok := s.records.RealtimeLogs.Get(b.RealtimeLog); ok {
			current = current && l.Revision <= applied.RealtimeLogs
		}
		for _, a := range b.Functions {
			if r, ok := s.records.Replicas.Get(a.ARN); ok {
				current = current && r.Revision <= applied.Replicas
			}
		}
	}
	if current {
		return deployed
	}
	return inProgress
}

// replicate records that a distribution has versions of Lambda functions
// associated. It comes before the distribution's own record: a version that a
// distribution names is never without.
func (s *Service) replicate(ctx context.Context, id string, replicas []distribution.LambdaReplica) error {
	for _, r := range replicas {
		r.Format, r.Distributions = distribution.Format, []string{id}
		if now, ok := s.records.Replicas.Get(r.ARN); ok {
			if slices.Contains(now.Value.Distributions, id) {
				continue
			}
			r.Distributions = append(r.Distributions, now.Value.Distributions...)
			slices.Sort(r.Distributions)
		}
		if _, err := s.records.Replicas.Put(ctx, r.ARN, r); err != nil {
			return err
		}
	}
	return nil
}

// dropReplicas takes away the replicas that no location serves a distribution
// with any more. It tells whether there are others to come.
func (s *Service) dropReplicas(ctx context.Context) (more bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	applied := s.opts.Locations.Applied().Distributions
	var errs []error
	for r := range s.records.Replicas.Scan("", "") {
		keep := slices.DeleteFunc(slices.Clone(r.Value.Distributions), func(id string) bool {
			if _, ok := s.distributions.find(id); !ok {
				return true // it was disabled everywhere before it was deleted
			}
			d, ok := s.records.Distributions.Get(id)
			if !ok || associates(&d.Value, r.Key) {
				return false
			}
			if d.Revision > applied {
				more = true
				return false
			}
			return true
		})
		switch {
		case len(keep) == len(r.Value.Distributions):
		case len(keep) == 0:
			errs = append(errs, s.records.Replicas.Delete(ctx, r.Key, r.Revision))
		default:
			changed := r.Value
			changed.Distributions = keep
			_, err := s.records.Replicas.Put(ctx, r.Key, changed)
			errs = append(errs, err)
		}
	}
	return more, errors.Join(errs...)
}

// associates tells whether a distribution has a version of a Lambda function
// associated.
func associates(d *distribution.Distribution, arn string) bool {
	for i := range d.Behaviours {
		for _, a := range d.Behaviours[i].Functions {
			if a.ARN == arn {
				return true
			}
		}
	}
	return false
}
