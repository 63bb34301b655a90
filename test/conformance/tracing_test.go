package conformance_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"lapwing.dev/lapwing/test/harness"
)

// spans is an OpenTelemetry collector.
type spans struct {
	mu     sync.Mutex
	byName map[string][]*otlp.Span
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	in := new(collector.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(body, in)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range in.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, span := range ss.Spans {
				s.byName[span.Name] = append(s.byName[span.Name], span)
			}
		}
	}
}

func TestAnInvocationIsTraced(t *testing.T) {
	t.Parallel()
	got := &spans{byName: map[string][]*otlp.Span{}}
	sink := httptest.NewServer(got)
	defer sink.Close()
	s, err := harness.Start(filepath.Join(t.TempDir(), "data"), "--otlp", sink.URL)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			s.Kill()
		}
	})
	const root, parent = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
	var response http.Header
	c := lambda.NewFromConfig(s.Config(), func(o *lambda.Options) {
		o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue("X-Amzn-Trace-Id", "Root="+root+";Parent="+parent), func(stack *middleware.Stack) error {
			return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Response", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
				out, metadata, err := next.HandleDeserialize(ctx, in)
				if raw, ok := out.RawResponse.(*smithyhttp.Response); ok {
					response = raw.Header
				}
				return out, metadata, err
			}), middleware.After)
		})
	})
	name := aws.String("traced")
	created, err := c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: name, Runtime: "provided.al2023", Handler: aws.String("bootstrap"), Role: aws.String("arn:aws:iam::" + s.Account() + ":role/any"),
		MemorySize: aws.Int32(1769), Timeout: aws.Int32(60), TracingConfig: &types.TracingConfig{Mode: types.TracingModeActive},
		Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"bootstrap*": buildGo(t, "./function")})},
	})
	if err != nil {
		t.Fatal(err)
	}
	if created.TracingConfig.Mode != types.TracingModeActive {
		t.Errorf("TracingConfig %v", created.TracingConfig.Mode)
	}
	active := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 100 * time.Millisecond })
	if err := active.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: name}, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: name, Payload: []byte(`{"Do":"env"}`), LogType: types.LogTypeTail})
	if err != nil {
		t.Fatal(err)
	}
	var env map[string]string
	if err := json.Unmarshal(out.Payload, &env); err != nil {
		t.Fatalf("%v: %s", err, out.Payload)
	}
	log, err := base64.StdEncoding.DecodeString(*out.LogResult)
	if err != nil {
		t.Fatal(err)
	}
	// The first invocation of a second is always sampled.
	seen := env["_X_AMZN_TRACE_ID"]
	if !strings.HasPrefix(seen, "Root="+root+";Parent=") || !strings.Contains(seen, ";Sampled=1") {
		t.Errorf("the function saw %s", seen)
	}
	if !strings.HasPrefix(response.Get("X-Amzn-Trace-Id"), "root="+root+";parent=") {
		t.Errorf("the caller was told %s", response.Get("X-Amzn-Trace-Id"))
	}

	// What has not been exported is when the server stops.
	stopped = true
	if err := s.Stop(); err != nil {
		t.Fatalf("stop: %v\n%s", err, s.Log())
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	one := func(name string) *otlp.Span {
		t.Helper()
		if len(got.byName[name]) != 1 {
			t.Fatalf("%d spans %q", len(got.byName[name]), name)
		}
		return got.byName[name][0]
	}
	front, queue, start, run := one("Lambda/Invoke"), one("queue traced"), one("init traced"), one("invoke traced")
	for _, span := range []*otlp.Span{front, queue, start, run} {
		if hex.EncodeToString(span.TraceId) != strings.ReplaceAll(root[2:], "-", "") {
			t.Errorf("%s is in the trace %x", span.Name, span.TraceId)
		}
	}
	if hex.EncodeToString(front.ParentSpanId) != parent {
		t.Errorf("the front door's parent is %x", front.ParentSpanId)
	}
	for _, span := range []*otlp.Span{queue, start, run} {
		if string(span.ParentSpanId) != string(front.SpanId) {
			t.Errorf("the parent of %s is %x", span.Name, span.ParentSpanId)
		}
	}
	segment := hex.EncodeToString(run.SpanId)
	if !strings.Contains(seen, ";Parent="+segment+";") || !strings.Contains(string(log), "\nXRAY TraceId: "+root+"\tSegmentId: "+segment+"\tSampled: true\t\n") {
		t.Errorf("the function is not in its span %s: it saw %s\n%s", segment, seen, log)
	}
	if queue.StartTimeUnixNano < front.StartTimeUnixNano || start.EndTimeUnixNano > run.StartTimeUnixNano || run.EndTimeUnixNano < run.StartTimeUnixNano {
		t.Error("the spans are out of order")
	}
}
