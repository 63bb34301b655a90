package lambda

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	cloudfront "lapwing.dev/lapwing/internal/aws/cloudfront"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

// Limits of functions at edge locations (CloudFront developer guide, "Quotas on
// Lambda@Edge"), and what that page had for viewer events in June 2023.
const (
	maxEdgeTimeout   = 30 * time.Second
	maxEdgePackage   = 50 << 20 // bytes
	maxEdgeEphemeral = 512      // MB

	maxViewerTimeout2023 = 5 * time.Second
	maxViewerPackage2023 = 1 << 20
	maxViewerMemory2023  = 128 // MB
)

// edgeRegion is where functions for edge locations have to be on AWS. Here they
// may be in the Region that Lapwing itself is, too.
const edgeRegion = "us-east-1"

// The principals that a function's role must trust to run at edge locations.
var edgePrincipals = []string{"lambda.amazonaws.com", "edgelambda.amazonaws.com"}

// Roles tells which services may assume a role.
type Roles interface {
	TrustsService(roleARN, service string) bool
}

// Replica returns what edge locations need to run a version at an event; strict
// holds it to the limits of June 2023. An *aws.Error is CloudFront's, in AWS's
// words.
func (s *Service) Replica(_ context.Context, arn string, event distribution.EventType, strict bool) (distribution.LambdaReplica, error) {
	refuse := cloudfront.NewInvalidLambdaFunctionAssociation
	m := functionNamePattern.FindStringSubmatch(arn)
	switch {
	case m == nil || !strings.HasPrefix(arn, "arn:") || m[2] == "" || m[3] == "":
		return distribution.LambdaReplica{}, refuse("The function ARN is not valid. ARN: %s", arn)
	case !isVersion(m[5]):
		return distribution.LambdaReplica{}, refuse("The function ARN must reference a specific function version. (The ARN must end with the version number.) ARN: %s", arn)
	case m[2] != edgeRegion && m[2] != s.opts.Region:
		return distribution.LambdaReplica{}, refuse("The function must be in region '%s'. ARN: %s", edgeRegion, arn)
	}
	ref := s.reference(m[2], m[4], m[5])
	e := s.entries.get(ref.functionKey)
	if m[3] != s.opts.AccountID || e == nil || e.published(ref.qualifier) == nil {
		return distribution.LambdaReplica{}, refuse("Lambda@Edge cannot retrieve the specified Lambda function. Update the IAM policy to add permission: lambda:GetFunction for resource: %s and try again.", arn)
	}
	v := &e.published(ref.qualifier).Value
	if v.State != api.StateActive {
		return distribution.LambdaReplica{}, refuse("The function must be in an Active state. The current state for function %s is %s.", arn, v.State)
	}
	if err := s.checkEdge(arn, v, event, strict); err != nil {
		return distribution.LambdaReplica{}, err
	}
	c := &v.Config
	r := distribution.LambdaReplica{
		ARN: arn, Name: ref.name, Version: ref.qualifier, Revision: c.Deployment,
		Runtime: string(c.Runtime), Handler: c.Handler, Role: c.Role,
		MemoryMB: c.MemoryMB, Timeout: time.Duration(c.TimeoutSec) * time.Second, EphemeralMB: c.EphemeralMB,
		Code: c.Code.Digest, Size: c.Code.Size,
		LogFormat: string(c.Logging.Format), ApplicationLevel: string(c.Logging.ApplicationLevel), SystemLevel: string(c.Logging.SystemLevel),
	}
	if c.Logging.Group != logGroupPrefix+ref.name {
		r.Group = c.Logging.Group
	}
	return r, nil
}

// checkEdge refuses what edge locations do not run (CloudFront developer guide,
// "Restrictions on Lambda@Edge").
func (s *Service) checkEdge(arn string, v *versionRecord, event distribution.EventType, strict bool) error {
	refuse := cloudfront.NewInvalidLambdaFunctionAssociation
	c := &v.Config
	for _, option := range []struct {
		given bool
		name  string
	}{
		{c.isImage(), "a container image"},
		{c.Environment != nil && len(c.Environment.Variables) > 0, "environment variables"},
		{len(c.Layers) > 0, "layers"},
		{c.DeadLetter != "", "a dead letter queue"},
		{c.Tracing == api.TracingModeActive, "X-Ray tracing"},
		{c.Tenancy != "", "tenant isolation"},
		{c.snapStart(), "SnapStart"},
		{c.pinnedRuntime() != "" || c.RuntimeUpdate == api.UpdateRuntimeOnFunctionUpdate, "a runtime management configuration other than Auto"},
		{v.Provisioned != nil, "provisioned concurrency"},
		{c.Architecture == api.ArchitectureArm64 && HostArchitecture() != string(api.ArchitectureArm64), "the arm64 architecture"},
	} {
		if option.given {
			return refuse("The function cannot have %s. Function: %s", option.name, arn)
		}
	}
	if runtimes := edgeRuntimes(); !slices.Contains(runtimes, string(c.Runtime)) {
		return refuse("The function has a runtime that is not supported by Lambda@Edge: %s Function: %s Supported runtimes: %s", c.Runtime, arn, bracketed(runtimes))
	}
	if err := checkEdgeSize(arn, c, event, strict); err != nil {
		return err
	}
	for _, principal := range edgePrincipals {
		if s.opts.Roles == nil || !s.opts.Roles.TrustsService(c.Role, principal) {
			return refuse("The function execution role must be assumable with edgelambda.amazonaws.com as well as lambda.amazonaws.com principals. Update the IAM role and try again. Role: %s", c.Role)
		}
	}
	return nil
}

func checkEdgeSize(arn string, c *configuration, event distribution.EventType, strict bool) error {
	timeout, size, memory := maxEdgeTimeout, int64(maxEdgePackage), 10_240
	if strict && (event == distribution.ViewerRequest || event == distribution.ViewerResponse) {
		timeout, size, memory = maxViewerTimeout2023, maxViewerPackage2023, maxViewerMemory2023
	}
	for _, limit := range []struct {
		what       string
		value, max int64
	}{
		{"timeout is larger than the maximum allowed", int64(c.TimeoutSec), int64(timeout / time.Second)},
		{"code size is larger than the maximum allowed size", c.Code.Size, size},
		{"memory size is larger than the maximum allowed size", int64(c.MemoryMB), int64(memory)},
		{"ephemeral storage is larger than the maximum allowed size", int64(c.EphemeralMB), maxEdgeEphemeral},
	} {
		if limit.value > limit.max {
			return cloudfront.NewInvalidLambdaFunctionAssociation("The function %s for functions that are triggered by a CloudFront event: %d Max allowed: %d Function: %s",
				limit.what, limit.value, limit.max, arn)
		}
	}
	return nil
}

// edgeRuntimes lists the runtimes of edge locations: Node.js and Python.
func edgeRuntimes() (ids []string) {
	for _, r := range api.RuntimeValues {
		if strings.HasPrefix(string(r), "nodejs") && strings.HasSuffix(string(r), ".x") || strings.HasPrefix(string(r), "python3.") {
			ids = append(ids, string(r))
		}
	}
	return ids
}

// replicated returns the ARN of a version of a function that edge locations run,
// of the given one only where number is not empty. Such a version cannot be
// deleted: it goes when no distribution has it associated, and every location
// has given it up.
func (s *Service) replicated(e *entry, number string) (arn string, any bool) {
	if s.opts.Replicas == nil {
		return "", false
	}
	if number != "" {
		arn = qualify(e.arn, number)
		_, any = s.opts.Replicas.Get(arn)
		return arn, any
	}
	for r := range s.opts.Replicas.Scan(e.arn+":", "") {
		return r.Key, true
	}
	return "", false
}

func isReplicated(arn string) error {
	return invalidParameter("Lambda was unable to delete %s because it is a replicated function. Please see our documentation for Deleting Lambda@Edge Functions and Replicas.", arn)
}

// replicaDigests calls visit with the code package of every replica, which stays
// as long as one needs it.
func (s *Service) replicaDigests(visit func(digest string)) {
	if s.opts.Replicas == nil {
		return
	}
	for r := range s.opts.Replicas.Scan("", "") {
		visit(r.Value.Code)
	}
}

// replicaStatements is what the resource policy of a version says while edge
// locations run it: who replicates it may read it and end that.
func (s *Service) replicaStatements(e *entry, ref reference) []statement {
	if e == nil || !isVersion(ref.qualifier) {
		return nil
	}
	arn, replicated := s.replicated(e, ref.qualifier)
	if !replicated {
		return nil
	}
	var all []statement
	for _, action := range []string{"GetFunction", "DisableReplication"} {
		all = append(all, statement{
			Sid: "replicator-lambda-" + action, Effect: "Allow", Principal: principal{Service: "replicator.lambda.amazonaws.com"},
			Action: "lambda:" + action, Resource: arn,
		})
	}
	return all
}

// OpenPackage opens a code package by its SHA-256, in hexadecimal;
// state.ErrNotFound where there is none.
func (s *Service) OpenPackage(digest string) (io.ReadSeekCloser, error) {
	d, err := state.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	f, err := s.code.blobs.Open(d)
	if err != nil {
		return nil, err // not f: a nil file in an interface is not nil
	}
	return f, nil
}
