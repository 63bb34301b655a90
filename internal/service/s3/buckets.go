package s3

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

// defaultRegion is the region that has no location constraint.
const defaultRegion = "us-east-1"

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// checkBucketName enforces the rules of "General purpose bucket naming rules"
// in the Amazon S3 User Guide.
func checkBucketName(name string) error {
	_, notIP := netip.ParseAddr(name)
	ok := bucketName.MatchString(name) && !strings.Contains(name, "..") && notIP != nil
	for _, reserved := range []string{"xn--", "sthree-", "amzn-s3-demo-"} {
		ok = ok && !strings.HasPrefix(name, reserved)
	}
	for _, reserved := range []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"} {
		ok = ok && !strings.HasSuffix(name, reserved)
	}
	if !ok {
		return with(fail("InvalidBucketName", "The specified bucket is not valid."), "BucketName", name)
	}
	return nil
}

// region is where the client thinks that it is.
func (s *Service) region(ctx context.Context) string {
	return cmp.Or(aws.RequestFrom(ctx).Region, s.options.Region, defaultRegion)
}

// CreateBucket creates a bucket. As on AWS, creating it again is an error
// except in us-east-1.
func (s *Service) CreateBucket(ctx context.Context, in *api.CreateBucketInput) (*api.CreateBucketOutput, error) {
	if err := s.refuse(in); err != nil {
		return nil, err
	}
	name := aws.Value(in.Bucket)
	if err := checkBucketName(name); err != nil {
		return nil, err
	}
	region, err := s.placement(ctx, in.CreateBucketConfiguration)
	if err != nil {
		return nil, err
	}
	record := bucket{Created: s.options.Now().UTC().Truncate(time.Millisecond), Region: region, Ownership: ownership(in.ObjectOwnership)}
	if c := in.CreateBucketConfiguration; c != nil && len(c.Tags) > 0 {
		if record.Tags, err = bucketTagsOf(c.Tags); err != nil {
			return nil, err
		}
	}
	_, err = s.buckets.Create(ctx, name, record)
	if errors.Is(err, state.ErrExists) && s.region(ctx) != defaultRegion {
		return nil, with(fail("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it."), "BucketName", name)
	}
	if err != nil && !errors.Is(err, state.ErrExists) {
		return nil, err
	}
	return &api.CreateBucketOutput{Location: aws.Ptr("/" + name)}, nil
}

// placement is the region that a new bucket is to be in.
func (s *Service) placement(ctx context.Context, c *api.CreateBucketConfiguration) (string, error) {
	region, wanted := s.region(ctx), ""
	if c != nil {
		if c.Bucket != nil || c.Location != nil {
			return "", notImplemented("CreateBucketConfiguration: directory buckets")
		}
		wanted = string(c.LocationConstraint)
	}
	if wanted == "EU" {
		wanted = "eu-west-1"
	}
	switch {
	case wanted == defaultRegion:
		return "", with(fail("InvalidLocationConstraint", "The specified location-constraint is not valid"), "LocationConstraint", wanted)
	case region == defaultRegion:
		return cmp.Or(wanted, defaultRegion), nil
	case wanted != region:
		return "", fail("IllegalLocationConstraintException", "The %s location constraint is incompatible for the region specific endpoint this request was sent to.", cmp.Or(wanted, "unspecified"))
	}
	return wanted, nil
}

// HeadBucket says whether a bucket exists.
func (s *Service) HeadBucket(_ context.Context, in *api.HeadBucketInput) (*api.HeadBucketOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	return &api.HeadBucketOutput{BucketRegion: &b.Region}, nil
}

// DeleteBucket removes an empty bucket, and the multipart uploads that are
// under way in it.
func (s *Service) DeleteBucket(ctx context.Context, in *api.DeleteBucketInput) (*api.DeleteBucketOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	name := aws.Value(in.Bucket)
	s.existence.Lock()
	defer s.existence.Unlock()
	b, ok := s.buckets.Get(name)
	if !ok {
		return nil, noSuchBucket(name)
	}
	for range s.versions.Scan(name+"/", "") {
		return nil, with(fail("BucketNotEmpty", "The bucket you tried to delete is not empty"), "BucketName", name)
	}
	for u := range s.uploads.Scan(name+"/", "") {
		if err := s.dropUpload(ctx, u); err != nil {
			return nil, err
		}
	}
	if err := s.buckets.Delete(ctx, name, b.Revision); err != nil {
		return nil, err
	}
	return &api.DeleteBucketOutput{}, nil
}

// ListBuckets lists the buckets in the order of their names.
func (s *Service) ListBuckets(_ context.Context, in *api.ListBucketsInput) (*api.ListBucketsOutput, error) {
	if err := s.refuse(in); err != nil {
		return nil, err
	}
	most := 10_000
	if in.MaxBuckets != nil {
		most = int(*in.MaxBuckets)
		if most < 1 || most > 10_000 {
			return nil, invalidArgument("max-buckets", itoa(int64(most)), "Argument max-buckets must be an integer between 1 and 10000")
		}
	}
	after := ""
	if in.ContinuationToken != nil {
		var err error
		if after, err = decodeToken(*in.ContinuationToken); err != nil {
			return nil, err
		}
	}
	out := &api.ListBucketsOutput{Owner: s.owner(), Prefix: in.Prefix}
	for b := range s.buckets.Scan(aws.Value(in.Prefix), after+separator) {
		if in.BucketRegion != nil && *in.BucketRegion != b.Value.Region {
			continue
		}
		if len(out.Buckets) == most {
			out.ContinuationToken = aws.Ptr(encodeToken(aws.Value(out.Buckets[most-1].Name)))
			break
		}
		out.Buckets = append(out.Buckets, &api.Bucket{Name: &b.Key, CreationDate: &b.Value.Created, BucketRegion: &b.Value.Region})
	}
	return out, nil
}

// GetBucketLocation returns the bucket's region, or nothing for us-east-1.
func (s *Service) GetBucketLocation(_ context.Context, in *api.GetBucketLocationInput) (*api.GetBucketLocationOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	out := &api.GetBucketLocationOutput{}
	if b.Region != defaultRegion {
		out.LocationConstraint = api.BucketLocationConstraint(b.Region)
	}
	return out, nil
}

// PutBucketVersioning enables or suspends versioning.
func (s *Service) PutBucketVersioning(ctx context.Context, in *api.PutBucketVersioningInput) (*api.PutBucketVersioningOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	c := in.VersioningConfiguration
	if c == nil {
		return nil, malformedXML()
	}
	if c.MFADelete != "" && c.MFADelete != "Disabled" {
		return nil, notImplemented("MfaDelete")
	}
	status := string(c.Status)
	if status != versioningEnabled && status != versioningSuspended {
		return nil, fail("IllegalVersioningConfigurationException", "The Versioning element must be specified")
	}
	// Writers decide by it under this lock what a version is to be called.
	s.existence.Lock()
	defer s.existence.Unlock()
	return &api.PutBucketVersioningOutput{}, s.changeBucket(ctx, aws.Value(in.Bucket), func(b *bucket) { b.Versioning = status })
}

// changeBucket changes the record of a bucket.
func (s *Service) changeBucket(ctx context.Context, name string, change func(*bucket)) error {
	_, err := s.buckets.Modify(ctx, name, func(b *bucket) error {
		change(b)
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		err = noSuchBucket(name)
	}
	return err
}

// GetBucketVersioning returns the state of versioning: nothing if it has never
// been set.
func (s *Service) GetBucketVersioning(_ context.Context, in *api.GetBucketVersioningInput) (*api.GetBucketVersioningOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	return &api.GetBucketVersioningOutput{Status: api.BucketVersioningStatus(b.Versioning)}, nil
}

func malformedXML() *aws.Error {
	return fail("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}
