package s3

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// publicAccess is what keeps the public from a bucket. Nobody without
// credentials of the account gets anything from S3 here, whatever it says: it
// decides which policies may be put, and is kept for those who ask.
type publicAccess struct {
	BlockACLs       bool `json:"blockAcls,omitempty"`
	IgnoreACLs      bool `json:"ignoreAcls,omitempty"`
	BlockPolicy     bool `json:"blockPolicy,omitempty"`
	RestrictBuckets bool `json:"restrictBuckets,omitempty"`
}

// publicAccess is the bucket's setting. A bucket that nobody changed blocks all
// of it ("Default settings for new S3 buckets FAQ" in the Amazon S3 User Guide).
func (b *bucket) publicAccess() publicAccess {
	switch {
	case b.NoPublicAccessBlock:
		return publicAccess{}
	case b.PublicAccess == nil:
		return publicAccess{BlockACLs: true, IgnoreACLs: true, BlockPolicy: true, RestrictBuckets: true}
	}
	return *b.PublicAccess
}

// GetPublicAccessBlock returns what of public access a bucket blocks.
func (s *Service) GetPublicAccessBlock(_ context.Context, in *api.GetPublicAccessBlockInput) (*api.GetPublicAccessBlockOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	if b.NoPublicAccessBlock {
		return nil, with(fail("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"), "BucketName", *in.Bucket)
	}
	p := b.publicAccess()
	return &api.GetPublicAccessBlockOutput{PublicAccessBlockConfiguration: &api.PublicAccessBlockConfiguration{
		BlockPublicAcls: &p.BlockACLs, IgnorePublicAcls: &p.IgnoreACLs, BlockPublicPolicy: &p.BlockPolicy, RestrictPublicBuckets: &p.RestrictBuckets,
	}}, nil
}

// PutPublicAccessBlock says what of public access a bucket blocks.
func (s *Service) PutPublicAccessBlock(ctx context.Context, in *api.PutPublicAccessBlockInput) (*api.PutPublicAccessBlockOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	c := in.PublicAccessBlockConfiguration
	if c == nil {
		return nil, malformedXML()
	}
	return &api.PutPublicAccessBlockOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) {
		b.NoPublicAccessBlock = false
		b.PublicAccess = &publicAccess{
			BlockACLs: aws.Value(c.BlockPublicAcls), IgnoreACLs: aws.Value(c.IgnorePublicAcls),
			BlockPolicy: aws.Value(c.BlockPublicPolicy), RestrictBuckets: aws.Value(c.RestrictPublicBuckets),
		}
	})
}

// DeletePublicAccessBlock lets a bucket block nothing.
func (s *Service) DeletePublicAccessBlock(ctx context.Context, in *api.DeletePublicAccessBlockInput) (*api.DeletePublicAccessBlockOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	return &api.DeletePublicAccessBlockOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) { b.PublicAccess, b.NoPublicAccessBlock = nil, true })
}

// enforced is the ownership of objects with which there are no access control
// lists. It is the one of a bucket that nobody changed.
const enforced = "BucketOwnerEnforced"

// unowned is the Ownership of a bucket without ownership controls, whose
// objects belong to their writers.
const unowned = "none"

// ownership is the Ownership that a bucket is to have. Every writer is of the
// account that owns the bucket, so that it decides over access control lists alone.
func ownership(wanted api.ObjectOwnership) string {
	if wanted == enforced {
		return ""
	}
	return string(wanted)
}

// GetBucketOwnershipControls returns to whom objects of a bucket belong.
func (s *Service) GetBucketOwnershipControls(_ context.Context, in *api.GetBucketOwnershipControlsInput) (*api.GetBucketOwnershipControlsOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	rule := &api.OwnershipControlsRule{ObjectOwnership: api.ObjectOwnership(b.Ownership)}
	switch b.Ownership {
	case unowned:
		return nil, with(fail("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"), "BucketName", *in.Bucket)
	case "":
		rule.ObjectOwnership = enforced
	}
	return &api.GetBucketOwnershipControlsOutput{OwnershipControls: &api.OwnershipControls{Rules: []*api.OwnershipControlsRule{rule}}}, nil
}

// PutBucketOwnershipControls says to whom objects of a bucket belong.
func (s *Service) PutBucketOwnershipControls(ctx context.Context, in *api.PutBucketOwnershipControlsInput) (*api.PutBucketOwnershipControlsOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	if in.OwnershipControls == nil || len(in.OwnershipControls.Rules) != 1 {
		return nil, malformedXML()
	}
	wanted := in.OwnershipControls.Rules[0].ObjectOwnership
	return &api.PutBucketOwnershipControlsOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) { b.Ownership = ownership(wanted) })
}

// DeleteBucketOwnershipControls removes the ownership controls of a bucket.
func (s *Service) DeleteBucketOwnershipControls(ctx context.Context, in *api.DeleteBucketOwnershipControlsInput) (*api.DeleteBucketOwnershipControlsOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	return &api.DeleteBucketOwnershipControlsOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) { b.Ownership = unowned })
}

// grants are the access control list of every bucket and object: the account
// that owns them all may do everything.
func (s *Service) grants() []*api.Grant {
	return []*api.Grant{{Grantee: &api.Grantee{ID: s.owner().ID, Type: "CanonicalUser"}, Permission: "FULL_CONTROL"}}
}

// GetBucketAcl returns the access control list of a bucket.
func (s *Service) GetBucketAcl(_ context.Context, in *api.GetBucketAclInput) (*api.GetBucketAclOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	return &api.GetBucketAclOutput{Owner: s.owner(), Grants: s.grants()}, nil
}

// GetObjectAcl returns the access control list of an object.
func (s *Service) GetObjectAcl(_ context.Context, in *api.GetObjectAclInput) (*api.GetObjectAclOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	if _, _, err := s.find(*in.Bucket, *in.Key, aws.Value(in.VersionId)); err != nil {
		return nil, err
	}
	return &api.GetObjectAclOutput{Owner: s.owner(), Grants: s.grants()}, nil
}

// PutBucketAcl takes the access control list that a bucket has anyway, where
// its ownership controls let it have one.
func (s *Service) PutBucketAcl(_ context.Context, in *api.PutBucketAclInput) (*api.PutBucketAclOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	if b.Ownership == "" {
		return nil, fail("AccessControlListNotSupported", "The bucket does not allow ACLs")
	}
	if p := in.AccessControlPolicy; p != nil && !s.isPrivate(p) {
		return nil, notImplemented("AccessControlPolicy: grants other than FULL_CONTROL of the bucket's owner")
	}
	return &api.PutBucketAclOutput{}, nil
}

// isPrivate tells whether a list grants the owner everything, and others nothing.
func (s *Service) isPrivate(p *api.AccessControlPolicy) bool {
	own := *s.owner().ID
	if p.Owner == nil || aws.Value(p.Owner.ID) != own || len(p.Grants) != 1 {
		return false
	}
	g := p.Grants[0]
	return g != nil && g.Grantee != nil && aws.Value(g.Grantee.ID) == own && g.Permission == "FULL_CONTROL"
}
