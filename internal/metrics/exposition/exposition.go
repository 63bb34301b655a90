// Package exposition shows what Lapwing does to Prometheus.
package exposition

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lapwing.dev/lapwing/internal/meter"
)

// durations are the buckets of durations in seconds, up to Lambda's longest
// timeout.
var durations = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900}

// Exporter counts since the start of the program. Its methods are safe for
// concurrent use and cheap.
type Exporter struct {
	registry    *prometheus.Registry
	invocations *prometheus.CounterVec
	throttles   *prometheus.CounterVec
	coldStarts  *prometheus.CounterVec
	billed      *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	init        *prometheus.HistogramVec
	memory      *prometheus.GaugeVec
	inUse       *prometheus.GaugeVec
	provisioned *prometheus.GaugeVec

	// What each invocation counts in, so that it need not be looked up by its labels.
	mu       sync.RWMutex
	outcomes map[outcomeKey]*outcome
	inUses   map[string]prometheus.Gauge // by function
}

type outcomeKey struct{ function, status string }

// outcome is what invocations of a function that end in the same status count in.
type outcome struct {
	invocations, billed prometheus.Counter
	duration            prometheus.Observer
	memory              prometheus.Gauge
}

// New returns an Exporter of a version of Lapwing.
func New(version string) *Exporter {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "lapwing", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "lapwing", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "lapwing", Name: name, Help: help, Buckets: durations}, []string{"function"})
	}
	e := &Exporter{
		registry:    prometheus.NewRegistry(),
		invocations: counter("invocations_total", "Invocations that reached their function, by status: success, error, timeout.", "function", "status"),
		throttles:   counter("throttles_total", "Invocations refused for want of concurrency.", "function"),
		coldStarts:  counter("cold_starts_total", "Invocations that waited for the Init phase of an environment.", "function"),
		billed:      counter("billed_milliseconds_total", "Billed duration.", "function"),
		duration:    histogram("invocation_duration_seconds", "Duration of the Invoke phase."),
		init:        histogram("init_duration_seconds", "Duration of the Init phase of cold starts."),
		memory:      gauge("max_memory_used_bytes", "Max Memory Used of the latest invocation.", "function"),
		inUse:       gauge("concurrent_executions", "Execution environments in use.", "function"),
		provisioned: gauge("provisioned_environments", "Environments of provisioned concurrency that are ready.", "function", "version"),
		outcomes:    map[outcomeKey]*outcome{},
		inUses:      map[string]prometheus.Gauge{},
	}
	info := gauge("build_info", "1, with the version of Lapwing.", "version")
	info.WithLabelValues(version).Set(1)
	e.registry.MustRegister(e.invocations, e.throttles, e.coldStarts, e.billed, e.duration, e.init, e.memory, e.inUse, e.provisioned, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return e
}

// Handler answers GET and HEAD with the exposition.
func (e *Exporter) Handler() http.Handler {
	h := promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Invoked counts an invocation that reached its function.
func (e *Exporter) Invoked(u *meter.Usage) {
	o := kept(&e.mu, e.outcomes, outcomeKey{u.Function, u.Status}, func() *outcome {
		return &outcome{
			invocations: e.invocations.WithLabelValues(u.Function, u.Status),
			billed:      e.billed.WithLabelValues(u.Function),
			duration:    e.duration.WithLabelValues(u.Function),
			memory:      e.memory.WithLabelValues(u.Function),
		}
	})
	o.invocations.Inc()
	o.billed.Add(float64(u.BilledMs()))
	o.duration.Observe(u.Duration.Seconds())
	o.memory.Set(float64(u.MaxMemoryMB) * (1 << 20))
	if u.Init > 0 && !u.Provisioned {
		e.coldStarts.WithLabelValues(u.Function).Inc()
		e.init.WithLabelValues(u.Function).Observe(u.Init.Seconds())
	}
}

// Throttled counts an invocation that was refused.
func (e *Exporter) Throttled(function string) { e.throttles.WithLabelValues(function).Inc() }

// InUse notes that a function has n more environments in use, or fewer.
func (e *Exporter) InUse(function string, n int) {
	kept(&e.mu, e.inUses, function, func() prometheus.Gauge { return e.inUse.WithLabelValues(function) }).Add(float64(n))
}

// kept returns what m has under key, which find is asked for once.
func kept[K comparable, V any](mu *sync.RWMutex, m map[K]V, key K, find func() V) V {
	mu.RLock()
	v, found := m[key]
	mu.RUnlock()
	if !found {
		v = find()
		mu.Lock()
		m[key] = v
		mu.Unlock()
	}
	return v
}

// Allocated notes that a version has n more provisioned environments, or fewer.
func (e *Exporter) Allocated(function, version string, n int) {
	e.provisioned.WithLabelValues(function, version).Add(float64(n))
}
