// Package otlp makes spans of what Lapwing does for a request (the front door,
// the wait for an environment, its Init, the invocation) and exports them by the
// OpenTelemetry protocol. They join the trace that the request's X-Amzn-Trace-Id
// header names, under the X-Ray ids: trace 1-5759e988-bd862e3fe1be46a994272793
// is 5759e988bd862e3fe1be46a994272793 in OpenTelemetry.
//
// Without a Tracer nothing is measured: all methods work on nil and cost a
// comparison.
package otlp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// Kind is a span's role in its trace.
type Kind = oteltrace.SpanKind

// The kinds of spans that there are.
const (
	Internal = oteltrace.SpanKindInternal
	Server   = oteltrace.SpanKindServer
)

// Options configures a Tracer.
type Options struct {
	// Endpoint is the URL of an OpenTelemetry collector, e.g.
	// http://127.0.0.1:4318. Where it is empty, the standard variables
	// OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT say
	// it, and without those there is no Tracer. All other standard variables of
	// exporters, samplers, batches and resources hold in any case.
	Endpoint string
	Version  string // of Lapwing
	Logger   *slog.Logger
}

// Tracer makes spans. A nil Tracer makes none.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
}

// Open returns a Tracer, or nil if the options and the environment name no
// collector. That the collector can be reached is not checked: spans are
// exported in the background, and dropped when there are too many of them.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	if o.Endpoint == "" && os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	if disabled, _ := strconv.ParseBool(os.Getenv("OTEL_SDK_DISABLED")); disabled {
		return nil, nil
	}
	exporter, err := newExporter(ctx, o.Endpoint)
	if err != nil {
		return nil, err
	}
	// What the environment says comes last and wins.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "lapwing"), attribute.String("service.version", o.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Logger.Warn("spans were not exported", "error", err) }))
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about), sdktrace.WithIDGenerator(ids{}))
	return &Tracer{provider, provider.Tracer("lapwing.dev/lapwing")}, nil
}

// newExporter makes an exporter for the protocol that the environment names.
func newExporter(ctx context.Context, endpoint string) (*otlptrace.Exporter, error) {
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	var client otlptrace.Client
	switch protocol {
	case "", "http/protobuf":
		var options []otlptracehttp.Option
		if endpoint != "" { // which names the collector, as the variable does
			options = append(options, otlptracehttp.WithEndpointURL(strings.TrimSuffix(endpoint, "/")+"/v1/traces"))
		}
		client = otlptracehttp.NewClient(options...)
	case "grpc":
		var options []otlptracegrpc.Option
		if endpoint != "" {
			options = append(options, otlptracegrpc.WithEndpointURL(endpoint))
		}
		client = otlptracegrpc.NewClient(options...)
	default:
		return nil, fmt.Errorf("otlp: OTEL_EXPORTER_OTLP_PROTOCOL %q is not supported: want grpc or http/protobuf", protocol)
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	return exporter, nil
}

// Close exports what is left, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("otlp: %w", err)
	}
	return nil
}

// Span is a piece of work. The methods of a nil Span do nothing.
type Span struct{ span oteltrace.Span }

// Start begins a span in the trace of a header, or in a new trace where the
// header names none.
func (t *Tracer) Start(in trace.Header, kind Kind, name string) *Span {
	return t.StartAt(in, kind, name, time.Time{})
}

// StartAt is Start for work that has begun at a time before.
func (t *Tracer) StartAt(in trace.Header, kind Kind, name string, began time.Time) *Span {
	if t == nil {
		return nil
	}
	options := []oteltrace.SpanStartOption{oteltrace.WithSpanKind(kind)}
	if !began.IsZero() {
		options = append(options, oteltrace.WithTimestamp(began))
	}
	_, span := t.tracer.Start(join(in), name, options...)
	return &Span{span}
}

// Steps makes spans of steps that are over, given as timeline.Line.Steps returns
// them, below the span that is the parent in the header.
func (t *Tracer) Steps(in trace.Header, steps []timeline.Step) {
	if t == nil {
		return
	}
	below := map[string]trace.Header{}
	for _, s := range steps {
		parent, ok := below[s.Parent()]
		if !ok {
			parent = in
		}
		span := t.StartAt(parent, Internal, s.Base(), s.Began)
		span.EndAt(s.Began.Add(s.Took))
		below[s.Name] = span.Header(parent)
	}
}

// join returns a context in which spans join the trace of a header, below its
// parent if it has one. The header's Sampled field is about what functions tell
// X-Ray, and has no say in what Lapwing tells its operator.
func join(h trace.Header) context.Context {
	ctx := context.Background()
	id, err := oteltrace.TraceIDFromHex(strings.ReplaceAll(strings.TrimPrefix(h.Root, "1-"), "-", ""))
	if err != nil {
		return ctx
	}
	parent, err := oteltrace.SpanIDFromHex(h.Parent)
	if err != nil {
		return context.WithValue(ctx, traceIDKey{}, id)
	}
	return oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
		TraceID: id, SpanID: parent, TraceFlags: oteltrace.FlagsSampled, Remote: true,
	}))
}

// Header returns h with the span as the parent of what follows.
func (s *Span) Header(h trace.Header) trace.Header {
	if s == nil {
		return h
	}
	c := s.span.SpanContext()
	id := c.TraceID().String()
	h.Root, h.Parent = "1-"+id[:8]+"-"+id[8:], c.SpanID().String()
	return h
}

// Rename sets the span's name, where that is not known from the start.
func (s *Span) Rename(name string) {
	if s != nil {
		s.span.SetName(name)
	}
}

// Set notes a fact about the work, by a name of OpenTelemetry's semantic
// conventions where there is one.
func (s *Span) Set(name, value string) {
	if s != nil && value != "" {
		s.span.SetAttributes(attribute.String(name, value))
	}
}

// SetInt is Set for numbers.
func (s *Span) SetInt(name string, value int) {
	if s != nil {
		s.span.SetAttributes(attribute.Int(name, value))
	}
}

// Fail notes that the work failed, with an error of this type.
func (s *Span) Fail(errorType string) {
	if s != nil {
		s.Set("error.type", errorType)
		s.span.SetStatus(codes.Error, errorType)
	}
}

// End ends the span now.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// EndAt ends the span at a time before.
func (s *Span) EndAt(t time.Time) {
	if s != nil {
		s.span.End(oteltrace.WithTimestamp(t))
	}
}

// ids makes trace ids that X-Ray can read: they begin with the time.
type ids struct{}

// traceIDKey is the key of a context's value that is the id of a trace whose
// first span has yet to be made.
type traceIDKey struct{}

// NewIDs implements sdktrace.IDGenerator.
func (ids) NewIDs(ctx context.Context) (id oteltrace.TraceID, span oteltrace.SpanID) {
	id, ok := ctx.Value(traceIDKey{}).(oteltrace.TraceID)
	if !ok {
		rand.Read(id[:])
		binary.BigEndian.PutUint32(id[:4], uint32(time.Now().Unix()))
	}
	return id, ids{}.NewSpanID(ctx, id)
}

// NewSpanID implements sdktrace.IDGenerator.
func (ids) NewSpanID(context.Context, oteltrace.TraceID) (id oteltrace.SpanID) {
	rand.Read(id[:])
	return id
}
