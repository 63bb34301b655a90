package cloudwatch

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudwatch"
	"lapwing.dev/lapwing/internal/metrics"
)

// Limits of PutMetricData (CloudWatch API reference and quotas).
const (
	maxData       = 1000
	maxValues     = 150
	maxDimensions = 30
	maxAge        = 14 * 24 * time.Hour
	maxAhead      = 2 * time.Hour
)

// maxMagnitude is the largest value that there is.
var maxMagnitude = math.Pow(2, 360)

// PutMetricData implements api.API. All data are kept, or none.
func (s *Service) PutMetricData(ctx context.Context, in *api.PutMetricDataInput) (*api.PutMetricDataOutput, error) {
	switch {
	case strings.HasPrefix(*in.Namespace, "AWS/"), strings.HasPrefix(*in.Namespace, ":"), !plain(*in.Namespace):
		return nil, invalidValue("The value %s for parameter Namespace is invalid.", *in.Namespace)
	case len(in.EntityMetricData) > 0:
		return nil, unsupported("EntityMetricData")
	case aws.Value(in.StrictEntityValidation):
		return nil, unsupported("StrictEntityValidation")
	case len(in.MetricData) == 0:
		return nil, missing("MetricData")
	case len(in.MetricData) > maxData:
		return nil, invalidValue("The collection MetricData must not have a size greater than %d.", maxData)
	}
	data := make([]metrics.Datum, len(in.MetricData))
	now := s.now()
	for i, d := range in.MetricData {
		var err error
		if data[i], err = s.datum(*in.Namespace, fmt.Sprintf("MetricData.member.%d", i+1), d, now); err != nil {
			return nil, err
		}
	}
	if err := s.store.Put(ctx, data); err != nil {
		return nil, storeFailure(err)
	}
	return &api.PutMetricDataOutput{}, nil
}

// datum checks one datum; at is its place in the request.
func (s *Service) datum(namespace, at string, d *api.MetricDatum, now time.Time) (out metrics.Datum, err error) {
	if !plain(*d.MetricName) {
		return out, invalidValue("The parameter %s.MetricName must contain only ASCII characters, and no control characters.", at)
	}
	dims, err := dimensions(at+".Dimensions", d.Dimensions)
	if err != nil {
		return out, err
	}
	out = metrics.Datum{Metric: metrics.NewMetric(namespace, *d.MetricName, dims...), Unit: string(d.Unit), Time: now}
	if out.Unit == "" {
		out.Unit = string(api.StandardUnitNone)
	}
	if d.Timestamp != nil {
		out.Time = *d.Timestamp
	}
	switch {
	case out.Time.After(now.Add(maxAhead)):
		return out, invalidValue("The parameter %s.Timestamp must specify a time no more than two hours in the future.", at)
	case out.Time.Before(now.Add(-maxAge)):
		return out, invalidValue("The parameter %s.Timestamp must specify a time no more than two weeks in the past.", at)
	}
	switch resolution := aws.Value(d.StorageResolution); resolution {
	case 0, 60:
	case 1:
		out.Fine = true
	default:
		return out, invalidValue("The value %d for parameter %s.StorageResolution is invalid: it must be 1 or 60.", resolution, at)
	}
	out.Set, err = measured(at, d)
	return out, err
}

// measured returns what a datum says was measured.
func measured(at string, d *api.MetricDatum) (set metrics.Set, err error) {
	given := 0
	for _, is := range []bool{d.Value != nil, d.StatisticValues != nil, d.Values != nil} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return set, missing(at + ".Value")
	case given > 1:
		return set, invalidCombination("The parameters %s.Value, %s.Values and %s.StatisticValues are mutually exclusive and you have specified more than one.", at, at, at)
	case d.Counts != nil && d.Values == nil:
		return set, invalidCombination("The parameter %s.Counts needs %s.Values.", at, at)
	case d.Value != nil:
		return metrics.Of(metrics.Value{Value: *d.Value, Count: 1}), number(at+".Value", *d.Value)
	case d.Values != nil:
		return distribution(at, d.Values, d.Counts)
	}
	st := d.StatisticValues
	for name, v := range map[string]float64{"SampleCount": *st.SampleCount, "Sum": *st.Sum, "Minimum": *st.Minimum, "Maximum": *st.Maximum} {
		if err := number(at+".StatisticValues."+name, v); err != nil {
			return set, err
		}
	}
	switch {
	case *st.SampleCount <= 0:
		return set, invalidValue("The parameter %s.StatisticValues.SampleCount must be greater than 0.", at)
	case *st.Minimum > *st.Maximum:
		return set, invalidValue("The parameter %s.StatisticValues.Maximum must not be smaller than Minimum.", at)
	}
	return metrics.Statistics(*st.SampleCount, *st.Sum, *st.Minimum, *st.Maximum), nil
}

func distribution(at string, values, counts []float64) (set metrics.Set, err error) {
	switch {
	case len(values) == 0:
		return set, missing(at + ".Values")
	case len(values) > maxValues:
		return set, invalidValue("The collection %s.Values must not have a size greater than %d.", at, maxValues)
	case counts != nil && len(counts) != len(values):
		return set, invalidValue("The parameters %s.Values and %s.Counts must be of the same size.", at, at)
	}
	all := make([]metrics.Value, len(values))
	for i, v := range values {
		all[i] = metrics.Value{Value: v, Count: 1}
		if counts != nil {
			all[i].Count = counts[i]
		}
		if err := number(fmt.Sprintf("%s.Values.member.%d", at, i+1), v); err != nil {
			return set, err
		}
		if err := number(fmt.Sprintf("%s.Counts.member.%d", at, i+1), all[i].Count); err != nil {
			return set, err
		}
		if all[i].Count <= 0 {
			return set, invalidValue("The parameter %s.Counts.member.%d must be greater than 0.", at, i+1)
		}
	}
	return metrics.Of(all...), nil
}

// number refuses what is none, or too large for CloudWatch.
func number(parameter string, v float64) error {
	if math.IsNaN(v) || math.Abs(v) > maxMagnitude {
		return invalidValue("The value %v for parameter %s is invalid.", v, parameter)
	}
	return nil
}
