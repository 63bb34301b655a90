package iam

import (
	"context"
	"errors"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/state"
)

// accessKey is the record of a user's access key; its key is the access key id.
type accessKey struct {
	ID       string
	Secret   string
	UserName string
	UserID   string
	Status   iam.StatusType
	Created  time.Time
}

var _ credentials.Source = (*Service)(nil)

// UserKey implements credentials.Source.
func (s *Service) UserKey(accessKeyID string) (secret string, owner aws.Identity, ok bool) {
	key, ok := s.keys.Get(accessKeyID)
	if !ok || key.Value.Status != iam.StatusTypeActive {
		return "", aws.Identity{}, false
	}
	u, ok := s.users.records.Get(keyOf(key.Value.UserName))
	if !ok || u.Value.ID != key.Value.UserID {
		return "", aws.Identity{}, false
	}
	return key.Value.Secret, aws.Identity{AccountID: s.accountID, ARN: s.userARN(&u.Value), UserID: u.Value.ID}, true
}

func (s *Service) keysOf(u *user) []accessKey {
	var keys []accessKey
	for _, item := range s.keys.List("") {
		if item.Value.UserID == u.ID {
			keys = append(keys, item.Value)
		}
	}
	return keys
}

// CreateAccessKey implements iam.API.
func (s *Service) CreateAccessKey(ctx context.Context, in *iam.CreateAccessKeyInput) (*iam.CreateAccessKeyOutput, error) {
	if in.UserName == nil && isRoot(ctx) {
		return nil, notServed("Creating access keys of the root user")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.namedUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	if len(s.keysOf(&u)) >= maxAccessKeys {
		return nil, quotaExceeded("AccessKeysPerUser", maxAccessKeys)
	}
	for {
		k := accessKey{UserName: u.Name, UserID: u.ID, Status: iam.StatusTypeActive, Created: now()}
		k.ID, k.Secret = credentials.NewAccessKey(s.accountID)
		if _, err := s.keys.Create(ctx, k.ID, k); errors.Is(err, state.ErrExists) {
			continue // of 2^39 ids
		} else if err != nil {
			return nil, err
		}
		return &iam.CreateAccessKeyOutput{AccessKey: &iam.AccessKey{
			UserName: &k.UserName, AccessKeyId: &k.ID, Status: k.Status, SecretAccessKey: &k.Secret, CreateDate: &k.Created,
		}}, nil
	}
}

// namedUser finds the user that a request names, or who asks.
func (s *Service) namedUser(ctx context.Context, name *string) (user, error) {
	name, err := callersName(ctx, name)
	if err != nil {
		return user{}, err
	}
	return s.users.find(name)
}

// ListAccessKeys implements iam.API.
func (s *Service) ListAccessKeys(ctx context.Context, in *iam.ListAccessKeysInput) (*iam.ListAccessKeysOutput, error) {
	if in.UserName == nil && isRoot(ctx) {
		// The root user has the one key that Lapwing made.
		return &iam.ListAccessKeysOutput{IsTruncated: aws.Ptr(false), AccessKeyMetadata: []*iam.AccessKeyMetadata{
			{AccessKeyId: &aws.RequestFrom(ctx).Caller.AccessKeyID, Status: iam.StatusTypeActive},
		}}, nil
	}
	u, err := s.namedUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := paginate(s.keysOf(&u), func(k accessKey) string { return k.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &iam.ListAccessKeysOutput{IsTruncated: p.truncated, Marker: p.marker, AccessKeyMetadata: collect(p.items, func(k accessKey) *iam.AccessKeyMetadata {
		return &iam.AccessKeyMetadata{UserName: &k.UserName, AccessKeyId: &k.ID, Status: k.Status, CreateDate: &k.Created}
	})}, nil
}

// findKey finds an access key of a user.
func (s *Service) findKey(ctx context.Context, userName, id *string) (state.Item[accessKey], error) {
	u, err := s.namedUser(ctx, userName)
	if err != nil {
		return state.Item[accessKey]{}, err
	}
	key, ok := s.keys.Get(*id)
	if !ok || key.Value.UserID != u.ID {
		return state.Item[accessKey]{}, iam.NewNoSuchEntityException("The Access Key with id %s cannot be found.", *id)
	}
	return key, nil
}

// UpdateAccessKey implements iam.API.
func (s *Service) UpdateAccessKey(ctx context.Context, in *iam.UpdateAccessKeyInput) (*iam.UpdateAccessKeyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.findKey(ctx, in.UserName, in.AccessKeyId)
	if err != nil {
		return nil, err
	}
	if in.Status == iam.StatusTypeExpired {
		return nil, validationError("1 validation error detected: Value 'Expired' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]")
	}
	_, err = s.keys.Modify(ctx, key.Key, func(k *accessKey) error { k.Status = in.Status; return nil })
	return &iam.UpdateAccessKeyOutput{}, err
}

// DeleteAccessKey implements iam.API.
func (s *Service) DeleteAccessKey(ctx context.Context, in *iam.DeleteAccessKeyInput) (*iam.DeleteAccessKeyOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.findKey(ctx, in.UserName, in.AccessKeyId)
	if err != nil {
		return nil, err
	}
	return &iam.DeleteAccessKeyOutput{}, s.keys.Delete(ctx, key.Key, key.Revision)
}

// GetAccessKeyLastUsed implements iam.API. The use of keys is not recorded, and
// to say "N/A" would tell that a key was never used.
func (s *Service) GetAccessKeyLastUsed(context.Context, *iam.GetAccessKeyLastUsedInput) (*iam.GetAccessKeyLastUsedOutput, error) {
	return nil, notServed("Recording when an access key was last used")
}
