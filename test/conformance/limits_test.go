package conformance_test

import (
	"context"
	"errors"
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
// the refusal that AWS gives it. In message, {arn} stands for the ARN of the
// table's function and {region} and {account} for the server's.
type limit struct {
	name    string
	call    func(ctx context.Context, c *lambda.Client) error
	status  int
	code    string
	message string // a trailing … leaves the rest open
}

// limitsFunction is the function that the rows refer to: version 1, alias live.
const limitsFunction = "limits"

// oneTry makes a client show the first answer.
func oneTry(o *lambda.Options) { o.RetryMaxAttempts = 1 }

// TestLimitsAndMessages walks Lambda's limits and the words in which they are
// told (Lambda developer guide, quotas; Lambda API reference, errors).
func TestLimitsAndMessages(t *testing.T) {
	c := lambda.NewFromConfig(server.Config(), oneTry)
	prepareLimits(t, c)
	words := strings.NewReplacer("{arn}", functionARN(limitsFunction), "{region}", server.Env["AWS_REGION"], "{account}", server.Account())
	for _, rows := range limits {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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

// prepareLimits makes the function that the rows refer to.
func prepareLimits(t *testing.T, c *lambda.Client) {
	t.Helper()
	ctx := t.Context()
	if _, err := c.CreateFunction(ctx, newFunction(limitsFunction)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.DeleteFunction(context.WithoutCancel(ctx), &lambda.DeleteFunctionInput{FunctionName: aws.String(limitsFunction)}); err != nil {
			t.Error(err)
		}
	})
	waiter := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: aws.String(limitsFunction)}, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: aws.String(limitsFunction)}); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: aws.String(limitsFunction), Name: aws.String("live"), FunctionVersion: aws.String("1")})
	if err != nil {
		t.Fatal(err)
	}
}

// newFunction is a request that makes a function, for a row to spoil.
func newFunction(name string, spoil ...func(*lambda.CreateFunctionInput)) *lambda.CreateFunctionInput {
	in := &lambda.CreateFunctionInput{
		FunctionName: aws.String(name), Runtime: nodeRuntime, Handler: aws.String("index.handler"), Role: aws.String(role()),
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
