package ecr

import (
	"context"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/ecr"
	"lapwing.dev/lapwing/internal/registry"
)

// preview is a lifecycle policy that somebody asks about. It is in memory only.
type preview struct {
	text    string
	started time.Time
}

// previewLife is how long a preview is there (Amazon ECR user guide).
const previewLife = 24 * time.Hour

func checkLifecycle(text string) error {
	if _, err := registry.ParseLifecycle(text); err != nil {
		return invalid("Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: %s'", err)
	}
	return nil
}

// PutLifecyclePolicy implements api.API. The registry applies the policy within
// an hour.
func (s *Service) PutLifecyclePolicy(ctx context.Context, in *api.PutLifecyclePolicyInput) (*api.PutLifecyclePolicyOutput, error) {
	if err := checkLifecycle(*in.LifecyclePolicyText); err != nil {
		return nil, err
	}
	_, err := s.modify(ctx, in.RegistryId, in.RepositoryName, func(r *registry.Repository) error {
		r.Lifecycle, r.Evaluated = *in.LifecyclePolicyText, time.Time{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.PutLifecyclePolicyOutput{RegistryId: s.id(), RepositoryName: in.RepositoryName, LifecyclePolicyText: in.LifecyclePolicyText}, nil
}

func (s *Service) noLifecycle(name string) error {
	return api.NewLifecyclePolicyNotFoundException("Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'", name, s.registry.AccountID())
}

// evaluated is when a policy was last applied, nil before.
func evaluated(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// GetLifecyclePolicy implements api.API.
func (s *Service) GetLifecyclePolicy(_ context.Context, in *api.GetLifecyclePolicyInput) (*api.GetLifecyclePolicyOutput, error) {
	repo, err := s.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if repo.Lifecycle == "" {
		return nil, s.noLifecycle(repo.Name)
	}
	return &api.GetLifecyclePolicyOutput{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, LifecyclePolicyText: aws.Ptr(repo.Lifecycle), LastEvaluatedAt: evaluated(repo.Evaluated),
	}, nil
}

// DeleteLifecyclePolicy implements api.API.
func (s *Service) DeleteLifecyclePolicy(ctx context.Context, in *api.DeleteLifecyclePolicyInput) (*api.DeleteLifecyclePolicyOutput, error) {
	var old registry.Repository
	_, err := s.modify(ctx, in.RegistryId, in.RepositoryName, func(r *registry.Repository) error {
		if old = *r; r.Lifecycle == "" {
			return s.noLifecycle(r.Name)
		}
		r.Lifecycle, r.Evaluated = "", time.Time{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteLifecyclePolicyOutput{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, LifecyclePolicyText: aws.Ptr(old.Lifecycle), LastEvaluatedAt: evaluated(old.Evaluated),
	}, nil
}

// StartLifecyclePolicyPreview implements api.API.
func (s *Service) StartLifecyclePolicyPreview(_ context.Context, in *api.StartLifecyclePolicyPreviewInput) (*api.StartLifecyclePolicyPreviewOutput, error) {
	repo, err := s.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	text := repo.Lifecycle
	if in.LifecyclePolicyText != nil {
		text = *in.LifecyclePolicyText
	}
	if text == "" {
		return nil, s.noLifecycle(repo.Name)
	}
	if err := checkLifecycle(text); err != nil {
		return nil, err
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.previews {
		if now.Sub(p.started) > previewLife {
			delete(s.previews, id)
		}
	}
	s.previews[repo.ID] = preview{text, now}
	return &api.StartLifecyclePolicyPreviewOutput{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, LifecyclePolicyText: &text, Status: api.LifecyclePolicyPreviewStatusInProgress,
	}, nil
}

// GetLifecyclePolicyPreview implements api.API.
func (s *Service) GetLifecyclePolicyPreview(_ context.Context, in *api.GetLifecyclePolicyPreviewInput) (*api.GetLifecyclePolicyPreviewOutput, error) {
	repo, err := s.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	p, ok := s.previews[repo.ID]
	s.mu.Unlock()
	if !ok || s.now().Sub(p.started) > previewLife {
		return nil, api.NewLifecyclePolicyPreviewNotFoundException("Lifecycle policy preview does not exist for the repository with name '%s' in the registry with id '%s'", repo.Name, s.registry.AccountID())
	}
	if len(in.ImageIds) > 0 {
		return nil, unsupported("imageIds")
	}
	after, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	policy, err := registry.ParseLifecycle(p.text)
	if err != nil {
		return nil, err
	}
	images, err := s.registry.Images(repo.Name)
	if err != nil {
		return nil, failure(err)
	}
	expired := policy.Expired(images, p.started)
	out := &api.GetLifecyclePolicyPreviewOutput{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, LifecyclePolicyText: aws.Ptr(p.text), Status: api.LifecyclePolicyPreviewStatusComplete,
		PreviewResults: []*api.LifecyclePolicyPreviewResult{},
		Summary:        &api.LifecyclePolicyPreviewSummary{ExpiringImageTotalCount: aws.Ptr(int32(len(expired)))},
	}
	past := after == ""
	for _, e := range expired {
		if !past {
			past = string(e.Image.Digest) == after
			continue
		}
		if !selected(len(e.Image.Tags) > 0, aws.Value(in.Filter).TagStatus) {
			continue
		}
		if n := len(out.PreviewResults); n == limit(in.MaxResults, defaultPage) {
			out.NextToken = token(*out.PreviewResults[n-1].ImageDigest)
			break
		}
		out.PreviewResults = append(out.PreviewResults, &api.LifecyclePolicyPreviewResult{
			ImageTags: e.Image.Tags, ImageDigest: aws.Ptr(string(e.Image.Digest)), ImagePushedAt: aws.Ptr(e.Image.Pushed),
			Action: &api.LifecyclePolicyRuleAction{Type: api.ImageActionTypeExpire}, AppliedRulePriority: aws.Ptr(int32(e.Priority)),
		})
	}
	return out, nil
}
