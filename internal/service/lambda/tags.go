package lambda

import (
	"context"
	"maps"
	"regexp"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

var functionARNPattern = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:function:[a-zA-Z0-9-_]+(?::(?:\$LATEST|[a-zA-Z0-9-_]+))?$`)

var signingARNPattern = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:code-signing-config:csc-[a-z0-9]{17}$`)

// tagged is something that has tags.
type tagged struct {
	tags map[string]string
	// modify changes the tags; what the function that it is given does counts
	// if that returns nil.
	modify func(ctx context.Context, change func(tags map[string]string) error) error
}

// tagged finds what a request about tags concerns: a function or a code signing
// configuration.
func (s *Service) tagged(ctx context.Context, resource string) (*tagged, error) {
	if signingARNPattern.MatchString(resource) {
		item, ok := s.findSigning(ctx, resource)
		if !ok {
			return nil, noSigning(resource)
		}
		return &tagged{item.Value.Tags, func(ctx context.Context, change func(map[string]string) error) error {
			_, err := s.modifySigning(ctx, resource, func(r *signingRecord) error { return changeTags(&r.Tags, change) })
			return err
		}}, nil
	}
	if !functionARNPattern.MatchString(resource) {
		return nil, noSuchResource()
	}
	ref, err := s.resolve(ctx, resource, "")
	if err != nil {
		return nil, err
	}
	if ref.qualifier != "" {
		return nil, invalidParameter("Tags on function aliases and versions are not supported. Please specify a function ARN.")
	}
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return &tagged{e.function.Value.Tags, func(ctx context.Context, change func(map[string]string) error) error {
		return s.modifyFunction(ctx, ref, func(f *functionRecord) error {
			f.Revision = newID() // as on AWS tags are part of a revision
			return changeTags(&f.Tags, change)
		})
	}}, nil
}

func changeTags(tags *map[string]string, change func(map[string]string) error) error {
	if *tags == nil {
		*tags = map[string]string{}
	}
	return change(*tags)
}

// ListTags implements lambda.API.
func (s *Service) ListTags(ctx context.Context, in *api.ListTagsInput) (*api.ListTagsOutput, error) {
	t, err := s.tagged(ctx, aws.Value(in.Resource))
	if err != nil {
		return nil, err
	}
	if t.tags == nil {
		t.tags = map[string]string{} // AWS answers {"Tags":{}}
	}
	return &api.ListTagsOutput{Tags: t.tags}, nil
}

// TagResource implements lambda.API.
func (s *Service) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	t, err := s.tagged(ctx, aws.Value(in.Resource))
	if err != nil {
		return nil, err
	}
	if len(in.Tags) == 0 {
		return nil, invalidParameter("An error occurred and the request cannot be processed.")
	}
	return &api.TagResourceOutput{}, t.modify(ctx, func(tags map[string]string) error {
		maps.Copy(tags, in.Tags)
		return checkTags(tags)
	})
}

// UntagResource implements lambda.API.
func (s *Service) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	t, err := s.tagged(ctx, aws.Value(in.Resource))
	if err != nil {
		return nil, err
	}
	return &api.UntagResourceOutput{}, t.modify(ctx, func(tags map[string]string) error {
		for _, key := range in.TagKeys {
			delete(tags, key)
		}
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
