package lambda

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
)

func TestInvokePassesOnWhatTheCallerSaid(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) {
		in.Environment = &api.Environment{Variables: map[string]string{"AA": "1"}}
		in.Timeout, in.MemorySize, in.EphemeralStorage = aws.Ptr(int32(7)), aws.Ptr(int32(256)), &api.EphemeralStorage{Size: aws.Ptr(int32(1024))}
	})
	f.invoker.reply = func(_ context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
		fmt.Fprint(w, `{"errorType":`)
		fmt.Fprint(w, `"E"}`)
		return &invoke.Result{FunctionError: "Unhandled", LogTail: []byte("START…")}, nil
	}
	ctx := aws.WithRequest(t.Context(), &aws.Request{ID: "the-id", Region: testRegion, Header: http.Header{"X-Amzn-Trace-Id": {"Root=1;Parent=53995c3f42cd8ad8"}}})
	out, err := f.Invoke(ctx, &api.InvokeInput{
		FunctionName: aws.Ptr(arnPrefix + "hello:$LATEST"), Payload: []byte(`{"a":1}`), LogType: "Tail",
		ClientContext: aws.Ptr(base64.StdEncoding.EncodeToString([]byte(`{"custom":{}}`))),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *out.StatusCode != 200 || *out.ExecutedVersion != "$LATEST" || *out.FunctionError != "Unhandled" || string(out.Payload) != `{"errorType":"E"}` ||
		*out.LogResult != base64.StdEncoding.EncodeToString([]byte("START…")) {
		t.Errorf("answer: %+v", out)
	}
	req := f.invoker.request()
	if req.InvokedARN != arnPrefix+"hello:$LATEST" || req.RequestID != "the-id" || string(req.Payload) != `{"a":1}` || req.ClientContext != `{"custom":{}}` || req.TraceID != "Root=1;Parent=53995c3f42cd8ad8;Sampled=0;Lineage="+trace.HopName(arnPrefix+"hello")+":1" || !req.Tail || req.Streaming {
		t.Errorf("request: %+v", req)
	}
	v := req.Version
	if v.Version != function.Latest || v.Account != testAccount || v.Region != testRegion || v.Runtime != "nodejs22.x" || v.Handler != "index.handler" || v.Role != testRole ||
		v.MemoryMB != 256 || v.Timeout.Seconds() != 7 || v.EphemeralMB != 1024 || v.Env["AA"] != "1" || v.Logging.Group != "/aws/lambda/hello" || v.Architecture != "x86_64" {
		t.Errorf("version: %+v", v)
	}
}

func TestInvokeErrors(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	for _, c := range []struct {
		name          string
		in            api.InvokeInput
		code, message string
	}{
		{"unknown function", api.InvokeInput{FunctionName: aws.Ptr("nobody")}, codeNotFound, "Function not found: " + arnPrefix + "nobody:$LATEST"},
		{"unknown version", api.InvokeInput{Qualifier: aws.Ptr("9")}, codeNotFound, "Function not found: " + arnPrefix + "hello:9"},
		{"unknown alias", api.InvokeInput{FunctionName: aws.Ptr("hello:live")}, codeNotFound, "Function not found: " + arnPrefix + "hello:live"},
		{"other Region", api.InvokeInput{FunctionName: aws.Ptr("arn:aws:lambda:us-east-1:" + testAccount + ":function:hello")}, codeNotFound, "Functions from 'us-east-1' are not reachable"},
		{"not JSON", api.InvokeInput{Payload: []byte("{a")}, "InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: "},
		{"two values", api.InvokeInput{Payload: []byte("1 2")}, "InvalidRequestContentException", "Could not parse request body into json"},
		{"not UTF-8", api.InvokeInput{Payload: []byte("\"\xff\"")}, "InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: invalid UTF-8"},
		{"too large", api.InvokeInput{Payload: make([]byte, maxPayload+1)}, "RequestEntityTooLargeException", "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)"},
		{"client context", api.InvokeInput{ClientContext: aws.Ptr("%")}, "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object."},
		{"client context too large", api.InvokeInput{ClientContext: aws.Ptr(strings.Repeat("a", maxClientContext+1))}, "InvalidRequestContentException", "at most 3583 bytes"},
		{"tenant", api.InvokeInput{TenantId: aws.Ptr("t")}, codeInvalid, "The invoked function is not enabled with tenancy configuration."},
		{"durable execution", api.InvokeInput{DurableExecutionName: aws.Ptr("t")}, codeInvalid, "DurableExecutionName is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.in.FunctionName == nil {
				c.in.FunctionName = aws.Ptr("hello")
			}
			_, err := f.Invoke(f.ctx(), &c.in)
			wantError(t, err, c.code, c.message)
		})
	}
	if f.invoker.request() != nil {
		t.Error("a refused invocation ran")
	}
	out, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), InvocationType: api.InvocationTypeDryRun})
	if err != nil || *out.StatusCode != 204 || out.ExecutedVersion != nil || f.invoker.request() != nil {
		t.Errorf("dry run: %+v %v", out, err)
	}
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil || string(f.invoker.request().Payload) != "{}" {
		t.Errorf("no payload: %v, event %s", err, f.invoker.request().Payload)
	}
	throttled := &aws.Error{Code: "TooManyRequestsException", Status: 429}
	f.invoker.reply = func(context.Context, *invoke.Request, io.Writer) (*invoke.Result, error) { return nil, throttled }
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); !errors.Is(err, throttled) {
		t.Errorf("throttled: %v", err)
	}
}

func TestFunctionThatIsNotActiveCannotBeInvoked(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	for _, state := range []api.State{api.StatePending, api.StateFailed} {
		e := *f.entries.get(functionKey{testRegion, "hello"})
		e.function.Value.State = state
		f.buildRoutes(&e)
		f.entries.put(e.key, &e)
		_, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")})
		wantError(t, err, codeConflict, "The operation cannot be performed at this time. The function is currently in the following state: "+string(state))
	}
}

func TestWeightedAliasSplitsInvocations(t *testing.T) {
	var chance float64
	f := newFixture(t, func(o *Options) { o.Rand = func() float64 { return chance } })
	f.create("hello")
	f.publish("hello")
	f.change("hello", "two")
	f.publish("hello")
	_, err := f.CreateAlias(f.ctx(), &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1"),
		RoutingConfig: &api.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"2": 0.25}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		chance float64
		want   string
	}{{0, "2"}, {0.2499, "2"}, {0.25, "1"}, {0.999, "1"}} {
		chance = c.chance
		out, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("live")})
		if err != nil || *out.ExecutedVersion != c.want || f.invoker.request().InvokedARN != arnPrefix+"hello:live" {
			t.Errorf("chance %v: version %v, ARN %s, %v; want version %s", c.chance, *out.ExecutedVersion, f.invoker.request().InvokedARN, err, c.want)
		}
	}
}

func TestEachDeploymentHasItsOwnEnvironments(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	revision := func(qualifier string) string {
		t.Helper()
		if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: optional(qualifier)}); err != nil {
			t.Fatal(err)
		}
		return f.invoker.request().Version.Revision
	}
	first := revision("")
	if _, err := f.TagResource(f.ctx(), &api.TagResourceInput{Resource: aws.Ptr(arnPrefix + "hello"), Tags: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	f.publish("hello")
	if revision("") != first {
		t.Error("tags and publishing must not throw environments away")
	}
	f.change("hello", "") // nothing changes, but Lambda starts new environments
	if revision("") == first {
		t.Error("environments survived an update")
	}
	if revision("1") != first {
		t.Error("an update must leave published versions alone")
	}
}

// events collects a stream.
func streamed(t *testing.T, out *api.InvokeWithResponseStreamOutput) (payload string, complete *api.InvokeWithResponseStreamCompleteEvent, failed error) {
	t.Helper()
	for e, err := range out.EventStream {
		switch {
		case err != nil:
			failed = err
		case e.PayloadChunk != nil:
			payload += string(e.PayloadChunk.Payload) + "|"
		case e.InvokeComplete != nil:
			complete = e.InvokeComplete
		}
	}
	return payload, complete, failed
}

func TestResponseStream(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	in := &api.InvokeWithResponseStreamInput{FunctionName: aws.Ptr("hello"), LogType: "Tail"}
	reply := func(r func(context.Context, *invoke.Request, io.Writer) (*invoke.Result, error)) { f.invoker.reply = r }

	reply(func(_ context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
		buf := []byte("one")
		w.Write(buf)
		copy(buf, "two") // a writer may use its buffer again
		w.Write(buf)
		return &invoke.Result{LogTail: []byte("log")}, nil
	})
	out, err := f.InvokeWithResponseStream(f.ctx(), in)
	if err != nil {
		t.Fatal(err)
	}
	payload, done, failed := streamed(t, out)
	if payload != "one|two|" || done == nil || done.ErrorCode != nil || *done.LogResult != "bG9n" || failed != nil || *out.StatusCode != 200 || *out.ExecutedVersion != "$LATEST" {
		t.Errorf("%q %+v %v", payload, done, failed)
	}
	if req := f.invoker.request(); !req.Streaming || !req.Tail {
		t.Errorf("request: %+v", req)
	}

	reply(func(_ context.Context, _ *invoke.Request, w io.Writer) (*invoke.Result, error) {
		w.Write([]byte("part"))
		return &invoke.Result{FunctionError: "Unhandled", ErrorType: "Sandbox.Timedout", ErrorDetails: `{"errorMessage":"x"}`}, nil
	})
	if out, err = f.InvokeWithResponseStream(f.ctx(), in); err != nil {
		t.Fatal(err)
	}
	if payload, done, _ = streamed(t, out); payload != "part|" || *done.ErrorCode != "Sandbox.Timedout" || *done.ErrorDetails != `{"errorMessage":"x"}` {
		t.Errorf("mid-stream error: %q %+v", payload, done)
	}

	throttled := &aws.Error{Code: "TooManyRequestsException", Status: 429}
	reply(func(context.Context, *invoke.Request, io.Writer) (*invoke.Result, error) { return nil, throttled })
	if _, err = f.InvokeWithResponseStream(f.ctx(), in); !errors.Is(err, throttled) {
		t.Errorf("a throttle must come before the stream: %v", err)
	}

	reply(func(_ context.Context, _ *invoke.Request, w io.Writer) (*invoke.Result, error) {
		w.Write([]byte("part"))
		return nil, errors.New("worker lost")
	})
	if out, err = f.InvokeWithResponseStream(f.ctx(), in); err != nil {
		t.Fatal(err)
	}
	if payload, done, failed = streamed(t, out); payload != "part|" || done != nil || failed == nil {
		t.Errorf("platform error in the stream: %q %+v %v", payload, done, failed)
	}

	dry, err := f.InvokeWithResponseStream(f.ctx(), &api.InvokeWithResponseStreamInput{FunctionName: aws.Ptr("hello"), InvocationType: "DryRun"})
	if err != nil || *dry.StatusCode != 204 || dry.EventStream != nil {
		t.Errorf("dry run: %+v %v", dry, err)
	}
}

func TestReaderOfAStreamMayLeave(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	left := make(chan error, 1)
	f.invoker.reply = func(ctx context.Context, _ *invoke.Request, w io.Writer) (*invoke.Result, error) {
		for {
			if _, err := w.Write([]byte("more")); err != nil {
				left <- ctx.Err()
				return nil, err
			}
		}
	}
	in := &api.InvokeWithResponseStreamInput{FunctionName: aws.Ptr("hello")}
	out, err := f.InvokeWithResponseStream(f.ctx(), in)
	if err != nil {
		t.Fatal(err)
	}
	for range out.EventStream {
		break
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("in the loop: %v", err)
	}

	ctx, cancel := context.WithCancel(f.ctx())
	if _, err = f.InvokeWithResponseStream(ctx, in); err != nil {
		t.Fatal(err)
	}
	cancel() // and the events are never read
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("before the loop: %v", err)
	}
}

func BenchmarkInvoke(b *testing.B) {
	f := newFixture(b)
	f.create("hello")
	f.publish("hello")
	payload := []byte(`{"key":"` + strings.Repeat("x", 1000) + `"}`)
	f.invoker.reply = func(_ context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
		w.Write(req.Payload)
		return &invoke.Result{}, nil
	}
	ctx := f.ctx()
	for name, in := range map[string]*api.InvokeInput{
		"name": {FunctionName: aws.Ptr("hello"), Payload: payload},
		"arn":  {FunctionName: aws.Ptr(arnPrefix + "hello:1"), Payload: payload},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Invoke(ctx, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCreateFunction(b *testing.B) {
	f := newFixture(b)
	for i := 0; b.Loop(); i++ {
		if _, err := f.CreateFunction(f.ctx(), f.input(fmt.Sprint("f", i))); err != nil {
			b.Fatal(err)
		}
	}
}
