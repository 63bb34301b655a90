package exposition

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

func TestExpositionCountsWhatHappened(t *testing.T) {
	e := New("v1")
	e.Invoked(&meter.Usage{Function: "f", Status: "success", Duration: 30 * time.Millisecond, Init: time.Second, MaxMemoryMB: 2})
	e.Invoked(&meter.Usage{Function: "f", Status: "error", Duration: 1500 * time.Millisecond, MaxMemoryMB: 3})
	e.Throttled("f")
	e.InUse("f", 1)
	e.Allocated("f", "7", 2)
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for _, want := range []string{
		`lapwing_invocations_total{function="f",status="success"} 1`, `lapwing_invocations_total{function="f",status="error"} 1`,
		`lapwing_throttles_total{function="f"} 1`, `lapwing_cold_starts_total{function="f"} 1`, `lapwing_billed_milliseconds_total{function="f"} 2530`,
		`lapwing_invocation_duration_seconds_bucket{function="f",le="0.05"} 1`, `lapwing_invocation_duration_seconds_count{function="f"} 2`,
		`lapwing_max_memory_used_bytes{function="f"} 3.145728e+06`, `lapwing_concurrent_executions{function="f"} 1`,
		`lapwing_provisioned_environments{function="f",version="7"} 2`, `lapwing_build_info{version="v1"} 1`, "process_resident_memory_bytes", "go_goroutines",
	} {
		if !strings.Contains(w.Body.String(), want+"\n") && !strings.Contains(w.Body.String(), "\n"+want+" ") {
			t.Errorf("no %s", want)
		}
	}
	w = httptest.NewRecorder()
	if e.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/", nil)); w.Code != 405 {
		t.Errorf("POST is answered with %d", w.Code)
	}
}

func BenchmarkInvoked(b *testing.B) {
	e := New("v1")
	u := &meter.Usage{Function: "f", Status: "success", Duration: time.Millisecond, MaxMemoryMB: 64}
	b.ReportAllocs()
	for b.Loop() {
		e.InUse("f", 1)
		e.Invoked(u)
		e.InUse("f", -1)
	}
}
