package lambda

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
)

// PutFunctionConcurrency implements lambda.API.
func (s *Service) PutFunctionConcurrency(ctx context.Context, in *api.PutFunctionConcurrencyInput) (*api.PutFunctionConcurrencyOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	ref.qualifier = function.Latest // AWS names it so where the function does not exist
	n := int(aws.Value(in.ReservedConcurrentExecutions))

	// The sum over all functions must hold, so writers go one by one.
	s.reservations.Lock()
	defer s.reservations.Unlock()
	err = s.modifyFunction(ctx, ref, func(f *functionRecord) error {
		e := s.entries.get(ref.functionKey)
		if m := e.totalProvisioned(); n < m {
			return invalidParameter(" ReservedConcurrentExecutions  %d should not be lower than function's total provisioned concurrency [%d].", n, m)
		}
		own := e.setAside()
		others := s.entries.setAside(ref.region) - own
		// To reserve less is right even where, since the account's limit was
		// lowered, too much is reserved.
		if n > own && others+n > s.opts.Concurrency-minUnreserved {
			return invalidParameter("Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [%d].", minUnreserved)
		}
		f.ReservedConcurrency = &n
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.PutFunctionConcurrencyOutput{ReservedConcurrentExecutions: aws.Ptr(int32(n))}, nil
}

// GetFunctionConcurrency implements lambda.API.
func (s *Service) GetFunctionConcurrency(ctx context.Context, in *api.GetFunctionConcurrencyInput) (*api.GetFunctionConcurrencyOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	out := &api.GetFunctionConcurrencyOutput{}
	if n := e.function.Value.ReservedConcurrency; n != nil {
		out.ReservedConcurrentExecutions = aws.Ptr(int32(*n))
	}
	return out, nil
}

// DeleteFunctionConcurrency implements lambda.API.
func (s *Service) DeleteFunctionConcurrency(ctx context.Context, in *api.DeleteFunctionConcurrencyInput) (*api.DeleteFunctionConcurrencyOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	return &api.DeleteFunctionConcurrencyOutput{}, s.modifyFunction(ctx, ref, func(f *functionRecord) error {
		f.ReservedConcurrency = nil
		return nil
	})
}
