package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
)

// storeLogs are the lines in a log store.
type storeLogs struct{ *logstore.Store }

func (l storeLogs) Append(group, stream string, lines []meter.Report) error {
	events := make([]logstore.Event, len(lines))
	for i, r := range lines {
		events[i] = logstore.Event{Time: r.Time, Message: r.Message}
	}
	return l.Store.Append(group, stream, events)
}

func (l storeLogs) Dropped() int64 { return l.Stats().DroppedEvents }

func (l storeLogs) Messages(group, stream string, from, to time.Time, f func(string) bool) error {
	opts := logstore.ReadOptions{Streams: func(s string) bool { return s == stream }, Start: from, End: to.Add(time.Millisecond)}
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

// memoryLogs are lines in memory.
type memoryLogs struct {
	mu      sync.Mutex
	lines   []meter.Report
	dropped int64
	syncErr error
	synced  int // lines
}

func (l *memoryLogs) Append(_, _ string, lines []meter.Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, lines...)
	return nil
}

func (l *memoryLogs) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.syncErr == nil {
		l.synced = len(l.lines)
	}
	return l.syncErr
}

func (l *memoryLogs) Dropped() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

func (l *memoryLogs) Messages(group, stream string, from, to time.Time, f func(string) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.lines {
		if r.Group == group && r.Stream == stream && !r.Time.Before(from) && !r.Time.After(to) && !f(r.Message) {
			return nil
		}
	}
	return nil
}

func (l *memoryLogs) count(message string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.lines {
		if r.Message == message {
			n++
		}
	}
	return n
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func open(t *testing.T, dir string, logs Logs, opts Options) *Journal {
	t.Helper()
	opts.Logs, opts.Logger = logs, testLog(t)
	j, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// noSettling leaves settling to the test.
const noSettling = time.Hour

var began = time.Date(2026, 11, 29, 23, 59, 59, 0, time.UTC)

func usageOf(function string, d time.Duration) *meter.Usage {
	return &meter.Usage{Function: function, Version: "1", Architecture: "arm64", MemoryMB: 128, EphemeralMB: 512, Began: began, Duration: d}
}

func line(message string) meter.Report {
	return meter.Report{Group: "g", Stream: "s", Time: began, Message: message}
}

// log is what a worker does with a receipt.
func logTo(t *testing.T, logs Logs, r meter.Receipt, l meter.Report) {
	t.Helper()
	if err := r.Written(); err != nil {
		t.Fatal(err)
	}
	r.Logged(logs.Append(l.Group, l.Stream, []meter.Report{l}))
}

func total(t *testing.T, dir string) (q meter.Quantities) {
	t.Helper()
	rows, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		q.Add(r.Quantities)
	}
	return q
}

func TestUsageIsReadByDayFunctionAndVersion(t *testing.T) {
	dir, logs := t.TempDir(), &memoryLogs{}
	j := open(t, dir, logs, Options{})
	tomorrow := usageOf("a", 3*time.Millisecond)
	tomorrow.Began = began.Add(time.Second)
	for _, u := range []*meter.Usage{usageOf("b", 1500*time.Microsecond), usageOf("a", time.Millisecond), tomorrow, usageOf("a", time.Millisecond)} {
		if err := j.Record(u, meter.Report{}).Written(); err != nil {
			t.Fatal(err)
		}
	}
	j.Allocate(meter.Allocation{Function: "a", Version: "1", Architecture: "arm64", MemoryMB: 1, Environments: 1, From: began, To: began.Add(time.Second)}, began, false)
	check := func() {
		t.Helper()
		rows, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprint(r.Day, r.Function, r.Version, r.Architecture, " ", r.Requests, " ", r.BilledMs, " ", r.AllocatedMBMs))
		}
		want := "[2026-11-29a1arm64 2 2 1000 2026-11-29b1arm64 1 2 0 2026-11-30a1arm64 1 3 0]"
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	check()
	open(t, dir, logs, Options{SettleEvery: noSettling}) // folds
	if segments, err := listSegments(dir); err != nil || len(segments) != 0 {
		t.Errorf("segments %v, %v: all were settled and should be folded", segments, err)
	}
	check()
}

func TestNothingKeptReadsAsNothing(t *testing.T) {
	if rows, err := Read(filepath.Join(t.TempDir(), "none")); len(rows) != 0 || err != nil {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestLineThatTheLogLacksIsGivenBackOnce(t *testing.T) {
	dir, logs := t.TempDir(), &memoryLogs{}
	j := open(t, dir, logs, Options{SettleEvery: noSettling})
	kept, lost := line("kept"), line("lost")
	logTo(t, logs, j.Record(usageOf("f", time.Second), kept), kept)
	if err := j.Record(usageOf("f", time.Second), lost).Written(); err != nil {
		t.Fatal(err)
	}
	if err := j.lock.Close(); err != nil { // a crash: nothing is settled
		t.Fatal(err)
	}
	for range 3 {
		again, err := Open(dir, Options{Logs: logs, SettleEvery: noSettling})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.lock.Close(); err != nil {
			t.Fatal(err)
		}
		close(again.stop)
		again.done.Wait()
		if logs.count("kept") != 1 || logs.count("lost") != 1 {
			t.Fatalf("lines %v", logs.lines)
		}
		if q := total(t, dir); q.Requests != 2 || q.BilledMs != 2000 {
			t.Fatalf("usage %+v", q)
		}
	}
	j.lock = mustOpen(t, os.DevNull)
}

func mustOpen(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLineIsSettledOnlyWhenTheLogHasSyncedIt(t *testing.T) {
	dir, logs := t.TempDir(), &memoryLogs{syncErr: errors.New("disk full")}
	j := open(t, dir, logs, Options{SettleEvery: noSettling})
	logTo(t, logs, j.Record(usageOf("f", time.Second), line("x")), line("x"))
	if err := j.settle(); err == nil || len(j.unsettled) != 1 {
		t.Errorf("settled without a sync: %v", err)
	}
	logs.mu.Lock()
	logs.syncErr = nil
	logs.mu.Unlock()
	if err := j.settle(); err != nil || len(j.unsettled) != 0 {
		t.Errorf("not settled: %v", err)
	}
}

func TestLineThatTheLogDroppedIsGivenBack(t *testing.T) {
	logs := &memoryLogs{}
	j := open(t, t.TempDir(), logs, Options{SettleEvery: noSettling})
	logTo(t, logs, j.Record(usageOf("f", time.Second), line("x")), line("x"))
	logs.mu.Lock()
	logs.lines, logs.dropped = nil, 1
	logs.mu.Unlock()
	if err := j.settle(); err != nil || logs.count("x") != 1 || len(j.unsettled) != 0 {
		t.Errorf("%v, lines %v, %d unsettled", err, logs.lines, len(j.unsettled))
	}
}

func TestUsageWaitsForAFullDiskAndKeepsItsLineBack(t *testing.T) {
	dir, logs := t.TempDir(), &memoryLogs{}
	j := open(t, dir, logs, Options{SettleEvery: noSettling})
	logTo(t, logs, j.Record(usageOf("f", time.Second), line("before")), line("before"))
	// Nothing can be written: the segment is read-only, and the next one exists.
	blocked := make(chan struct{})
	release := make(chan struct{})
	go j.breakDisk(blocked, release)
	<-blocked
	r := j.Record(usageOf("f", time.Second), line("during"))
	close(release)
	if err := r.Written(); err == nil {
		t.Fatal("written to a disk that cannot be written")
	}
	if err := os.RemoveAll(segmentPath(dir, j.number+1)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the record to be written", func() bool {
		return total(t, dir).Requests == 2
	})
	waitFor(t, "its line to be given to the log", func() bool {
		if err := j.settle(); err != nil {
			t.Fatal(err)
		}
		return logs.count("during") == 1
	})
	if logs.count("before") != 1 {
		t.Errorf("lines %v", logs.lines)
	}
	logTo(t, logs, j.Record(usageOf("f", time.Second), line("after")), line("after"))
	if q := total(t, dir); q.Requests != 3 || q.BilledMs != 3000 {
		t.Errorf("usage %+v", q)
	}
}

// waitFor waits for what must happen on any machine.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestRecordsThatWereWrittenAgainCountOnce(t *testing.T) {
	dir := t.TempDir()
	frame := func(seq uint64) []byte {
		return appendFrame(nil, &record{Seq: seq, Usage: usageOf("f", time.Millisecond)})
	}
	write := func(n int, b []byte) {
		if err := os.WriteFile(segmentPath(dir, n), append([]byte(segmentHeader), b...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(1, append(append(frame(1), frame(2)...), frame(3)[:20]...)) // 3 is torn
	write(2, append(append(frame(2), frame(3)...), frame(4)...))
	if got := total(t, dir).Requests; got != 4 {
		t.Errorf("%d requests, want 4", got)
	}
	for range 2 { // a crash between the month's file and the removal of the segment
		if err := (&segment{path: segmentPath(dir, 1)}).fold(dir); err != nil {
			t.Fatal(err)
		}
		if got := total(t, dir).Requests; got != 4 {
			t.Errorf("%d requests with a segment folded and not removed, want 4", got)
		}
	}
	j := open(t, dir, &memoryLogs{}, Options{SettleEvery: noSettling})
	if got := total(t, dir).Requests; got != 4 {
		t.Errorf("%d requests with all folded, want 4", got)
	}
	if err := j.Record(usageOf("f", 0), meter.Report{}).Written(); err != nil {
		t.Fatal(err)
	}
	if got := total(t, dir).Requests; got != 5 {
		t.Errorf("%d requests, want 5: a new record must have a new number", got)
	}
}

func TestNewerFormatsAreRefused(t *testing.T) {
	for name, content := range map[string]string{"00000001.journal": "LWUSAGE2", "2026-11.json": `{"version":2}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); err == nil {
			t.Errorf("%s of a newer format is read", name)
		}
		if _, err := Open(dir, Options{Logs: &memoryLogs{}}); err == nil {
			t.Errorf("%s of a newer format is opened", name)
		}
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, &memoryLogs{}, Options{})
	if _, err := Open(dir, Options{Logs: &memoryLogs{}}); err == nil {
		t.Error("the journal is open twice")
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, &record{Seq: 7, Settled: 3}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := readFrame(b)
		if n < 0 || n > len(b) || err == nil && n == 0 && r.Seq != 0 {
			t.Errorf("record %+v of %d bytes in %d", r, n, len(b))
		}
	})
}

// BenchmarkRecord is what an invocation costs the journal before it is written.
func BenchmarkRecord(b *testing.B) {
	j, err := Open(b.TempDir(), Options{Logs: &memoryLogs{}})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	u := meter.Usage{
		RequestID: "8a6c2e0e-0d5f-4b3c-9c77-0f2f6e8c9d10", Function: "f", Version: "$LATEST", Architecture: "x86_64", MemoryMB: 1769, EphemeralMB: 512,
		Began: time.Now(), Duration: 1_234_567, MaxMemoryMB: 64, Status: "success",
	}
	l := meter.Report{
		Group: "/aws/lambda/f", Stream: "2026/11/29/[$LATEST]00000000000000000000000000000000", Time: time.Now(),
		Message: "REPORT RequestId: 8a6c2e0e-0d5f-4b3c-9c77-0f2f6e8c9d10\tDuration: 1.23 ms\tBilled Duration: 2 ms\tMemory Size: 1769 MB\tMax Memory Used: 64 MB\t\n",
	}
	var spare []byte
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		j.Record(&u, l)
		if n%64 == 0 { // as many as collect until they are written
			j.mu.Lock()
			taken := j.batch
			j.batch = newBatch(64)
			j.mu.Unlock()
			taken.encode(spare)
			spare = taken.frames
		}
	}
}

var billed = regexp.MustCompile(`Billed Duration: (\d+) ms`)

// billedIn returns the number of REPORT lines of a log store and the sum of
// what they bill; lines that are there twice fail the test.
func billedIn(t *testing.T, s *logstore.Store, groups ...string) (n, ms int64) {
	t.Helper()
	seen := map[string]bool{}
	for _, g := range groups {
		for r, err := range s.Read(t.Context(), g, logstore.ReadOptions{}) {
			if errors.Is(err, logstore.ErrGroupNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if seen[r.Message] {
				t.Errorf("twice in the log: %s", r.Message)
			}
			seen[r.Message] = true
			if m := billed.FindStringSubmatch(r.Message); m != nil {
				v, err := strconv.ParseInt(m[1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				n, ms = n+1, ms+v
			}
		}
	}
	return n, ms
}
