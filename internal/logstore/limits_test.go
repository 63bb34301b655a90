package logstore

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// diskSize is the size of all segments in dir.
func diskSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRetentionHidesAtOnceAndRemovesInTheBackground(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(dir, Options{Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		start := time.Now()
		for d := range 4 {
			if err := s.Append("g", fmt.Sprint("day", d), events(time.Now(), fmt.Sprint(d))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(24 * time.Hour)
		}
		if err := s.Append("other", "s", events(start, "kept")); err != nil {
			t.Fatal(err)
		}
		if err := s.CreateStream("g", "explicit"); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, read(t, s, "g", ReadOptions{}), "0", "1", "2", "3")
		if err := s.SetRetention("g", 3); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, read(t, s, "g", ReadOptions{}), "1", "2", "3")
		time.Sleep(10 * 24 * time.Hour)
		synctest.Wait()
		wantMessages(t, read(t, s, "g", ReadOptions{}))
		wantMessages(t, read(t, s, "other", ReadOptions{}), "kept")
		g, err := s.Group("g")
		if err != nil || g.StoredBytes != 0 {
			t.Errorf("stored bytes %d, %v", g.StoredBytes, err)
		}
		streams, err := s.Streams("g")
		if err != nil || len(streams) != 1 || streams[0].Name != "explicit" {
			t.Errorf("streams %v, %v", streams, err)
		}
		// The name of a stream that went is free again.
		if err := s.Append("g", "day0", events(time.Now(), "again")); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, read(t, s, "g", ReadOptions{Streams: one("day0")}), "again")
	})
}

func TestRetentionRemovesWholeSegmentsOfAGroupThatGoesOnLogging(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(dir, Options{Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.CreateGroup("g", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.SetRetention("g", 1); err != nil {
			t.Fatal(err)
		}
		for h := range 24 * 5 {
			if err := s.Append("g", "s", events(time.Now(), fmt.Sprint(h))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		if n := len(read(t, s, "g", ReadOptions{})); n != 24 {
			t.Errorf("%d events readable, want the last 24", n)
		}
		g, err := s.Group("g")
		if err != nil {
			t.Fatal(err)
		}
		if n := g.StoredBytes / (EventOverhead + 2); n > 24*3/2 {
			t.Errorf("about %d events stored, want few more than 24", n)
		}
	})
}

// chatter returns lines that do not compress well.
func chatter(r *rand.Rand, at time.Time, n int) []Event {
	out := make([]Event, n)
	for i := range out {
		var b strings.Builder
		for b.Len() < 200 {
			fmt.Fprintf(&b, "%x ", r.Uint64())
		}
		out[i] = Event{Time: at, Message: b.String()}
	}
	return out
}

func TestChattyFunctionShortensOnlyItsOwnHistory(t *testing.T) {
	dir := t.TempDir()
	const budget, segmentBytes = 2 << 20, 256 << 10
	s := openStore(t, dir, Options{DiskBudget: budget, SegmentBytes: segmentBytes, QueueBytes: segmentBytes})
	start := time.Now().Add(-time.Hour)
	for i := range 100 {
		if err := s.Append("quiet", "s", events(start.Add(time.Duration(i)*time.Second), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		for {
			err := s.Append("chatty", fmt.Sprint("s", i/10), chatter(r, start.Add(time.Duration(i)*time.Second), 100))
			if err == nil {
				break
			}
			if !errors.Is(err, ErrQueueFull) { // where the machine is busy
				t.Fatal(err)
			}
		}
		if n := diskSize(t, dir); n > budget+8*segmentBytes {
			t.Fatalf("%d bytes on disk with a budget of %d", n, budget)
		}
	}
	read(t, s, "chatty", ReadOptions{})
	s.maintainOnce(t.Context())
	if n := diskSize(t, dir); n > budget+segmentBytes {
		t.Errorf("%d bytes on disk with a budget of %d", n, budget)
	}
	if n := len(read(t, s, "quiet", ReadOptions{})); n != 100 {
		t.Errorf("%d events of the quiet group are left, want 100", n)
	}
	got := read(t, s, "chatty", ReadOptions{})
	if len(got) < 1000 || got[len(got)-1].Time.Before(start.Add(399*time.Second).Truncate(time.Millisecond)) {
		t.Errorf("%d events of the chatty group are left; the latest must be", len(got))
	}
	streams, err := s.Streams("chatty")
	if err != nil || len(streams) >= 40 || streams[len(streams)-1].Name != "s39" {
		t.Errorf("%d streams, %v", len(streams), err)
	}
}

func TestMemoryIsBoundedWhenTheDiskIsStuck(t *testing.T) {
	const queue = 1 << 20
	s := openStore(t, t.TempDir(), Options{QueueBytes: queue})
	if err := s.Append("g", "s", events(time.Now(), "first")); err != nil {
		t.Fatal(err)
	}
	read(t, s, "g", ReadOptions{})
	g := s.groups["g"]
	g.io.Lock() // a write that does not return
	r := rand.New(rand.NewPCG(1, 2))
	lines := chatter(r, time.Now(), 1000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sent, full := 0, 0
	for range 200 {
		if err := s.Append("g", "s", lines); errors.Is(err, ErrQueueFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
		sent += len(lines)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4*queue {
		t.Errorf("heap grew by %d bytes with a queue of %d", grown, queue)
	}
	if full == 0 {
		t.Error("nothing was refused")
	}
	g.io.Unlock()

	got := read(t, s, "g", ReadOptions{})
	marker := got[len(got)-1].Message
	var dropped, size int
	if _, err := fmt.Sscanf(marker, "[lapwing] dropped %d lines (%d bytes)", &dropped, &size); err != nil {
		t.Fatalf("last line is %q: %v", marker, err)
	}
	if len(got)-2+dropped != sent {
		t.Errorf("%d lines stored and %d reported as dropped, of %d", len(got)-2, dropped, sent)
	}
	if int64(dropped) != s.Stats().DroppedEvents || s.Stats().QueuedBytes != 0 {
		t.Errorf("stats %+v, %d dropped", s.Stats(), dropped)
	}
}

func TestAppendWaitsForASlowDiskBeforeItDrops(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{QueueBytes: 64 << 10})
	r := rand.New(rand.NewPCG(1, 2))
	if err := s.Append("g", "s", events(time.Now(), "first")); err != nil {
		t.Fatal(err)
	}
	read(t, s, "g", ReadOptions{})
	g := s.groups["g"]
	for range 5 { // each is four times what fits in the queue
		g.io.Lock() // the disk is slow
		time.AfterFunc(queueWait/10, g.io.Unlock)
		if err := s.Append("g", "s", chatter(r, time.Now(), 256)); err != nil && !errors.Is(err, ErrQueueFull) {
			t.Fatal(err)
		}
	}
	// Where the test's machine stands still, fewer.
	if n := len(read(t, s, "g", ReadOptions{})); n < 256 {
		t.Errorf("%d events, want %d", n, 5*256)
	}
}

func TestTooManyStreamsDropTheOldest(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxStreams: 64, SegmentBytes: 4 << 10})
	for i := range 300 {
		if err := s.Append("g", fmt.Sprintf("s%03d", i), events(time.Now(), strings.Repeat("x", 500))); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 {
			read(t, s, "g", ReadOptions{})
			s.maintainOnce(t.Context())
		}
	}
	streams, err := s.Streams("g")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(streams); n > 64+8 || n < 16 || streams[n-1].Name != "s299" {
		t.Errorf("%d streams, the last is %s", n, streams[n-1].Name)
	}
	if err := s.CreateStream("g", "x"); err != nil && !errors.Is(err, ErrTooManyStreams) {
		t.Error(err)
	}
}

func TestDeletedStreamAndGroupComeBackEmpty(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	for _, name := range []string{"a", "b"} {
		if err := s.Append("g", name, events(time.Now(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteStream("g", "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteStream("g", "a"); !errors.Is(err, ErrStreamNotFound) {
		t.Errorf("deleting again: %v", err)
	}
	wantMessages(t, read(t, s, "g", ReadOptions{}), "b")
	if err := s.Append("g", "a", events(time.Now(), "new a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	wantMessages(t, read(t, s, "g", ReadOptions{}), "b", "new a")
	if err := s.DeleteGroup("g"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteGroup("g"); !errors.Is(err, ErrGroupNotFound) {
		t.Errorf("deleting again: %v", err)
	}
	if s.Stats().Streams != 0 || s.Stats().DiskBytes != 0 {
		t.Errorf("stats %+v", s.Stats())
	}
	if err := s.Append("g", "a", events(time.Now(), "again")); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, read(t, s, "g", ReadOptions{}), "again")
	dirs, err := os.ReadDir(dir)
	if err != nil || len(dirs) != 2 { // the group and the lock
		t.Errorf("left behind: %v, %v", dirs, err)
	}
}

func TestSubscriptionSeesNewEventsAndCountsWhatItMissed(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	sub := s.Subscribe([]string{"g"}, func(_, stream, message string) bool { return stream == "s" && message != "no" })
	if err := s.Append("g", "s", events(time.Now(), "yes", "no")); err != nil {
		t.Fatal(err)
	}
	if err := s.Append("g", "t", events(time.Now(), "other stream")); err != nil {
		t.Fatal(err)
	}
	if err := s.Append("h", "s", events(time.Now(), "other group")); err != nil {
		t.Fatal(err)
	}
	<-sub.Ready()
	got, dropped, ok := sub.Take()
	if len(got) != 1 || got[0].Message != "yes" || got[0].Stream != "s" || dropped != 0 || !ok {
		t.Errorf("got %v, %d dropped, %v", got, dropped, ok)
	}
	for range 2 * subscriptionBuffer {
		if err := s.Append("g", "s", events(time.Now(), "flood")); err != nil {
			t.Fatal(err)
		}
	}
	got, dropped, _ = sub.Take()
	if len(got)+dropped != 2*subscriptionBuffer || len(got) > subscriptionBuffer {
		t.Errorf("%d events and %d dropped", len(got), dropped)
	}
	sub.Close()
	if err := s.Append("g", "s", events(time.Now(), "late")); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := sub.Take(); len(got) != 0 {
		t.Errorf("got %v after Close", got)
	}
}

func TestScanLimitEndsWithAPositionToGoOnFrom(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	now := time.Now()
	for i := range 100 {
		if err := s.Append("g", "s", events(now.Add(time.Duration(i)*time.Second), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	var found []string
	var after *Position
	for calls := 0; ; calls++ {
		var next *Position
		for r, err := range s.Read(t.Context(), "g", ReadOptions{
			After: after, ScanLimit: 10 * (EventOverhead + 1),
			Match: func(m string) bool { return strings.HasSuffix(m, "7") },
		}) {
			if errors.Is(err, ErrScanLimit) {
				next = &r.Position
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, r.Message)
		}
		if after = next; next == nil {
			if calls < 9 {
				t.Errorf("%d calls", calls)
			}
			break
		}
	}
	if len(found) != 10 {
		t.Errorf("found %q", found)
	}
}

func TestDeletedStreamsGiveTheirSpaceBack(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{SegmentBytes: 64 << 10, QueueBytes: 64 << 10})
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	for i := range 100 {
		if err := s.Append("g", []string{"small", "big"}[min(1, i%10)], chatter(r, now, 20)); err != nil {
			t.Fatal(err)
		}
	}
	read(t, s, "g", ReadOptions{})
	s.maintainOnce(t.Context())
	before := s.Stats().DiskBytes
	want := len(read(t, s, "g", ReadOptions{Streams: one("small")}))
	stored, err := s.Group("g")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteStream("g", "big"); err != nil {
		t.Fatal(err)
	}
	s.maintainOnce(t.Context())
	if after := s.Stats().DiskBytes; after > before/2 {
		t.Errorf("%d bytes on disk, of %d", after, before)
	}
	if got := len(read(t, s, "g", ReadOptions{})); got != want {
		t.Errorf("%d events left, want %d", got, want)
	}
	left, err := s.Group("g")
	if err != nil || left.StoredBytes > stored.StoredBytes/2 {
		t.Errorf("stored bytes %d, of %d, %v", left.StoredBytes, stored.StoredBytes, err)
	}
}

func TestASlowTailReaderHoldsNoMoreThanItsBuffer(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	sub := s.Subscribe([]string{"g"}, nil)
	defer sub.Close()
	big := strings.Repeat("x", MaxMessage)
	for range 3 * subscriptionBytes / MaxMessage {
		if err := s.Append("g", "s", events(time.Now(), big)); err != nil && !errors.Is(err, ErrQueueFull) {
			t.Fatal(err)
		}
	}
	got, dropped, _ := sub.Take()
	if n := len(got) * MaxMessage; n > subscriptionBytes || n < subscriptionBytes/2 || dropped == 0 {
		t.Errorf("holds %d bytes, %d dropped", n, dropped)
	}
}
