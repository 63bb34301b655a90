package cloudwatch

import (
	"fmt"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudwatch"
	"lapwing.dev/lapwing/internal/metrics"
)

// evaluation is the queries of one GetMetricData on the way to their results.
type evaluation struct {
	s       *Service
	in      *api.GetMetricDataInput
	queries map[string]*api.MetricDataQuery
	results map[string]operand // so far
	open    map[string]bool    // expressions that are being evaluated
	budget  mathBudget
}

// evaluate returns the results of all queries whose data are wanted, in the
// order of time.
func (s *Service) evaluate(in *api.GetMetricDataInput) ([]*api.MetricDataResult, error) {
	e := &evaluation{
		s: s, in: in, queries: map[string]*api.MetricDataQuery{}, results: map[string]operand{}, open: map[string]bool{},
		budget: mathBudget{maxMathPoints, maxMathDepth},
	}
	if err := e.readMetrics(); err != nil {
		return nil, err
	}
	var results []*api.MetricDataResult
	for _, q := range in.MetricDataQueries {
		o, err := e.result(*q.Id)
		if err != nil {
			return nil, validation("Error in expression '%s': %v.", *q.Id, err)
		}
		if q.ReturnData != nil && !*q.ReturnData {
			continue
		}
		if o.kind == scalar {
			return nil, validation("Error in expression '%s': the result is a number; it must be a time series or an array of such.", *q.Id)
		}
		for _, one := range o.series {
			results = append(results, one.result(q))
		}
	}
	return results, nil
}

// result is a series as the result of a query. It is a copy.
func (s *series) result(q *api.MetricDataQuery) *api.MetricDataResult {
	r := &api.MetricDataResult{
		Id: q.Id, Label: q.Label, Timestamps: append([]time.Time{}, s.times...), Values: append([]float64{}, s.values...),
	}
	switch {
	case r.Label != nil:
	case s.label != "":
		r.Label = aws.Ptr(s.label)
	default:
		r.Label = q.Id
	}
	return r
}

// readMetrics checks all queries and reads those of metrics.
func (e *evaluation) readMetrics() error {
	period, expressions := int32(0), false
	for _, q := range e.in.MetricDataQueries {
		switch {
		case e.queries[*q.Id] != nil:
			return validation("The value '%s' for parameter MetricDataQueries.member.Id is not unique.", *q.Id)
		case q.AccountId != nil && *q.AccountId != "":
			return unsupported("MetricDataQueries.member.AccountId")
		case q.Expression != nil && q.MetricStat != nil:
			return invalidCombination("The query '%s' must have either Expression or MetricStat, not both.", *q.Id)
		case q.Expression == nil && q.MetricStat == nil:
			return missing("MetricDataQueries.member.MetricStat")
		case q.Period != nil && q.MetricStat != nil:
			return validation("The parameter MetricDataQueries.member.Period is for expressions; '%s' has MetricStat.Period.", *q.Id)
		}
		e.queries[*q.Id] = q
		if q.Expression != nil {
			expressions = true
			continue
		}
		read, err := e.s.metricStat(q.MetricStat, *e.in.StartTime, *e.in.EndTime)
		if err != nil {
			return err
		}
		e.results[*q.Id] = operand{kind: timeSeries, series: []series{*read}}
		if period != 0 && period != *q.MetricStat.Period {
			period = -1
		} else {
			period = *q.MetricStat.Period
		}
	}
	for _, q := range e.in.MetricDataQueries {
		if expressions && (period < 0 || q.Period != nil && *q.Period != period) {
			return validation("Expressions over several periods are not supported by Lapwing: give all metrics, and '%s', the same Period.", *q.Id)
		}
	}
	return nil
}

// result returns the result of a query, evaluated once.
func (e *evaluation) result(id string) (operand, error) {
	if o, done := e.results[id]; done {
		return o, nil
	}
	q := e.queries[id]
	switch {
	case q == nil:
		return operand{}, fmt.Errorf("there is no query of the id %s", id)
	case e.open[id]:
		return operand{}, fmt.Errorf("%s refers to itself", id)
	}
	e.open[id] = true
	p := mathParser{rest: *q.Expression, lookup: e.result, metrics: e.metrics, budget: &e.budget}
	o, err := p.all()
	if err != nil {
		return operand{}, err
	}
	delete(e.open, id)
	if o.kind == timeSeries {
		o.series = []series{o.series[0]}
		o.series[0].label = "" // that of the expression, not of a metric in it
	}
	e.results[id] = o
	return o, nil
}

// metrics returns the queries of metrics, not of expressions, whose ids contain
// a text.
func (e *evaluation) metrics(containing string) operand {
	all := operand{kind: array}
	for _, q := range e.in.MetricDataQueries {
		if q.MetricStat != nil && strings.Contains(*q.Id, containing) {
			all.series = append(all.series, e.results[*q.Id].series...)
		}
	}
	return all
}

// metricStat evaluates one query of a metric.
func (s *Service) metricStat(m *api.MetricStat, start, end time.Time) (*series, error) {
	if m.Metric.Namespace == nil || m.Metric.MetricName == nil {
		return nil, missing("MetricDataQueries.member.MetricStat.Metric.Namespace and MetricName")
	}
	if err := checkPeriod(*m.Period); err != nil {
		return nil, err
	}
	st, ok := metrics.ParseStatistic(*m.Stat)
	if !ok {
		return nil, validation("The value '%s' for parameter MetricDataQueries.member.MetricStat.Stat is not supported.", *m.Stat)
	}
	dims, err := dimensions("MetricDataQueries.member.MetricStat.Metric.Dimensions", m.Metric.Dimensions)
	if err != nil {
		return nil, err
	}
	buckets, err := s.store.Query(metrics.Query{
		Metric: metrics.NewMetric(*m.Metric.Namespace, *m.Metric.MetricName, dims...), Unit: string(m.Unit),
		Start: s.roundStart(start, *m.Period), End: end, Period: time.Duration(*m.Period) * time.Second,
	})
	if err != nil {
		return nil, storeFailure(err)
	}
	out := &series{label: *m.Metric.MetricName}
	for i := 0; i < len(buckets); {
		sum := metrics.Set{}
		at := buckets[i].Time
		for ; i < len(buckets) && buckets[i].Time.Equal(at); i++ {
			sum.Merge(buckets[i].Set)
		}
		if v, ok := st.Of(&sum); ok {
			out.times, out.values = append(out.times, at), append(out.values, v)
		}
	}
	return out, nil
}
