// Command runtime is a runtime that waits to be restored and then echoes events,
// each with the number of events before it. As an extension, below
// /opt/extensions, it counts them too, in its log. With EXCHANGERS it waits for events
// in so many threads instead, in exchanges.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const api = "http://127.0.0.1:9001/"

func main() {
	if strings.HasPrefix(os.Args[0], "/opt/extensions/") {
		extend()
	}
	if n, _ := strconv.Atoi(os.Getenv("EXCHANGERS")); n > 0 {
		exchangers(n)
	}
	fmt.Println("initialised")
	call("GET", "2018-06-01/runtime/restore/next", nil, nil)
	fmt.Println("restored, a child of", os.Getppid())
	for n := 0; ; n++ {
		h, event := call("GET", "2018-06-01/runtime/invocation/next", nil, nil)
		fmt.Println("event", n)
		call("POST", "2018-06-01/runtime/invocation/"+h.Get("Lambda-Runtime-Aws-Request-Id")+"/response", nil, fmt.Appendf(event, " %d", n))
	}
}

func extend() {
	h, _ := call("POST", "2020-01-01/extension/register", http.Header{"Lambda-Extension-Name": {filepath.Base(os.Args[0])}}, []byte(`{"events":["INVOKE"]}`))
	for n := 0; ; n++ {
		call("GET", "2020-01-01/extension/event/next", http.Header{"Lambda-Extension-Identifier": h["Lambda-Extension-Identifier"]}, nil)
		fmt.Println("extension", n)
	}
}

func call(method, path string, header http.Header, body []byte) (http.Header, []byte) {
	req, err := http.NewRequest(method, api+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		panic(fmt.Sprintf("%s: %d %s %v", path, resp.StatusCode, b, err))
	}
	return resp.Header, b
}
