// Command function sleeps as told and answers with an id of its environment, or
// with more about it. Where BROKEN is set it does not start.
package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

var id = rand.Uint64()

type event struct {
	Sleep int // ms
	About bool
}

func main() {
	if os.Getenv("BROKEN") != "" {
		os.Exit(1)
	}
	lambda.Start(func(ctx context.Context, e event) (any, error) {
		fmt.Println("sleeping for", e.Sleep)
		time.Sleep(time.Duration(e.Sleep) * time.Millisecond)
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
