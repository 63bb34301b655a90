package s3

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

// maxPolicy is the size of a bucket policy ("Bucket policies for Amazon S3" in
// the Amazon S3 User Guide).
const maxPolicy = 20 << 10

// policy is a bucket policy, as far as it is looked at: it is kept and handed
// out, not evaluated.
type policy struct {
	Statement oneOrMore[statement]
}

type statement struct {
	Effect                  string
	Principal, NotPrincipal json.RawMessage
	Action, NotAction       oneOrMore[string]
	Resource, NotResource   oneOrMore[string]
	Condition               map[string]map[string]oneOrMore[any]
}

// oneOrMore is a list that may be written as its only element.
type oneOrMore[T any] []T

// UnmarshalJSON reads either form.
func (l *oneOrMore[T]) UnmarshalJSON(b []byte) error {
	if strings.HasPrefix(string(b), "[") {
		return json.Unmarshal(b, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*l = oneOrMore[T]{one}
	return nil
}

func malformedPolicy(text string) error { return fail("MalformedPolicy", "%s", text) }

// parsePolicy reads and checks the policy of a bucket.
func parsePolicy(bucketName, text string) (*policy, error) {
	if len(text) > maxPolicy {
		return nil, malformedPolicy("Normalized policy document exceeds the maximum allowed size")
	}
	var p policy
	if err := json.Unmarshal([]byte(text), &p); err != nil || !strings.HasPrefix(text, "{") {
		if _, wrongType := errors.AsType[*json.UnmarshalTypeError](err); wrongType {
			return nil, malformedPolicy("Policy has invalid syntax: " + err.Error())
		}
		return nil, malformedPolicy("Policies must be valid JSON and the first byte must be '{'")
	}
	if len(p.Statement) == 0 {
		return nil, malformedPolicy("Missing required field Statement")
	}
	for _, s := range p.Statement {
		if err := s.check("arn:aws:s3:::" + bucketName); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// check holds a statement to what every bucket policy must say, about the
// bucket with this ARN and no other.
func (s *statement) check(bucketARN string) error {
	resources := append(slices.Clone(s.Resource), s.NotResource...)
	switch {
	case s.Effect == "":
		return malformedPolicy("Missing required field Effect")
	case s.Effect != "Allow" && s.Effect != "Deny":
		return malformedPolicy("Invalid effect: " + s.Effect)
	case len(s.Principal) == 0 && len(s.NotPrincipal) == 0:
		return malformedPolicy("Missing required field Principal")
	case len(s.Action) == 0 && len(s.NotAction) == 0:
		return malformedPolicy("Missing required field Action")
	case len(resources) == 0:
		return malformedPolicy("Missing required field Resource")
	}
	for _, a := range append(slices.Clone(s.Action), s.NotAction...) {
		if a != "*" && !strings.HasPrefix(strings.ToLower(a), "s3:") {
			return malformedPolicy("Policy has invalid action")
		}
	}
	for _, r := range resources {
		if r != bucketARN && r != bucketARN+"*" && !strings.HasPrefix(r, bucketARN+"/") {
			return malformedPolicy("Policy has invalid resource")
		}
	}
	return nil
}

// fixedKeys are the condition keys that make a statement not public where they
// want fixed values ("The meaning of public" in "Blocking public access to your
// Amazon S3 storage").
var fixedKeys = []string{
	"aws:principalaccount", "aws:principalarn", "aws:principalorgid", "aws:principalorgpaths", "aws:sourceaccount", "aws:sourcearn",
	"aws:sourceip", "aws:sourceowner", "aws:sourcevpc", "aws:sourcevpce", "aws:userid", "s3:dataaccesspointaccount", "s3:dataaccesspointarn",
	"s3:x-amz-server-side-encryption-aws-kms-key-id",
}

// public tells whether a policy lets anybody in: a statement that allows and
// whose principal is everybody is public, unless a condition wants a fixed value
// of who asks or from where.
func (p *policy) public() bool {
	return slices.ContainsFunc(p.Statement, func(s statement) bool {
		if s.Effect != "Allow" || !s.everybody() {
			return false
		}
		for operator, keys := range s.Condition {
			if strings.Contains(operator, "Not") || strings.HasSuffix(operator, "IfExists") {
				continue
			}
			for key, values := range keys {
				variable := slices.ContainsFunc(values, func(v any) bool {
					text, _ := v.(string)
					return strings.ContainsAny(text, "*?$") || text == "0.0.0.0/0" || text == "::/0"
				})
				if !variable && slices.Contains(fixedKeys, strings.ToLower(key)) {
					return false
				}
			}
		}
		return true
	})
}

// everybody tells whether the principal is "*", in one of its forms.
func (s *statement) everybody() bool {
	if len(s.NotPrincipal) > 0 {
		return true
	}
	var all string
	if json.Unmarshal(s.Principal, &all) == nil {
		return all == "*"
	}
	var byKind map[string]oneOrMore[string]
	if json.Unmarshal(s.Principal, &byKind) != nil {
		return false
	}
	return slices.ContainsFunc(slices.Collect(maps.Values(byKind)), func(ids oneOrMore[string]) bool { return slices.Contains(ids, "*") })
}

// policyOf finds the policy of a bucket.
func (s *Service) policyOf(in any, name *string) (string, error) {
	b, err := s.bucket(in, name)
	if err != nil {
		return "", err
	}
	if b.Policy == "" {
		return "", with(fail("NoSuchBucketPolicy", "The bucket policy does not exist"), "BucketName", *name)
	}
	return b.Policy, nil
}

// GetBucketPolicy returns the policy of a bucket as it was put.
func (s *Service) GetBucketPolicy(_ context.Context, in *api.GetBucketPolicyInput) (*api.GetBucketPolicyOutput, error) {
	text, err := s.policyOf(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	return &api.GetBucketPolicyOutput{Policy: &text}, nil
}

// GetBucketPolicyStatus tells whether the policy of a bucket is public.
func (s *Service) GetBucketPolicyStatus(_ context.Context, in *api.GetBucketPolicyStatusInput) (*api.GetBucketPolicyStatusOutput, error) {
	text, err := s.policyOf(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	p, err := parsePolicy(*in.Bucket, text)
	if err != nil {
		return nil, err
	}
	return &api.GetBucketPolicyStatusOutput{PolicyStatus: &api.PolicyStatus{IsPublic: aws.Ptr(p.public())}}, nil
}

// PutBucketPolicy replaces the policy of a bucket. A public one is refused
// where public access is blocked.
func (s *Service) PutBucketPolicy(ctx context.Context, in *api.PutBucketPolicyInput) (*api.PutBucketPolicyOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	name, text := *in.Bucket, aws.Value(in.Policy)
	p, err := parsePolicy(name, text)
	if err != nil {
		return nil, err
	}
	_, err = s.buckets.Modify(ctx, name, func(b *bucket) error {
		if b.publicAccess().BlockPolicy && p.public() {
			return fail("AccessDenied", "User: %s is not authorized to perform: s3:PutBucketPolicy on resource: %q because public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.", aws.RequestFrom(ctx).Caller.ARN, "arn:aws:s3:::"+name)
		}
		b.Policy = text
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		err = noSuchBucket(name)
	}
	return &api.PutBucketPolicyOutput{}, err
}

// DeleteBucketPolicy removes the policy of a bucket.
func (s *Service) DeleteBucketPolicy(ctx context.Context, in *api.DeleteBucketPolicyInput) (*api.DeleteBucketPolicyOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	return &api.DeleteBucketPolicyOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) { b.Policy = "" })
}
