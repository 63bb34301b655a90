package main

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"lapwing.dev/lapwing/test/harness"
)

// image compares cold starts of one program as a zip package and as a container
// image, taking turns.
func (b *bench) image(ctx context.Context) error {
	const asZip, asImage = "start-zip", "start-image"
	program, err := harness.Program("lapwing.dev/lapwing/test/bench/function")
	if err != nil {
		return err
	}
	if err := b.deploy(ctx, asZip, "provided.al2023", map[string]string{"bootstrap*": program}); err != nil {
		return err
	}
	if err := b.deployImage(ctx, asImage, program); err != nil {
		return err
	}
	var zips, images []time.Duration
	for i := range b.rounds {
		for name, times := range map[string]*[]time.Duration{asZip: &zips, asImage: &images} {
			if err := b.renew(ctx, name, i); err != nil {
				return err
			}
			b.settle(ctx)
			took, _, err := b.start(ctx, name, false)
			if err != nil {
				return err
			}
			*times = append(*times, took)
		}
	}
	b.report.atMost("start of a Go program as an image, p50", "as a zip package", loadOf(zips).percentile(.5), loadOf(images).percentile(.5), 1.3)
	return nil
}

func (b *bench) deployImage(ctx context.Context, name, program string) error {
	layer, err := harness.Layer(map[string]string{"handler*": program})
	if err != nil {
		return err
	}
	img, err := harness.Image(v1.Config{Entrypoint: []string{"/handler"}}, layer)
	if err != nil {
		return err
	}
	uri, auth, err := b.server.Repository(ctx, name)
	if err != nil {
		return err
	}
	if err := harness.Push(ctx, uri+":1", auth, img); err != nil {
		return err
	}
	c := lambda.NewFromConfig(b.server.Config())
	if _, err := c.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: &name, PackageType: types.PackageTypeImage, MemorySize: aws.Int32(memoryMB), Timeout: aws.Int32(60),
		Role: aws.String("arn:aws:iam::" + b.server.Account() + ":role/bench"), Code: &types.FunctionCode{ImageUri: aws.String(uri + ":1")},
	}); err != nil {
		return err
	}
	w := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	return w.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &name}, time.Minute)
}
