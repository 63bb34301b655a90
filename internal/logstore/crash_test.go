package logstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/killtest"
)

func TestMain(m *testing.M) { killtest.Main(m, writeUntilKilled) }

const crashWriters = 4

// writeUntilKilled puts events by several writers and prints each one that was
// acknowledged as "writer number".
func writeUntilKilled(dir string) error {
	s, err := Open(dir, Options{SegmentBytes: 32 << 10})
	if err != nil {
		return err
	}
	if err := s.CreateGroup("g", nil); err != nil && !errors.Is(err, ErrGroupExists) {
		return err
	}
	var out sync.Mutex
	errs := make(chan error)
	for w := range crashWriters {
		go func() {
			name := fmt.Sprint("s", w)
			if err := s.CreateStream("g", name); err != nil && !errors.Is(err, ErrStreamExists) {
				errs <- err
				return
			}
			last, err := lastNumber(s, name)
			if err != nil {
				errs <- err
				return
			}
			for i := last + 1; ; i++ {
				e := Event{Time: time.Now(), Message: fmt.Sprintf("%d %s", i, strings.Repeat("x", i%300))}
				if err := s.Append("noise", name, []Event{e, e}); err != nil {
					errs <- err
					return
				}
				if err := s.Put(context.Background(), "g", name, []Event{e}); err != nil {
					errs <- err
					return
				}
				out.Lock()
				fmt.Println(w, i)
				out.Unlock()
			}
		}()
	}
	return <-errs
}

func lastNumber(s *Store, stream string) (int, error) {
	for r, err := range s.Read(context.Background(), "g", ReadOptions{Streams: one(stream), Backward: true}) {
		if err != nil {
			return 0, err
		}
		number, _, _ := strings.Cut(r.Message, " ")
		return strconv.Atoi(number)
	}
	return 0, nil
}

func TestKillLosesNothingThatPutAcknowledged(t *testing.T) {
	dir := t.TempDir()
	var acked [crashWriters]int
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		p, n := killtest.Start(t, dir), 0
		for line := range p.Lines() {
			var w, i int
			if _, err := fmt.Sscan(line, &w, &i); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			acked[w] = i
			if n++; n == 200+37*round {
				p.Kill()
			}
		}
		p.Wait()

		s, err := Open(dir, Options{Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		for w, last := range acked {
			next := 1
			for _, r := range read(t, s, "g", ReadOptions{Streams: one(fmt.Sprint("s", w))}) {
				number, text, _ := strings.Cut(r.Message, " ")
				if number != fmt.Sprint(next) || len(text) != next%300 {
					t.Fatalf("round %d: writer %d: got event %s, want %d", round, w, number, next)
				}
				next++
			}
			if next <= last {
				t.Errorf("round %d: writer %d: events from %d to %d are lost", round, w, next, last)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func logFile(t *testing.T, dir string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "g*", "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs: %v, %v", logs, err)
	}
	return logs[0]
}

func TestTornTailIsCutAtAnyByte(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	now := time.Now()
	for i := range 3 {
		if err := s.Append("g", "s", events(now, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		read(t, s, "g", ReadOptions{}) // a block each
	}
	blocks := segmentsOf(s, "g")[0].blocks
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := logFile(t, dir)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := range whole {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i, b := range blocks {
			if int(b.offset)+b.length <= size {
				want = append(want, fmt.Sprint(i))
			}
		}
		s := openStore(t, dir, Options{})
		wantMessages(t, read(t, s, "g", ReadOptions{}), want...)
		if err := s.Append("g", "s", events(now.Add(time.Second), "new")); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, read(t, s, "g", ReadOptions{}), append(want, "new")...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("with %d of %d bytes", size, len(whole))
		}
	}
}

func TestDamagedBlockHidesOnlyItsOwnEvents(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	for i := range 3 {
		if err := s.Append("g", "s", events(time.Now(), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		read(t, s, "g", ReadOptions{})
	}
	middle := segmentsOf(s, "g")[0].blocks[1]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := logFile(t, dir)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[int(middle.offset)+middle.length-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	wantMessages(t, read(t, s, "g", ReadOptions{}), "0", "2")
}

// breakLog makes the next write of a group fail, as a full disk does.
func breakLog(t *testing.T, g *group) {
	t.Helper()
	g.io.Lock()
	defer g.io.Unlock()
	if err := g.file.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.file, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
}

func TestFailedWriteIsReportedAndLeavesAMarker(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	now := time.Now()
	if err := s.Append("g", "s", events(now, "before")); err != nil {
		t.Fatal(err)
	}
	read(t, s, "g", ReadOptions{})

	breakLog(t, s.groups["g"])
	if err := s.Put(t.Context(), "g", "s", events(now, "put")); err == nil {
		t.Error("Put to a log that cannot be written succeeds")
	}
	if err := s.Put(t.Context(), "g", "s", events(now.Add(time.Second), "put again")); err != nil {
		t.Fatal(err)
	}
	breakLog(t, s.groups["g"])
	if err := s.Append("g", "s", events(now.Add(2*time.Second), "one", "two")); err != nil {
		t.Fatal(err)
	}
	s.groups["g"].flushPending() // fails
	wantMessages(t, read(t, s, "g", ReadOptions{}), "before", "put again",
		"[lapwing] dropped 2 lines (6 bytes) here: they could not be written")
	if n := s.Stats().DroppedEvents; n != 2 {
		t.Errorf("%d events dropped, want 2", n)
	}
}

func TestInterruptedSealIsCleanedUp(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	if err := s.Append("g", "s", events(time.Now(), "a", "b")); err != nil {
		t.Fatal(err)
	}
	read(t, s, "g", ReadOptions{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	log := logFile(t, dir)
	old, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	g := s.groups["g"]
	g.io.Lock()
	if err := g.rotate(); err != nil {
		t.Fatal(err)
	}
	g.io.Unlock()
	s.maintainOnce(t.Context())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The crash came after the sealed segment was there and before the log went,
	// with another seal under way.
	if err := os.WriteFile(log, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(log), "00000001-00000009.1.seg.tmp"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	wantMessages(t, read(t, s, "g", ReadOptions{}), "a", "b")
	files, err := filepath.Glob(filepath.Join(filepath.Dir(log), "0*"))
	if err != nil || len(files) != 1 || filepath.Ext(files[0]) != sealedSuffix {
		t.Errorf("files %v, %v", files, err)
	}
}
