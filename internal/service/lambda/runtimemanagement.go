package lambda

import (
	"context"
	"fmt"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
)

// A host serves one version of each runtime: that of the interpreter that is
// installed. A function whose runtime is not updated automatically runs on the
// version that it has or not at all: where the host serves another one by then,
// its environments do not start, and what it is told is what to do about it.

// pinnedRuntime is the ARN of the only runtime version on which the function
// may run, or "" where it may run on any.
func (c *configuration) pinnedRuntime() string {
	if c.RuntimeUpdate == "" || c.RuntimeUpdate == api.UpdateRuntimeOnAuto {
		return ""
	}
	return c.RuntimeARN
}

// checkPinned tells whether the host serves the runtime version that the
// function must run on. The ARN is the one that it runs on.
func (s *Service) checkPinned(region string, c *configuration) (arn string, err error) {
	arn, err = s.opts.RuntimeVersion(region, string(c.Runtime))
	if pinned := c.pinnedRuntime(); pinned != "" {
		if err == nil && pinned != arn {
			err = fmt.Errorf("runtime version %s is not installed here any more; %s is now %s. Change the function's runtime management configuration", pinned, c.Runtime, arn)
		}
		arn = pinned
	}
	return arn, err
}

// runtimeVersionConfig is the runtime version as the API shows it: the one that
// environments get, and while an update is under way the one that it found.
func (s *Service) runtimeVersionConfig(region string, v resolvedVersion) *api.RuntimeVersionConfig {
	if v.config.isImage() {
		return nil
	}
	if v.status.inProgress() {
		return &api.RuntimeVersionConfig{RuntimeVersionArn: optional(v.config.RuntimeARN)}
	}
	arn, err := s.checkPinned(region, v.config)
	out := &api.RuntimeVersionConfig{RuntimeVersionArn: optional(arn)}
	if err != nil {
		out.Error = &api.RuntimeVersionError{ErrorCode: aws.Ptr(codeInvalidRuntime), Message: aws.Ptr(err.Error())}
	}
	return out
}

// followRuntime gives a configuration that is being updated the runtime version
// that the host serves, unless it is to keep the one that it has.
func (s *Service) followRuntime(region string, c *configuration) error {
	if c.RuntimeUpdate != api.UpdateRuntimeOnFunctionUpdate || c.isImage() {
		return nil
	}
	arn, err := s.checkRuntime(region, c.Runtime)
	c.RuntimeARN = arn
	return err
}

// runtimeManaged finds the version whose runtime management a request is about.
func (s *Service) runtimeManaged(ctx context.Context, name, qualifier *string) (reference, *entry, resolvedVersion, error) {
	ref, e, v, err := s.lookup(ctx, name, qualifier)
	if err == nil && isAlias(ref.qualifier) {
		err = invalidParameter("This operation is permitted on Lambda functions and versions only. Aliases do not support this operation. Please specify a function name or a version.")
	}
	if err == nil && v.config.isImage() {
		err = invalidParameter("Runtime management configuration is not supported for functions created with container images.")
	}
	return ref, e, v, err
}

// PutRuntimeManagementConfig implements lambda.API.
func (s *Service) PutRuntimeManagementConfig(ctx context.Context, in *api.PutRuntimeManagementConfigInput) (*api.PutRuntimeManagementConfigOutput, error) {
	ref, _, _, err := s.runtimeManaged(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	manual := in.UpdateRuntimeOn == api.UpdateRuntimeOnManual
	if given := aws.Value(in.RuntimeVersionArn) != ""; manual != given {
		return nil, invalidParameter("RuntimeVersionArn is required if UpdateRuntimeOn is Manual, and must not be given otherwise.")
	}
	defer s.lock(ref.functionKey)()
	ref, e, v, err := s.runtimeManaged(ctx, in.FunctionName, in.Qualifier) // once more: it may have changed until now
	if err != nil {
		return nil, err
	}
	if err := e.checkIdle(); err != nil {
		return nil, err
	}
	arn, err := s.checkRuntime(ref.region, v.config.Runtime)
	if err != nil {
		return nil, err
	}
	if manual && *in.RuntimeVersionArn != arn {
		return nil, invalidParameter("The runtime version %s is not installed on this host, which serves %s with %s.", *in.RuntimeVersionArn, v.config.Runtime, arn)
	}
	if err := s.writeRuntimeManagement(ctx, e, v.number, in.UpdateRuntimeOn, arn); err != nil {
		return nil, internal(err)
	}
	return &api.PutRuntimeManagementConfigOutput{
		UpdateRuntimeOn: in.UpdateRuntimeOn, FunctionArn: aws.Ptr(ref.qualified()), RuntimeVersionArn: optional(aws.Value(in.RuntimeVersionArn)),
	}, nil
}

// writeRuntimeManagement changes the record of a version and ends its
// environments, which may run on another runtime version.
func (s *Service) writeRuntimeManagement(ctx context.Context, e *entry, version string, mode api.UpdateRuntimeOn, arn string) (err error) {
	ctx, cancel := writeContext(ctx)
	defer cancel()
	set := func(c *configuration) { c.RuntimeUpdate, c.RuntimeARN, c.Deployment = mode, arn, newID() }
	if v := e.published(version); v != nil {
		record := v.Value
		set(&record.Config)
		record.Revision = newID()
		_, err = s.versions.Update(ctx, v.Key, v.Revision, record)
	} else {
		record := e.function.Value
		set(&record.Config)
		if record.Serving != nil { // the last update failed
			serving := *record.Serving
			set(&serving)
			record.Serving = &serving
		}
		record.Revision = newID()
		version = function.Latest
		_, err = s.functions.Update(ctx, e.function.Key, e.function.Revision, record)
	}
	s.reload(e.key)
	if err == nil {
		s.opts.Invoker.Retire(e.arn, version)
		s.steps.add(e.key) // the snapshot that was being made is of another runtime
	}
	return err
}

// GetRuntimeManagementConfig implements lambda.API. As on AWS the runtime
// version is shown only where it was chosen by hand.
func (s *Service) GetRuntimeManagementConfig(ctx context.Context, in *api.GetRuntimeManagementConfigInput) (*api.GetRuntimeManagementConfigOutput, error) {
	ref, _, v, err := s.runtimeManaged(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	out := &api.GetRuntimeManagementConfigOutput{UpdateRuntimeOn: v.config.RuntimeUpdate, FunctionArn: aws.Ptr(ref.qualified())}
	switch out.UpdateRuntimeOn {
	case "":
		out.UpdateRuntimeOn = api.UpdateRuntimeOnAuto
	case api.UpdateRuntimeOnManual:
		out.RuntimeVersionArn = aws.Ptr(v.config.RuntimeARN)
	}
	return out, nil
}
