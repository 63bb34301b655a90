package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
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

// starts are the measured starts of one runtime.
type starts struct {
	name    string
	runtime string
	files   map[string]string
	native  []string // the same interpreter's start on this host: run to its end
}

// cold measures from request to reply where no environment runs.
func (b *bench) cold(ctx context.Context) error {
	bootstrap, err := harness.Program("lapwing.dev/lapwing/test/bench/function")
	if err != nil {
		return err
	}
	all := []starts{
		{"node", nodeRuntime, map[string]string{"index.js": "exports.handler = async (event) => event;"}, []string{b.node, "-e", "0"}},
		{"go", "provided.al2023", map[string]string{"bootstrap*": bootstrap}, nil},
	}
	for _, runtime := range []string{"python3.13", "python3.12", "python3.11"} {
		if python, err := b.server.Interpreter(runtime); err == nil {
			all = append(all, starts{"python", runtime, map[string]string{"index.py": "def handler(event, context):\n    return event\n"}, []string{python, "-c", "0"}})
			break
		}
	}
	fmt.Printf("cold start, from request to reply (n = %d, median and worst)\n", b.colds)
	for _, s := range all {
		if err := b.coldOf(ctx, s); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func (b *bench) coldOf(ctx context.Context, s starts) error {
	name := "cold-" + s.name
	if err := b.deploy(ctx, name, s.runtime, s.files); err != nil {
		return err
	}
	var times []time.Duration
	for i := range b.colds {
		took, err := b.oneCold(ctx, name, i)
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	slices.Sort(times)
	median := times[len(times)/2]
	fmt.Printf("  %-16s %8v  worst %v\n", s.runtime, median.Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
	if s.native == nil {
		goal("a Go function, ms", float64(median.Microseconds())/1000, "%.0f", "at most 150", median <= 150*time.Millisecond)
		return nil
	}
	native, err := nativeStart(ctx, s.native, b.colds)
	if err != nil {
		return err
	}
	ratio := float64(median) / float64(native)
	if s.name == "node" {
		goal(fmt.Sprintf("times the native start, which takes %v", native.Round(time.Millisecond)), ratio, "%.2f", "at most 5", ratio <= 5)
	} else {
		fmt.Printf("  %-46s %.2f\n", fmt.Sprintf("times the native start, which takes %v", native.Round(time.Millisecond)), ratio)
	}
	return nil
}

// oneCold measures one cold start of a function, the nth.
func (b *bench) oneCold(ctx context.Context, name string, n int) (time.Duration, error) {
	c := lambda.NewFromConfig(b.server.Config())
	// A change of the configuration retires the environments there are.
	_, err := c.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: &name, Description: aws.String(fmt.Sprint(n)),
		Environment: &types.Environment{Variables: map[string]string{"RUN": fmt.Sprint(n)}}})
	if err != nil {
		return 0, err
	}
	w := lambda.NewFunctionUpdatedV2Waiter(c, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := w.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &name}, time.Minute); err != nil {
		return 0, err
	}
	time.Sleep(300 * time.Millisecond) // let the last one end
	began := time.Now()
	out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: payload})
	if err != nil {
		return 0, err
	}
	if out.FunctionError != nil {
		return 0, fmt.Errorf("%s: %s", name, out.Payload)
	}
	return time.Since(began), nil
}

// nativeStart returns the median time of a command from its start to its end.
func nativeStart(ctx context.Context, command []string, n int) (time.Duration, error) {
	var times []time.Duration
	for range n {
		began := time.Now()
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%v: %w\n%s", command, err, out)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
