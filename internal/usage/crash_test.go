package usage

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/killtest"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
)

func TestMain(m *testing.M) { killtest.Main(m, recordUntilKilled) }

var crashGroups = []string{"/aws/lambda/f0", "/aws/lambda/f1", "/aws/lambda/f2"}

// recordUntilKilled does what workers do, with segments so small that they are
// folded all the time.
func recordUntilKilled(dir string) error {
	logs, err := logstore.Open(filepath.Join(dir, "logs"), logstore.Options{SegmentBytes: 32 << 10})
	if err != nil {
		return err
	}
	j, err := Open(filepath.Join(dir, "usage"), Options{Logs: storeLogs{logs}, SegmentBytes: 4 << 10, SettleEvery: 7 * time.Millisecond})
	if err != nil {
		return err
	}
	var first sync.Once
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			name := fmt.Sprint("f", w%3)
			for i := 0; ; i++ {
				u := &meter.Usage{
					RequestID: rand.Text(), Function: name, Version: "$LATEST", Architecture: "x86_64", MemoryMB: 128 + w,
					Began: time.Now().Add(-time.Duration(i%2) * 40 * 24 * time.Hour), Duration: time.Duration(mathrand.IntN(1e9)),
				}
				r := meter.Report{Group: "/aws/lambda/" + name, Stream: fmt.Sprint("s", w), Time: time.Now(), Message: fmt.Sprintf("REPORT RequestId: %s\tBilled Duration: %d ms\t\n", u.RequestID, u.BilledMs())}
				receipt := j.Record(u, r)
				go func() { // the batch of a log stream
					if receipt.Written() == nil {
						first.Do(func() { fmt.Println("recording") })
						receipt.Logged(storeLogs{logs}.Append(r.Group, r.Stream, []meter.Report{r}))
					}
				}()
				time.Sleep(time.Duration(mathrand.IntN(2e6)))
			}
		})
	}
	wg.Wait()
	return nil
}

func TestUsageIsWhatREPORTLinesSayAcrossKills(t *testing.T) {
	dir := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	var before int64
	for round := range rounds {
		p := killtest.Start(t, dir)
		// Every third kill is during recovery, or right after.
		if round%3 != 2 {
			for range p.Lines() {
				break // it records
			}
		}
		time.Sleep(time.Duration(mathrand.IntN(int(250 * time.Millisecond))))
		p.Kill()
		p.Wait()

		logs, err := logstore.Open(filepath.Join(dir, "logs"), logstore.Options{Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		lines, ms := billedIn(t, logs, crashGroups...)
		if q := total(t, filepath.Join(dir, "usage")); q.Requests < lines || q.BilledMs < ms || q.Requests < before {
			t.Errorf("round %d, before recovery: %d requests and %d ms kept, the log tells of %d and %d; it was %d requests", round, q.Requests, q.BilledMs, lines, ms, before)
		}
		if round%2 == 0 {
			j, err := Open(filepath.Join(dir, "usage"), Options{Logs: storeLogs{logs}, Logger: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			lines, ms = billedIn(t, logs, crashGroups...)
			q := total(t, filepath.Join(dir, "usage"))
			if q.Requests != lines || q.BilledMs != ms {
				t.Errorf("round %d: %d requests and %d ms kept, the log tells of %d and %d", round, q.Requests, q.BilledMs, lines, ms)
			}
			if before = q.Requests; before == 0 {
				t.Error("nothing was recorded")
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := logs.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d requests in %d rounds", before, rounds)
}
