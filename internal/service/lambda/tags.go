package lambda

import (
	"context"
	"maps"
	"regexp"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

var functionARNPattern = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:function:[a-zA-Z0-9-_]+(?::(?:\$LATEST|[a-zA-Z0-9-_]+))?$`)

// taggable finds the function whose tags a request is about.
func (s *Service) taggable(ctx context.Context, resource string) (reference, error) {
	if !functionARNPattern.MatchString(resource) {
		return reference{}, notFound("The resource you requested does not exist.")
	}
	ref, err := s.resolve(ctx, resource, "")
	if err == nil && ref.qualifier != "" {
		err = invalidParameter("Tags on function aliases and versions are not supported. Please specify a function ARN.")
	}
	return ref, err
}

// ListTags implements lambda.API.
func (s *Service) ListTags(ctx context.Context, in *api.ListTagsInput) (*api.ListTagsOutput, error) {
	ref, err := s.taggable(ctx, aws.Value(in.Resource))
	if err != nil {
		return nil, err
	}
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	tags := e.function.Value.Tags
	if tags == nil {
		tags = map[string]string{} // AWS answers {"Tags":{}}
	}
	return &api.ListTagsOutput{Tags: tags}, nil
}

// TagResource implements lambda.API.
func (s *Service) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	ref, err := s.taggable(ctx, aws.Value(in.Resource))
	if err != nil {
		return nil, err
	}
	if len(in.Tags) == 0 {
		return nil, invalidParameter("An error occurred and the request cannot be processed.")
	}
	return &api.TagResourceOutput{}, s.modifyFunction(ctx, ref, func(f *functionRecord) error {
		if f.Tags == nil {
			f.Tags = map[string]string{}
		}
		maps.Copy(f.Tags, in.Tags)
		f.Revision = newID() // as on AWS tags are part of a revision
		return checkTags(f.Tags)
	})
}

// UntagResource implements lambda.API.
func (s *Service) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	ref, err := s.taggable(ctx, aws.Value(in.Resource))
	if err != nil {
		return nil, err
	}
	return &api.UntagResourceOutput{}, s.modifyFunction(ctx, ref, func(f *functionRecord) error {
		for _, key := range in.TagKeys {
			delete(f.Tags, key)
		}
		f.Revision = newID()
		return nil
	})
}

// modifyFunction changes the record of a function in a way that execution
// environments do not see.
func (s *Service) modifyFunction(ctx context.Context, ref reference, change func(*functionRecord) error) error {
	defer s.lock(ref.functionKey)()
	if _, err := s.find(ref); err != nil {
		return err
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	_, err := s.functions.Modify(ctx, ref.functionKey.String(), change)
	s.reload(ref.functionKey)
	return internal(err)
}
