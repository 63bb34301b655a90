package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
)

const (
	// tailSize is how much of its log an invocation can have returned.
	tailSize = 4096
	// flushAfter and flushBytes bound what waits to be handed to the store.
	flushAfter = 50 * time.Millisecond
	flushBytes = 64 * 1024
)

// levels orders the log levels of Lambda's advanced logging controls.
var levels = map[string]int{"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4, "FATAL": 5}

// defaultLevel is the level of what tells none (Lambda developer guide,
// "Configuring JSON and plain text log formats").
const defaultLevel = "INFO"

// logStream is the log stream of one environment. Lines go to the store in
// small batches, so that writing a line costs an invocation next to nothing.
type logStream struct {
	store  Logs
	config function.Logging
	name   string
	began  time.Time // of the environment
	log    *slog.Logger

	flushing sync.Mutex // keeps the batches in order; taken before mu

	mu        sync.Mutex
	pending   []logLine
	bytes     int
	timer     *time.Timer // set while a flush is due
	requestID string      // of the invocation under way
	tail      []byte      // of the invocation under way, where tailing
	tailing   bool
}

// logLine is a log event that waits to be handed to the store.
type logLine struct {
	logstore.Event
	receipt meter.Receipt // of a REPORT line, which goes after its usage
}

// streamName is YYYY/MM/DD/[version]environment, preceded by the function's
// name where functions share a log group.
func streamName(v *function.Version, id string, now time.Time) string {
	own := ""
	if v.Logging.Group != "/aws/lambda/"+v.Name {
		own = v.Name
	}
	return fmt.Sprintf("%s/%s[%s]%s", now.UTC().Format("2006/01/02"), own, v.Version, id)
}

// begin starts the log of one invocation.
func (l *logStream) begin(requestID string, tail bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requestID, l.tailing, l.tail = requestID, tail, l.tail[:0]
}

// end finishes it and returns its tail.
func (l *logStream) end() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requestID = ""
	if !l.tailing {
		return nil
	}
	l.tailing = false
	return append([]byte{}, l.tail[max(0, len(l.tail)-tailSize):]...)
}

// function takes a line that the function or an extension printed.
func (l *logStream) function(meta proto.Log, msg []byte) {
	t := time.UnixMicro(meta.TimeUs)
	if now := time.Now(); t.After(now) || t.Before(l.began) {
		t = now // the function can claim any time
	}
	if l.config.Format != "JSON" {
		l.add(t, string(msg)+"\n")
		return
	}
	level, line := meta.Level, string(msg)
	var record struct {
		Level    json.RawMessage `json:"level"` // a number, for some libraries
		LogLevel json.RawMessage `json:"log_level"`
	}
	if len(msg) > 0 && msg[0] == '{' && json.Unmarshal(msg, &record) == nil {
		level = firstOf(levelName(record.Level), levelName(record.LogLevel), level)
	} else {
		line = l.wrap(t, firstOf(level, defaultLevel), line)
	}
	n, known := levels[level]
	if !known {
		n = levels[defaultLevel]
	}
	if n < levels[firstOf(l.config.ApplicationLevel, defaultLevel)] {
		return
	}
	l.add(t, line)
}

// levelName returns the level that a JSON value names, if it is a string.
func levelName(v json.RawMessage) string {
	var s string
	if len(v) == 0 || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return strings.ToUpper(s)
}

// wrap makes a JSON line of a text line, as Lambda does in the JSON log format.
func (l *logStream) wrap(t time.Time, level, line string) string {
	l.mu.Lock()
	id := l.requestID
	l.mu.Unlock()
	return string(proto.WrapLine(t, level, line, id))
}

// add appends one event.
func (l *logStream) add(t time.Time, message string) { l.addReport(t, message, nil) }

// addReport appends a REPORT line.
func (l *logStream) addReport(t time.Time, message string, receipt meter.Receipt) {
	l.mu.Lock()
	if l.tailing {
		l.tail = append(l.tail, message...)
		if !strings.HasSuffix(message, "\n") {
			l.tail = append(l.tail, '\n')
		}
		if len(l.tail) > 4*tailSize {
			l.tail = append(l.tail[:0], l.tail[len(l.tail)-tailSize:]...)
		}
	}
	l.pending = append(l.pending, logLine{logstore.Event{Time: t, Message: message}, receipt})
	l.bytes += len(message)
	full := l.bytes >= flushBytes
	if !full && l.timer == nil {
		l.timer = time.AfterFunc(flushAfter, l.flush)
	}
	l.mu.Unlock()
	if full {
		l.flush() // here, so that a function does not print faster than the store takes it
	}
}

// flush hands what waits to the store. Lines can be added meanwhile.
func (l *logStream) flush() {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.mu.Lock()
	lines := l.pending
	l.pending, l.bytes = nil, 0
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.mu.Unlock()

	events := make([]logstore.Event, 0, len(lines))
	var receipts []meter.Receipt
	for _, line := range lines {
		if line.receipt != nil {
			if line.receipt.Written() != nil {
				continue // its keeper has said so, and brings it to the log later
			}
			receipts = append(receipts, line.receipt)
		}
		events = append(events, line.Event)
	}
	if len(events) == 0 {
		return
	}
	// A full queue shows in the function's own log, by a line that counts what
	// was dropped.
	err := l.store.Append(l.config.Group, l.name, events)
	if err != nil && !errors.Is(err, logstore.ErrQueueFull) {
		l.log.Error("function log was not stored", "group", l.config.Group, "stream", l.name, "events", len(events), "error", err)
	}
	for _, r := range receipts {
		r.Logged(err)
	}
}

func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
