// Command function is the function under test: its event says what to do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"runtime"
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
		time.AfterFunc(time.Duration(e.N)*time.Millisecond, func() { os.Exit(0) })
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
	case "fill": // what is called Arg, until it cannot have more
		n, err := fill(e.Arg)
		return fmt.Sprint(n, " ", err), nil
	case "timer":
		time.AfterFunc(time.Duration(e.N)*time.Millisecond, func() { fmt.Println("the timer rang") })
		return nil, nil
	case "cpus":
		return runtime.NumCPU(), nil
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

// fill uses a resource up and tells how much of it there was, and what the end
// of it looks like. It gives it back.
func fill(what string) (n int, err error) {
	switch what {
	case "files":
		var open []*os.File
		for ; err == nil; n++ {
			var f *os.File
			if f, err = os.Open("/dev/null"); err == nil {
				open = append(open, f)
			}
		}
		n = len(open)
		for _, f := range open {
			f.Close()
		}
	case "processes":
		var all []*exec.Cmd
		for err == nil {
			c := exec.Command("/proc/self/exe")
			c.Env = []string{"IDLE=1"}
			if err = c.Start(); err == nil {
				all = append(all, c)
			}
		}
		n = len(all)
		for _, c := range all {
			c.Process.Kill()
			c.Wait()
		}
	case "/tmp": // in MiB
		f, ferr := os.Create("/tmp/full")
		if ferr != nil {
			return 0, ferr
		}
		defer os.Remove(f.Name())
		defer f.Close()
		mib := make([]byte, 1<<20)
		for ; err == nil; n++ {
			_, err = f.Write(mib)
		}
		n--
	}
	return n, err
}

// initialise is the function's static code: what the environment tells it.
func initialise() {
	if os.Getenv("IDLE") != "" {
		select {}
	}
	if os.Getenv("FAIL_INIT") != "" {
		fmt.Println("failing on purpose")
		os.Exit(3)
	}
	if slow := os.Getenv("SLOW_INIT"); slow != "" {
		// With the name of a file, only until that is there.
		if _, err := os.Stat(slow); err != nil {
			os.WriteFile(slow, nil, 0o644)
			time.Sleep(10 * time.Minute)
		}
	}
}

func main() {
	if strings.HasPrefix(os.Args[0], "/opt/extensions/") {
		extension()
		return
	}
	initialise()
	if os.Getenv("SIGTERM") != "" {
		lambda.StartWithOptions(handle, lambda.WithEnableSIGTERM(func() { fmt.Println("got SIGTERM") }))
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	go func() {
		<-c
		fmt.Println("got SIGTERM unasked")
	}()
	lambda.Start(handle)
}

// extension is an external extension that prints what it is told.
func extension() {
	const api = "/2020-01-01/extension/"
	url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + api
	call := func(method, path, body string, header ...string) *http.Response {
		req, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		req.Header.Set(header[0], header[1])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(err)
		}
		return resp
	}
	const id = "Lambda-Extension-Identifier"
	resp := call("POST", "register", `{"events":["INVOKE","SHUTDOWN"]}`, "Lambda-Extension-Name", path.Base(os.Args[0]))
	resp.Body.Close()
	for {
		next := call("GET", "event/next", "", id, resp.Header.Get(id))
		var event struct{ EventType, ShutdownReason string }
		if err := json.NewDecoder(next.Body).Decode(&event); err != nil {
			panic(err)
		}
		next.Body.Close()
		fmt.Println("extension:", event.EventType, event.ShutdownReason)
		if event.EventType == "SHUTDOWN" {
			return
		}
	}
}
