package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/metrics"
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
	s.usage, err = usage.Open(filepath.Join(s.opts.data, usageDir), usage.Options{Logs: reportLines{s.events}, Logger: s.log})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.usage.Close() })
	return nil
}

// reportLines gives the usage journal the log store.
type reportLines struct{ *logstore.Store }

// Append implements usage.Logs.
func (l reportLines) Append(group, stream string, lines []meter.Report) error {
	events := make([]logstore.Event, len(lines))
	for i, r := range lines {
		events[i] = logstore.Event{Time: r.Time, Message: r.Message}
	}
	return l.Store.Append(group, stream, events)
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
	s.metering = &metering{usage: s.usage, provisioned: usage.NewProvisioned(s.usage), lambda: metrics.NewLambda(s.metrics)}
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
}

var (
	_ worker.Meter    = (*metering)(nil)
	_ invoke.Observer = (*metering)(nil)
	_ events.Observer = (*metering)(nil)
)

// Record implements worker.Meter.
func (m *metering) Record(u *meter.Usage, r meter.Report) meter.Receipt {
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
	if by != invoke.OnDemand {
		m.lambda.Provisioned(t, by == invoke.Spillover, 1)
	}
}

// Released implements invoke.Observer.
func (m *metering) Released(r *invoke.Request, by invoke.Served) {
	t := requestTarget(r)
	m.lambda.Released(t)
	if by != invoke.OnDemand {
		m.lambda.Provisioned(t, by == invoke.Spillover, -1)
	}
}

// Throttled implements invoke.Observer.
func (m *metering) Throttled(r *invoke.Request, _ string) { m.lambda.Throttled(requestTarget(r)) }

// Allocated implements invoke.Observer.
func (m *metering) Allocated(v *function.Version, n int) {
	m.provisioned.Change(v, n)
	m.lambda.Allocated(v.Name, v.Version, n)
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
