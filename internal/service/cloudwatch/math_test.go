package cloudwatch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	client "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
)

// mathInput asks for two metrics, m of three minutes (2, 4, 6) and n of the
// first and the last (1, 0), and for an expression e over them.
func mathInput(t *testing.T, c *client.Client, expression string) *client.GetMetricDataInput {
	t.Helper()
	minute := func(i int) time.Time { return anHourAgo.Add(time.Duration(i) * time.Minute) }
	put(t, c, datum(minute(0), 2), datum(minute(1), 4), datum(minute(2), 6), datum(minute(0), 1, dim("d", "n")), datum(minute(2), 0, dim("d", "n")))
	metric := func(id string, dims ...types.Dimension) types.MetricDataQuery {
		return types.MetricDataQuery{Id: &id, ReturnData: ptr(false), MetricStat: &types.MetricStat{
			Metric: &types.Metric{Namespace: ptr("App"), MetricName: ptr("m"), Dimensions: dims}, Period: ptr(int32(60)), Stat: ptr("Maximum"),
		}}
	}
	return &client.GetMetricDataInput{
		StartTime: &anHourAgo, EndTime: ptr(anHourAgo.Add(time.Hour)), ScanBy: types.ScanByTimestampAscending,
		MetricDataQueries: []types.MetricDataQuery{
			{Id: ptr("e"), Expression: &expression}, metric("m"), metric("n", dim("d", "n")),
			{Id: ptr("double"), Expression: ptr("2 * m"), ReturnData: ptr(false)},
		},
	}
}

func TestExpressionsAreEvaluatedAtEachTime(t *testing.T) {
	c, _ := newClient(t)
	for expression, want := range map[string]string{
		"m":                           "[2 4 6]",
		"m + n":                       "[3 6]", // where both have data
		"m/n":                         "[2]",   // a division by 0 has no data
		"-m + 2*3^2":                  "[16 14 12]",
		"(m - 1) * 10":                "[10 30 50]",
		"12 / m / 2":                  "[3 1.5 1]",
		"100 * n / m":                 "[50 0]",
		"double-m":                    "[2 4 6]",
		"m - AVG(m)":                  "[-2 0 2]",
		"m * 0 + SUM(m)":              "[12 12 12]",
		"SUM(METRICS())":              "[3 4 6]",
		"AVG(METRICS())":              "[1.5 2 3]", // of both, also where one lacks data
		"MIN(METRICS())":              "[1 4 0]",
		"MAX(METRICS()) - m":          "[0 0 0]",
		`SUM(METRICS("n"))`:           "[1 0]",
		"METRICS() * 2":               "[4 8 12] [2 0]",
		"METRICS() - m":               "[0 0 0] [-1 -6]",
		"ABS(n - m)":                  "[1 6]",
		"CEIL(m / 4) + FLOOR( m / 4)": "[1 2 3]",
	} {
		out, err := c.GetMetricData(t.Context(), mathInput(t, c, expression))
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		var got []string
		for _, r := range out.MetricDataResults {
			got = append(got, fmt.Sprint(r.Values))
			if *r.Id != "e" || r.StatusCode != types.StatusCodeComplete {
				t.Errorf("%s: %s is %s", expression, *r.Id, r.StatusCode)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %s, want %s", expression, got, want)
		}
	}
}

func TestExpressionsHaveTheirOwnLabel(t *testing.T) {
	c, _ := newClient(t)
	in := mathInput(t, c, "m / 2")
	for _, label := range []*string{nil, ptr("half")} {
		in.MetricDataQueries[0].Label = label
		out, err := c.GetMetricData(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		want := "e"
		if label != nil {
			want = *label
		}
		if got := *out.MetricDataResults[0].Label; got != want {
			t.Errorf("label %q, want %q", got, want)
		}
	}
}

func TestExpressionsThatCannotBeEvaluatedAreRefused(t *testing.T) {
	c, _ := newClient(t)
	for expression, want := range map[string]string{
		"7":                       "the result is a number",
		"SUM(m)":                  "the result is a number",
		"m +":                     "it ends where",
		"m 1":                     `unexpected "1"`,
		"m % n":                   `unexpected "% n"`,
		"(m":                      "a ) is missing",
		"1.2.3 * m":               "1.2.3 is no number",
		"e + 1":                   "e refers to itself",
		"other":                   "no query of the id other",
		"SUM":                     `unexpected "SUM"`,
		"SUM(m, n)":               "takes one argument",
		"SUM(1)":                  "needs a time series",
		"FILL(m, 0)":              "the function FILL is not supported by Lapwing",
		"METRICS(1)":              "METRICS takes nothing",
		`METRICS("m)`:             `a " is missing`,
		"METRICS() + METRICS()":   "two arrays",
		strings.Repeat("(", 2000): "nested too deeply",
		strings.Repeat("-", 2000): "nested too deeply",
	} {
		_, err := c.GetMetricData(t.Context(), mathInput(t, c, expression))
		refused(t, expression, err, want)
	}
	in := mathInput(t, c, "m")
	in.MetricDataQueries[2].MetricStat.Period = ptr(int32(300))
	_, err := c.GetMetricData(t.Context(), in)
	refused(t, "two periods", err, "Expressions over several periods are not supported")
}
