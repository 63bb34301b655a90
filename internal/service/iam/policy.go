package iam

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/state"
)

// policy is the record of a customer managed policy; AWS's own are of the same
// type (see managed.go).
type policy struct {
	Name        string
	ID          string
	ARN         string
	Path        string
	Description string `json:",omitempty"`
	Created     time.Time
	Updated     time.Time
	Tags        tags
	Default     string // id of the default version
	Last        int    // number of the newest version ever
	Versions    []version
}

// version is a version of a policy.
type version struct {
	ID       string
	Document string
	Created  time.Time
}

// sortKey orders policies by name; AWS and the account may use the same.
func (p *policy) sortKey() string {
	owner := "/local"
	if p.isAWS() {
		owner = "/aws"
	}
	return keyOf(p.Name) + owner
}

func (p *policy) isAWS() bool { return strings.HasPrefix(p.ARN, awsPolicyPrefix) }

func (p *policy) version(id string) *version {
	i := slices.IndexFunc(p.Versions, func(v version) bool { return v.ID == id })
	if i < 0 {
		return nil
	}
	return &p.Versions[i]
}

// findPolicy finds the policy, of the account or of AWS, that has an ARN.
func (s *Service) findPolicy(arn string) (*policy, bool) {
	if p, ok := awsManaged[arn]; ok {
		return p, true
	}
	item, ok := s.policies.Get(keyOf(arn[strings.LastIndexByte(arn, '/')+1:]))
	if !ok || item.Value.ARN != arn {
		return nil, false
	}
	return &item.Value, true
}

// existingPolicy is findPolicy with AWS's error.
func (s *Service) existingPolicy(arn *string) (*policy, error) {
	p, ok := s.findPolicy(*arn)
	if !ok {
		return nil, noSuchPolicy(*arn)
	}
	return p, nil
}

func noSuchPolicy(arn string) error {
	return iam.NewNoSuchEntityException("Policy %s was not found.", arn)
}

// ownPolicy finds a policy of the account in order to change it.
func (s *Service) ownPolicy(arn *string) (state.Item[policy], error) {
	p, ok := s.findPolicy(*arn)
	if !ok {
		return state.Item[policy]{}, noSuchPolicy(*arn)
	}
	if p.isAWS() {
		return state.Item[policy]{}, &aws.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: "Policy " + *arn + " is managed by AWS and cannot be changed."}
	}
	item, ok := s.policies.Get(keyOf(p.Name))
	if !ok {
		return state.Item[policy]{}, noSuchPolicy(*arn)
	}
	return item, nil
}

// checkBoundary checks the policy that a request names as permissions boundary.
func (s *Service) checkBoundary(arn *string) (string, error) {
	if arn == nil {
		return "", nil
	}
	if _, ok := s.findPolicy(*arn); !ok {
		return "", iam.NewNoSuchEntityException("Scope ARN: %s does not exist or is not attachable.", *arn)
	}
	return *arn, nil
}

// usage is to how many users and roles a policy is attached, and how many it
// bounds.
type usage struct{ attached, bounded int32 }

// usages are by the policies' ARNs.
type usages map[string]usage

func (s *Service) usages() usages {
	u := usages{}
	s.users.count(u)
	s.roles.count(u)
	return u
}

// output is a policy as lists show it.
func (u usages) output(p *policy) *iam.Policy {
	out := &iam.Policy{
		PolicyName: &p.Name, Arn: &p.ARN, Path: &p.Path, DefaultVersionId: &p.Default,
		AttachmentCount: aws.Ptr(u[p.ARN].attached), PermissionsBoundaryUsageCount: aws.Ptr(u[p.ARN].bounded), IsAttachable: aws.Ptr(true),
		CreateDate: &p.Created, UpdateDate: &p.Updated,
	}
	if p.ID != "" {
		out.PolicyId = &p.ID
	}
	return out
}

// fullPolicy adds what lists leave out.
func (s *Service) fullPolicy(p *policy) *iam.Policy {
	out := s.usages().output(p)
	out.Tags = p.Tags.output()
	if p.Description != "" {
		out.Description = &p.Description
	}
	return out
}

// CreatePolicy implements iam.API.
func (s *Service) CreatePolicy(ctx context.Context, in *iam.CreatePolicyInput) (*iam.CreatePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policies.Len() >= maxPolicies {
		return nil, quotaExceeded("PoliciesPerAccount", maxPolicies)
	}
	if err := checkManagedPolicy(*in.PolicyDocument); err != nil {
		return nil, err
	}
	t := now()
	p := policy{
		Name: *in.PolicyName, ID: newID("ANPA"), Path: pathOf(in.Path), Description: aws.Value(in.Description),
		Created: t, Updated: t, Default: "v1", Last: 1, Versions: []version{{"v1", *in.PolicyDocument, t}},
	}
	p.ARN = s.arn("policy", p.Path, p.Name)
	var err error
	if p.Tags, err = newTags(in.Tags); err != nil {
		return nil, err
	}
	if _, err = s.policies.Create(ctx, keyOf(p.Name), p); errors.Is(err, state.ErrExists) {
		return nil, iam.NewEntityAlreadyExistsException("A policy called %s already exists. Duplicate names are not allowed.", p.Name)
	} else if err != nil {
		return nil, err
	}
	return &iam.CreatePolicyOutput{Policy: s.fullPolicy(&p)}, nil
}

// GetPolicy implements iam.API.
func (s *Service) GetPolicy(_ context.Context, in *iam.GetPolicyInput) (*iam.GetPolicyOutput, error) {
	p, err := s.existingPolicy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	return &iam.GetPolicyOutput{Policy: s.fullPolicy(p)}, nil
}

// ListPolicies implements iam.API.
func (s *Service) ListPolicies(_ context.Context, in *iam.ListPoliciesInput) (*iam.ListPoliciesOutput, error) {
	var all []*policy
	usages := s.usages()
	add := func(p *policy) {
		used := usages[p.ARN].attached
		switch in.PolicyUsageFilter {
		case iam.PolicyUsageTypePermissionsBoundary:
			used = usages[p.ARN].bounded
		case "":
			used += usages[p.ARN].bounded
		}
		switch {
		case !strings.HasPrefix(p.Path, aws.Value(in.PathPrefix)):
		case used == 0 && (aws.Value(in.OnlyAttached) || in.PolicyUsageFilter != ""):
		default:
			all = append(all, p)
		}
	}
	if in.Scope != iam.PolicyScopeTypeLocal {
		for _, p := range awsManaged {
			add(p)
		}
	}
	if in.Scope != iam.PolicyScopeTypeAws {
		for _, item := range s.policies.List("") {
			add(&item.Value)
		}
	}
	p, err := paginate(all, (*policy).sortKey, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListPoliciesOutput{Policies: collect(p.items, usages.output), IsTruncated: p.truncated, Marker: p.marker}, nil
}

// DeletePolicy implements iam.API.
func (s *Service) DeletePolicy(ctx context.Context, in *iam.DeletePolicyInput) (*iam.DeletePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, err := s.ownPolicy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	if s.usages()[item.Value.ARN] != (usage{}) {
		return nil, iam.NewDeleteConflictException("Cannot delete a policy attached to entities.")
	}
	if len(item.Value.Versions) > 1 {
		return nil, iam.NewDeleteConflictException("This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
	}
	return &iam.DeletePolicyOutput{}, s.policies.Delete(ctx, item.Key, item.Revision)
}

// changePolicy changes a policy of the account.
func (s *Service) changePolicy(ctx context.Context, arn *string, change func(*policy) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, err := s.ownPolicy(arn)
	if err != nil {
		return err
	}
	_, err = s.policies.Modify(ctx, item.Key, change)
	return err
}

// versionOutput is a version without its document.
func (p *policy) versionOutput(v version) *iam.PolicyVersion {
	return &iam.PolicyVersion{VersionId: &v.ID, IsDefaultVersion: aws.Ptr(v.ID == p.Default), CreateDate: &v.Created}
}

func noSuchVersion(arn, id string) error {
	return iam.NewNoSuchEntityException("Policy %s version %s does not exist or is not attachable.", arn, id)
}

// CreatePolicyVersion implements iam.API.
func (s *Service) CreatePolicyVersion(ctx context.Context, in *iam.CreatePolicyVersionInput) (*iam.CreatePolicyVersionOutput, error) {
	var out *iam.PolicyVersion
	err := s.changePolicy(ctx, in.PolicyArn, func(p *policy) error {
		if err := checkManagedPolicy(*in.PolicyDocument); err != nil {
			return err
		}
		if len(p.Versions) >= maxVersions {
			return iam.NewLimitExceededException("A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
		}
		p.Last++
		v := version{fmt.Sprintf("v%d", p.Last), *in.PolicyDocument, now()}
		p.Versions = append(p.Versions, v)
		p.Updated = v.Created
		if aws.Value(in.SetAsDefault) {
			p.Default = v.ID
		}
		out = p.versionOutput(v)
		return nil
	})
	return &iam.CreatePolicyVersionOutput{PolicyVersion: out}, err
}

// GetPolicyVersion implements iam.API. Of AWS's own policies only the default
// version is known.
func (s *Service) GetPolicyVersion(_ context.Context, in *iam.GetPolicyVersionInput) (*iam.GetPolicyVersionOutput, error) {
	p, err := s.existingPolicy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	v := p.version(*in.VersionId)
	if v == nil {
		return nil, noSuchVersion(p.ARN, *in.VersionId)
	}
	out := p.versionOutput(*v)
	out.Document = encodeDocument(v.Document)
	return &iam.GetPolicyVersionOutput{PolicyVersion: out}, nil
}

// ListPolicyVersions implements iam.API.
func (s *Service) ListPolicyVersions(_ context.Context, in *iam.ListPolicyVersionsInput) (*iam.ListPolicyVersionsOutput, error) {
	policy, err := s.existingPolicy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	// There are at most five, but their numbers grow: v9 comes before v10.
	number := func(v version) string { return fmt.Sprintf("%02d%s", len(v.ID), v.ID) }
	p, err := paginate(policy.Versions, number, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListPolicyVersionsOutput{Versions: collect(p.items, policy.versionOutput), IsTruncated: p.truncated, Marker: p.marker}, nil
}

// DeletePolicyVersion implements iam.API.
func (s *Service) DeletePolicyVersion(ctx context.Context, in *iam.DeletePolicyVersionInput) (*iam.DeletePolicyVersionOutput, error) {
	return &iam.DeletePolicyVersionOutput{}, s.changePolicy(ctx, in.PolicyArn, func(p *policy) error {
		switch {
		case p.version(*in.VersionId) == nil:
			return noSuchVersion(p.ARN, *in.VersionId)
		case p.Default == *in.VersionId:
			return iam.NewDeleteConflictException("Cannot delete the default version of a policy.")
		}
		p.Versions = slices.DeleteFunc(p.Versions, func(v version) bool { return v.ID == *in.VersionId })
		return nil
	})
}

// SetDefaultPolicyVersion implements iam.API.
func (s *Service) SetDefaultPolicyVersion(ctx context.Context, in *iam.SetDefaultPolicyVersionInput) (*iam.SetDefaultPolicyVersionOutput, error) {
	return &iam.SetDefaultPolicyVersionOutput{}, s.changePolicy(ctx, in.PolicyArn, func(p *policy) error {
		if p.version(*in.VersionId) == nil {
			return noSuchVersion(p.ARN, *in.VersionId)
		}
		p.Default, p.Updated = *in.VersionId, now()
		return nil
	})
}

// entity is a user or a role that a policy is attached to, or bounds.
type entity struct {
	key  string
	user *iam.PolicyUser
	role *iam.PolicyRole
}

// ListEntitiesForPolicy implements iam.API.
func (s *Service) ListEntitiesForPolicy(_ context.Context, in *iam.ListEntitiesForPolicyInput) (*iam.ListEntitiesForPolicyOutput, error) {
	policy, err := s.existingPolicy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	uses := func(p *principal) bool {
		attached := slices.Contains(p.Attached, policy.ARN) && in.PolicyUsageFilter != iam.PolicyUsageTypePermissionsBoundary
		bounded := p.Boundary == policy.ARN && in.PolicyUsageFilter != iam.PolicyUsageTypePermissionsPolicy
		return (attached || bounded) && strings.HasPrefix(p.Path, aws.Value(in.PathPrefix))
	}
	var all []entity
	if in.EntityFilter == "" || in.EntityFilter == iam.EntityTypeUser {
		for _, item := range s.users.records.List("") {
			if u := &item.Value; uses(&u.principal) {
				all = append(all, entity{key: "user/" + item.Key, user: &iam.PolicyUser{UserName: &u.Name, UserId: &u.ID}})
			}
		}
	}
	if in.EntityFilter == "" || in.EntityFilter == iam.EntityTypeRole {
		for _, item := range s.roles.records.List("") {
			if r := &item.Value; uses(&r.principal) {
				all = append(all, entity{key: "role/" + item.Key, role: &iam.PolicyRole{RoleName: &r.Name, RoleId: &r.ID}})
			}
		}
	}
	p, err := paginate(all, func(e entity) string { return e.key }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &iam.ListEntitiesForPolicyOutput{
		IsTruncated: p.truncated, Marker: p.marker,
		PolicyUsers: []*iam.PolicyUser{}, PolicyRoles: []*iam.PolicyRole{}, PolicyGroups: []*iam.PolicyGroup{},
	}
	for _, e := range p.items {
		if e.user != nil {
			out.PolicyUsers = append(out.PolicyUsers, e.user)
		} else {
			out.PolicyRoles = append(out.PolicyRoles, e.role)
		}
	}
	return out, nil
}

// TagPolicy implements iam.API.
func (s *Service) TagPolicy(ctx context.Context, in *iam.TagPolicyInput) (*iam.TagPolicyOutput, error) {
	return &iam.TagPolicyOutput{}, s.changePolicy(ctx, in.PolicyArn, func(p *policy) error { return p.Tags.set(in.Tags) })
}

// UntagPolicy implements iam.API.
func (s *Service) UntagPolicy(ctx context.Context, in *iam.UntagPolicyInput) (*iam.UntagPolicyOutput, error) {
	return &iam.UntagPolicyOutput{}, s.changePolicy(ctx, in.PolicyArn, func(p *policy) error { p.Tags.remove(in.TagKeys); return nil })
}

// ListPolicyTags implements iam.API.
func (s *Service) ListPolicyTags(_ context.Context, in *iam.ListPolicyTagsInput) (*iam.ListPolicyTagsOutput, error) {
	policy, err := s.existingPolicy(in.PolicyArn)
	if err != nil {
		return nil, err
	}
	p, err := policy.Tags.page(in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListPolicyTagsOutput{Tags: tags(p.items).output(), IsTruncated: p.truncated, Marker: p.marker}, nil
}
