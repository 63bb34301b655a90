package lambda

import (
	"context"

	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// The operations below are part of the API and not supported yet: each is
// refused by its name.

// DeleteFunctionEventInvokeConfig implements lambda.API.
func (s *Service) DeleteFunctionEventInvokeConfig(context.Context, *api.DeleteFunctionEventInvokeConfigInput) (*api.DeleteFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("DeleteFunctionEventInvokeConfig")
}

// GetFunctionEventInvokeConfig implements lambda.API.
func (s *Service) GetFunctionEventInvokeConfig(context.Context, *api.GetFunctionEventInvokeConfigInput) (*api.GetFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("GetFunctionEventInvokeConfig")
}

// GetFunctionRecursionConfig implements lambda.API.
func (s *Service) GetFunctionRecursionConfig(context.Context, *api.GetFunctionRecursionConfigInput) (*api.GetFunctionRecursionConfigOutput, error) {
	return nil, unsupported("GetFunctionRecursionConfig")
}

// GetRuntimeManagementConfig implements lambda.API.
func (s *Service) GetRuntimeManagementConfig(context.Context, *api.GetRuntimeManagementConfigInput) (*api.GetRuntimeManagementConfigOutput, error) {
	return nil, unsupported("GetRuntimeManagementConfig")
}

// InvokeAsync implements lambda.API.
func (s *Service) InvokeAsync(context.Context, *api.InvokeAsyncInput) (*api.InvokeAsyncOutput, error) {
	return nil, unsupported("InvokeAsync")
}

// ListFunctionEventInvokeConfigs implements lambda.API.
func (s *Service) ListFunctionEventInvokeConfigs(context.Context, *api.ListFunctionEventInvokeConfigsInput) (*api.ListFunctionEventInvokeConfigsOutput, error) {
	return nil, unsupported("ListFunctionEventInvokeConfigs")
}

// PutFunctionEventInvokeConfig implements lambda.API.
func (s *Service) PutFunctionEventInvokeConfig(context.Context, *api.PutFunctionEventInvokeConfigInput) (*api.PutFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("PutFunctionEventInvokeConfig")
}

// PutFunctionRecursionConfig implements lambda.API.
func (s *Service) PutFunctionRecursionConfig(context.Context, *api.PutFunctionRecursionConfigInput) (*api.PutFunctionRecursionConfigOutput, error) {
	return nil, unsupported("PutFunctionRecursionConfig")
}

// PutRuntimeManagementConfig implements lambda.API.
func (s *Service) PutRuntimeManagementConfig(context.Context, *api.PutRuntimeManagementConfigInput) (*api.PutRuntimeManagementConfigOutput, error) {
	return nil, unsupported("PutRuntimeManagementConfig")
}

// UpdateFunctionEventInvokeConfig implements lambda.API.
func (s *Service) UpdateFunctionEventInvokeConfig(context.Context, *api.UpdateFunctionEventInvokeConfigInput) (*api.UpdateFunctionEventInvokeConfigOutput, error) {
	return nil, unsupported("UpdateFunctionEventInvokeConfig")
}
