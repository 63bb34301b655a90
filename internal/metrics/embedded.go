package metrics

import (
	"encoding/json"
	"math"
	"strings"
	"time"
)

// Limits of the embedded metric format (CloudWatch, "Specification: Embedded
// metric format").
const (
	maxEmbeddedMetrics    = 100 // in a directive
	maxEmbeddedDimensions = 30
	maxEmbeddedValues     = 100
	maxNamespace          = 256
)

// Embedded returns the metrics in a log line of the embedded metric format; none
// where it is no such line. What is amiss in a directive or a metric leaves that
// out, as CloudWatch does; the log line is kept in any case.
func Embedded(line string) []Datum {
	if !strings.HasPrefix(line, "{") || !strings.Contains(line, `"_aws"`) {
		return nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &members) != nil {
		return nil
	}
	var metadata struct {
		Timestamp         int64 // ms
		CloudWatchMetrics []directive
	}
	if json.Unmarshal(members["_aws"], &metadata) != nil || metadata.Timestamp <= 0 {
		return nil
	}
	var all []Datum
	for _, d := range metadata.CloudWatchMetrics {
		all = append(all, d.data(members, time.UnixMilli(metadata.Timestamp))...)
	}
	return all
}

// directive tells which members of a line are metrics, and which dimensions.
type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []struct {
		Name, Unit        string
		StorageResolution int
	}
}

func (d *directive) data(members map[string]json.RawMessage, at time.Time) (all []Datum) {
	if d.Namespace == "" || len(d.Namespace) > maxNamespace || !clean(d.Namespace) || strings.HasPrefix(d.Namespace, "AWS/") || len(d.Metrics) > maxEmbeddedMetrics {
		return nil
	}
	if len(d.Dimensions) == 0 {
		d.Dimensions = [][]string{{}}
	}
	for _, names := range d.Dimensions {
		dims, ok := embeddedDimensions(members, names)
		if !ok {
			continue
		}
		for _, m := range d.Metrics {
			set, ok := embeddedValues(members[m.Name])
			if !ok || m.Name == "" || !clean(m.Name) || !clean(m.Unit) {
				continue
			}
			unit := m.Unit
			if unit == "" {
				unit = "None"
			}
			all = append(all, Datum{Metric: NewMetric(d.Namespace, m.Name, dims...), Unit: unit, Time: at, Fine: m.StorageResolution == 1, Set: set})
		}
	}
	return all
}

// clean tells whether s can be a part of a series' key.
func clean(s string) bool { return !strings.ContainsRune(s, 0) }

func embeddedDimensions(members map[string]json.RawMessage, names []string) ([]Dimension, bool) {
	if len(names) > maxEmbeddedDimensions {
		return nil, false
	}
	var dims []Dimension
	for _, name := range names {
		var value string
		if json.Unmarshal(members[name], &value) != nil || value == "" || !clean(name+value) {
			return nil, false
		}
		dims = append(dims, Dimension{name, value})
	}
	return dims, true
}

// embeddedValues reads a number or a list of numbers.
func embeddedValues(b json.RawMessage) (Set, bool) {
	var numbers []float64
	if json.Unmarshal(b, &numbers) != nil {
		var one *float64
		if json.Unmarshal(b, &one) != nil || one == nil {
			return Set{}, false
		}
		numbers = []float64{*one}
	}
	if len(numbers) == 0 || len(numbers) > maxEmbeddedValues {
		return Set{}, false
	}
	values := make([]Value, len(numbers))
	for i, v := range numbers {
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return Set{}, false
		}
		values[i] = Value{v, 1}
	}
	return Of(values...), true
}

// maxCollectedSeries bounds the series for which something collects in memory.
const maxCollectedSeries = 50_000

// Collect keeps data in memory for ten seconds at most, as a Series does. It is
// for data whose sender does not wait for them to be durable. Those that are too
// old or too new for CloudWatch are left out, and those of new series or minutes
// while too many collect already.
func (s *Store) Collect(data []Datum) {
	if len(data) == 0 {
		return // as for nearly every line of a log
	}
	now := time.Now()
	for _, d := range data {
		if d.Time.Before(now.Add(-14*dayLength)) || d.Time.After(now.Add(2*hour)) {
			continue
		}
		s.mu.Lock()
		full := len(s.series) >= maxCollectedSeries && s.series[seriesKey(d.Metric, d.Unit)] == nil
		s.mu.Unlock()
		if full {
			continue
		}
		d.Time = time.Unix(seconds(d.Time, d.Fine), 0)
		one := s.Series(d.Metric, d.Unit)
		one.mu.Lock()
		if len(one.ended) < maxWaiting {
			one.give(d)
		}
		one.mu.Unlock()
	}
}
