package cloudfront

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// which returns the distributions that a condition holds for.
func (s *Service) which(condition func(*api.DistributionConfig) bool) (out []distributionRecord) {
	for _, d := range s.distributions.all() {
		if condition(&d.Resource.Config) {
			out = append(out, d)
		}
	}
	return out
}

func distributionID(d distributionRecord) string { return d.ID }

func (s *Service) listDistributions(marker, maxItems *string, condition func(*api.DistributionConfig) bool) (*api.DistributionList, error) {
	p, err := paginate(s.which(condition), distributionID, marker, maxItems)
	if err != nil {
		return nil, err
	}
	list := &api.DistributionList{Marker: or(marker, ""), NextMarker: p.NextMarker, MaxItems: p.MaxItems, IsTruncated: p.truncated(), Quantity: p.Quantity}
	for _, d := range p.Items {
		list.Items = append(list.Items, s.summarise(d))
	}
	return list, nil
}

func (s *Service) listDistributionIDs(marker, maxItems *string, condition func(*api.DistributionConfig) bool) (*api.DistributionIdList, error) {
	p, err := paginate(s.which(condition), distributionID, marker, maxItems)
	if err != nil {
		return nil, err
	}
	list := &api.DistributionIdList{Marker: or(marker, ""), NextMarker: p.NextMarker, MaxItems: p.MaxItems, IsTruncated: p.truncated(), Quantity: p.Quantity}
	for _, d := range p.Items {
		list.Items = append(list.Items, d.ID)
	}
	return list, nil
}

// ListDistributions implements api.API.
func (s *Service) ListDistributions(_ context.Context, in *api.ListDistributionsInput) (*api.ListDistributionsOutput, error) {
	list, err := s.listDistributions(in.Marker, in.MaxItems, func(*api.DistributionConfig) bool { return true })
	return &api.ListDistributionsOutput{DistributionList: list}, err
}

// ListDistributionsByCachePolicyId implements api.API.
func (s *Service) ListDistributionsByCachePolicyId(_ context.Context, in *api.ListDistributionsByCachePolicyIdInput) (*api.ListDistributionsByCachePolicyIdOutput, error) {
	if _, err := s.cachePolicies.get(in.CachePolicyId); err != nil {
		return nil, err
	}
	list, err := s.listDistributionIDs(in.Marker, in.MaxItems, func(c *api.DistributionConfig) bool { return s.cachePolicies.names(c, *in.CachePolicyId) })
	return &api.ListDistributionsByCachePolicyIdOutput{DistributionIdList: list}, err
}

// ListDistributionsByOriginRequestPolicyId implements api.API.
func (s *Service) ListDistributionsByOriginRequestPolicyId(_ context.Context, in *api.ListDistributionsByOriginRequestPolicyIdInput) (*api.ListDistributionsByOriginRequestPolicyIdOutput, error) {
	if _, err := s.originRequestPolicies.get(in.OriginRequestPolicyId); err != nil {
		return nil, err
	}
	list, err := s.listDistributionIDs(in.Marker, in.MaxItems, func(c *api.DistributionConfig) bool {
		return s.originRequestPolicies.names(c, *in.OriginRequestPolicyId)
	})
	return &api.ListDistributionsByOriginRequestPolicyIdOutput{DistributionIdList: list}, err
}

// ListDistributionsByResponseHeadersPolicyId implements api.API.
func (s *Service) ListDistributionsByResponseHeadersPolicyId(_ context.Context, in *api.ListDistributionsByResponseHeadersPolicyIdInput) (*api.ListDistributionsByResponseHeadersPolicyIdOutput, error) {
	if _, err := s.responseHeadersPolicies.get(in.ResponseHeadersPolicyId); err != nil {
		return nil, err
	}
	list, err := s.listDistributionIDs(in.Marker, in.MaxItems, func(c *api.DistributionConfig) bool {
		return s.responseHeadersPolicies.names(c, *in.ResponseHeadersPolicyId)
	})
	return &api.ListDistributionsByResponseHeadersPolicyIdOutput{DistributionIdList: list}, err
}

// ListDistributionsByKeyGroup implements api.API.
func (s *Service) ListDistributionsByKeyGroup(_ context.Context, in *api.ListDistributionsByKeyGroupInput) (*api.ListDistributionsByKeyGroupOutput, error) {
	if _, err := s.keyGroups.get(in.KeyGroupId); err != nil {
		return nil, err
	}
	list, err := s.listDistributionIDs(in.Marker, in.MaxItems, func(c *api.DistributionConfig) bool { return usesKeyGroup(c, *in.KeyGroupId) })
	return &api.ListDistributionsByKeyGroupOutput{DistributionIdList: list}, err
}

// ListDistributionsByWebACLId implements api.API. No distribution has a web ACL
// here: "null" asks for those.
func (s *Service) ListDistributionsByWebACLId(_ context.Context, in *api.ListDistributionsByWebACLIdInput) (*api.ListDistributionsByWebACLIdOutput, error) {
	list, err := s.listDistributions(in.Marker, in.MaxItems, func(*api.DistributionConfig) bool { return *in.WebACLId == "null" })
	return &api.ListDistributionsByWebACLIdOutput{DistributionList: list}, err
}

// ListDistributionsByRealtimeLogConfig implements api.API.
func (s *Service) ListDistributionsByRealtimeLogConfig(_ context.Context, in *api.ListDistributionsByRealtimeLogConfigInput) (*api.ListDistributionsByRealtimeLogConfigOutput, error) {
	arn, err := s.realtimeLogARN(in.RealtimeLogConfigName, in.RealtimeLogConfigArn)
	if err != nil {
		return nil, err
	}
	list, err := s.listDistributions(in.Marker, in.MaxItems, func(c *api.DistributionConfig) bool { return usesRealtimeLog(c, arn) })
	return &api.ListDistributionsByRealtimeLogConfigOutput{DistributionList: list}, err
}

// overlaps tells whether two aliases stand for a name in common: equal, or one a
// wildcard over the other.
func overlaps(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	covers := func(wild, name string) bool {
		suffix, ok := strings.CutPrefix(wild, "*")
		label, rest, _ := strings.Cut(name, ".")
		return ok && label != "" && "."+rest == suffix
	}
	return a == b || covers(a, b) || covers(b, a)
}

// ListConflictingAliases implements api.API.
func (s *Service) ListConflictingAliases(_ context.Context, in *api.ListConflictingAliasesInput) (*api.ListConflictingAliasesOutput, error) {
	if _, err := s.distributions.get(in.DistributionId); err != nil {
		return nil, err
	}
	var all []*api.ConflictingAlias
	for _, d := range s.distributions.all() {
		for _, alias := range d.Resource.Config.Aliases.Items {
			if d.ID != *in.DistributionId && overlaps(alias, *in.Alias) {
				all = append(all, &api.ConflictingAlias{Alias: aws.Ptr(alias), DistributionId: aws.Ptr(d.ID), AccountId: aws.Ptr(s.opts.AccountID)})
			}
		}
	}
	var maxItems *string
	if in.MaxItems != nil {
		maxItems = aws.Ptr(strconv.Itoa(int(*in.MaxItems)))
	}
	p, err := paginate(all, func(a *api.ConflictingAlias) string { return *a.DistributionId + "/" + *a.Alias }, in.Marker, maxItems)
	if err != nil {
		return nil, err
	}
	return &api.ListConflictingAliasesOutput{ConflictingAliasesList: &api.ConflictingAliasesList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity, Items: p.Items}}, nil
}

// AssociateAlias implements api.API: it moves an alias to a distribution, from
// the one that has it.
func (s *Service) AssociateAlias(ctx context.Context, in *api.AssociateAliasInput) (*api.AssociateAliasOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	target, err := s.distributions.get(in.TargetDistributionId)
	if err != nil {
		return nil, err
	}
	has := func(c *api.DistributionConfig) int {
		return slices.IndexFunc(c.Aliases.Items, func(a string) bool { return strings.EqualFold(a, *in.Alias) })
	}
	if has(&target.Resource.Config) >= 0 {
		return &api.AssociateAliasOutput{}, nil
	}
	moved := target.Resource
	moved.Config.Aliases = withAliases(append(slices.Clone(moved.Config.Aliases.Items), *in.Alias))
	source, taken := s.distributions.first(func(d *distributionRecord) bool { return has(&d.Resource.Config) >= 0 })
	if err := s.checkAliases(&moved.Config, func(id string) bool { return id == target.ID || taken && id == source.ID }); err != nil {
		return nil, err
	}
	// A crash in between leaves the alias with nobody: the request is made again.
	if taken {
		left := source.Resource
		i := has(&left.Config)
		left.Config.Aliases = withAliases(slices.Delete(slices.Clone(left.Config.Aliases.Items), i, i+1))
		if source, err = s.distributions.update(ctx, source, left); err != nil {
			return nil, err
		}
		if err := s.publish(ctx, &source); err != nil {
			return nil, err
		}
	}
	if target, err = s.distributions.update(ctx, target, moved); err != nil {
		return nil, err
	}
	return &api.AssociateAliasOutput{}, s.publish(ctx, &target)
}

func withAliases(list []string) *api.Aliases {
	if len(list) == 0 {
		list = nil
	}
	return &api.Aliases{Quantity: quantity(list), Items: list}
}
