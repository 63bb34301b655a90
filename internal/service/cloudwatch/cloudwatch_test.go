package cloudwatch_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	client "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudwatch"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/metrics"
	"lapwing.dev/lapwing/internal/service/cloudwatch"
	"lapwing.dev/lapwing/test/servicetest"
)

// newClient returns an SDK client of the service behind a gateway, and the
// store below.
func newClient(t *testing.T) (*client.Client, *metrics.Store) {
	t.Helper()
	store, err := metrics.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := servicetest.New(t).Serve(gateway.Options{Services: []*aws.Service{api.NewService(cloudwatch.New(store, nil))}, Region: "us-east-1"})
	return client.NewFromConfig(cfg), store
}

func ptr[T any](v T) *T { return &v }

// anHourAgo is a whole hour, so that periods of an hour hold what is near it.
var anHourAgo = time.Now().UTC().Add(-time.Hour).Truncate(time.Hour)

func datum(at time.Time, value float64, dims ...types.Dimension) types.MetricDatum {
	return types.MetricDatum{MetricName: ptr("m"), Timestamp: &at, Value: &value, Dimensions: dims}
}

func dim(name, value string) types.Dimension {
	return types.Dimension{Name: &name, Value: &value}
}

func put(t *testing.T, c *client.Client, data ...types.MetricDatum) {
	t.Helper()
	if _, err := c.PutMetricData(t.Context(), &client.PutMetricDataInput{Namespace: ptr("App"), MetricData: data}); err != nil {
		t.Fatal(err)
	}
}

func TestStatisticsAreOfExactlyWhatWasPut(t *testing.T) {
	c, _ := newClient(t)
	latency := types.MetricDatum{
		MetricName: ptr("m"), Timestamp: &anHourAgo, Unit: types.StandardUnitMilliseconds, Dimensions: []types.Dimension{dim("b", "2"), dim("a", "1")},
		Values: []float64{1, 2, 3}, Counts: []float64{90, 9, 1},
	}
	more := latency
	more.Values, more.Counts = nil, nil
	more.Value, more.Timestamp = ptr(10.0), ptr(anHourAgo.Add(61*time.Second))
	put(t, c, latency, more)
	out, err := c.GetMetricStatistics(t.Context(), &client.GetMetricStatisticsInput{
		Namespace: ptr("App"), MetricName: ptr("m"), Dimensions: []types.Dimension{dim("a", "1"), dim("b", "2")},
		StartTime: &anHourAgo, EndTime: ptr(anHourAgo.Add(time.Hour)), Period: ptr(int32(3600)),
		Statistics:         []types.Statistic{"SampleCount", "Sum", "Average", "Minimum", "Maximum"},
		ExtendedStatistics: []string{"p50", "p99", "tm99"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Datapoints) != 1 || *out.Label != "m" {
		t.Fatalf("got %+v", out)
	}
	d := out.Datapoints[0]
	got := fmt.Sprint(*d.SampleCount, *d.Sum, *d.Minimum, *d.Maximum, d.Unit, d.ExtendedStatistics["p50"], d.ExtendedStatistics["p99"], d.Timestamp.Equal(anHourAgo))
	if want := "101 121 1 10Milliseconds1 3 true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if math.Abs(*d.Average-121.0/101) > 1e-12 {
		t.Errorf("average %v", *d.Average)
	}
}

func TestStatisticSetsAndUnitsAreKeptApart(t *testing.T) {
	c, _ := newClient(t)
	put(t, c,
		types.MetricDatum{MetricName: ptr("m"), Timestamp: &anHourAgo, Unit: types.StandardUnitBytes,
			StatisticValues: &types.StatisticSet{SampleCount: ptr(4.0), Sum: ptr(40.0), Minimum: ptr(1.0), Maximum: ptr(30.0)}},
		datum(anHourAgo, 1))
	in := &client.GetMetricStatisticsInput{
		Namespace: ptr("App"), MetricName: ptr("m"), StartTime: &anHourAgo, EndTime: ptr(anHourAgo.Add(time.Minute)), Period: ptr(int32(60)),
		Statistics: []types.Statistic{"Sum"}, ExtendedStatistics: []string{"p50"},
	}
	out, err := c.GetMetricStatistics(t.Context(), in)
	if err != nil || len(out.Datapoints) != 2 {
		t.Fatalf("of any unit: %+v, %v", out, err)
	}
	in.Unit = types.StandardUnitBytes
	if out, err = c.GetMetricStatistics(t.Context(), in); err != nil || len(out.Datapoints) != 1 {
		t.Fatalf("of Bytes: %+v, %v", out, err)
	}
	if d := out.Datapoints[0]; *d.Sum != 40 || len(d.ExtendedStatistics) != 0 {
		t.Errorf("got %+v: a statistic set has a sum and no percentile", d)
	}
}

func TestMetricDataAreReadInPages(t *testing.T) {
	c, _ := newClient(t)
	for i := range 5 {
		put(t, c, datum(anHourAgo.Add(time.Duration(i)*time.Minute), float64(i)), datum(anHourAgo.Add(time.Duration(i)*time.Minute), 10, dim("d", "x")))
	}
	query := func(id string, dims ...types.Dimension) types.MetricDataQuery {
		return types.MetricDataQuery{Id: &id, MetricStat: &types.MetricStat{
			Metric: &types.Metric{Namespace: ptr("App"), MetricName: ptr("m"), Dimensions: dims}, Period: ptr(int32(60)), Stat: ptr("Sum"),
		}}
	}
	in := &client.GetMetricDataInput{
		MetricDataQueries: []types.MetricDataQuery{query("a"), query("b", dim("d", "x"))},
		StartTime:         &anHourAgo, EndTime: ptr(anHourAgo.Add(time.Hour)), ScanBy: types.ScanByTimestampAscending, MaxDatapoints: ptr(int32(3)),
	}
	values := map[string][]float64{}
	pages := 0
	for p := client.NewGetMetricDataPaginator(c, in); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.MetricDataResults {
			values[*r.Id] = append(values[*r.Id], r.Values...)
		}
	}
	if got := fmt.Sprint(pages, values["a"], values["b"]); got != "4 [0 1 2 3 4] [10 10 10 10 10]" {
		t.Errorf("got %s", got)
	}
	in.MaxDatapoints, in.ScanBy = nil, ""
	out, err := c.GetMetricData(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if r := out.MetricDataResults[0]; fmt.Sprint(r.Values) != "[4 3 2 1 0]" || !r.Timestamps[4].Equal(anHourAgo) || r.StatusCode != types.StatusCodeComplete {
		t.Errorf("the latest is first unless asked otherwise: %+v", r)
	}
}

func TestMetricsAreListedByNamespaceNameAndDimension(t *testing.T) {
	c, _ := newClient(t)
	put(t, c, datum(anHourAgo, 1), datum(anHourAgo, 1, dim("d", "x")), datum(anHourAgo, 1, dim("d", "y"), dim("e", "z")),
		datum(anHourAgo.Add(-10*24*time.Hour), 1, dim("old", "1")))
	for name, tt := range map[string]struct {
		in   client.ListMetricsInput
		want int
	}{
		"all":                {client.ListMetricsInput{}, 4},
		"recent":             {client.ListMetricsInput{RecentlyActive: types.RecentlyActivePt3h}, 3},
		"namespace":          {client.ListMetricsInput{Namespace: ptr("App")}, 4},
		"another namespace":  {client.ListMetricsInput{Namespace: ptr("Ap")}, 0},
		"name":               {client.ListMetricsInput{MetricName: ptr("other")}, 0},
		"dimension":          {client.ListMetricsInput{Dimensions: []types.DimensionFilter{{Name: ptr("d")}}}, 2},
		"dimension of value": {client.ListMetricsInput{Dimensions: []types.DimensionFilter{{Name: ptr("d"), Value: ptr("y")}}}, 1},
	} {
		out, err := c.ListMetrics(t.Context(), &tt.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if len(out.Metrics) != tt.want {
			t.Errorf("%s: %d metrics, want %d", name, len(out.Metrics), tt.want)
		}
	}
}

func TestManyMetricsAreListedInPages(t *testing.T) {
	c, store := newClient(t)
	for i := range 1203 {
		store.Series(metrics.NewMetric("App", fmt.Sprint("m", i)), "Count").Add(time.Now(), 1)
	}
	seen := map[string]bool{}
	for p := client.NewListMetricsPaginator(c, &client.ListMetricsInput{}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Metrics {
			seen[*m.MetricName] = true
		}
	}
	if len(seen) != 1203 {
		t.Errorf("%d metrics listed", len(seen))
	}
}

func TestWhatAWSRefusesIsRefused(t *testing.T) {
	c, _ := newClient(t)
	now := time.Now()
	withDims := func(n int) types.MetricDatum {
		d := datum(now, 1)
		for i := range n {
			d.Dimensions = append(d.Dimensions, dim(fmt.Sprint("d", i), "x"))
		}
		return d
	}
	bad := func(change func(*types.MetricDatum)) types.MetricDatum {
		d := datum(now, 1)
		change(&d)
		return d
	}
	for name, tt := range map[string]struct {
		datum types.MetricDatum
		want  string
	}{
		"too new":            {datum(now.Add(3*time.Hour), 1), "InvalidParameterValue: The parameter MetricData.member.1.Timestamp must specify a time no more than two hours in the future."},
		"too old":            {datum(now.Add(-15*24*time.Hour), 1), "two weeks in the past"},
		"not a number":       {datum(now, math.NaN()), "InvalidParameterValue: The value NaN for parameter MetricData.member.1.Value is invalid."},
		"infinite":           {datum(now, math.Inf(1)), "The value +Inf"},
		"no value":           {bad(func(d *types.MetricDatum) { d.Value = nil }), "MissingParameter: The parameter MetricData.member.1.Value is required."},
		"two values":         {bad(func(d *types.MetricDatum) { d.Values = []float64{1} }), "InvalidParameterCombination"},
		"sizes differ":       {bad(func(d *types.MetricDatum) { d.Value, d.Values, d.Counts = nil, []float64{1, 2}, []float64{1} }), "must be of the same size"},
		"151 values":         {bad(func(d *types.MetricDatum) { d.Value, d.Values = nil, make([]float64, 151) }), "must not have a size greater than 150"},
		"resolution":         {bad(func(d *types.MetricDatum) { d.StorageResolution = ptr(int32(5)) }), "StorageResolution"},
		"31 dimensions":      {withDims(31), "Member must have length less than or equal to 30"},
		"dimension twice":    {datum(now, 1, dim("a", "1"), dim("a", "2")), "more than once"},
		"dimension of bytes": {datum(now, 1, dim("a", "\x01")), "ASCII"},
	} {
		_, err := c.PutMetricData(t.Context(), &client.PutMetricDataInput{Namespace: ptr("App"), MetricData: []types.MetricDatum{tt.datum}})
		refused(t, name, err, tt.want)
	}
	_, err := c.PutMetricData(t.Context(), &client.PutMetricDataInput{Namespace: ptr("AWS/Lambda"), MetricData: []types.MetricDatum{datum(now, 1)}})
	refused(t, "AWS's namespace", err, "The value AWS/Lambda for parameter Namespace is invalid.")
	_, err = c.GetMetricStatistics(t.Context(), &client.GetMetricStatisticsInput{
		Namespace: ptr("App"), MetricName: ptr("m"), StartTime: ptr(now.Add(-100 * time.Hour)), EndTime: &now, Period: ptr(int32(60)), Statistics: []types.Statistic{"Sum"},
	})
	refused(t, "too many points", err, "exceeds the limit of 1,440")
	_, err = c.GetMetricData(t.Context(), &client.GetMetricDataInput{
		MetricDataQueries: []types.MetricDataQuery{{Id: ptr("e"), Expression: ptr("m1/m2")}}, StartTime: ptr(now.Add(-time.Hour)), EndTime: &now,
	})
	refused(t, "an expression", err, "Error in expression 'e': there is no query of the id m1.")
	_, err = c.ListMetrics(t.Context(), &client.ListMetricsInput{NextToken: ptr("x")})
	refused(t, "a token", err, "nextToken")
}

func refused(t *testing.T, name string, err error, want string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || !strings.Contains(e.ErrorCode()+": "+e.ErrorMessage(), want) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

func TestLargeRequestsComeCompressed(t *testing.T) {
	c, _ := newClient(t)
	var data []types.MetricDatum
	for i := range 900 {
		data = append(data, datum(anHourAgo, 1, dim("some-dimension-of-a-name", fmt.Sprint("value", i%3))))
	}
	put(t, c, data...) // beyond 10 KiB the SDK compresses
	out, err := c.GetMetricStatistics(t.Context(), &client.GetMetricStatisticsInput{
		Namespace: ptr("App"), MetricName: ptr("m"), Dimensions: []types.Dimension{dim("some-dimension-of-a-name", "value0")},
		StartTime: &anHourAgo, EndTime: ptr(anHourAgo.Add(time.Minute)), Period: ptr(int32(60)), Statistics: []types.Statistic{"SampleCount"},
	})
	if err != nil || len(out.Datapoints) != 1 || *out.Datapoints[0].SampleCount != 300 {
		t.Errorf("got %+v, %v", out, err)
	}
}
