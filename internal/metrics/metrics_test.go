package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"lapwing.dev/lapwing/internal/killtest"
)

func TestMain(m *testing.M) { killtest.Main(m, putUntilKilled) }

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

var (
	noon   = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	metric = NewMetric("N", "m", Dimension{"b", "2"}, Dimension{"a", "1"})
)

func query(t *testing.T, s *Store, m Metric, period time.Duration) []Bucket {
	t.Helper()
	all, err := s.Query(Query{Metric: m, Start: noon.Add(-time.Hour), End: noon.Add(time.Hour), Period: period})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stat evaluates a statistic by its name.
func stat(t *testing.T, s Set, name string) float64 {
	t.Helper()
	st, ok := ParseStatistic(name)
	if !ok {
		t.Fatalf("no statistic %q", name)
	}
	v, ok := st.Of(&s)
	if !ok {
		return math.NaN()
	}
	return v
}

func hundred() (s Set) {
	for i := range 100 {
		s.Merge(Of(Value{float64(100 - i), 1}))
	}
	return s
}

func TestStatisticsOfOneToAHundred(t *testing.T) {
	s := hundred()
	for name, want := range map[string]float64{
		"SampleCount": 100, "Sum": 5050, "Average": 50.5, "Minimum": 1, "Maximum": 100,
		"p50": 50, "p99": 99, "p99.9": 100, "p0": 1, "p100": 100, "p10": 10,
		"tm90": 45.5, "TM(10%:90%)": 50.5, "TM(:10)": 5.5, "TM(91:)": 95.5, "IQM": 50.5,
		"tc90": 90, "TC(10:19)": 10, "ts10": 55, "TS(80%:)": 1810, "PR(:25)": 25, "PR(26:50)": 25,
		"wm90": 49.95, "WM(11:90)": (11*11 + 90*11 + 50.5*78) / 100,
	} {
		if got := stat(t, s, name); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestNamesThatAreNoStatistic(t *testing.T) {
	for _, name := range []string{"", "sum", "p", "p101", "p-1", "P50", "TM(:)", "TM(5%:3)", "TM(90%:10%)", "PR(1%:2%)", "tm90%", "XX(1:2)", "TM(1:101%)"} {
		if _, ok := ParseStatistic(name); ok {
			t.Errorf("%q is taken for a statistic", name)
		}
	}
}

func TestPercentilesNeedKnownValues(t *testing.T) {
	s := Statistics(10, 100, 1, 20)
	if v := stat(t, s, "p50"); !math.IsNaN(v) {
		t.Errorf("p50 of a statistic set is %v", v)
	}
	if v := stat(t, Statistics(10, 50, 5, 5), "p50"); v != 5 {
		t.Errorf("p50 of ten fives is %v", v)
	}
	s.Merge(Of(Value{3, 1}))
	if v := stat(t, s, "p50"); !math.IsNaN(v) || s.Count != 11 || s.Sum != 103 || s.Max != 20 {
		t.Errorf("merged: %+v", s)
	}
}

func TestManyValuesAreRoundedByHalfAPercent(t *testing.T) {
	var s Set
	for i := 1; i <= 200_000; i += 1000 {
		var values []Value
		for v := i; v < i+1000; v++ {
			values = append(values, Value{float64(v) / 100, 1})
		}
		s.Merge(Of(values...))
	}
	if len(s.Values) > maxValues+1000 || s.Count != 200_000 || s.Min != 0.01 || s.Max != 2000 {
		t.Errorf("%d values, %+v", len(s.Values), Set{Count: s.Count, Min: s.Min, Max: s.Max})
	}
	for name, want := range map[string]float64{"p50": 1000, "p90": 1800, "p99.9": 1998} {
		if got := stat(t, s, name); math.Abs(got-want) > 0.006*want {
			t.Errorf("%s is %v, want about %v", name, got, want)
		}
	}
}

func TestDataAreAddedInAnyOrderAndKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, at := range []time.Duration{90 * time.Second, 0, 30 * time.Second, -time.Minute} {
		if err := s.Put(t.Context(), []Datum{{Metric: metric, Unit: "Count", Time: noon.Add(at), Set: Of(Value{2, 3})}}); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	s = open(t, dir)
	defer closeStore(t, s)
	var got []string
	for _, b := range query(t, s, metric, time.Minute) {
		got = append(got, fmt.Sprint(b.Time.Sub(noon), b.Unit, b.Set.Count, b.Set.Sum))
	}
	if want := "[-1m0sCount3 6 0sCount6 12 1m0sCount3 6]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if all := query(t, s, metric, time.Hour); len(all) != 2 || all[1].Set.Count != 9 {
		t.Errorf("by the hour: %+v", all)
	}
	if all := query(t, s, NewMetric("N", "m"), time.Hour); len(all) != 0 {
		t.Errorf("a metric without dimensions is another one: %+v", all)
	}
}

func TestSecondsAreKeptWhereAsked(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	for i := range 3 {
		d := Datum{Metric: metric, Time: noon.Add(time.Duration(i) * time.Second), Fine: true, Set: Of(Value{1, 1})}
		if err := s.Put(t.Context(), []Datum{d}); err != nil {
			t.Fatal(err)
		}
	}
	if all := query(t, s, metric, time.Second); len(all) != 3 {
		t.Errorf("by the second: %+v", all)
	}
}

func TestSeriesCollectUntilTheyAreRead(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	one := s.Series(metric, "Count")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 3000 {
				s.Series(metric, "Count").Add(noon.Add(time.Duration(i%2)*time.Minute), 1)
			}
		})
	}
	wg.Wait()
	all := query(t, s, metric, time.Minute)
	if len(all) != 2 || all[0].Set.Sum != 6000 || all[1].Set.Sum != 6000 {
		t.Errorf("got %+v", all)
	}
	one.Add(noon, 5)
	if all := query(t, s, metric, time.Minute); all[0].Set.Sum != 6005 || all[0].Set.Max != 5 {
		t.Errorf("with more: %+v", all)
	}
}

func TestMetricsAreListed(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	for _, d := range []Datum{
		{Metric: NewMetric("N", "b"), Unit: "Count"}, {Metric: NewMetric("N", "a"), Unit: "Count"}, {Metric: metric, Unit: "Count"},
		{Metric: metric, Unit: "Bytes"}, {Metric: NewMetric("NN", "a")},
	} {
		d.Time, d.Set = noon, Of(Value{1, 1})
		if err := s.Put(t.Context(), []Datum{d}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(namespace string) (names []string) {
		if err := s.List(namespace, func(l Listed) bool {
			names = append(names, fmt.Sprint(l.Namespace, l.Name, l.Dimensions))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return names
	}
	if got := fmt.Sprint(list("N")); got != "[Na[] Nb[] Nm[{a 1} {b 2}]]" {
		t.Errorf("of N: %s", got)
	}
	if got := list(""); len(got) != 4 {
		t.Errorf("all: %v", got)
	}
}

func TestOldDataBecomeCoarserAndGo(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	var data []Datum
	for i := range 7200 {
		data = append(data, Datum{Metric: metric, Time: noon.Add(time.Duration(i) * time.Second), Fine: true, Set: Of(Value{1, 1})})
	}
	if err := s.Put(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 7200}, {6 * time.Hour, 120}, {16 * dayLength, 24}, {64 * dayLength, 2}, {456 * dayLength, 0}} {
		if err := s.roll(noon.Add(step.after)); err != nil {
			t.Fatal(err)
		}
		all, err := s.Query(Query{Metric: metric, Start: noon, End: noon.Add(3 * time.Hour), Period: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, b := range all {
			sum += b.Set.Sum
		}
		if len(all) != step.want || step.want > 0 && sum != 7200 {
			t.Errorf("after %v: %d points with a sum of %v, want %d", step.after, len(all), sum, step.want)
		}
	}
	if err := s.List("", func(l Listed) bool { t.Errorf("%v is listed without data", l); return true }); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeWrittenWaits(t *testing.T) {
	s := open(t, t.TempDir())
	one := s.Series(metric, "Count")
	one.Add(noon, 1)
	db := s.db
	broken, err := bolt.Open(t.TempDir()+"/x", 0o600, nil) // has no buckets, and is closed
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	s.db = broken
	if err := s.flush(); err == nil {
		t.Error("flushed to a database that is closed")
	}
	if err := s.Put(t.Context(), []Datum{{Metric: metric, Time: noon, Set: Of(Value{1, 1})}}); err == nil {
		t.Error("put to a database that is closed")
	}
	one.Add(noon, 1)
	s.db = db
	if all := query(t, s, metric, time.Minute); len(all) != 1 || all[0].Set.Sum != 2 {
		t.Errorf("got %+v", all)
	}
	closeStore(t, s)
}

func TestOtherFormatsAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(versionKey, []byte{9}) }); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a store of another format is opened")
	}
	for _, b := range [][]byte{{}, {2}, make([]byte, 40)} {
		if _, err := decodeSet(b); err == nil {
			t.Errorf("a set is made of %v", b)
		}
	}
}

// putUntilKilled puts ones and prints how many were acknowledged.
func putUntilKilled(dir string) error {
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	acked := 0
	errs := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				at := noon.Add(time.Duration((i*7919+w)%1800-900) * time.Second) // in no order
				if err := s.Put(context.Background(), []Datum{{Metric: metric, Time: at, Set: Of(Value{float64(i % 10), 1})}}); err != nil {
					errs <- err
					return
				}
				mu.Lock()
				acked++
				fmt.Println(acked)
				mu.Unlock()
			}
		}()
	}
	return <-errs
}

func TestKillLosesNothingThatPutAcknowledged(t *testing.T) {
	dir := t.TempDir()
	before := 0
	for round := range 5 {
		p, acked := killtest.Start(t, dir), 0
		for line := range p.Lines() {
			if _, err := fmt.Sscan(line, &acked); err != nil {
				t.Fatal(err)
			}
			if acked == 40+17*round {
				p.Kill()
			}
		}
		p.Wait()
		s := open(t, dir)
		count := 0.0
		for _, b := range query(t, s, metric, time.Minute) {
			count += b.Set.Count
		}
		closeStore(t, s)
		// Each of the four may have had one that was kept and not told.
		if n := int(count) - before; n < acked || n > acked+8 {
			t.Errorf("round %d: %d kept of %d acknowledged", round, n, acked)
		}
		before = int(count)
	}
}

func openBench(b *testing.B) *Store {
	s, err := Open(b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func BenchmarkAdd(b *testing.B) {
	one := openBench(b).Series(metric, "Count")
	for b.Loop() {
		one.Add(noon, 1)
	}
}
