// Command function waits as told and answers with an id of its environment, or
// with more about it. Where BROKEN is set it does not start.
package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"lapwing.dev/lapwing/test/acceptance/gate"
)

var id = rand.Uint64()

type event struct {
	Until string // the URL of a gate
	About bool
}

func main() {
	if os.Getenv("BROKEN") != "" {
		os.Exit(1)
	}
	lambda.Start(func(ctx context.Context, e event) (any, error) {
		if e.Until != "" {
			gate.Wait(e.Until)
		}
		if !e.About {
			return fmt.Sprint(id), nil
		}
		about := map[string]string{"id": fmt.Sprint(id), "init": os.Getenv("AWS_LAMBDA_INITIALIZATION_TYPE")}
		if c, ok := lambdacontext.FromContext(ctx); ok {
			about["tenant"] = c.TenantID
		}
		return about, nil
	})
}
