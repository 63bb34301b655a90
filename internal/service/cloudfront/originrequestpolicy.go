package cloudfront

import (
	"context"

	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

func describeOriginRequestPolicy(r record[api.OriginRequestPolicyConfig]) *api.OriginRequestPolicy {
	return &api.OriginRequestPolicy{Id: &r.ID, LastModifiedTime: &r.Modified, OriginRequestPolicyConfig: &r.Resource}
}

// CreateOriginRequestPolicy implements api.API.
func (s *Service) CreateOriginRequestPolicy(ctx context.Context, in *api.CreateOriginRequestPolicyInput) (*api.CreateOriginRequestPolicyOutput, error) {
	r, err := s.originRequestPolicies.create(ctx, s, in.OriginRequestPolicyConfig)
	if err != nil {
		return nil, err
	}
	return &api.CreateOriginRequestPolicyOutput{OriginRequestPolicy: describeOriginRequestPolicy(r), ETag: &r.ETag, Location: location(ctx, "origin-request-policy/"+r.ID)}, nil
}

// GetOriginRequestPolicy implements api.API.
func (s *Service) GetOriginRequestPolicy(_ context.Context, in *api.GetOriginRequestPolicyInput) (*api.GetOriginRequestPolicyOutput, error) {
	r, err := s.originRequestPolicies.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetOriginRequestPolicyOutput{OriginRequestPolicy: describeOriginRequestPolicy(r), ETag: &r.ETag}, nil
}

// GetOriginRequestPolicyConfig implements api.API.
func (s *Service) GetOriginRequestPolicyConfig(_ context.Context, in *api.GetOriginRequestPolicyConfigInput) (*api.GetOriginRequestPolicyConfigOutput, error) {
	r, err := s.originRequestPolicies.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetOriginRequestPolicyConfigOutput{OriginRequestPolicyConfig: &r.Resource, ETag: &r.ETag}, nil
}

// UpdateOriginRequestPolicy implements api.API.
func (s *Service) UpdateOriginRequestPolicy(ctx context.Context, in *api.UpdateOriginRequestPolicyInput) (*api.UpdateOriginRequestPolicyOutput, error) {
	r, err := s.originRequestPolicies.update(ctx, s, in.Id, in.IfMatch, in.OriginRequestPolicyConfig)
	if err != nil {
		return nil, err
	}
	return &api.UpdateOriginRequestPolicyOutput{OriginRequestPolicy: describeOriginRequestPolicy(r), ETag: &r.ETag}, nil
}

// DeleteOriginRequestPolicy implements api.API.
func (s *Service) DeleteOriginRequestPolicy(ctx context.Context, in *api.DeleteOriginRequestPolicyInput) (*api.DeleteOriginRequestPolicyOutput, error) {
	return &api.DeleteOriginRequestPolicyOutput{}, s.originRequestPolicies.delete(ctx, s, in.Id, in.IfMatch)
}

// ListOriginRequestPolicies implements api.API.
func (s *Service) ListOriginRequestPolicies(_ context.Context, in *api.ListOriginRequestPoliciesInput) (*api.ListOriginRequestPoliciesOutput, error) {
	p, err := s.originRequestPolicies.list(string(in.Type), in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.OriginRequestPolicyList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity}
	for _, r := range p.Items {
		list.Items = append(list.Items, &api.OriginRequestPolicySummary{Type: api.OriginRequestPolicyType(s.originRequestPolicies.typeOf(r.ID)), OriginRequestPolicy: describeOriginRequestPolicy(r)})
	}
	return &api.ListOriginRequestPoliciesOutput{OriginRequestPolicyList: list}, nil
}
