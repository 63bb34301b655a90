package cloudfront

import (
	"context"

	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

func describeCachePolicy(r record[api.CachePolicyConfig]) *api.CachePolicy {
	return &api.CachePolicy{Id: &r.ID, LastModifiedTime: &r.Modified, CachePolicyConfig: &r.Resource}
}

// CreateCachePolicy implements api.API.
func (s *Service) CreateCachePolicy(ctx context.Context, in *api.CreateCachePolicyInput) (*api.CreateCachePolicyOutput, error) {
	r, err := s.cachePolicies.create(ctx, s, in.CachePolicyConfig)
	if err != nil {
		return nil, err
	}
	return &api.CreateCachePolicyOutput{CachePolicy: describeCachePolicy(r), ETag: &r.ETag, Location: location(ctx, "cache-policy/"+r.ID)}, nil
}

// GetCachePolicy implements api.API.
func (s *Service) GetCachePolicy(_ context.Context, in *api.GetCachePolicyInput) (*api.GetCachePolicyOutput, error) {
	r, err := s.cachePolicies.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetCachePolicyOutput{CachePolicy: describeCachePolicy(r), ETag: &r.ETag}, nil
}

// GetCachePolicyConfig implements api.API.
func (s *Service) GetCachePolicyConfig(_ context.Context, in *api.GetCachePolicyConfigInput) (*api.GetCachePolicyConfigOutput, error) {
	r, err := s.cachePolicies.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetCachePolicyConfigOutput{CachePolicyConfig: &r.Resource, ETag: &r.ETag}, nil
}

// UpdateCachePolicy implements api.API.
func (s *Service) UpdateCachePolicy(ctx context.Context, in *api.UpdateCachePolicyInput) (*api.UpdateCachePolicyOutput, error) {
	r, err := s.cachePolicies.update(ctx, s, in.Id, in.IfMatch, in.CachePolicyConfig)
	if err != nil {
		return nil, err
	}
	return &api.UpdateCachePolicyOutput{CachePolicy: describeCachePolicy(r), ETag: &r.ETag}, nil
}

// DeleteCachePolicy implements api.API.
func (s *Service) DeleteCachePolicy(ctx context.Context, in *api.DeleteCachePolicyInput) (*api.DeleteCachePolicyOutput, error) {
	return &api.DeleteCachePolicyOutput{}, s.cachePolicies.delete(ctx, s, in.Id, in.IfMatch)
}

// ListCachePolicies implements api.API.
func (s *Service) ListCachePolicies(_ context.Context, in *api.ListCachePoliciesInput) (*api.ListCachePoliciesOutput, error) {
	p, err := s.cachePolicies.list(string(in.Type), in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.CachePolicyList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity}
	for _, r := range p.Items {
		list.Items = append(list.Items, &api.CachePolicySummary{Type: api.CachePolicyType(s.cachePolicies.typeOf(r.ID)), CachePolicy: describeCachePolicy(r)})
	}
	return &api.ListCachePoliciesOutput{CachePolicyList: list}, nil
}
