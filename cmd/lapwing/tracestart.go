package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	lambdaclient "github.com/aws/aws-sdk-go-v2/service/lambda"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/spf13/cobra"

	"lapwing.dev/lapwing/internal/service/lambda"
)

func traceStartCommand(data *string) *cobra.Command {
	var payload string
	var starts int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "trace-start FUNCTION[:QUALIFIER]",
		Short: "Show where the time of a start goes",
		Long: `Invoke a function in an execution environment that is started for it, and print
every step from the request to the reply: when it began and what it took. The
environment ends with the invocation. FUNCTION is a name or an ARN.

A step that is indented is a part of the one above. docs/performance.md says
what each of them is.`,
		Example: `  lapwing trace-start hello
  lapwing trace-start hello:prod --payload '{"name":"Ada"}' -n 10
  lapwing trace-start hello --json`,
		Args:              exactArgs("FUNCTION"),
		ValidArgsFunction: completeFunction(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			if starts < 1 {
				return usageError{errors.New("-n must be at least 1")}
			}
			event, err := readPayload(payload, cmd.InOrStdin())
			if err != nil {
				return err
			}
			cfg, err := client(*data)
			if err != nil {
				return err
			}
			c := lambdaclient.NewFromConfig(cfg)
			var all []startMap
			for range starts {
				m, err := traceStart(cmd.Context(), c, args[0], event)
				if err != nil {
					return explain(err, *data, "`lapwing functions` lists the functions.")
				}
				all = append(all, m)
			}
			m := medianStart(all)
			if asJSON {
				return printJSON(cmd, m)
			}
			return m.print(cmd.OutOrStdout(), args[0])
		},
	}
	cmd.Flags().StringVarP(&payload, "payload", "p", "{}", "the event: JSON, @FILE, or - for standard input")
	cmd.Flags().IntVarP(&starts, "starts", "n", 1, "start `N` environments one after the other and print medians")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the steps as JSON, in nanoseconds")
	return cmd
}

// startMap is what one start consisted of, or the medians of several. Times are
// from the request's leaving on.
type startMap struct {
	Starts int           `json:"starts"`
	Total  time.Duration `json:"total"` // ns
	Steps  []lambda.Step `json:"steps"`
}

// traceStart makes one start. The server runs on this host, so its clock is ours.
func traceStart(ctx context.Context, c *lambdaclient.Client, function string, event []byte) (startMap, error) {
	began := time.Now()
	out, err := c.Invoke(ctx, &lambdaclient.InvokeInput{FunctionName: &function, Payload: event}, func(o *lambdaclient.Options) {
		o.APIOptions = append(o.APIOptions, smithyhttp.AddHeaderValue(lambda.StartHeader, "1"))
	})
	if err != nil {
		return startMap{}, err
	}
	ended := time.Now()
	if out.FunctionError != nil {
		return startMap{}, fmt.Errorf("the function failed: %s", out.Payload)
	}
	var header http.Header
	if raw, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok {
		header = raw.Header
	}
	var t lambda.StartTrace
	if err := json.Unmarshal([]byte(header.Get(lambda.StartHeader)), &t); err != nil {
		return startMap{}, fmt.Errorf("the server did not tell the steps of the start; is it of this version? %w", err)
	}
	arrived := t.Arrived.Sub(began)
	m := startMap{Starts: 1, Total: ended.Sub(began), Steps: []lambda.Step{{Name: "request", Took: arrived}}}
	var replied time.Duration // the end of what the server did
	for _, s := range t.Steps {
		s.Began += arrived
		replied = max(replied, s.Began+s.Took)
		m.Steps = append(m.Steps, s)
	}
	m.Steps = append(m.Steps, lambda.Step{Name: "reply", Began: replied, Took: m.Total - replied})
	return m, nil
}

// medianStart returns the median of each time. A step that some of the starts
// did not have counts where it was.
func medianStart(all []startMap) startMap {
	began, took := map[string][]time.Duration{}, map[string][]time.Duration{}
	var totals []time.Duration
	for _, m := range all {
		totals = append(totals, m.Total)
		for _, s := range m.Steps {
			began[s.Name] = append(began[s.Name], s.Began)
			took[s.Name] = append(took[s.Name], s.Took)
		}
	}
	m := startMap{Starts: len(all), Total: median(totals)}
	for name := range began {
		m.Steps = append(m.Steps, lambda.Step{Name: name, Began: median(began[name]), Took: median(took[name])})
	}
	slices.SortFunc(m.Steps, func(a, b lambda.Step) int {
		return cmp.Or(cmp.Compare(a.Began, b.Began), strings.Compare(a.Name, b.Name))
	})
	m.Steps = parts(m.Steps, ".")
	return m
}

// parts returns the steps that are parts of one, each followed by its own; the
// parent of those that are part of none is ".".
func parts(steps []lambda.Step, of string) (ordered []lambda.Step) {
	for _, s := range steps {
		if path.Dir(s.Name) == of {
			ordered = append(append(ordered, s), parts(steps, s.Name)...)
		}
	}
	return ordered
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// barWidth is how many characters wide the whole of a start is.
const barWidth = 40

func (m startMap) print(out io.Writer, function string) error {
	of := ""
	if m.Starts > 1 {
		of = fmt.Sprintf(" (medians of %d starts)", m.Starts)
	}
	column := func(d time.Duration) int { return int(int64(max(d, 0)) * barWidth / int64(m.Total+1)) }
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s from request to reply%s\n\n%-24s %11s %11s\n", function, millis(m.Total), of, "STEP", "BEGAN", "TOOK")
	for _, s := range m.Steps {
		name := strings.Repeat("  ", strings.Count(s.Name, "/")) + path.Base(s.Name)
		from, to := column(s.Began), column(s.Began+s.Took)
		fmt.Fprintf(&b, "%-24s %11s %11s  %s%s\n", name, millis(s.Began), millis(s.Took), strings.Repeat(" ", from), strings.Repeat("█", max(to-from, 1)))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }
