package cloudfront_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"context"

	sdk "github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/service/cloudfront"
	"lapwing.dev/lapwing/test/servicetest"
)

// everywhere are edge locations that take every change at once.
type everywhere struct{}

func (everywhere) Applied() distribution.Revisions {
	const all = 1 << 62
	return distribution.Revisions{Distributions: all, Certificates: all, Functions: all, Replicas: all, Invalidations: all, KeyValues: all}
}

// noLambda is a Lambda service without functions.
type noLambda struct{}

func (noLambda) Replica(_ context.Context, arn string, _ distribution.EventType, _ bool) (distribution.LambdaReplica, error) {
	return distribution.LambdaReplica{}, api.NewInvalidLambdaFunctionAssociation("no function %s", arn)
}

// connect starts the service behind the gateway and returns the AWS SDK's client.
func connect(t *testing.T) *sdk.Client {
	t.Helper()
	t.Parallel()
	i := servicetest.New(t)
	records, err := distribution.Open(t.Context(), i.Store)
	if err != nil {
		t.Fatal(err)
	}
	service, err := cloudfront.New(t.Context(), cloudfront.Options{
		Store: i.Store, Records: records, AccountID: i.Credentials.AccountID(), Locations: everywhere{}, Functions: noLambda{}, Logger: slog.New(slog.DiscardHandler),
		KeyValues: keyvalue.NewWriter(keyvalue.NewStores(records.KeyValues)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	cfg := i.Serve(gateway.Options{Services: []*aws.Service{api.NewService(service)}, Region: "eu-central-1"})
	cfg.Region = "us-east-1"
	return sdk.NewFromConfig(cfg)
}

func ptr[T any](v T) *T { return &v }

func sdkConfig(reference string) *types.DistributionConfig {
	return &types.DistributionConfig{
		CallerReference: &reference, Comment: ptr("by the SDK"), Enabled: ptr(true),
		Origins: &types.Origins{Quantity: ptr[int32](1), Items: []types.Origin{{
			Id: ptr("web"), DomainName: ptr("origin.example.net"),
			CustomOriginConfig: &types.CustomOriginConfig{HTTPPort: ptr[int32](80), HTTPSPort: ptr[int32](443), OriginProtocolPolicy: types.OriginProtocolPolicyHttpOnly},
		}}},
		DefaultCacheBehavior: &types.DefaultCacheBehavior{
			TargetOriginId: ptr("web"), ViewerProtocolPolicy: types.ViewerProtocolPolicyRedirectToHttps, CachePolicyId: ptr("658327ea-f89d-4fab-a63d-7e88639e58f6"),
		},
	}
}

// The life of a distribution as Terraform and CDK have it: make, wait, read,
// change what was read, disable, wait, delete.
func TestLifeOfADistributionBySDK(t *testing.T) {
	c, ctx := connect(t), t.Context()
	made := servicetest.Must[*sdk.CreateDistributionWithTagsOutput](t)(c.CreateDistributionWithTags(ctx, &sdk.CreateDistributionWithTagsInput{
		DistributionConfigWithTags: &types.DistributionConfigWithTags{
			DistributionConfig: sdkConfig("one"), Tags: &types.Tags{Items: []types.Tag{{Key: ptr("team"), Value: ptr("web")}}},
		},
	}))
	d := made.Distribution
	if !strings.HasSuffix(*made.Location, "/2020-05-31/distribution/"+*d.Id) || *made.ETag == "" || !strings.HasSuffix(*d.DomainName, ".cloudfront.net") {
		t.Errorf("made %s at %s, ETag %s, domain %s", *d.Id, *made.Location, *made.ETag, *d.DomainName)
	}
	if err := sdk.NewDistributionDeployedWaiter(c).Wait(ctx, &sdk.GetDistributionInput{Id: d.Id}, time.Minute); err != nil {
		t.Fatal(err)
	}
	tags := servicetest.Must[*sdk.ListTagsForResourceOutput](t)(c.ListTagsForResource(ctx, &sdk.ListTagsForResourceInput{Resource: d.ARN}))
	if len(tags.Tags.Items) != 1 || *tags.Tags.Items[0].Value != "web" {
		t.Errorf("tags %+v", tags.Tags)
	}
	got := servicetest.Must[*sdk.GetDistributionConfigOutput](t)(c.GetDistributionConfig(ctx, &sdk.GetDistributionConfigInput{Id: d.Id}))
	read := got.DistributionConfig
	if read.Aliases == nil || read.CacheBehaviors == nil || read.CustomErrorResponses == nil || read.Logging == nil || read.OriginGroups == nil ||
		read.Restrictions == nil || read.PriceClass != types.PriceClassPriceClassAll || read.HttpVersion != types.HttpVersionHttp2 ||
		!*read.ViewerCertificate.CloudFrontDefaultCertificate || read.ViewerCertificate.MinimumProtocolVersion != types.MinimumProtocolVersionTLSv1 {
		t.Errorf("defaults are missing: %+v", read)
	}
	read.Enabled, read.Comment = ptr(false), ptr("off")
	changed := servicetest.Must[*sdk.UpdateDistributionOutput](t)(c.UpdateDistribution(ctx, &sdk.UpdateDistributionInput{Id: d.Id, IfMatch: got.ETag, DistributionConfig: read}))
	if *changed.ETag == *got.ETag || *changed.Distribution.DistributionConfig.Comment != "off" {
		t.Errorf("changed %+v", changed.Distribution)
	}
	_, err := c.DeleteDistribution(ctx, &sdk.DeleteDistributionInput{Id: d.Id, IfMatch: got.ETag})
	servicetest.WantCode(t, err, "PreconditionFailed")
	servicetest.Must[*sdk.DeleteDistributionOutput](t)(c.DeleteDistribution(ctx, &sdk.DeleteDistributionInput{Id: d.Id, IfMatch: changed.ETag}))
	_, err = c.GetDistribution(ctx, &sdk.GetDistributionInput{Id: d.Id})
	if e, ok := errors.AsType[*types.NoSuchDistribution](err); !ok || e.ErrorMessage() != "The specified distribution does not exist." {
		t.Errorf("error %v", err)
	}
}

func TestListsArePagedBySDK(t *testing.T) {
	c, ctx := connect(t), t.Context()
	for _, reference := range []string{"a", "b", "c"} {
		servicetest.Must[*sdk.CreateDistributionOutput](t)(c.CreateDistribution(ctx, &sdk.CreateDistributionInput{DistributionConfig: sdkConfig(reference)}))
	}
	seen := map[string]bool{}
	for pages := sdk.NewListDistributionsPaginator(c, &sdk.ListDistributionsInput{MaxItems: ptr[int32](2)}); pages.HasMorePages(); {
		page := servicetest.Must[*sdk.ListDistributionsOutput](t)(pages.NextPage(ctx))
		for _, d := range page.DistributionList.Items {
			seen[*d.Id] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d distributions on all pages, want 3", len(seen))
	}
	by := servicetest.Must[*sdk.ListDistributionsByCachePolicyIdOutput](t)(c.ListDistributionsByCachePolicyId(ctx, &sdk.ListDistributionsByCachePolicyIdInput{CachePolicyId: ptr("658327ea-f89d-4fab-a63d-7e88639e58f6")}))
	if *by.DistributionIdList.Quantity != 3 {
		t.Errorf("%d distributions with the policy, want 3", *by.DistributionIdList.Quantity)
	}
	managed := servicetest.Must[*sdk.ListCachePoliciesOutput](t)(c.ListCachePolicies(ctx, &sdk.ListCachePoliciesInput{Type: types.CachePolicyTypeManaged}))
	if len(managed.CachePolicyList.Items) < 6 {
		t.Errorf("%d managed cache policies", len(managed.CachePolicyList.Items))
	}
}

func TestBrokenConstraintsAreNamedBySDK(t *testing.T) {
	c, ctx := connect(t), t.Context()
	bad := sdkConfig("one")
	bad.DefaultCacheBehavior.ViewerProtocolPolicy = "sometimes"
	_, err := c.CreateDistribution(ctx, &sdk.CreateDistributionInput{DistributionConfig: bad})
	servicetest.WantCode(t, err, "MalformedXML")
	if !strings.Contains(err.Error(), "Value 'sometimes' at 'distributionConfig.defaultCacheBehavior.viewerProtocolPolicy' failed to satisfy constraint: Member must satisfy enum value set") {
		t.Errorf("error %v", err)
	}
	_, err = c.ListAnycastIpLists(ctx, &sdk.ListAnycastIpListsInput{})
	servicetest.WantCode(t, err, "NotImplemented")
}

func TestARealtimeLogIsConfiguredBySDK(t *testing.T) {
	c, ctx := connect(t), t.Context()
	d := servicetest.Must[*sdk.CreateDistributionOutput](t)(c.CreateDistribution(ctx, &sdk.CreateDistributionInput{DistributionConfig: sdkConfig("one")})).Distribution
	account := strings.Split(*d.ARN, ":")[4]
	made := servicetest.Must[*sdk.CreateRealtimeLogConfigOutput](t)(c.CreateRealtimeLogConfig(ctx, &sdk.CreateRealtimeLogConfigInput{
		Name: ptr("log"), SamplingRate: ptr[int64](1), Fields: []string{"timestamp", "c-ip"},
		EndPoints: []types.EndPoint{{StreamType: ptr("Kinesis"), KinesisStreamConfig: &types.KinesisStreamConfig{RoleARN: ptr("arn:aws:iam::" + account + ":role/r"), StreamARN: ptr("arn:aws:kinesis:us-east-1:" + account + ":stream/s")}}},
	}))
	list := servicetest.Must[*sdk.ListRealtimeLogConfigsOutput](t)(c.ListRealtimeLogConfigs(ctx, &sdk.ListRealtimeLogConfigsInput{})).RealtimeLogConfigs
	if len(list.Items) != 1 || *list.Items[0].ARN != *made.RealtimeLogConfig.ARN || len(list.Items[0].Fields) != 2 || *list.Items[0].EndPoints[0].StreamType != "Kinesis" {
		t.Errorf("listed %+v", list)
	}
	servicetest.Must[*sdk.DeleteRealtimeLogConfigOutput](t)(c.DeleteRealtimeLogConfig(ctx, &sdk.DeleteRealtimeLogConfigInput{Name: ptr("log")}))
}

func TestAFunctionIsTestedBySDK(t *testing.T) {
	c, ctx := connect(t), t.Context()
	code := []byte("function handler(event) { console.log('seen'); event.request.uri = '/changed'; return event.request; }")
	made := servicetest.Must[*sdk.CreateFunctionOutput](t)(c.CreateFunction(ctx, &sdk.CreateFunctionInput{
		Name: ptr("f"), FunctionCode: code, FunctionConfig: &types.FunctionConfig{Comment: ptr(""), Runtime: types.FunctionRuntimeCloudfrontJs20},
	}))
	got := servicetest.Must[*sdk.GetFunctionOutput](t)(c.GetFunction(ctx, &sdk.GetFunctionInput{Name: ptr("f")}))
	if string(got.FunctionCode) != string(code) || *got.ETag != *made.ETag {
		t.Errorf("code %q, ETag %s", got.FunctionCode, *got.ETag)
	}
	event := `{"version":"1.0","context":{"eventType":"viewer-request"},"viewer":{"ip":"1.2.3.4"},"request":{"method":"GET","uri":"/","querystring":{},"headers":{},"cookies":{}}}`
	r := servicetest.Must[*sdk.TestFunctionOutput](t)(c.TestFunction(ctx, &sdk.TestFunctionInput{Name: ptr("f"), IfMatch: made.ETag, EventObject: []byte(event)})).TestResult
	if *r.FunctionErrorMessage != "" || !strings.Contains(*r.FunctionOutput, "/changed") || len(r.FunctionExecutionLogs) != 1 {
		t.Errorf("result %+v, output %s, error %s", r, *r.FunctionOutput, *r.FunctionErrorMessage)
	}
}
