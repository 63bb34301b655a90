package conformance_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// runtimeTest is one function on one kind of runtime, and what its invocation
// must come to. Regular expressions may hold the marks {id}, the request id, and
// {name}, the function's name.
type runtimeTest struct {
	name     string
	files    map[string]string // of the code package
	layers   []map[string]string
	env      map[string]string // beside GREETING
	handler  string
	event    string // {} if empty
	only     string // regular expression of the runtimes; all if empty
	timeout  int32  // in seconds; 60 if 0
	json     bool   // the logging format
	streamed bool   // by InvokeWithResponseStream
	again    int    // how often it is invoked before the answer counts

	want  string                    // the whole response, or
	check func(*testing.T, outcome) // what looks at it, or
	fails string                    // the errorType, with
	says  string                    // a regular expression of the errorMessage
	logs  []string                  // regular expressions of lines in CloudWatch Logs
}

// outcome is what an invocation has come to.
type outcome struct {
	function, id string
	memory       int32
	payload      []byte
}

// fleet is the server of these tests: it has every runtime that can be had.
type fleet struct {
	*harness.Server
	lambda *lambda.Client
	logs   *cloudwatchlogs.Client
}

// obtainable leaves out runtimes that neither this host nor a registry has, and
// says so loudly.
func obtainable(t *testing.T, ids []string) (have []string) {
	t.Helper()
	for _, id := range ids {
		if err := harness.AddRuntimes(filepath.Join(t.TempDir(), "data"), id); err != nil {
			// Only these are in no registry that Lapwing knows.
			if id != "python3.12" && id != "java17" {
				t.Errorf("%s: %v", id, err)
			}
			fmt.Fprintf(os.Stderr, "\n*** NOT TESTED: %s can't be had on this machine ***\n%v\n", id, err)
			t.Run(id, func(t *testing.T) { t.Skip("NOT TESTED: it can't be had on this machine") })
			continue
		}
		have = append(have, id)
	}
	return have
}

func TestRuntimes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes a sandbox for each case")
	}
	f, ids := withRuntimes(t, "nodejs20.x", "nodejs22.x", "nodejs24.x", "python3.11", "python3.12", "python3.13", "ruby3.3")
	goBootstrap := buildGo(t, "./function")
	// In a group, so that the server outlives the parallel tests in it.
	t.Run("on", func(t *testing.T) {
		for _, id := range ids {
			f.run(t, id, testsOf(t, id, f.Data))
		}
		f.run(t, "provided.al2023", goTests(goBootstrap))
		f.run(t, "provided.al2023", shellTests)
	})
}

// Those that need Maven, PyPI and crates.io.
func TestRuntimes_Conformance(t *testing.T) {
	t.Parallel()
	needs(t, "Maven, PyPI and crates.io")
	f, ids := withRuntimes(t, "java17", "java25")
	official := officialClientTests(t)
	t.Run("on", func(t *testing.T) {
		for _, id := range ids {
			f.run(t, id, testsOf(t, id, f.Data))
		}
		f.run(t, "provided.al2023", official)
	})
}

// withRuntimes starts a server that has those of the runtimes that can be had.
func withRuntimes(t *testing.T, wanted ...string) (f *fleet, ids []string) {
	t.Helper()
	ids = obtainable(t, wanted)
	data := filepath.Join(t.TempDir(), "data")
	if err := harness.AddRuntimes(data, ids...); err != nil {
		t.Fatal(err)
	}
	s, err := harness.Start(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	return &fleet{Server: s, lambda: lambda.NewFromConfig(s.Config()), logs: cloudwatchlogs.NewFromConfig(s.Config())}, ids
}

// testsOf returns the tests of a runtime's language.
func testsOf(t *testing.T, id, data string) []runtimeTest {
	switch {
	case strings.HasPrefix(id, "python"):
		return pythonTests
	case strings.HasPrefix(id, "ruby"):
		return rubyTests
	case strings.HasPrefix(id, "java"):
		return javaTests(t, data)
	}
	return nodeTests
}

// run runs the tests on one runtime.
func (f *fleet) run(t *testing.T, runtime string, tests []runtimeTest) {
	for _, tt := range tests {
		if tt.only != "" && !regexp.MustCompile(tt.only).MatchString(runtime) {
			continue
		}
		t.Run(runtime+"/"+tt.name, func(t *testing.T) {
			t.Parallel()
			f.one(t, runtime, tt)
		})
	}
}

func (f *fleet) one(t *testing.T, runtime string, tt runtimeTest) {
	o := outcome{function: regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(runtime+"-"+tt.name, "-"), memory: 1769}
	in := &lambda.CreateFunctionInput{
		FunctionName: &o.function, Runtime: types.Runtime(runtime), Handler: aws.String(tt.handler), MemorySize: &o.memory,
		Timeout: aws.Int32(max(tt.timeout, 1)), Role: aws.String("arn:aws:iam::" + f.Account() + ":role/runtimes"),
		Environment: &types.Environment{Variables: map[string]string{"GREETING": "hi there"}},
		Layers:      f.publishLayers(t, o.function, tt.layers),
		Code:        &types.FunctionCode{ZipFile: harness.Zip(tt.files)},
	}
	maps.Copy(in.Environment.Variables, tt.env)
	if tt.timeout == 0 {
		in.Timeout = aws.Int32(60)
	}
	if tt.json {
		in.LoggingConfig = &types.LoggingConfig{LogFormat: types.LogFormatJson}
	}
	if _, err := f.lambda.CreateFunction(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	active := lambda.NewFunctionActiveV2Waiter(f.lambda, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := active.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &o.function}, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	event := tt.event
	if event == "" {
		event = "{}"
	}
	call := f.buffered
	if tt.streamed {
		call = f.streamed
	}
	var failed string
	for range tt.again + 1 {
		failed = call(t, &o, []byte(event))
	}
	fill := strings.NewReplacer("{id}", regexp.QuoteMeta(o.id), "{name}", regexp.QuoteMeta(o.function))
	switch {
	case tt.fails != "":
		var e struct{ ErrorType, ErrorMessage string }
		if err := json.Unmarshal(o.payload, &e); err != nil {
			t.Errorf("payload %s: %v", o.payload, err)
		}
		if failed != "Unhandled" || e.ErrorType != tt.fails || !regexp.MustCompile(fill.Replace(tt.says)).MatchString(e.ErrorMessage) {
			t.Errorf("function error %q: %s\nwant %s: %s", failed, o.payload, tt.fails, tt.says)
		}
	case failed != "":
		t.Fatalf("function error %s: %s", failed, o.payload)
	case tt.check != nil:
		tt.check(t, o)
	case string(o.payload) != tt.want:
		t.Errorf("response %s, want %s", o.payload, tt.want)
	}
	for _, l := range tt.logs {
		f.wantLog(t, o.function, regexp.MustCompile(fill.Replace(l)))
	}
}

// publishLayers publishes layers with the given contents and returns their ARNs.
func (f *fleet) publishLayers(t *testing.T, function string, contents []map[string]string) (arns []string) {
	t.Helper()
	for i, files := range contents {
		out, err := f.lambda.PublishLayerVersion(t.Context(), &lambda.PublishLayerVersionInput{
			LayerName: aws.String(fmt.Sprintf("%s-%d", function, i)), Content: &types.LayerVersionContentInput{ZipFile: harness.Zip(files)},
		})
		if err != nil {
			t.Fatal(err)
		}
		arns = append(arns, *out.LayerVersionArn)
	}
	return arns
}

// clientContext is what the tests send with each event.
var clientContext = aws.String(base64.StdEncoding.EncodeToString([]byte(`{"custom":{"k":"v"}}`)))

// buffered invokes the function, and returns the kind of function error.
func (f *fleet) buffered(t *testing.T, o *outcome, event []byte) string {
	t.Helper()
	out, err := f.lambda.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &o.function, Payload: event, ClientContext: clientContext})
	if err != nil {
		t.Fatalf("%v\n%s", err, f.Log())
	}
	o.id, _ = awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	o.payload = out.Payload
	return aws.ToString(out.FunctionError)
}

// streamed invokes the function for a stream; the error of one that broke off is
// the payload then, as it is without a stream.
func (f *fleet) streamed(t *testing.T, o *outcome, event []byte) string {
	t.Helper()
	out, err := f.lambda.InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{FunctionName: &o.function, Payload: event, ClientContext: clientContext})
	if err != nil {
		t.Fatalf("%v\n%s", err, f.Log())
	}
	defer out.GetStream().Close()
	o.id, _ = awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	o.payload = nil
	complete, failed := false, ""
	for e := range out.GetStream().Events() {
		switch e := e.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			o.payload = append(o.payload, e.Value.Payload...)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = true
			if e.Value.ErrorCode != nil {
				failed, o.payload = "Unhandled", []byte(aws.ToString(e.Value.ErrorDetails))
			}
		}
	}
	if err := out.GetStream().Err(); err != nil || !complete {
		t.Fatalf("the stream ended without InvokeComplete: %v, %s", err, o.payload)
	}
	return failed
}

// wantLog waits for a line in the function's log.
func (f *fleet) wantLog(t *testing.T, function string, want *regexp.Regexp) {
	t.Helper()
	var all strings.Builder
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		all.Reset()
		out, err := f.logs.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("/aws/lambda/" + function)})
		if err != nil {
			all.WriteString(err.Error())
			continue // the group may not be there yet
		}
		for _, e := range out.Events {
			line := strings.TrimRight(*e.Message, "\n")
			if want.MatchString(line) {
				return
			}
			fmt.Fprintf(&all, "%q\n", line)
		}
	}
	t.Errorf("no line in CloudWatch Logs matches %s:\n%s", want, all.String())
}

// wantContext checks what every runtime's context object tells.
func wantContext(t *testing.T, o outcome) {
	var got map[string]any
	if err := json.Unmarshal(o.payload, &got); err != nil {
		t.Fatalf("%s: %v", o.payload, err)
	}
	arn, _ := got["arn"].(string)
	stream, _ := got["stream"].(string)
	if !regexp.MustCompile(`^arn:aws:lambda:us-east-1:\d{12}:function:` + o.function + `$`).MatchString(arn) {
		t.Errorf("invoked ARN %q", arn)
	}
	if !regexp.MustCompile(`^\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}$`).MatchString(stream) {
		t.Errorf("log stream %q", stream)
	}
	delete(got, "arn")
	delete(got, "stream")
	want := map[string]any{"id": o.id, "name": o.function, "version": "$LATEST", "memory": fmt.Sprint(o.memory),
		"group": "/aws/lambda/" + o.function, "time": true, "client": "v"}
	if !maps.Equal(got, want) {
		t.Errorf("context %v, want %v", got, want)
	}
}

// wantEnv checks the environment variables that AWS documents as set for every
// runtime, and the function's own.
func wantEnv(t *testing.T, o outcome) {
	var got map[string]string
	if err := json.Unmarshal(o.payload, &got); err != nil {
		t.Fatalf("%s: %v", o.payload, err)
	}
	for name, want := range map[string]string{
		"GREETING": "hi there", "_HANDLER": `.+`, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
		"AWS_LAMBDA_FUNCTION_NAME": o.function, "AWS_LAMBDA_FUNCTION_VERSION": `\$LATEST`, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": fmt.Sprint(o.memory),
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + o.function, "AWS_LAMBDA_LOG_STREAM_NAME": `\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}`,
		"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_RUNTIME_API": `[\w.]+:\d+`,
		"AWS_ACCESS_KEY_ID": `ASIA[A-Z0-9]{16}`, "AWS_SECRET_ACCESS_KEY": `\S{40}`, "AWS_SESSION_TOKEN": `\S+`,
		"LAMBDA_TASK_ROOT": "/var/task", "LAMBDA_RUNTIME_DIR": "/var/runtime", "TZ": ":UTC", "PATH": `.*/opt/bin.*`, "LD_LIBRARY_PATH": `.*/var/task/lib:/opt/lib.*`,
		"AWS_ENDPOINT_URL": `http://.+`,
	} {
		if !regexp.MustCompile(`^(?:` + want + `)$`).MatchString(got[name]) {
			t.Errorf("%s=%q, want %s", name, got[name], want)
		}
	}
}

func buildGo(t *testing.T, pkg string) string {
	t.Helper()
	program, err := harness.Program(pkg)
	if err != nil {
		t.Fatal(err)
	}
	return program
}
