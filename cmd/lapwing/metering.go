package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/usage"
)

// Names below the data directory.
const (
	usageDir   = "usage"
	pricesFile = "prices.json"
)

// openUsage opens the journal of what invocations used. The log store must be
// open, and closed after it.
func (s *server) openUsage() (err error) {
	if err := meter.EnsurePrices(filepath.Join(s.opts.data, pricesFile)); err != nil {
		return err
	}
	s.usage, err = usage.Open(filepath.Join(s.opts.data, usageDir), usage.Options{Logs: reportLines{s.events}, Logger: s.log})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.usage.Close() })
	return nil
}

// reportLines gives the usage journal the log store.
type reportLines struct{ *logstore.Store }

// Append implements usage.Logs.
func (l reportLines) Append(group, stream string, lines []meter.Report) error {
	events := make([]logstore.Event, len(lines))
	for i, r := range lines {
		events[i] = logstore.Event{Time: r.Time, Message: r.Message}
	}
	return l.Store.Append(group, stream, events)
}

// Dropped implements usage.Logs.
func (l reportLines) Dropped() int64 { return l.Stats().DroppedEvents }

// Messages implements usage.Logs.
func (l reportLines) Messages(group, stream string, from, to time.Time, f func(message string) bool) error {
	opts := logstore.ReadOptions{
		Streams: func(name string) bool { return name == stream },
		Start:   from, End: to.Add(time.Millisecond), // the store keeps milliseconds
	}
	for r, err := range l.Read(context.Background(), group, opts) {
		if errors.Is(err, logstore.ErrGroupNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !f(r.Message) {
			return nil
		}
	}
	return nil
}
