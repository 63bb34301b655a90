package conformance_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cdn "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

const cachingOptimized = "658327ea-f89d-4fab-a63d-7e88639e58f6"

// edgeFunction publishes a version of a Node.js function that may run at edge
// locations, and returns its ARN.
func edgeFunction(t *testing.T, name, code string) string {
	t.Helper()
	role := name + "-role"
	created, err := iam.NewFromConfig(server.Config()).CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["lambda.amazonaws.com","edgelambda.amazonaws.com"]},"Action":"sts:AssumeRole"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	c := lambda.NewFromConfig(server.Config())
	if _, err := c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: nodeRuntime, Handler: aws.String("index.handler"), Role: created.Role.Arn,
		MemorySize: aws.Int32(1769), Timeout: aws.Int32(30), Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"index.js": code})},
	}); err != nil {
		t.Fatal(err)
	}
	if err := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond }).
		Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
	v, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return *v.FunctionArn
}

// configOf is a distribution of one origin at this host.
func configOf(origin string, change func(*cdn.DefaultCacheBehavior)) *cdn.DistributionConfig {
	b := &cdn.DefaultCacheBehavior{
		TargetOriginId: aws.String("o"), ViewerProtocolPolicy: cdn.ViewerProtocolPolicyAllowAll, CachePolicyId: aws.String(cachingOptimized),
		AllowedMethods: &cdn.AllowedMethods{Quantity: aws.Int32(7), Items: []cdn.Method{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}},
	}
	change(b)
	return &cdn.DistributionConfig{
		CallerReference: aws.String(strconv.FormatInt(time.Now().UnixNano(), 36)), Comment: aws.String(""), Enabled: aws.Bool(true), DefaultCacheBehavior: b,
		Origins: &cdn.Origins{Quantity: aws.Int32(1), Items: []cdn.Origin{{
			Id: aws.String("o"), DomainName: aws.String("localhost"),
			CustomOriginConfig: &cdn.CustomOriginConfig{HTTPPort: aws.Int32(portOf(origin)), HTTPSPort: aws.Int32(443), OriginProtocolPolicy: cdn.OriginProtocolPolicyHttpOnly},
		}}},
	}
}

func portOf(address string) int32 {
	u, _ := url.Parse(address) // httptest's own
	_, port, _ := net.SplitHostPort(u.Host)
	n, _ := strconv.ParseInt(port, 10, 32)
	return int32(n)
}

// at associates a version with an event.
func at(event cdn.EventType, arn string, body bool) func(*cdn.DefaultCacheBehavior) {
	return func(b *cdn.DefaultCacheBehavior) {
		b.LambdaFunctionAssociations = &cdn.LambdaFunctionAssociations{Quantity: aws.Int32(1), Items: []cdn.LambdaFunctionAssociation{
			{EventType: event, LambdaFunctionARN: &arn, IncludeBody: &body},
		}}
	}
}

// distribute makes a distribution and waits until it is served.
func distribute(t *testing.T, config *cdn.DistributionConfig) (*example, string) {
	t.Helper()
	c := cloudfront.NewFromConfig(server.Config())
	out, err := c.CreateDistribution(t.Context(), &cloudfront.CreateDistributionInput{DistributionConfig: config})
	if err != nil {
		t.Fatal(err)
	}
	deployed(t, c, *out.Distribution.Id)
	return &example{t, server, *out.Distribution.DomainName}, *out.Distribution.Id
}

func deployed(t *testing.T, c *cloudfront.Client, id string) {
	t.Helper()
	err := cloudfront.NewDistributionDeployedWaiter(c, func(o *cloudfront.DistributionDeployedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, 200*time.Millisecond
	}).Wait(t.Context(), &cloudfront.GetDistributionInput{Id: &id}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
}

// inLog waits for a text in a log group.
func inLog(t *testing.T, group, text string) {
	t.Helper()
	c := cloudwatchlogs.NewFromConfig(server.Config())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := c.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
		if err == nil {
			for _, e := range out.Events {
				if strings.Contains(*e.Message, text) {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no %q (%v)", group, text, err)
		}
	}
}

func TestEdgeFunctionFailuresAreAWSs(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret content") }))
	defer origin.Close()
	arn := edgeFunction(t, "edge-failures", `exports.handler = async (event) => {
		const { request, config } = event.Records[0].cf;
		console.log("seen", request.uri, process.env.AWS_LAMBDA_FUNCTION_NAME, config.eventType);
		switch (request.uri) {
		case "/throw": throw new Error("no");
		case "/null": return null;
		case "/host": request.headers.host[0].value = "other"; return request;
		case "/connection": request.headers.connection = [{ key: "Connection", value: "close" }]; return request;
		case "/array": request.headers["x-a"] = "b"; return request;
		case "/large": return { status: "401", body: "x".repeat(41 * 1024) };
		case "/uri": request.uri = "no-slash"; return request;
		}
		return request;
	};`)
	x, id := distribute(t, configOf(origin.URL, at(cdn.EventTypeViewerRequest, arn, false)))
	for path, want := range map[string]struct {
		status      int
		class, text string
	}{
		"/throw":      {503, "LambdaExecutionError", "The Lambda function associated with the CloudFront distribution is invalid or doesn't have the required permissions."},
		"/null":       {502, "LambdaValidationError", "The Lambda function returned invalid JSON: The JSON output must be an object type."},
		"/host":       {502, "LambdaValidationError", "The function tried to add, delete, or change a read-only header."},
		"/connection": {502, "LambdaValidationError", "The function tried to add a blacklisted header."},
		"/array":      {502, "LambdaValidationError", "Each header entry in the headers object must be an array."},
		"/large":      {502, "LambdaValidationError", "The body is not a string, is not an object, or exceeds the maximum size."},
		"/uri":        {502, "LambdaValidationError", "The Lambda function result failed validation"},
	} {
		res, body := x.get(path)
		plain := strings.ReplaceAll(body, "&#39;", "'")
		if res.StatusCode != want.status || res.Header.Get("X-Cache") != want.class+" from cloudfront" || !strings.Contains(plain, want.text) || strings.Contains(body, "secret") {
			t.Errorf("%s: %d, %s\n%s", path, res.StatusCode, res.Header.Get("X-Cache"), body)
		}
	}
	x.want("/fine", 200, "Miss", "secret content")
	inLog(t, "/aws/lambda/us-east-1.edge-failures", "seen /fine us-east-1.edge-failures viewer-request")
	inLog(t, "/aws/cloudfront/LambdaEdge/"+id, "the function tried to update read-only header, headerName : Host.")
}

func TestOriginRequestReplacesBodyAndOrigin(t *testing.T) {
	t.Parallel()
	echo := func(name string) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, "%s got %s at %s with %s", name, b, r.URL, r.Header.Get("X-Edger"))
		}))
	}
	first, second := echo("first"), echo("second")
	defer first.Close()
	defer second.Close()
	arn := edgeFunction(t, "edge-origin", fmt.Sprintf(`exports.handler = async (event) => {
		const { request } = event.Records[0].cf;
		const text = Buffer.from(request.body.data, "base64").toString();
		request.body = { action: "replace", encoding: "text", data: text.toUpperCase() };
		request.origin.custom.port = %d;
		request.origin.custom.path = "/v2";
		request.headers["x-edger"] = [{ value: request.headers.host[0].value }];
		return request;
	};`, portOf(second.URL)))
	x, _ := distribute(t, configOf(first.URL, at(cdn.EventTypeOriginRequest, arn, true)))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL()+"/a", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if res, body := x.do(r, nil); res.StatusCode != 200 || !strings.Contains(body, "second got HELLO at /v2/a with localhost") {
		t.Errorf("%d\n%s", res.StatusCode, body)
	}
}

func TestVersionsAtTheEdge(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.NotFoundHandler())
	defer origin.Close()
	arn := edgeFunction(t, "edge-version", `exports.handler = async (event) => event.Records[0].cf.request;`)
	c, functions := cloudfront.NewFromConfig(server.Config()), lambda.NewFromConfig(server.Config())
	name := aws.String("edge-version")

	unversioned := arn[:strings.LastIndex(arn, ":")]
	_, err := c.CreateDistribution(t.Context(), &cloudfront.CreateDistributionInput{DistributionConfig: configOf(origin.URL, at(cdn.EventTypeViewerRequest, unversioned+":$LATEST", false))})
	if refused, ok := errors.AsType[*cdn.InvalidLambdaFunctionAssociation](err); !ok || !strings.Contains(refused.ErrorMessage(), "must reference a specific function version") {
		t.Errorf("$LATEST: %v", err)
	}

	_, id := distribute(t, configOf(origin.URL, at(cdn.EventTypeViewerRequest, arn, false)))
	for _, in := range []*lambda.DeleteFunctionInput{{FunctionName: &arn}, {FunctionName: name}} {
		_, err = functions.DeleteFunction(t.Context(), in)
		if refused, ok := errors.AsType[*types.InvalidParameterValueException](err); !ok || !strings.Contains(refused.ErrorMessage(), "Lambda was unable to delete "+arn+" because it is a replicated function.") {
			t.Errorf("%s: %v", *in.FunctionName, err)
		}
	}

	got, err := c.GetDistributionConfig(t.Context(), &cloudfront.GetDistributionConfigInput{Id: &id})
	if err != nil {
		t.Fatal(err)
	}
	got.DistributionConfig.Enabled = aws.Bool(false)
	updated, err := c.UpdateDistribution(t.Context(), &cloudfront.UpdateDistributionInput{Id: &id, IfMatch: got.ETag, DistributionConfig: got.DistributionConfig})
	if err != nil {
		t.Fatal(err)
	}
	deployed(t, c, id)
	if _, err := c.DeleteDistribution(t.Context(), &cloudfront.DeleteDistributionInput{Id: &id, IfMatch: updated.ETag}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err = functions.DeleteFunction(t.Context(), &lambda.DeleteFunctionInput{FunctionName: name}); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute after its distribution the function still cannot be deleted: %v", err)
		}
	}
}

func TestCloudFrontFunctionsAreTestedAndServed(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "origin saw %s", r.URL)
	}))
	defer origin.Close()
	c := cloudfront.NewFromConfig(server.Config())
	name := aws.String("index-pages")
	config := &cdn.FunctionConfig{Comment: aws.String(""), Runtime: cdn.FunctionRuntimeCloudfrontJs20}
	created, err := c.CreateFunction(t.Context(), &cloudfront.CreateFunctionInput{Name: name, FunctionConfig: config, FunctionCode: []byte(`
		function handler(event) {
			const request = event.request;
			console.log('at', request.uri);
			if (request.uri === '/old') return { statusCode: 301, headers: { location: { value: '/new' } } };
			if (request.uri === '/loop') for (;;);
			if (request.uri.endsWith('/')) request.uri += 'index.html';
			return request;
		}`)})
	if err != nil {
		t.Fatal(err)
	}
	tested, err := c.TestFunction(t.Context(), &cloudfront.TestFunctionInput{Name: name, IfMatch: created.ETag, EventObject: []byte(
		`{"version":"1.0","context":{"eventType":"viewer-request"},"viewer":{"ip":"1.2.3.4"},"request":{"method":"GET","uri":"/a/","querystring":{},"headers":{},"cookies":{}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if r := tested.TestResult; *r.FunctionErrorMessage != "" || !strings.Contains(*r.FunctionOutput, `"uri":"/a/index.html"`) || len(r.FunctionExecutionLogs) != 1 || r.FunctionExecutionLogs[0] != "at /a/" {
		t.Errorf("test: %s, %s, %q", *r.FunctionErrorMessage, *r.FunctionOutput, r.FunctionExecutionLogs)
	}
	if _, err := c.PublishFunction(t.Context(), &cloudfront.PublishFunctionInput{Name: name, IfMatch: created.ETag}); err != nil {
		t.Fatal(err)
	}
	x, _ := distribute(t, configOf(origin.URL, func(b *cdn.DefaultCacheBehavior) {
		b.FunctionAssociations = &cdn.FunctionAssociations{Quantity: aws.Int32(1), Items: []cdn.FunctionAssociation{
			{EventType: cdn.EventTypeViewerRequest, FunctionARN: created.FunctionSummary.FunctionMetadata.FunctionARN},
		}}
	}))
	x.want("/docs/", 200, "Miss", "origin saw /docs/index.html")
	x.want("/docs/index.html", 200, "Hit", "origin saw /docs/index.html")
	if res := x.want("/old", 301, "FunctionGeneratedResponse", ""); res.Header.Get("Location") != "/new" {
		t.Errorf("redirected to %q", res.Header.Get("Location"))
	}
	x.want("/loop", 503, "FunctionExecutionError", "The CloudFront function associated with the CloudFront distribution is invalid or could not run.")
	inLog(t, "/aws/cloudfront/function/index-pages", "at /docs/")
}
