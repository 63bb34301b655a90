package state

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/killtest"
)

func TestMain(m *testing.M) { killtest.Main(m, writeUntilKilled) }

// writeUntilKilled makes every kind of write. It prints a line before each
// one, with the key and the count that it will have (0: deleted), and a line
// after it was acknowledged. Of a queue's messages it prints the ids.
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, Options{Dir: dir})
	if err != nil {
		return err
	}
	c, err := Collect[record](ctx, s, "records")
	if err != nil {
		return err
	}
	q, err := OpenQueue[record](ctx, s, "jobs")
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() {
		for i := 0; ; i++ {
			id, err := q.Add(ctx, record{Count: i}, fmt.Append(nil, "body ", i))
			if err == nil {
				fmt.Printf("queued %d %d\n", id, i)
				if i%3 != 0 {
					fmt.Printf("removing %d 0\n", id)
					if err = q.Remove(ctx, id); err == nil {
						fmt.Printf("removed %d 0\n", id)
					}
				}
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	for w := range 4 {
		go func() {
			for i := 1; ; i++ {
				key := fmt.Sprintf("%d/%d", w, i%7)
				item, ok := c.Get(key)
				count := item.Value.Count + 1
				remove := ok && i%5 == 0
				if remove {
					count = 0
				}
				fmt.Printf("try %s %d\n", key, count)
				var err error
				switch {
				case !ok:
					_, err = c.Create(ctx, key, record{Count: count})
				case remove:
					err = c.Delete(ctx, key, item.Revision)
				case i%2 == 0:
					_, err = c.Update(ctx, key, item.Revision, record{Count: count})
				default:
					_, err = c.Put(ctx, key, record{Count: count})
				}
				if err == nil {
					fmt.Printf("ok %s %d\n", key, count)
					var d Digest
					if d, _, err = s.Blobs().Put(ctx, strings.NewReader(fmt.Sprint(w, i, time.Now()))); err == nil {
						fmt.Printf("blob %s 0\n", d)
					}
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// TestKillLosesNothingAcknowledged kills a writing process 50 times over on one
// directory, and each time compares what it had acknowledged with what is
// there.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	const kills = 25
	dir := t.TempDir()
	acknowledged := map[string]int{} // key -> count, 0 where deleted
	tried := map[string]int{}        // of writes that were not acknowledged
	blobs := map[Digest]bool{}
	messages := map[string]map[string]int{"queued": {}, "removing": {}, "removed": {}} // id -> count
	writes := 0
	for round := range kills {
		crash(t, dir, 10+round%7*5, func(event, key string, count int) {
			switch event {
			case "try":
				tried[key] = count
			case "ok":
				acknowledged[key] = count
				delete(tried, key)
				writes++
			case "blob":
				blobs[Digest(key)] = true
			default:
				messages[event][key] = count
			}
		})
		s := open(t, dir)
		c := collect(t, s)
		for key, want := range acknowledged {
			item, _ := c.Get(key)
			if got := item.Value.Count; got != want {
				if maybe, ok := tried[key]; !ok || maybe != got {
					t.Fatalf("round %d: %s has count %d, acknowledged was %d", round, key, got, want)
				}
				acknowledged[key] = got
			}
		}
		clear(tried)
		for d := range blobs {
			if err := s.Blobs().Verify(d); err != nil {
				t.Fatal(err)
			}
		}
		checkMessages(t, queue(t, s), messages)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged writes, %d blobs and %d messages survived %d kills", writes, len(blobs), len(messages["queued"])-len(messages["removed"]), kills)
}

// checkMessages compares what is in a queue with what was acknowledged.
func checkMessages(t *testing.T, q *Queue[record], messages map[string]map[string]int) {
	t.Helper()
	there := map[string]bool{}
	ids, _ := heads(t, q)
	for _, id := range ids {
		there[fmt.Sprint(id)] = true
	}
	for key, count := range messages["queued"] {
		_, removing := messages["removing"][key]
		_, removed := messages["removed"][key]
		if removed && there[key] || !removing && !there[key] {
			t.Fatalf("message %s is there: %v, removal begun: %v, acknowledged: %v", key, there[key], removing, removed)
		}
		if !removing {
			id, err := strconv.ParseUint(key, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if h, body, err := q.Get(t.Context(), id); err != nil || h.Count != count || string(body) != fmt.Sprint("body ", count) {
				t.Fatalf("message %s: %+v %q %v", key, h, body, err)
			}
		}
	}
}

// crash runs a writing process on dir, kills it when it has printed so many
// acknowledgements, and reports all that it had printed. A line that the kill
// cut short does not count.
func crash(t *testing.T, dir string, acknowledgements int, report func(event, key string, count int)) {
	t.Helper()
	p := killtest.Start(t, dir)
	for line := range p.Lines() {
		var event, key string
		var count int
		if _, err := fmt.Sscan(line, &event, &key, &count); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		report(event, key, count)
		if event == "ok" {
			if acknowledgements--; acknowledgements == 0 {
				p.Kill()
			}
		}
	}
	p.Wait()
}

// snapshot copies the directory of an open store, as a crash would leave it.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestADeletedRecordStaysDeletedAfterItsMarkerExpired(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.markerTTL = time.Second // JetStream's least
	c := collect(t, s)
	ctx := t.Context()
	for _, k := range []string{"first", "k", "k", "k", "last"} {
		if _, err := c.Put(ctx, k, record{}); err != nil {
			t.Fatal(err)
		}
	}
	item, _ := c.Get("k")
	if err := c.Delete(ctx, "k", item.Revision); err != nil {
		t.Fatal(err)
	}
	for {
		info, err := c.stream.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs == 2 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	after := collect(t, open(t, snapshot(t, dir)))
	if got := keys(after.List("")); !slices.Equal(got, []string{"first", "last"}) {
		t.Errorf("after the crash: %v", got)
	}
	if _, err := c.Create(ctx, "k", record{}); err != nil {
		t.Errorf("Create after the marker expired: %v", err)
	}
}

// TestATornTailLosesOnlyWhatItHeld cuts and damages the end of the newest block
// file, as a power failure in the middle of a write may do.
func TestATornTailLosesOnlyWhatItHeld(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	c := collect(t, s)
	const n = 50
	size := func() int64 { return fileSize(t, newestBlock(t, dir)) }
	var before int64
	for i := range n {
		before = size()
		if _, err := c.Put(t.Context(), fmt.Sprintf("%02d", i), record{Name: strings.Repeat("x", 100)}); err != nil {
			t.Fatal(err)
		}
	}
	last := size() - before
	for name, damage := range map[string]func(f *os.File, size int64) error{
		"cut in the last record":    func(f *os.File, size int64) error { return f.Truncate(size - last/2) },
		"cut in the last header":    func(f *os.File, size int64) error { return f.Truncate(size - last + 3) },
		"last record's end is zero": func(f *os.File, size int64) error { _, err := f.WriteAt(make([]byte, last/2), size-last/2); return err },
		"zeros after the end":       func(f *os.File, size int64) error { return f.Truncate(size + 4096) },
		"garbage after the end": func(f *os.File, size int64) error {
			_, err := f.WriteAt([]byte(strings.Repeat("\xff\x01~", 500)), size)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			torn := snapshot(t, dir)
			block := newestBlock(t, torn)
			f, err := os.OpenFile(block, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(f, fileSize(t, block)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			s := open(t, torn)
			c := collect(t, s)
			want := n
			if !strings.Contains(name, "after") {
				want-- // the record that was torn
			}
			if c.Len() != want {
				t.Errorf("%d of %d records are there", c.Len(), want)
			}
			if _, err := c.Put(t.Context(), "new", record{}); err != nil {
				t.Errorf("Put after recovery: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if again := collect(t, open(t, torn)); again.Len() != want+1 {
				t.Errorf("%d of %d records are there after reopening", again.Len(), want+1)
			}
		})
	}
}

func newestBlock(t *testing.T, dir string) (newest string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "nats"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".blk") && path > newest {
			newest = path
		}
		return err
	})
	if err != nil || newest == "" {
		t.Fatal("no block file", err)
	}
	return newest
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
