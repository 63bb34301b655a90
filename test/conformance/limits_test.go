package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
)

// limit is one row of Lambda's limits and messages: a call through the wire and
// the refusal that AWS gives it. In message, and in the ARNs of calls, words are
// replaced.
type limit struct {
	name    string
	call    func(ctx context.Context, c *lambda.Client) error
	status  int
	code    string
	message string // a trailing … leaves the rest open
}

// What the rows refer to.
const (
	limitsFunction = "limits"         // has version 1 and alias live
	limitsTenants  = "limits-tenants" // has version 1 and isolates tenants
)

// words stand for what a server decides: {arn} for the ARN of the table's
// function, {layer} for that of its layer, which has versions 1 and 2, {arns} for
// the beginning of all ARNs of Lambda here, {region} and {account}.
var words *strings.Replacer

// oneTry makes a client show the first answer.
func oneTry(o *lambda.Options) { o.RetryMaxAttempts = 1 }

// TestLimitsAndMessages walks Lambda's limits and the words in which they are
// told (Lambda developer guide, quotas; Lambda API reference, errors).
func TestLimitsAndMessages(t *testing.T) {
	c := lambda.NewFromConfig(server.Config(), oneTry)
	layer := uniqueLayer() // no version of a layer can be made twice
	arns := "arn:aws:lambda:" + server.Env["AWS_REGION"] + ":" + server.Account()
	words = strings.NewReplacer("{arn}", functionARN(limitsFunction), "{layer}", arns+":layer:"+layer, "{arns}", arns,
		"{region}", server.Env["AWS_REGION"], "{account}", server.Account())
	prepareLimits(t, c, layer)
	for _, rows := range limits {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				checkRefusal(t, row.call(ctx, c), row.status, row.code, words.Replace(row.message))
			})
		}
	}
}

func functionARN(name string) string {
	return "arn:aws:lambda:" + server.Env["AWS_REGION"] + ":" + server.Account() + ":function:" + name
}

// checkRefusal compares an answer with status, code and message of a refusal. A
// row without a code is about something that is taken.
func checkRefusal(t *testing.T, err error, status int, code, message string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Fatalf("got %v, want %s", err, code)
	}
	if resp, ok := errors.AsType[*awshttp.ResponseError](err); !ok || resp.HTTPStatusCode() != status {
		t.Errorf("status of %v, want %d", err, status)
	}
	if e.ErrorCode() != code {
		t.Errorf("code %s, want %s", e.ErrorCode(), code)
	}
	prefix, open := strings.CutSuffix(message, "…")
	if got := e.ErrorMessage(); got != message && !(open && strings.HasPrefix(got, prefix)) {
		t.Errorf("message\n %s\nwant\n %s", got, message)
	}
}

// prepareLimits makes what the rows refer to.
func prepareLimits(t *testing.T, c *lambda.Client, layer string) {
	t.Helper()
	ctx := t.Context()
	prepareFunction(t, c, newFunction(limitsFunction))
	prepareFunction(t, c, newFunction(limitsTenants, func(in *lambda.CreateFunctionInput) {
		in.TenancyConfig = &types.TenancyConfig{TenantIsolationMode: types.TenantIsolationModePerTenant}
	}))
	_, err := c.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: aws.String(limitsFunction), Name: aws.String("live"), FunctionVersion: aws.String("1")})
	if err != nil {
		t.Fatal(err)
	}
	for version := range int64(2) {
		if err := publishLayer(layer, map[string]string{"a": "b"})(ctx, c); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := deleteLayer(context.WithoutCancel(ctx), c, layer, version+1); err != nil {
				t.Error(err)
			}
		})
	}
}

// prepareFunction makes a function with a version for the time of a test.
func prepareFunction(t *testing.T, c *lambda.Client, in *lambda.CreateFunctionInput) {
	t.Helper()
	ctx := t.Context()
	if _, err := c.CreateFunction(ctx, in); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.DeleteFunction(context.WithoutCancel(ctx), &lambda.DeleteFunctionInput{FunctionName: in.FunctionName}); err != nil {
			t.Error(err)
		}
	})
	waiter := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: in.FunctionName}, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: in.FunctionName}); err != nil {
		t.Fatal(err)
	}
}

func uniqueLayer() string { return fmt.Sprint("limits-", time.Now().UnixNano()) }

func deleteLayer(ctx context.Context, c *lambda.Client, name string, version int64) error {
	_, err := c.DeleteLayerVersion(ctx, &lambda.DeleteLayerVersionInput{LayerName: &name, VersionNumber: &version})
	return err
}

// newFunction is a request that makes a function, for a row to spoil.
func newFunction(name string, spoil ...func(*lambda.CreateFunctionInput)) *lambda.CreateFunctionInput {
	in := &lambda.CreateFunctionInput{
		FunctionName: aws.String(name), Runtime: nodeRuntime, Handler: aws.String("index.handler"), Role: aws.String(role()), MemorySize: aws.Int32(1769), Timeout: aws.Int32(60),
		Code: &types.FunctionCode{ZipFile: code(1)},
	}
	for _, f := range spoil {
		f(in)
	}
	return in
}

// create is a row's call that must not make a function.
func create(spoil ...func(*lambda.CreateFunctionInput)) func(context.Context, *lambda.Client) error {
	return createNamed("refused", spoil...)
}

func createNamed(name string, spoil ...func(*lambda.CreateFunctionInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.CreateFunction(ctx, newFunction(name, spoil...))
		return err
	}
}

// change is a row's call of UpdateFunctionConfiguration.
func change(spoil func(*lambda.UpdateFunctionConfigurationInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.UpdateFunctionConfigurationInput{FunctionName: aws.String(limitsFunction)}
		spoil(in)
		_, err := c.UpdateFunctionConfiguration(ctx, in)
		return err
	}
}

// invokeWith is a row's call of Invoke.
func invokeWith(spoil func(*lambda.InvokeInput)) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		in := &lambda.InvokeInput{FunctionName: aws.String(limitsFunction)}
		spoil(in)
		_, err := c.Invoke(ctx, in)
		return err
	}
}

// get is a row's call of GetFunction.
func get(name string, qualifier *string) func(context.Context, *lambda.Client) error {
	return func(ctx context.Context, c *lambda.Client) error {
		_, err := c.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: aws.String(name), Qualifier: qualifier})
		return err
	}
}

// status codes by name, so that rows stay short.
const (
	badRequest   = http.StatusBadRequest
	forbidden    = http.StatusForbidden
	missing      = http.StatusNotFound
	conflicting  = http.StatusConflict
	tooLarge     = http.StatusRequestEntityTooLarge
	precondition = http.StatusPreconditionFailed
	manyRequests = http.StatusTooManyRequests
)

// Error codes that many rows share.
const (
	codeParameter  = "InvalidParameterValueException"
	codeValidation = "ValidationException"
	codeMissing    = "ResourceNotFoundException"
	codeConflict   = "ResourceConflictException"
)
