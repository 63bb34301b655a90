package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// report is all that a run has measured.
type report struct {
	Version  int       `json:"version"` // of this format
	Began    time.Time `json:"began"`
	CPUs     int       `json:"cpus"`
	MemoryMB int       `json:"memoryMB"` // of the functions
	Rows     []row     `json:"rows"`
	Samples  []sample  `json:"samples"`
	Notes    []string  `json:"notes"` // figures that have neither floor nor aim
	Absent   []string  `json:"absent"`
}

// row is one line of the table.
type row struct {
	Measure string  `json:"measure"`
	Floor   string  `json:"floor,omitempty"` // what it is compared with, and its value
	Value   string  `json:"value"`
	Ratio   float64 `json:"ratio,omitempty"` // or a difference, as Aim says
	Aim     string  `json:"aim,omitempty"`
	Met     *bool   `json:"met,omitempty"` // nil: there is no aim, or nothing to hold to it
}

// sample is a distribution of times.
type sample struct {
	Measure string    `json:"measure"` // those that belong side by side have the same
	Who     string    `json:"who"`
	Kind    kind      `json:"kind"`
	N       int       `json:"n"`
	PerSec  float64   `json:"perSecond,omitempty"` // throughput, where that was measured
	MS      quantiles `json:"ms"`
	// Curve holds the times in ms at 0, 0.5, 1 … 100 % of the distribution.
	Curve []float64 `json:"curve"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// kind says what a sample is of.
type kind string

const (
	floorKind kind = "floor"
	peerKind  kind = "peer"
	ownKind   kind = "lapwing"
	firstKind kind = "lapwing, first start"
)

// What is measured in samples.
const (
	warmLatency = "warm invocation, concurrency 1"
	warmLoad    = "warm invocation, concurrency 32"
	startTimes  = "start, from request to reply"
	burstTimes  = "simultaneous requests of a function that does not run"
)

// sample adds a distribution.
func (r *report) sample(measure, who string, k kind, l *load) {
	s := sample{Measure: measure, Who: who, Kind: k, N: len(l.latencies)}
	if measure == warmLatency || measure == warmLoad {
		s.PerSec = l.throughput()
	}
	s.MS = quantiles{ms(l.percentile(.5)), ms(l.percentile(.9)), ms(l.percentile(.99)), ms(l.percentile(1))}
	for i := range 201 {
		s.Curve = append(s.Curve, ms(l.percentile(float64(i)/200)))
	}
	r.Samples = append(r.Samples, s)
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *report) absent(format string, args ...any) {
	r.Absent = append(r.Absent, fmt.Sprintf(format, args...))
}

// atMost adds a row whose value, in units of a floor, should be at most aim.
func (r *report) atMost(measure, floorName string, floor, value time.Duration, aim float64) {
	ratio := float64(value) / float64(floor)
	met := ratio <= aim
	r.Rows = append(r.Rows, row{measure, floorName + " " + short(floor), short(value), ratio, fmt.Sprintf("<= %.2f x", aim), &met})
}

// atMostMore is atMost for an aim that is a difference.
func (r *report) atMostMore(measure, floorName string, floor, value, aim time.Duration) {
	met := value-floor <= aim
	r.Rows = append(r.Rows, row{measure, floorName + " " + short(floor), short(value), float64(value) / float64(floor), "<= " + short(aim) + " more", &met})
}

// beside adds a row that has no aim.
func (r *report) beside(measure, floorName string, floor, value time.Duration) {
	r.Rows = append(r.Rows, row{Measure: measure, Floor: floorName + " " + short(floor), Value: short(value), Ratio: float64(value) / float64(floor)})
}

// memory adds a row for an amount of memory in MiB; without a floor the aim is
// one, too.
func (r *report) memory(measure, floorName string, floor, value, aim float64, aimText string) {
	ratio, compared := 0.0, value
	if floor > 0 {
		ratio = value / floor
		compared = ratio
	}
	met := compared <= aim
	r.Rows = append(r.Rows, row{measure, floorName, fmt.Sprintf("%.1f MiB", value), ratio, aimText, &met})
}

// missing adds a row for what could not be measured.
func (r *report) missing(measure, why, aim string) {
	r.Rows = append(r.Rows, row{Measure: measure, Value: why, Aim: aim})
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

func fromMS(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", ms(d))
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", ms(d))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-64s %-26s %-12s %7s  %-14s\n", "MEASURE", "FLOOR", "LAPWING", "RATIO", "AIM")
	for _, row := range r.Rows {
		ratio, verdict := "", ""
		if row.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f", row.Ratio)
		}
		if row.Met != nil {
			verdict = "met"
			if !*row.Met {
				verdict = "MISSED"
			}
		}
		fmt.Fprintf(w, "%-64s %-26s %-12s %7s  %-14s %s\n", row.Measure, row.Floor, row.Value, ratio, row.Aim, verdict)
	}
	var measures []string
	for _, s := range r.Samples {
		if !slices.Contains(measures, s.Measure) {
			measures = append(measures, s.Measure)
		}
	}
	for _, m := range measures {
		fmt.Fprintf(w, "\n%-62s %8s %10s %10s %10s %10s %10s\n", m, "N", "P50 ms", "P90 ms", "P99 ms", "MAX ms", "A SECOND")
		for _, s := range r.Samples {
			if s.Measure != m {
				continue
			}
			rate := ""
			if s.PerSec > 0 {
				rate = fmt.Sprintf("%.0f", s.PerSec)
			}
			fmt.Fprintf(w, "  %-60s %8d %10.2f %10.2f %10.2f %10.2f %10s\n", s.Who, s.N, s.MS.P50, s.MS.P90, s.MS.P99, s.MS.Max, rate)
		}
	}
	fmt.Fprintln(w)
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	for _, a := range r.Absent {
		fmt.Fprintln(w, "absent:", a)
	}
}
