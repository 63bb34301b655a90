package main

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// deploy creates a function and waits until it is active.
func (b *bench) deploy(ctx context.Context, name, runtime string, files map[string]string) error {
	c := lambda.NewFromConfig(b.server.Config())
	_, err := c.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.Runtime(runtime), Handler: aws.String("index.handler"), MemorySize: aws.Int32(memoryMB),
		Role: aws.String("arn:aws:iam::" + b.server.Account() + ":role/bench"), Timeout: aws.Int32(60),
		Code: &types.FunctionCode{ZipFile: harness.Zip(files)},
	})
	if err != nil {
		return err
	}
	w := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	return w.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &name}, time.Minute)
}

// renew changes a function's configuration, which makes it another version of
// it: its environments are retired, and there is no snapshot of it yet.
func (b *bench) renew(ctx context.Context, name string, n int) error {
	c := lambda.NewFromConfig(b.server.Config())
	if _, err := c.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &name, Environment: &types.Environment{Variables: map[string]string{"RUN": fmt.Sprint(n)}},
	}); err != nil {
		return err
	}
	w := lambda.NewFunctionUpdatedV2Waiter(c, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	return w.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &name}, time.Minute)
}

// invocations is the URL that invokes a function.
func (b *bench) invocations(name string) string {
	return b.server.URL() + "/2015-03-31/functions/" + name + "/invocations"
}
