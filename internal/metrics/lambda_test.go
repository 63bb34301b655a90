package metrics

import (
	"fmt"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

// lambdaStat evaluates a statistic of a metric of Lambda around now.
func lambdaStat(t *testing.T, s *Store, metric, statistic string, dims ...Dimension) float64 {
	t.Helper()
	now := time.Now().Truncate(time.Minute)
	all, err := s.Query(Query{Metric: NewMetric("AWS/Lambda", metric, dims...), Start: now.Add(-10 * time.Minute), End: now.Add(10 * time.Minute), Period: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("%s %v: %d buckets", metric, dims, len(all))
	}
	return stat(t, all[0].Set, statistic)
}

func TestInvocationsAreCountedByFunctionResourceAndVersion(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	l := NewLambda(s)
	defer l.Close()
	now := time.Now()
	for i := range 10 {
		u := &meter.Usage{Function: "f", Version: fmt.Sprint(1 + i%2), Qualifier: "prod", Began: now, Duration: time.Duration(i) * time.Millisecond, Status: "success"}
		if i == 0 {
			u.Status = "error"
		}
		l.Invoked(u)
	}
	l.Invoked(&meter.Usage{Function: "g", Version: "$LATEST", Began: now, Status: "timeout", PostRuntime: time.Millisecond})
	l.Throttled(Target{"f", "prod", "1"})
	f, prod := Dimension{"FunctionName", "f"}, Dimension{"Resource", "f:prod"}
	for _, tt := range []struct {
		metric, statistic string
		dims              []Dimension
		want              float64
	}{
		{"Invocations", "Sum", nil, 11},
		{"Invocations", "Sum", []Dimension{f}, 10},
		{"Invocations", "Sum", []Dimension{f, prod}, 10},
		{"Invocations", "Sum", []Dimension{f, prod, {"ExecutedVersion", "2"}}, 5},
		{"Invocations", "Sum", []Dimension{{"FunctionName", "g"}, {"Resource", "g"}}, 1},
		{"Errors", "Sum", nil, 2},
		{"Errors", "Average", []Dimension{f}, 0.1},
		{"Throttles", "Sum", []Dimension{f}, 1},
		{"Duration", "p90", []Dimension{f}, 8},
		{"Duration", "Maximum", []Dimension{f}, 9},
		{"PostRuntimeExtensionsDuration", "Sum", nil, 1},
	} {
		if got := lambdaStat(t, s, tt.metric, tt.statistic, tt.dims...); got != tt.want {
			t.Errorf("%s of %s %v is %v, want %v", tt.statistic, tt.metric, tt.dims, got, tt.want)
		}
	}
}

func TestConcurrencyIsItsMaximum(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	l := NewLambda(s)
	defer l.Close()
	for range 3 {
		l.Admitted(Target{Function: "f"})
	}
	l.Reserve("g", true)
	l.Admitted(Target{Function: "g"})
	l.Released(Target{Function: "f"})
	l.Admitted(Target{Function: "f"})
	l.Allocated("f", "7", 1)
	l.Allocated("f", "7", 1)
	p := Target{"f", "live", "7"}
	l.Provisioned(p, false, 1)
	l.Provisioned(p, true, 1)
	l.Provisioned(p, true, -1)
	l.sample(time.Now())
	l.Provisioned(p, false, -1)
	f := Dimension{"FunctionName", "f"}
	for _, tt := range []struct {
		metric, statistic string
		dims              []Dimension
		want              float64
	}{
		{"ConcurrentExecutions", "Maximum", nil, 4},
		{"ConcurrentExecutions", "Maximum", []Dimension{f}, 3},
		{"UnreservedConcurrentExecutions", "Maximum", nil, 3},
		{"ProvisionedConcurrencyInvocations", "Sum", []Dimension{f}, 1},
		{"ProvisionedConcurrencySpilloverInvocations", "Sum", []Dimension{f, {"Resource", "f:live"}}, 1},
		{"ProvisionedConcurrencyUtilization", "Maximum", []Dimension{f}, 0.5},
		{"ProvisionedConcurrentExecutions", "Maximum", []Dimension{f, {"Resource", "f:live"}}, 1},
	} {
		if got := lambdaStat(t, s, tt.metric, tt.statistic, tt.dims...); got != tt.want {
			t.Errorf("%s of %s %v is %v, want %v", tt.statistic, tt.metric, tt.dims, got, tt.want)
		}
	}
}

func BenchmarkInvoked(b *testing.B) {
	s := openBench(b)
	l := NewLambda(s)
	defer l.Close()
	u := &meter.Usage{Function: "f", Version: "3", Qualifier: "prod", Began: time.Now(), Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		l.Invoked(u)
	}
}

func BenchmarkAdmitted(b *testing.B) {
	l := NewLambda(openBench(b))
	defer l.Close()
	t := Target{"f", "prod", "3"}
	b.ReportAllocs()
	for b.Loop() {
		l.Admitted(t)
		l.Released(t)
	}
}
