package lambda

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
)

// DeleteFunction implements lambda.API: it deletes the function with all that
// belongs to it, or one of its versions.
func (s *Service) DeleteFunction(ctx context.Context, in *api.DeleteFunctionInput) (*api.DeleteFunctionOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), aws.Value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	switch {
	case isAlias(ref.qualifier):
		return nil, invalidParameter("Deletion of aliases is not currently supported.")
	case ref.qualifier == function.Latest:
		return nil, invalidParameter("$LATEST version cannot be deleted without deleting the function.")
	}
	defer s.lock(ref.functionKey)()
	e, err := s.find(reference{ref.functionKey, "", ref.arn})
	if err != nil {
		return nil, err
	}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	if ref.qualifier != "" {
		err = s.deleteVersion(ctx, e, ref.qualifier)
	} else {
		err = s.deleteFunction(ctx, e)
	}
	if err != nil {
		return nil, internal(err)
	}
	return &api.DeleteFunctionOutput{StatusCode: aws.Ptr(int32(http.StatusNoContent))}, nil
}

func (s *Service) deleteFunction(ctx context.Context, e *entry) error {
	if arn, any := s.replicated(e, ""); any {
		return isReplicated(arn)
	}
	err := s.functions.Delete(ctx, e.key.String(), e.function.Revision)
	s.reload(e.key)
	if err != nil {
		return err
	}
	// The function is gone. What follows only cleans up, and is done again at
	// the next start where it fails.
	for _, v := range e.versions {
		if err := s.versions.Delete(ctx, v.Key, v.Revision); err != nil {
			s.log.Warn("version of deleted function remains until the next start", "key", v.Key, "err", err)
		}
	}
	for _, a := range e.aliases {
		if err := s.aliases.Delete(ctx, a.Key, a.Revision); err != nil {
			s.log.Warn("alias of deleted function remains until the next start", "key", a.Key, "err", err)
		}
	}
	s.opts.Invoker.Retire(e.arn, "")
	s.code.dropAll(e)
	return nil
}

func (s *Service) deleteVersion(ctx context.Context, e *entry, qualifier string) error {
	v := e.published(qualifier)
	if v == nil {
		return nil // as on AWS
	}
	if arn, any := s.replicated(e, qualifier); any {
		return isReplicated(arn)
	}
	var users []string
	for _, name := range slices.Sorted(maps.Keys(e.aliases)) {
		a := e.aliases[name].Value
		if _, weighted := a.Weights[qualifier]; weighted || a.Version == qualifier {
			users = append(users, name)
		}
	}
	if len(users) > 0 {
		return conflict("Unable to delete version because the following aliases reference it: [%s]", strings.Join(users, ", "))
	}
	err := s.versions.Delete(ctx, v.Key, v.Revision)
	s.reload(e.key)
	if err != nil {
		return err
	}
	s.opts.Invoker.Retire(e.arn, qualifier)
	v.Value.Config.digests(func(digest string) { s.code.drop(digest, codeGrace) })
	return nil
}
