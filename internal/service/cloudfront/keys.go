package cloudfront

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Quotas of keys (CloudFront quotas).
const (
	maxPublicKeys     = 10
	maxKeyGroups      = 10
	maxKeysInGroup    = 5
	maxGroupsOfOne    = 4 // key groups of a behaviour
	rsaBits           = 2048
	maxPublicKeyBytes = 16 << 10
)

func usesKeyGroup(c *api.DistributionConfig, id string) bool {
	return slices.ContainsFunc(behaviours(c), func(b *api.CacheBehavior) bool { return slices.Contains(b.TrustedKeyGroups.Items, id) })
}

// signers are the keys of the key groups that a behaviour trusts.
func (s *Service) signers(t *api.TrustedKeyGroups) (out []distribution.PublicKey) {
	for _, id := range t.Items {
		g, _ := s.keyGroups.find(id)
		for _, key := range g.Resource.Items {
			if k, ok := s.publicKeys.find(key); ok {
				out = append(out, distribution.PublicKey{ID: k.ID, PEM: *k.Resource.EncodedKey})
			}
		}
	}
	return out
}

// activeSigners tells whose signatures a distribution takes. There are no trusted
// signers by account.
func (s *Service) activeSigners(c *api.DistributionConfig) (*api.ActiveTrustedSigners, *api.ActiveTrustedKeyGroups) {
	var ids []string
	for _, b := range behaviours(c) {
		ids = append(ids, b.TrustedKeyGroups.Items...)
	}
	slices.Sort(ids)
	groups := &api.ActiveTrustedKeyGroups{Enabled: aws.Ptr(len(ids) > 0)}
	for _, id := range slices.Compact(ids) {
		g, _ := s.keyGroups.find(id)
		groups.Items = append(groups.Items, &api.KGKeyPairIds{KeyGroupId: aws.Ptr(id), KeyPairIds: &api.KeyPairIds{Quantity: quantity(g.Resource.Items), Items: g.Resource.Items}})
	}
	groups.Quantity = quantity(groups.Items)
	return &api.ActiveTrustedSigners{Enabled: aws.Ptr(false), Quantity: aws.Ptr[int32](0)}, groups
}

// checkPublicKey checks that a key is one that signatures are verified with: RSA
// of 2,048 bits or ECDSA on P-256 (CloudFront developer guide, "Specify signers").
func checkPublicKey(encoded string) error {
	invalid := api.NewInvalidArgument("The parameter EncodedKey is not valid: it must be a PEM encoded public key, RSA of 2048 bits or ECDSA of 256 bits.")
	block, _ := pem.Decode([]byte(encoded))
	if len(encoded) > maxPublicKeyBytes || block == nil {
		return invalid
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return invalid.WithCause(err)
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() == rsaBits {
			return nil
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return invalid
}

func describePublicKey(r record[api.PublicKeyConfig]) *api.PublicKey {
	return &api.PublicKey{Id: &r.ID, CreatedTime: &r.Created, PublicKeyConfig: &r.Resource}
}

// CreatePublicKey implements api.API.
func (s *Service) CreatePublicKey(ctx context.Context, in *api.CreatePublicKeyInput) (*api.CreatePublicKeyOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	c := in.PublicKeyConfig
	c.Comment = or(c.Comment, "")
	r, ok := s.publicKeys.first(func(r *record[api.PublicKeyConfig]) bool {
		return *r.Resource.CallerReference == *c.CallerReference || *r.Resource.Name == *c.Name
	})
	switch {
	case ok && !equal(&r.Resource, c):
		return nil, api.NewPublicKeyAlreadyExists("The specified public key already exists: %s", r.ID)
	case ok:
	default:
		if err := checkPublicKey(*c.EncodedKey); err != nil {
			return nil, err
		}
		if !policyName(*c.Name) {
			return nil, api.NewInvalidArgument("The parameter Name is not valid: it has 1 to 128 letters, digits, hyphens and underscores.")
		}
		if s.publicKeys.collection.Len() >= maxPublicKeys {
			return nil, api.NewTooManyPublicKeys("The maximum number of public keys for this AWS account has been reached: %d.", maxPublicKeys)
		}
		var err error
		if r, err = s.publicKeys.create(ctx, newID("K"), *c); err != nil {
			return nil, err
		}
	}
	return &api.CreatePublicKeyOutput{PublicKey: describePublicKey(r), ETag: &r.ETag, Location: location(ctx, "public-key/"+r.ID)}, nil
}

// GetPublicKey implements api.API.
func (s *Service) GetPublicKey(_ context.Context, in *api.GetPublicKeyInput) (*api.GetPublicKeyOutput, error) {
	r, err := s.publicKeys.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetPublicKeyOutput{PublicKey: describePublicKey(r), ETag: &r.ETag}, nil
}

// GetPublicKeyConfig implements api.API.
func (s *Service) GetPublicKeyConfig(_ context.Context, in *api.GetPublicKeyConfigInput) (*api.GetPublicKeyConfigOutput, error) {
	r, err := s.publicKeys.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetPublicKeyConfigOutput{PublicKeyConfig: &r.Resource, ETag: &r.ETag}, nil
}

// UpdatePublicKey implements api.API. Only the comment can be changed.
func (s *Service) UpdatePublicKey(ctx context.Context, in *api.UpdatePublicKeyInput) (*api.UpdatePublicKeyOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old, err := s.publicKeys.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	c := in.PublicKeyConfig
	c.Comment = or(c.Comment, "")
	if o := old.Resource; *c.CallerReference != *o.CallerReference || *c.Name != *o.Name || *c.EncodedKey != *o.EncodedKey {
		return nil, api.NewCannotChangeImmutablePublicKeyFields("You can't change the value of a public key: only its comment.")
	}
	r, err := s.publicKeys.update(ctx, old, *c)
	if err != nil {
		return nil, err
	}
	return &api.UpdatePublicKeyOutput{PublicKey: describePublicKey(r), ETag: &r.ETag}, nil
}

// DeletePublicKey implements api.API.
func (s *Service) DeletePublicKey(ctx context.Context, in *api.DeletePublicKeyInput) (*api.DeletePublicKeyOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.publicKeys.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if g, ok := s.keyGroups.first(func(g *record[api.KeyGroupConfig]) bool { return slices.Contains(g.Resource.Items, r.ID) }); ok {
		return nil, api.NewPublicKeyInUse("The specified public key is in use by key group %s.", g.ID)
	}
	return &api.DeletePublicKeyOutput{}, s.publicKeys.remove(ctx, r.ID)
}

// ListPublicKeys implements api.API.
func (s *Service) ListPublicKeys(_ context.Context, in *api.ListPublicKeysInput) (*api.ListPublicKeysOutput, error) {
	p, err := paginate(s.publicKeys.all(), func(r record[api.PublicKeyConfig]) string { return r.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.PublicKeyList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity}
	for _, r := range p.Items {
		c := r.Resource
		list.Items = append(list.Items, &api.PublicKeySummary{Id: aws.Ptr(r.ID), Name: c.Name, CreatedTime: aws.Ptr(r.Created), EncodedKey: c.EncodedKey, Comment: c.Comment})
	}
	return &api.ListPublicKeysOutput{PublicKeyList: list}, nil
}

func (s *Service) checkKeyGroup(c *api.KeyGroupConfig, id string) error {
	c.Comment = or(c.Comment, "")
	switch {
	case !policyName(*c.Name):
		return api.NewInvalidArgument("The parameter Name is not valid: it has 1 to 128 letters, digits, hyphens and underscores.")
	case len(c.Items) == 0:
		return api.NewInvalidArgument("The parameter Items must have at least one public key.")
	case len(c.Items) > maxKeysInGroup:
		return api.NewTooManyPublicKeysInKeyGroup("The number of public keys in this key group is more than the maximum allowed: %d.", maxKeysInGroup)
	}
	for i, key := range c.Items {
		if _, ok := s.publicKeys.find(key); !ok || slices.Contains(c.Items[:i], key) {
			return api.NewInvalidArgument("The parameter Items contains %s, which is no public key or is there twice.", key)
		}
	}
	if _, ok := s.keyGroups.first(func(g *record[api.KeyGroupConfig]) bool { return g.ID != id && *g.Resource.Name == *c.Name }); ok {
		return api.NewKeyGroupAlreadyExists("A key group with this name already exists: %s", *c.Name)
	}
	return nil
}

func describeKeyGroup(r record[api.KeyGroupConfig]) *api.KeyGroup {
	return &api.KeyGroup{Id: &r.ID, LastModifiedTime: &r.Modified, KeyGroupConfig: &r.Resource}
}

// CreateKeyGroup implements api.API.
func (s *Service) CreateKeyGroup(ctx context.Context, in *api.CreateKeyGroupInput) (*api.CreateKeyGroupOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.checkKeyGroup(in.KeyGroupConfig, ""); err != nil {
		return nil, err
	}
	if s.keyGroups.collection.Len() >= maxKeyGroups {
		return nil, api.NewTooManyKeyGroups("You have reached the maximum number of key groups for this AWS account: %d.", maxKeyGroups)
	}
	r, err := s.keyGroups.create(ctx, uuid.NewString(), *in.KeyGroupConfig)
	if err != nil {
		return nil, err
	}
	return &api.CreateKeyGroupOutput{KeyGroup: describeKeyGroup(r), ETag: &r.ETag, Location: location(ctx, "key-group/"+r.ID)}, nil
}

// GetKeyGroup implements api.API.
func (s *Service) GetKeyGroup(_ context.Context, in *api.GetKeyGroupInput) (*api.GetKeyGroupOutput, error) {
	r, err := s.keyGroups.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetKeyGroupOutput{KeyGroup: describeKeyGroup(r), ETag: &r.ETag}, nil
}

// GetKeyGroupConfig implements api.API.
func (s *Service) GetKeyGroupConfig(_ context.Context, in *api.GetKeyGroupConfigInput) (*api.GetKeyGroupConfigOutput, error) {
	r, err := s.keyGroups.get(in.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetKeyGroupConfigOutput{KeyGroupConfig: &r.Resource, ETag: &r.ETag}, nil
}

// UpdateKeyGroup implements api.API.
func (s *Service) UpdateKeyGroup(ctx context.Context, in *api.UpdateKeyGroupInput) (*api.UpdateKeyGroupOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old, err := s.keyGroups.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := s.checkKeyGroup(in.KeyGroupConfig, old.ID); err != nil {
		return nil, err
	}
	r, err := s.keyGroups.update(ctx, old, *in.KeyGroupConfig)
	if err != nil {
		return nil, err
	}
	if err := s.republish(ctx, func(c *api.DistributionConfig) bool { return usesKeyGroup(c, r.ID) }); err != nil {
		return nil, err
	}
	return &api.UpdateKeyGroupOutput{KeyGroup: describeKeyGroup(r), ETag: &r.ETag}, nil
}

// DeleteKeyGroup implements api.API.
func (s *Service) DeleteKeyGroup(ctx context.Context, in *api.DeleteKeyGroupInput) (*api.DeleteKeyGroupOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.keyGroups.current(in.Id, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if d, ok := s.distributions.first(func(d *distributionRecord) bool { return usesKeyGroup(&d.Resource.Config, r.ID) }); ok {
		return nil, api.NewResourceInUse("The key group is in use by distribution %s.", d.ID)
	}
	return &api.DeleteKeyGroupOutput{}, s.keyGroups.remove(ctx, r.ID)
}

// ListKeyGroups implements api.API.
func (s *Service) ListKeyGroups(_ context.Context, in *api.ListKeyGroupsInput) (*api.ListKeyGroupsOutput, error) {
	p, err := paginate(s.keyGroups.all(), func(r record[api.KeyGroupConfig]) string { return r.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.KeyGroupList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity}
	for _, r := range p.Items {
		list.Items = append(list.Items, &api.KeyGroupSummary{KeyGroup: describeKeyGroup(r)})
	}
	return &api.ListKeyGroupsOutput{KeyGroupList: list}, nil
}
