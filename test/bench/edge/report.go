package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is all that a run has measured.
type report struct {
	Version int        `json:"version"` // of this format
	Began   time.Time  `json:"began"`
	CPUs    int        `json:"cpus"`
	Hits    []hitRow   `json:"hits"`
	Storms  []stormRow `json:"storms"`
	Rules   []ruleRow  `json:"rules"`
	Absent  []string   `json:"absent"`

	ruleServers []string
}

type hitRow struct {
	Protocol string `json:"protocol"`
	Size     int    `json:"size"`
	Server   string `json:"server"`
	load
}

type stormRow struct {
	Kind   string `json:"kind"`
	Server string `json:"server"`
	storm
}

// ruleRow is what came of a rule, by server: yes or no.
type ruleRow struct {
	Group    string            `json:"group"`
	Name     string            `json:"name"`
	Optional bool              `json:"optional,omitempty"`
	Results  map[string]string `json:"results"`
}

// writeRules writes the table of the rules.
func (r *report) writeRules(w io.Writer) {
	fmt.Fprintf(w, "| Rule | %s |\n|---|%s\n", strings.Join(r.ruleServers, " | "), strings.Repeat("---|", len(r.ruleServers)))
	for _, row := range r.Rules {
		name := row.Group + ": " + row.Name
		if row.Optional {
			name += " (optional)"
		}
		fmt.Fprintf(w, "| %s |", name)
		for _, s := range r.ruleServers {
			fmt.Fprintf(w, " %s |", row.Results[s])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "| **kept** |")
	for _, s := range r.ruleServers {
		kept := 0
		for _, row := range r.Rules {
			if row.Results[s] == "yes" {
				kept++
			}
		}
		fmt.Fprintf(w, " %d of %d |", kept, len(r.Rules))
	}
	fmt.Fprintln(w)
}

// names are the servers of a result, Lapwing first and then as they are listed.
func names[T any](results map[string]T) []string {
	var all []string
	if _, ok := results[own]; ok {
		all = append(all, own)
	}
	for _, p := range peers {
		if _, ok := results[p.name]; ok {
			all = append(all, p.name)
		}
	}
	return all
}

// hits takes the medians of the rounds.
func (r *report) hits(protocol string, size int, results map[string][]load) {
	for _, name := range names(results) {
		loads := results[name]
		r.Hits = append(r.Hits, hitRow{protocol, size, name, load{
			median(loads, func(l load) float64 { return l.PerSecond }),
			time.Duration(median(loads, func(l load) float64 { return float64(l.P99) })),
			time.Duration(median(loads, func(l load) float64 { return float64(l.CPU) })),
		}})
	}
}

func (r *report) storm(kind string, results map[string]storm) {
	for _, name := range names(results) {
		r.Storms = append(r.Storms, stormRow{kind, name, results[name]})
	}
}

func median(loads []load, of func(load) float64) float64 {
	var all []float64
	for _, l := range loads {
		all = append(all, of(l))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// print shows what was measured, and each peer's figures as ratios to Lapwing's:
// what is over 1 is for Lapwing, of requests per second and of costs alike.
func (r *report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	if len(r.Hits) > 0 {
		fmt.Fprintln(t, "hits\tserver\trequests/s\tp99\tCPU a request\tLapwing's throughput\tCPU beside it")
	}
	for i, h := range r.Hits {
		first := i
		for r.Hits[first].Server != own && first > 0 {
			first--
		}
		l := r.Hits[first]
		throughput, cost := "", ""
		if h.Server != own {
			throughput = fmt.Sprintf("%.2fx", l.PerSecond/h.PerSecond)
			cost = fmt.Sprintf("%.2fx", float64(h.CPU)/float64(l.CPU))
		}
		fmt.Fprintf(t, "%s, %d KB\t%s\t%.0f\t%v\t%v\t%s\t%s\n", h.Protocol, h.Size>>10, h.Server, h.PerSecond, h.P99.Round(10*time.Microsecond), h.CPU.Round(100*time.Nanosecond), throughput, cost)
	}
	for i, s := range r.Storms {
		if i == 0 {
			fmt.Fprintf(t, "\nstorms of %d viewers\tserver\tuntil all have it\trequests to the origin\n", viewers)
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%d\n", s.Kind, s.Server, s.All.Round(time.Millisecond), s.Origin)
	}
	t.Flush()
	if len(r.Rules) > 0 {
		r.writeRules(w)
	}
	for _, a := range r.Absent {
		fmt.Fprintf(w, "absent: %s\n", a)
	}
}
