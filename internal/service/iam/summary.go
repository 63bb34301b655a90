package iam

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
)

// GetAccountSummary implements iam.API.
func (s *Service) GetAccountSummary(context.Context, *iam.GetAccountSummaryInput) (*iam.GetAccountSummaryOutput, error) {
	inUse := 0
	for _, item := range s.policies.List("") {
		inUse += len(item.Value.Versions)
	}
	summary := map[iam.SummaryKeyType]int{
		iam.SummaryKeyTypeUsers:                        s.users.records.Len(),
		iam.SummaryKeyTypeUsersQuota:                   maxUsers,
		iam.SummaryKeyTypeRoles:                        s.roles.records.Len(),
		iam.SummaryKeyTypeRolesQuota:                   maxRoles,
		iam.SummaryKeyTypePolicies:                     s.policies.Len(),
		iam.SummaryKeyTypePoliciesQuota:                maxPolicies,
		iam.SummaryKeyTypePolicyVersionsInUse:          inUse,
		iam.SummaryKeyTypePolicyVersionsInUseQuota:     maxPolicies * maxVersions,
		iam.SummaryKeyTypeVersionsPerPolicyQuota:       maxVersions,
		iam.SummaryKeyTypePolicySizeQuota:              maxPolicySize,
		iam.SummaryKeyTypeUserPolicySizeQuota:          maxUserInlineSize,
		iam.SummaryKeyTypeRolePolicySizeQuota:          maxRoleInlineSize,
		iam.SummaryKeyTypeAssumeRolePolicySizeQuota:    maxTrustPolicySize,
		iam.SummaryKeyTypeAccessKeysPerUserQuota:       maxAccessKeys,
		iam.SummaryKeyTypeAttachedPoliciesPerUserQuota: maxAttached,
		iam.SummaryKeyTypeAttachedPoliciesPerRoleQuota: maxAttached,
		iam.SummaryKeyTypeAccountAccessKeysPresent:     1, // the root user has one
		iam.SummaryKeyTypeAccountPasswordPresent:       0,
		iam.SummaryKeyTypeAccountMFAEnabled:            0,
		iam.SummaryKeyTypeMFADevices:                   0,
		iam.SummaryKeyTypeMFADevicesInUse:              0,
		iam.SummaryKeyTypeGroups:                       0,
		iam.SummaryKeyTypeInstanceProfiles:             0,
		iam.SummaryKeyTypeProviders:                    0,
		iam.SummaryKeyTypeServerCertificates:           0,
		iam.SummaryKeyTypeGlobalEndpointTokenVersion:   1,
	}
	out := &iam.GetAccountSummaryOutput{SummaryMap: make(map[string]int32, len(summary))}
	for k, v := range summary {
		out.SummaryMap[string(k)] = int32(v)
	}
	return out, nil
}

// ListAccountAliases implements iam.API. The account has no alias, as long as
// none can be created.
func (s *Service) ListAccountAliases(context.Context, *iam.ListAccountAliasesInput) (*iam.ListAccountAliasesOutput, error) {
	return &iam.ListAccountAliasesOutput{AccountAliases: []string{}, IsTruncated: aws.Ptr(false)}, nil
}
