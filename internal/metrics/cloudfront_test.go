package metrics

import (
	"log/slog"
	"testing"
	"time"
)

func TestRequestsOfDistributionsAreCounted(t *testing.T) {
	store, err := Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c := NewCloudFront(store)
	for _, status := range []int{200, 200, 404, 502} {
		detail := "Hit"
		if status == 502 {
			detail = "LambdaValidationError"
		}
		c.Served("E1", status, 1000, 10, detail)
	}
	c.Close()
	for name, want := range map[string]float64{
		"Requests": 4, "BytesDownloaded": 4000, "BytesUploaded": 40, "4xxErrorRate": 100, "5xxErrorRate": 100, "TotalErrorRate": 200, "LambdaValidationError": 1,
	} {
		m := NewMetric("AWS/CloudFront", name, Dimension{"Region", "Global"}, Dimension{"DistributionId", "E1"})
		if got := sumOf(t, store, m); got != want {
			t.Errorf("sum of %s is %v, want %v", name, got, want)
		}
	}
}

// sumOf returns the sum of a metric over the last minutes.
func sumOf(t *testing.T, s *Store, m Metric) (sum float64) {
	t.Helper()
	now := time.Now()
	points, err := s.Query(Query{Metric: m, Start: now.Add(-10 * time.Minute), End: now.Add(time.Minute), Period: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		sum += p.Set.Sum
	}
	return sum
}

func TestDataOfASourceAreKeptOnce(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetric(CloudFrontNamespace, "Requests")
	put := func(source, id string, sequence uint64) {
		t.Helper()
		if err := store.PutOnce(t.Context(), source, id, sequence, []Datum{{Metric: m, Time: time.Now(), Set: Of(Value{1, 1})}}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "x", 1)
	put("a", "x", 1) // again
	put("b", "x", 1)
	put("a", "x", 2)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if store, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	put("a", "x", 2) // again
	put("a", "x", 1) // long ago
	put("a", "y", 1) // another source of that name
	if got := sumOf(t, store, m); got != 4 {
		t.Errorf("the sum is %v, want 4", got)
	}
}
