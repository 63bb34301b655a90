package meter

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func TestBilledDurationIsRoundedUpAsInPublishedReports(t *testing.T) {
	for _, tt := range []struct {
		duration, init time.Duration
		want           int64
	}{
		{micros(5_622_492), micros(698_806), 6322},
		{micros(2_251_860), micros(861_710), 3114},
		{micros(133_610), micros(80_000), 214},
		{micros(3_016_780), micros(84_000), 3101},
		{micros(79_670), 0, 80},
		{micros(80_000), 0, 80},
		{time.Nanosecond, 0, 1},
		{0, 0, 0},
	} {
		u := Usage{Duration: tt.duration, Init: tt.init}
		if got := u.BilledMs(); got != tt.want {
			t.Errorf("%v and Init %v: billed %d ms, want %d", tt.duration, tt.init, got, tt.want)
		}
	}
}

func TestQuantitiesHaveOnlyWhatIsBilled(t *testing.T) {
	second := time.Second
	for name, tt := range map[string]struct {
		usage Usage
		want  Quantities
	}{
		"on demand": {
			Usage{MemoryMB: 1024, EphemeralMB: 512, Duration: second, Status: "success"},
			Quantities{Requests: 1, BilledMs: 1000, OnDemandMBMs: 1024_000, DurationMicros: 1e6},
		},
		"cold, failed, large /tmp": {
			Usage{MemoryMB: 128, EphemeralMB: 1536, Duration: second, Init: second, Status: "error"},
			Quantities{Requests: 1, BilledMs: 2000, OnDemandMBMs: 256_000, EphemeralMBMs: 2048_000, ColdStarts: 1, Errors: 1, DurationMicros: 1e6},
		},
		"provisioned": {
			Usage{MemoryMB: 128, EphemeralMB: 512, Duration: second, Provisioned: true},
			Quantities{Requests: 1, BilledMs: 1000, ProvisionedMBMs: 128_000, DurationMicros: 1e6},
		},
		"short stream": {Usage{StreamedBytes: IncludedStreamBytes}, Quantities{Requests: 1}},
		"long stream":  {Usage{StreamedBytes: IncludedStreamBytes + 5}, Quantities{Requests: 1, StreamedBytes: 5}},
	} {
		if got := tt.usage.Quantities(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestProvisionedTimeIsRoundedUpToFiveMinutesAtItsEnd(t *testing.T) {
	began := time.Unix(1000, 0)
	a := Allocation{MemoryMB: 1024, Environments: 2, From: began.Add(time.Minute), To: began.Add(6 * time.Minute)}
	if got := a.Quantities(began, false).AllocatedMBMs; got != 2*1024*300_000 {
		t.Errorf("under way: %d", got)
	}
	if got := a.Quantities(began, true).AllocatedMBMs; got != 2*1024*540_000 {
		t.Errorf("at the end: %d, want the 5 minutes and the 4 that are missing in 10", got)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }

// gbs is so many GB-seconds in MB·ms.
func gbs(n float64) int64 { return int64(n * 1024 * 1000) }

func TestDurationHasTieredPrices(t *testing.T) {
	m := DefaultPrices().Month()
	first := m.Add("x86_64", Quantities{OnDemandMBMs: gbs(5e9)})
	if want := 5e9 * 0.0000166667; !near(first, want) {
		t.Errorf("within the first tier: %v, want %v", first, want)
	}
	second := m.Add("x86_64", Quantities{OnDemandMBMs: gbs(12e9)})
	if want := 1e9*0.0000166667 + 9e9*0.0000150000 + 2e9*0.0000133334; !near(second, want) {
		t.Errorf("through all tiers: %v, want %v", second, want)
	}
	if arm, want := m.Add("arm64", Quantities{OnDemandMBMs: gbs(1)}), 0.0000133334; !near(arm, want) {
		t.Errorf("arm64 has its own tiers: %v, want %v", arm, want)
	}
}

func TestOtherPrices(t *testing.T) {
	for name, tt := range map[string]struct {
		q    Quantities
		want float64
	}{
		"requests":             {Quantities{Requests: 3_000_000}, 0.60},
		"ephemeral":            {Quantities{EphemeralMBMs: gbs(1e6)}, 0.0309},
		"streamed":             {Quantities{StreamedBytes: 1 << 30}, 0.008},
		"provisioned duration": {Quantities{ProvisionedMBMs: gbs(1e6)}, 9.7222},
		"allocated":            {Quantities{AllocatedMBMs: gbs(1e6)}, 4.1667},
		"nothing":              {Quantities{}, 0},
	} {
		if got := DefaultPrices().Month().Add("x86_64", tt.q); !near(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestPricesAreWrittenOnceAndReadAsTheyWereEdited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prices.json")
	if err := EnsurePrices(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(b), `"requests_per_million": 0.2`, `"requests_per_million": 7`, 1)
	if err := os.WriteFile(path, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := EnsurePrices(path); err != nil {
		t.Fatal(err)
	}
	p, err := ReadPrices(path)
	if err != nil || p.RequestsPerMillion != 7 {
		t.Errorf("got %v, %v", p.RequestsPerMillion, err)
	}
}

func TestBadPricesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prices.json")
	if err := EnsurePrices(path); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"version": 1`, `"version": 2`, "format version 2"},
		{`"streamed_gb"`, `"streamed_tb"`, "streamed_tb"},
		{`"streamed_gb": 0.008`, `"streamed_gb": -1`, "negative"},
		{`"up_to_gb_seconds": 15000000000`, `"up_to_gb_seconds": 1`, "do not rise"},
		{`"arm64"`, `"arm"`, "no duration price of arm64"},
		{`{`, ``, "prices"},
	} {
		bad := strings.Replace(string(good), tt.old, tt.new, 1)
		if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := EnsurePrices(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s for %s: %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
}

func TestQualifierOfAnARN(t *testing.T) {
	for in, want := range map[string]string{
		"arn:aws:lambda:us-east-1:123456789012:function:f":      "",
		"arn:aws:lambda:us-east-1:123456789012:function:f:prod": "prod",
		"arn:aws:lambda:us-east-1:123456789012:function:f:12":   "12",
		"f": "",
	} {
		if got := Qualifier(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
