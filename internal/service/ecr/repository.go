package ecr

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/ecr"
	"lapwing.dev/lapwing/internal/registry"
)

// Limits of repositories (Amazon ECR user guide).
const (
	maxTags       = 50
	maxExclusions = 5
	defaultPage   = 100
)

func (s *Service) describe(ctx context.Context, repo registry.Repository) *api.Repository {
	_, host := s.host(ctx)
	return &api.Repository{
		RepositoryArn: aws.Ptr(s.arn(ctx, repo.Name)), RegistryId: s.id(), RepositoryName: aws.Ptr(repo.Name),
		RepositoryUri: aws.Ptr(host + "/" + repo.Name), CreatedAt: aws.Ptr(repo.Created),
		ImageTagMutability: api.ImageTagMutability(repo.Mutability), ImageTagMutabilityExclusionFilters: exclusionFilters(repo.Exclusions),
		ImageScanningConfiguration: &api.ImageScanningConfiguration{ScanOnPush: aws.Ptr(false)},
		EncryptionConfiguration:    &api.EncryptionConfiguration{EncryptionType: api.EncryptionTypeAes256},
	}
}

func (s *Service) arn(ctx context.Context, name string) string {
	return fmt.Sprintf("arn:aws:ecr:%s:%s:repository/%s", aws.RequestFrom(ctx).Region, s.registry.AccountID(), name)
}

// CreateRepository implements api.API.
func (s *Service) CreateRepository(ctx context.Context, in *api.CreateRepositoryInput) (*api.CreateRepositoryOutput, error) {
	if id := aws.Value(in.RegistryId); id != "" && id != s.registry.AccountID() {
		return nil, invalid("The registry with id '%s' does not exist.", id)
	}
	if !registry.ValidName(*in.RepositoryName) {
		return nil, invalid("Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*''")
	}
	if c := in.ImageScanningConfiguration; c != nil && aws.Value(c.ScanOnPush) {
		return nil, unsupported("Image scanning (scanOnPush)")
	}
	if c := in.EncryptionConfiguration; c != nil && (c.EncryptionType != api.EncryptionTypeAes256 || c.KmsKey != nil) {
		return nil, unsupported("Encryption by KMS keys (encryptionConfiguration)")
	}
	mutability, exclusions, err := mutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters)
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	if err := addTags(tags, in.Tags); err != nil {
		return nil, err
	}
	repo, err := s.registry.CreateRepository(ctx, registry.Repository{Name: *in.RepositoryName, Mutability: mutability, Exclusions: exclusions, Tags: tags})
	if err != nil {
		return nil, failure(err)
	}
	return &api.CreateRepositoryOutput{Repository: s.describe(ctx, repo)}, nil
}

// mutability checks the mutability of tags and its exclusions.
func mutability(m api.ImageTagMutability, filters []*api.ImageTagMutabilityExclusionFilter) (string, []string, error) {
	if m == "" {
		m = registry.Mutable
	}
	excluding := m == registry.MutableWithExclusion || m == registry.ImmutableWithExclusion
	switch {
	case excluding && len(filters) == 0:
		return "", nil, invalid("Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'required with %s'", m)
	case !excluding && len(filters) > 0:
		return "", nil, invalid("Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'not allowed with %s'", m)
	case len(filters) > maxExclusions:
		return "", nil, invalid("Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'at most %d filters'", maxExclusions)
	}
	var exclusions []string
	for _, f := range filters {
		exclusions = append(exclusions, *f.Filter)
	}
	return string(m), exclusions, nil
}

func exclusionFilters(exclusions []string) (out []*api.ImageTagMutabilityExclusionFilter) {
	for _, e := range exclusions {
		out = append(out, &api.ImageTagMutabilityExclusionFilter{FilterType: api.ImageTagMutabilityExclusionFilterTypeWildcard, Filter: aws.Ptr(e)})
	}
	return out
}

// DescribeRepositories implements api.API.
func (s *Service) DescribeRepositories(ctx context.Context, in *api.DescribeRepositoriesInput) (*api.DescribeRepositoriesOutput, error) {
	out := &api.DescribeRepositoriesOutput{Repositories: []*api.Repository{}}
	if len(in.RepositoryNames) > 0 {
		if in.NextToken != nil || in.MaxResults != nil {
			return nil, invalid("Invalid parameter at 'repositoryNames' failed to satisfy constraint: 'not allowed with nextToken or maxResults'")
		}
		for _, name := range in.RepositoryNames {
			repo, err := s.repository(in.RegistryId, &name)
			if err != nil {
				return nil, err
			}
			out.Repositories = append(out.Repositories, s.describe(ctx, repo))
		}
		return out, nil
	}
	if err := s.own(in.RegistryId, nil); err != nil {
		return nil, err
	}
	after, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	page, more := s.registry.Repositories(after, limit(in.MaxResults, defaultPage))
	for _, repo := range page {
		out.Repositories = append(out.Repositories, s.describe(ctx, repo))
	}
	if more {
		out.NextToken = token(page[len(page)-1].Name)
	}
	return out, nil
}

// DeleteRepository implements api.API.
func (s *Service) DeleteRepository(ctx context.Context, in *api.DeleteRepositoryInput) (*api.DeleteRepositoryOutput, error) {
	if err := s.own(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	repo, err := s.registry.DeleteRepository(ctx, *in.RepositoryName, aws.Value(in.Force))
	if err != nil {
		return nil, failure(err)
	}
	return &api.DeleteRepositoryOutput{Repository: s.describe(ctx, repo)}, nil
}

// modify changes the repository of a request.
func (s *Service) modify(ctx context.Context, registryID, name *string, change func(*registry.Repository) error) (registry.Repository, error) {
	if err := s.own(registryID, name); err != nil {
		return registry.Repository{}, err
	}
	repo, err := s.registry.ModifyRepository(ctx, *name, change)
	return repo, failure(err)
}

// PutImageTagMutability implements api.API.
func (s *Service) PutImageTagMutability(ctx context.Context, in *api.PutImageTagMutabilityInput) (*api.PutImageTagMutabilityOutput, error) {
	m, exclusions, err := mutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters)
	if err != nil {
		return nil, err
	}
	_, err = s.modify(ctx, in.RegistryId, in.RepositoryName, func(r *registry.Repository) error {
		r.Mutability, r.Exclusions = m, exclusions
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.PutImageTagMutabilityOutput{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, ImageTagMutability: api.ImageTagMutability(m), ImageTagMutabilityExclusionFilters: exclusionFilters(exclusions),
	}, nil
}

// SetRepositoryPolicy implements api.API.
func (s *Service) SetRepositoryPolicy(ctx context.Context, in *api.SetRepositoryPolicyInput) (*api.SetRepositoryPolicyOutput, error) {
	var policy struct{ Statement json.RawMessage }
	if err := json.Unmarshal([]byte(*in.PolicyText), &policy); err != nil || policy.Statement == nil {
		return nil, invalid("Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'")
	}
	_, err := s.modify(ctx, in.RegistryId, in.RepositoryName, func(r *registry.Repository) error { r.Policy = *in.PolicyText; return nil })
	if err != nil {
		return nil, err
	}
	return &api.SetRepositoryPolicyOutput{RegistryId: s.id(), RepositoryName: in.RepositoryName, PolicyText: in.PolicyText}, nil
}

func (s *Service) noPolicy(name string) error {
	return api.NewRepositoryPolicyNotFoundException("Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", name, s.registry.AccountID())
}

// GetRepositoryPolicy implements api.API.
func (s *Service) GetRepositoryPolicy(_ context.Context, in *api.GetRepositoryPolicyInput) (*api.GetRepositoryPolicyOutput, error) {
	repo, err := s.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if repo.Policy == "" {
		return nil, s.noPolicy(repo.Name)
	}
	return &api.GetRepositoryPolicyOutput{RegistryId: s.id(), RepositoryName: in.RepositoryName, PolicyText: aws.Ptr(repo.Policy)}, nil
}

// DeleteRepositoryPolicy implements api.API.
func (s *Service) DeleteRepositoryPolicy(ctx context.Context, in *api.DeleteRepositoryPolicyInput) (*api.DeleteRepositoryPolicyOutput, error) {
	var old string
	_, err := s.modify(ctx, in.RegistryId, in.RepositoryName, func(r *registry.Repository) error {
		if old = r.Policy; old == "" {
			return s.noPolicy(r.Name)
		}
		r.Policy = ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteRepositoryPolicyOutput{RegistryId: s.id(), RepositoryName: in.RepositoryName, PolicyText: aws.Ptr(old)}, nil
}

// resource returns the name of the repository that an ARN names.
func (s *Service) resource(ctx context.Context, arn string) (string, error) {
	name, ok := strings.CutPrefix(arn, s.arn(ctx, ""))
	if !ok || !registry.ValidName(name) {
		return "", invalid("Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'")
	}
	return name, nil
}

// addTags adds tags to those of a repository.
func addTags(tags map[string]string, add []*api.Tag) error {
	for _, t := range add {
		if *t.Key == "" || len(*t.Key) > 128 || len(*t.Value) > 256 || strings.HasPrefix(strings.ToLower(*t.Key), "aws:") {
			return api.NewInvalidTagParameterException("Invalid parameter at 'tags' failed to satisfy constraint: 'Invalid tag key or value'")
		}
		tags[*t.Key] = *t.Value
	}
	if len(tags) > maxTags {
		return api.NewTooManyTagsException("A repository can have at most %d tags.", maxTags)
	}
	return nil
}

// TagResource implements api.API.
func (s *Service) TagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	name, err := s.resource(ctx, *in.ResourceArn)
	if err != nil {
		return nil, err
	}
	_, err = s.modify(ctx, nil, &name, func(r *registry.Repository) error {
		tags := map[string]string{}
		maps.Copy(tags, r.Tags)
		r.Tags = tags
		return addTags(tags, in.Tags)
	})
	return &api.TagResourceOutput{}, err
}

// UntagResource implements api.API.
func (s *Service) UntagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	name, err := s.resource(ctx, *in.ResourceArn)
	if err != nil {
		return nil, err
	}
	_, err = s.modify(ctx, nil, &name, func(r *registry.Repository) error {
		r.Tags = maps.Clone(r.Tags)
		for _, k := range in.TagKeys {
			delete(r.Tags, k)
		}
		return nil
	})
	return &api.UntagResourceOutput{}, err
}

// ListTagsForResource implements api.API.
func (s *Service) ListTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	name, err := s.resource(ctx, *in.ResourceArn)
	if err != nil {
		return nil, err
	}
	repo, err := s.repository(nil, &name)
	if err != nil {
		return nil, err
	}
	out := &api.ListTagsForResourceOutput{Tags: []*api.Tag{}}
	for _, k := range slices.Sorted(maps.Keys(repo.Tags)) {
		out.Tags = append(out.Tags, &api.Tag{Key: aws.Ptr(k), Value: aws.Ptr(repo.Tags[k])})
	}
	return out, nil
}
