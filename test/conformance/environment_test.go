package conformance_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// meeting is one row of what a function meets: an expression of JavaScript that
// it evaluates, and what the caller gets. In want, {id} stands for the request
// id, {region} and {account} for the server's. A trailing … leaves the rest open.
type meeting struct {
	name       string
	expression string
	want       string // the payload
	failed     bool   // with X-Amz-Function-Error
	brief      bool   // in the function that has a second only
}

// Functions that evaluate the rows' expressions, with the least /tmp and a
// processor to themselves.
const (
	environmentFunction = "environment"
	briefFunction       = "environment-brief"
)

// TestWhatAFunctionMeets walks the environment of a function: its variables,
// files, limits, and how its ends are told (Lambda developer guide, execution
// environment and quotas).
func TestWhatAFunctionMeets(t *testing.T) {
	t.Parallel()
	c := lambda.NewFromConfig(server.Config(), oneTry)
	ctx := t.Context()
	for name, seconds := range map[string]int32{environmentFunction: 300, briefFunction: 1} {
		_, err := c.CreateFunction(ctx, newFunction(name, func(in *lambda.CreateFunctionInput) {
			in.Timeout = &seconds
			in.Environment = &types.Environment{Variables: map[string]string{"OWN": "value"}}
			in.Code.ZipFile = harness.Zip(map[string]string{"index.js": evaluate})
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := c.DeleteFunction(context.WithoutCancel(ctx), &lambda.DeleteFunctionInput{FunctionName: &name}); err != nil {
				t.Error(err)
			}
		})
		waiter := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
		if err := waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &name}, 5*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range meetings {
		t.Run(row.name, func(t *testing.T) { row.check(t, c) })
	}
}

const evaluate = `
const fs = require("node:fs"), os = require("node:os");
const refusal = (f) => { try { f(); return "none"; } catch (e) { return e.code; } };
const limit = (name) => fs.readFileSync("/proc/self/limits", "utf8").split("\n").find((l) => l.startsWith(name)).slice(26).trim().split(/\s+/)[0];
exports.handler = async (event, context) => eval(event.expression);`

func (m *meeting) check(t *testing.T, c *lambda.Client) {
	event, err := json.Marshal(map[string]string{"expression": m.expression})
	if err != nil {
		t.Fatal(err)
	}
	name := environmentFunction
	if m.brief {
		name = briefFunction
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: event})
	if err != nil {
		t.Fatal(err)
	}
	if failed := out.FunctionError != nil; failed != m.failed {
		t.Errorf("function error %v, want %t", aws.ToString(out.FunctionError), m.failed)
	}
	id, _ := middleware.GetRequestIDMetadata(out.ResultMetadata)
	want := strings.NewReplacer("{id}", id, "{region}", server.Env["AWS_REGION"], "{account}", server.Account()).Replace(m.want)
	prefix, open := strings.CutSuffix(want, "…")
	if got := string(out.Payload); got != want && !(open && strings.HasPrefix(got, prefix)) {
		t.Errorf("payload\n %.600s\nwant\n %s", got, want)
	}
}
