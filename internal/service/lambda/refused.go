package lambda

import (
	"context"

	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// The operations below are part of the API and not supported yet: each is
// refused by its name.

// GetRuntimeManagementConfig implements lambda.API.
func (s *Service) GetRuntimeManagementConfig(context.Context, *api.GetRuntimeManagementConfigInput) (*api.GetRuntimeManagementConfigOutput, error) {
	return nil, unsupported("GetRuntimeManagementConfig")
}

// PutRuntimeManagementConfig implements lambda.API.
func (s *Service) PutRuntimeManagementConfig(context.Context, *api.PutRuntimeManagementConfigInput) (*api.PutRuntimeManagementConfigOutput, error) {
	return nil, unsupported("PutRuntimeManagementConfig")
}
