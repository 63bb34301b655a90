package lambda

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// layerPolicyHolder finds the version of a layer whose policy a request is
// about.
func (s *Service) layerPolicyHolder(key layerKey, number int64) (*policyHolder, error) {
	if err := checkLayerVersion(number); err != nil {
		return nil, err
	}
	v, ok := s.layerVersions.Get(key.version(number))
	if !ok {
		return nil, layerVersionNotFound(s.layerARN(key, number))
	}
	record := v.Value
	return &policyHolder{record.Policy, record.PolicyRevision, "GetLayerPolicy", func(ctx context.Context, policy []statement, revision string) error {
		ctx, cancel := writeContext(ctx)
		defer cancel()
		record.Policy, record.PolicyRevision = policy, revision
		_, err := s.layerVersions.Update(ctx, v.Key, v.Revision, record)
		return internal(err)
	}}, nil
}

// AddLayerVersionPermission implements lambda.API. The policy is kept; as
// Lapwing has one account, it lets nobody in who was not.
func (s *Service) AddLayerVersionPermission(ctx context.Context, in *api.AddLayerVersionPermissionInput) (*api.AddLayerVersionPermissionOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	p, err := parsePrincipal(aws.Value(in.Principal))
	if err != nil {
		return nil, err
	}
	added := statement{Sid: aws.Value(in.StatementId), Effect: "Allow", Principal: p, Action: aws.Value(in.Action),
		Resource: s.layerARN(key, aws.Value(in.VersionNumber))}
	if in.OrganizationId != nil {
		added.Condition = &condition{StringEquals: map[string]string{"aws:PrincipalOrgID": *in.OrganizationId}}
	}
	defer s.lockLayer(key)()
	h, err := s.layerPolicyHolder(key, aws.Value(in.VersionNumber))
	if err != nil {
		return nil, err
	}
	policy, shown, err := h.add(added, in.RevisionId)
	if err != nil {
		return nil, err
	}
	revision := newID()
	if err := h.write(ctx, policy, revision); err != nil {
		return nil, err
	}
	return &api.AddLayerVersionPermissionOutput{Statement: aws.Ptr(shown), RevisionId: aws.Ptr(revision)}, nil
}

// RemoveLayerVersionPermission implements lambda.API.
func (s *Service) RemoveLayerVersionPermission(ctx context.Context, in *api.RemoveLayerVersionPermissionInput) (*api.RemoveLayerVersionPermissionOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	defer s.lockLayer(key)()
	h, err := s.layerPolicyHolder(key, aws.Value(in.VersionNumber))
	if err != nil {
		return nil, err
	}
	policy, err := h.remove(aws.Value(in.StatementId), in.RevisionId)
	if err != nil {
		return nil, err
	}
	return &api.RemoveLayerVersionPermissionOutput{}, h.write(ctx, policy, newID())
}

// GetLayerVersionPolicy implements lambda.API.
func (s *Service) GetLayerVersionPolicy(ctx context.Context, in *api.GetLayerVersionPolicyInput) (*api.GetLayerVersionPolicyOutput, error) {
	key, err := s.resolveLayer(ctx, aws.Value(in.LayerName))
	if err != nil {
		return nil, err
	}
	h, err := s.layerPolicyHolder(key, aws.Value(in.VersionNumber))
	if err != nil {
		return nil, err
	}
	if len(h.policy) == 0 {
		return nil, noPolicy()
	}
	text, err := policyText(h.policy)
	if err != nil {
		return nil, internal(err)
	}
	return &api.GetLayerVersionPolicyOutput{Policy: aws.Ptr(text), RevisionId: aws.Ptr(h.revision)}, nil
}
