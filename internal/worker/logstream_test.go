package worker

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
)

// keptLogs keeps log events in memory.
type keptLogs struct{ events []logstore.Event }

func (l *keptLogs) Append(_, _ string, events []logstore.Event) error {
	l.events = append(l.events, events...)
	return nil
}

func newStream(c function.Logging, began time.Time) (*logStream, *keptLogs) {
	kept := &keptLogs{}
	return &logStream{store: kept, config: c, name: "stream", began: began, log: slog.New(slog.DiscardHandler)}, kept
}

func TestJSONLogsAreFilteredByTheirLevel(t *testing.T) {
	for _, c := range []struct {
		line, application string
		meta              proto.Log
		kept              bool
	}{
		{line: `{"level":"WARN","message":"m"}`, application: "ERROR"},
		{line: `{"level":"error","message":"m"}`, application: "ERROR", kept: true},
		{line: `{"log_level":"ERROR"}`, application: "ERROR", kept: true},
		{line: `{"message":"m"}`, application: "INFO", kept: true},
		{line: `{"message":"m"}`, application: "WARN"},
		{line: `{"level":30,"msg":"m"}`, application: "INFO", kept: true},
		{line: `{"level":30,"msg":"m"}`, application: "WARN"},
		{line: `{"level":null,"msg":"m"}`, meta: proto.Log{Level: "ERROR"}, application: "WARN", kept: true},
		{line: `{"level":"chatty"}`, application: "INFO", kept: true},
	} {
		l, kept := newStream(function.Logging{Format: "JSON", ApplicationLevel: c.application}, time.Time{})
		l.function(c.meta, []byte(c.line))
		l.flush()
		if got := len(kept.events) == 1; got != c.kept {
			t.Errorf("%s at level %s: kept %t, want %t", c.line, c.application, got, c.kept)
		} else if got && kept.events[0].Message != c.line {
			t.Errorf("%s became %s", c.line, kept.events[0].Message)
		}
	}
}

func TestLogLinesHaveATimeWithinTheLifeOfTheirEnvironment(t *testing.T) {
	began := time.Now().Add(-time.Minute)
	for _, claimed := range []time.Time{began.Add(-time.Second), time.Now().Add(time.Hour), time.UnixMicro(1 << 62)} {
		l, kept := newStream(function.Logging{Format: "Text"}, began)
		l.function(proto.Log{TimeUs: claimed.UnixMicro()}, []byte("line"))
		l.flush()
		if got := kept.events[0].Time; got.Before(began) || got.After(time.Now()) {
			t.Errorf("a line that claims %v is kept as of %v", claimed, got)
		}
	}
}

func TestReportLineWaitsForItsUsage(t *testing.T) {
	l, kept := newStream(function.Logging{Format: "Text"}, time.Time{})
	m := &memoryMeter{released: make(chan struct{})}
	log := systemLog{stream: l, version: &function.Version{Name: "f", Version: "3", MemoryMB: 128}, meter: m}
	log.end(time.Now(), &report{Usage: meter.Usage{RequestID: "r", Duration: 1500 * time.Microsecond}})
	flushed := make(chan struct{})
	go func() { l.flush(); close(flushed) }()
	l.add(time.Now(), "of the next invocation\n") // which need not wait
	select {
	case <-flushed:
		t.Fatal("the log has the line before the usage was kept")
	default:
	}
	close(m.released)
	<-flushed
	l.flush()
	want := "REPORT RequestId: r\tDuration: 1.50 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tMax Memory Used: 0 MB\t\n"
	if n := len(kept.events); n != 3 || kept.events[0].Message != "END RequestId: r\n" || kept.events[1].Message != want {
		t.Errorf("kept %q", kept.events)
	}
	if m.logged != 1 || m.usage[0].Status != "success" || m.usage[0].Version != "3" || m.reports[0].Message != want {
		t.Errorf("usage %+v, report %+v, told %d times of the log", m.usage, m.reports, m.logged)
	}
}

func TestReportLineOfUsageThatIsNotKeptIsLeftToItsKeeper(t *testing.T) {
	l, kept := newStream(function.Logging{Format: "Text"}, time.Time{})
	m := &memoryMeter{err: errors.New("disk full")}
	log := systemLog{stream: l, version: &function.Version{}, meter: m}
	log.end(time.Now(), &report{Usage: meter.Usage{RequestID: "r"}})
	l.flush()
	if len(kept.events) != 1 || m.logged != 0 {
		t.Errorf("kept %q, told %d times of the log", kept.events, m.logged)
	}
}

func TestUsageIsRecordedWhereTheLogLevelLeavesOutREPORT(t *testing.T) {
	l, kept := newStream(function.Logging{Format: "JSON", SystemLevel: "WARN"}, time.Time{})
	m := &memoryMeter{}
	log := systemLog{stream: l, version: &function.Version{}, meter: m}
	log.end(time.Now(), &report{Usage: meter.Usage{RequestID: "quiet"}})
	log.end(time.Now(), &report{Usage: meter.Usage{RequestID: "loud"}, failure: crashFailure()})
	l.flush()
	if len(m.usage) != 2 || m.reports[0].Message != "" || len(kept.events) != 1 || m.usage[1].Status != "error" {
		t.Errorf("usage %+v, reports %+v, kept %q", m.usage, m.reports, kept.events)
	}
}
