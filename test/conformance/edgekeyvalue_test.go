package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cdn "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// keyValues is a client of CloudFront KeyValueStore. It is told the endpoint that
// `lapwing env` prints, and finds names below localhost on every resolver.
func keyValues() *cloudfrontkeyvaluestore.Client {
	config := server.Config()
	config.BaseEndpoint = aws.String(server.Env["AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE"])
	config.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, port, err := net.SplitHostPort(address); err == nil && strings.HasSuffix(host, ".localhost") {
				address = net.JoinHostPort("127.0.0.1", port)
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	return cloudfrontkeyvaluestore.NewFromConfig(config)
}

// keyValueStore makes a key value store from what an object holds, and waits until
// it is ready.
func keyValueStore(t *testing.T, c *cloudfront.Client, name, content string) *cdn.KeyValueStore {
	t.Helper()
	objects := s3.NewFromConfig(server.Config(), func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: aws.String("values.json"), Body: strings.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateKeyValueStore(t.Context(), &cloudfront.CreateKeyValueStoreInput{
		Name: &name, ImportSource: &cdn.ImportSource{SourceType: cdn.ImportSourceTypeS3, SourceARN: aws.String("arn:aws:s3:::" + name + "/values.json")},
	}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		d, err := c.DescribeKeyValueStore(t.Context(), &cloudfront.DescribeKeyValueStoreInput{Name: &name})
		if err != nil {
			t.Fatal(err)
		}
		if status := *d.KeyValueStore.Status; status == "READY" {
			return d.KeyValueStore
		} else if status != "PROVISIONING" || time.Now().After(deadline) {
			t.Fatalf("the store is %s", status)
		}
	}
}

func TestACloudFrontFunctionReadsItsKeyValueStore(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "origin saw %s", r.URL) }))
	defer origin.Close()
	c, ctx := cloudfront.NewFromConfig(server.Config()), t.Context()
	store := keyValueStore(t, c, "redirects", `{"data":[{"key":"/old","value":"/new"},{"key":"/sale","value":"/winter"}]}`)

	name := aws.String("redirect")
	created, err := c.CreateFunction(ctx, &cloudfront.CreateFunctionInput{
		Name: name, FunctionCode: []byte(`
			import cf from 'cloudfront';
			const pages = cf.kvs();
			async function handler(event) {
				const request = event.request;
				if (await pages.exists(request.uri)) request.uri = await pages.get(request.uri);
				return request;
			}`),
		FunctionConfig: &cdn.FunctionConfig{
			Comment: aws.String(""), Runtime: cdn.FunctionRuntimeCloudfrontJs20,
			KeyValueStoreAssociations: &cdn.KeyValueStoreAssociations{Quantity: aws.Int32(1), Items: []cdn.KeyValueStoreAssociation{{KeyValueStoreARN: store.ARN}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	tested, err := c.TestFunction(ctx, &cloudfront.TestFunctionInput{Name: name, IfMatch: created.ETag, EventObject: []byte(
		`{"version":"1.0","context":{"eventType":"viewer-request"},"viewer":{"ip":"1.2.3.4"},"request":{"method":"GET","uri":"/old","querystring":{},"headers":{},"cookies":{}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if r := tested.TestResult; *r.FunctionErrorMessage != "" || !strings.Contains(*r.FunctionOutput, `"uri":"/new"`) {
		t.Errorf("test: %s, %s", *r.FunctionErrorMessage, *r.FunctionOutput)
	}
	if _, err := c.PublishFunction(ctx, &cloudfront.PublishFunctionInput{Name: name, IfMatch: created.ETag}); err != nil {
		t.Fatal(err)
	}
	x, _ := distribute(t, configOf(origin.URL, func(b *cdn.DefaultCacheBehavior) {
		b.FunctionAssociations = &cdn.FunctionAssociations{Quantity: aws.Int32(1), Items: []cdn.FunctionAssociation{
			{EventType: cdn.EventTypeViewerRequest, FunctionARN: created.FunctionSummary.FunctionMetadata.FunctionARN},
		}}
	}))
	x.want("/old", 200, "Miss", "origin saw /new")
	x.want("/other", 200, "Miss", "origin saw /other")

	kvs := keyValues()
	d, err := kvs.DescribeKeyValueStore(ctx, &cloudfrontkeyvaluestore.DescribeKeyValueStoreInput{KvsARN: store.ARN})
	if err != nil {
		t.Fatal(err)
	}
	if *d.ItemCount != 2 || *d.Status != "READY" {
		t.Errorf("the store is %s with %d pairs", *d.Status, *d.ItemCount)
	}
	if _, err := kvs.PutKey(ctx, &cloudfrontkeyvaluestore.PutKeyInput{KvsARN: store.ARN, IfMatch: d.ETag, Key: aws.String("/other"), Value: aws.String("/another")}); err != nil {
		t.Fatal(err)
	}
	x.want("/other", 200, "Miss", "origin saw /another")

	described, err := c.DescribeKeyValueStore(ctx, &cloudfront.DescribeKeyValueStoreInput{Name: store.Name})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteKeyValueStore(ctx, &cloudfront.DeleteKeyValueStoreInput{Name: store.Name, IfMatch: described.ETag})
	if _, ok := errors.AsType[*cdn.CannotDeleteEntityWhileInUse](err); !ok {
		t.Errorf("a store in use was deleted: %v", err)
	}
}

func TestACloudFrontFunctionIsDeployedWithItsKeyValueStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deploy := func(answer string) *example {
		t.Helper()
		template := filepath.Join(dir, "template.yaml")
		if err := os.WriteFile(template, fmt.Appendf(nil, `
Resources:
  Values: {Type: AWS::CloudFront::KeyValueStore, Properties: {Name: deployed-values, Comment: %[1]s}}
  Answers:
    Type: AWS::CloudFront::Function
    Properties:
      Name: deployed-function
      AutoPublish: true
      FunctionCode: |
        import cf from 'cloudfront';
        async function handler(event) {
          return { statusCode: 200, body: '%[1]s ' + await cf.kvs().count() };
        }
      FunctionConfig:
        Runtime: cloudfront-js-2.0
        Comment: ""
        KeyValueStoreAssociations: [{KeyValueStoreARN: !GetAtt Values.Arn}]
  Site:
    Type: AWS::CloudFront::Distribution
    Properties:
      DistributionConfig:
        Enabled: true
        Origins: [{Id: o, DomainName: localhost, CustomOriginConfig: {OriginProtocolPolicy: http-only}}]
        DefaultCacheBehavior:
          TargetOriginId: o
          ViewerProtocolPolicy: allow-all
          CachePolicyId: %[2]s
          FunctionAssociations: [{EventType: viewer-request, FunctionARN: !GetAtt Answers.FunctionARN}]
Outputs:
  DomainName: {Value: !GetAtt Site.DomainName}
`, answer, cachingOptimized), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := server.Run("deploy", "--name", "edge-values", template)
		m := domainOutput.FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return &example{t, server, string(m[1])}
	}
	deploy("first").want("/", 200, "FunctionGeneratedResponse", "first 0")
	deploy("second").want("/", 200, "FunctionGeneratedResponse", "second 0")
}
