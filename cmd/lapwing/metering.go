package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/metrics"
	"lapwing.dev/lapwing/internal/metrics/exposition"
	"lapwing.dev/lapwing/internal/usage"
	"lapwing.dev/lapwing/internal/worker"
)

// Names below the data directory.
const (
	usageDir   = "usage"
	metricsDir = "metrics"
	pricesFile = "prices.json"
)

// openUsage opens the journal of what invocations used. The log store must be
// open, and closed after it.
func (s *server) openUsage() (err error) {
	if err := meter.EnsurePrices(filepath.Join(s.opts.data, pricesFile)); err != nil {
		return err
	}
	s.usage, err = usage.Open(filepath.Join(s.opts.data, usageDir), usage.Options{Logs: reportLines{s.events, s.logs}, Logger: s.log})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.usage.Close() })
	return nil
}

// reportLines gives the usage journal the log store to read, and what functions'
// logs are written to.
type reportLines struct {
	*logstore.Store
	logs worker.Logs
}

// Append implements usage.Logs.
func (l reportLines) Append(group, stream string, lines []meter.Report) error {
	events := make([]logstore.Event, len(lines))
	for i, r := range lines {
		events[i] = logstore.Event{Time: r.Time, Message: r.Message}
	}
	return l.logs.Append(group, stream, events)
}

// Dropped implements usage.Logs.
func (l reportLines) Dropped() int64 { return l.Stats().DroppedEvents }

// Messages implements usage.Logs.
func (l reportLines) Messages(group, stream string, from, to time.Time, f func(message string) bool) error {
	opts := logstore.ReadOptions{
		Streams: func(name string) bool { return name == stream },
		Start:   from, End: to.Add(time.Millisecond), // the store keeps milliseconds
	}
	for r, err := range l.Read(context.Background(), group, opts) {
		if errors.Is(err, logstore.ErrGroupNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !f(r.Message) {
			return nil
		}
	}
	return nil
}

// openMetrics opens the metrics, and what meters the data plane.
func (s *server) openMetrics() (err error) {
	if s.metrics, err = metrics.Open(filepath.Join(s.opts.data, metricsDir), s.log); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.metrics.Close() })
	s.metering = &metering{usage: s.usage, provisioned: usage.NewProvisioned(s.usage), lambda: metrics.NewLambda(s.metrics), exporter: exposition.New(version)}
	s.onClose(func(context.Context) error { s.metering.lambda.Close(); return nil })
	return nil
}

// metering hands on what the data plane tells of its work: to the usage journal
// and the metrics. It implements worker.Meter, invoke.Observer and
// events.Observer.
type metering struct {
	usage       *usage.Journal
	provisioned *usage.Provisioned
	lambda      *metrics.Lambda
	exporter    *exposition.Exporter
}

var (
	_ worker.Meter    = (*metering)(nil)
	_ invoke.Observer = (*metering)(nil)
	_ events.Observer = (*metering)(nil)
)

// Record implements worker.Meter.
func (m *metering) Record(u *meter.Usage, r meter.Report) meter.Receipt {
	m.exporter.Invoked(u)
	m.lambda.Invoked(u)
	return m.usage.Record(u, r)
}

func requestTarget(r *invoke.Request) metrics.Target {
	return metrics.Target{Function: r.Version.Name, Qualifier: meter.Qualifier(r.InvokedARN), Version: r.Version.Version}
}

// Admitted implements invoke.Observer.
func (m *metering) Admitted(r *invoke.Request, by invoke.Served) {
	t := requestTarget(r)
	m.lambda.Admitted(t)
	m.exporter.InUse(t.Function, 1)
	if by != invoke.OnDemand {
		m.lambda.Provisioned(t, by == invoke.Spillover, 1)
	}
}

// Released implements invoke.Observer.
func (m *metering) Released(r *invoke.Request, by invoke.Served) {
	t := requestTarget(r)
	m.lambda.Released(t)
	m.exporter.InUse(t.Function, -1)
	if by != invoke.OnDemand {
		m.lambda.Provisioned(t, by == invoke.Spillover, -1)
	}
}

// Throttled implements invoke.Observer.
func (m *metering) Throttled(r *invoke.Request, _ string) {
	m.lambda.Throttled(requestTarget(r))
	m.exporter.Throttled(r.Version.Name)
}

// Allocated implements invoke.Observer.
func (m *metering) Allocated(v *function.Version, n int) {
	m.provisioned.Change(v, n)
	m.lambda.Allocated(v.Name, v.Version, n)
	m.exporter.Allocated(v.Name, v.Version, n)
}

// metricLogs is the log store of what functions print, with the metrics that are
// embedded in that.
type metricLogs struct {
	worker.Logs
	metrics *metrics.Store
}

// Append implements worker.Logs.
func (l metricLogs) Append(group, stream string, events []logstore.Event) error {
	for i := range events {
		l.metrics.Collect(metrics.Embedded(events[i].Message))
	}
	return l.Logs.Append(group, stream, events)
}

// meteredURLs serves function URLs and counts what becomes of the requests.
type meteredURLs struct {
	gateway.FunctionURLs
	urls   interface{ FunctionURL(id string) *function.URL }
	lambda *metrics.Lambda
}

// ServeURL implements gateway.FunctionURLs.
func (m meteredURLs) ServeURL(w http.ResponseWriter, r *http.Request, id, prefix string) {
	began, status := time.Now(), &statusWriter{ResponseWriter: w}
	url := m.urls.FunctionURL(strings.ToLower(id))
	defer func() {
		if url == nil {
			return
		}
		t := metrics.Target{Function: strings.SplitN(url.FunctionARN, ":", 8)[6], Qualifier: meter.Qualifier(url.FunctionARN)}
		m.lambda.Count("UrlRequestCount", t)
		m.lambda.Time("UrlRequestLatency", t, time.Since(began))
		switch status.status / 100 {
		case 4:
			m.lambda.Count("Url4xxCount", t)
		case 5:
			m.lambda.Count("Url5xxCount", t)
		}
	}()
	m.FunctionURLs.ServeURL(status, r, id, prefix)
}

// statusWriter notes the status of a response.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// metricsPath is where Prometheus finds what there is for it.
const metricsPath = "/_lapwing/metrics"

// outside serves h to those who come by any other way than the listener that
// functions reach: what others do is not their business.
func outside(inside net.Addr, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || a.String() == inside.String() {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// configured is the dispatcher, with the metrics told of reserved concurrency.
type configured struct {
	*invoke.Dispatcher
	lambda *metrics.Lambda
}

// Configure implements lambda.Invoker.
func (c configured) Configure(functionARN string, l invoke.Limits) {
	c.lambda.Reserve(functionARN[strings.LastIndexByte(functionARN, ':')+1:], l.Reserved != nil)
	c.Dispatcher.Configure(functionARN, l)
}

func eventTarget(t events.Target) metrics.Target {
	return metrics.Target{Function: t.Function, Qualifier: t.Qualifier}
}

// EventReceived implements events.Observer, as do the methods that follow.
func (m *metering) EventReceived(t events.Target) {
	m.lambda.Count("AsyncEventsReceived", eventTarget(t))
}

func (m *metering) EventAge(t events.Target, d time.Duration) {
	m.lambda.Time("AsyncEventAge", eventTarget(t), d)
}

func (m *metering) EventDropped(t events.Target) {
	m.lambda.Count("AsyncEventsDropped", eventTarget(t))
}

func (m *metering) RecursionStopped(t events.Target) {
	m.lambda.Count("RecursiveInvocationsDropped", eventTarget(t))
}

func (m *metering) DeadLetterFailed(t events.Target) {
	m.lambda.Count("DeadLetterErrors", eventTarget(t))
}

func (m *metering) DestinationFailed(t events.Target) {
	m.lambda.Count("DestinationDeliveryFailures", eventTarget(t))
}
