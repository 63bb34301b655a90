package cloudfront

import (
	"context"
	"fmt"
	"slices"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

const (
	// identityPrefix is what origins name an origin access identity with.
	identityPrefix = "origin-access-identity/cloudfront/"

	maxAccessControls = 100 // an account's (CloudFront quotas)
	maxIdentities     = 100
)

// identityResource is an origin access identity.
type identityResource struct {
	Config api.CloudFrontOriginAccessIdentityConfig
	// CanonicalUser is who reads the bucket, as S3's grants name it.
	CanonicalUser string
}

// usesOrigin tells whether an origin of a distribution meets a condition.
func usesOrigin(c *api.DistributionConfig, condition func(*api.Origin) bool) bool {
	return slices.ContainsFunc(c.Origins.Items, condition)
}

func usesAccessControl(c *api.DistributionConfig, id string) bool {
	return usesOrigin(c, func(o *api.Origin) bool { return *o.OriginAccessControlId == id })
}

func usesIdentity(c *api.DistributionConfig, id string) bool {
	return usesOrigin(c, func(o *api.Origin) bool {
		return o.S3OriginConfig != nil && *o.S3OriginConfig.OriginAccessIdentity == identityPrefix+id
	})
}

func (s *Service) checkAccessControl(c *api.OriginAccessControlConfig, id string) error {
	c.Description = or(c.Description, "")
	if n := len(*c.Name); n < 1 || n > 64 {
		return api.NewInvalidArgument("The parameter Name is not valid: it has 1 to 64 characters.")
	}
	if len(*c.Description) > 256 {
		return api.NewInvalidArgument("The parameter Description is too long: it has at most 256 characters.")
	}
	switch c.OriginAccessControlOriginType {
	case api.OriginAccessControlOriginTypesS3, api.OriginAccessControlOriginTypesLambda:
	default:
		return unsupported(fmt.Sprintf("The origin access control origin type %s", c.OriginAccessControlOriginType))
	}
	if _, ok := s.accessControls.first(func(r *record[api.OriginAccessControlConfig]) bool { return r.ID != id && *r.Resource.Name == *c.Name }); ok {
		return api.NewOriginAccessControlAlreadyExists("An origin access control with the same name already exists: %s", *c.Name)
	}
	return nil
}

func describeAccessControl(r record[api.OriginAccessControlConfig]) *api.OriginAccessControl {
	return &api.OriginAccessControl{Id: &r.ID, OriginAccessControlConfig: &r.Resource}
}

// CreateOriginAccessControl implements api.API.
func (s *Service) CreateOriginAccessControl(ctx context.Context, in *api.CreateOriginAccessControlInput) (*api.CreateOriginAccessControlOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.checkAccessControl(in.OriginAccessControlConfig, ""); err != nil {
		return nil, err
	}
	if s.accessControls.collection.Len() >= maxAccessControls {
		return nil, api.NewTooManyOriginAccessControls("You have reached the maximum number of origin access controls for this AWS account: %d.", maxAccessControls)
	}
	r, err := s.accessControls.create(ctx, newID("E"), *in.OriginAccessControlConfig)
	if err != nil {
		return nil, err
	}
	return &api.CreateOriginAccessControlOutput{OriginAccessControl: describeAccessControl(r), ETag: &r.ETag, Location: location(ctx, "origin-access-control/"+r.ID)}, nil
}

// GetOriginAccessControl implements api.API.
func (s *Service) GetOriginAccessControl(_ context.Context, in *api.GetOriginAccessControlInput) (*api.GetOriginAccessControlOutput, error) {
	r, err := s.accessControls.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetOriginAccessControlOutput{OriginAccessControl: describeAccessControl(r), ETag: &r.ETag}, nil
}

// GetOriginAccessControlConfig implements api.API.
func (s *Service) GetOriginAccessControlConfig(_ context.Context, in *api.GetOriginAccessControlConfigInput) (*api.GetOriginAccessControlConfigOutput, error) {
	r, err := s.accessControls.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetOriginAccessControlConfigOutput{OriginAccessControlConfig: &r.Resource, ETag: &r.ETag}, nil
}

// UpdateOriginAccessControl implements api.API.
func (s *Service) UpdateOriginAccessControl(ctx context.Context, in *api.UpdateOriginAccessControlInput) (*api.UpdateOriginAccessControlOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old, err := s.accessControls.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := s.checkAccessControl(in.OriginAccessControlConfig, old.ID); err != nil {
		return nil, err
	}
	if in.OriginAccessControlConfig.OriginAccessControlOriginType != old.Resource.OriginAccessControlOriginType {
		return nil, api.NewIllegalUpdate("You cannot change the origin type of an origin access control.")
	}
	r, err := s.accessControls.update(ctx, old, *in.OriginAccessControlConfig)
	if err != nil {
		return nil, err
	}
	if err := s.republish(ctx, func(c *api.DistributionConfig) bool { return usesAccessControl(c, r.ID) }); err != nil {
		return nil, err
	}
	return &api.UpdateOriginAccessControlOutput{OriginAccessControl: describeAccessControl(r), ETag: &r.ETag}, nil
}

// DeleteOriginAccessControl implements api.API.
func (s *Service) DeleteOriginAccessControl(ctx context.Context, in *api.DeleteOriginAccessControlInput) (*api.DeleteOriginAccessControlOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.accessControls.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if d, ok := s.distributions.first(func(d *distributionRecord) bool { return usesAccessControl(&d.Resource.Config, r.ID) }); ok {
		return nil, api.NewOriginAccessControlInUse("Cannot delete the origin access control because it is in use by distribution %s.", d.ID)
	}
	return &api.DeleteOriginAccessControlOutput{}, s.accessControls.remove(ctx, r.ID)
}

// ListOriginAccessControls implements api.API.
func (s *Service) ListOriginAccessControls(_ context.Context, in *api.ListOriginAccessControlsInput) (*api.ListOriginAccessControlsOutput, error) {
	p, err := paginate(s.accessControls.all(), func(r record[api.OriginAccessControlConfig]) string { return r.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.OriginAccessControlList{Marker: or(in.Marker, ""), NextMarker: p.NextMarker, MaxItems: p.MaxItems, IsTruncated: p.truncated(), Quantity: p.Quantity}
	for _, r := range p.Items {
		c := r.Resource
		list.Items = append(list.Items, &api.OriginAccessControlSummary{
			Id: aws.Ptr(r.ID), Name: c.Name, Description: c.Description, SigningProtocol: c.SigningProtocol, SigningBehavior: c.SigningBehavior,
			OriginAccessControlOriginType: c.OriginAccessControlOriginType,
		})
	}
	return &api.ListOriginAccessControlsOutput{OriginAccessControlList: list}, nil
}

func describeIdentity(r record[identityResource]) *api.CloudFrontOriginAccessIdentity {
	return &api.CloudFrontOriginAccessIdentity{Id: &r.ID, S3CanonicalUserId: &r.Resource.CanonicalUser, CloudFrontOriginAccessIdentityConfig: &r.Resource.Config}
}

// CreateCloudFrontOriginAccessIdentity implements api.API.
func (s *Service) CreateCloudFrontOriginAccessIdentity(ctx context.Context, in *api.CreateCloudFrontOriginAccessIdentityInput) (*api.CreateCloudFrontOriginAccessIdentityOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	c := in.CloudFrontOriginAccessIdentityConfig
	r, ok := s.identities.first(func(r *record[identityResource]) bool {
		return *r.Resource.Config.CallerReference == *c.CallerReference
	})
	switch {
	case ok && !equal(&r.Resource.Config, c):
		return nil, api.NewCloudFrontOriginAccessIdentityAlreadyExists("The caller reference is associated with another origin access identity: %s", r.ID)
	case ok:
	case s.identities.collection.Len() >= maxIdentities:
		return nil, api.NewTooManyCloudFrontOriginAccessIdentities("Processing your request would cause you to exceed the maximum number of origin access identities allowed.")
	default:
		var err error
		if r, err = s.identities.create(ctx, newID("E"), identityResource{Config: *c, CanonicalUser: random(hex, 96)}); err != nil {
			return nil, err
		}
	}
	return &api.CreateCloudFrontOriginAccessIdentityOutput{CloudFrontOriginAccessIdentity: describeIdentity(r), ETag: &r.ETag, Location: location(ctx, identityPrefix+r.ID)}, nil
}

// GetCloudFrontOriginAccessIdentity implements api.API.
func (s *Service) GetCloudFrontOriginAccessIdentity(_ context.Context, in *api.GetCloudFrontOriginAccessIdentityInput) (*api.GetCloudFrontOriginAccessIdentityOutput, error) {
	r, err := s.identities.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetCloudFrontOriginAccessIdentityOutput{CloudFrontOriginAccessIdentity: describeIdentity(r), ETag: &r.ETag}, nil
}

// GetCloudFrontOriginAccessIdentityConfig implements api.API.
func (s *Service) GetCloudFrontOriginAccessIdentityConfig(_ context.Context, in *api.GetCloudFrontOriginAccessIdentityConfigInput) (*api.GetCloudFrontOriginAccessIdentityConfigOutput, error) {
	r, err := s.identities.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetCloudFrontOriginAccessIdentityConfigOutput{CloudFrontOriginAccessIdentityConfig: &r.Resource.Config, ETag: &r.ETag}, nil
}

// UpdateCloudFrontOriginAccessIdentity implements api.API. What it changes, the
// comment, is nothing that locations serve.
func (s *Service) UpdateCloudFrontOriginAccessIdentity(ctx context.Context, in *api.UpdateCloudFrontOriginAccessIdentityInput) (*api.UpdateCloudFrontOriginAccessIdentityOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old, err := s.identities.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	changed := old.Resource
	changed.Config = *in.CloudFrontOriginAccessIdentityConfig
	if *changed.Config.CallerReference != *old.Resource.Config.CallerReference {
		return nil, api.NewIllegalUpdate("You cannot change the caller reference of an origin access identity.")
	}
	r, err := s.identities.update(ctx, old, changed)
	if err != nil {
		return nil, err
	}
	return &api.UpdateCloudFrontOriginAccessIdentityOutput{CloudFrontOriginAccessIdentity: describeIdentity(r), ETag: &r.ETag}, nil
}

// DeleteCloudFrontOriginAccessIdentity implements api.API.
func (s *Service) DeleteCloudFrontOriginAccessIdentity(ctx context.Context, in *api.DeleteCloudFrontOriginAccessIdentityInput) (*api.DeleteCloudFrontOriginAccessIdentityOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.identities.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if d, ok := s.distributions.first(func(d *distributionRecord) bool { return usesIdentity(&d.Resource.Config, r.ID) }); ok {
		return nil, api.NewCloudFrontOriginAccessIdentityInUse("The origin access identity is in use by distribution %s.", d.ID)
	}
	return &api.DeleteCloudFrontOriginAccessIdentityOutput{}, s.identities.remove(ctx, r.ID)
}

// ListCloudFrontOriginAccessIdentities implements api.API.
func (s *Service) ListCloudFrontOriginAccessIdentities(_ context.Context, in *api.ListCloudFrontOriginAccessIdentitiesInput) (*api.ListCloudFrontOriginAccessIdentitiesOutput, error) {
	p, err := paginate(s.identities.all(), func(r record[identityResource]) string { return r.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.CloudFrontOriginAccessIdentityList{Marker: or(in.Marker, ""), NextMarker: p.NextMarker, MaxItems: p.MaxItems, IsTruncated: p.truncated(), Quantity: p.Quantity}
	for _, r := range p.Items {
		list.Items = append(list.Items, &api.CloudFrontOriginAccessIdentitySummary{
			Id: aws.Ptr(r.ID), S3CanonicalUserId: aws.Ptr(r.Resource.CanonicalUser), Comment: r.Resource.Config.Comment,
		})
	}
	return &api.ListCloudFrontOriginAccessIdentitiesOutput{CloudFrontOriginAccessIdentityList: list}, nil
}
