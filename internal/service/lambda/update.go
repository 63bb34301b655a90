package lambda

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
)

// UpdateFunctionCode implements lambda.API.
func (s *Service) UpdateFunctionCode(ctx context.Context, in *api.UpdateFunctionCodeInput) (*api.UpdateFunctionCodeOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	e, err := s.updatable(ref, in.RevisionId)
	if err != nil {
		return nil, err
	}
	latest := &e.function.Value.Config
	src := source{zip: in.ZipFile, bucket: in.S3Bucket, key: in.S3Key, versionID: in.S3ObjectVersion,
		imageURI: aws.Value(in.ImageUri), kmsKey: aws.Value(in.SourceKMSKeyArn), storage: string(in.S3ObjectStorageMode)}
	switch {
	case latest.isImage() && (src.imageURI == "" || src.isZip()):
		return nil, invalidParameter("Please provide ImageUri when updating a function with packageType Image.")
	case !latest.isImage() && src.imageURI != "":
		return nil, invalidParameter("Please don't provide ImageUri when updating a function with packageType Zip.")
	}
	if in.PublishTo != "" {
		return nil, unsupported("PublishTo")
	}
	architecture, err := s.checkArchitecture(in.Architectures)
	if err != nil {
		return nil, err
	}
	change := func(c *configuration, code artifact) {
		code.set(c)
		if architecture != "" {
			c.Architecture = architecture
		}
	}
	if err := s.checkSigned(ctx, ref, e.function.Value.SigningARN); err != nil {
		return nil, err
	}
	code, release, err := s.code.acquire(ctx, latest, src)
	if err != nil {
		return nil, err
	}
	defer release()
	if aws.Value(in.DryRun) {
		latest, _ := e.version("")
		trial := *latest.config
		change(&trial, code)
		if err := trial.checkUnzipped(); err != nil {
			return nil, err
		}
		return s.describe(ref.functionKey, resolvedVersion{function.Latest, &trial, latest.status}, ref.arn), nil
	}
	if err := s.checkStorage(ref.region, code.code.Size*int64(1+count(in.Publish))-e.function.Value.Config.Code.Size); err != nil {
		return nil, err
	}
	return s.update(ctx, ref, in.RevisionId, aws.Value(in.Publish), func(c *configuration) error {
		change(c, code)
		return nil
	})
}

// UpdateFunctionConfiguration implements lambda.API.
func (s *Service) UpdateFunctionConfiguration(ctx context.Context, in *api.UpdateFunctionConfigurationInput) (*api.UpdateFunctionConfigurationOutput, error) {
	ref, err := s.resolveFunction(ctx, aws.Value(in.FunctionName))
	if err != nil {
		return nil, err
	}
	if len(in.Layers) > 0 {
		e, err := s.updatable(ref, in.RevisionId)
		if err != nil {
			return nil, err
		}
		if err := s.checkSigned(ctx, ref, e.function.Value.SigningARN); err != nil {
			return nil, err
		}
	}
	return s.update(ctx, ref, in.RevisionId, false, func(c *configuration) error {
		return s.apply(ctx, &options{
			Description: in.Description, Role: in.Role, Runtime: in.Runtime, Handler: in.Handler,
			Timeout: in.Timeout, MemorySize: in.MemorySize, Ephemeral: in.EphemeralStorage,
			Environment: in.Environment, Logging: in.LoggingConfig, Layers: in.Layers,
			VpcConfig: in.VpcConfig, DeadLetter: in.DeadLetterConfig, KMSKeyArn: in.KMSKeyArn,
			Tracing: in.TracingConfig, FileSystemConfigs: in.FileSystemConfigs,
			ImageConfig: in.ImageConfig, SnapStart: in.SnapStart,
			CapacityProviderConfig: in.CapacityProviderConfig, DurableConfig: in.DurableConfig,
		}, c)
	})
}

// update changes $LATEST and starts the update's life cycle: until it has
// succeeded, invocations use what they used before.
func (s *Service) update(ctx context.Context, ref reference, revision *string, publish bool, change func(*configuration) error) (*api.FunctionConfiguration, error) {
	defer s.lock(ref.functionKey)()
	e, err := s.updatable(ref, revision) // once more: it may have changed until now
	if err != nil {
		return nil, err
	}
	record := e.function.Value
	if record.Serving == nil && record.State != api.StateFailed {
		old := record.Config
		record.Serving = &old
	}
	if err := change(&record.Config); err != nil {
		return nil, err
	}
	if err := record.Config.checkUnzipped(); err != nil {
		return nil, err
	}
	if err := s.followRuntime(ref.region, &record.Config); err != nil {
		return nil, err
	}
	record.Config.Deployment = newID()
	if record.State == api.StateFailed { // a function that never came up is created anew
		record.status = pending(s.opts.Now())
	} else {
		record.startUpdate(s.opts.Now())
	}

	ctx, cancel := writeContext(ctx)
	defer cancel()
	defer s.reload(ref.functionKey)
	out, arn := resolvedVersion{function.Latest, &record.Config, &record.status}, ref.arn
	if publish {
		if last := e.lastPublished(); last != nil && last.Value.Source == record.Config.fingerprint() {
			out, _ = e.version(number(last.Value.Number))
		} else if out, err = s.putVersion(ctx, ref.functionKey, &record, record.Config, pending(record.Modified)); err != nil {
			return nil, internal(err)
		}
		arn = qualify(ref.arn, out.number)
	}
	if _, err := s.functions.Update(ctx, ref.functionKey.String(), e.function.Revision, record); err != nil {
		return nil, internal(err)
	}
	s.reload(ref.functionKey)
	s.steps.add(ref.functionKey)
	return s.describe(ref.functionKey, out, arn), nil
}

// updatable returns the function if it can be updated now.
func (s *Service) updatable(ref reference, revision *string) (*entry, error) {
	e, err := s.find(reference{ref.functionKey, "", ref.arn})
	if err != nil {
		return nil, err
	}
	if err := checkRevision(revision, e.function.Value.Revision); err != nil {
		return nil, err
	}
	return e, e.checkIdle()
}

// checkIdle refuses while a creation or update is under way.
func (e *entry) checkIdle() error {
	if e.function.Value.inProgress() {
		return conflict("The operation cannot be performed at this time. An update is in progress for resource: %s", e.arn)
	}
	return nil
}

func checkRevision(given *string, latest string) error {
	if given != nil && *given != latest {
		return preconditionFailed("GetFunction/GetAlias")
	}
	return nil
}
