package location

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/metrics"
)

// requests is what a location counts of so many requests in a minute.
func requests(n, minute int) []metrics.Datum {
	return []metrics.Datum{{
		Metric: metrics.NewMetric(metrics.CloudFrontNamespace, "Requests", metrics.Dimension{Name: "DistributionId", Value: "E1"}, metrics.Dimension{Name: "Region", Value: "Global"}),
		Unit:   "None", Time: time.Unix(int64(minute)*60+7, 0), Set: metrics.Statistics(float64(n), float64(n), 1, 1),
	}}
}

func TestMetricsReachTheCoreEachOnce(t *testing.T) {
	c := newCore(t)
	dir := t.TempDir()
	n := startNode(t, dir, c.address, c.token("L1"))
	flush := func() error { return n.counts.flush(t.Context(), n.sendCounts) }
	n.Collect(requests(3, 1))
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	if got := c.total(); got != 3 {
		t.Errorf("the core has %v requests, want 3", got)
	}
	// An answer that is lost: the core has the data, and the location does not know.
	c.lose = 2
	n.Collect(requests(4, 1))
	if flush() == nil {
		t.Error("the answer was not lost")
	}
	n.Collect(requests(5, 2))
	if flush() == nil {
		t.Error("the answer was not lost")
	}
	n.stop()
	n = startNode(t, dir, "", "")
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	if got := c.total(); got != 12 {
		t.Errorf("the core has %v requests, want 12", got)
	}
	// What the core refuses does not hold up the rest.
	alien := requests(1, 3)
	alien[0].Namespace = "AWS/Lambda"
	n.Collect(alien)
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	n.Collect(requests(1, 3))
	if err := flush(); err != nil || c.total() != 13 {
		t.Errorf("the core has %v requests, want 13 (%v)", c.total(), err)
	}
}

func TestMetricsThatWaitAreBoundedAndMerged(t *testing.T) {
	c, err := openCounts(filepath.Join(t.TempDir(), countsFile), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.collect(requests(2, 5))
	}
	if n := len(c.kept.Waiting); n != 1 || c.kept.Waiting[0].Set.Sum != 6 {
		t.Errorf("%d data wait, the first of %+v", n, c.kept.Waiting[0].Set)
	}
	var many []metrics.Datum
	for minute := range maxCounted {
		many = append(many, requests(1, minute+6)...)
	}
	c.kept.Waiting = append(c.kept.Waiting, many[1:]...)
	c.collect(many[:1])
	if n := len(c.kept.Waiting); n != maxCounted || c.kept.Waiting[0].Set.Sum != 1 {
		t.Errorf("%d data wait; the oldest is of %v requests", n, c.kept.Waiting[0].Set.Sum)
	}
	calls := 0
	err = c.flush(t.Context(), func(_ context.Context, r countsRequest) error {
		if calls++; len(r.Data) > maxCounts || r.Sequence != uint64(calls) {
			t.Errorf("call %d has %d data and number %d", calls, len(r.Data), r.Sequence)
		}
		return nil
	})
	if err != nil || calls != maxCounted/maxCounts {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestMetricsOnTheDiskAreThoseThatWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), countsFile)
	c, err := openCounts(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.collect(requests(2, 5))
	away := errors.New("the core is away")
	if err := c.flush(t.Context(), func(context.Context, countsRequest) error { return away }); !errors.Is(err, away) {
		t.Errorf("error %v", err)
	}
	c.collect(requests(3, 5)) // killed before it is written
	again, err := openCounts(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if r := again.kept.Request; r.ID != c.kept.Request.ID || r.Sequence != 1 || len(r.Data) != 1 || r.Data[0].Set.Sum != 2 {
		t.Errorf("after a restart %+v", r)
	}
}
