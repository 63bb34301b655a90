package lambda

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/runtimes"
)

// Limits of a configuration (Lambda quotas). The API model allows more, for
// functions on managed instances.
const (
	maxTimeoutSec       = 900
	maxMemoryMB         = 10240
	maxEnvironmentBytes = 4096 // of its JSON rendering
	maxTags             = 50

	defaultTimeoutSec  = 3
	defaultMemoryMB    = 128
	defaultEphemeralMB = 512
)

// options are the parameters that CreateFunction and UpdateFunctionConfiguration
// have in common.
type options struct {
	Description *string
	Role        *string
	Runtime     api.Runtime
	Handler     *string
	Timeout     *int32
	MemorySize  *int32
	Ephemeral   *api.EphemeralStorage
	Environment *api.Environment
	Logging     *api.LoggingConfig
	Tracing     *api.TracingConfig
	Layers      []string // nil: not given
	DeadLetter  *api.DeadLetterConfig
	ImageConfig *api.ImageConfig
	SnapStart   *api.SnapStart

	// What Lapwing does not have: accepted only where it asks for nothing.
	VpcConfig              *api.VpcConfig
	KMSKeyArn              *string
	FileSystemConfigs      []*api.FileSystemConfig
	CapacityProviderConfig *api.CapacityProviderConfig
	DurableConfig          *api.DurableConfig
}

// refuseUnsupported refuses options that would ask for something that Lapwing
// does not do, and lets their harmless values pass.
func (o *options) refuseUnsupported() error {
	for _, option := range []struct {
		name string
		used bool
	}{
		{"VpcConfig", o.VpcConfig != nil && (len(o.VpcConfig.SubnetIds) > 0 || len(o.VpcConfig.SecurityGroupIds) > 0 || aws.Value(o.VpcConfig.Ipv6AllowedForDualStack))},
		{"KMSKeyArn", aws.Value(o.KMSKeyArn) != ""},
		{"FileSystemConfigs", len(o.FileSystemConfigs) > 0},
		{"CapacityProviderConfig", o.CapacityProviderConfig != nil},
		{"DurableConfig", o.DurableConfig != nil},
	} {
		if option.used {
			return unsupported(option.name)
		}
	}
	return nil
}

// apply checks the options that are given and sets them in c.
func (s *Service) apply(ctx context.Context, o *options, c *configuration) error {
	if err := cmp.Or(o.refuseUnsupported(), o.checkPackage(c)); err != nil {
		return err
	}
	if o.Description != nil {
		c.Description = *o.Description
	}
	if o.Role != nil {
		if err := s.checkRole(*o.Role); err != nil {
			return err
		}
		c.Role = *o.Role
	}
	if o.Runtime != "" {
		if o.Runtime != c.Runtime && c.RuntimeUpdate == api.UpdateRuntimeOnManual {
			return invalidParameter("The runtime cannot be changed while UpdateRuntimeOn is Manual. Change the function's runtime management configuration first.")
		}
		arn, err := s.checkRuntime(s.region(ctx), o.Runtime)
		if err != nil {
			return err
		}
		if c.RuntimeUpdate == api.UpdateRuntimeOnManual {
			arn = c.RuntimeARN
		}
		c.Runtime, c.RuntimeARN = o.Runtime, arn
	}
	if o.Handler != nil {
		c.Handler = *o.Handler
	}
	if o.Timeout != nil {
		if *o.Timeout > maxTimeoutSec {
			return validation("Value '%d' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to %d", *o.Timeout, maxTimeoutSec)
		}
		c.TimeoutSec = int(*o.Timeout)
	}
	if o.MemorySize != nil {
		if *o.MemorySize > maxMemoryMB {
			return invalidParameter("'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to %d", maxMemoryMB)
		}
		c.MemoryMB = int(*o.MemorySize)
	}
	if o.Ephemeral != nil {
		c.EphemeralMB = int(aws.Value(o.Ephemeral.Size))
	}
	if o.Environment != nil {
		if err := checkEnvironment(o.Environment.Variables); err != nil {
			return err
		}
		c.Environment = &environment{o.Environment.Variables}
	}
	if o.ImageConfig != nil {
		own, err := newImageConfig(o.ImageConfig)
		if err != nil {
			return err
		}
		c.ImageConfig = own
	}
	if o.DeadLetter != nil {
		if err := s.checkDeadLetter(aws.Value(o.DeadLetter.TargetArn)); err != nil {
			return err
		}
		c.DeadLetter = aws.Value(o.DeadLetter.TargetArn)
	}
	if o.Layers != nil {
		layers, err := s.useLayers(ctx, o.Layers)
		if err != nil {
			return err
		}
		c.Layers = layers
	}
	if o.Tracing != nil && o.Tracing.Mode != "" {
		c.Tracing = o.Tracing.Mode
	}
	if o.Logging != nil {
		if err := c.Logging.apply(o.Logging); err != nil {
			return err
		}
	}
	if o.SnapStart != nil && o.SnapStart.ApplyOn != "" {
		c.SnapStart = o.SnapStart.ApplyOn
		if c.SnapStart == api.SnapStartApplyOnNone {
			c.SnapStart = "" // as functions are that never had it
		}
	}
	return s.checkSnapStart(o.SnapStart, c)
}

var rolePattern = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:iam::(\d{12}):role/?[a-zA-Z_0-9+=,.@\-_/]+$`)

// checkRole takes any well-formed role of this account. Whether it exists is a
// question of policy evaluation, which there is not yet.
func (s *Service) checkRole(arn string) error {
	m := rolePattern.FindStringSubmatch(arn)
	if m == nil {
		return validation(`Value '%s' at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+`, arn)
	}
	if m[1] != s.opts.AccountID {
		return accessDenied("Cross-account pass role is not allowed.")
	}
	return nil
}

// deprecatedRuntimes are ids that Lambda knows and takes no more for creating
// or updating functions (Lambda runtimes, deprecated runtimes). Ids that are
// deprecated but still taken, such as nodejs16.x, are a question of what the
// host serves.
var deprecatedRuntimes = []api.Runtime{
	"nodejs", "nodejs4.3", "nodejs4.3-edge", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x", "nodejs14.x",
	"python2.7", "python3.6", "python3.7", "java8", "dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1",
	"go1.x", "ruby2.5", "ruby2.7", "provided",
}

// checkRuntime returns the ARN of the runtime version that serves id.
func (s *Service) checkRuntime(region string, id api.Runtime) (arn string, err error) {
	if slices.Contains(deprecatedRuntimes, id) {
		return "", invalidParameter("The runtime parameter of %s is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions.", id)
	}
	arn, err = s.opts.RuntimeVersion(region, string(id))
	if _, unknown := errors.AsType[*runtimes.UnknownError](err); unknown {
		return "", invalidParameter("Value %s at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [%s] or be a valid ARN", id, strings.Join(runtimes.IDs(), ", "))
	}
	if err != nil {
		return "", invalidParameter("The runtime %s cannot be used on this host: %v", id, err).WithCause(err)
	}
	return arn, nil
}

// reservedVariables are the names that a function cannot set (Lambda developer
// guide, Defined runtime environment variables).
var reservedVariables = []string{
	"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV",
	"AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION",
	"AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
	"AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_METADATA_API", "AWS_LAMBDA_METADATA_TOKEN", "AWS_LAMBDA_RUNTIME_API",
	"AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT",
}

var variablePattern = regexp.MustCompile(`^[a-zA-Z]([a-zA-Z0-9_])+$`)

func checkEnvironment(variables map[string]string) error {
	var reserved []string
	for name := range variables {
		if slices.Contains(reservedVariables, name) {
			reserved = append(reserved, name)
		}
	}
	if len(reserved) > 0 {
		slices.Sort(reserved)
		return invalidParameter("Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: %s", strings.Join(reserved, ", "))
	}
	for name, value := range variables {
		if strings.ContainsRune(value, 0) { // no process can have such a one
			return invalidParameter("Lambda was unable to configure your environment variables because the value of %s contains a NUL character.", name)
		}
		if !variablePattern.MatchString(name) {
			return validation("Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+, Member must not be null]")
		}
	}
	if len(variables) == 0 {
		return nil
	}
	var measured bytes.Buffer
	enc := json.NewEncoder(&measured)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(variables); err != nil {
		return internal(err)
	}
	text := strings.TrimSuffix(measured.String(), "\n")
	if len(text) > maxEnvironmentBytes {
		return invalidParameter("Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: %s", text)
	}
	return nil
}

// apply merges what a request says about logging into l.
func (l *logging) apply(in *api.LoggingConfig) error {
	if in.LogFormat != "" {
		l.Format = in.LogFormat
	}
	if l.Format == api.LogFormatText {
		if in.ApplicationLogLevel != "" || in.SystemLogLevel != "" {
			return invalidParameter(`LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.`)
		}
		l.ApplicationLevel, l.SystemLevel = "", ""
	} else {
		l.ApplicationLevel = cmp.Or(in.ApplicationLogLevel, l.ApplicationLevel, api.ApplicationLogLevelInfo)
		l.SystemLevel = cmp.Or(in.SystemLogLevel, l.SystemLevel, api.SystemLogLevelInfo)
	}
	if in.LogGroup != nil {
		l.Group = *in.LogGroup
	}
	return nil
}

// checkArchitecture returns the one architecture that a request asks for.
func (s *Service) checkArchitecture(list []api.Architecture) (api.Architecture, error) {
	switch {
	case len(list) == 0:
		return "", nil
	case len(list) > 1:
		return "", validation("Value '%s' at 'architectures' failed to satisfy constraint: Member must have length less than or equal to 1", bracketed(list))
	case string(list[0]) != s.opts.Architecture:
		return "", invalidParameter("The architecture %s is not supported on this host, which is %s.", list[0], s.opts.Architecture)
	}
	return list[0], nil
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return invalidParameter("Number of tags exceeds resource tag limit.")
	}
	for key, value := range tags {
		switch {
		case key == "" || len([]rune(key)) > 128:
			return invalidParameter("Tag keys must have between 1 and 128 characters.")
		case len([]rune(value)) > 256:
			return invalidParameter("The value of the tag %s must have at most 256 characters.", key)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return invalidParameter("The tag %s is invalid: keys that begin with aws: are reserved.", key)
		case key == snapshotsTag && value != "on" && value != "off":
			return invalidParameter("The tag %s must be on or off: it tells Lapwing whether to start the function from snapshots.", key)
		}
	}
	return nil
}
