package worker

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/runtimes"
)

// timeFormat is the time in Lambda's JSON log lines.
const timeFormat = "2006-01-02T15:04:05.000Z"

// report is what an invocation used.
type report struct {
	requestID string
	duration  time.Duration
	init      time.Duration // of the environment; 0 after its first invocation
	memoryMB  int           // configured
	maxMemory int           // used, MiB
	failure   *failure      // nil on success
}

// billed is the duration that Lambda bills: duration and Init together, rounded
// up to the next millisecond (Lambda pricing, since August 2025 for all).
func (r *report) billed() int64 {
	return int64(math.Ceil(float64(r.duration+r.init) / float64(time.Millisecond)))
}

// systemLog writes the lines that Lambda itself adds to a function's log, in
// the function's log format (Lambda developer guide, "Monitoring and
// observability", and the Telemetry API's event schema for JSON).
type systemLog struct {
	stream   *logStream
	version  *function.Version
	runtime  *runtimes.Runtime
	id       string // of the environment
	initType string
	tenant   string
}

func (s *systemLog) json() bool { return s.stream.config.Format == "JSON" }

// initStart writes INIT_START.
func (s *systemLog) initStart(t time.Time, phase string) {
	if s.json() {
		s.event(t, "INFO", "platform.initStart", map[string]any{
			"initializationType": s.initType, "phase": phase,
			"runtimeVersion": s.runtime.Version, "runtimeVersionArn": s.runtime.VersionARN(s.version.Region),
			"functionName": s.version.Name, "functionVersion": s.version.Version,
			"instanceId": s.id, "instanceMaxMemory": s.version.MemoryMB << 20,
		})
		return
	}
	s.text(t, "INIT_START Runtime Version: %s\tRuntime Version ARN: %s\n", s.runtime.Version, s.runtime.VersionARN(s.version.Region))
}

// initReport writes INIT_REPORT, which Lambda does only for a failed Init. f may
// be nil.
func (s *systemLog) initReport(t time.Time, phase string, d time.Duration, f *failure) {
	if s.json() {
		record := map[string]any{
			"initializationType": s.initType, "phase": phase, "status": "success",
			"metrics": map[string]any{"durationMs": milliseconds(d)},
		}
		level := "DEBUG"
		if f != nil {
			level = "WARN"
			record["status"], record["errorType"] = f.status, f.errorType
		}
		s.event(t, level, "platform.initReport", record)
		return
	}
	if f != nil {
		s.text(t, "INIT_REPORT Init Duration: %.2f ms\tPhase: %s\t%s\n", milliseconds(d), phase, statusText(f))
	}
}

// start writes START.
func (s *systemLog) start(t time.Time, requestID string) {
	if s.json() {
		s.event(t, "INFO", "platform.start", s.invocation(requestID, map[string]any{"version": s.version.Version}))
		return
	}
	s.text(t, "START RequestId: %s Version: %s\n", requestID, s.version.Version)
}

// end writes END and REPORT.
func (s *systemLog) end(t time.Time, r *report) {
	if s.json() {
		s.endJSON(t, r)
		return
	}
	s.text(t, "END RequestId: %s\n", r.requestID)
	var b strings.Builder
	fmt.Fprintf(&b, "REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
		r.requestID, milliseconds(r.duration), r.billed(), r.memoryMB, r.maxMemory)
	if r.init > 0 {
		fmt.Fprintf(&b, "Init Duration: %.2f ms\t", milliseconds(r.init))
	}
	if r.failure != nil && r.failure.platform {
		b.WriteString(statusText(r.failure))
	}
	s.text(t, "%s\n", b.String())
}

func (s *systemLog) endJSON(t time.Time, r *report) {
	metrics := map[string]any{
		"durationMs": milliseconds(r.duration), "billedDurationMs": r.billed(),
		"memorySizeMB": r.memoryMB, "maxMemoryUsedMB": r.maxMemory,
	}
	if r.init > 0 {
		metrics["initDurationMs"] = milliseconds(r.init)
	}
	done := s.invocation(r.requestID, map[string]any{"status": "success", "metrics": map[string]any{"durationMs": milliseconds(r.duration)}})
	record := s.invocation(r.requestID, map[string]any{"status": "success", "metrics": metrics})
	level := "INFO"
	if f := r.failure; f != nil {
		level = "WARN"
		for _, m := range []map[string]any{done, record} {
			m["status"], m["errorType"] = f.status, f.errorType
		}
	}
	s.event(t, "DEBUG", "platform.runtimeDone", done)
	s.event(t, level, "platform.report", record)
}

// invocation completes the record of an event that concerns an invocation.
// Functions with tenant isolation have the tenant in it (Lambda developer guide,
// "Tenant isolation").
func (s *systemLog) invocation(requestID string, record map[string]any) map[string]any {
	record["requestId"] = requestID
	if s.tenant != "" {
		record["tenantId"] = s.tenant
	}
	return record
}

func statusText(f *failure) string {
	if f.status == "timeout" {
		return "Status: timeout"
	}
	return "Status: " + f.status + "\tError Type: " + f.errorType
}

func (s *systemLog) text(t time.Time, format string, args ...any) {
	s.stream.add(t, fmt.Sprintf(format, args...))
}

// event writes a JSON event, if the system log level lets it pass.
func (s *systemLog) event(t time.Time, level, kind string, record any) {
	if levels[level] < levels[firstOf(s.stream.config.SystemLevel, "INFO")] {
		return
	}
	b, err := json.Marshal(struct {
		Time   string `json:"time"`
		Type   string `json:"type"`
		Record any    `json:"record"`
	}{t.UTC().Format(timeFormat), kind, record})
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	s.stream.add(t, string(b))
}

// milliseconds returns d in ms, to three decimals.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
