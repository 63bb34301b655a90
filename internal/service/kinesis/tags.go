package kinesis

import (
	"context"
	"maps"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
)

const maxTags = 50 // of a stream

// addTags returns tags with others added.
func addTags(stream, account string, tags, add map[string]string) (map[string]string, error) {
	all := maps.Clone(tags)
	for key, value := range add {
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return nil, invalid("Failed to add tags to stream %s under account %s because some tags begin with aws:, which is reserved.", stream, account)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[key] = value
	}
	if len(all) > maxTags {
		return nil, invalid("Failed to add tags to stream %s under account %s because a given stream cannot have more than %d tags associated with it.", stream, account, maxTags)
	}
	return all, nil
}

func (s *Service) tag(ctx context.Context, name, arn, id *string, add map[string]string) error {
	return s.amend(ctx, name, arn, id, func(r *record) (err error) {
		r.Tags, err = addTags(r.Name, s.opts.AccountID, r.Tags, add)
		return err
	})
}

func (s *Service) untag(ctx context.Context, name, arn, id *string, keys []string) error {
	return s.amend(ctx, name, arn, id, func(r *record) error {
		maps.DeleteFunc(r.Tags, func(key, _ string) bool { return slices.Contains(keys, key) })
		return nil
	})
}

// tagsAfter returns tags in the order of their keys, from the one after a key on.
func tagsAfter(r *record, after string) []*api.Tag {
	list := []*api.Tag{}
	for _, key := range slices.Sorted(maps.Keys(r.Tags)) {
		if key > after || after == "" {
			list = append(list, &api.Tag{Key: aws.Ptr(key), Value: aws.Ptr(r.Tags[key])})
		}
	}
	return list
}

// AddTagsToStream implements api.API.
func (s *Service) AddTagsToStream(ctx context.Context, in *api.AddTagsToStreamInput) (*api.AddTagsToStreamOutput, error) {
	return &api.AddTagsToStreamOutput{}, s.tag(ctx, in.StreamName, in.StreamARN, in.StreamId, in.Tags)
}

// RemoveTagsFromStream implements api.API.
func (s *Service) RemoveTagsFromStream(ctx context.Context, in *api.RemoveTagsFromStreamInput) (*api.RemoveTagsFromStreamOutput, error) {
	return &api.RemoveTagsFromStreamOutput{}, s.untag(ctx, in.StreamName, in.StreamARN, in.StreamId, in.TagKeys)
}

// ListTagsForStream implements api.API.
func (s *Service) ListTagsForStream(_ context.Context, in *api.ListTagsForStreamInput) (*api.ListTagsForStreamOutput, error) {
	r, err := s.find(in.StreamName, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	list := tagsAfter(&r, aws.Value(in.ExclusiveStartTagKey))
	more := in.Limit != nil && len(list) > int(*in.Limit)
	if more {
		list = list[:*in.Limit]
	}
	return &api.ListTagsForStreamOutput{Tags: list, HasMoreTags: &more}, nil
}

// TagResource implements api.API.
func (s *Service) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return &api.TagResourceOutput{}, s.tag(ctx, nil, in.ResourceARN, in.StreamId, in.Tags)
}

// UntagResource implements api.API.
func (s *Service) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return &api.UntagResourceOutput{}, s.untag(ctx, nil, in.ResourceARN, in.StreamId, in.TagKeys)
}

// ListTagsForResource implements api.API.
func (s *Service) ListTagsForResource(_ context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	r, err := s.find(nil, in.ResourceARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	return &api.ListTagsForResourceOutput{Tags: tagsAfter(&r, "")}, nil
}
