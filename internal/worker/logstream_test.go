package worker

import (
	"log/slog"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/logstore"
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
