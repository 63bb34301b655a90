package cloudfront

import (
	"context"

	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

func describeResponseHeadersPolicy(r record[api.ResponseHeadersPolicyConfig]) *api.ResponseHeadersPolicy {
	return &api.ResponseHeadersPolicy{Id: &r.ID, LastModifiedTime: &r.Modified, ResponseHeadersPolicyConfig: &r.Resource}
}

// CreateResponseHeadersPolicy implements api.API.
func (s *Service) CreateResponseHeadersPolicy(ctx context.Context, in *api.CreateResponseHeadersPolicyInput) (*api.CreateResponseHeadersPolicyOutput, error) {
	r, err := s.responseHeadersPolicies.create(ctx, s, in.ResponseHeadersPolicyConfig)
	if err != nil {
		return nil, err
	}
	return &api.CreateResponseHeadersPolicyOutput{ResponseHeadersPolicy: describeResponseHeadersPolicy(r), ETag: &r.ETag, Location: location(ctx, "response-headers-policy/"+r.ID)}, nil
}

// GetResponseHeadersPolicy implements api.API.
func (s *Service) GetResponseHeadersPolicy(_ context.Context, in *api.GetResponseHeadersPolicyInput) (*api.GetResponseHeadersPolicyOutput, error) {
	r, err := s.responseHeadersPolicies.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetResponseHeadersPolicyOutput{ResponseHeadersPolicy: describeResponseHeadersPolicy(r), ETag: &r.ETag}, nil
}

// GetResponseHeadersPolicyConfig implements api.API.
func (s *Service) GetResponseHeadersPolicyConfig(_ context.Context, in *api.GetResponseHeadersPolicyConfigInput) (*api.GetResponseHeadersPolicyConfigOutput, error) {
	r, err := s.responseHeadersPolicies.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetResponseHeadersPolicyConfigOutput{ResponseHeadersPolicyConfig: &r.Resource, ETag: &r.ETag}, nil
}

// UpdateResponseHeadersPolicy implements api.API.
func (s *Service) UpdateResponseHeadersPolicy(ctx context.Context, in *api.UpdateResponseHeadersPolicyInput) (*api.UpdateResponseHeadersPolicyOutput, error) {
	r, err := s.responseHeadersPolicies.update(ctx, s, in.Id, in.IfMatch, in.ResponseHeadersPolicyConfig)
	if err != nil {
		return nil, err
	}
	return &api.UpdateResponseHeadersPolicyOutput{ResponseHeadersPolicy: describeResponseHeadersPolicy(r), ETag: &r.ETag}, nil
}

// DeleteResponseHeadersPolicy implements api.API.
func (s *Service) DeleteResponseHeadersPolicy(ctx context.Context, in *api.DeleteResponseHeadersPolicyInput) (*api.DeleteResponseHeadersPolicyOutput, error) {
	return &api.DeleteResponseHeadersPolicyOutput{}, s.responseHeadersPolicies.delete(ctx, s, in.Id, in.IfMatch)
}

// ListResponseHeadersPolicies implements api.API.
func (s *Service) ListResponseHeadersPolicies(_ context.Context, in *api.ListResponseHeadersPoliciesInput) (*api.ListResponseHeadersPoliciesOutput, error) {
	p, err := s.responseHeadersPolicies.list(string(in.Type), in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.ResponseHeadersPolicyList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity}
	for _, r := range p.Items {
		list.Items = append(list.Items, &api.ResponseHeadersPolicySummary{Type: api.ResponseHeadersPolicyType(s.responseHeadersPolicies.typeOf(r.ID)), ResponseHeadersPolicy: describeResponseHeadersPolicy(r)})
	}
	return &api.ListResponseHeadersPoliciesOutput{ResponseHeadersPolicyList: list}, nil
}
