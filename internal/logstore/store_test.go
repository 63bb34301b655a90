package logstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// testLog returns a logger that writes to the test's log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func openStore(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = testLog(t)
	}
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func events(at time.Time, messages ...string) []Event {
	out := make([]Event, len(messages))
	for i, m := range messages {
		out[i] = Event{Time: at.Add(time.Duration(i) * time.Millisecond), Message: m}
	}
	return out
}

func read(t testing.TB, s *Store, group string, opts ReadOptions) []Record {
	t.Helper()
	var out []Record
	for r, err := range s.Read(t.Context(), group, opts) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func messages(records []Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = r.Message
	}
	return out
}

// segmentsOf returns the segments of a group as of now.
func segmentsOf(s *Store, group string) []*segment {
	g := s.groups[group]
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Clone(g.segments)
}

func one(name string) func(string) bool { return func(s string) bool { return s == name } }

func wantMessages(t testing.TB, got []Record, want ...string) {
	t.Helper()
	if !slices.Equal(messages(got), want) {
		t.Errorf("got %q, want %q", messages(got), want)
	}
}

func TestAppendedEventsAreReadableAtOnce(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	now := time.Now()
	if err := s.Append("g", "a", events(now, "1", "2")); err != nil {
		t.Fatal(err)
	}
	if err := s.Append("g", "b", events(now.Add(500*time.Microsecond), "3")); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, read(t, s, "g", ReadOptions{Streams: one("a")}), "1", "2")
	wantMessages(t, read(t, s, "g", ReadOptions{Streams: one("a"), Backward: true}), "2", "1")
	wantMessages(t, read(t, s, "g", ReadOptions{Streams: one("c")}))
	if got := read(t, s, "g", ReadOptions{}); len(got) != 3 {
		t.Errorf("got %d events of the group, want 3", len(got))
	}
	st, err := s.Stream("g", "a")
	if err != nil {
		t.Fatal(err)
	}
	if st.FirstEvent.UnixMilli() != now.UnixMilli() || st.LastEvent.UnixMilli() != now.UnixMilli()+1 {
		t.Errorf("stream is %+v", st)
	}
}

func TestEventsSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	s := openStore(t, dir, Options{})
	if err := s.CreateGroup("strict", map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateStream("strict", "s"); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "strict", "s", events(now, "put")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRetention("strict", 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Append("auto", "s", events(now, "appended")); err != nil {
		t.Fatal(err)
	}
	before := s.Groups()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	wantMessages(t, read(t, s, "strict", ReadOptions{}), "put")
	wantMessages(t, read(t, s, "auto", ReadOptions{}), "appended")
	if after := s.Groups(); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("groups were %v, are %v", before, after)
	}
	// New events come after the old ones even at the same time.
	if err := s.Append("auto", "s", events(now, "later")); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, read(t, s, "auto", ReadOptions{}), "appended", "later")
}

func TestSealingKeepsEveryEventInOrder(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{SegmentBytes: 64 << 10})
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	var want []string
	for i := range 3000 {
		m := fmt.Sprintf("%06d %s", i, strings.Repeat("x", i%200))
		want = append(want, m)
		if err := s.Append("g", fmt.Sprint("s", i%7), events(start.Add(time.Duration(i)*time.Millisecond), m)); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			read(t, s, "g", ReadOptions{Start: start.Add(time.Hour)}) // flush
		}
	}
	s.maintainOnce(t.Context())
	check := func() {
		t.Helper()
		got := messages(read(t, s, "g", ReadOptions{}))
		if !slices.Equal(got, want) {
			t.Fatalf("%d events, want %d", len(got), len(want))
		}
		back := messages(read(t, s, "g", ReadOptions{Backward: true}))
		slices.Reverse(back)
		if !slices.Equal(back, want) {
			t.Fatalf("backward: %d events, want %d", len(back), len(want))
		}
	}
	check()
	if !slices.ContainsFunc(segmentsOf(s, "g"), func(s *segment) bool { return s.sealed }) {
		t.Error("nothing was sealed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	check()
}

func TestReadingGoesOnAfterAPosition(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	now := time.Now()
	for i := range 10 {
		// Two events at each time, in several blocks.
		if err := s.Append("g", "s", events(now.Add(time.Duration(i/2)*time.Second), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			read(t, s, "g", ReadOptions{})
		}
	}
	all := read(t, s, "g", ReadOptions{})
	for i, r := range all {
		parsed, err := ParsePosition(r.Position.String())
		if err != nil || parsed != r.Position {
			t.Fatalf("position %v parses as %v, %v", r.Position, parsed, err)
		}
		wantMessages(t, read(t, s, "g", ReadOptions{After: &parsed}), messages(all[i+1:])...)
		before := messages(all[:i])
		slices.Reverse(before)
		wantMessages(t, read(t, s, "g", ReadOptions{After: &parsed, Backward: true}), before...)
	}
}

func TestBlockDecodesToWhatItWasMadeOf(t *testing.T) {
	entries := []entry{
		{key: Position{5, 9}, ingested: 7, stream: 3, message: "a"},
		{key: Position{6, 2}, ingested: 4, stream: 1, message: ""},
		{key: Position{6, 4}, ingested: 4, stream: 3, message: strings.Repeat("long ", 1000)},
	}
	c := newCodecs()
	frame, m := appendBlock(nil, entries, c.fast())
	if m.length != len(frame) {
		t.Errorf("length %d, want %d", m.length, len(frame))
	}
	_, got, err := c.decodeBlock(frame, nil)
	if err != nil || !slices.Equal(got, entries) {
		t.Errorf("got %v, %v", got, err)
	}
	for i := range frame {
		bad := bytes.Clone(frame)
		bad[i] ^= 0x10
		if _, _, err := c.decodeBlock(bad, nil); err == nil {
			t.Errorf("flipped bit in byte %d goes unnoticed", i)
		}
	}
}
