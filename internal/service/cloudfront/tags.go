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

// tagged is a resource that can have tags.
type tagged struct {
	tags map[string]string
	set  func(ctx context.Context, tags map[string]string) error
}

func taggedIn[R any](k *kind[R], id string, of func(*R) *map[string]string) (tagged, bool) {
	r, ok := k.find(id)
	return tagged{*of(&r.Resource), func(ctx context.Context, tags map[string]string) error {
		*of(&r.Resource) = tags
		return k.amend(ctx, r, r.Resource)
	}}, ok
}

// tagged returns the resource with an ARN.
func (s *Service) tagged(arn *string) (t tagged, err error) {
	resource, ok := strings.CutPrefix(*arn, s.arn(""))
	kind, id, _ := strings.Cut(resource, "/")
	switch {
	case !ok:
	case kind == "function":
		t, ok = taggedIn(&s.functions, id, func(f *functionResource) *map[string]string { return &f.Tags })
	case kind == "distribution":
		t, ok = taggedIn(&s.distributions, id, func(d *distributionResource) *map[string]string { return &d.Tags })
	case kind+"/" == keyValueStorePrefix:
		var r keyValueStoreRecord
		if r, ok = s.keyValueStores.first(func(r *keyValueStoreRecord) bool { return r.Resource.Store == id }); ok {
			t, ok = taggedIn(&s.keyValueStores, r.ID, func(r *keyValueStoreResource) *map[string]string { return &r.Tags })
		}
	default:
		ok = false
	}
	if !ok {
		return t, api.NewNoSuchResource("A resource that was specified is not valid: %s", *arn)
	}
	return t, nil
}

// retag changes the tags of the resource with an ARN.
func (s *Service) retag(ctx context.Context, arn *string, change func(map[string]string) (map[string]string, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	t, err := s.tagged(arn)
	if err != nil {
		return err
	}
	tags, err := change(t.tags)
	if err != nil {
		return err
	}
	return t.set(ctx, tags)
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
	t, err := s.tagged(in.Resource)
	if err != nil {
		return nil, err
	}
	out := &api.Tags{Items: []*api.Tag{}}
	for _, key := range slices.Sorted(maps.Keys(t.tags)) {
		out.Items = append(out.Items, &api.Tag{Key: aws.Ptr(key), Value: aws.Ptr(t.tags[key])})
	}
	return &api.ListTagsForResourceOutput{Tags: out}, nil
}
