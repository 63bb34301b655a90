package lambda

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
)

func TestTracingConfig(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	active := func() bool {
		if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil {
			t.Fatal(err)
		}
		return f.invoker.request().Version.ActiveTracing
	}
	update := func(c *api.TracingConfig) {
		t.Helper()
		if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), TracingConfig: c}); err != nil {
			t.Fatal(err)
		}
		f.settled("hello")
	}
	if got := f.get("hello", ""); got.TracingConfig.Mode != api.TracingModePassThrough || active() {
		t.Errorf("by default: %v", got.TracingConfig.Mode)
	}
	update(&api.TracingConfig{Mode: api.TracingModeActive})
	f.publish("hello")
	update(nil)
	f.reopen()
	if got := f.get("hello", ""); got.TracingConfig.Mode != api.TracingModeActive || !active() {
		t.Errorf("after a restart: %v", got.TracingConfig.Mode)
	}
	update(&api.TracingConfig{Mode: api.TracingModePassThrough})
	if got := f.get("hello", "1"); got.TracingConfig.Mode != api.TracingModeActive {
		t.Errorf("of the version: %v", got.TracingConfig.Mode)
	}
	if got := f.get("hello", ""); got.TracingConfig.Mode != api.TracingModePassThrough || active() {
		t.Errorf("at the end: %v", got.TracingConfig.Mode)
	}
}

func TestTraceOfAnInvocation(t *testing.T) {
	f := newFixture(t)
	f.create("active", func(in *api.CreateFunctionInput) { in.TracingConfig = &api.TracingConfig{Mode: api.TracingModeActive} })
	f.create("passive")
	f.createURL("passive", "")
	const root, parent = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
	const newRoot, newParent = `1-[0-9a-f]{8}-[0-9a-f]{24}`, `[0-9a-f]{16}`
	for _, c := range []struct{ function, received, want string }{
		{"active", "", "Root=" + newRoot + ";Parent=" + newParent + ";Sampled=1;Lineage=%:1"},
		{"passive", "", "Root=" + newRoot + ";Parent=" + newParent + ";Sampled=0;Lineage=%:1"},
		{"active", "Root=" + root + ";Parent=" + parent + ";Sampled=0", "Root=" + root + ";Parent=" + parent + ";Sampled=0;Lineage=%:1"},
		{"passive", "Root=" + root + ";Parent=" + parent + ";Sampled=1", "Root=" + root + ";Parent=" + parent + ";Sampled=1;Lineage=%:1"},
		{"passive", "Root=" + root + ";Lineage=11111111:3", "Root=" + root + ";Parent=" + newParent + `;Sampled=0;Lineage=11111111:3\|%:1`},
		{"passive", "Parent=" + parent, "Root=" + newRoot + ";Parent=" + newParent + ";Sampled=0;Lineage=%:1"},
	} {
		want := regexp.MustCompile("^" + strings.ReplaceAll(c.want, "%", trace.HopName(arnPrefix+c.function)) + "$")
		request := *aws.RequestFrom(f.ctx())
		request.Header, request.Response = http.Header{}, http.Header{}
		if c.received != "" {
			request.Header.Set(trace.HeaderName, c.received)
		}
		f.clock.advance(2e9) // so that the sampler takes the first of a second
		f.invoker.reply = func(_ context.Context, _ *invoke.Request, w io.Writer) (*invoke.Result, error) {
			if request.Response.Get(trace.HeaderName) == "" {
				t.Error("the caller is told too late")
			}
			w.Write([]byte("{}"))
			return &invoke.Result{}, nil
		}
		ctx := aws.WithRequest(f.ctx(), &request)
		for name, call := range map[string]func() error{
			"Invoke": func() error {
				_, err := f.Invoke(ctx, &api.InvokeInput{FunctionName: &c.function})
				return err
			},
			"InvokeWithResponseStream": func() error {
				out, err := f.InvokeWithResponseStream(ctx, &api.InvokeWithResponseStreamInput{FunctionName: &c.function})
				if err == nil {
					for range out.EventStream {
					}
				}
				return err
			},
		} {
			f.clock.advance(2e9)
			if err := call(); err != nil {
				t.Fatal(err)
			}
			got := f.invoker.request().TraceID
			if !want.MatchString(got) {
				t.Errorf("%s %s of %q: %s, want %s", name, c.function, c.received, got, want)
			}
			// The lineage is that of the function, not of its caller's answer.
			told, _, _ := strings.Cut(got, ";Lineage")
			if tells := request.Response.Get(trace.HeaderName); !strings.HasPrefix(tells, strings.ToLower(told)) {
				t.Errorf("%s %s of %q: the caller is told %s, not %s", name, c.function, c.received, tells, told)
			}
		}
	}
}
