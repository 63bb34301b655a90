package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/rogpeppe/go-internal/testscript"
)

var billedDuration = regexp.MustCompile(`(?m)^REPORT .*\tBilled Duration: (\d+) ms`)

// metered waits until functions had a number of invocations or more and `lapwing
// usage` says the same of them, as JSON, as the REPORT lines of `lapwing logs`.
func metered(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "metered MINIMUM FUNCTION...")
	least, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	output := func(args ...string) string {
		ts.Check(ts.Exec("lapwing", args...))
		return ts.ReadFile("stdout")
	}
	last := ""
	until(ts, "usage that is as the REPORT lines say", func() bool {
		var lines, ms int64
		for _, f := range args[1:] {
			for _, m := range billedDuration.FindAllStringSubmatch(output("logs", f), -1) {
				n, err := strconv.ParseInt(m[1], 10, 64)
				ts.Check(err)
				lines, ms = lines+1, ms+n
			}
		}
		kept := readUsage(ts, output("usage", "--json")).Total
		now := fmt.Sprintf("%d requests and %d ms are kept, the log tells of %d and %d", kept.Requests, kept.BilledMs, lines, ms)
		if now != last {
			ts.Logf("%s", now)
		}
		last = now
		if lines > kept.Requests || ms > kept.BilledMs {
			ts.Fatalf("the log tells of more than was kept")
		}
		return kept.Requests >= least && lines == kept.Requests && ms == kept.BilledMs
	})
}

func readUsage(ts *testscript.TestScript, text string) (r usageReport) {
	ts.Check(json.Unmarshal([]byte(text), &r))
	var sum usageGroup
	for _, g := range r.Groups {
		sum.Requests, sum.BilledMs = sum.Requests+g.Requests, sum.BilledMs+g.BilledMs
	}
	if sum.Requests != r.Total.Requests || sum.BilledMs != r.Total.BilledMs {
		ts.Fatalf("the groups do not add up to the total: %s", text)
	}
	return r
}

// measured waits until a statistic of a metric of Lambda has a value.
func measured(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "measured METRIC STATISTIC VALUE [FUNCTION]")
	metric := &types.Metric{Namespace: aws.String("AWS/Lambda"), MetricName: &args[0]}
	if len(args) > 3 {
		metric.Dimensions = []types.Dimension{{Name: aws.String("FunctionName"), Value: &args[3]}}
	}
	awaitStatistic(ts, metric, args[1], args[2])
}

// embedded waits until the sum of a metric without dimensions has a value.
func embedded(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "embedded NAMESPACE METRIC SUM")
	awaitStatistic(ts, &types.Metric{Namespace: &args[0], MetricName: &args[1]}, "Sum", args[2])
}

func awaitStatistic(ts *testscript.TestScript, metric *types.Metric, statistic, want string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cfg, err := client(ts.MkAbs(ts.Getenv("LAPWING_DATA")))
	ts.Check(err)
	in := &cloudwatch.GetMetricDataInput{
		StartTime: aws.Time(time.Now().Add(-time.Hour)), EndTime: aws.Time(time.Now().Add(time.Hour)),
		MetricDataQueries: []types.MetricDataQuery{{Id: aws.String("m"), MetricStat: &types.MetricStat{Metric: metric, Period: aws.Int32(2 * 3600), Stat: &statistic}}},
	}
	until(ts, fmt.Sprint(*metric.MetricName, " ", statistic, " ", want), func() bool {
		out, err := cloudwatch.NewFromConfig(cfg).GetMetricData(ctx, in)
		ts.Check(err)
		values := out.MetricDataResults[0].Values
		return len(values) == 1 && fmt.Sprint(values[0]) == want
	})
}
