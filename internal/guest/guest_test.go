package guest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/guest/proto"
)

func TestGoRuntimeClientEchoes(t *testing.T) {
	s := run(t, "echo")
	for range 3 {
		r, out := s.invoke(t, `{"a":1}`)
		if out.Error != nil || out.Exit != nil || string(r.body) != `{"a":1}` {
			t.Fatalf("got %q, %+v", r.body, out)
		}
		if r.start.ContentType != "application/json" || r.start.Streaming {
			t.Errorf("start is %+v", r.start)
		}
	}
}

func TestInvocationMayBeSentBeforeInitIsDone(t *testing.T) {
	s := startSandbox(t, "")
	go s.Start(t.Context(), role("echo"))
	r, out := s.invoke(t, `"early"`)
	if out.Error != nil || string(r.body) != `"early"` {
		t.Fatalf("got %q, %+v", r.body, out)
	}
}

func TestContextReachesTheFunction(t *testing.T) {
	s := run(t, "sdk")
	inv := invocation()
	inv.TraceID = "Root=1-2-3;Sampled=0"
	inv.ClientContext = `{"custom":{"k":"v"}}`
	inv.CognitoIdentity = `{"cognitoIdentityId":"cid","cognitoIdentityPoolId":"pool"}`
	r := new(reply)
	if _, err := s.Invoke(t.Context(), inv, []byte(`{"do":"context"}`), r); err != nil {
		t.Fatal(err)
	}
	want := `{"arn":"arn:aws:lambda:us-east-1:123456789012:function:f","client":"v","cognito":"cid","id":"` + requestID + `","left":true,"trace":"Root=1-2-3;Sampled=0"}`
	if string(r.body) != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
}

func TestLogsPrecedeTheResponse(t *testing.T) {
	s := run(t, "sdk")
	r := new(reply)
	var atEnd, atDone []string
	r.end = func() { atEnd = s.logs.all() }
	if _, err := s.Invoke(t.Context(), invocation(), []byte(`{"do":"log"}`), r); err != nil {
		t.Fatal(err)
	}
	atDone = s.logs.all()
	if want := []string{"one", "two"}; !slices.Equal(atEnd[:min(2, len(atEnd))], want) {
		t.Errorf("logs at the response's end: %q", atEnd)
	}
	if want := []string{"one", "two", "three without an end"}; !slices.Equal(atDone, want) {
		t.Errorf("logs at the invocation's end: %q", atDone)
	}
}

func TestFunctionErrorIsPassedOnAsPosted(t *testing.T) {
	s := run(t, "sdk")
	_, out := s.invoke(t, `{"do":"error"}`)
	if out.Error == nil || string(out.Error.Body) != `{"errorMessage":"told so","errorType":"errorString"}` {
		t.Fatalf("got %+v", out.Error)
	}
	if out.Error.Type != "Runtime.Unknown" { // aws-lambda-go sends no type header
		t.Errorf("type %q", out.Error.Type)
	}
	if r, out := s.invoke(t, `{"x":"y"}`); out.Error != nil || string(r.body) != `{"x":"y"}` {
		t.Errorf("after the error: %q %+v", r.body, out)
	}
}

func TestPanicGivesTheErrorThenTheExit(t *testing.T) {
	s := run(t, "sdk")
	_, out := s.invoke(t, `{"do":"panic"}`)
	if out.Error == nil || out.Exit == nil {
		t.Fatalf("got %+v", out)
	}
	contains(t, string(out.Error.Body), `"errorMessage":"argh"`)
	if out.Exit.Reason != "with error: exit status 1" {
		t.Errorf("exit %+v", out.Exit)
	}
}

func TestExitDuringInvocation(t *testing.T) {
	s := run(t, "sdk")
	_, out := s.invoke(t, `{"do":"exit"}`)
	if out.Exit == nil || out.Exit.Reason != "with error: exit status 7" || out.Exit.RequestID != requestID {
		t.Fatalf("got %+v", out.Exit)
	}
	if out.Error.Type != "Runtime.ExitError" || out.Error.Body != nil {
		t.Errorf("error %+v", out.Error)
	}
}

func TestExitAfterResponseKeepsTheResponseAndTheLog(t *testing.T) {
	s := run(t, "log-exit")
	r, out := s.invoke(t, `{}`)
	if string(r.body) != `"bye"` || out.Error != nil {
		t.Errorf("response %q, error %v", r.body, out.Error)
	}
	if out.Exit == nil || out.Exit.Reason != "with error: exit status 2" {
		t.Errorf("exit %+v", out.Exit)
	}
	if got := s.logs.all(); !slices.Equal(got, []string{"last words"}) {
		t.Errorf("logs %q", got)
	}
}

func TestStreams(t *testing.T) {
	s := run(t, "sdk")
	inv := invocation()
	inv.Streaming = true
	r := new(reply)
	out, err := s.Invoke(t.Context(), inv, []byte(`{"do":"reader"}`), r)
	if err != nil || out.Error != nil {
		t.Fatal(err, out)
	}
	if len(r.body) != 300_000 || r.start.ContentType != "application/octet-stream" {
		t.Errorf("%d bytes, %+v", len(r.body), r.start)
	}
	r = new(reply)
	out, err = s.Invoke(t.Context(), inv, []byte(`{"do":"midstream"}`), r)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.body) != "some" || out.Error == nil || out.Error.Type != "errorString" ||
		string(out.Error.Body) != `{"errorMessage":"midstream","errorType":"errorString"}` {
		t.Errorf("got %q, %+v", r.body, out.Error)
	}
}

func TestLargePayloadsGoBothWays(t *testing.T) {
	s := run(t, "raw-echo")
	payload, _ := json.Marshal(strings.Repeat("x", 6*1024*1024-2))
	r, out := s.invoke(t, string(payload))
	if out.Error != nil || string(r.body) != string(payload) {
		t.Errorf("%d bytes back, %+v", len(r.body), out)
	}
}

func TestResponseSizeLimit(t *testing.T) {
	s := run(t, "big")
	if r, out := s.invoke(t, "6291556"); out.Error != nil || len(r.body) != proto.MaxPayload {
		t.Errorf("at the limit: %d bytes, %+v", len(r.body), out.Error)
	}
	if _, out := s.invoke(t, "6291557"); out.Error == nil || out.Error.Type != "Function.ResponseSizeTooLarge" {
		t.Errorf("over the limit: %+v", out.Error)
	}
	s.invoke(t, "1") // so that the lines below are there
	want := []string{
		`202 {"status":"OK"}`,
		`413 {"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).","errorType":"RequestEntityTooLarge"}`,
	}
	if got := s.logs.all(); !slices.Equal(got[:2], want) {
		t.Errorf("got %q", got)
	}
}

func TestStreamSizeLimit(t *testing.T) {
	s := run(t, "big")
	inv := invocation()
	inv.Streaming = true
	r := new(count)
	out, err := s.Invoke(t.Context(), inv, []byte("209715201"), r)
	if err != nil || out.Error == nil || out.Error.Type != "Function.ResponseSizeTooLarge" || r.n != proto.MaxStream {
		t.Errorf("%d bytes, %+v %v", r.n, out.Error, err)
	}
}

// count is a ResponseWriter that counts.
type count struct {
	reply
	n int
}

func (c *count) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

func TestSigtermReachesAGoFunctionThatAsksForIt(t *testing.T) {
	s := run(t, "sigterm") // registers an internal extension
	for range 2 {
		if r, out := s.invoke(t, `1`); string(r.body) != `1` || out.Exit != nil {
			t.Fatalf("got %q %+v", r.body, out)
		}
	}
	if err := s.Shutdown(t.Context(), "spindown"); err != nil {
		t.Fatal(err)
	}
	if got := s.logs.all(); !slices.Contains(got, "told to end") {
		t.Errorf("logs %q", got)
	}
}

func TestCallsOutOfOrder(t *testing.T) {
	s := run(t, "bad-calls")
	r, out := s.invoke(t, `{}`)
	if string(r.body) != `{"a":1}` || out.Error != nil {
		t.Errorf("got %q %+v", r.body, out.Error)
	}
	const forbidden = `403 {"errorMessage":"State transition from %s to %s failed for runtime. Error: State transition is not allowed","errorType":"InvalidStateTransition"}`
	transition := func(from, to string) string {
		return strings.Replace(strings.Replace(forbidden, "%s", from, 1), "%s", to, 1)
	}
	want := []string{
		`400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`,
		`true`,
		transition("Running", "InitError"),
		`400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`,
		`404 404 page not found`,
		`405`,
		`202 {"status":"OK"}`,
		transition("RuntimeResponseSentState", "InvocationResponse"),
		transition("RuntimeResponseSentState", "InvocationErrorResponse"),
		`200 pong`,
	}
	got := s.logs.all()
	for i := range want {
		if i >= len(got) || strings.TrimSpace(got[i]) != want[i] {
			t.Errorf("call %d: got %q, want %q", i, got[min(i, len(got)-1)], want[i])
		}
	}
}

func TestInitFailures(t *testing.T) {
	exe := role("x").Command
	for _, c := range []struct {
		name         string
		start        proto.Start
		errorType    string
		reason, body string
	}{
		{"posted", role("init-error"), "Runtime.NoSuchHandler", "", `{"errorMessage":"no","errorType":"Runtime.NoSuchHandler"}`},
		{"exit 0", role("exit-0"), "Runtime.ExitError", "without providing a reason", ""},
		{"exit 3", role("exit-3"), "Runtime.ExitError", "with error: exit status 3", ""},
		{"killed", proto.Start{Command: []string{"/bin/sh", "-c", "kill -9 $$"}, Dir: "/"}, "Runtime.ExitError", "with error: signal: killed", ""},
		{"no bootstrap", proto.Start{Candidates: []string{"/nowhere/bootstrap", "/nowhere2/bootstrap"}, Dir: "/"}, "Runtime.InvalidEntrypoint", "Couldn't find valid bootstrap(s): [/nowhere/bootstrap /nowhere2/bootstrap]", ""},
		{"missing", proto.Start{Command: []string{"/nowhere/bootstrap"}, Dir: "/"}, "Runtime.InvalidEntrypoint", "fork/exec /nowhere/bootstrap: no such file or directory", ""},
		{"not executable", proto.Start{Command: []string{"/etc/passwd"}, Dir: "/"}, "Runtime.InvalidEntrypoint", "fork/exec /etc/passwd: permission denied", ""},
		{"no directory", proto.Start{Command: exe, Dir: "/nowhere"}, "Runtime.InvalidWorkingDir", "stat /nowhere: no such file or directory", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSandbox(t, "")
			res, err := s.Start(t.Context(), c.start)
			if err != nil {
				t.Fatal(err)
			}
			if res.Err == nil || res.Err.Type != c.errorType || string(res.Err.Body) != c.body {
				t.Fatalf("got %+v", res.Err)
			}
			if c.reason != "" && (res.Err.Exit == nil || res.Err.Exit.Reason != c.reason) {
				t.Errorf("exit %+v", res.Err.Exit)
			}
		})
	}
}
