package cloudfront

import (
	"context"
	"encoding/json"
	"fmt"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// domain is where distributions have their names. Clients find them there by
// whatever leads that name to an edge location.
const domain = ".cloudfront.net"

// maxDistributions is the default quota of an account (CloudFront quotas).
const maxDistributions = 200

// States of distributions.
const (
	inProgress = "InProgress"
	deployed   = "Deployed"
)

// distributionResource is a distribution.
type distributionResource struct {
	Config     api.DistributionConfig
	DomainName string
	Tags       map[string]string
}

type distributionRecord = record[distributionResource]

func (s *Service) distributionARN(id string) string { return s.arn("distribution/" + id) }

// CreateDistribution implements api.API.
func (s *Service) CreateDistribution(ctx context.Context, in *api.CreateDistributionInput) (*api.CreateDistributionOutput, error) {
	d, err := s.createDistribution(ctx, in.DistributionConfig, nil)
	if err != nil {
		return nil, err
	}
	return &api.CreateDistributionOutput{Distribution: s.describe(d), ETag: &d.ETag, Location: location(ctx, "distribution/"+d.ID)}, nil
}

// CreateDistributionWithTags implements api.API.
func (s *Service) CreateDistributionWithTags(ctx context.Context, in *api.CreateDistributionWithTagsInput) (*api.CreateDistributionWithTagsOutput, error) {
	tags, err := addTags(nil, in.DistributionConfigWithTags.Tags)
	if err != nil {
		return nil, err
	}
	d, err := s.createDistribution(ctx, in.DistributionConfigWithTags.DistributionConfig, tags)
	if err != nil {
		return nil, err
	}
	return &api.CreateDistributionWithTagsOutput{Distribution: s.describe(d), ETag: &d.ETag, Location: location(ctx, "distribution/"+d.ID)}, nil
}

func (s *Service) createDistribution(ctx context.Context, c *api.DistributionConfig, tags map[string]string) (distributionRecord, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := checkQuantities(c); err != nil {
		return distributionRecord{}, err
	}
	fill(c)
	// The caller's reference tells a request that is made again from a new one.
	same, ok := s.distributions.first(func(d *distributionRecord) bool { return *d.Resource.Config.CallerReference == *c.CallerReference })
	if ok {
		if !equal(&same.Resource.Config, c) {
			return distributionRecord{}, api.NewDistributionAlreadyExists("The caller reference that you are using to create a distribution is associated with another distribution. Already exists: %s", same.ID)
		}
		return same, nil
	}
	if s.distributions.collection.Len() >= maxDistributions {
		return distributionRecord{}, api.NewTooManyDistributions("Your request would cause you to exceed the maximum number of distributions allowed.")
	}
	id := newID("E")
	replicas, err := s.checkDistribution(ctx, id, c)
	if err != nil {
		return distributionRecord{}, err
	}
	if err := s.replicate(ctx, id, replicas); err != nil {
		return distributionRecord{}, err
	}
	d, err := s.distributions.create(ctx, id, distributionResource{Config: *c, DomainName: "d" + random(smalls, 13) + domain, Tags: tags})
	if err != nil {
		return distributionRecord{}, err
	}
	return d, s.publish(ctx, &d)
}

// equal tells whether two shapes say the same.
func equal(a, b any) bool { return encoded(a) == encoded(b) }

func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cloudfront: %v", err)) // shapes hold nothing that could fail
	}
	return string(b)
}

// GetDistribution implements api.API.
func (s *Service) GetDistribution(_ context.Context, in *api.GetDistributionInput) (*api.GetDistributionOutput, error) {
	d, err := s.distributions.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetDistributionOutput{Distribution: s.describe(d), ETag: &d.ETag}, nil
}

// GetDistributionConfig implements api.API.
func (s *Service) GetDistributionConfig(_ context.Context, in *api.GetDistributionConfigInput) (*api.GetDistributionConfigOutput, error) {
	d, err := s.distributions.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetDistributionConfigOutput{DistributionConfig: &d.Resource.Config, ETag: &d.ETag}, nil
}

// UpdateDistribution implements api.API. The configuration is replaced whole.
func (s *Service) UpdateDistribution(ctx context.Context, in *api.UpdateDistributionInput) (*api.UpdateDistributionOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	d, err := s.distributions.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := checkQuantities(in.DistributionConfig); err != nil {
		return nil, err
	}
	fill(in.DistributionConfig)
	if *in.DistributionConfig.CallerReference != *d.Resource.Config.CallerReference {
		return nil, api.NewIllegalUpdate("You cannot change the caller reference of a distribution.")
	}
	replicas, err := s.checkDistribution(ctx, d.ID, in.DistributionConfig)
	if err != nil {
		return nil, err
	}
	if err := s.replicate(ctx, d.ID, replicas); err != nil {
		return nil, err
	}
	r := d.Resource
	r.Config = *in.DistributionConfig
	if d, err = s.distributions.update(ctx, d, r); err != nil {
		return nil, err
	}
	if err := s.publish(ctx, &d); err != nil {
		return nil, err
	}
	s.tidier.wake()
	return &api.UpdateDistributionOutput{Distribution: s.describe(d), ETag: &d.ETag}, nil
}

// DeleteDistribution implements api.API. No location serves what is deleted: it
// must be disabled, and deployed so.
func (s *Service) DeleteDistribution(ctx context.Context, in *api.DeleteDistributionInput) (*api.DeleteDistributionOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	d, err := s.distributions.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if *d.Resource.Config.Enabled || s.status(d.ID) != deployed {
		return nil, api.NewDistributionNotDisabled("The distribution you are trying to delete has not been disabled.")
	}
	if err := s.distributions.remove(ctx, d.ID); err != nil {
		return nil, err
	}
	if err := s.withdraw(ctx, d.ID); err != nil {
		return nil, err
	}
	return &api.DeleteDistributionOutput{}, nil
}

// describe returns a distribution as the API shows it.
func (s *Service) describe(d distributionRecord) *api.Distribution {
	signers, groups := s.activeSigners(&d.Resource.Config)
	var recordals []*api.AliasICPRecordal
	for _, a := range d.Resource.Config.Aliases.Items {
		recordals = append(recordals, &api.AliasICPRecordal{CNAME: aws.Ptr(a), ICPRecordalStatus: api.ICPRecordalStatusApproved})
	}
	return &api.Distribution{
		Id: &d.ID, ARN: aws.Ptr(s.distributionARN(d.ID)), Status: aws.Ptr(s.status(d.ID)), LastModifiedTime: &d.Modified,
		InProgressInvalidationBatches: aws.Ptr(s.invalidationsInProgress(d.ID)), DomainName: &d.Resource.DomainName,
		ActiveTrustedSigners: signers, ActiveTrustedKeyGroups: groups, DistributionConfig: &d.Resource.Config, AliasICPRecordals: recordals,
	}
}

// summarise returns a distribution as lists show it.
func (s *Service) summarise(d distributionRecord) *api.DistributionSummary {
	c := &d.Resource.Config
	full := s.describe(d)
	return &api.DistributionSummary{
		Id: full.Id, ARN: full.ARN, ETag: &d.ETag, Status: full.Status, LastModifiedTime: full.LastModifiedTime, DomainName: full.DomainName,
		Aliases: c.Aliases, Origins: c.Origins, OriginGroups: c.OriginGroups, DefaultCacheBehavior: c.DefaultCacheBehavior,
		CacheBehaviors: c.CacheBehaviors, CustomErrorResponses: c.CustomErrorResponses, Comment: c.Comment, PriceClass: c.PriceClass,
		Enabled: c.Enabled, ViewerCertificate: c.ViewerCertificate, Restrictions: c.Restrictions, WebACLId: c.WebACLId,
		HttpVersion: c.HttpVersion, IsIPV6Enabled: c.IsIPV6Enabled, AliasICPRecordals: full.AliasICPRecordals, Staging: c.Staging,
	}
}

// CopyDistribution implements api.API.
func (s *Service) CopyDistribution(_ context.Context, in *api.CopyDistributionInput) (*api.CopyDistributionOutput, error) {
	if _, err := s.distributions.get(in.PrimaryDistributionId); err != nil {
		return nil, err
	}
	return nil, unsupported("Continuous deployment (CopyDistribution, staging distributions)")
}

// UpdateDistributionWithStagingConfig implements api.API.
func (s *Service) UpdateDistributionWithStagingConfig(_ context.Context, in *api.UpdateDistributionWithStagingConfigInput) (*api.UpdateDistributionWithStagingConfigOutput, error) {
	if _, err := s.distributions.get(in.Id); err != nil {
		return nil, err
	}
	return nil, unsupported("Continuous deployment (UpdateDistributionWithStagingConfig)")
}
