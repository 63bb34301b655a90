package iam

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/state"
)

// user is the record of an IAM user.
type user struct{ principal }

func (s *Service) userARN(u *user) string { return s.arn("user", u.Path, u.Name) }

// output is a user as most operations show it.
func (s *Service) userOutput(u user) *iam.User {
	return &iam.User{
		Path: &u.Path, UserName: &u.Name, UserId: &u.ID, Arn: aws.Ptr(s.userARN(&u)), CreateDate: &u.Created,
	}
}

// fullUser adds what lists leave out.
func (s *Service) fullUser(u user) *iam.User {
	out := s.userOutput(u)
	out.PermissionsBoundary, out.Tags = u.boundary(), u.Tags.output()
	return out
}

// callersName is the name of the user who asks, where a request names none.
func callersName(ctx context.Context, name *string) (*string, error) {
	if name != nil {
		return name, nil
	}
	arn := aws.RequestFrom(ctx).Caller.ARN
	if !strings.Contains(arn, ":user/") {
		return nil, validationError("Must specify userName when calling with non-User credentials")
	}
	return aws.Ptr(arn[strings.LastIndexByte(arn, '/')+1:]), nil
}

func isRoot(ctx context.Context) bool {
	return strings.HasSuffix(aws.RequestFrom(ctx).Caller.ARN, ":root")
}

// CreateUser implements iam.API.
func (s *Service) CreateUser(ctx context.Context, in *iam.CreateUserInput) (*iam.CreateUserOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users.records.Len() >= maxUsers {
		return nil, quotaExceeded("UsersPerAccount", maxUsers)
	}
	u := user{principal{Name: *in.UserName, ID: newID("AIDA"), Path: pathOf(in.Path), Created: now()}}
	var err error
	if u.Tags, err = newTags(in.Tags); err != nil {
		return nil, err
	}
	if u.Boundary, err = s.checkBoundary(in.PermissionsBoundary); err != nil {
		return nil, err
	}
	if _, err = s.users.records.Create(ctx, keyOf(u.Name), u); errors.Is(err, state.ErrExists) {
		return nil, userExists(u.Name)
	}
	return &iam.CreateUserOutput{User: s.fullUser(u)}, err
}

func userExists(name string) error {
	return iam.NewEntityAlreadyExistsException("User with name %s already exists.", name)
}

// GetUser implements iam.API.
func (s *Service) GetUser(ctx context.Context, in *iam.GetUserInput) (*iam.GetUserOutput, error) {
	if in.UserName == nil && isRoot(ctx) {
		caller := aws.RequestFrom(ctx).Caller
		return &iam.GetUserOutput{User: &iam.User{UserId: &caller.UserID, Arn: &caller.ARN}}, nil
	}
	name, err := callersName(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	u, err := s.users.find(name)
	if err != nil {
		return nil, err
	}
	return &iam.GetUserOutput{User: s.fullUser(u)}, nil
}

// ListUsers implements iam.API.
func (s *Service) ListUsers(_ context.Context, in *iam.ListUsersInput) (*iam.ListUsersOutput, error) {
	p, err := s.users.list(in.PathPrefix, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListUsersOutput{Users: collect(p.items, s.userOutput), IsTruncated: p.truncated, Marker: p.marker}, nil
}

// UpdateUser implements iam.API.
func (s *Service) UpdateUser(ctx context.Context, in *iam.UpdateUserInput) (*iam.UpdateUserOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.users.find(in.UserName)
	if err != nil {
		return nil, err
	}
	changed := old
	if in.NewPath != nil {
		changed.Path = *in.NewPath
	}
	if in.NewUserName != nil {
		changed.Name = *in.NewUserName
	}
	if keyOf(changed.Name) == keyOf(old.Name) {
		_, err = s.users.records.Put(ctx, keyOf(old.Name), changed)
	} else {
		err = s.rename(ctx, old, changed)
	}
	return &iam.UpdateUserOutput{}, err
}

// rename gives a user another name. The record under the new name comes first
// and the one under the old name goes last, so that a crash leaves both, which
// finishRenames sees by their id.
func (s *Service) rename(ctx context.Context, old, changed user) error {
	_, err := s.users.records.Create(ctx, keyOf(changed.Name), changed)
	if errors.Is(err, state.ErrExists) {
		return userExists(changed.Name)
	}
	if err != nil {
		return err
	}
	if err := s.moveKeys(ctx, changed); err != nil {
		return err
	}
	return s.removeUser(ctx, keyOf(old.Name))
}

// moveKeys has a user's access keys name the user as it is now called.
func (s *Service) moveKeys(ctx context.Context, u user) error {
	for _, key := range s.keys.List("") {
		if key.Value.UserID != u.ID || key.Value.UserName == u.Name {
			continue
		}
		if _, err := s.keys.Modify(ctx, key.Key, func(k *accessKey) error { k.UserName = u.Name; return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) removeUser(ctx context.Context, key string) error {
	item, ok := s.users.records.Get(key)
	if !ok {
		return nil
	}
	return s.users.records.Delete(ctx, key, item.Revision)
}

// finishRenames finishes the renamings that a crash broke off.
func (s *Service) finishRenames(ctx context.Context) error {
	latest := map[string]state.Item[user]{}
	for _, item := range s.users.records.List("") {
		other, twice := latest[item.Value.ID]
		if twice {
			if other.Revision > item.Revision {
				item, other = other, item
			}
			if err := errors.Join(s.moveKeys(ctx, item.Value), s.removeUser(ctx, other.Key)); err != nil {
				return fmt.Errorf("finish renaming user %s to %s: %w", other.Value.Name, item.Value.Name, err)
			}
		}
		latest[item.Value.ID] = item
	}
	return nil
}

// DeleteUser implements iam.API.
func (s *Service) DeleteUser(ctx context.Context, in *iam.DeleteUserInput) (*iam.DeleteUserOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.users.find(in.UserName)
	if err != nil {
		return nil, err
	}
	if len(s.keysOf(&u)) > 0 {
		return nil, iam.NewDeleteConflictException("Cannot delete entity, must delete access keys first.")
	}
	if err := u.deletable(); err != nil {
		return nil, err
	}
	return &iam.DeleteUserOutput{}, s.removeUser(ctx, keyOf(u.Name))
}

// AttachUserPolicy implements iam.API.
func (s *Service) AttachUserPolicy(ctx context.Context, in *iam.AttachUserPolicyInput) (*iam.AttachUserPolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.AttachUserPolicyOutput{}, s.users.modifyPrincipal(ctx, in.UserName, s.attach("user", in.PolicyArn))
}

// DetachUserPolicy implements iam.API.
func (s *Service) DetachUserPolicy(ctx context.Context, in *iam.DetachUserPolicyInput) (*iam.DetachUserPolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.DetachUserPolicyOutput{}, s.users.modifyPrincipal(ctx, in.UserName, detach(in.PolicyArn))
}

// ListAttachedUserPolicies implements iam.API.
func (s *Service) ListAttachedUserPolicies(_ context.Context, in *iam.ListAttachedUserPoliciesInput) (*iam.ListAttachedUserPoliciesOutput, error) {
	u, err := s.users.find(in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := s.attached(&u.principal, in.PathPrefix, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListAttachedUserPoliciesOutput{AttachedPolicies: collect(p.items, attachedPolicy), IsTruncated: p.truncated, Marker: p.marker}, nil
}

// PutUserPolicy implements iam.API.
func (s *Service) PutUserPolicy(ctx context.Context, in *iam.PutUserPolicyInput) (*iam.PutUserPolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.users.find(in.UserName); err != nil {
		return nil, err
	}
	if err := checkIdentityPolicy(*in.PolicyDocument); err != nil {
		return nil, err
	}
	return &iam.PutUserPolicyOutput{}, s.users.modifyPrincipal(ctx, in.UserName, s.users.putInline(in.PolicyName, in.PolicyDocument))
}

// GetUserPolicy implements iam.API.
func (s *Service) GetUserPolicy(_ context.Context, in *iam.GetUserPolicyInput) (*iam.GetUserPolicyOutput, error) {
	u, err := s.users.find(in.UserName)
	if err != nil {
		return nil, err
	}
	document, err := s.users.inline(&u.principal, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iam.GetUserPolicyOutput{UserName: in.UserName, PolicyName: in.PolicyName, PolicyDocument: document}, nil
}

// DeleteUserPolicy implements iam.API.
func (s *Service) DeleteUserPolicy(ctx context.Context, in *iam.DeleteUserPolicyInput) (*iam.DeleteUserPolicyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.DeleteUserPolicyOutput{}, s.users.modifyPrincipal(ctx, in.UserName, s.users.deleteInline(in.PolicyName))
}

// ListUserPolicies implements iam.API.
func (s *Service) ListUserPolicies(_ context.Context, in *iam.ListUserPoliciesInput) (*iam.ListUserPoliciesOutput, error) {
	u, err := s.users.find(in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := inlineNames(&u.principal, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListUserPoliciesOutput{PolicyNames: p.items, IsTruncated: p.truncated, Marker: p.marker}, nil
}

// ListGroupsForUser implements iam.API. There are no groups, so a user is in
// none; clients ask before they delete it.
func (s *Service) ListGroupsForUser(_ context.Context, in *iam.ListGroupsForUserInput) (*iam.ListGroupsForUserOutput, error) {
	_, err := s.users.find(in.UserName)
	return &iam.ListGroupsForUserOutput{Groups: []*iam.Group{}, IsTruncated: aws.Ptr(false)}, err
}

// TagUser implements iam.API.
func (s *Service) TagUser(ctx context.Context, in *iam.TagUserInput) (*iam.TagUserOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.TagUserOutput{}, s.users.modifyPrincipal(ctx, in.UserName, func(p *principal) error { return p.Tags.set(in.Tags) })
}

// UntagUser implements iam.API.
func (s *Service) UntagUser(ctx context.Context, in *iam.UntagUserInput) (*iam.UntagUserOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &iam.UntagUserOutput{}, s.users.modifyPrincipal(ctx, in.UserName, func(p *principal) error { p.Tags.remove(in.TagKeys); return nil })
}

// ListUserTags implements iam.API.
func (s *Service) ListUserTags(_ context.Context, in *iam.ListUserTagsInput) (*iam.ListUserTagsOutput, error) {
	u, err := s.users.find(in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := u.Tags.page(in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListUserTagsOutput{Tags: tags(p.items).output(), IsTruncated: p.truncated, Marker: p.marker}, nil
}
