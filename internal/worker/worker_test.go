package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/gvisor"
	"lapwing.dev/lapwing/internal/sandbox/program"
)

// memoryLogs keeps log lines in memory.
type memoryLogs struct {
	mu      sync.Mutex
	lines   []string
	streams map[string]bool
}

func (l *memoryLogs) Append(group, stream string, events []logstore.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams == nil {
		l.streams = make(map[string]bool)
	}
	l.streams[stream] = true
	for _, e := range events {
		l.lines = append(l.lines, e.Message)
	}
	return nil
}

func (l *memoryLogs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// environments returns how many environments have logged.
func (l *memoryLogs) environments() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.streams)
}

// sandboxes is a driver that remembers what it has made.
type sandboxes struct {
	sandbox.Driver
	mu  sync.Mutex
	all []sandbox.Sandbox
}

func (d *sandboxes) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	s, err := d.Driver.Create(ctx, spec)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.all = append(d.all, s)
	}
	return s, err
}

// made returns the sandboxes so far.
func (d *sandboxes) made() []sandbox.Sandbox {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// withOpt finds runtimes and mounts a directory at /opt.
type withOpt struct {
	Runtimes
	dir string // where set
}

func (o *withOpt) Resolve(id string) (*runtimes.Runtime, error) {
	rt, err := o.Runtimes.Resolve(id)
	if err != nil || o.dir == "" {
		return rt, err
	}
	own := *rt
	own.Mounts = append(slices.Clone(rt.Mounts), sandbox.Mount{Source: o.dir, Target: "/opt"})
	return &own, nil
}

type noNetwork struct{}

func (noNetwork) Acquire(context.Context, int64) (Network, error) {
	return Network{Endpoint: "http://192.0.2.1:4566", Release: func() {}}, nil
}

type noCredentials struct{}

func (noCredentials) Issue(role, session string, ttl time.Duration) (credentials.Session, error) {
	return credentials.Session{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "secret", SessionToken: "token"}, nil
}

// memoryMeter keeps usage in memory, which is written when released is closed.
type memoryMeter struct {
	mu       sync.Mutex
	usage    []meter.Usage
	reports  []meter.Report
	released chan struct{} // nil: at once
	err      error         // of writing
	logged   int
}

func (m *memoryMeter) Record(u *meter.Usage, r meter.Report) meter.Receipt {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.usage, m.reports = append(m.usage, *u), append(m.reports, r)
	return m
}

func (m *memoryMeter) Written() error {
	if m.released != nil {
		<-m.released
	}
	return m.err
}

func (m *memoryMeter) Logged(error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logged++
}

// bench is a dispatcher over a worker with real sandboxes.
type bench struct {
	*invoke.Dispatcher
	worker    *Worker
	sandboxes *sandboxes
	opt       *withOpt
	logs      *memoryLogs
	meter     *memoryMeter
	dir       string
}

// sandboxProgram is installed once for all tests.
var sandboxProgram string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lapwing-worker-test-")
		if err == nil {
			defer os.RemoveAll(dir)
			err = os.Chmod(dir, 0o755)
		}
		if err == nil {
			sandboxProgram, err = program.Install(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("sandboxes need root: run the tests as root")
	}
	dir := t.TempDir()
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	driver, err := gvisor.New(t.Context(), gvisor.Options{Dir: filepath.Join(dir, "run"), SandboxPath: sandboxProgram, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	rts, err := runtimes.Open(filepath.Join(dir, "runtimes"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{logs: &memoryLogs{}, meter: &memoryMeter{}, dir: dir, sandboxes: &sandboxes{Driver: driver}, opt: &withOpt{Runtimes: rts}}
	w := New(Options{Driver: b.sandboxes, Networks: noNetwork{}, Runtimes: b.opt, Logs: b.logs, Credentials: noCredentials{}, Meter: b.meter, Logger: logger})
	b.worker = w
	b.Dispatcher = invoke.New(invoke.Options{Starter: w, Logger: logger})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		b.Close(ctx)
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

var (
	buildOnce sync.Once
	built     []byte
	buildErr  error
)

// testFunction returns the program of testdata/function.
func testFunction(t testing.TB) []byte {
	t.Helper()
	buildOnce.Do(func() {
		dir, err := os.MkdirTemp("", "lapwing-test-function-")
		if err != nil {
			buildErr = err
			return
		}
		defer os.RemoveAll(dir)
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "bootstrap"), "./testdata/function")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			buildErr = fmt.Errorf("go build: %w\n%s", err, out)
			return
		}
		built, buildErr = os.ReadFile(filepath.Join(dir, "bootstrap"))
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return built
}

// function returns a version of the test function.
func (b *bench) function(t testing.TB) *function.Version {
	t.Helper()
	return b.custom(t, map[string]string{"bootstrap": string(testFunction(t))})
}

// image makes an image of these files, all of them programs.
func (b *bench) image(t testing.TB, files map[string]string) (path string) {
	t.Helper()
	f, err := os.CreateTemp(b.dir, "image-")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.NewWriter(f)
	for name, content := range files {
		if err := w.Create(name, erofs.Attr{Mode: 0o755}, int64(len(content)), strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// custom returns a version with a custom runtime of these files.
func (b *bench) custom(t testing.TB, files map[string]string) *function.Version {
	t.Helper()
	code := b.image(t, files)
	return &function.Version{
		Account: "123456789012", Region: "eu-west-1", Name: "f", Version: function.Latest, Revision: filepath.Base(code),
		Runtime: "provided.al2023", Handler: "index.handler", Architecture: "x86_64", Role: "arn:aws:iam::123456789012:role/r",
		MemoryMB: 1769, Timeout: 2 * time.Minute, EphemeralMB: 512, Code: code,
		Logging: function.Logging{Format: "Text", Group: "/aws/lambda/f"},
	}
}

const requestID = "8a1e6c5d-0000-4000-8000-000000000001"

// invoke invokes v once its environment is free again, which it is only a moment
// after it has answered.
func (b *bench) invoke(t testing.TB, v *function.Version, payload string) (string, *invoke.Result) {
	t.Helper()
	waitFor(t, func() bool { return b.InUse(v.FunctionARN()) == 0 })
	var out bytes.Buffer
	res, err := b.Invoke(t.Context(), &invoke.Request{
		Version: v, InvokedARN: v.FunctionARN(), RequestID: requestID, Payload: []byte(payload), Tail: true,
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), res
}

// expect invokes v and checks the response, and that it is an error where it
// has an errorType.
func (b *bench) expect(t *testing.T, v *function.Version, payload, want string) *invoke.Result {
	t.Helper()
	got, res := b.invoke(t, v, payload)
	if got != want {
		t.Errorf("%s: got %s, want %s\n%s", payload, got, want, res.LogTail)
	}
	if isError := strings.Contains(want, `"errorType"`); (res.FunctionError == "Unhandled") != isError {
		t.Errorf("%s: function error %q for %s", payload, res.FunctionError, got)
	}
	return res
}

func TestEnvironmentIsReusedAndKeepsItsState(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	b.expect(t, v, `{"do":"count"}`, "1")
	b.expect(t, v, `{"do":"write","arg":"/tmp/x","n":3}`, "null")
	b.expect(t, v, `{"do":"read","arg":"/tmp/x"}`, `"\u0000\u0000\u0000"`)
	b.expect(t, v, `{"do":"count"}`, "4")
}

func TestLogOfAnInvocation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	first := string(b.expect(t, v, `{"do":"print","arg":"line","n":2}`, "null").LogTail)
	want := regexp.MustCompile(`^START RequestId: ` + requestID + ` Version: \$LATEST
line 0
line 1
END RequestId: ` + requestID + `
REPORT RequestId: ` + requestID + `\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 1769 MB\tMax Memory Used: [1-9]\d* MB\tInit Duration: \d+\.\d\d ms\t
$`)
	if !want.MatchString(first) {
		t.Errorf("log of the first invocation:\n%s", first)
	}
	if second := string(b.expect(t, v, `{"do":"count"}`, "2").LogTail); strings.Contains(second, "Init Duration") {
		t.Errorf("Init Duration in the second invocation:\n%s", second)
	}
}

func TestJSONLogFormat(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.Logging = function.Logging{Format: "JSON", ApplicationLevel: "INFO", SystemLevel: "INFO", Group: "/own/group"}
	tail := string(b.expect(t, v, `{"do":"print","arg":"line","n":1}`, "null").LogTail)
	var types []string
	for _, line := range strings.Split(strings.TrimSpace(tail), "\n") {
		var record struct{ Type, Message, RequestID string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("line %q: %v", line, err)
		}
		types = append(types, record.Type+record.Message)
	}
	if got := strings.Join(types, " "); got != "platform.start line 0 platform.report" {
		t.Errorf("records: %s\n%s", got, tail)
	}
}

func TestFunctionErrorIsPassedOnAndTheEnvironmentKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	b.expect(t, v, `{"do":"fail","arg":"oh no"}`, `{"errorMessage":"oh no","errorType":"errorString"}`)
	b.expect(t, v, `{"do":"count"}`, "2")
}

// cutShort is a runtime that begins a response with a header of its own, and then
// does something else.
func cutShort(header, then string) map[string]string {
	return map[string]string{"bootstrap": `#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/9001
printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n' >&3
while read -r line <&3 && [ "$line" != $'\r' ]; do
	case $line in
	Lambda-Runtime-Aws-Request-Id*) id=${line#*: }; id=${id%$'\r'} ;;
	Lambda-Runtime-Trace-Id*) echo "trace ${line#*: }" ;;
	esac
done
read -r -n 2 <&3
printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\n` + header + `Content-Length: 10\r\n\r\nshort' "$id" >&3
` + then + "\n"}
}

func TestErrorWithoutADocument(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.custom(t, cutShort(`Lambda-Runtime-Function-Response-Mode: streaming\r\n`, ""))
	res := b.expect(t, v, `{}`, `{"errorType":"Runtime.TruncatedResponse","errorMessage":"RequestId: `+requestID+` Error: Unknown application error occurred"}`)
	if !regexp.MustCompile(`trace Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0\s`).Match(res.LogTail) {
		t.Errorf("no trace header:\n%s", res.LogTail)
	}
}

func TestRuntimeThatEndsWithinItsResponseIsToldAsThat(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for then, want := range map[string]string{"kill -9 $$": "with error: signal: killed", "exit 3": "with error: exit status 3"} {
		v := b.custom(t, cutShort("", then))
		b.expect(t, v, `{}`, `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: `+requestID+` Error: Runtime exited `+want+`"}`)
	}
}

func TestMissingBootstrapIsAnInvalidEntrypoint(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got, res := b.invoke(t, b.custom(t, map[string]string{"other": "x"}), `{}`)
	if res.FunctionError != "Unhandled" || !strings.Contains(got, `"errorType":"Runtime.InvalidEntrypoint"`) {
		t.Errorf("got %s", got)
	}
}

func TestWhatTheFunctionSees(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.Env = map[string]string{"OWN": "value", "PATH": "/own", "AWS_REGION": "not this"}
	got, _ := b.invoke(t, v, `{"do":"env"}`)
	for _, want := range []string{
		"OWN=value", "PATH=/own", "AWS_REGION=eu-west-1", "AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769", "LAMBDA_TASK_ROOT=/var/task", "AWS_ACCESS_KEY_ID=ASIAEXAMPLE", "AWS_SESSION_TOKEN=token",
		"AWS_ENDPOINT_URL=http://192.0.2.1:4566", "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/f", "_HANDLER=index.handler", "TZ=:UTC",
	} {
		if !strings.Contains(got, want+`\n`) && !strings.Contains(got, want+`"`) {
			t.Errorf("environment lacks %s", want)
		}
	}
	b.expect(t, v, `{"do":"whoami"}`, `"993:990 /var/task"`)
	got, _ = b.invoke(t, v, `{"do":"context"}`)
	var c struct {
		ID, ARN, Name string
		Left, Memory  int
	}
	if err := json.Unmarshal([]byte(got), &c); err != nil {
		t.Fatal(err)
	}
	if c.ID != requestID || c.ARN != v.FunctionARN() || c.Name != "f" || c.Memory != 1769 || c.Left <= 60_000 || c.Left > 120_000 {
		t.Errorf("context %+v", c)
	}
}

func TestWhatTheFunctionCannotDo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	for _, c := range []struct{ event, want string }{
		{`{"do":"write","arg":"/var/task/x","n":1}`, "read-only file system"},
		{`{"do":"write","arg":"/x","n":1}`, "read-only file system"},
		{`{"do":"write","arg":"/tmp/big","n":600000000}`, "no space left on device"},
		{`{"do":"read","arg":"` + b.dir + `/run"}`, "no such file"},
		{`{"do":"read","arg":"/proc/1/environ"}`, "permission denied"},
	} {
		if got, _ := b.invoke(t, v, c.event); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %q", c.event, got, c.want)
		}
	}
}

func TestResponseOverTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	b.expect(t, v, `{"do":"response","n":6291557}`, `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`)
	if got, res := b.invoke(t, v, `{"do":"response","n":6291554}`); len(got) != 6291556 || res.FunctionError != "" {
		t.Errorf("response of %d bytes, error %q", len(got), res.FunctionError)
	}
}

// stalled is a caller that does not take the response.
type stalled struct{ until chan struct{} }

func (s stalled) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

func TestCallerThatStallsDoesNotKeepTheFunctionBeyondItsTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.Timeout = time.Second
	caller := stalled{make(chan struct{})}
	type outcome struct {
		res *invoke.Result
		err error
	}
	answer := make(chan outcome)
	go func() {
		res, err := b.Invoke(context.Background(), &invoke.Request{
			Version: v, RequestID: requestID, Payload: []byte(`{"do":"stream","arg":"first"}`), Streaming: true,
		}, caller)
		answer <- outcome{res, err}
	}()
	waitFor(t, func() bool {
		return strings.Contains(b.logs.text(), "Status: timeout") && b.InUse(v.FunctionARN()) == 0
	})
	close(caller.until)
	if o := <-answer; o.err != nil || o.res.ErrorType != "Sandbox.Timedout" {
		t.Errorf("the caller got %+v, %v", o.res, o.err)
	}
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Error("it did not happen within a minute")
}
