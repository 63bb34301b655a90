package conformance_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// The AWS Lambda Web Adapter is an extension that serves the Runtime API in the
// place of a web application. It comes as it is from its crate, in a layer as
// its authors publish it, and the application knows nothing of Lambda.
func TestLambdaWebAdapterAsItIs_Conformance(t *testing.T) {
	t.Parallel()
	needs(t, "crates.io")
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := os.ReadFile(filepath.Join(root, "bin", "tools", "lambda-web-adapter", "bin", "lambda-adapter"))
	if err != nil {
		t.Fatalf("`scripts/setup conformance` installs it: %v", err)
	}
	c := lambda.NewFromConfig(server.Config())
	layer, err := c.PublishLayerVersion(t.Context(), &lambda.PublishLayerVersionInput{
		LayerName: aws.String("web-adapter"), CompatibleArchitectures: []types.Architecture{types.ArchitectureX8664},
		Content: &types.LayerVersionContentInput{ZipFile: harness.Zip(map[string]string{
			"extensions/lambda-adapter*": string(adapter),
			"bootstrap*":                 "#!/bin/bash\n\nexec -- \"${LAMBDA_TASK_ROOT}/${_HANDLER}\"\n",
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	name := aws.String("web-application")
	_, err = c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: name, Runtime: nodeRuntime, Handler: aws.String("run.sh"), Role: aws.String(role()),
		MemorySize: aws.Int32(1769), Timeout: aws.Int32(60), Layers: []string{*layer.LayerVersionArn},
		Environment: &types.Environment{Variables: map[string]string{"AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap", "PORT": "8000"}},
		Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{
			"run.sh*": "#!/bin/sh\nexec node server.js\n",
			"server.js": `require('http').createServer((req, res) => {
  let body = '';
  req.on('data', (part) => { body += part; });
  req.on('end', () => {
    res.writeHead(req.url === '/' ? 200 : 201, {'Content-Type': 'application/json'});
    res.end(JSON.stringify({method: req.method, url: req.url, agent: req.headers['user-agent'], body}));
  });
}).listen(process.env.PORT);`,
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	active := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := active.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: name}, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	const event = `{"version":"2.0","routeKey":"$default","rawPath":"/birds","rawQueryString":"n=1","headers":{"user-agent":"swift","content-type":"text/plain"},
"requestContext":{"accountId":"123456789012","apiId":"id","domainName":"id.lambda-url.us-east-1.on.aws","domainPrefix":"id","http":{"method":"POST","path":"/birds","protocol":"HTTP/1.1","sourceIp":"192.0.2.1","userAgent":"swift"},
"requestId":"r","routeKey":"$default","stage":"$default","time":"24/Nov/2026:01:02:03 +0000","timeEpoch":1795482123000},"body":"lapwing","isBase64Encoded":false}`
	for range 2 {
		out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: name, Payload: []byte(event), LogType: types.LogTypeTail})
		if err != nil {
			t.Fatalf("%v\n%s", err, server.Log())
		}
		var answer struct {
			StatusCode int
			Body       string
		}
		if err := json.Unmarshal(out.Payload, &answer); err != nil {
			t.Fatalf("%s: %v", out.Payload, err)
		}
		if want := `{"method":"POST","url":"/birds?n=1","agent":"swift","body":"lapwing"}`; answer.StatusCode != http.StatusCreated || answer.Body != want {
			t.Errorf("answer %s\nwant %d %s", out.Payload, http.StatusCreated, want)
		}
	}
}
