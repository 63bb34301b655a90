// Command telemetry is an external extension that subscribes to the platform's
// events and the function's lines, and prints what it is given. It is done with
// an invocation a moment after it has heard that the runtime is, as extensions
// that send telemetry elsewhere are.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

const id = "Lambda-Extension-Identifier"

// call calls an API of the environment; its answer is decoded into out, where
// that is not nil.
func call(method, path, body string, out any, header ...string) *http.Response {
	req, err := http.NewRequest(method, "http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set(header[0], header[1])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		panic(path + ": " + resp.Status)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			panic(err)
		}
	}
	return resp
}

func main() {
	me := call("POST", "/2020-01-01/extension/register", `{"events":["INVOKE","SHUTDOWN"]}`, nil, "Lambda-Extension-Name", path.Base(os.Args[0])).Header.Get(id)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	runtimeDone := make(chan struct{}, 100)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []struct {
			Type   string
			Record json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
			panic(err)
		}
		for _, e := range batch {
			fmt.Println("telemetry:", e.Type, string(e.Record))
			if e.Type == "platform.runtimeDone" {
				runtimeDone <- struct{}{}
			}
		}
	}))
	call("PUT", "/2022-07-01/telemetry", fmt.Sprintf(`{"schemaVersion":"2022-12-13","types":["platform","function"],
		"buffering":{"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:%d"}}`,
		l.Addr().(*net.TCPAddr).Port), nil, id, me)
	for {
		var event struct{ EventType, ShutdownReason string }
		call("GET", "/2020-01-01/extension/event/next", "", &event, id, me)
		if event.EventType == "SHUTDOWN" {
			fmt.Println("telemetry: SHUTDOWN", event.ShutdownReason)
			return
		}
		<-runtimeDone
		time.Sleep(50 * time.Millisecond)
	}
}
