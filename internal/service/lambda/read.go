package lambda

import (
	"context"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/image"
)

// lookup finds the function and version that a request names.
func (s *Service) lookup(ctx context.Context, nameOrARN, qualifier *string) (reference, *entry, resolvedVersion, error) {
	ref, err := s.resolve(ctx, aws.Value(nameOrARN), aws.Value(qualifier))
	if err != nil {
		return ref, nil, resolvedVersion{}, err
	}
	e, err := s.find(ref)
	if err != nil {
		return ref, nil, resolvedVersion{}, err
	}
	v, ok := e.version(ref.qualifier)
	if !ok {
		return ref, nil, resolvedVersion{}, functionNotFound(ref.qualified())
	}
	return ref, e, v, nil
}

// GetFunction implements lambda.API.
func (s *Service) GetFunction(ctx context.Context, in *api.GetFunctionInput) (*api.GetFunctionOutput, error) {
	ref, e, v, err := s.lookup(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	f := &e.function.Value
	out := &api.GetFunctionOutput{
		Configuration: s.describe(ref.functionKey, v, ref.qualified()),
		Tags:          f.Tags,
	}
	if img := v.config.Image; img != nil {
		out.Code = &api.FunctionCodeLocation{RepositoryType: aws.Ptr("ECR"), ImageUri: aws.Ptr(img.URI), ResolvedImageUri: aws.Ptr(img.Resolved)}
	} else {
		out.Code = &api.FunctionCodeLocation{
			RepositoryType: aws.Ptr("S3"),
			Location:       aws.Ptr(s.codeURL(aws.RequestFrom(ctx).BaseURL, v.config.Code.Digest)),
		}
	}
	if f.ReservedConcurrency != nil {
		out.Concurrency = &api.Concurrency{ReservedConcurrentExecutions: aws.Ptr(int32(*f.ReservedConcurrency))}
	}
	return out, nil
}

// GetFunctionConfiguration implements lambda.API.
func (s *Service) GetFunctionConfiguration(ctx context.Context, in *api.GetFunctionConfigurationInput) (*api.GetFunctionConfigurationOutput, error) {
	ref, _, v, err := s.lookup(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	if err := s.tellDetails(ctx, ref.functionKey, v); err != nil {
		return nil, internal(err)
	}
	return s.describe(ref.functionKey, v, ref.qualified()), nil
}

// ListFunctions implements lambda.API.
func (s *Service) ListFunctions(ctx context.Context, in *api.ListFunctionsInput) (*api.ListFunctionsOutput, error) {
	if in.MasterRegion != nil && *in.MasterRegion != "ALL" && *in.MasterRegion != s.region(ctx) {
		return &api.ListFunctionsOutput{Functions: []*api.FunctionConfiguration{}}, nil // nothing is replicated from elsewhere
	}
	startName, startVersion, err := decodeMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	type row struct {
		e   *entry
		v   resolvedVersion
		arn string
	}
	var rows []row
	for _, e := range s.entries.list(s.region(ctx)) {
		if e.key.name < startName {
			continue
		}
		if in.FunctionVersion != api.FunctionVersionAll {
			latest, _ := e.version("")
			rows = append(rows, row{e, latest, e.arn})
			continue
		}
		for _, v := range e.allVersions() {
			if e.key.name == startName && v.ordinal() < startVersion {
				continue
			}
			rows = append(rows, row{e, v, qualify(e.arn, v.number)})
		}
	}
	rows, next := pageOf(rows, in.MaxItems, maxPage)
	out := &api.ListFunctionsOutput{Functions: []*api.FunctionConfiguration{}}
	for _, r := range rows {
		out.Functions = append(out.Functions, s.summarize(r.e.key, r.v, r.arn))
	}
	if next != nil {
		out.NextMarker = encodeMarker(next.e.key.name, next.v)
	}
	return out, nil
}

func encodeMarker(name string, v resolvedVersion) *string {
	return encodeName(name + ":" + number(v.ordinal()))
}

func decodeMarker(marker *string) (name string, ordinal int, err error) {
	if aws.Value(marker) == "" {
		return "", 0, nil
	}
	text, err := decodeName(marker)
	if err != nil {
		return "", 0, err
	}
	name, version, ok := strings.Cut(text, ":")
	if !ok || !isVersion(version) {
		return "", 0, invalidMarker()
	}
	return name, resolvedVersion{number: version}.ordinal(), nil
}

// GetAccountSettings implements lambda.API.
func (s *Service) GetAccountSettings(ctx context.Context, _ *api.GetAccountSettingsInput) (*api.GetAccountSettingsOutput, error) {
	region := s.region(ctx)
	return &api.GetAccountSettingsOutput{
		AccountLimit: &api.AccountLimit{
			TotalCodeSize:                  aws.Ptr(int64(maxCodeStorage)),
			CodeSizeUnzipped:               aws.Ptr(int64(image.MaxUnpacked)),
			CodeSizeZipped:                 aws.Ptr(int64(maxZipped)),
			ConcurrentExecutions:           aws.Ptr(int32(s.opts.Concurrency)),
			UnreservedConcurrentExecutions: aws.Ptr(int32(s.opts.Concurrency - s.entries.reservedIn(region))),
		},
		AccountUsage: &api.AccountUsage{
			TotalCodeSize: aws.Ptr(s.codeStorage(region)),
			FunctionCount: aws.Ptr(int64(len(s.entries.list(region)))),
		},
	}, nil
}
