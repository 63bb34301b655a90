package logs

import (
	"context"
	"errors"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
)

const maxTags = 50

// checkTags refuses what the model cannot say.
func checkTags(tags map[string]string) error {
	for key := range tags {
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalid("Invalid tag key '%s': keys that begin with aws: are reserved", key)
		}
	}
	return nil
}

// tag adds tags to a group.
func (s *Service) tag(name string, add map[string]string, tooMany error) error {
	if err := checkTags(add); err != nil {
		return err
	}
	return tagError(s.store.Tag(name, func(tags map[string]string) error {
		for k, v := range add {
			tags[k] = v
		}
		if len(tags) > maxTags {
			return tooMany
		}
		return nil
	}))
}

// untag removes tags from a group.
func (s *Service) untag(name string, keys []string) error {
	return tagError(s.store.Tag(name, func(tags map[string]string) error {
		for _, k := range keys {
			delete(tags, k)
		}
		return nil
	}))
}

// tagError passes on what tag found wrong.
func tagError(err error) error {
	if e, ok := errors.AsType[*aws.Error](err); ok {
		return e
	}
	return storeError(err)
}

func (s *Service) tags(name string) (map[string]string, error) {
	g, err := s.store.Group(name)
	if err != nil {
		return nil, storeError(err)
	}
	if g.Tags == nil {
		return map[string]string{}, nil
	}
	return g.Tags, nil
}

// TagResource implements api.API.
func (s *Service) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	name, err := groupName(ctx, *in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tooMany := api.NewTooManyTagsException("The log group would have more than %d tags", maxTags)
	tooMany.Extra = map[string]string{"resourceName": *in.ResourceArn}
	if err := s.tag(name, in.Tags, tooMany); err != nil {
		return nil, err
	}
	return &api.TagResourceOutput{}, nil
}

// UntagResource implements api.API.
func (s *Service) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	name, err := groupName(ctx, *in.ResourceArn)
	if err != nil {
		return nil, err
	}
	if err := s.untag(name, in.TagKeys); err != nil {
		return nil, err
	}
	return &api.UntagResourceOutput{}, nil
}

// ListTagsForResource implements api.API.
func (s *Service) ListTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	name, err := groupName(ctx, *in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tags, err := s.tags(name)
	return &api.ListTagsForResourceOutput{Tags: tags}, err
}

// TagLogGroup implements api.API.
func (s *Service) TagLogGroup(_ context.Context, in *api.TagLogGroupInput) (*api.TagLogGroupOutput, error) {
	if err := s.tag(*in.LogGroupName, in.Tags, invalid("The log group would have more than %d tags", maxTags)); err != nil {
		return nil, err
	}
	return &api.TagLogGroupOutput{}, nil
}

// UntagLogGroup implements api.API.
func (s *Service) UntagLogGroup(_ context.Context, in *api.UntagLogGroupInput) (*api.UntagLogGroupOutput, error) {
	if err := s.untag(*in.LogGroupName, in.Tags); err != nil {
		return nil, err
	}
	return &api.UntagLogGroupOutput{}, nil
}

// ListTagsLogGroup implements api.API.
func (s *Service) ListTagsLogGroup(_ context.Context, in *api.ListTagsLogGroupInput) (*api.ListTagsLogGroupOutput, error) {
	tags, err := s.tags(*in.LogGroupName)
	return &api.ListTagsLogGroupOutput{Tags: tags}, err
}
