package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// functions are the runtimes that the tests start, by role.
var functions = map[string]func(){
	"echo":      func() { lambda.Start(func(e json.RawMessage) (json.RawMessage, error) { return e, nil }) },
	"sdk":       func() { lambda.Start(sdkHandler) },
	"raw-echo":  rawEcho,
	"bad-calls": badCalls,
	"big":       big,
	"init-error": func() {
		post("/2018-06-01/runtime/init/error", "Runtime.NoSuchHandler", `{"errorMessage":"no","errorType":"Runtime.NoSuchHandler"}`)
		os.Exit(1)
	},
	"exit-0": func() { os.Exit(0) },
	"exit-3": func() { fmt.Println("dying"); os.Exit(3) },
	"sigterm": func() {
		lambda.StartWithOptions(func(e json.RawMessage) (json.RawMessage, error) { return e, nil },
			lambda.WithEnableSIGTERM(func() { fmt.Println("told to end") }))
	},
	"extension-calls":      extensionCalls,
	"hang-ready":           hangReady,
	"extension":            extensionMain,
	"extension-init-error": extensionInitError,
	"log-exit":             logExit,
	"restore":              restored,
	"restore-calls":        restoreCalls,
	"restore-error":        func() { restoreError("/2018-06-01/runtime/restore/error") },
	"restore-init-error":   func() { restoreError("/2018-06-01/runtime/init/error") },
	"restore-exit":         func() { get("/runtime/restore/next"); os.Exit(65) },
	"restore-die":          restoreDie,
}

const runtimeAPI = "http://" + Address + "/2018-06-01"

// sdkHandler shows what aws-lambda-go's client makes of this Runtime API.
func sdkHandler(ctx context.Context, e map[string]string) (any, error) {
	lc, _ := lambdacontext.FromContext(ctx)
	switch e["do"] {
	case "context":
		d, _ := ctx.Deadline()
		return map[string]any{"id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "left": time.Until(d) > time.Second,
			"client": lc.ClientContext.Custom["k"], "cognito": lc.Identity.CognitoIdentityID, "trace": os.Getenv("_X_AMZN_TRACE_ID")}, nil
	case "log":
		fmt.Println("one")
		fmt.Fprintln(os.Stderr, "two")
		fmt.Print("three without an end")
		return "ok", nil
	case "error":
		return nil, errors.New("told so")
	case "panic":
		panic("argh")
	case "exit":
		os.Exit(7)
	case "reader":
		return strings.NewReader(strings.Repeat("r", 300_000)), nil
	case "midstream":
		return io.MultiReader(strings.NewReader("some"), failingReader{}), nil
	}
	return e, nil
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("midstream") }

// get and post call the Runtime API.
func get(path string) (*http.Response, []byte) {
	resp, err := http.Get(runtimeAPI + path)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	return resp, b
}

func post(url, errorType, body string) (int, string) {
	req, _ := http.NewRequest("POST", "http://"+Address+url, strings.NewReader(body))
	if errorType != "" {
		req.Header.Set(errorTypeHeader, errorType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// nextID waits for an event.
func nextID() (id string, event []byte) {
	resp, event := get("/runtime/invocation/next")
	if resp.StatusCode != 200 {
		panic(resp.Status + string(event))
	}
	return resp.Header.Get("Lambda-Runtime-Aws-Request-Id"), event
}

func rawEcho() {
	for {
		id, event := nextID()
		req, _ := http.NewRequest("POST", runtimeAPI+"/runtime/invocation/"+id+"/response", bytes.NewReader(event))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// badCalls makes calls out of order and prints the answers, one a line.
func badCalls() {
	say := func(status int, body string) { fmt.Printf("%d %s\n", status, strings.TrimSpace(body)) }
	const inv = "/2018-06-01/runtime/invocation/"
	say(post(inv+"x/response", "", "{}"))
	id, _ := nextID()
	again, _ := nextID()
	fmt.Println(again == id)
	say(post("/2018-06-01/runtime/init/error", "Runtime.X", "{}"))
	say(post(inv+"other/response", "", "{}"))
	say(post(inv+id+"/nothing", "", "{}"))
	resp, body := get("/runtime/invocation/" + id + "/response")
	say(resp.StatusCode, string(body))
	say(post(inv+id+"/response", "", `{"a":1}`))
	say(post(inv+id+"/response", "", `{"a":2}`))
	say(post(inv+id+"/error", "", `{}`))
	resp, body = get("/ping")
	say(resp.StatusCode, string(body))
	nextID()
}

// big answers with as many bytes as the event says.
func big() {
	for {
		id, event := nextID()
		var n int
		if err := json.Unmarshal(event, &n); err != nil {
			panic(err)
		}
		status, body := post("/2018-06-01/runtime/invocation/"+id+"/response", "", strings.Repeat("b", n))
		fmt.Println(status, strings.TrimSpace(body))
	}
}

// logExit posts its response, writes a line and ends, all without waiting.
func logExit() {
	id, _ := nextID()
	post("/2018-06-01/runtime/invocation/"+id+"/response", "", `"bye"`)
	fmt.Print("last words")
	os.Exit(2)
}

// hangReady takes an event and does nothing with it.
func hangReady() {
	nextID()
	fmt.Println("running")
	select {}
}

// extension registers and prints the events that it gets.
func extensionMain() {
	name := os.Getenv("NAME")
	req, _ := http.NewRequest("POST", "http://"+Address+"/2020-01-01/extension/register", strings.NewReader(`{"events":["INVOKE","SHUTDOWN"]}`))
	req.Header.Set("Lambda-Extension-Name", name)
	req.Header.Set("Lambda-Extension-Accept-Feature", "accountId")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println(name, "registered", strings.TrimSpace(string(b)))
	id := resp.Header.Get(identifierHeader)
	for {
		req, _ := http.NewRequest("GET", "http://"+Address+"/2020-01-01/extension/event/next", nil)
		req.Header.Set(identifierHeader, id)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(err)
		}
		var ev struct{ EventType, RequestID, ShutdownReason string }
		if err := json.NewDecoder(resp.Body).Decode(&ev); err != nil {
			panic(err)
		}
		resp.Body.Close()
		fmt.Println(name, ev.EventType, ev.RequestID+ev.ShutdownReason)
		if ev.EventType == "SHUTDOWN" {
			os.Exit(0)
		}
	}
}

func extensionInitError() {
	req, _ := http.NewRequest("POST", "http://"+Address+"/2020-01-01/extension/register", strings.NewReader(`{"events":[]}`))
	req.Header.Set("Lambda-Extension-Name", os.Getenv("NAME"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	id := resp.Header.Get(identifierHeader)
	req, _ = http.NewRequest("POST", "http://"+Address+"/2020-01-01/extension/init/error", nil)
	req.Header.Set(identifierHeader, id)
	req.Header.Set(extErrorHeader, "Extension.Mine")
	if resp, err = http.DefaultClient.Do(req); err != nil || resp.StatusCode != 202 {
		panic(fmt.Sprint(err, resp))
	}
	os.Exit(1)
}

// extensionCalls makes calls of the Extensions API and prints the answers.
func extensionCalls() {
	call := func(method, path, body string, header ...string) string {
		req, _ := http.NewRequest(method, "http://"+Address+path, strings.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		var doc errorDocument
		json.Unmarshal(b, &doc)
		fmt.Println(resp.StatusCode, doc.Type, doc.Message)
		return resp.Header.Get(identifierHeader)
	}
	const register, next, failed = "/2020-01-01/extension/register", "/2020-01-01/extension/event/next", "/2020-01-01/extension/exit/error"
	name := "Lambda-Extension-Name"
	call("POST", register, "{}")
	call("POST", register, "{", name, "a")
	call("POST", register, `{"configurationKeys":["x"]}`, name, "a")
	call("POST", register, `{"events":["OTHER"]}`, name, "a")
	call("POST", register, `{"events":["SHUTDOWN"]}`, name, "a")
	call("GET", next, "")
	call("GET", next, "", identifierHeader, "x")
	call("GET", next, "", identifierHeader, requestID)
	id := call("POST", register, `{"events":["INVOKE"]}`, name, "a")
	call("POST", register, `{}`, name, "a")
	call("POST", failed, "", identifierHeader, id)
	call("POST", failed, "", identifierHeader, id, extErrorHeader, "X")
	call("PUT", "/2022-07-01/telemetry", "{}", identifierHeader, id)
	call("PUT", "/2020-08-15/logs", "{}", identifierHeader, id)
	call("GET", register, "")
	call("GET", "/elsewhere", "")
	for i := range maxExtensions {
		call("POST", register, `{}`, name, fmt.Sprint("more", i))
	}
	os.Exit(0)
}
