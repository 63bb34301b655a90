package lambda

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/trace"
)

func (f *fixture) accepted() *events.Event {
	f.t.Helper()
	f.events.mu.Lock()
	defer f.events.mu.Unlock()
	if len(f.events.all) == 0 {
		f.t.Fatal("nothing was queued")
	}
	return f.events.all[len(f.events.all)-1]
}

func TestAnEventIsQueuedForWhatTheCallerNamed(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	for qualifier, want := range map[string]string{"": "", "$LATEST": "$LATEST", "1": "1"} {
		out, err := f.Invoke(f.ctx(), &api.InvokeInput{
			FunctionName: aws.Ptr("hello"), Qualifier: optional(qualifier), InvocationType: api.InvocationTypeEvent, Payload: []byte(`{"a":1}`),
			ClientContext: aws.Ptr(base64.StdEncoding.EncodeToString([]byte(`{"custom":{}}`))), LogType: "Tail",
		})
		if err != nil {
			t.Fatal(err)
		}
		if *out.StatusCode != 202 || out.ExecutedVersion != nil || len(out.Payload) != 0 || out.LogResult != nil {
			t.Errorf("answer: %+v", out)
		}
		e := f.accepted()
		if e.FunctionID == "" {
			t.Error("the event does not say which function of that name it is for")
		}
		e.FunctionID = ""
		if e.Target != (events.Target{Region: testRegion, Function: "hello", Qualifier: want}) || string(e.Payload) != `{"a":1}` ||
			e.ClientContext != `{"custom":{}}` || e.RequestID != "11111111-2222-3333-4444-555555555555" {
			t.Errorf("event: %+v", e)
		}
	}
	if f.invoker.request() != nil {
		t.Error("the function was run at once")
	}
}

func TestInvokeAsyncQueuesAnEvent(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	out, err := f.InvokeAsync(f.ctx(), &api.InvokeAsyncInput{FunctionName: aws.Ptr("hello"), InvokeArgs: io.NopCloser(strings.NewReader(`{"a":1}`))})
	if err != nil || *out.Status != 202 || string(f.accepted().Payload) != `{"a":1}` {
		t.Errorf("%+v %v", out, err)
	}
	_, err = f.InvokeAsync(f.ctx(), &api.InvokeAsyncInput{FunctionName: aws.Ptr("hello"), InvokeArgs: io.NopCloser(strings.NewReader(`{`))})
	wantError(t, err, "InvalidRequestContentException", "Could not parse request body into json")
}

func TestEventsThatAreNotAccepted(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	for _, c := range []struct {
		name, payload, code, message string
		status                       int
	}{
		{"hello", `"` + strings.Repeat("x", 1<<20-1) + `"`, "RequestEntityTooLargeException", "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)", 413},
		{"hello", `{`, "InvalidRequestContentException", "Could not parse request body into json", 400},
		{"other", `{}`, codeNotFound, "Function not found: " + arnPrefix + "other", 404},
	} {
		_, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: &c.name, InvocationType: api.InvocationTypeEvent, Payload: []byte(c.payload)})
		wantError(t, err, c.code, c.message)
		if e, ok := errors.AsType[*aws.Error](err); !ok || e.Status != c.status {
			t.Errorf("%v", err)
		}
	}
	f.events.fail = errors.New("no space left on device")
	_, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), InvocationType: api.InvocationTypeEvent})
	wantError(t, err, "ServiceException", "internal error")
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), InvocationType: api.InvocationTypeEvent, Payload: []byte(strings.Repeat("1", 1<<20))}); err == nil {
		t.Error("accepted though the queue failed")
	}
}

func TestEventInvokeConfigLifeCycle(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.create("other")
	f.publish("hello")
	if _, err := f.CreateAlias(f.ctx(), &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1")}); err != nil {
		t.Fatal(err)
	}
	name := aws.Ptr("hello")
	for _, qualifier := range []string{"", "1", "live"} {
		arn := arnPrefix + "hello:" + qualifier
		if qualifier == "" {
			arn += "$LATEST"
		}
		_, err := f.GetFunctionEventInvokeConfig(f.ctx(), &api.GetFunctionEventInvokeConfigInput{FunctionName: name, Qualifier: optional(qualifier)})
		wantError(t, err, codeNotFound, "The function "+arn+" doesn't have an EventInvokeConfig")
		_, err = f.UpdateFunctionEventInvokeConfig(f.ctx(), &api.UpdateFunctionEventInvokeConfigInput{FunctionName: name, Qualifier: optional(qualifier), MaximumRetryAttempts: aws.Ptr(int32(1))})
		wantError(t, err, codeNotFound, "The function "+arn+" doesn't have an EventInvokeConfig")

		put, err := f.PutFunctionEventInvokeConfig(f.ctx(), &api.PutFunctionEventInvokeConfigInput{
			FunctionName: name, Qualifier: optional(qualifier), MaximumEventAgeInSeconds: aws.Ptr(int32(60)),
			DestinationConfig: &api.DestinationConfig{OnFailure: &api.OnFailure{Destination: aws.Ptr(arnPrefix + "other")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if *put.FunctionArn != arn || put.MaximumRetryAttempts != nil || *put.MaximumEventAgeInSeconds != 60 || put.DestinationConfig.OnSuccess.Destination != nil ||
			*put.DestinationConfig.OnFailure.Destination != arnPrefix+"other" || !put.LastModified.Equal(f.clock.Now()) {
			t.Errorf("Put: %+v", put)
		}
		update, err := f.UpdateFunctionEventInvokeConfig(f.ctx(), &api.UpdateFunctionEventInvokeConfigInput{FunctionName: name, Qualifier: optional(qualifier), MaximumRetryAttempts: aws.Ptr(int32(0))})
		if err != nil || *update.MaximumEventAgeInSeconds != 60 || *update.MaximumRetryAttempts != 0 || update.DestinationConfig.OnFailure.Destination == nil {
			t.Errorf("Update: %+v %v", update, err)
		}
	}
	f.reopen()
	var arns []string
	for marker := (*string)(nil); ; {
		list, err := f.ListFunctionEventInvokeConfigs(f.ctx(), &api.ListFunctionEventInvokeConfigsInput{FunctionName: name, MaxItems: aws.Ptr(int32(2)), Marker: marker})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.FunctionEventInvokeConfigs {
			arns = append(arns, strings.TrimPrefix(*c.FunctionArn, arnPrefix))
		}
		if marker = list.NextMarker; marker == nil {
			break
		}
	}
	if got := strings.Join(arns, " "); got != "hello:$LATEST hello:1 hello:live" {
		t.Errorf("list: %s", got)
	}
	for _, want := range []string{"", "The function " + arnPrefix + "hello:live doesn't have an EventInvokeConfig"} {
		_, err := f.DeleteFunctionEventInvokeConfig(f.ctx(), &api.DeleteFunctionEventInvokeConfigInput{FunctionName: name, Qualifier: aws.Ptr("live")})
		if want == "" && err == nil {
			continue
		}
		wantError(t, err, codeNotFound, want)
	}
}

func TestEventInvokeConfigErrors(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	destination := func(arn string) *api.PutFunctionEventInvokeConfigInput {
		return &api.PutFunctionEventInvokeConfigInput{FunctionName: aws.Ptr("hello"), DestinationConfig: &api.DestinationConfig{OnSuccess: &api.OnSuccess{Destination: &arn}}}
	}
	for _, c := range []struct {
		in            *api.PutFunctionEventInvokeConfigInput
		code, message string
	}{
		{&api.PutFunctionEventInvokeConfigInput{FunctionName: aws.Ptr("hello")}, codeInvalid, "You must specify at least one of error handling or destination setting."},
		{&api.PutFunctionEventInvokeConfigInput{FunctionName: aws.Ptr("gone"), MaximumRetryAttempts: aws.Ptr(int32(1))}, codeNotFound, "The function doesn't exist."},
		{&api.PutFunctionEventInvokeConfigInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("7"), MaximumRetryAttempts: aws.Ptr(int32(1))}, codeNotFound, "The function doesn't exist."},
		{destination(arnPrefix + "hello"), codeInvalid, "You can't specify the function as a destination for itself."},
		{destination(arnPrefix + "gone"), codeInvalid, "The destination ARN " + arnPrefix + "gone is invalid."},
		{destination(arnPrefix + "hello:live"), codeInvalid, "is invalid."},
		{destination("arn:aws:lambda:" + testRegion + ":210987654321:function:hello"), codeInvalid, "is invalid."},
		{destination("arn:aws:iam::" + testAccount + ":role/x"), codeInvalid,
			"The provided destination config DestinationConfig(onSuccess=OnSuccess(destination=arn:aws:iam::" + testAccount + ":role/x), onFailure=null) is invalid."},
		{destination("arn:aws:sqs:" + testRegion + ":" + testAccount + ":q"), codeInvalid, "DestinationConfig OnSuccess with the service sqs is not supported by Lapwing."},
	} {
		_, err := f.PutFunctionEventInvokeConfig(f.ctx(), c.in)
		wantError(t, err, c.code, c.message)
	}
	_, err := f.ListFunctionEventInvokeConfigs(f.ctx(), &api.ListFunctionEventInvokeConfigsInput{FunctionName: aws.Ptr("gone")})
	wantError(t, err, codeNotFound, "The function doesn't exist.")
	_, err = f.UpdateFunctionEventInvokeConfig(f.ctx(), &api.UpdateFunctionEventInvokeConfigInput{FunctionName: aws.Ptr("gone"), MaximumRetryAttempts: aws.Ptr(int32(1))})
	wantError(t, err, codeNotFound, "The function doesn't exist.")
	for name, qualified := range map[string]string{"gone": "gone:$LATEST", "hello:gone": "hello:gone"} {
		_, err = f.GetFunctionEventInvokeConfig(f.ctx(), &api.GetFunctionEventInvokeConfigInput{FunctionName: &name})
		wantError(t, err, codeNotFound, "The function "+arnPrefix+qualified+" doesn't have an EventInvokeConfig")
		_, err = f.DeleteFunctionEventInvokeConfig(f.ctx(), &api.DeleteFunctionEventInvokeConfigInput{FunctionName: &name})
		wantError(t, err, codeNotFound, "The function "+arnPrefix+qualified+" doesn't have an EventInvokeConfig")
	}
}

func TestDeadLetterConfigIsPartOfAVersion(t *testing.T) {
	f := newFixture(t)
	f.create("dead")
	dead := arnPrefix + "dead"
	f.create("hello", func(in *api.CreateFunctionInput) { in.DeadLetterConfig = &api.DeadLetterConfig{TargetArn: &dead} })
	if c := f.get("hello", ""); c.DeadLetterConfig == nil || *c.DeadLetterConfig.TargetArn != dead {
		t.Errorf("%+v", c.DeadLetterConfig)
	}
	version := f.publish("hello")
	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), DeadLetterConfig: &api.DeadLetterConfig{TargetArn: aws.Ptr("")}}); err != nil {
		t.Fatal(err)
	}
	f.settled("hello")
	for qualifier, want := range map[string]string{"": "", version: dead} {
		p, err := f.Plan(events.Target{Region: testRegion, Function: "hello", Qualifier: qualifier})
		if err != nil || p.DeadLetter != want {
			t.Errorf("%q: %+v %v", qualifier, p, err)
		}
	}
	for arn, message := range map[string]string{
		arnPrefix + "gone": "The dead-letter target ARN " + arnPrefix + "gone is invalid.",
		"arn:aws:sqs:" + testRegion + ":" + testAccount + ":q": "DeadLetterConfig with a target other than a Lambda function is not supported by Lapwing.",
	} {
		_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), DeadLetterConfig: &api.DeadLetterConfig{TargetArn: &arn}})
		wantError(t, err, codeInvalid, message)
	}
}

func TestPlansFollowTheConfigurationOfTheQualifier(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.create("other")
	f.publish("hello")
	_, err := f.PutFunctionEventInvokeConfig(f.ctx(), &api.PutFunctionEventInvokeConfigInput{
		FunctionName: aws.Ptr("hello"), MaximumEventAgeInSeconds: aws.Ptr(int32(90)), MaximumRetryAttempts: aws.Ptr(int32(1)),
		DestinationConfig: &api.DestinationConfig{OnSuccess: &api.OnSuccess{Destination: aws.Ptr(arnPrefix + "other")}, OnFailure: &api.OnFailure{Destination: aws.Ptr(arnPrefix + "other:$LATEST")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for qualifier, want := range map[string]string{
		"":        arnPrefix + "hello " + arnPrefix + "hello:$LATEST 1m30s 1 " + arnPrefix + "other " + arnPrefix + "other:$LATEST",
		"$LATEST": arnPrefix + "hello:$LATEST " + arnPrefix + "hello:$LATEST 1m30s 1 " + arnPrefix + "other " + arnPrefix + "other:$LATEST",
		"1":       arnPrefix + "hello:1 " + arnPrefix + "hello:1 6h0m0s 2  ",
	} {
		p, err := f.Plan(events.Target{Region: testRegion, Function: "hello", Qualifier: qualifier})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(p.InvokedARN, " ", p.RecordARN, " ", p.MaxAge, " ", p.MaxRetries, " ", p.OnSuccess, " ", p.OnFailure); got != want {
			t.Errorf("%q: %s\nwant %s", qualifier, got, want)
		}
	}
	for _, target := range []events.Target{{Region: testRegion, Function: "gone"}, {Region: testRegion, Function: "hello", Qualifier: "7"}, {Region: "us-east-1", Function: "hello"}} {
		if _, err := f.Plan(target); !errors.Is(err, events.ErrNoFunction) {
			t.Errorf("%v: %v", target, err)
		}
	}
}

func TestEventsOfADeletedFunctionAreNotForItsSuccessor(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), InvocationType: api.InvocationTypeEvent}); err != nil {
		t.Fatal(err)
	}
	e := f.accepted()
	if _, err := f.Plan(e.Target); err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	f.create("hello")
	if _, err := f.Plan(e.Target); !errors.Is(err, events.ErrNoFunction) {
		t.Errorf("the event of the function before it: %v", err)
	}
}

func TestARecursiveLoopIsStoppedUnlessAllowed(t *testing.T) {
	var stopped []events.Target
	f := newFixture(t, func(o *Options) { o.RecursionStopped = func(t events.Target) { stopped = append(stopped, t) } })
	f.create("hello")
	header := trace.New(time.Now())
	for range trace.MaxLineage - 1 {
		header, _ = header.Visit(arnPrefix + "hello")
	}
	invoke := func(typ api.InvocationType) error {
		request := *aws.RequestFrom(f.ctx())
		request.Header = http.Header{trace.HeaderName: {header.String()}}
		_, err := f.Invoke(aws.WithRequest(t.Context(), &request), &api.InvokeInput{FunctionName: aws.Ptr("hello"), InvocationType: typ})
		return err
	}
	if err := invoke(""); err != nil {
		t.Fatal(err)
	}
	header = trace.Parse(f.invoker.request().TraceID) // as the function passes it on
	wantError(t, invoke(""), "RecursiveInvocationException", "recursive loop")
	if len(stopped) != 1 || stopped[0] != (events.Target{Region: testRegion, Function: "hello"}) {
		t.Errorf("told of %v", stopped)
	}
	if err := invoke(api.InvocationTypeEvent); err != nil {
		t.Errorf("an event of a loop must be accepted, to go to its destination: %v", err)
	}
	if f.accepted().Trace != header.String() {
		t.Errorf("trace %s", f.accepted().Trace)
	}
	get := func() api.RecursiveLoop {
		out, err := f.GetFunctionRecursionConfig(f.ctx(), &api.GetFunctionRecursionConfigInput{FunctionName: aws.Ptr("hello")})
		if err != nil {
			t.Fatal(err)
		}
		return out.RecursiveLoop
	}
	if got := get(); got != api.RecursiveLoopTerminate {
		t.Errorf("by default %s", got)
	}
	if _, err := f.PutFunctionRecursionConfig(f.ctx(), &api.PutFunctionRecursionConfigInput{FunctionName: aws.Ptr("hello"), RecursiveLoop: api.RecursiveLoopAllow}); err != nil {
		t.Fatal(err)
	}
	if got := get(); got != api.RecursiveLoopAllow {
		t.Errorf("then %s", got)
	}
	if err := invoke(""); err != nil {
		t.Error(err)
	}
	_, err := f.PutFunctionRecursionConfig(f.ctx(), &api.PutFunctionRecursionConfigInput{FunctionName: aws.Ptr("gone"), RecursiveLoop: api.RecursiveLoopAllow})
	wantError(t, err, codeNotFound, "Function not found")
}
