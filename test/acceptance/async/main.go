// Command async is run by events. It leaves an object in the bucket RUNS for
// each run, which lasts as no log line does, and does what the event says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	lambdaapi "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// handle leaves runs/ID/REQUEST for an event with an id, and for any other
// event, which is what destinations get, records/FUNCTION/REQUEST.
func handle(ctx context.Context, event json.RawMessage) (string, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return "", err
	}
	c, ok := lambdacontext.FromContext(ctx)
	if !ok {
		return "", errors.New("no context")
	}
	var e struct {
		ID   string
		Fail bool   // end in an error
		Call string // invoke the function itself: Event or RequestResponse
	}
	_ = json.Unmarshal(event, &e) // what it is otherwise is kept as it is
	key := "records/" + lambdacontext.FunctionName + "/" + c.AwsRequestID
	if e.ID != "" {
		key = "runs/" + e.ID + "/" + c.AwsRequestID
	}
	kept, err := json.Marshal(map[string]any{"event": event, "custom": c.ClientContext.Custom})
	if err != nil {
		return "", err
	}
	store := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := store.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("runs"), Key: &key, Body: strings.NewReader(string(kept))}); err != nil {
		return "", err
	}
	switch {
	case e.Fail:
		return "", errors.New("broken")
	case e.Call != "":
		_, err := lambdaapi.NewFromConfig(cfg).Invoke(ctx, &lambdaapi.InvokeInput{
			FunctionName: &lambdacontext.FunctionName, Payload: event, InvocationType: types.InvocationType(e.Call),
		})
		return "called", err
	}
	return "done", nil
}

func main() { lambda.Start(handle) }
