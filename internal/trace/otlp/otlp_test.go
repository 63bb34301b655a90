package otlp

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	proto "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	protobuf "google.golang.org/protobuf/proto"

	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// receiver is an OpenTelemetry collector that keeps what it gets.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu       sync.Mutex
	spans    map[string]*proto.Span // by name
	resource map[string]string
}

// Export implements the collector's gRPC service.
func (r *receiver) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spans == nil {
		r.spans, r.resource = map[string]*proto.Span{}, map[string]string{}
	}
	for _, rs := range in.ResourceSpans {
		for _, kv := range rs.Resource.Attributes {
			r.resource[kv.Key] = kv.Value.GetStringValue()
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.spans[s.Name] = s
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is the collector over HTTP.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	in := new(collector.ExportTraceServiceRequest)
	if err == nil {
		err = protobuf.Unmarshal(body, in)
	}
	if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "no spans", http.StatusBadRequest)
		return
	}
	r.Export(req.Context(), in)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// clean takes the standard variables out of the environment.
func clean(t *testing.T) {
	for _, name := range []string{"ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"} {
		t.Setenv("OTEL_EXPORTER_OTLP_"+name, "")
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
}

func TestSpansReachACollector(t *testing.T) {
	overHTTP := func(t *testing.T, r *receiver) string {
		s := httptest.NewServer(r)
		t.Cleanup(s.Close)
		return s.URL
	}
	overGRPC := func(t *testing.T, r *receiver) string {
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		collector.RegisterTraceServiceServer(s, r)
		go s.Serve(l)
		t.Cleanup(s.Stop)
		return "http://" + l.Addr().String()
	}
	for name, c := range map[string]struct {
		collector func(*testing.T, *receiver) string
		byEnv     bool
	}{
		"HTTP, by option": {overHTTP, false}, "HTTP, by environment": {overHTTP, true},
		"gRPC, by option": {overGRPC, false}, "gRPC, by environment": {overGRPC, true},
	} {
		t.Run(name, func(t *testing.T) {
			clean(t)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=here")
			r := &receiver{}
			o := Options{Endpoint: c.collector(t, r), Version: "v1", Logger: logger(t)}
			if c.byEnv {
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", o.Endpoint)
				o.Endpoint = ""
			}
			tracer, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			in := trace.Header{Root: "1-5759e988-bd862e3fe1be46a994272793", Parent: "53995c3f42cd8ad8", Sampled: "0"}
			began := time.Now().Add(-time.Second)
			parent := tracer.StartAt(in, Server, "name", began)
			parent.Rename("parent")
			child := tracer.Start(parent.Header(in), Internal, "child")
			child.Set("aws.request_id", "the-id")
			child.SetInt("n", 3)
			child.Fail("Sandbox.Timedout")
			child.End()
			tracer.Steps(child.Header(in), []timeline.Step{{Name: "whole", Began: began, Took: time.Second}, {Name: "whole/part", Began: began, Took: time.Millisecond}})
			parent.EndAt(began.Add(time.Second / 2))
			if err := tracer.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			r.mu.Lock()
			defer r.mu.Unlock()
			p, ch := r.spans["parent"], r.spans["child"]
			if p == nil || ch == nil {
				t.Fatalf("spans %v", r.spans)
			}
			if hex.EncodeToString(p.TraceId) != "5759e988bd862e3fe1be46a994272793" || hex.EncodeToString(p.ParentSpanId) != "53995c3f42cd8ad8" || p.Kind != proto.Span_SPAN_KIND_SERVER ||
				p.EndTimeUnixNano-p.StartTimeUnixNano != uint64(time.Second/2) {
				t.Errorf("parent %v", p)
			}
			if string(ch.TraceId) != string(p.TraceId) || string(ch.ParentSpanId) != string(p.SpanId) || ch.Status.Code != proto.Status_STATUS_CODE_ERROR || len(ch.Attributes) != 3 {
				t.Errorf("child %v", ch)
			}
			whole, part := r.spans["whole"], r.spans["part"]
			if whole == nil || part == nil || string(whole.ParentSpanId) != string(ch.SpanId) || string(part.ParentSpanId) != string(whole.SpanId) ||
				part.EndTimeUnixNano-part.StartTimeUnixNano != uint64(time.Millisecond) {
				t.Errorf("steps %v, %v", whole, part)
			}
			if r.resource["service.name"] != "lapwing" || r.resource["service.version"] != "v1" || r.resource["host.name"] != "here" {
				t.Errorf("resource %v", r.resource)
			}
		})
	}
}

func TestSpanBeginsTheTraceThatTheHeaderNames(t *testing.T) {
	clean(t)
	r := &receiver{}
	s := httptest.NewServer(r)
	defer s.Close()
	tracer, err := Open(t.Context(), Options{Endpoint: s.URL, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	root := "1-5759e988-bd862e3fe1be46a994272793"
	named := tracer.Start(trace.Header{Root: root}, Server, "named")
	fresh := tracer.Start(trace.Header{}, Server, "fresh")
	broken := tracer.Start(trace.Header{Root: "1-a-b", Parent: "x"}, Server, "broken")
	if got := named.Header(trace.Header{Sampled: "1", Lineage: []trace.Hop{{Function: "f", Count: 2}}}); got.Root != root || got.Sampled != "1" || len(got.Lineage) != 1 || len(got.Parent) != 16 {
		t.Errorf("header %v", got)
	}
	for _, span := range []*Span{fresh, broken} {
		if h := span.Header(trace.Header{}); !regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16}$`).MatchString(h.String()) {
			t.Errorf("header %s", h)
		}
	}
	for _, span := range []*Span{named, fresh, broken} {
		span.End()
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, span := range r.spans {
		if len(span.ParentSpanId) != 0 {
			t.Errorf("%s has a parent", name)
		}
	}
}

func TestWithoutACollectorThereIsNoTracer(t *testing.T) {
	clean(t)
	tracer, err := Open(t.Context(), Options{Logger: logger(t)})
	if tracer != nil || err != nil {
		t.Fatal(tracer, err)
	}
	h := trace.Header{Root: "r", Parent: "p"}
	if n := testing.AllocsPerRun(10, func() {
		span := tracer.Start(h, Server, "name")
		span.Set("k", "v")
		span.SetInt("k", 1)
		span.Rename("other")
		span.Fail("error")
		_ = span.Header(h)
		span.End()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tracer, err := Open(t.Context(), Options{Logger: logger(t)}); tracer != nil || err != nil {
		t.Error("disabled:", tracer, err)
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
	if _, err := Open(t.Context(), Options{Logger: logger(t)}); err == nil {
		t.Error("a protocol that is not supported is accepted")
	}
}

func TestCollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	clean(t)
	tracer, err := Open(t.Context(), Options{Endpoint: "http://127.0.0.1:1", Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 { // more than are kept
		tracer.Start(trace.Header{}, Internal, "lost").End()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	tracer.Close(ctx) // fails or not; but it returns
}
