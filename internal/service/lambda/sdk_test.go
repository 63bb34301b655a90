package lambda_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/aws/wire"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/service/lambda"
	"lapwing.dev/lapwing/internal/state"
)

const (
	account = "123456789012"
	region  = "eu-central-1"
	role    = "arn:aws:iam::" + account + ":role/lambda"
)

// echo answers with the event, or fails where the event asks for it.
type echo struct{}

func (echo) Invoke(_ context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
	switch string(req.Payload) {
	case `"throttle"`:
		return nil, &aws.Error{Code: "TooManyRequestsException", Status: 429, Message: "Rate Exceeded.",
			Extra: map[string]string{"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Type": "User"}}
	case `"fail"`:
		fmt.Fprint(w, `{"errorMessage":"no"}`)
		return &invoke.Result{FunctionError: "Unhandled", LogTail: []byte("tail")}, nil
	case `"stream"`:
		for i := range 3 {
			fmt.Fprintf(w, "chunk %d ", i)
		}
		return &invoke.Result{ErrorType: "Runtime.ExitError", ErrorDetails: "{}", LogTail: []byte("tail")}, nil
	}
	fmt.Fprintf(w, `{"event":%s,"arn":%q,"context":%q}`, req.Payload, req.InvokedARN, req.ClientContext)
	return &invoke.Result{}, nil
}

func (echo) Retire(arn, version string)      {}
func (echo) Configure(string, invoke.Limits) {}
func (echo) Allocation(*function.Version) invoke.AllocationStatus {
	return invoke.AllocationStatus{}
}

// connect starts the service behind HTTP and returns the AWS SDK's client of it.
func connect(t *testing.T, change ...func(*lambda.Options)) *sdk.Client {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	store, err := state.Open(t.Context(), state.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	images, err := image.Open(filepath.Join(dir, "images"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	opts := lambda.Options{
		AccountID: account, Region: region, Architecture: "x86_64",
		Store: store, Images: images, Invoker: echo{},
		RuntimeVersion: func(region, id string) (string, error) {
			return "arn:aws:lambda:" + region + "::runtime:" + strings.Repeat("0", 32), nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&opts)
	}
	service, err := lambda.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)

	described := api.NewService(service)
	var server *httptest.Server
	mux := http.NewServeMux()
	mux.Handle(lambda.CodePath, service.CodeHandler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		request := &aws.Request{ID: uuid.NewString(), Region: region, AccountID: account, BaseURL: server.URL, Header: r.Header}
		ctx := aws.WithRequest(r.Context(), request)
		call, err := wire.Find(described, r)
		if err == nil {
			err = call.Serve(ctx, w, r)
		}
		if err != nil {
			e, ok := errors.AsType[*aws.Error](err)
			if !ok {
				t.Errorf("%s %s: %v", r.Method, r.URL, err)
				e = &aws.Error{Code: "InternalFailure", Status: 500, Message: "internal"}
			}
			wire.WriteError(w, r, described, call, e, request.ID)
		}
	})
	server = httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return sdk.New(sdk.Options{
		Region: region, BaseEndpoint: &server.URL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", "secret", ""),
	})
}

func zipOf(t *testing.T, name, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	fw, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(fw, content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func create(t *testing.T, c *sdk.Client, name string) *sdk.CreateFunctionOutput {
	t.Helper()
	out, err := c.CreateFunction(t.Context(), &sdk.CreateFunctionInput{
		FunctionName: &name, Role: awssdk.String(role), Runtime: types.RuntimeNodejs22x, Handler: awssdk.String("index.handler"),
		Code: &types.FunctionCode{ZipFile: zipOf(t, "index.js", "// "+name)}, Tags: map[string]string{"name": name},
		Environment: &types.Environment{Variables: map[string]string{"KEY": "<&>"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wait waits with the SDK's own waiter.
func wait(t *testing.T, c *sdk.Client, name string) {
	t.Helper()
	w := sdk.NewFunctionUpdatedV2Waiter(c, func(o *sdk.FunctionUpdatedV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Millisecond, 50*time.Millisecond
	})
	if err := w.Wait(t.Context(), &sdk.GetFunctionInput{FunctionName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
}

func TestSDKWaiters(t *testing.T) {
	c := connect(t)
	ctx, name := t.Context(), awssdk.String("hello")
	if out := create(t, c, "hello"); out.State != types.StatePending || out.StateReasonCode != types.StateReasonCodeCreating {
		t.Errorf("created: %+v", out)
	}
	const limit = time.Minute
	fast := time.Millisecond
	if err := sdk.NewFunctionExistsWaiter(c, func(o *sdk.FunctionExistsWaiterOptions) { o.MinDelay = fast }).Wait(ctx, &sdk.GetFunctionInput{FunctionName: name}, limit); err != nil {
		t.Error("function-exists:", err)
	}
	if err := sdk.NewFunctionActiveWaiter(c, func(o *sdk.FunctionActiveWaiterOptions) { o.MinDelay = fast }).Wait(ctx, &sdk.GetFunctionConfigurationInput{FunctionName: name}, limit); err != nil {
		t.Error("function-active:", err)
	}
	if err := sdk.NewFunctionActiveV2Waiter(c, func(o *sdk.FunctionActiveV2WaiterOptions) { o.MinDelay = fast }).Wait(ctx, &sdk.GetFunctionInput{FunctionName: name}, limit); err != nil {
		t.Error("function-active-v2:", err)
	}
	published, err := c.UpdateFunctionCode(ctx, &sdk.UpdateFunctionCodeInput{FunctionName: name, ZipFile: zipOf(t, "index.js", "2"), Publish: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := sdk.NewFunctionUpdatedWaiter(c, func(o *sdk.FunctionUpdatedWaiterOptions) { o.MinDelay = fast }).Wait(ctx, &sdk.GetFunctionConfigurationInput{FunctionName: name}, limit); err != nil {
		t.Error("function-updated:", err)
	}
	if err := sdk.NewPublishedVersionActiveWaiter(c, func(o *sdk.PublishedVersionActiveWaiterOptions) { o.MinDelay = fast }).Wait(ctx, &sdk.GetFunctionConfigurationInput{FunctionName: name, Qualifier: published.Version}, limit); err != nil {
		t.Error("published-version-active:", err)
	}
	wait(t, c, "hello")
}

func TestSDKErrorsArriveAsTypes(t *testing.T) {
	c := connect(t)
	create(t, c, "hello")
	ctx := t.Context()
	_, err := c.GetFunction(ctx, &sdk.GetFunctionInput{FunctionName: awssdk.String("nobody")})
	if e, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || *e.Message != "Function not found: arn:aws:lambda:eu-central-1:123456789012:function:nobody" || *e.Type != "User" {
		t.Errorf("not found: %v", err)
	}
	_, err = c.CreateFunction(ctx, &sdk.CreateFunctionInput{FunctionName: awssdk.String("hello"), Role: awssdk.String(role), Runtime: types.RuntimeNodejs22x, Handler: awssdk.String("x"), Code: &types.FunctionCode{ZipFile: zipOf(t, "a", "b")}})
	if e, ok := errors.AsType[*types.ResourceConflictException](err); !ok || *e.Message != "Function already exist: hello" {
		t.Errorf("conflict: %v", err)
	}
	_, err = c.CreateFunction(ctx, &sdk.CreateFunctionInput{FunctionName: awssdk.String("bad"), Role: awssdk.String(role), Runtime: types.RuntimeNodejs22x, Handler: awssdk.String("x"), Code: &types.FunctionCode{ZipFile: []byte("no zip")}})
	if e, ok := errors.AsType[*types.InvalidParameterValueException](err); !ok || !strings.HasPrefix(*e.Message, "Could not unzip uploaded file.") {
		t.Errorf("invalid: %v", err)
	}
	wait(t, c, "hello")
	_, err = c.PublishVersion(ctx, &sdk.PublishVersionInput{FunctionName: awssdk.String("hello"), RevisionId: awssdk.String("stale")})
	if _, ok := errors.AsType[*types.PreconditionFailedException](err); !ok {
		t.Errorf("precondition: %v", err)
	}
	for _, name := range []string{"my-function!", "a:b:c:d", strings.Repeat("x", 257)} {
		_, err = c.GetFunction(ctx, &sdk.GetFunctionInput{FunctionName: &name})
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "ValidationException" || !strings.Contains(e.ErrorMessage(), "'functionName' failed to satisfy constraint") {
			t.Errorf("%.20s: %v", name, err)
		}
	}
	_, err = c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String("hello"), Payload: []byte(`"throttle"`)})
	if e, ok := errors.AsType[*types.TooManyRequestsException](err); !ok || e.Reason != types.ThrottleReasonReservedFunctionConcurrentInvocationLimitExceeded {
		t.Errorf("throttle: %v", err)
	}
	_, err = c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String("hello"), Payload: []byte(`{`)})
	if _, ok := errors.AsType[*types.InvalidRequestContentException](err); !ok {
		t.Errorf("content: %v", err)
	}
	_, err = c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String("hello"), Payload: bytes.Repeat([]byte("1"), 6<<20+1)})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || !strings.Contains(e.ErrorCode(), "TooLarge") {
		t.Errorf("too large: %v", err)
	}
}

func TestSDKInvoke(t *testing.T) {
	c := connect(t)
	create(t, c, "hello")
	wait(t, c, "hello")
	ctx := t.Context()
	if _, err := c.PublishVersion(ctx, &sdk.PublishVersionInput{FunctionName: awssdk.String("hello")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateAlias(ctx, &sdk.CreateAliasInput{FunctionName: awssdk.String("hello"), Name: awssdk.String("live"), FunctionVersion: awssdk.String("1")}); err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:lambda:" + region + ":" + account + ":function:hello"
	out, err := c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String(arn + ":live"), Payload: []byte(`{"a":1}`), ClientContext: awssdk.String("e30=")})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"event":{"a":1},"arn":"` + arn + `:live","context":"{}"}`; string(out.Payload) != want || out.StatusCode != 200 || *out.ExecutedVersion != "1" || out.FunctionError != nil || out.LogResult != nil {
		t.Errorf("%s %+v", out.Payload, out)
	}
	out, err = c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String("hello"), Payload: []byte(`"fail"`), LogType: types.LogTypeTail})
	if err != nil || *out.FunctionError != "Unhandled" || string(out.Payload) != `{"errorMessage":"no"}` || *out.LogResult != "dGFpbA==" || *out.ExecutedVersion != "$LATEST" {
		t.Errorf("function error: %s %+v %v", out.Payload, out, err)
	}
	out, err = c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String("hello"), InvocationType: types.InvocationTypeDryRun})
	if err != nil || out.StatusCode != 204 || len(out.Payload) != 0 {
		t.Errorf("dry run: %+v %v", out, err)
	}
	out, err = c.Invoke(ctx, &sdk.InvokeInput{FunctionName: awssdk.String("hello")})
	if err != nil || !strings.HasPrefix(string(out.Payload), `{"event":{},`) {
		t.Errorf("no payload: %+v %v", out, err)
	}

	stream, err := c.InvokeWithResponseStream(ctx, &sdk.InvokeWithResponseStreamInput{FunctionName: awssdk.String("hello"), Payload: []byte(`"stream"`), LogType: types.LogTypeTail})
	if err != nil {
		t.Fatal(err)
	}
	var payload string
	var done *types.InvokeWithResponseStreamCompleteEvent
	for event := range stream.GetStream().Events() {
		switch e := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			payload += string(e.Value.Payload)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			done = &e.Value
		}
	}
	if err := stream.GetStream().Err(); err != nil {
		t.Error(err)
	}
	if payload != "chunk 0 chunk 1 chunk 2 " || done == nil || *done.ErrorCode != "Runtime.ExitError" || *done.ErrorDetails != "{}" || *done.LogResult != "dGFpbA==" || *stream.ExecutedVersion != "$LATEST" || stream.StatusCode != 200 {
		t.Errorf("stream: %q %+v", payload, done)
	}
	dry, err := c.InvokeWithResponseStream(ctx, &sdk.InvokeWithResponseStreamInput{FunctionName: awssdk.String("hello"), InvocationType: types.ResponseStreamingInvocationTypeDryRun})
	if err != nil {
		t.Fatalf("dry run of a stream: %v", err)
	}
	for event := range dry.GetStream().Events() {
		t.Errorf("dry run of a stream: %+v", event)
	}
	_, err = c.InvokeWithResponseStream(ctx, &sdk.InvokeWithResponseStreamInput{FunctionName: awssdk.String("hello"), Payload: []byte(`"throttle"`)})
	if _, ok := errors.AsType[*types.TooManyRequestsException](err); !ok {
		t.Errorf("throttled stream: %v", err)
	}
}

func TestSDKReadsWhatItWrote(t *testing.T) {
	c := connect(t)
	create(t, c, "hello")
	wait(t, c, "hello")
	ctx, name := t.Context(), awssdk.String("hello")
	out, err := c.GetFunction(ctx, &sdk.GetFunctionInput{FunctionName: name})
	if err != nil {
		t.Fatal(err)
	}
	conf := out.Configuration
	if *conf.MemorySize != 128 || conf.Environment.Variables["KEY"] != "<&>" || out.Tags["name"] != "hello" || *conf.Description != "" || conf.PackageType != types.PackageTypeZip ||
		*conf.LoggingConfig.LogGroup != "/aws/lambda/hello" || conf.SnapStart.OptimizationStatus != types.SnapStartOptimizationStatusOff || *out.Code.RepositoryType != "S3" || out.Concurrency != nil {
		t.Errorf("%+v", conf)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000-0700", *conf.LastModified); err != nil {
		t.Error(err)
	}
	resp, err := http.Get(*out.Code.Location)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if code, _ := io.ReadAll(resp.Body); !bytes.Equal(code, zipOf(t, "index.js", "// hello")) {
		t.Errorf("code: %d, %d bytes", resp.StatusCode, len(code))
	}

	arn := conf.FunctionArn
	if _, err := c.TagResource(ctx, &sdk.TagResourceInput{Resource: arn, Tags: map[string]string{"a b": "ü"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UntagResource(ctx, &sdk.UntagResourceInput{Resource: arn, TagKeys: []string{"name"}}); err != nil {
		t.Fatal(err)
	}
	if tags, err := c.ListTags(ctx, &sdk.ListTagsInput{Resource: arn}); err != nil || fmt.Sprint(tags.Tags) != "map[a b:ü]" {
		t.Errorf("%v %v", tags, err)
	}
	if _, err := c.PutFunctionConcurrency(ctx, &sdk.PutFunctionConcurrencyInput{FunctionName: name, ReservedConcurrentExecutions: awssdk.Int32(0)}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetFunctionConcurrency(ctx, &sdk.GetFunctionConcurrencyInput{FunctionName: name}); err != nil || got.ReservedConcurrentExecutions == nil || *got.ReservedConcurrentExecutions != 0 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := c.DeleteFunctionConcurrency(ctx, &sdk.DeleteFunctionConcurrencyInput{FunctionName: name}); err != nil {
		t.Error(err)
	}
	statement, err := c.AddPermission(ctx, &sdk.AddPermissionInput{FunctionName: name, StatementId: awssdk.String("s3"), Action: awssdk.String("lambda:InvokeFunction"), Principal: awssdk.String("s3.amazonaws.com")})
	if err != nil || !strings.HasPrefix(*statement.Statement, `{"Sid":"s3","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},`) {
		t.Errorf("%+v %v", statement, err)
	}
	policy, err := c.GetPolicy(ctx, &sdk.GetPolicyInput{FunctionName: name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RemovePermission(ctx, &sdk.RemovePermissionInput{FunctionName: name, StatementId: awssdk.String("s3"), RevisionId: policy.RevisionId}); err != nil {
		t.Error(err)
	}
	if _, err := c.GetFunctionCodeSigningConfig(ctx, &sdk.GetFunctionCodeSigningConfigInput{FunctionName: name}); err != nil {
		t.Error(err)
	}
	if s, err := c.GetAccountSettings(ctx, &sdk.GetAccountSettingsInput{}); err != nil || s.AccountLimit.TotalCodeSize != 80530636800 || s.AccountUsage.FunctionCount != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := c.PublishVersion(ctx, &sdk.PublishVersionInput{FunctionName: name}); err != nil {
		t.Fatal(err)
	}
	alias, err := c.CreateAlias(ctx, &sdk.CreateAliasInput{FunctionName: name, Name: awssdk.String("latest"), FunctionVersion: awssdk.String("$LATEST")})
	if err != nil || *alias.AliasArn != *arn+":latest" {
		t.Errorf("%+v %v", alias, err)
	}
	if a, err := c.UpdateAlias(ctx, &sdk.UpdateAliasInput{FunctionName: name, Name: awssdk.String("latest"), Description: awssdk.String("d")}); err != nil || *a.Description != "d" {
		t.Errorf("%+v %v", a, err)
	}
	if l, err := c.ListAliases(ctx, &sdk.ListAliasesInput{FunctionName: name}); err != nil || len(l.Aliases) != 1 {
		t.Errorf("%+v %v", l, err)
	}
	if _, err := c.DeleteAlias(ctx, &sdk.DeleteAliasInput{FunctionName: name, Name: awssdk.String("latest")}); err != nil {
		t.Error(err)
	}
	deleted, err := c.DeleteFunction(ctx, &sdk.DeleteFunctionInput{FunctionName: name})
	if err != nil || deleted.StatusCode != 204 {
		t.Errorf("%+v %v", deleted, err)
	}
}

func TestSDKPaginators(t *testing.T) {
	c := connect(t)
	for i := range 4 {
		create(t, c, fmt.Sprint("f", i))
	}
	wait(t, c, "f0")
	if _, err := c.PublishVersion(t.Context(), &sdk.PublishVersionInput{FunctionName: awssdk.String("f0")}); err != nil {
		t.Fatal(err)
	}
	var names []string
	functions := sdk.NewListFunctionsPaginator(c, &sdk.ListFunctionsInput{MaxItems: awssdk.Int32(2), FunctionVersion: types.FunctionVersionAll})
	for functions.HasMorePages() {
		page, err := functions.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Functions {
			names = append(names, *f.FunctionName+":"+*f.Version)
		}
	}
	if !slices.Equal(names, []string{"f0:$LATEST", "f0:1", "f1:$LATEST", "f2:$LATEST", "f3:$LATEST"}) {
		t.Errorf("functions: %v", names)
	}
	var versions []string
	pages := sdk.NewListVersionsByFunctionPaginator(c, &sdk.ListVersionsByFunctionInput{FunctionName: awssdk.String("f0"), MaxItems: awssdk.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Versions {
			versions = append(versions, *v.Version)
		}
	}
	if !slices.Equal(versions, []string{"$LATEST", "1"}) {
		t.Errorf("versions: %v", versions)
	}
}
