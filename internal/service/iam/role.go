package iam

import (
	"context"
	"errors"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/state"
)

// role is the record of a role.
type role struct {
	principal
	Trust       string // policy document
	Description string `json:",omitempty"`
	MaxSession  int32  // seconds
}

func (s *Service) roleARN(r *role) string { return s.arn("role", r.Path, r.Name) }

// roleByARN finds the role that has an ARN.
func (s *Service) roleByARN(arn string) (*role, bool) {
	item, ok := s.roles.records.Get(keyOf(arn[strings.LastIndexByte(arn, '/')+1:]))
	if !ok || s.roleARN(&item.Value) != arn {
		return nil, false
	}
	return &item.Value, true
}

// RoleID implements credentials.Source.
func (s *Service) RoleID(arn string) (string, bool) {
	r, ok := s.roleByARN(arn)
	if !ok {
		return "", false
	}
	return r.ID, true
}

// roleOutput is a role as lists show it.
func (s *Service) roleOutput(r role) *iam.Role {
	out := &iam.Role{
		Path: &r.Path, RoleName: &r.Name, RoleId: &r.ID, Arn: aws.Ptr(s.roleARN(&r)), CreateDate: &r.Created,
		AssumeRolePolicyDocument: encodeDocument(r.Trust), MaxSessionDuration: &r.MaxSession,
	}
	if r.Description != "" {
		out.Description = &r.Description
	}
	return out
}

// fullRole adds what lists leave out.
func (s *Service) fullRole(r role) *iam.Role {
	out := s.roleOutput(r)
	out.PermissionsBoundary, out.Tags = r.boundary(), r.Tags.output()
	return out
}

// CreateRole implements iam.API.
func (s *Service) CreateRole(ctx context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roles.records.Len() >= maxRoles {
		return nil, quotaExceeded("RolesPerAccount", maxRoles)
	}
	r := role{
		principal: principal{Name: *in.RoleName, ID: newID("AROA"), Path: pathOf(in.Path), Created: now()},
		Trust:     *in.AssumeRolePolicyDocument, Description: aws.Value(in.Description), MaxSession: defaultSessionLimit,
	}
	if in.MaxSessionDuration != nil {
		r.MaxSession = *in.MaxSessionDuration
	}
	var err error
	if err = s.checkTrustPolicy(r.Trust); err != nil {
		return nil, err
	}
	if r.Tags, err = newTags(in.Tags); err != nil {
		return nil, err
	}
	if r.Boundary, err = s.checkBoundary(in.PermissionsBoundary); err != nil {
		return nil, err
	}
	if _, err = s.roles.records.Create(ctx, keyOf(r.Name), r); errors.Is(err, state.ErrExists) {
		return nil, iam.NewEntityAlreadyExistsException("Role with name %s already exists.", r.Name)
	}
	return &iam.CreateRoleOutput{Role: s.fullRole(r)}, err
}

// GetRole implements iam.API.
func (s *Service) GetRole(_ context.Context, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
	r, err := s.roles.find(in.RoleName)
	if err != nil {
		return nil, err
	}
	return &iam.GetRoleOutput{Role: s.fullRole(r)}, nil
}

// ListRoles implements iam.API.
func (s *Service) ListRoles(_ context.Context, in *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
	p, err := s.roles.list(in.PathPrefix, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListRolesOutput{Roles: collect(p.items, s.roleOutput), IsTruncated: p.truncated, Marker: p.marker}, nil
}

// UpdateRole implements iam.API.
func (s *Service) UpdateRole(ctx context.Context, in *iam.UpdateRoleInput) (*iam.UpdateRoleOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.roles.modify(ctx, in.RoleName, func(r *role) error {
		if in.Description != nil {
			r.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			r.MaxSession = *in.MaxSessionDuration
		}
		return nil
	})
	return &iam.UpdateRoleOutput{}, err
}

// UpdateRoleDescription implements iam.API.
func (s *Service) UpdateRoleDescription(ctx context.Context, in *iam.UpdateRoleDescriptionInput) (*iam.UpdateRoleDescriptionOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.roles.modify(ctx, in.RoleName, func(r *role) error { r.Description = *in.Description; return nil })
	if err != nil {
		return nil, err
	}
	return &iam.UpdateRoleDescriptionOutput{Role: s.roleOutput(r)}, nil
}

// UpdateAssumeRolePolicy implements iam.API.
func (s *Service) UpdateAssumeRolePolicy(ctx context.Context, in *iam.UpdateAssumeRolePolicyInput) (*iam.UpdateAssumeRolePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.roles.find(in.RoleName); err != nil {
		return nil, err
	}
	if err := s.checkTrustPolicy(*in.PolicyDocument); err != nil {
		return nil, err
	}
	_, err := s.roles.modify(ctx, in.RoleName, func(r *role) error { r.Trust = *in.PolicyDocument; return nil })
	return &iam.UpdateAssumeRolePolicyOutput{}, err
}

// DeleteRole implements iam.API.
func (s *Service) DeleteRole(ctx context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.roles.find(in.RoleName)
	if err != nil {
		return nil, err
	}
	if err := r.deletable(); err != nil {
		return nil, err
	}
	item, ok := s.roles.records.Get(keyOf(r.Name))
	if !ok {
		return nil, s.roles.noSuch(r.Name)
	}
	return &iam.DeleteRoleOutput{}, s.roles.records.Delete(ctx, item.Key, item.Revision)
}

// AttachRolePolicy implements iam.API.
func (s *Service) AttachRolePolicy(ctx context.Context, in *iam.AttachRolePolicyInput) (*iam.AttachRolePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.AttachRolePolicyOutput{}, s.roles.modifyPrincipal(ctx, in.RoleName, s.attach("role", in.PolicyArn))
}

// DetachRolePolicy implements iam.API.
func (s *Service) DetachRolePolicy(ctx context.Context, in *iam.DetachRolePolicyInput) (*iam.DetachRolePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.DetachRolePolicyOutput{}, s.roles.modifyPrincipal(ctx, in.RoleName, detach(in.PolicyArn))
}

// ListAttachedRolePolicies implements iam.API.
func (s *Service) ListAttachedRolePolicies(_ context.Context, in *iam.ListAttachedRolePoliciesInput) (*iam.ListAttachedRolePoliciesOutput, error) {
	r, err := s.roles.find(in.RoleName)
	if err != nil {
		return nil, err
	}
	p, err := s.attached(&r.principal, in.PathPrefix, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListAttachedRolePoliciesOutput{AttachedPolicies: collect(p.items, attachedPolicy), IsTruncated: p.truncated, Marker: p.marker}, nil
}

// PutRolePolicy implements iam.API.
func (s *Service) PutRolePolicy(ctx context.Context, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.roles.find(in.RoleName); err != nil {
		return nil, err
	}
	if err := checkIdentityPolicy(*in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.PutRolePolicyOutput{}, s.roles.modifyPrincipal(ctx, in.RoleName, s.roles.putInline(in.PolicyName, in.PolicyDocument))
}

// GetRolePolicy implements iam.API.
func (s *Service) GetRolePolicy(_ context.Context, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
	r, err := s.roles.find(in.RoleName)
	if err != nil {
		return nil, err
	}
	document, err := s.roles.inline(&r.principal, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iam.GetRolePolicyOutput{RoleName: in.RoleName, PolicyName: in.PolicyName, PolicyDocument: document}, nil
}

// DeleteRolePolicy implements iam.API.
func (s *Service) DeleteRolePolicy(ctx context.Context, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.DeleteRolePolicyOutput{}, s.roles.modifyPrincipal(ctx, in.RoleName, s.roles.deleteInline(in.PolicyName))
}

// ListRolePolicies implements iam.API.
func (s *Service) ListRolePolicies(_ context.Context, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
	r, err := s.roles.find(in.RoleName)
	if err != nil {
		return nil, err
	}
	p, err := inlineNames(&r.principal, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListRolePoliciesOutput{PolicyNames: p.items, IsTruncated: p.truncated, Marker: p.marker}, nil
}

// ListInstanceProfilesForRole implements iam.API. There are no instance
// profiles, so a role is in none; clients ask before they delete it.
func (s *Service) ListInstanceProfilesForRole(_ context.Context, in *iam.ListInstanceProfilesForRoleInput) (*iam.ListInstanceProfilesForRoleOutput, error) {
	_, err := s.roles.find(in.RoleName)
	return &iam.ListInstanceProfilesForRoleOutput{InstanceProfiles: []*iam.InstanceProfile{}, IsTruncated: aws.Ptr(false)}, err
}

// TagRole implements iam.API.
func (s *Service) TagRole(ctx context.Context, in *iam.TagRoleInput) (*iam.TagRoleOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.TagRoleOutput{}, s.roles.modifyPrincipal(ctx, in.RoleName, func(p *principal) error { return p.Tags.set(in.Tags) })
}

// UntagRole implements iam.API.
func (s *Service) UntagRole(ctx context.Context, in *iam.UntagRoleInput) (*iam.UntagRoleOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.UntagRoleOutput{}, s.roles.modifyPrincipal(ctx, in.RoleName, func(p *principal) error { p.Tags.remove(in.TagKeys); return nil })
}

// ListRoleTags implements iam.API.
func (s *Service) ListRoleTags(_ context.Context, in *iam.ListRoleTagsInput) (*iam.ListRoleTagsOutput, error) {
	r, err := s.roles.find(in.RoleName)
	if err != nil {
		return nil, err
	}
	p, err := r.Tags.page(in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListRoleTagsOutput{Tags: tags(p.items).output(), IsTruncated: p.truncated, Marker: p.marker}, nil
}
