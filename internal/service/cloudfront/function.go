package cloudfront

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/cffunction"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Quotas of CloudFront Functions (CloudFront quotas).
const (
	maxFunctions    = 100
	maxFunctionCode = 10 << 10 // bytes
)

// functionResource is a CloudFront Function; its id is its name. The record's
// ETag is that of what is in development.
type functionResource struct {
	Development functionStage
	Live        *functionStage // nil: it was never published
	Tags        map[string]string
}

// functionStage is a function as it is in one of its stages.
type functionStage struct {
	ETag              string
	Created, Modified time.Time
	Config            api.FunctionConfig
	Code              []byte
}

type functionRecord = record[functionResource]

func (s *Service) functionARN(name string) string { return s.arn("function/" + name) }

func usesFunction(c *api.DistributionConfig, arn string) bool {
	return slices.ContainsFunc(behaviours(c), func(b *api.CacheBehavior) bool {
		return slices.ContainsFunc(b.FunctionAssociations.Items, func(a *api.FunctionAssociation) bool { return *a.FunctionARN == arn })
	})
}

func (s *Service) checkFunction(c *api.FunctionConfig, code []byte) error {
	if err := checkQuantities(c); err != nil {
		return err
	}
	if len(code) > maxFunctionCode {
		return api.NewFunctionSizeLimitExceeded("The function exceeds the maximum size: %d bytes.", maxFunctionCode)
	}
	if len(*c.Comment) > 128 {
		return api.NewInvalidArgument("The parameter Comment is too long: it has at most 128 characters.")
	}
	if err := s.checkStore(c); err != nil {
		return err
	}
	if err := cffunction.Check(string(c.Runtime), string(code)); err != nil {
		return api.NewInvalidArgument("The function code cannot run: %v", err)
	}
	return nil
}

// stage returns a function as it is in a stage; empty stands for DEVELOPMENT.
func (s *Service) stage(name *string, stage api.FunctionStage) (functionRecord, *functionStage, error) {
	f, err := s.functions.get(name)
	if err != nil {
		return f, nil, err
	}
	if stage != api.FunctionStageLive {
		return f, &f.Resource.Development, nil
	}
	if f.Resource.Live == nil {
		return f, nil, s.functions.missing
	}
	return f, f.Resource.Live, nil
}

func (s *Service) describeFunction(f *functionRecord, stage api.FunctionStage) *api.FunctionSummary {
	of, status := &f.Resource.Development, "UNASSOCIATED"
	if stage == api.FunctionStageLive {
		of = f.Resource.Live
	} else {
		stage = api.FunctionStageDevelopment
	}
	arn := s.functionARN(f.ID)
	switch {
	case f.Resource.Live == nil || f.Resource.Live.ETag != of.ETag:
		status = "UNPUBLISHED"
	case len(s.which(func(c *api.DistributionConfig) bool { return usesFunction(c, arn) })) > 0:
		status = "ASSOCIATED"
	}
	return &api.FunctionSummary{
		Name: aws.Ptr(f.ID), Status: &status, FunctionConfig: &of.Config,
		FunctionMetadata: &api.FunctionMetadata{FunctionARN: &arn, Stage: stage, CreatedTime: &of.Created, LastModifiedTime: &of.Modified},
	}
}

// CreateFunction implements api.API.
func (s *Service) CreateFunction(ctx context.Context, in *api.CreateFunctionInput) (*api.CreateFunctionOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.checkFunction(in.FunctionConfig, in.FunctionCode); err != nil {
		return nil, err
	}
	tags, err := addTags(nil, in.Tags)
	if err != nil {
		return nil, err
	}
	if _, ok := s.functions.find(*in.Name); ok {
		return nil, api.NewFunctionAlreadyExists("A function with the same name already exists in this AWS account: %s", *in.Name)
	}
	if s.functions.collection.Len() >= maxFunctions {
		return nil, api.NewTooManyFunctions("You have reached the maximum number of CloudFront functions for this AWS account: %d.", maxFunctions)
	}
	now := s.opts.Now().UTC()
	f, err := s.functions.create(ctx, *in.Name, functionResource{
		Development: functionStage{ETag: newETag(), Created: now, Modified: now, Config: *in.FunctionConfig, Code: in.FunctionCode}, Tags: tags,
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateFunctionOutput{
		FunctionSummary: s.describeFunction(&f, ""), ETag: &f.Resource.Development.ETag, Location: location(ctx, "function/"+f.ID),
	}, nil
}

// GetFunction implements api.API.
func (s *Service) GetFunction(_ context.Context, in *api.GetFunctionInput) (*api.GetFunctionOutput, error) {
	_, of, err := s.stage(in.Name, in.Stage)
	if err != nil {
		return nil, err
	}
	return &api.GetFunctionOutput{FunctionCode: of.Code, ETag: &of.ETag, ContentType: aws.Ptr("application/octet-stream")}, nil
}

// DescribeFunction implements api.API.
func (s *Service) DescribeFunction(_ context.Context, in *api.DescribeFunctionInput) (*api.DescribeFunctionOutput, error) {
	f, of, err := s.stage(in.Name, in.Stage)
	if err != nil {
		return nil, err
	}
	return &api.DescribeFunctionOutput{FunctionSummary: s.describeFunction(&f, in.Stage), ETag: &of.ETag}, nil
}

// developing returns a function whose version in development is to be changed,
// published, tested or deleted.
func (s *Service) developing(name, ifMatch *string) (functionRecord, error) {
	f, err := s.functions.get(name)
	if err != nil {
		return f, err
	}
	return f, match(f.Resource.Development.ETag, ifMatch)
}

// UpdateFunction implements api.API.
func (s *Service) UpdateFunction(ctx context.Context, in *api.UpdateFunctionInput) (*api.UpdateFunctionOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	f, err := s.developing(in.Name, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := s.checkFunction(in.FunctionConfig, in.FunctionCode); err != nil {
		return nil, err
	}
	r := f.Resource
	r.Development = functionStage{ETag: newETag(), Created: r.Development.Created, Modified: s.opts.Now().UTC(), Config: *in.FunctionConfig, Code: in.FunctionCode}
	if f, err = s.functions.update(ctx, f, r); err != nil {
		return nil, err
	}
	return &api.UpdateFunctionOutput{FunctionSummary: s.describeFunction(&f, ""), ETag: &f.Resource.Development.ETag}, nil
}

// PublishFunction implements api.API: what is in development goes live.
func (s *Service) PublishFunction(ctx context.Context, in *api.PublishFunctionInput) (*api.PublishFunctionOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	f, err := s.developing(in.Name, in.IfMatch)
	if err != nil {
		return nil, err
	}
	r := f.Resource
	live := r.Development
	live.Created, live.Modified = s.opts.Now().UTC(), s.opts.Now().UTC()
	if r.Live != nil {
		live.Created = r.Live.Created
	}
	r.Live = &live
	if f, err = s.functions.update(ctx, f, r); err != nil {
		return nil, err
	}
	if err := s.publishFunction(ctx, &f); err != nil {
		return nil, err
	}
	return &api.PublishFunctionOutput{FunctionSummary: s.describeFunction(&f, api.FunctionStageLive)}, nil
}

// compileFunction makes what edge locations run.
func (s *Service) compileFunction(name string, of *functionStage) distribution.Function {
	return distribution.Function{
		Format: distribution.Format, ARN: s.functionARN(name), Name: name, Runtime: string(of.Config.Runtime), Code: string(of.Code),
		Store: strings.TrimPrefix(storeOf(&of.Config), s.arn(keyValueStorePrefix)),
	}
}

// publishFunction gives edge locations a function's live stage.
func (s *Service) publishFunction(ctx context.Context, f *functionRecord) error {
	if f.Resource.Live == nil {
		return nil
	}
	compiled := s.compileFunction(f.ID, f.Resource.Live)
	if now, ok := s.records.Functions.Get(compiled.ARN); ok && now.Value == compiled {
		return nil
	}
	_, err := s.records.Functions.Put(ctx, compiled.ARN, compiled)
	return err
}

// publishFunctions brings what edge locations run up to the API's records.
func (s *Service) publishFunctions(ctx context.Context) error {
	for _, f := range s.functions.all() {
		if err := s.publishFunction(ctx, &f); err != nil {
			return err
		}
	}
	for f := range s.records.Functions.Scan("", "") {
		if _, ok := s.functions.find(f.Value.Name); !ok {
			if err := s.records.Functions.Delete(ctx, f.Key, f.Revision); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteFunction implements api.API.
func (s *Service) DeleteFunction(ctx context.Context, in *api.DeleteFunctionInput) (*api.DeleteFunctionOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	f, err := s.developing(in.Name, in.IfMatch)
	if err != nil {
		return nil, err
	}
	arn := s.functionARN(f.ID)
	if d, ok := s.distributions.first(func(d *distributionRecord) bool { return usesFunction(&d.Resource.Config, arn) }); ok {
		return nil, api.NewFunctionInUse("Cannot delete function, it is in use by distribution %s.", d.ID)
	}
	if err := s.functions.remove(ctx, f.ID); err != nil {
		return nil, err
	}
	if live, ok := s.records.Functions.Get(arn); ok {
		return &api.DeleteFunctionOutput{}, s.records.Functions.Delete(ctx, arn, live.Revision)
	}
	return &api.DeleteFunctionOutput{}, nil
}

// ListFunctions implements api.API.
func (s *Service) ListFunctions(_ context.Context, in *api.ListFunctionsInput) (*api.ListFunctionsOutput, error) {
	type entry struct {
		f     functionRecord
		stage api.FunctionStage
	}
	var all []entry
	for _, f := range s.functions.all() {
		if in.Stage != api.FunctionStageLive {
			all = append(all, entry{f, api.FunctionStageDevelopment})
		}
		if in.Stage != api.FunctionStageDevelopment && f.Resource.Live != nil {
			all = append(all, entry{f, api.FunctionStageLive})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return strings.Compare(a.f.ID, b.f.ID) })
	p, err := paginate(all, func(e entry) string { return e.f.ID + "/" + string(e.stage) }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.FunctionList{NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity}
	for _, e := range p.Items {
		list.Items = append(list.Items, s.describeFunction(&e.f, e.stage))
	}
	return &api.ListFunctionsOutput{FunctionList: list}, nil
}

// TestFunction implements api.API.
func (s *Service) TestFunction(ctx context.Context, in *api.TestFunctionInput) (*api.TestFunctionOutput, error) {
	f, of, err := s.stage(in.Name, in.Stage)
	if err == nil {
		err = match(of.ETag, in.IfMatch)
	}
	if err != nil {
		return nil, err
	}
	if len(in.EventObject) > cffunction.MaxEvent {
		return nil, api.NewInvalidArgument("The event object has %d bytes; the maximum is %d.", len(in.EventObject), cffunction.MaxEvent)
	}
	r, err := cffunction.Test(ctx, s.compileFunction(f.ID, of), s.opts.KeyValues.Stores, in.EventObject)
	if err != nil {
		return nil, api.NewTestFunctionFailed("The function could not be tested: %v", err)
	}
	return &api.TestFunctionOutput{TestResult: &api.TestResult{
		FunctionSummary: s.describeFunction(&f, in.Stage), ComputeUtilization: aws.Ptr(strconv.Itoa(r.Utilization)),
		FunctionExecutionLogs: r.Logs, FunctionErrorMessage: &r.Error, FunctionOutput: &r.Output,
	}}, nil
}
