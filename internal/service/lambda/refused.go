package lambda

import (
	"context"

	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// The operations below are part of the API and not supported yet: each is
// refused by its name.

// CreateCodeSigningConfig implements lambda.API.
func (s *Service) CreateCodeSigningConfig(context.Context, *api.CreateCodeSigningConfigInput) (*api.CreateCodeSigningConfigOutput, error) {
	return nil, unsupported("CreateCodeSigningConfig")
}

// DeleteCodeSigningConfig implements lambda.API.
func (s *Service) DeleteCodeSigningConfig(context.Context, *api.DeleteCodeSigningConfigInput) (*api.DeleteCodeSigningConfigOutput, error) {
	return nil, unsupported("DeleteCodeSigningConfig")
}

// DeleteFunctionCodeSigningConfig implements lambda.API.
func (s *Service) DeleteFunctionCodeSigningConfig(context.Context, *api.DeleteFunctionCodeSigningConfigInput) (*api.DeleteFunctionCodeSigningConfigOutput, error) {
	return nil, unsupported("DeleteFunctionCodeSigningConfig")
}

// DeleteFunctionEventInvokeConfig implements lambda.API.
func (s *Service) DeleteFunctionEventInvokeConfig(context.Context, *api.DeleteFunctionEventInvokeConfigInput) (*api.DeleteFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("DeleteFunctionEventInvokeConfig")
}

// DeleteProvisionedConcurrencyConfig implements lambda.API.
func (s *Service) DeleteProvisionedConcurrencyConfig(context.Context, *api.DeleteProvisionedConcurrencyConfigInput) (*api.DeleteProvisionedConcurrencyConfigOutput, error) {
	return nil, unsupported("DeleteProvisionedConcurrencyConfig")
}

// GetCodeSigningConfig implements lambda.API.
func (s *Service) GetCodeSigningConfig(context.Context, *api.GetCodeSigningConfigInput) (*api.GetCodeSigningConfigOutput, error) {
	return nil, unsupported("GetCodeSigningConfig")
}

// GetFunctionEventInvokeConfig implements lambda.API.
func (s *Service) GetFunctionEventInvokeConfig(context.Context, *api.GetFunctionEventInvokeConfigInput) (*api.GetFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("GetFunctionEventInvokeConfig")
}

// GetFunctionRecursionConfig implements lambda.API.
func (s *Service) GetFunctionRecursionConfig(context.Context, *api.GetFunctionRecursionConfigInput) (*api.GetFunctionRecursionConfigOutput, error) {
	return nil, unsupported("GetFunctionRecursionConfig")
}

// GetProvisionedConcurrencyConfig implements lambda.API.
func (s *Service) GetProvisionedConcurrencyConfig(context.Context, *api.GetProvisionedConcurrencyConfigInput) (*api.GetProvisionedConcurrencyConfigOutput, error) {
	return nil, unsupported("GetProvisionedConcurrencyConfig")
}

// GetRuntimeManagementConfig implements lambda.API.
func (s *Service) GetRuntimeManagementConfig(context.Context, *api.GetRuntimeManagementConfigInput) (*api.GetRuntimeManagementConfigOutput, error) {
	return nil, unsupported("GetRuntimeManagementConfig")
}

// InvokeAsync implements lambda.API.
func (s *Service) InvokeAsync(context.Context, *api.InvokeAsyncInput) (*api.InvokeAsyncOutput, error) {
	return nil, unsupported("InvokeAsync")
}

// ListCodeSigningConfigs implements lambda.API.
func (s *Service) ListCodeSigningConfigs(context.Context, *api.ListCodeSigningConfigsInput) (*api.ListCodeSigningConfigsOutput, error) {
	return nil, unsupported("ListCodeSigningConfigs")
}

// ListFunctionEventInvokeConfigs implements lambda.API.
func (s *Service) ListFunctionEventInvokeConfigs(context.Context, *api.ListFunctionEventInvokeConfigsInput) (*api.ListFunctionEventInvokeConfigsOutput, error) {
	return nil, unsupported("ListFunctionEventInvokeConfigs")
}

// ListFunctionsByCodeSigningConfig implements lambda.API.
func (s *Service) ListFunctionsByCodeSigningConfig(context.Context, *api.ListFunctionsByCodeSigningConfigInput) (*api.ListFunctionsByCodeSigningConfigOutput, error) {
	return nil, unsupported("ListFunctionsByCodeSigningConfig")
}

// ListProvisionedConcurrencyConfigs implements lambda.API.
func (s *Service) ListProvisionedConcurrencyConfigs(context.Context, *api.ListProvisionedConcurrencyConfigsInput) (*api.ListProvisionedConcurrencyConfigsOutput, error) {
	return nil, unsupported("ListProvisionedConcurrencyConfigs")
}

// PutFunctionCodeSigningConfig implements lambda.API.
func (s *Service) PutFunctionCodeSigningConfig(context.Context, *api.PutFunctionCodeSigningConfigInput) (*api.PutFunctionCodeSigningConfigOutput, error) {
	return nil, unsupported("PutFunctionCodeSigningConfig")
}

// PutFunctionEventInvokeConfig implements lambda.API.
func (s *Service) PutFunctionEventInvokeConfig(context.Context, *api.PutFunctionEventInvokeConfigInput) (*api.PutFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("PutFunctionEventInvokeConfig")
}

// PutFunctionRecursionConfig implements lambda.API.
func (s *Service) PutFunctionRecursionConfig(context.Context, *api.PutFunctionRecursionConfigInput) (*api.PutFunctionRecursionConfigOutput, error) {
	return nil, unsupported("PutFunctionRecursionConfig")
}

// PutProvisionedConcurrencyConfig implements lambda.API.
func (s *Service) PutProvisionedConcurrencyConfig(context.Context, *api.PutProvisionedConcurrencyConfigInput) (*api.PutProvisionedConcurrencyConfigOutput, error) {
	return nil, unsupported("PutProvisionedConcurrencyConfig")
}

// PutRuntimeManagementConfig implements lambda.API.
func (s *Service) PutRuntimeManagementConfig(context.Context, *api.PutRuntimeManagementConfigInput) (*api.PutRuntimeManagementConfigOutput, error) {
	return nil, unsupported("PutRuntimeManagementConfig")
}

// UpdateCodeSigningConfig implements lambda.API.
func (s *Service) UpdateCodeSigningConfig(context.Context, *api.UpdateCodeSigningConfigInput) (*api.UpdateCodeSigningConfigOutput, error) {
	return nil, unsupported("UpdateCodeSigningConfig")
}

// UpdateFunctionEventInvokeConfig implements lambda.API.
func (s *Service) UpdateFunctionEventInvokeConfig(context.Context, *api.UpdateFunctionEventInvokeConfigInput) (*api.UpdateFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("UpdateFunctionEventInvokeConfig")
}
