package lambda

import (
	"cmp"
	"encoding/base64"
	"maps"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// timeLayout is how Lambda writes the times that its model has as strings.
const timeLayout = "2006-01-02T15:04:05.000-0700"

// describe is a version as the API shows it; arn is the one by which it was
// asked for.
func (s *Service) describe(key functionKey, v resolvedVersion, arn string) *api.FunctionConfiguration {
	st := v.status
	out := s.summarize(key, v, arn)
	out.State, out.StateReasonCode = st.State, st.StateCode
	out.StateReason = optional(st.StateReason)
	out.LastUpdateStatus, out.LastUpdateStatusReasonCode = st.Update, st.UpdateCode
	out.LastUpdateStatusReason = optional(st.UpdateReason)
	out.RuntimeVersionConfig = s.runtimeVersionConfig(key.region, v)
	return out
}

// summarize is a version as lists show it: without its life cycle.
func (s *Service) summarize(key functionKey, v resolvedVersion, arn string) *api.FunctionConfiguration {
	c, st := v.config, v.status
	out := &api.FunctionConfiguration{
		FunctionName: aws.Ptr(key.name),
		FunctionArn:  aws.Ptr(arn),
		Version:      aws.Ptr(v.number),
		Description:  aws.Ptr(c.Description),
		Role:         aws.Ptr(c.Role),
		Runtime:      c.Runtime,
		Handler:      optional(c.Handler),
		Timeout:      aws.Ptr(int32(c.TimeoutSec)),
		MemorySize:   aws.Ptr(int32(c.MemoryMB)),
		CodeSha256:   aws.Ptr(c.sha256()),
		CodeSize:     aws.Ptr(c.Code.Size),
		LastModified: aws.Ptr(st.Modified.UTC().Format(timeLayout)),
		RevisionId:   aws.Ptr(st.Revision),
		Layers:       describeLayers(c.Layers),

		PackageType:      cmp.Or(c.Package, api.PackageTypeZip),
		Architectures:    []api.Architecture{c.Architecture},
		EphemeralStorage: &api.EphemeralStorage{Size: aws.Ptr(int32(c.EphemeralMB))},
		TracingConfig:    &api.TracingConfigResponse{Mode: cmp.Or(c.Tracing, api.TracingModePassThrough)},
		SnapStart:        s.describeSnapStart(key, v),
		LoggingConfig: &api.LoggingConfig{
			LogFormat: c.Logging.Format, ApplicationLogLevel: c.Logging.ApplicationLevel,
			SystemLogLevel: c.Logging.SystemLevel, LogGroup: aws.Ptr(c.Logging.Group),
		},
	}
	out.ImageConfigResponse = c.ImageConfig.describe()
	if c.Tenancy != "" {
		out.TenancyConfig = &api.TenancyConfig{TenantIsolationMode: c.Tenancy}
	}
	if c.DeadLetter != "" {
		out.DeadLetterConfig = &api.DeadLetterConfig{TargetArn: aws.Ptr(c.DeadLetter)}
	}
	if c.Environment != nil {
		out.Environment = &api.EnvironmentResponse{Variables: maps.Clone(c.Environment.Variables)}
	}
	return out
}

// optional returns nil for what the API leaves out when it is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// maxPage is the most that ListFunctions and ListVersionsByFunction return at
// once, whatever MaxItems says.
const maxPage = 50

// pageOf cuts the first page off items; next is the first item of the next page.
func pageOf[T any](items []T, maxItems *int32, limit int) (list []T, next *T) {
	n := limit
	if maxItems != nil {
		n = min(limit, int(*maxItems))
	}
	if len(items) <= n {
		return items, nil
	}
	return items[:n], &items[n]
}

// pageSize is what a request asks for, where AWS names no limit of its own.
func pageSize(maxItems *int32) int {
	if maxItems == nil {
		return maxPage
	}
	return int(*maxItems)
}

// encodeName makes the marker of a list that is ordered by a name. Markers are
// opaque to clients, so that nobody builds on their form.
func encodeName(name string) *string {
	return aws.Ptr(base64.RawURLEncoding.EncodeToString([]byte(name)))
}

// decodeName returns the name in a marker, "" where there is none.
func decodeName(marker *string) (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(aws.Value(marker))
	if err != nil {
		return "", invalidMarker()
	}
	return string(name), nil
}

func invalidMarker() error { return invalidParameter("The value of Marker is invalid.") }
