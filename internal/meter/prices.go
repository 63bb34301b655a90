package meter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// pricesVersion is that of the file format.
const pricesVersion = 1

// Prices is what usage costs, in US dollars. It is read from a file that its
// owner may edit.
type Prices struct {
	Version int    `json:"version"` // of this format
	Source  string `json:"source"`  // where the numbers are from

	RequestsPerMillion float64 `json:"requests_per_million"`
	// Architectures holds the prices by architecture: x86_64, arm64.
	Architectures map[string]Rates `json:"architectures"`
	// EphemeralGBSecond is for /tmp beyond 512 MB.
	EphemeralGBSecond float64 `json:"ephemeral_gb_second"`
	// StreamedGB is for the bytes of a streamed response beyond 6 MB.
	StreamedGB float64 `json:"streamed_gb"`
}

// Rates are the prices of a GB-second.
type Rates struct {
	// Duration is tiered by the GB-seconds of the account in a month.
	Duration []Tier `json:"duration"`
	// ProvisionedDuration is for invocations in provisioned environments.
	ProvisionedDuration float64 `json:"provisioned_duration"`
	// Provisioned is for keeping environments.
	Provisioned float64 `json:"provisioned"`
}

// Tier is a price up to so many GB-seconds a month; the last has no end.
type Tier struct {
	UpToGBSeconds float64 `json:"up_to_gb_seconds,omitempty"`
	GBSecond      float64 `json:"gb_second"`
}

// DefaultPrices returns AWS's public list for us-east-1 (Lambda pricing, August
// 2026). The free tier, which is the account's, is not in it.
func DefaultPrices() Prices {
	return Prices{
		Version: pricesVersion, Source: "AWS Lambda pricing, us-east-1, August 2026",
		RequestsPerMillion: 0.20,
		Architectures: map[string]Rates{
			"x86_64": {
				Duration:            []Tier{{6e9, 0.0000166667}, {15e9, 0.0000150000}, {0, 0.0000133334}},
				ProvisionedDuration: 0.0000097222, Provisioned: 0.0000041667,
			},
			"arm64": {
				Duration:            []Tier{{7.5e9, 0.0000133334}, {18.75e9, 0.0000120001}, {0, 0.0000106667}},
				ProvisionedDuration: 0.0000077778, Provisioned: 0.0000033334,
			},
		},
		EphemeralGBSecond: 0.0000000309,
		StreamedGB:        0.008,
	}
}

// ReadPrices reads a file of prices.
func ReadPrices(path string) (Prices, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Prices{}, fmt.Errorf("prices: %w", err)
	}
	var p Prices
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a misspelt name must not make something free
	if err := d.Decode(&p); err != nil {
		return Prices{}, fmt.Errorf("prices: %s: %w", path, err)
	}
	if err := p.check(); err != nil {
		return Prices{}, fmt.Errorf("prices: %s: %w", path, err)
	}
	return p, nil
}

// EnsurePrices writes the default prices to path unless there is a file, and
// checks the one that is there.
func EnsurePrices(path string) error {
	_, err := ReadPrices(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := json.MarshalIndent(DefaultPrices(), "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("prices: %w", err)
	}
	return os.Rename(tmp, path)
}

func (p *Prices) check() error {
	if p.Version != pricesVersion {
		return fmt.Errorf("format version %d, this program reads %d", p.Version, pricesVersion)
	}
	prices := []float64{p.RequestsPerMillion, p.EphemeralGBSecond, p.StreamedGB}
	for _, arch := range []string{"x86_64", "arm64"} {
		r := p.Architectures[arch]
		if len(r.Duration) == 0 {
			return fmt.Errorf("there is no duration price of %s", arch)
		}
		for i, t := range r.Duration {
			prices = append(prices, t.GBSecond)
			last := i == len(r.Duration)-1
			switch {
			case last && t.UpToGBSeconds != 0:
				return fmt.Errorf("the last tier of %s has an end: its up_to_gb_seconds must be absent", arch)
			case !last && t.UpToGBSeconds <= 0, i > 0 && !last && t.UpToGBSeconds <= r.Duration[i-1].UpToGBSeconds:
				return fmt.Errorf("the tiers of %s do not rise: up_to_gb_seconds of tier %d", arch, i+1)
			}
		}
		prices = append(prices, r.ProvisionedDuration, r.Provisioned)
	}
	for _, v := range prices {
		if v < 0 {
			return fmt.Errorf("a price is negative: %v", v)
		}
	}
	return nil
}

// Month adds up the cost of one month, of which tiered prices depend. Add the
// quantities in the order of time: what comes later is in the later tiers.
type Month struct {
	prices Prices
	used   map[string]float64 // GB-seconds on demand, by architecture
}

// Month returns a Month of which nothing is used yet.
func (p Prices) Month() *Month { return &Month{prices: p, used: map[string]float64{}} }

// Add returns the cost of more usage in US dollars. An architecture without
// prices costs what x86_64 does.
func (m *Month) Add(architecture string, q Quantities) float64 {
	p := m.prices
	rates, ok := p.Architectures[architecture]
	if !ok {
		rates = p.Architectures["x86_64"]
	}
	cost := float64(q.Requests) / 1e6 * p.RequestsPerMillion
	cost += gbSeconds(q.ProvisionedMBMs) * rates.ProvisionedDuration
	cost += gbSeconds(q.AllocatedMBMs) * rates.Provisioned
	cost += gbSeconds(q.EphemeralMBMs) * p.EphemeralGBSecond
	cost += float64(q.StreamedBytes) / (1 << 30) * p.StreamedGB

	from, left := m.used[architecture], gbSeconds(q.OnDemandMBMs)
	m.used[architecture] += left
	for _, t := range rates.Duration {
		part := left
		if t.UpToGBSeconds > 0 {
			part = min(left, max(0, t.UpToGBSeconds-from))
		}
		cost += part * t.GBSecond
		from += part
		left -= part
	}
	return cost
}
