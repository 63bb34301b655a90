package worker

import (
	"regexp"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/invoke"
)

// traced invokes v with a trace header and returns the header that the function
// saw, and the log.
func (b *bench) traced(t *testing.T, req *invoke.Request) (seen, log string) {
	t.Helper()
	req.RequestID, req.InvokedARN, req.Payload, req.Tail = requestID, req.Version.FunctionARN(), []byte(`{"do":"env"}`), true
	var out strings.Builder
	res, err := b.Invoke(t.Context(), req, &out)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`_X_AMZN_TRACE_ID=([^\\"]*)`).FindStringSubmatch(out.String())
	if m == nil {
		t.Fatalf("no trace in the environment: %s", out.String())
	}
	return m[1], string(res.LogTail)
}

func TestTraceIsTheFunctionsAndInTheReport(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	const root, lineage = "1-5759e988-bd862e3fe1be46a994272793", ";Lineage=11111111:1"
	seen, log := b.traced(t, &invoke.Request{Version: v, TraceID: "Root=" + root + ";Parent=53995c3f42cd8ad8;Sampled=1" + lineage})
	m := regexp.MustCompile(`^Root=` + root + `;Parent=([0-9a-f]{16});Sampled=1` + lineage + `$`).FindStringSubmatch(seen)
	if m == nil || m[1] == "53995c3f42cd8ad8" {
		t.Fatalf("the function saw %s", seen)
	}
	if want := "\nXRAY TraceId: " + root + "\tSegmentId: " + m[1] + "\tSampled: true\t\n"; !strings.HasSuffix(log, want) {
		t.Errorf("log %q, want %q at its end", log, want)
	}
	if seen, log = b.traced(t, &invoke.Request{Version: v, TraceID: "Root=" + root + ";Sampled=0"}); strings.Contains(log, "XRAY") || !strings.Contains(seen, ";Sampled=0") {
		t.Errorf("not sampled: %s, %q", seen, log)
	}
}

func TestActiveTracingDecidesForTheCaller(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.ActiveTracing = true
	v.Logging.Format = "JSON"
	seen, log := b.traced(t, &invoke.Request{Version: v})
	if !regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=1$`).MatchString(seen) {
		t.Errorf("the function saw %s", seen)
	}
	spanID := regexp.MustCompile(`Parent=(\w+)`).FindStringSubmatch(seen)[1]
	for _, kind := range []string{"platform.start", "platform.report"} {
		want := regexp.MustCompile(`"type":"` + kind + `","record":.*"tracing":\{"spanId":"` + spanID + `","type":"X-Amzn-Trace-Id","value":"` + regexp.QuoteMeta(seen) + `"\}`)
		if !want.MatchString(log) {
			t.Errorf("%s has no tracing:\n%s", kind, log)
		}
	}
}
