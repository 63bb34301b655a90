package metrics

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// specimen is the example of AWS's specification, with more of everything.
func specimen(at time.Time) string {
	return fmt.Sprintf(`{"_aws":{"Timestamp":%d,"CloudWatchMetrics":[{"Namespace":"lambda-function-metrics","Dimensions":[["functionVersion"],[],["functionVersion","gone"]],
"Metrics":[{"Name":"time","Unit":"Milliseconds","StorageResolution":60},{"Name":"list"},{"Name":"text"},{"Name":"missing"}]}]},
"functionVersion":"$LATEST","time":100,"list":[1,2,3],"text":"x","requestId":"989ffbf8"}`, at.UnixMilli())
}

func TestEmbeddedMetricsAreFound(t *testing.T) {
	var got []string
	for _, d := range Embedded(specimen(noon)) {
		got = append(got, fmt.Sprint(d.Namespace, " ", d.Name, d.Dimensions, " ", d.Unit, " ", d.Set.Count, " ", d.Set.Sum, " ", d.Time.Equal(noon)))
	}
	want := "lambda-function-metrics time[{functionVersion $LATEST}] Milliseconds 1 100 true\n" +
		"lambda-function-metrics list[{functionVersion $LATEST}] None 3 6 true\n" +
		"lambda-function-metrics time[] Milliseconds 1 100 true\n" +
		"lambda-function-metrics list[] None 3 6 true"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

func TestLinesWithoutEmbeddedMetrics(t *testing.T) {
	for _, line := range []string{
		"", "text", "{}", `{"_aws":1}`, `{"_aws":{}}`, `{"_aws":`, `{"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"","Metrics":[{"Name":"a"}]}]},"a":1}`,
		`{"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"AWS/Lambda","Metrics":[{"Name":"a"}]}]},"a":1}`,
		`{"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"N","Metrics":[{"Name":"a"}]}]},"a":"1"}`,
		`{"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"N\u0000","Metrics":[{"Name":"a"}]}]},"a":1}`,
	} {
		if d := Embedded(line); len(d) != 0 {
			t.Errorf("%s has %v", line, d)
		}
	}
}

func TestCollectedDataAreRead(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	now := time.Now()
	for range 3 {
		s.Collect(Embedded(specimen(now)))
	}
	s.Collect(Embedded(specimen(now.Add(-15 * dayLength))))
	all, err := s.Query(Query{Metric: NewMetric("lambda-function-metrics", "list"), Start: now.Add(-time.Hour).Truncate(time.Minute), End: now.Add(time.Hour), Period: 24 * time.Hour})
	if err != nil || len(all) != 1 || all[0].Set.Sum != 18 {
		t.Errorf("got %+v, %v", all, err)
	}
}

func FuzzEmbedded(f *testing.F) {
	f.Add(specimen(noon))
	f.Fuzz(func(t *testing.T, line string) {
		for _, d := range Embedded(line) {
			m, unit := parseSeriesKey([]byte(seriesKey(d.Metric, d.Unit)))
			if m.Name != d.Name || m.Namespace != d.Namespace || unit != d.Unit || len(m.Dimensions) != len(d.Dimensions) || d.Set.Count < 1 {
				t.Errorf("%+v is %+v as a key", d, m)
			}
		}
	})
}
