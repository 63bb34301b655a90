package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

const (
	// checkTimeout bounds one check, on the slowest of hosts.
	checkTimeout = 5 * time.Minute
	// functionTimeout is that of functions which are to succeed; sleepTimeout of
	// the one that is to run out of it, in seconds.
	functionTimeout = 60
	sleepTimeout    = 3
	// memoryMB gives a function one processor.
	memoryMB = 1769
	// logTimeout bounds the wait for what a function printed.
	logTimeout = 90 * time.Second
	// poll is the pause between looks at something that will come.
	poll = 100 * time.Millisecond
)

// checks are all checks, in the order of the table.
var checks = []struct {
	name string
	run  func(context.Context, *subject) error
}{
	{"handlers", handlers},
	{"context", contextObject},
	{"errors", errorShape},
	{"init", initError},
	{"logging", logging},
	{"streaming", streaming},
	{"time-out", timeOut},
	{"SIGTERM", terminated},
}

// Names returns the names of the checks.
func Names() []string {
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	return names
}

// subject is one runtime under verification.
type subject struct {
	Options
	target  Target
	suite   *suite
	created []string // functions that are still there
}

// answer is what an invocation came to.
type answer struct {
	id      string // of the request
	payload []byte
	failed  bool
	log     string
}

// handlers calls a handler of each form.
func handlers(ctx context.Context, s *subject) error {
	const value = `{"a":[1,"é",null,true]}`
	for i, handler := range s.suite.handlers {
		function, err := s.deploy(ctx, fmt.Sprintf("form-%d", i), handler, nil)
		if err != nil {
			return fmt.Errorf("handler %s: %w", handler, err)
		}
		for range 2 { // what one invocation leaves behind must not harm the next
			a, err := s.invoke(ctx, function, opEcho, value)
			if err != nil {
				return fmt.Errorf("handler %s: %w", handler, err)
			}
			if a.failed || !sameJSON(a.payload, []byte(value)) {
				return fmt.Errorf("handler %s answered %s, want %s", handler, a.payload, value)
			}
		}
	}
	return nil
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

var (
	arnPattern    = regexp.MustCompile(`^arn:aws:lambda:[a-z0-9-]+:\d{12}:function:(\S+)$`)
	streamPattern = regexp.MustCompile(`^\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}$`)
)

// contextObject compares what the context object tells.
func contextObject(ctx context.Context, s *subject) error {
	function, err := s.main(ctx)
	if err != nil {
		return err
	}
	a, err := s.invoke(ctx, function, opContext, "null")
	if err != nil {
		return err
	}
	var got struct {
		ID, ARN, Name, Version, Group, Stream string
		Memory                                int
		Left                                  int64
	}
	if err := json.Unmarshal(a.payload, &got); err != nil || a.failed {
		return fmt.Errorf("the function answered %s", a.payload)
	}
	m := arnPattern.FindStringSubmatch(got.ARN)
	switch {
	case got.ID != a.id:
		return fmt.Errorf("the request id is %q, want %q", got.ID, a.id)
	case m == nil || m[1] != function:
		return fmt.Errorf("the invoked function's ARN is %q", got.ARN)
	case got.Name != function || got.Version != "$LATEST":
		return fmt.Errorf("the function is %q, version %q", got.Name, got.Version)
	case got.Memory != memoryMB:
		return fmt.Errorf("the memory limit is %d MB, want %d", got.Memory, memoryMB)
	case got.Group != "/aws/lambda/"+function || !streamPattern.MatchString(got.Stream):
		return fmt.Errorf("the log group is %q, the stream %q", got.Group, got.Stream)
	case got.Left <= 0 || got.Left > functionTimeout*1000:
		return fmt.Errorf("the time left is %d ms of %d s", got.Left, functionTimeout)
	}
	return nil
}

// errorShape looks at the error of a function, and that it can be invoked again.
func errorShape(ctx context.Context, s *subject) error {
	function, err := s.main(ctx)
	if err != nil {
		return err
	}
	a, err := s.invoke(ctx, function, opFail, "null")
	if err != nil {
		return err
	}
	if err := a.wantError(s.suite.failType, `^as told$`); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(a.payload, &all); err != nil {
		return err
	}
	if trace, ok := all[s.suite.trace].([]any); s.suite.trace != "" && (!ok || len(trace) == 0) {
		return fmt.Errorf("the error has no %s: %s", s.suite.trace, a.payload)
	}
	return s.answers(ctx, function)
}

// wantError checks the kind and the message of a function's error.
func (a *answer) wantError(kind, message string) error {
	var e struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(a.payload, &e); err != nil {
		return fmt.Errorf("the function answered %s", a.payload)
	}
	if !a.failed || e.ErrorType != kind || !regexp.MustCompile(message).MatchString(e.ErrorMessage) {
		return fmt.Errorf("the function answered %s, want the error %s: %s", a.payload, kind, message)
	}
	return nil
}

// answers checks that a function can be invoked after something went wrong.
func (s *subject) answers(ctx context.Context, function string) error {
	a, err := s.invoke(ctx, function, opEcho, "1")
	if err != nil {
		return err
	}
	if a.failed || string(a.payload) != "1" {
		return fmt.Errorf("the invocation after that answered %s", a.payload)
	}
	return nil
}

// initError looks at the error of a function that cannot be initialised.
func initError(ctx context.Context, s *subject) error {
	function, err := s.deploy(ctx, "broken", s.suite.broken, nil)
	if err != nil {
		return err
	}
	a, err := s.invoke(ctx, function, opEcho, "1")
	if err != nil {
		return err
	}
	return a.wantError(s.suite.initType, `.`)
}

// logging looks at what a function prints and logs, between the platform's lines.
func logging(ctx context.Context, s *subject) error {
	function, err := s.main(ctx)
	if err != nil {
		return err
	}
	a, err := s.invoke(ctx, function, opLog, "null")
	if err != nil {
		return err
	}
	if a.failed || string(a.payload) != "null" {
		return fmt.Errorf("the function answered %s", a.payload)
	}
	for _, want := range []string{"START RequestId: " + a.id, "printed\n", s.suite.logged, "END RequestId: " + a.id, "REPORT RequestId: " + a.id} {
		if !strings.Contains(a.log, want) {
			return fmt.Errorf("the log has no %q: %q", want, a.log)
		}
	}
	// What is logged in lines is one event.
	return s.waitForLog(ctx, function, s.suite.logged)
}

// streaming takes a response in parts.
func streaming(ctx context.Context, s *subject) error {
	if s.suite.stream == "" {
		return notApplicable("the runtime has no response streaming")
	}
	function, err := s.deploy(ctx, "stream", s.suite.stream, nil)
	if err != nil {
		return err
	}
	out, err := s.Lambda.InvokeWithResponseStream(ctx, &lambda.InvokeWithResponseStreamInput{FunctionName: &function, Payload: event(opStream, "null")})
	if err != nil {
		return err
	}
	defer out.GetStream().Close()
	var parts []string
	complete := false
	for e := range out.GetStream().Events() {
		switch e := e.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			parts = append(parts, string(e.Value.Payload))
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = e.Value.ErrorCode == nil
		}
	}
	if err := out.GetStream().Err(); err != nil {
		return err
	}
	if !complete || len(parts) < 2 || strings.Join(parts, "") != "first,last" {
		return fmt.Errorf("the stream has %q, complete: %t", parts, complete)
	}
	return nil
}

// timeOut lets a function run out of time, after which it can be invoked again.
func timeOut(ctx context.Context, s *subject) error {
	function, err := s.deploy(ctx, "sleep", s.suite.handlers[0], func(in *lambda.CreateFunctionInput) { in.Timeout = aws.Int32(sleepTimeout) })
	if err != nil {
		return err
	}
	a, err := s.invoke(ctx, function, opSleep, "null")
	if err != nil {
		return err
	}
	if err := a.wantError("Sandbox.Timedout", fmt.Sprintf(`Task timed out after %d\.00 seconds$`, sleepTimeout)); err != nil {
		return err
	}
	if _, err := s.Lambda.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: &function, Timeout: aws.Int32(functionTimeout)}); err != nil {
		return err
	}
	if err := lambda.NewFunctionUpdatedV2Waiter(s.Lambda, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = poll }).Wait(ctx, &lambda.GetFunctionInput{FunctionName: &function}, checkTimeout); err != nil {
		return err
	}
	return s.answers(ctx, function)
}

// terminated ends an environment, which has an extension: its runtime is told
// by SIGTERM.
func terminated(ctx context.Context, s *subject) error {
	content, err := pack("extension", "extensions")
	if err != nil {
		return err
	}
	layer, err := s.Lambda.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{
		LayerName: aws.String(s.name("watch")), Content: &types.LayerVersionContentInput{ZipFile: content},
	})
	if err != nil {
		return err
	}
	function, err := s.deploy(ctx, "terminated", s.suite.handlers[0], func(in *lambda.CreateFunctionInput) { in.Layers = []string{*layer.LayerVersionArn} })
	if err != nil {
		return err
	}
	if err := s.answers(ctx, function); err != nil {
		return err
	}
	if err := s.delete(ctx, function); err != nil {
		return err
	}
	return s.waitForLog(ctx, function, "SIGTERM seen")
}

// name returns the name of a function or layer.
func (s *subject) name(purpose string) string {
	return "verify-" + strings.NewReplacer(".", "-").Replace(s.target.ID) + "-" + purpose
}

// main returns the function that knows all operations.
func (s *subject) main(ctx context.Context) (string, error) {
	name := s.name("main")
	for _, function := range s.created {
		if function == name {
			return name, nil
		}
	}
	return s.deploy(ctx, "main", s.suite.handlers[0], nil)
}

// deploy makes a function and waits until it can be invoked.
func (s *subject) deploy(ctx context.Context, purpose, handler string, change func(*lambda.CreateFunctionInput)) (string, error) {
	code, err := pack(s.suite.folder, "")
	if err != nil {
		return "", err
	}
	in := &lambda.CreateFunctionInput{
		FunctionName: aws.String(s.name(purpose)), Runtime: types.Runtime(s.target.ID), Handler: &handler, Role: &s.Role,
		MemorySize: aws.Int32(memoryMB), Timeout: aws.Int32(functionTimeout), Code: &types.FunctionCode{ZipFile: code},
	}
	if change != nil {
		change(in)
	}
	if _, err := s.Lambda.CreateFunction(ctx, in); err != nil {
		return "", err
	}
	s.created = append(s.created, *in.FunctionName)
	waiter := lambda.NewFunctionActiveV2Waiter(s.Lambda, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = poll })
	return *in.FunctionName, waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: in.FunctionName}, checkTimeout)
}

// delete deletes a function.
func (s *subject) delete(ctx context.Context, function string) error {
	_, err := s.Lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &function})
	for i, f := range s.created {
		if f == function {
			s.created = append(s.created[:i:i], s.created[i+1:]...)
			break
		}
	}
	return err
}

// clean deletes what is left.
func (s *subject) clean(ctx context.Context) error {
	var errs []error
	for len(s.created) > 0 {
		errs = append(errs, s.delete(ctx, s.created[0]))
	}
	return errors.Join(errs...)
}

// event makes an event; value is JSON.
func event(op, value string) []byte { return fmt.Appendf(nil, `{"op":%q,"value":%s}`, op, value) }

func (s *subject) invoke(ctx context.Context, function, op, value string) (*answer, error) {
	out, err := s.Lambda.Invoke(ctx, &lambda.InvokeInput{FunctionName: &function, Payload: event(op, value), LogType: types.LogTypeTail})
	if err != nil {
		return nil, err
	}
	log, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
	if err != nil {
		return nil, fmt.Errorf("log tail: %w", err)
	}
	id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	return &answer{id: id, payload: out.Payload, failed: out.FunctionError != nil, log: string(log)}, nil
}

// waitForLog waits for an event with words in the function's log group.
func (s *subject) waitForLog(ctx context.Context, function, words string) error {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	group := "/aws/lambda/" + function
	var last error
	for {
		out, err := s.Logs.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
		if err == nil {
			for _, e := range out.Events {
				if strings.Contains(aws.ToString(e.Message), words) {
					return nil
				}
			}
			err = errors.New("it is not there")
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q in log group %s: %w", words, group, last)
		case <-time.After(poll):
		}
	}
}
