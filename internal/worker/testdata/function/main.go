// Command function is the function under test: its event says what to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

var count int

type event struct {
	Do  string `json:"do"`
	Arg string `json:"arg"`
	N   int    `json:"n"`
}

func handle(ctx context.Context, e event) (any, error) {
	count++
	switch e.Do {
	case "count":
		return count, nil
	case "sleep":
		time.Sleep(time.Duration(e.N) * time.Millisecond)
		return "slept", nil
	case "fail":
		return nil, errors.New(e.Arg)
	case "panic":
		panic(e.Arg)
	case "exit":
		os.Exit(e.N)
	case "exit soon":
		time.AfterFunc(20*time.Millisecond, func() { os.Exit(e.N) })
		return nil, nil
	case "kill":
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "allocate":
		b := make([]byte, e.N<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return len(b), nil
	case "print":
		for i := range e.N {
			fmt.Println(e.Arg, i)
		}
		return nil, nil
	case "env":
		return strings.Join(os.Environ(), "\n"), nil
	case "write":
		return nil, os.WriteFile(e.Arg, make([]byte, e.N), 0o644)
	case "read":
		b, err := os.ReadFile(e.Arg)
		return string(b), err
	case "dial":
		c, err := net.DialTimeout("tcp", e.Arg, time.Second)
		if err != nil {
			return err.Error(), nil
		}
		return "connected", c.Close()
	case "whoami":
		dir, err := os.Getwd()
		return fmt.Sprint(os.Getuid(), ":", os.Getgid(), " ", dir), err
	case "response":
		return strings.Repeat("x", e.N), nil
	case "stream": // without an end
		return io.MultiReader(strings.NewReader(e.Arg), endless{}), nil
	case "background":
		go func() {
			for {
				count++
				time.Sleep(time.Millisecond)
			}
		}()
		return nil, nil
	case "context":
		lc, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		return map[string]any{"id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "left": time.Until(deadline).Milliseconds(), "name": lambdacontext.FunctionName, "memory": lambdacontext.MemoryLimitInMB}, nil
	}
	return nil, fmt.Errorf("do what? %q", e.Do)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return len(p), nil
}

func main() {
	if marker := os.Getenv("FAIL_INIT"); marker != "" {
		fmt.Println("failing on purpose")
		os.Exit(3)
	}
	if os.Getenv("SLOW_INIT") != "" {
		time.Sleep(time.Minute)
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	go func() {
		<-c
		fmt.Println("got SIGTERM")
		os.Exit(0)
	}()
	lambda.Start(handle)
}
