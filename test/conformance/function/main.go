// Command function answers with what it sees, or fails as it is told.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Do   string
	Echo any `json:",omitempty"`
}

type broken struct{ what string }

func (b broken) Error() string { return b.what }

func main() { lambda.Start(handle) }

func handle(ctx context.Context, e event) (any, error) {
	lc, _ := lambdacontext.FromContext(ctx)
	switch e.Do {
	case "context":
		deadline, _ := ctx.Deadline()
		left := time.Until(deadline)
		return map[string]any{
			"id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "name": lambdacontext.FunctionName, "version": lambdacontext.FunctionVersion,
			"memory": fmt.Sprint(lambdacontext.MemoryLimitInMB), "group": lambdacontext.LogGroupName, "stream": lambdacontext.LogStreamName,
			"time": left > 0 && left <= time.Minute, "client": lc.ClientContext.Custom["k"],
		}, nil
	case "env":
		env := map[string]string{}
		for _, kv := range os.Environ() {
			for i := range kv {
				if kv[i] == '=' {
					env[kv[:i]] = kv[i+1:]
					break
				}
			}
		}
		return env, nil
	case "tmp":
		b, err := os.ReadFile("/tmp/n")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return len(b) + 1, os.WriteFile("/tmp/n", append(b, 'x'), 0o600)
	case "read":
		b, err := os.ReadFile(fmt.Sprint(e.Echo))
		return string(b), err
	case "log":
		fmt.Println("from stdout of", lc.AwsRequestID)
		fmt.Fprintln(os.Stderr, "from stderr of", lc.AwsRequestID)
	case "fail":
		return nil, broken{"as told"}
	case "panic":
		panic("as told")
	case "exit":
		os.Exit(3)
	case "sleep":
		time.Sleep(time.Minute)
	}
	return e.Echo, nil
}
