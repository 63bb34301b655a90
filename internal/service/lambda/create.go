package lambda

import (
	"context"
	"errors"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/state"
)

// CreateFunction implements lambda.API.
func (s *Service) CreateFunction(ctx context.Context, in *api.CreateFunctionInput) (*api.CreateFunctionOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), "")
	if err != nil {
		return nil, err
	}
	if len(ref.name) > maxFunctionName {
		return nil, invalidParameter("1 validation error detected: Value '%s' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to %d", ref.name, maxFunctionName)
	}
	if ref.qualifier != "" {
		return nil, invalidParameter("The name of a new function cannot have a qualifier.")
	}
	config, err := s.newConfiguration(ctx, ref.name, in)
	if err != nil {
		return nil, err
	}
	exists := conflict("Function already exist: %s", ref.name)
	if s.entries.get(ref.functionKey) != nil {
		return nil, exists
	}
	signing := aws.Value(in.CodeSigningConfigArn)
	if err := s.checkSigned(ctx, ref, signing); err != nil {
		return nil, err
	}
	code, release, err := s.code.acquire(ctx, &config, sourceOf(in.Code))
	if err != nil {
		return nil, err
	}
	defer release()
	code.set(&config)
	if err := config.checkUnzipped(); err != nil {
		return nil, err
	}

	s.signingUse.RLock()
	defer s.signingUse.RUnlock()
	if _, ok := s.findSigning(ctx, signing); signing != "" && !ok {
		return nil, noSigningFor(signing)
	}
	defer s.lock(ref.functionKey)()
	if s.entries.get(ref.functionKey) != nil {
		return nil, exists
	}
	if err := s.checkStorage(ref.region, code.code.Size*int64(1+count(in.Publish))); err != nil {
		return nil, err
	}
	record := functionRecord{ID: newID(), Config: config, status: pending(s.opts.Now()), NextVersion: 1,
		Tags: in.Tags, SigningARN: signing}
	out := resolvedVersion{function.Latest, &record.Config, &record.status}
	ctx, cancel := writeContext(ctx)
	defer cancel()
	if aws.Value(in.Publish) {
		v, err := s.putVersion(ctx, ref.functionKey, &record, record.Config, pending(record.Modified))
		if err != nil {
			return nil, internal(err)
		}
		out = v
	}
	_, err = s.functions.Create(ctx, ref.functionKey.String(), record)
	s.reload(ref.functionKey)
	if errors.Is(err, state.ErrExists) {
		return nil, exists
	}
	if err != nil {
		return nil, internal(err)
	}
	s.steps.add(ref.functionKey)
	// As on AWS the ARN is unqualified even when a version was published.
	return s.describe(ref.functionKey, out, ref.arn), nil
}

// newConfiguration makes the configuration of a new function, without its code.
func (s *Service) newConfiguration(ctx context.Context, name string, in *api.CreateFunctionInput) (configuration, error) {
	none := configuration{}
	if err := checkNewPackage(in); err != nil {
		return none, err
	}
	for _, option := range []struct {
		name string
		used bool
	}{
		{"PublishTo", in.PublishTo != ""},
	} {
		if option.used {
			return none, unsupported(option.name)
		}
	}
	if err := checkTags(in.Tags); err != nil {
		return none, err
	}
	architecture, err := s.checkArchitecture(in.Architectures)
	if err != nil {
		return none, err
	}
	if architecture == "" {
		// Lambda's default; a host of another architecture runs its own.
		architecture = api.Architecture(s.opts.Architecture)
	}
	c := configuration{
		Deployment:   newID(),
		Architecture: architecture,
		TimeoutSec:   defaultTimeoutSec,
		MemoryMB:     defaultMemoryMB,
		EphemeralMB:  defaultEphemeralMB,
		Logging:      logging{Format: api.LogFormatText, Group: logGroupPrefix + name},
	}
	if in.PackageType == api.PackageTypeImage {
		c.Package = in.PackageType
	}
	if in.TenancyConfig != nil {
		c.Tenancy = in.TenancyConfig.TenantIsolationMode
	}
	err = s.apply(ctx, &options{
		Description: in.Description, Role: in.Role, Runtime: in.Runtime, Handler: in.Handler,
		Timeout: in.Timeout, MemorySize: in.MemorySize, Ephemeral: in.EphemeralStorage,
		Environment: in.Environment, Logging: in.LoggingConfig, Layers: in.Layers,
		VpcConfig: in.VpcConfig, DeadLetter: in.DeadLetterConfig, KMSKeyArn: in.KMSKeyArn,
		Tracing: in.TracingConfig, FileSystemConfigs: in.FileSystemConfigs,
		ImageConfig: in.ImageConfig, SnapStart: in.SnapStart,
		CapacityProviderConfig: in.CapacityProviderConfig, DurableConfig: in.DurableConfig,
	}, &c)
	return c, err
}

// checkNewPackage refuses a new function that lacks what its package type needs,
// or has what goes with the other.
func checkNewPackage(in *api.CreateFunctionInput) error {
	code := sourceOf(in.Code)
	if in.PackageType != api.PackageTypeImage {
		if in.Runtime == "" || in.Handler == nil || strings.TrimSpace(*in.Handler) == "" {
			return invalidParameter("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
		}
		return nil
	}
	switch {
	case code.imageURI == "":
		return invalidParameter("Please provide ImageUri when creating a function with packageType Image.")
	case code.isZip():
		return invalidParameter("Please don't provide a deployment package when creating a function with packageType Image.")
	case aws.Value(in.CodeSigningConfigArn) != "":
		return imageSigning()
	}
	return nil
}

// isZip tells whether a request says where a deployment package is.
func (s source) isZip() bool {
	return s.zip != nil || s.bucket != nil || s.key != nil || s.versionID != nil
}

func sourceOf(in *api.FunctionCode) source {
	return source{
		zip: in.ZipFile, bucket: in.S3Bucket, key: in.S3Key, versionID: in.S3ObjectVersion,
		imageURI: aws.Value(in.ImageUri), kmsKey: aws.Value(in.SourceKMSKeyArn), storage: string(in.S3ObjectStorageMode),
	}
}

func count(b *bool) int {
	if aws.Value(b) {
		return 1
	}
	return 0
}
