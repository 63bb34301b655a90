package worker

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/runtimes"
)

// timeFormat is the time in Lambda's JSON log lines.
const timeFormat = "2006-01-02T15:04:05.000Z"

// report is what the REPORT line of an invocation tells.
type report struct {
	meter.Usage
	failure *failure // nil on success
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
	meter    Meter
}

func (s *systemLog) json() bool { return s.stream.config.Format == "JSON" }

// initStart writes INIT_START, which Lambda's text format has for the Init phase
// only.
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
	if phase == phaseInit {
		s.text(t, "INIT_START Runtime Version: %s\tRuntime Version ARN: %s\n", s.runtime.Version, s.runtime.VersionARN(s.version.Region))
	}
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

// end writes END and REPORT, and hands over what the invocation used.
func (s *systemLog) end(t time.Time, r *report) {
	r.Function, r.Version = s.version.Name, s.version.Version
	r.Architecture, r.MemoryMB, r.EphemeralMB = s.version.Architecture, s.version.MemoryMB, s.version.EphemeralMB
	r.Provisioned = s.initType == initProvisioned
	r.Status = "success"
	if r.failure != nil {
		r.Status, r.ErrorType = r.failure.status, r.failure.errorType
	}
	if s.json() {
		s.endJSON(t, r)
		return
	}
	s.text(t, "END RequestId: %s\n", r.RequestID)
	var b strings.Builder
	fmt.Fprintf(&b, "REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
		r.RequestID, milliseconds(r.Duration), r.BilledMs(), r.MemoryMB, r.MaxMemoryMB)
	if r.Init > 0 {
		fmt.Fprintf(&b, "Init Duration: %.2f ms\t", milliseconds(r.Init))
	}
	if r.failure != nil && r.failure.platform {
		b.WriteString(statusText(r.failure))
	}
	b.WriteByte('\n')
	s.report(t, r, b.String())
}

// report writes the REPORT line, empty where the log level leaves it out, when
// the usage that it tells of is kept.
func (s *systemLog) report(t time.Time, r *report, line string) {
	at := meter.Report{Group: s.stream.config.Group, Stream: s.stream.name, Time: t, Message: line}
	receipt := s.meter.Record(&r.Usage, at)
	if line != "" {
		s.stream.addReport(t, line, receipt)
	}
}

func (s *systemLog) endJSON(t time.Time, r *report) {
	metrics := map[string]any{
		"durationMs": milliseconds(r.Duration), "billedDurationMs": r.BilledMs(),
		"memorySizeMB": r.MemoryMB, "maxMemoryUsedMB": r.MaxMemoryMB,
	}
	if r.Init > 0 {
		metrics["initDurationMs"] = milliseconds(r.Init)
	}
	done := s.invocation(r.RequestID, map[string]any{"status": r.Status, "metrics": map[string]any{"durationMs": milliseconds(r.Duration)}})
	record := s.invocation(r.RequestID, map[string]any{"status": r.Status, "metrics": metrics})
	level := "INFO"
	if r.failure != nil {
		level = "WARN"
		done["errorType"], record["errorType"] = r.ErrorType, r.ErrorType
	}
	s.event(t, "DEBUG", "platform.runtimeDone", done)
	s.report(t, r, s.line(t, level, "platform.report", record))
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
	if f.status == statusTimeout {
		return "Status: timeout"
	}
	return "Status: " + f.status + "\tError Type: " + f.errorType
}

func (s *systemLog) text(t time.Time, format string, args ...any) {
	s.stream.add(t, fmt.Sprintf(format, args...))
}

// event writes a JSON event, if the system log level lets it pass.
func (s *systemLog) event(t time.Time, level, kind string, record any) {
	if line := s.line(t, level, kind, record); line != "" {
		s.stream.add(t, line)
	}
}

// line returns a JSON event, empty if the system log level does not let it pass.
func (s *systemLog) line(t time.Time, level, kind string, record any) string {
	if levels[level] < levels[firstOf(s.stream.config.SystemLevel, "INFO")] {
		return ""
	}
	b, err := json.Marshal(struct {
		Time   string `json:"time"`
		Type   string `json:"type"`
		Record any    `json:"record"`
	}{t.UTC().Format(timeFormat), kind, record})
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return string(b)
}

// milliseconds returns d in ms, to three decimals.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
