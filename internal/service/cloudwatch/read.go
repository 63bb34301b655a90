package cloudwatch

import (
	"context"
	"slices"
	"strconv"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudwatch"
	"lapwing.dev/lapwing/internal/metrics"
)

// Limits of reading (CloudWatch API reference).
const (
	maxStatisticsPoints = 1440
	maxQueries          = 500
	maxDatapoints       = 100_800
	maxExtended         = 10
	listPage            = 500
	// listed is how long after its last data a metric is listed.
	listed         = 14 * 24 * time.Hour
	recentlyActive = 3 * time.Hour
)

// roundStart rounds the start of a request down as CloudWatch does: to the
// period where that is below a minute, or to the grain that data of this age
// have.
func (s *Service) roundStart(start time.Time, period int32) time.Time {
	age := s.now().Sub(start)
	grain := time.Minute
	switch {
	case period < 60:
		grain = time.Duration(period) * time.Second
	case age > 63*24*time.Hour:
		grain = time.Hour
	case age > 15*24*time.Hour:
		grain = 5 * time.Minute
	}
	return start.Truncate(grain)
}

func checkPeriod(period int32) error {
	switch {
	case period == 1, period == 5, period == 10, period == 20, period == 30, period >= 60 && period%60 == 0:
		return nil
	}
	return invalidValue("The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")
}

// GetMetricStatistics implements api.API.
func (s *Service) GetMetricStatistics(_ context.Context, in *api.GetMetricStatisticsInput) (*api.GetMetricStatisticsOutput, error) {
	if err := checkPeriod(*in.Period); err != nil {
		return nil, err
	}
	period := time.Duration(*in.Period) * time.Second
	switch {
	case !in.StartTime.Before(*in.EndTime):
		return nil, invalidValue("The parameter StartTime must be less than the parameter EndTime.")
	case len(in.Statistics)+len(in.ExtendedStatistics) == 0:
		return nil, api.NewMissingRequiredParameterException("At least one of the parameters Statistics and ExtendedStatistics must be specified.")
	case len(in.ExtendedStatistics) > maxExtended:
		return nil, invalidValue("The collection ExtendedStatistics must not have a size greater than %d.", maxExtended)
	}
	start := s.roundStart(*in.StartTime, *in.Period)
	if n := (in.EndTime.Sub(start) + period - 1) / period; n > maxStatisticsPoints {
		return nil, invalidCombination("You have requested up to %s datapoints, which exceeds the limit of %s. You may reduce the datapoints requested by increasing Period, or decreasing the time range.", thousands(int64(n)), thousands(maxStatisticsPoints))
	}
	extended := map[string]metrics.Statistic{}
	for _, name := range in.ExtendedStatistics {
		st, ok := metrics.ParseStatistic(name)
		if !ok || isSimple(name) {
			return nil, invalidValue("The value %s for parameter ExtendedStatistics is not supported.", name)
		}
		extended[name] = st
	}
	dims, err := dimensions("Dimensions", in.Dimensions)
	if err != nil {
		return nil, err
	}
	buckets, err := s.store.Query(metrics.Query{
		Metric: metrics.NewMetric(*in.Namespace, *in.MetricName, dims...), Unit: string(in.Unit), Start: start, End: *in.EndTime, Period: period,
	})
	if err != nil {
		return nil, storeFailure(err)
	}
	out := &api.GetMetricStatisticsOutput{Label: in.MetricName, Datapoints: []*api.Datapoint{}}
	for i := range buckets {
		out.Datapoints = append(out.Datapoints, datapoint(&buckets[i], in.Statistics, extended))
	}
	return out, nil
}

// thousands writes a number as AWS does in messages: 1,440.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func isSimple(name string) bool {
	switch name {
	case "SampleCount", "Sum", "Average", "Minimum", "Maximum":
		return true
	}
	return false
}

func datapoint(b *metrics.Bucket, simple []api.Statistic, extended map[string]metrics.Statistic) *api.Datapoint {
	d := &api.Datapoint{Timestamp: aws.Ptr(b.Time), Unit: api.StandardUnit(b.Unit)}
	for _, name := range simple {
		st, _ := metrics.ParseStatistic(string(name)) // the enumeration has these only
		v, _ := st.Of(&b.Set)
		switch name {
		case api.StatisticSampleCount:
			d.SampleCount = &v
		case api.StatisticAverage:
			d.Average = &v
		case api.StatisticSum:
			d.Sum = &v
		case api.StatisticMinimum:
			d.Minimum = &v
		case api.StatisticMaximum:
			d.Maximum = &v
		}
	}
	for name, st := range extended {
		if v, ok := st.Of(&b.Set); ok {
			if d.ExtendedStatistics == nil {
				d.ExtendedStatistics = map[string]float64{}
			}
			d.ExtendedStatistics[name] = v
		}
	}
	return d
}

// GetMetricData implements api.API. Data of all units of a metric are one
// series, unless a unit is asked for.
func (s *Service) GetMetricData(_ context.Context, in *api.GetMetricDataInput) (*api.GetMetricDataOutput, error) {
	switch {
	case !in.StartTime.Before(*in.EndTime):
		return nil, validation("The parameter StartTime must be less than the parameter EndTime.")
	case len(in.MetricDataQueries) == 0:
		return nil, missing("MetricDataQueries")
	case len(in.MetricDataQueries) > maxQueries:
		return nil, validation("The collection MetricDataQueries must not have a size greater than %d.", maxQueries)
	case in.LabelOptions != nil:
		return nil, unsupported("LabelOptions")
	}
	var skip int
	if err := parseToken(in.NextToken, &skip); err != nil {
		return nil, err
	}
	most := int(aws.Value(in.MaxDatapoints))
	if most == 0 {
		most = maxDatapoints
	}
	if skip < 0 || most < 0 || most > maxDatapoints {
		return nil, validation("The parameter MaxDatapoints must be between 1 and %d.", maxDatapoints)
	}
	results, err := s.evaluate(in)
	if err != nil {
		return nil, err
	}
	out := &api.GetMetricDataOutput{MetricDataResults: []*api.MetricDataResult{}, Messages: []*api.MessageData{}}
	taken := 0
	for _, r := range results {
		if in.ScanBy != api.ScanByTimestampAscending {
			slices.Reverse(r.Timestamps)
			slices.Reverse(r.Values)
		}
		from := min(skip, len(r.Values))
		to := min(len(r.Values), from+most-taken)
		skip -= from
		taken += to - from
		r.StatusCode = api.StatusCodeComplete
		if to < len(r.Values) {
			r.StatusCode = api.StatusCodePartialData
			var before int
			_ = parseToken(in.NextToken, &before) // was read above
			out.NextToken = token(before + taken)
		}
		r.Timestamps, r.Values = r.Timestamps[from:to], r.Values[from:to]
		out.MetricDataResults = append(out.MetricDataResults, r)
	}
	return out, nil
}

// ListMetrics implements api.API.
func (s *Service) ListMetrics(_ context.Context, in *api.ListMetricsInput) (*api.ListMetricsOutput, error) {
	switch {
	case aws.Value(in.IncludeLinkedAccounts):
		return nil, unsupported("IncludeLinkedAccounts")
	case in.OwningAccount != nil && *in.OwningAccount != "":
		return nil, unsupported("OwningAccount")
	}
	var skip int
	if err := parseToken(in.NextToken, &skip); err != nil {
		return nil, err
	}
	since := s.now().Add(-listed)
	if in.RecentlyActive == api.RecentlyActivePt3h {
		since = s.now().Add(-recentlyActive)
	}
	out := &api.ListMetricsOutput{Metrics: []*api.Metric{}}
	n := 0
	err := s.store.List(aws.Value(in.Namespace), func(l metrics.Listed) bool {
		if l.Last.Before(since) || in.MetricName != nil && l.Name != *in.MetricName || !matches(l.Dimensions, in.Dimensions) {
			return true
		}
		if n++; n <= skip {
			return true
		}
		if len(out.Metrics) == listPage {
			out.NextToken = token(skip + listPage)
			return false
		}
		out.Metrics = append(out.Metrics, &api.Metric{Namespace: aws.Ptr(l.Namespace), MetricName: aws.Ptr(l.Name), Dimensions: apiDimensions(l.Dimensions)})
		return true
	})
	if err != nil {
		return nil, storeFailure(err)
	}
	return out, nil
}

// matches tells whether a metric has all dimensions that are asked for, with
// these values where they are given.
func matches(dims []metrics.Dimension, filters []*api.DimensionFilter) bool {
	for _, f := range filters {
		if !slices.ContainsFunc(dims, func(d metrics.Dimension) bool {
			return d.Name == *f.Name && (f.Value == nil || d.Value == *f.Value)
		}) {
			return false
		}
	}
	return true
}
