package lambda

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// fakeRoles trusts these services, whatever the role.
type fakeRoles []string

func (f fakeRoles) TrustsService(_, service string) bool { return slices.Contains(f, service) }

func edgeFixture(t *testing.T) *fixture {
	return newFixture(t, func(o *Options) { o.Roles = fakeRoles(edgePrincipals) })
}

const codeAssociation = "InvalidLambdaFunctionAssociation"

// replicate writes the record of a replica, as the cloudfront service does.
func (f *fixture) replicate(arn string) distribution.LambdaReplica {
	f.t.Helper()
	r, err := f.Replica(f.ctx(), arn, distribution.ViewerRequest, false)
	if err == nil {
		_, err = f.opts.Replicas.Put(f.ctx(), arn, r)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func TestReplicaHasAllThatEdgeLocationsNeed(t *testing.T) {
	f := edgeFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) {
		in.Timeout, in.MemorySize = aws.Ptr(int32(5)), aws.Ptr(int32(256))
		in.LoggingConfig = &api.LoggingConfig{LogFormat: api.LogFormatJson, LogGroup: aws.Ptr("edge")}
	})
	f.publish("hello")
	got := f.replicate(arnPrefix + "hello:1")
	_, target, err := f.route(f.reference(testRegion, "hello", "1"))
	if err != nil {
		t.Fatal(err)
	}
	want := distribution.LambdaReplica{
		ARN: arnPrefix + "hello:1", Name: "hello", Version: "1", Revision: target.version.Revision,
		Runtime: "nodejs22.x", Handler: "index.handler", Role: testRole, MemoryMB: 256, Timeout: 5 * time.Second, EphemeralMB: 512,
		Code: target.code.Digest, Size: target.code.Size, LogFormat: "JSON", ApplicationLevel: "INFO", SystemLevel: "INFO", Group: "edge",
	}
	if got.Distributions = nil; !equalReplicas(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func equalReplicas(a, b distribution.LambdaReplica) bool {
	a.Distributions, b.Distributions = nil, nil
	return a.Format == b.Format && a.ARN == b.ARN && a.Name == b.Name && a.Version == b.Version && a.Revision == b.Revision &&
		a.Runtime == b.Runtime && a.Handler == b.Handler && a.Role == b.Role && a.MemoryMB == b.MemoryMB && a.Timeout == b.Timeout &&
		a.EphemeralMB == b.EphemeralMB && a.Code == b.Code && a.Size == b.Size && a.LogFormat == b.LogFormat &&
		a.ApplicationLevel == b.ApplicationLevel && a.SystemLevel == b.SystemLevel && a.Group == b.Group
}

func TestVersionsThatEdgeLocationsDoNotRun(t *testing.T) {
	f := edgeFixture(t)
	f.create("plain")
	f.publish("plain")
	add := func(name string, change func(*api.CreateFunctionInput)) {
		f.create(name, change)
		f.publish(name)
	}
	add("env", func(in *api.CreateFunctionInput) {
		in.Environment = &api.Environment{Variables: map[string]string{"AB": "c"}}
	})
	add("queue", func(in *api.CreateFunctionInput) {
		in.DeadLetterConfig = &api.DeadLetterConfig{TargetArn: aws.Ptr(arnPrefix + "plain")}
	})
	add("traced", func(in *api.CreateFunctionInput) { in.TracingConfig = &api.TracingConfig{Mode: api.TracingModeActive} })
	add("provided", func(in *api.CreateFunctionInput) { in.Runtime = "provided.al2023" })
	add("slow", func(in *api.CreateFunctionInput) { in.Timeout = aws.Ptr(int32(31)) })
	add("viewer", func(in *api.CreateFunctionInput) { in.Timeout = aws.Ptr(int32(6)) })
	add("large", func(in *api.CreateFunctionInput) { in.MemorySize = aws.Ptr(int32(256)) })
	add("temporary", func(in *api.CreateFunctionInput) {
		in.EphemeralStorage = &api.EphemeralStorage{Size: aws.Ptr(int32(1024))}
	})
	for _, c := range []struct {
		arn     string
		event   distribution.EventType
		strict  bool
		message string // empty: it runs
	}{
		{arnPrefix + "plain:1", distribution.ViewerRequest, true, ""},
		{arnPrefix + "plain", distribution.ViewerRequest, false, "must reference a specific function version. (The ARN must end with the version number.) ARN: " + arnPrefix + "plain"},
		{arnPrefix + "plain:$LATEST", distribution.ViewerRequest, false, "must reference a specific function version"},
		{arnPrefix + "plain:live", distribution.ViewerRequest, false, "must reference a specific function version"},
		{"plain:1", distribution.ViewerRequest, false, "not valid"},
		{"", distribution.ViewerRequest, false, "not valid"},
		{strings.Replace(arnPrefix, testRegion, "ap-south-1", 1) + "plain:1", distribution.ViewerRequest, false, "must be in region 'us-east-1'"},
		{arnPrefix + "plain:2", distribution.ViewerRequest, false, "Lambda@Edge cannot retrieve the specified Lambda function"},
		{arnPrefix + "none:1", distribution.ViewerRequest, false, "Lambda@Edge cannot retrieve the specified Lambda function"},
		{strings.Replace(arnPrefix, testRegion, "us-east-1", 1) + "plain:1", distribution.ViewerRequest, false, "Lambda@Edge cannot retrieve"},
		{strings.Replace(arnPrefix, testAccount, "210987654321", 1) + "plain:1", distribution.ViewerRequest, false, "Lambda@Edge cannot retrieve"},
		{arnPrefix + "env:1", distribution.OriginRequest, false, "cannot have environment variables. Function: " + arnPrefix + "env:1"},
		{arnPrefix + "queue:1", distribution.OriginRequest, false, "cannot have a dead letter queue"},
		{arnPrefix + "traced:1", distribution.OriginRequest, false, "cannot have X-Ray tracing"},
		{arnPrefix + "provided:1", distribution.OriginRequest, false, "runtime that is not supported by Lambda@Edge: provided.al2023"},
		{arnPrefix + "slow:1", distribution.OriginRequest, false, "timeout is larger than the maximum allowed for functions that are triggered by a CloudFront event: 31 Max allowed: 30"},
		{arnPrefix + "temporary:1", distribution.OriginRequest, false, "ephemeral storage"},
		{arnPrefix + "viewer:1", distribution.ViewerResponse, false, ""},
		{arnPrefix + "viewer:1", distribution.ViewerResponse, true, "6 Max allowed: 5"},
		{arnPrefix + "viewer:1", distribution.OriginResponse, true, ""},
		{arnPrefix + "large:1", distribution.ViewerRequest, true, "memory size is larger than the maximum allowed size for functions that are triggered by a CloudFront event: 256 Max allowed: 128"},
		{arnPrefix + "large:1", distribution.ViewerRequest, false, ""},
	} {
		_, err := f.Replica(f.ctx(), c.arn, c.event, c.strict)
		if c.message != "" {
			wantError(t, err, codeAssociation, c.message)
		} else if err != nil {
			t.Errorf("%s at %s: %v", c.arn, c.event, err)
		}
	}
}

func TestEdgeFunctionsRoleTrustsBothServices(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Roles = fakeRoles{"lambda.amazonaws.com"} })
	f.create("hello")
	f.publish("hello")
	_, err := f.Replica(f.ctx(), arnPrefix+"hello:1", distribution.ViewerRequest, false)
	wantError(t, err, codeAssociation, "must be assumable with edgelambda.amazonaws.com as well as lambda.amazonaws.com principals. Update the IAM role and try again. Role: "+testRole)
}

func TestReplicatedVersionIsNotDeleted(t *testing.T) {
	f := edgeFixture(t)
	f.create("hello")
	f.publish("hello")
	f.create("hello2")
	arn := arnPrefix + "hello:1"
	f.replicate(arn)
	const message = "because it is a replicated function. Please see our documentation for Deleting Lambda@Edge Functions and Replicas."
	for _, qualifier := range []*string{nil, aws.Ptr("1")} {
		_, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello"), Qualifier: qualifier})
		wantError(t, err, codeInvalid, "Lambda was unable to delete "+arn+" "+message)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello2")}); err != nil {
		t.Errorf("another function: %v", err)
	}
	item, _ := f.opts.Replicas.Get(arn)
	if err := f.opts.Replicas.Delete(f.ctx(), arn, item.Revision); err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")}); err != nil {
		t.Errorf("after the replica was given up: %v", err)
	}
}

func TestReplicatedVersionsPolicyNamesTheReplicator(t *testing.T) {
	f := edgeFixture(t)
	f.create("hello")
	f.publish("hello")
	arn := arnPrefix + "hello:1"
	policy := func() string {
		out, err := f.GetPolicy(f.ctx(), &api.GetPolicyInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")})
		if err != nil {
			return ""
		}
		return *out.Policy
	}
	if got := policy(); got != "" {
		t.Errorf("before: %s", got)
	}
	f.replicate(arn)
	got := policy()
	for _, action := range []string{"lambda:GetFunction", "lambda:DisableReplication"} {
		if want := `"Principal":{"Service":"replicator.lambda.amazonaws.com"},"Action":"` + action + `","Resource":"` + arn + `"`; !strings.Contains(got, want) {
			t.Errorf("policy is %s, lacks %s", got, want)
		}
	}
}

func TestCodeOfAReplicaStaysThoughItsFunctionIsGone(t *testing.T) {
	f := edgeFixture(t)
	f.create("hello")
	f.publish("hello")
	r := f.replicate(arnPrefix + "hello:1")
	item, _ := f.opts.Replicas.Get(r.ARN)
	// As where a version is deleted while it is being associated.
	if err := f.opts.Replicas.Delete(f.ctx(), r.ARN, item.Revision); err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.opts.Replicas.Put(f.ctx(), r.ARN, r); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(time.Hour)
	f.code.collectDue()
	f.reopen()
	if !f.opts.Images.Has(r.Code) {
		t.Error("the image is gone")
	}
}
