package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	client "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/lambda"
)

// lambdaAPI answers with what a test wants; other operations panic.
type lambdaAPI struct {
	lambda.API
	create func(*lambda.CreateFunctionInput) (*lambda.CreateFunctionOutput, error)
	get    func(*lambda.GetFunctionInput) (*lambda.GetFunctionOutput, error)
	invoke func(*lambda.InvokeInput) (*lambda.InvokeOutput, error)
	stream func(*lambda.InvokeWithResponseStreamInput) (*lambda.InvokeWithResponseStreamOutput, error)
	untag  func(*lambda.UntagResourceInput) (*lambda.UntagResourceOutput, error)
}

func (a lambdaAPI) CreateFunction(_ context.Context, in *lambda.CreateFunctionInput) (*lambda.CreateFunctionOutput, error) {
	return a.create(in)
}
func (a lambdaAPI) GetFunction(_ context.Context, in *lambda.GetFunctionInput) (*lambda.GetFunctionOutput, error) {
	return a.get(in)
}
func (a lambdaAPI) Invoke(_ context.Context, in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
	return a.invoke(in)
}
func (a lambdaAPI) InvokeWithResponseStream(_ context.Context, in *lambda.InvokeWithResponseStreamInput) (*lambda.InvokeWithResponseStreamOutput, error) {
	return a.stream(in)
}
func (a lambdaAPI) UntagResource(_ context.Context, in *lambda.UntagResourceInput) (*lambda.UntagResourceOutput, error) {
	return a.untag(in)
}

func lambdaClient(t *testing.T, api lambdaAPI) (*client.Client, string, <-chan error) {
	address, late := serve(t, lambda.NewService(api))
	return client.NewFromConfig(config(address)), address, late
}

func TestRESTJSONCarriesEveryKindOfMember(t *testing.T) {
	var got *lambda.CreateFunctionInput
	c, _, _ := lambdaClient(t, lambdaAPI{create: func(in *lambda.CreateFunctionInput) (*lambda.CreateFunctionOutput, error) {
		got = in
		return &lambda.CreateFunctionOutput{
			FunctionName: in.FunctionName, Runtime: in.Runtime, MemorySize: in.MemorySize, CodeSize: aws.Ptr(int64(1) << 40),
			Environment:   &lambda.EnvironmentResponse{Variables: in.Environment.Variables},
			Architectures: in.Architectures, VpcConfig: &lambda.VpcConfigResponse{SubnetIds: []string{}},
		}, nil
	}})
	out, err := c.CreateFunction(t.Context(), &client.CreateFunctionInput{
		FunctionName: sdk.String("f"), Role: sdk.String("arn:aws:iam::123456789012:role/r"), Runtime: types.RuntimeNodejs22x,
		Handler: sdk.String("index.handler"), MemorySize: sdk.Int32(512), Publish: true,
		Code:          &types.FunctionCode{ZipFile: []byte{0, 1, 254, 255}},
		Environment:   &types.Environment{Variables: map[string]string{"KEY": "\"ü\\\n\u2028<", "EMPTY": ""}},
		Architectures: []types.Architecture{types.ArchitectureArm64},
		Tags:          map[string]string{"a": "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "input", got, &lambda.CreateFunctionInput{
		FunctionName: aws.Ptr("f"), Role: aws.Ptr("arn:aws:iam::123456789012:role/r"), Runtime: lambda.RuntimeNodejs22X,
		Handler: aws.Ptr("index.handler"), MemorySize: aws.Ptr(int32(512)), Publish: aws.Ptr(true),
		Code:          &lambda.FunctionCode{ZipFile: []byte{0, 1, 254, 255}},
		Environment:   &lambda.Environment{Variables: map[string]string{"KEY": "\"ü\\\n\u2028<", "EMPTY": ""}},
		Architectures: []lambda.Architecture{lambda.ArchitectureArm64},
		Tags:          map[string]string{"a": "b"},
	})
	equal(t, "CodeSize", out.CodeSize, int64(1)<<40)
	equal(t, "variables", out.Environment.Variables, got.Environment.Variables)
	equal(t, "architectures", out.Architectures, []types.Architecture{types.ArchitectureArm64})
	if out.Description != nil || out.VpcConfig == nil {
		t.Errorf("a nil member came, or an empty structure did not: %s", describe(out))
	}
}

func TestRESTJSONDecodesLabelsOnce(t *testing.T) {
	c, _, _ := lambdaClient(t, lambdaAPI{get: func(in *lambda.GetFunctionInput) (*lambda.GetFunctionOutput, error) {
		return &lambda.GetFunctionOutput{Tags: map[string]string{"name": *in.FunctionName, "qualifier": *in.Qualifier}}, nil
	}})
	name := "arn:aws:lambda:us-east-1:123456789012:function:f"
	out, err := c.GetFunction(t.Context(), &client.GetFunctionInput{FunctionName: &name, Qualifier: sdk.String("$LATEST")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "what arrived", out.Tags, map[string]string{"name": name, "qualifier": "$LATEST"})
}

func TestRESTJSONRepeatsQueryParametersOfLists(t *testing.T) {
	var got []string
	c, _, _ := lambdaClient(t, lambdaAPI{untag: func(in *lambda.UntagResourceInput) (*lambda.UntagResourceOutput, error) {
		got = in.TagKeys
		return &lambda.UntagResourceOutput{}, nil
	}})
	keys := []string{"a", "b c", "d=e+f"}
	if _, err := c.UntagResource(t.Context(), &client.UntagResourceInput{Resource: sdk.String("arn:aws:lambda:us-east-1:123456789012:function:f"), TagKeys: keys}); err != nil {
		t.Fatal(err)
	}
	equal(t, "keys", got, keys)
}

func TestInvokeCarriesPayloadAndHeaders(t *testing.T) {
	var got *lambda.InvokeInput
	c, _, _ := lambdaClient(t, lambdaAPI{invoke: func(in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
		got = in
		return &lambda.InvokeOutput{StatusCode: aws.Ptr(int32(200)), FunctionError: aws.Ptr("Unhandled"), LogResult: aws.Ptr("bG9n"),
			ExecutedVersion: aws.Ptr("3"), Payload: []byte(`{"x":1}`)}, nil
	}})
	out, err := c.Invoke(t.Context(), &client.InvokeInput{FunctionName: sdk.String("f"), Payload: []byte("{}"), LogType: types.LogTypeTail, Qualifier: sdk.String("live"), ClientContext: sdk.String("e30=")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "input", got, &lambda.InvokeInput{FunctionName: aws.Ptr("f"), Payload: []byte("{}"), LogType: lambda.LogTypeTail, Qualifier: aws.Ptr("live"), ClientContext: aws.Ptr("e30=")})
	equal(t, "payload", string(out.Payload), `{"x":1}`)
	equal(t, "headers", []any{out.StatusCode, *out.FunctionError, *out.LogResult, *out.ExecutedVersion}, []any{int32(200), "Unhandled", "bG9n", "3"})
}

func TestInvokeWithoutPayloadHasNone(t *testing.T) {
	c, _, _ := lambdaClient(t, lambdaAPI{invoke: func(in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
		if in.Payload != nil || in.InvocationType != "" {
			t.Errorf("got %s", describe(in))
		}
		return &lambda.InvokeOutput{StatusCode: aws.Ptr(int32(204))}, nil
	}})
	out, err := c.Invoke(t.Context(), &client.InvokeInput{FunctionName: sdk.String("f")})
	if err != nil || out.StatusCode != 204 {
		t.Fatalf("got %v, %v", out, err)
	}
}

func TestInvokeRefusesPayloadsOverTheLimit(t *testing.T) {
	c, _, _ := lambdaClient(t, lambdaAPI{})
	_, err := c.Invoke(t.Context(), &client.InvokeInput{FunctionName: sdk.String("f"), Payload: make([]byte, 6291457)})
	e := apiError(t, err)
	equal(t, "code", e.ErrorCode(), "RequestEntityTooLargeException")
	equal(t, "message", e.ErrorMessage(), "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)")
}

func TestRESTJSONStreamsEvents(t *testing.T) {
	chunks := []string{"one", "two", strings.Repeat("x", 100_000)}
	c, _, _ := lambdaClient(t, lambdaAPI{stream: func(*lambda.InvokeWithResponseStreamInput) (*lambda.InvokeWithResponseStreamOutput, error) {
		return &lambda.InvokeWithResponseStreamOutput{
			StatusCode: aws.Ptr(int32(200)), ExecutedVersion: aws.Ptr("7"),
			EventStream: func(yield func(*lambda.InvokeWithResponseStreamResponseEvent, error) bool) {
				for _, chunk := range chunks {
					if !yield(&lambda.InvokeWithResponseStreamResponseEvent{PayloadChunk: &lambda.InvokeResponseStreamUpdate{Payload: []byte(chunk)}}, nil) {
						return
					}
				}
				yield(&lambda.InvokeWithResponseStreamResponseEvent{InvokeComplete: &lambda.InvokeWithResponseStreamCompleteEvent{LogResult: aws.Ptr("bG9n")}}, nil)
			},
		}, nil
	}})
	out, err := c.InvokeWithResponseStream(t.Context(), &client.InvokeWithResponseStreamInput{FunctionName: sdk.String("f")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "version", *out.ExecutedVersion, "7")
	var got []string
	complete := false
	for event := range out.GetStream().Events() {
		switch e := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			got = append(got, string(e.Value.Payload))
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = *e.Value.LogResult == "bG9n"
		}
	}
	if err := out.GetStream().Err(); err != nil || !complete {
		t.Errorf("complete: %v, error: %v", complete, err)
	}
	equal(t, "chunks", got, chunks)
}

func TestStreamThatFailsInsideEndsWithAnExceptionAndIsReported(t *testing.T) {
	c, _, late := lambdaClient(t, lambdaAPI{stream: func(*lambda.InvokeWithResponseStreamInput) (*lambda.InvokeWithResponseStreamOutput, error) {
		return &lambda.InvokeWithResponseStreamOutput{EventStream: func(yield func(*lambda.InvokeWithResponseStreamResponseEvent, error) bool) {
			yield(nil, errors.New("the disk is on fire"))
		}}, nil
	}})
	out, err := c.InvokeWithResponseStream(t.Context(), &client.InvokeWithResponseStreamInput{FunctionName: sdk.String("f")})
	if err != nil {
		t.Fatal(err)
	}
	for range out.GetStream().Events() {
	}
	if err := out.GetStream().Err(); err == nil || strings.Contains(err.Error(), "fire") {
		t.Errorf("the client got %v", err)
	}
	if err := <-late; !strings.Contains(err.Error(), "fire") {
		t.Errorf("reported: %v", err)
	}
}

func TestRESTJSONErrorsAreTyped(t *testing.T) {
	failure := lambda.NewTooManyRequestsException("Rate Exceeded.")
	failure.Extra = map[string]string{"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Type": "User"}
	failure.Header = http.Header{"Retry-After": {"1"}}
	c, _, _ := lambdaClient(t, lambdaAPI{
		invoke: func(*lambda.InvokeInput) (*lambda.InvokeOutput, error) { return nil, failure },
		get: func(*lambda.GetFunctionInput) (*lambda.GetFunctionOutput, error) {
			return nil, fmt.Errorf("wrapped: %w", lambda.NewResourceNotFoundException("Function not found: %s", "f"))
		},
	})
	_, err := c.Invoke(t.Context(), &client.InvokeInput{FunctionName: sdk.String("f")})
	throttle, ok := errors.AsType[*types.TooManyRequestsException](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	equal(t, "throttle", []string{*throttle.Message, string(throttle.Reason), *throttle.RetryAfterSeconds},
		[]string{"Rate Exceeded.", "ReservedFunctionConcurrentInvocationLimitExceeded", "1"})
	_, err = c.GetFunction(t.Context(), &client.GetFunctionInput{FunctionName: sdk.String("f")})
	missing, ok := errors.AsType[*types.ResourceNotFoundException](err)
	if !ok || *missing.Message != "Function not found: f" {
		t.Fatalf("got %v", err)
	}
}

func TestUnservedOperationIsNamed(t *testing.T) {
	c, address, _ := lambdaClient(t, lambdaAPI{})
	_, err := c.ListCapacityProviders(t.Context(), &client.ListCapacityProvidersInput{})
	e := apiError(t, err)
	equal(t, "code", e.ErrorCode(), "UnknownOperationException")
	contains(t, e.ErrorMessage(), `"ListCapacityProviders"`, "Lambda")
	resp, body := send(t, "GET", address+"/no/such/path", "")
	equal(t, "status", resp.StatusCode, http.StatusNotImplemented)
	contains(t, body, "GET /no/such/path")
}

func TestMalformedJSONIsRefused(t *testing.T) {
	_, address, _ := lambdaClient(t, lambdaAPI{})
	for name, body := range map[string]string{
		"cut off": `{"FunctionName": "f"`, "two documents": `{} {}`, "a list": `[]`, "wrong kind": `{"MemorySize": "big"}`, "fraction": `{"MemorySize": 1.5}`,
		"too large": `{"MemorySize": 2147483648}`, "not base64": `{"Code": {"ZipFile": "%"}}`, "deep": `{"Code":` + strings.Repeat(`{"Code":`, 20000),
		"not UTF-8 key": "{\"\xff",
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := send(t, "POST", address+"/2015-03-31/functions", body)
			equal(t, "status", resp.StatusCode, 400)
			equal(t, "type", resp.Header.Get("X-Amzn-Errortype"), "InvalidRequestContentException")
			contains(t, text, `"message":`)
		})
	}
}

func TestUnknownMembersAndContentTypesAreIgnored(t *testing.T) {
	_, address, _ := lambdaClient(t, lambdaAPI{create: func(in *lambda.CreateFunctionInput) (*lambda.CreateFunctionOutput, error) {
		return &lambda.CreateFunctionOutput{FunctionName: in.FunctionName}, nil
	}})
	resp, body := send(t, "POST", address+"/2015-03-31/functions?color=blue",
		`{"FunctionName":"f","Role":"arn:aws:iam::123456789012:role/r","Code":{"Zzz":[{}]},"Novelty":{"x":[1,null]},"Layers":null}`, "Content-Type", "text/html")
	equal(t, "status", resp.StatusCode, 201)
	equal(t, "body", body, `{"FunctionName":"f"}`)
}

func TestViolationsAreToldInTheWordsOfAWS(t *testing.T) {
	_, address, _ := lambdaClient(t, lambdaAPI{})
	role, layer := `"Role":"arn:aws:iam::123456789012:role/r"`, `((arn:(aws[a-zA-Z-]*)?:lambda:`
	for _, tt := range []struct {
		name, body string
		want       []string
	}{
		{"missing", `{"FunctionName":"f","Code":{}}`, []string{"1 validation error detected: Value null at 'role' failed to satisfy constraint: Member must not be null"}},
		{"enum", `{"FunctionName":"f","Code":{},` + role + `,"PackageType":"Tar"}`,
			[]string{"Value 'Tar' at 'packageType' failed to satisfy constraint: Member must satisfy enum value set: [Zip, Image]"}},
		{"range", `{"FunctionName":"f","Code":{},` + role + `,"MemorySize":64}`,
			[]string{"Value '64' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"}},
		{"two", `{"Code":{}}`, []string{"2 validation errors detected: ", "'functionName'", "; Value null at 'role'"}},
		{"list of scalars", `{"FunctionName":"f","Code":{},` + role + `,"Layers":["nonsense"]}`,
			[]string{"1 validation error detected: Value '[nonsense]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: " + layer, ", Member must not be null]"}},
		{"map keys, sensitive", `{"FunctionName":"f","Code":{},` + role + `,"Environment":{"Variables":{"K":"secret"}}}`,
			[]string{"Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]"}},
		{"length", `{"FunctionName":"` + strings.Repeat("x", 141) + `","Code":{},` + role + `}`,
			[]string{"Value '" + strings.Repeat("x", 141) + "' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 140"}},
		{"nested list", `{"FunctionName":"f","Code":{},` + role + `,"FileSystemConfigs":[{"Arn":"x"}]}`,
			[]string{"Value null at 'fileSystemConfigs.1.member.localMountPath' failed to satisfy constraint: Member must not be null"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := send(t, "POST", address+"/2015-03-31/functions", tt.body)
			equal(t, "status", resp.StatusCode, 400)
			equal(t, "type", resp.Header.Get("X-Amzn-Errortype"), "ValidationException")
			contains(t, strings.ReplaceAll(body, `\\`, `\`), tt.want...)
			if strings.Contains(body, "secret") {
				t.Errorf("a secret is shown: %s", body)
			}
		})
	}
}
