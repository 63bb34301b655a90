package worker

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/host"
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

// systemLog tells of what the platform does: in the lines that Lambda itself
// adds to a function's log, in the function's log format (Lambda developer
// guide, "Monitoring and observability"), and to the subscribers of telemetry
// in the environment ("Telemetry API event schema reference").
type systemLog struct {
	stream   *logStream
	version  *function.Version
	runtime  *runtimes.Runtime
	id       string // of the environment
	initType string
	tenant   string
	meter    Meter

	// subscribers is the connection to the guest, which gives them the events.
	subscribers atomic.Pointer[host.Conn]

	// What is under way: RuntimeDone comes from the guest in a goroutine of its
	// own.
	mu        sync.Mutex
	phase     string // of the initialisation; empty once its runtime is done
	requestID string // of the invocation; empty once its runtime is done
	began     time.Time
	done      time.Time       // when its runtime was
	extended  bool            // an extension takes part in invocations
	trace     invocationTrace // of the invocation
}

func (s *systemLog) json() bool { return s.stream.config.Format == "JSON" }

// record is the record of an event.
type record = map[string]any

// tell tells of an event: as JSON where that is the log format and the system
// log level lets it pass, else as text, which may be empty.
func (s *systemLog) tell(t time.Time, level, kind string, r func() record, text string) {
	if line := s.publish(t, level, kind, r, text); line != "" {
		s.stream.add(t, line)
	}
}

// publish gives the subscribers an event and returns its line in the log.
func (s *systemLog) publish(t time.Time, level, kind string, r func() record, text string) string {
	conn := s.subscribers.Load()
	wanted := conn != nil && conn.Wanted()
	if !wanted && !s.json() {
		return text
	}
	passes := levels[level] >= levels[firstOf(s.stream.config.SystemLevel, defaultLevel)]
	if !wanted && !passes {
		return ""
	}
	b, err := json.Marshal(r())
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	if wanted {
		conn.Event(t, kind, b)
	}
	switch {
	case !s.json():
		return text
	case !passes:
		return ""
	}
	return `{"time":"` + t.UTC().Format(timeFormat) + `","type":"` + kind + `","record":` + string(b) + `}`
}

// initStart tells that a runtime is initialised: INIT_START, which Lambda's text
// format has for the Init phase only.
func (s *systemLog) initStart(t time.Time, phase string) {
	s.mu.Lock()
	s.phase, s.extended = phase, false
	s.mu.Unlock()
	var text string
	if phase == phaseInit {
		text = s.startText("INIT_START")
	}
	s.tell(t, "INFO", "platform.initStart", func() record {
		r := s.environment()
		r["initializationType"], r["phase"] = s.initType, phase
		return r
	}, text)
}

// startText is the line of the start of an environment. An image has none: its
// runtime has no version that Lambda would know.
func (s *systemLog) startText(word string) string {
	if s.version.Image != nil {
		return ""
	}
	return fmt.Sprintf("%s Runtime Version: %s\tRuntime Version ARN: %s\n", word, s.runtime.Version, s.runtime.VersionARN(s.version.Region))
}

// environment is what events of the start of an environment tell of it.
func (s *systemLog) environment() record {
	r := record{
		"functionName": s.version.Name, "functionVersion": s.version.Version,
		"instanceId": s.id, "instanceMaxMemory": s.version.MemoryMB << 20,
	}
	if s.version.Image == nil {
		r["runtimeVersion"], r["runtimeVersionArn"] = s.runtime.Version, s.runtime.VersionARN(s.version.Region)
	}
	return r
}

// initRuntimeDone tells, once, that the runtime is initialised or has failed.
func (s *systemLog) initRuntimeDone(t time.Time, f *failure) {
	s.mu.Lock()
	phase := s.phase
	s.phase = ""
	s.mu.Unlock()
	if phase == "" {
		return
	}
	if phase == phaseRestore {
		s.tell(t, f.level("DEBUG"), "platform.restoreRuntimeDone", func() record { return f.outcome(record{}) }, "")
		return
	}
	s.tell(t, "DEBUG", "platform.initRuntimeDone", func() record {
		return f.outcome(record{"initializationType": s.initType, "phase": phase})
	}, "")
}

// initReport tells of an initialisation: INIT_REPORT, which Lambda writes for one
// that failed, and always with provisioned concurrency and SnapStart (Lambda
// developer guide, "Init phase"). f may be nil.
func (s *systemLog) initReport(t time.Time, phase string, d time.Duration, f *failure) {
	s.initRuntimeDone(t, f)
	level, text := "DEBUG", fmt.Sprintf("INIT_REPORT Init Duration: %.2f ms\tPhase: %s\t", milliseconds(d), phase)
	switch {
	case f != nil:
		level = "WARN"
		text += statusText(f) + "\n"
	case s.initType != initOnDemand:
		text += "\n"
	default:
		text = ""
	}
	s.tell(t, level, "platform.initReport", func() record {
		return f.outcome(record{
			"initializationType": s.initType, "phase": phase,
			"metrics": record{"durationMs": milliseconds(d)},
		})
	}, text)
}

// restoreStart tells that an environment is restored from a snapshot, with
// SnapStart: RESTORE_START.
func (s *systemLog) restoreStart(t time.Time) {
	s.mu.Lock()
	s.phase = phaseRestore
	s.mu.Unlock()
	s.tell(t, "INFO", "platform.restoreStart", s.environment, s.startText("RESTORE_START"))
}

// restoreReport tells how that ended: RESTORE_REPORT. f may be nil.
func (s *systemLog) restoreReport(t time.Time, d time.Duration, f *failure) {
	s.initRuntimeDone(t, f)
	text := fmt.Sprintf("RESTORE_REPORT Restore Duration: %.2f ms\t", milliseconds(d))
	if f != nil {
		text += statusText(f)
	}
	s.tell(t, f.level("INFO"), "platform.restoreReport", func() record {
		return f.outcome(record{"metrics": record{"durationMs": milliseconds(d)}})
	}, text+"\n")
}

// join says which trace the next invocation belongs to.
func (s *systemLog) join(tr invocationTrace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace = tr
}

func (s *systemLog) joined() invocationTrace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trace
}

// start tells of the start of an invocation: START.
func (s *systemLog) start(t time.Time, requestID string) {
	s.mu.Lock()
	s.requestID, s.began = requestID, t
	s.mu.Unlock()
	s.tell(t, "INFO", "platform.start", func() record {
		return s.invocation(requestID, record{"version": s.version.Version})
	}, "START RequestId: "+requestID+" Version: "+s.version.Version+"\n")
}

// runtimeDone tells, once, that the runtime has finished an invocation, or never
// will.
func (s *systemLog) runtimeDone(t time.Time, timing host.Timing, f *failure) {
	s.mu.Lock()
	requestID, began := s.requestID, s.began
	if s.requestID = ""; requestID != "" {
		s.done = t
	}
	s.mu.Unlock()
	if requestID == "" {
		return
	}
	s.tell(t, "DEBUG", "platform.runtimeDone", func() record {
		r := record{"metrics": record{"durationMs": milliseconds(t.Sub(began)), "producedBytes": timing.Produced}}
		if spans := runtimeSpans(began, timing); len(spans) > 0 {
			r["spans"] = spans
		}
		return s.invocation(requestID, f.outcome(r))
	}, "")
}

// span is a part of an invocation.
type span struct {
	Name       string  `json:"name"`
	Start      string  `json:"start"`
	DurationMs float64 `json:"durationMs"`
}

func newSpan(name string, start, end time.Time) span {
	return span{name, start.UTC().Format(timeFormat), milliseconds(end.Sub(start))}
}

// runtimeSpans returns the parts of an invocation that its runtime took.
func runtimeSpans(began time.Time, t host.Timing) (spans []span) {
	if t.Response.IsZero() || t.ResponseEnd.IsZero() {
		return nil
	}
	spans = append(spans, newSpan("responseLatency", began, t.Response), newSpan("responseDuration", t.Response, t.ResponseEnd))
	if !t.Done.IsZero() {
		spans = append(spans, newSpan("runtimeOverhead", t.ResponseEnd, t.Done))
	}
	return spans
}

// end tells of the end of an invocation, END and REPORT, and hands over what the
// invocation used.
func (s *systemLog) end(t time.Time, r *report) {
	r.Function, r.Version = s.version.Name, s.version.Version
	r.Architecture, r.MemoryMB, r.EphemeralMB = s.version.Architecture, s.version.MemoryMB, s.version.EphemeralMB
	r.Provisioned = s.initType == initProvisioned
	r.Status = "success"
	if r.failure != nil {
		r.Status, r.ErrorType = r.failure.status, r.failure.errorType
	}
	s.runtimeDone(t, host.Timing{}, r.failure) // where the runtime never was
	s.mu.Lock()
	if s.extended {
		r.PostRuntime = t.Sub(s.done)
	}
	s.mu.Unlock()
	if r.failure != nil && r.failure.platform {
		s.onlyTelemetry(t, "platform.fault", func() any { return fmt.Sprintf("RequestId: %s Error: %s", r.RequestID, r.failure.message) })
	}
	s.onlyTelemetry(t, "platform.end", func() any { return record{"requestId": r.RequestID} })
	if !s.json() {
		s.stream.add(t, "END RequestId: "+r.RequestID+"\n")
	}
	level := "INFO"
	if r.failure != nil {
		level = "WARN"
	}
	s.report(t, r, s.publish(t, level, "platform.report", func() record { return s.reportRecord(t, r) }, s.reportText(r)))
}

// onlyTelemetry tells the subscribers of an event of the older Logs API, which
// is in no log.
func (s *systemLog) onlyTelemetry(t time.Time, kind string, r func() any) {
	conn := s.subscribers.Load()
	if conn == nil || !conn.Wanted() {
		return
	}
	b, err := json.Marshal(r())
	if err != nil {
		panic(err) // strings
	}
	conn.Event(t, kind, b)
}

// reportText returns the REPORT line of the text format.
func (s *systemLog) reportText(r *report) string {
	var most [384]byte // has room for nearly all
	b := append(append(most[:0], "REPORT RequestId: "...), r.RequestID...)
	b = appendMilliseconds(append(b, "\tDuration: "...), r.Duration)
	b = strconv.AppendInt(append(b, "\tBilled Duration: "...), r.BilledMs(), 10)
	b = strconv.AppendInt(append(b, " ms\tMemory Size: "...), int64(r.MemoryMB), 10)
	b = strconv.AppendInt(append(b, " MB\tMax Memory Used: "...), int64(r.MaxMemoryMB), 10)
	b = append(b, " MB\t"...)
	if r.Init > 0 {
		b = append(appendMilliseconds(append(b, "Init Duration: "...), r.Init), '\t')
	}
	if r.Restore > 0 {
		b = appendMilliseconds(append(b, "Restore Duration: "...), r.Restore)
		b = strconv.AppendInt(append(b, "\tBilled Restore Duration: "...), r.BilledRestore.Milliseconds(), 10)
		b = append(b, " ms\t"...)
	}
	if r.failure != nil && r.failure.platform {
		b = append(b, statusText(r.failure)...)
	}
	b = append(b, '\n')
	if tr := s.joined(); tr.sampled() {
		b = fmt.Appendf(b, "XRAY TraceId: %s\tSegmentId: %s\tSampled: true\t\n", tr.header.Root, tr.header.Parent)
	}
	return string(b)
}

// appendMilliseconds appends d as REPORT lines have it.
func appendMilliseconds(b []byte, d time.Duration) []byte {
	return append(strconv.AppendFloat(b, milliseconds(d), 'f', 2, 64), " ms"...)
}

// reportRecord returns the record of platform.report.
func (s *systemLog) reportRecord(t time.Time, r *report) record {
	metrics := record{
		"durationMs": milliseconds(r.Duration), "billedDurationMs": r.BilledMs(),
		"memorySizeMB": r.MemoryMB, "maxMemoryUsedMB": r.MaxMemoryMB,
	}
	if r.Init > 0 {
		metrics["initDurationMs"] = milliseconds(r.Init)
	}
	if r.Restore > 0 {
		metrics["restoreDurationMs"], metrics["billedRestoreDurationMs"] = milliseconds(r.Restore), r.BilledRestore.Milliseconds()
	}
	rec := record{"metrics": metrics}
	if r.PostRuntime > 0 {
		rec["spans"] = []span{newSpan("extensionOverhead", t.Add(-r.PostRuntime), t)}
	}
	return s.invocation(r.RequestID, r.failure.outcome(rec))
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

// invocation completes the record of an event that concerns an invocation.
// Functions with tenant isolation have the tenant in it (Lambda developer guide,
// "Tenant isolation").
func (s *systemLog) invocation(requestID string, r record) record {
	r["requestId"] = requestID
	if s.tenant != "" {
		r["tenantId"] = s.tenant
	}
	if tr := s.joined(); tr.sampled() {
		r["tracing"] = tr.tracing()
	}
	return r
}

func statusText(f *failure) string {
	if f.status == statusTimeout {
		return "Status: timeout"
	}
	return "Status: " + f.status + "\tError Type: " + f.errorType
}

// outcome completes the record of an event that tells of success or failure; f
// may be nil.
func (f *failure) outcome(r record) record {
	r["status"] = "success"
	if f != nil {
		r["status"], r["errorType"] = f.status, f.errorType
	}
	return r
}

// level returns the log level of an event that tells of success, at its own
// level, or failure; f may be nil.
func (f *failure) level(success string) string {
	if f != nil {
		return "WARN"
	}
	return success
}

// milliseconds returns d in ms, to three decimals.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
