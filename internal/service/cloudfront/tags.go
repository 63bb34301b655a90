package cloudfront

import (
	"context"
	"maps"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

const maxTags = 50 // of a resource (CloudFront developer guide, "Tag restrictions")

// addTags returns tags with others added.
func addTags(tags map[string]string, add *api.Tags) (map[string]string, error) {
	out := maps.Clone(tags)
	if add == nil {
		return out, nil
	}
	for _, t := range add.Items {
		if strings.HasPrefix(strings.ToLower(*t.Key), "aws:") {
			return nil, api.NewInvalidTagging("The tag key %s is reserved.", *t.Key)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[*t.Key] = aws.Value(t.Value)
	}
	if len(out) > maxTags {
		return nil, api.NewInvalidTagging("A resource can have at most %d tags.", maxTags)
	}
	return out, nil
}

// retag changes the tags of the resource with an ARN.
func (s *Service) retag(ctx context.Context, arn *string, change func(map[string]string) (map[string]string, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	kind, id, _ := strings.Cut(strings.TrimPrefix(*arn, s.arn("")), "/")
	if kind == "function" {
		if f, ok := s.functions.find(id); ok {
			tags, err := change(f.Resource.Tags)
			if err != nil {
				return err
			}
			f.Resource.Tags = tags
			return s.functions.amend(ctx, f, f.Resource)
		}
	}
	if d, ok := s.distributions.find(id); ok && kind == "distribution" {
		tags, err := change(d.Resource.Tags)
		if err != nil {
			return err
		}
		d.Resource.Tags = tags
		return s.distributions.amend(ctx, d, d.Resource)
	}
	return noResource(*arn)
}

func noResource(arn string) error {
	return api.NewNoSuchResource("A resource that was specified is not valid: %s", arn)
}

// TagResource implements api.API.
func (s *Service) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return &api.TagResourceOutput{}, s.retag(ctx, in.Resource, func(tags map[string]string) (map[string]string, error) { return addTags(tags, in.Tags) })
}

// UntagResource implements api.API.
func (s *Service) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return &api.UntagResourceOutput{}, s.retag(ctx, in.Resource, func(tags map[string]string) (map[string]string, error) {
		out := maps.Clone(tags)
		for _, key := range in.TagKeys.Items {
			delete(out, key)
		}
		return out, nil
	})
}

// ListTagsForResource implements api.API.
func (s *Service) ListTagsForResource(_ context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	var tags map[string]string
	kind, id, _ := strings.Cut(strings.TrimPrefix(*in.Resource, s.arn("")), "/")
	d, isDistribution := s.distributions.find(id)
	f, isFunction := s.functions.find(id)
	switch {
	case kind == "distribution" && isDistribution:
		tags = d.Resource.Tags
	case kind == "function" && isFunction:
		tags = f.Resource.Tags
	default:
		return nil, noResource(*in.Resource)
	}
	out := &api.Tags{Items: []*api.Tag{}}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		out.Items = append(out.Items, &api.Tag{Key: aws.Ptr(key), Value: aws.Ptr(tags[key])})
	}
	return &api.ListTagsForResourceOutput{Tags: out}, nil
}
