package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/usage"
)

// usageGroup is the usage of a function or a day.
type usageGroup struct {
	Group     string  `json:"group"`
	Requests  int64   `json:"requests"`
	BilledMs  int64   `json:"billed_ms"`
	GBSeconds float64 `json:"gb_seconds"`
	CostUSD   float64 `json:"cost_usd"`
}

func (g *usageGroup) add(q meter.Quantities, cost float64) {
	g.Requests += q.Requests
	g.BilledMs += q.BilledMs
	g.GBSeconds += q.GBSeconds()
	g.CostUSD += cost
}

// usageReport is what `lapwing usage --json` prints.
type usageReport struct {
	Prices string       `json:"prices"` // where they are from
	Groups []usageGroup `json:"groups"`
	Total  usageGroup   `json:"total"`
}

func usageCommand(data *string) *cobra.Command {
	var by, prices string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show what was used and what AWS would bill for it",
		Long: `Show the invocations, their billed duration and what AWS would bill for them, by
function or by day (UTC). It adds up to what the REPORT lines in the functions'
logs say. It works whether or not Lapwing runs.

Prices are in prices.json in the data directory: AWS's public list for us-east-1,
without the free tier, unless you edit it. A month's tiers are filled in the
order of days.`,
		Example: `  sudo lapwing usage
  sudo lapwing usage --by day --json
  sudo lapwing usage --prices eu-central-1.json`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := map[string]func(*usage.Row) string{
				"function": func(r *usage.Row) string { return r.Function },
				"day":      func(r *usage.Row) string { return r.Day },
			}[by]
			if name == nil {
				return usageError{fmt.Errorf("--by %q: want function or day", by)}
			}
			p, err := usagePrices(*data, prices)
			if err != nil {
				return err
			}
			rows, err := usage.Read(filepath.Join(*data, usageDir))
			if err != nil {
				return err
			}
			report := sumUsage(rows, p, name)
			if asJSON {
				return printJSON(cmd, report)
			}
			if len(rows) == 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "Nothing was used yet in %s.\n", *data)
				return nil
			}
			return report.print(cmd.OutOrStdout(), by)
		},
	}
	f := cmd.Flags()
	f.StringVar(&by, "by", "function", "group by `function` or day")
	f.BoolVar(&asJSON, "json", false, "print JSON: prices, groups, total")
	f.StringVar(&prices, "prices", "", "`FILE` of prices to use instead of the data directory's")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"function", "day"}, cobra.ShellCompDirectiveNoFileComp)) // fails for unknown flags only
	return cmd
}

// usagePrices reads the prices of a file, or else of the data directory.
func usagePrices(data, file string) (meter.Prices, error) {
	if file != "" {
		return meter.ReadPrices(file)
	}
	p, err := meter.ReadPrices(filepath.Join(data, pricesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return meter.DefaultPrices(), nil // no server has been started there
	}
	return p, err
}

// sumUsage adds rows up by name. They are in the order of days.
func sumUsage(rows []usage.Row, p meter.Prices, name func(*usage.Row) string) usageReport {
	report := usageReport{Prices: p.Source, Groups: []usageGroup{}, Total: usageGroup{Group: "total"}}
	groups := map[string]*usageGroup{}
	var month *meter.Month
	for i := range rows {
		r := &rows[i]
		if i == 0 || r.Month() != rows[i-1].Month() {
			month = p.Month()
		}
		cost := month.Add(r.Architecture, r.Quantities)
		g := groups[name(r)]
		if g == nil {
			g = &usageGroup{Group: name(r)}
			groups[g.Group] = g
		}
		g.add(r.Quantities, cost)
		report.Total.add(r.Quantities, cost)
	}
	for _, g := range groups {
		report.Groups = append(report.Groups, *g)
	}
	slices.SortFunc(report.Groups, func(a, b usageGroup) int { return strings.Compare(a.Group, b.Group) })
	return report
}

func (r *usageReport) print(out io.Writer, by string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tREQUESTS\tBILLED MS\tGB-SECONDS\tCOST USD\t\n", strings.ToUpper(by))
	for _, g := range append(r.Groups, r.Total) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t%.8f\t\n", g.Group, g.Requests, g.BilledMs, g.GBSeconds, g.CostUSD)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nPrices: %s. What AWS adds or takes off per account (free tier, taxes) is not in it.\n", r.Prices)
	return err
}
