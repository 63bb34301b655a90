package cloudfront

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/state"
)

const (
	testAccount    = "123456789012"
	cachingOptimal = "658327ea-f89d-4fab-a63d-7e88639e58f6"
	allViewer      = "216adef6-5c7f-47e4-b989-5492eafa07d3"
	edgeFunction   = "arn:aws:lambda:us-east-1:" + testAccount + ":function:edge:1"
)

// locations are edge locations that have come as far as a test says.
type locations struct {
	applied atomic.Pointer[distribution.Revisions]
}

func (l *locations) Applied() distribution.Revisions { return *l.applied.Load() }

func (l *locations) are(revision uint64) {
	l.applied.Store(&distribution.Revisions{Distributions: revision, Certificates: revision, Functions: revision, Replicas: revision, Invalidations: revision, KeyValues: revision, RealtimeLogs: revision})
}

// lambdas are the Lambda functions that there are: edgeFunction.
type lambdas struct{}

func (lambdas) Replica(_ context.Context, arn string, _ distribution.EventType, _ bool) (distribution.LambdaReplica, error) {
	if arn != edgeFunction {
		return distribution.LambdaReplica{}, api.NewInvalidLambdaFunctionAssociation("The function ARN must reference a specific function version. (The ARN must end with the version number.) ARN: %s", arn)
	}
	return distribution.LambdaReplica{ARN: arn, Name: "edge", Version: "1"}, nil
}

// buckets are those that there are. An object's key is what it holds.
type buckets map[string]bool

func (b buckets) HasBucket(name string) bool { return b[name] }

func (b buckets) OpenObject(_ context.Context, bucket, key, _ string) (io.ReadCloser, int64, string, string, error) {
	if !b[bucket] {
		return nil, 0, "", "", &aws.Error{Code: "NoSuchBucket", Message: "The specified bucket does not exist", Status: 404}
	}
	return io.NopCloser(strings.NewReader(key)), int64(len(key)), "", "", nil
}

type fixture struct {
	*Service
	t         *testing.T
	dir       string
	store     *state.Store
	locations locations
	buckets   buckets
}

func newFixture(t *testing.T) *fixture { return newFixtureIn(t, t.TempDir()) }

func newFixtureIn(t *testing.T, dir string) *fixture {
	f := &fixture{t: t, dir: dir, buckets: buckets{"logs": true}}
	f.locations.are(math.MaxUint64)
	f.open()
	t.Cleanup(func() { f.close() })
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.store, err = state.Open(f.t.Context(), state.Options{Dir: f.dir}); err != nil {
		f.t.Fatal(err)
	}
	records, err := distribution.Open(f.t.Context(), f.store)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Service, err = New(f.t.Context(), Options{
		Store: f.store, Records: records, AccountID: testAccount, Locations: &f.locations, Functions: lambdas{}, Buckets: f.buckets, KeyValues: keyvalue.NewWriter(keyvalue.NewStores(records.KeyValues)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) close() {
	f.t.Helper()
	f.Close()
	if err := f.store.Close(); err != nil {
		f.t.Error(err)
	}
}

// config returns a configuration of nothing but what is required.
func config(reference string) *api.DistributionConfig {
	return &api.DistributionConfig{
		CallerReference: &reference, Comment: aws.Ptr(""), Enabled: aws.Ptr(true),
		Origins: &api.Origins{Quantity: aws.Ptr[int32](1), Items: []*api.Origin{{
			Id: aws.Ptr("web"), DomainName: aws.Ptr("origin.example.net"),
			CustomOriginConfig: &api.CustomOriginConfig{HTTPPort: aws.Ptr[int32](80), HTTPSPort: aws.Ptr[int32](443), OriginProtocolPolicy: api.OriginProtocolPolicyHttpOnly},
		}}},
		DefaultCacheBehavior: &api.DefaultCacheBehavior{
			TargetOriginId: aws.Ptr("web"), ViewerProtocolPolicy: api.ViewerProtocolPolicyAllowAll, CachePolicyId: aws.Ptr(cachingOptimal),
		},
	}
}

// clone copies a shape, so that what a test changes is nobody else's.
func clone[T any](f *fixture, v *T) *T {
	f.t.Helper()
	b, err := json.Marshal(v)
	var out T
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return &out
}

func (f *fixture) create(c *api.DistributionConfig) *api.CreateDistributionOutput {
	f.t.Helper()
	out, err := f.CreateDistribution(f.t.Context(), &api.CreateDistributionInput{DistributionConfig: c})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// code returns the code of an error, and "" for none.
func code(err error) string {
	if e, ok := errors.AsType[*aws.Error](err); ok {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("error %q (%v), want %q", got, err, want)
	}
}
