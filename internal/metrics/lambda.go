package metrics

import (
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

const (
	namespace            = "AWS/Lambda"
	concurrentExecutions = "ConcurrentExecutions"
	// Units of the metrics.
	count        = "Count"
	milliseconds = "Milliseconds"
)

// sampleEvery is how often concurrency is noted that does not change.
const sampleEvery = 10 * time.Second

// Target is a function as an invocation names it.
type Target struct {
	Function  string
	Qualifier string // as the caller named it; may be empty
	Version   string // that runs; empty where none has been chosen
}

// resource is the dimension Resource.
func (t Target) resource() string {
	if t.Qualifier == "" {
		return t.Function
	}
	return t.Function + ":" + t.Qualifier
}

// isAlias tells whether the qualifier is an alias, which can have several
// versions.
func (t Target) isAlias() bool {
	return t.Qualifier != "" && t.Qualifier != "$LATEST" && strings.Trim(t.Qualifier, "0123456789") != ""
}

// Lambda makes the metrics of the namespace AWS/Lambda: by function, by
// resource (function:qualifier), by the version that an alias led to, and of
// all functions (Lambda developer guide, "Types of metrics for Lambda
// functions"). Its methods are safe for concurrent use and cheap.
type Lambda struct {
	store *Store
	stop  chan struct{}
	done  sync.WaitGroup

	mu       sync.RWMutex
	series   map[lambdaKey][]*Series
	outcomes map[Target]*outcome

	concurrent, unreserved *Series // of all functions

	use       sync.Mutex
	all       int                    // concurrency in use
	functions map[string]*inUse      // the same, by function
	reserved  map[string]bool        // functions with concurrency of their own
	allocated map[provisionedKey]int // environments of provisioned concurrency
	busy      map[provisionedKey]int // of these, in use
	resources map[provisionedKey]Target
}

type lambdaKey struct {
	metric string
	target Target
}

type provisionedKey struct{ function, version string }

// outcome is the series of what every invocation of a target has.
type outcome struct{ invocations, errors, throttles, duration []*Series }

// inUse is the concurrency in use of a function.
type inUse struct {
	n      int
	series *Series
}

// NewLambda returns the metrics of Lambda, which go to store. Close ends it.
func NewLambda(store *Store) *Lambda {
	l := &Lambda{
		store: store, stop: make(chan struct{}), series: map[lambdaKey][]*Series{}, outcomes: map[Target]*outcome{},
		concurrent: store.Series(NewMetric(namespace, concurrentExecutions), count), unreserved: store.Series(NewMetric(namespace, "UnreservedConcurrentExecutions"), count),
		functions: map[string]*inUse{}, reserved: map[string]bool{},
		allocated: map[provisionedKey]int{}, busy: map[provisionedKey]int{}, resources: map[provisionedKey]Target{},
	}
	l.done.Go(l.run)
	return l
}

// Close ends the sampling of concurrency.
func (l *Lambda) Close() {
	close(l.stop)
	l.done.Wait()
}

func (l *Lambda) run() {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case now := <-t.C:
			l.sample(now)
		}
	}
}

// add notes a value of a metric under all dimensions that it has.
func (l *Lambda) add(metric, unit string, t Target, at time.Time, v float64) {
	addAll(l.find(metric, unit, t), at, v)
}

func addAll(all []*Series, at time.Time, v float64) {
	for _, s := range all {
		s.Add(at, v)
	}
}

// find returns the series of a metric of a target.
func (l *Lambda) find(metric, unit string, t Target) []*Series {
	key := lambdaKey{metric, t}
	l.mu.RLock()
	all := l.series[key]
	l.mu.RUnlock()
	if all == nil {
		all = l.open(key, unit)
	}
	return all
}

// outcome returns the series of what every invocation of a target has.
func (l *Lambda) outcome(t Target) *outcome {
	l.mu.RLock()
	o := l.outcomes[t]
	l.mu.RUnlock()
	if o != nil {
		return o
	}
	return remember(l, l.outcomes, t, &outcome{l.find("Invocations", count, t), l.find("Errors", count, t), l.find("Throttles", count, t), l.find("Duration", milliseconds, t)})
}

// maxKept bounds the targets of which series are kept at hand.
const maxKept = 20_000

func (l *Lambda) open(key lambdaKey, unit string) []*Series {
	t := key.target
	all := []*Series{l.store.Series(NewMetric(namespace, key.metric), unit)}
	if t.Function != "" {
		function, resource := Dimension{"FunctionName", t.Function}, Dimension{"Resource", t.resource()}
		all = append(all, l.store.Series(NewMetric(namespace, key.metric, function), unit),
			l.store.Series(NewMetric(namespace, key.metric, function, resource), unit))
		if t.isAlias() && t.Version != "" {
			all = append(all, l.store.Series(NewMetric(namespace, key.metric, function, resource, Dimension{"ExecutedVersion", t.Version}), unit))
		}
	}
	return remember(l, l.series, key, all)
}

// remember keeps v at hand in m, one of l's maps.
func remember[K comparable, V any](l *Lambda, m map[K]V, key K, v V) V {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(m) >= maxKept {
		clear(m)
	}
	m[key] = v
	return v
}

// Invoked notes an invocation that reached its function. All of it is as of its
// beginning. As on AWS, Errors and Throttles have a 0 for it otherwise, so that
// their average is a rate.
func (l *Lambda) Invoked(u *meter.Usage) {
	t := Target{u.Function, u.Qualifier, u.Version}
	failed := 0.0
	if u.Failed() {
		failed = 1
	}
	o := l.outcome(t)
	addAll(o.invocations, u.Began, 1)
	addAll(o.errors, u.Began, failed)
	addAll(o.throttles, u.Began, 0)
	addAll(o.duration, u.Began, ms(u.Duration))
	if u.PostRuntime > 0 {
		l.add("PostRuntimeExtensionsDuration", milliseconds, t, u.Began, ms(u.PostRuntime))
	}
}

// ms returns d in ms, to two decimals, as REPORT lines have it.
func ms(d time.Duration) float64 {
	return float64((d+5*time.Microsecond)/(10*time.Microsecond)) / 100
}

// Throttled notes an invocation that was refused for want of concurrency.
func (l *Lambda) Throttled(t Target) { l.add("Throttles", count, t, time.Now(), 1) }

// Count notes one of the events that a metric counts: AsyncEventsReceived,
// AsyncEventsDropped, DeadLetterErrors, DestinationDeliveryFailures,
// RecursiveInvocationsDropped, UrlRequestCount, Url4xxCount, Url5xxCount.
func (l *Lambda) Count(metric string, t Target) { l.add(metric, count, t, time.Now(), 1) }

// Time notes a duration: AsyncEventAge, IteratorAge, UrlRequestLatency.
func (l *Lambda) Time(metric string, t Target, d time.Duration) {
	l.add(metric, milliseconds, t, time.Now(), ms(d))
}

// Reserve notes whether a function has concurrency of its own.
func (l *Lambda) Reserve(function string, reserved bool) {
	l.use.Lock()
	defer l.use.Unlock()
	if reserved {
		l.reserved[function] = true
	} else {
		delete(l.reserved, function)
	}
}

// Admitted notes that a unit of concurrency is in use.
func (l *Lambda) Admitted(t Target) {
	l.use.Lock()
	defer l.use.Unlock()
	l.all++
	f := l.functions[t.Function]
	if f == nil {
		f = &inUse{series: l.store.Series(NewMetric(namespace, concurrentExecutions, Dimension{"FunctionName", t.Function}), count)}
		l.functions[t.Function] = f
	}
	f.n++
	l.concurrency(time.Now(), f)
}

// Released notes that it is in use no more.
func (l *Lambda) Released(t Target) {
	l.use.Lock()
	defer l.use.Unlock()
	l.all--
	l.functions[t.Function].n--
}

// concurrency notes what is in use, of a function and of all; use is held. As on
// AWS, it is by function, not by resource, and to be read by its maximum.
func (l *Lambda) concurrency(at time.Time, f *inUse) {
	free := l.all
	for name := range l.reserved {
		if r := l.functions[name]; r != nil {
			free -= r.n
		}
	}
	f.series.Add(at, float64(f.n))
	l.concurrent.Add(at, float64(l.all))
	l.unreserved.Add(at, float64(free))
}

// Provisioned notes an invocation of a version with provisioned concurrency:
// served by it, or spilled over. delta is 1 when it begins and -1 when it ends.
func (l *Lambda) Provisioned(t Target, spilled bool, delta int) {
	now := time.Now()
	if spilled {
		if delta > 0 {
			l.add("ProvisionedConcurrencySpilloverInvocations", count, t, now, 1)
		}
		return
	}
	key := provisionedKey{t.Function, t.Version}
	l.use.Lock()
	l.busy[key] += delta
	busy, allocated := l.busy[key], l.allocated[key]
	if busy == 0 {
		delete(l.busy, key)
	}
	l.resources[key] = t
	l.use.Unlock()
	if delta > 0 {
		l.add("ProvisionedConcurrencyInvocations", count, t, now, 1)
		l.provisioned(t, now, busy, allocated)
	}
}

func (l *Lambda) provisioned(t Target, now time.Time, busy, allocated int) {
	l.add("ProvisionedConcurrentExecutions", count, t, now, float64(busy))
	if allocated > 0 {
		l.add("ProvisionedConcurrencyUtilization", count, t, now, float64(busy)/float64(allocated))
	}
}

// Allocated notes that a version has n more environments of provisioned
// concurrency, or fewer.
func (l *Lambda) Allocated(function, version string, n int) {
	key := provisionedKey{function, version}
	l.use.Lock()
	defer l.use.Unlock()
	if _, known := l.resources[key]; !known {
		l.resources[key] = Target{function, version, version}
	}
	if l.allocated[key] += n; l.allocated[key] <= 0 {
		delete(l.allocated, key)
		delete(l.resources, key)
	}
}

// sample notes the concurrency that is in use, so that a minute in which nothing
// begins has it too, and forgets functions that use none.
func (l *Lambda) sample(now time.Time) {
	l.use.Lock()
	defer l.use.Unlock()
	for name, f := range l.functions {
		if f.n == 0 {
			delete(l.functions, name)
			continue
		}
		l.concurrency(now, f)
	}
	for key, allocated := range l.allocated {
		l.provisioned(l.resources[key], now, l.busy[key], allocated)
	}
}
