package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type record struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Tags  map[string]string `json:"tags"`
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
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

func collect(t testing.TB, s *Store) *Collection[record] {
	t.Helper()
	c, err := Collect[record](t.Context(), s, "records")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func keys[T any](items []Item[T]) (keys []string) {
	for _, i := range items {
		keys = append(keys, i.Key)
	}
	return keys
}

func TestWritesAreVisibleAtOnceAndSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	c := collect(t, s)
	ctx := t.Context()
	odd := "ünïcode/with.dots and spaces/*>\n=2E"
	created, err := c.Create(ctx, odd, record{Name: "a", Tags: map[string]string{"x": "y"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := c.Get(odd); !ok || got.Revision != created.Revision || got.Value.Tags["x"] != "y" {
		t.Fatalf("Get = %+v, %v after Create", got, ok)
	}
	updated, err := c.Update(ctx, odd, created.Revision, record{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if updated.Revision <= created.Revision {
		t.Errorf("revision %d after %d", updated.Revision, created.Revision)
	}
	for i := range 20 {
		if _, err := c.Put(ctx, fmt.Sprintf("list/%02d", i), record{Count: i}); err != nil {
			t.Fatal(err)
		}
	}
	gone, _ := c.Get("list/07")
	if err := c.Delete(ctx, "list/07", gone.Revision); err != nil {
		t.Fatal(err)
	}
	check := func(c *Collection[record]) {
		t.Helper()
		if got, ok := c.Get(odd); !ok || got.Value.Name != "b" || got.Revision != updated.Revision {
			t.Errorf("Get = %+v, %v", got, ok)
		}
		if _, ok := c.Get("list/07"); ok {
			t.Error("a deleted record is there")
		}
		list := c.List("list/")
		if len(list) != 19 || !slices.IsSorted(keys(list)) {
			t.Errorf("List = %v", keys(list))
		}
		var after []string
		for i := range c.Scan("list/", "list/18") {
			after = append(after, i.Key)
		}
		if !slices.Equal(after, []string{"list/18", "list/19"}) {
			t.Errorf("Scan = %v", after)
		}
	}
	check(c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(c) // what is in memory stays readable
	if _, err := c.Put(ctx, "x", record{}); err == nil {
		t.Error("Put succeeded on a closed store")
	}
	check(collect(t, open(t, dir)))
}

func TestEachConditionHasItsError(t *testing.T) {
	c := collect(t, open(t, t.TempDir()))
	ctx := t.Context()
	one, err := c.Create(ctx, "k", record{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Create(ctx, "k", record{})
	wantError(t, "Create of what is there", err, ErrExists)
	two, err := c.Update(ctx, "k", one.Revision, record{Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Update(ctx, "k", one.Revision, record{})
	wantError(t, "Update of an old revision", err, ErrConflict)
	_, err = c.Update(ctx, "none", one.Revision, record{})
	wantError(t, "Update of nothing", err, ErrNotFound)
	wantError(t, "Delete of an old revision", c.Delete(ctx, "k", one.Revision), ErrConflict)
	wantError(t, "Delete of nothing", c.Delete(ctx, "none", 1), ErrNotFound)
	if err := c.Delete(ctx, "k", two.Revision); err != nil {
		t.Fatal(err)
	}
	wantError(t, "Delete again", c.Delete(ctx, "k", two.Revision), ErrNotFound)
	if _, err := c.Create(ctx, "k", record{Count: 3}); err != nil {
		t.Fatalf("Create after Delete: %v", err)
	}
	_, err = c.Put(ctx, "k", record{Name: strings.Repeat("x", MaxValueSize)})
	wantError(t, "Put of a large value", err, ErrTooLarge)
	for _, key := range []string{"", strings.Repeat("k", MaxKeySize+1), "\xff"} {
		if _, err := c.Put(ctx, key, record{}); err == nil {
			t.Errorf("Put took the key %.20q", key)
		}
	}
	if _, err := c.Put(ctx, strings.Repeat(".", MaxKeySize), record{Name: strings.Repeat("x", MaxValueSize-100)}); err != nil {
		t.Errorf("Put of the largest key and value: %v", err)
	}
	_, err = c.Modify(ctx, "none", func(*record) error { return nil })
	wantError(t, "Modify of nothing", err, ErrNotFound)
	stop := errors.New("stop")
	_, err = c.Modify(ctx, "k", func(r *record) error { r.Count = 99; return stop })
	wantError(t, "Modify that gives up", err, stop)
	if got, _ := c.Get("k"); got.Value.Count != 3 {
		t.Errorf("a Modify that gave up left %+v", got)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func TestEachRevisionHasOneWinner(t *testing.T) {
	c := collect(t, open(t, t.TempDir()))
	ctx := t.Context()
	const writers, rounds = 8, 40
	item, err := c.Create(ctx, "k", record{})
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		var won atomic.Int32
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				_, err := c.Update(ctx, "k", item.Revision, record{Count: item.Value.Count + 1})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d writers won at revision %d", won.Load(), item.Revision)
		}
		item, _ = c.Get("k")
	}
	if item.Value.Count != rounds {
		t.Errorf("count = %d after %d rounds", item.Value.Count, rounds)
	}
}

func TestOneCreateWinsAlsoOverADeletion(t *testing.T) {
	c := collect(t, open(t, t.TempDir()))
	ctx := t.Context()
	for range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := c.Create(ctx, "k", record{})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d writers created the record", won.Load())
		}
		item, _ := c.Get("k")
		if err := c.Delete(ctx, "k", item.Revision); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWritesEndWhereMemoryNeverComesUpWithTheStore(t *testing.T) {
	s := open(t, t.TempDir())
	s.timeout = 100 * time.Millisecond
	c := collect(t, s)
	ctx := context.WithoutCancel(t.Context()) // sets no end
	if _, err := c.Create(ctx, "k", record{}); err != nil {
		t.Fatal(err)
	}
	stale := c.model.current.Load()
	if _, err := c.Put(ctx, "k", record{Count: 1}); err != nil {
		t.Fatal(err)
	}
	c.model.current.Store(stale)
	_, err := c.Modify(ctx, "k", func(*record) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestModifyLosesNoUpdate(t *testing.T) {
	c := collect(t, open(t, t.TempDir()))
	ctx := t.Context()
	if _, err := c.Create(ctx, "k", record{Tags: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for range 25 {
				_, err := c.Modify(ctx, "k", func(r *record) error {
					r.Count++
					r.Tags[fmt.Sprint(w)] += "x"
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, _ := c.Get("k")
	if got.Value.Count != 200 || len(got.Value.Tags["3"]) != 25 {
		t.Errorf("after 200 increments: %+v", got.Value)
	}
}

func TestWatchSeesTheInitialStateAndEveryChangeInOrder(t *testing.T) {
	c := collect(t, open(t, t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	for _, k := range []string{"b", "a"} {
		if _, err := c.Put(ctx, k, record{Name: k}); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	step := make(chan struct{}, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		last := uint64(0)
		for change := range c.Watch(ctx) {
			if len(seen) >= 2 && change.Revision <= last {
				t.Errorf("revision %d after %d", change.Revision, last)
			}
			last = change.Revision
			seen = append(seen, fmt.Sprintf("%s %d %v", change.Key, change.Value.Count, change.Deleted))
			step <- struct{}{}
		}
	})
	<-step
	<-step
	for i := range 50 {
		if _, err := c.Put(ctx, "n", record{Count: i}); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := c.Get("a")
	if err := c.Delete(ctx, "a", a.Revision); err != nil {
		t.Fatal(err)
	}
	for range 51 {
		<-step
	}
	cancel()
	wg.Wait()
	want := []string{"a 0 false", "b 0 false"}
	for i := range 50 {
		want = append(want, fmt.Sprintf("n %d false", i))
	}
	want = append(want, "a 0 true")
	if !slices.Equal(seen, want) {
		t.Errorf("watched %v", seen)
	}
}

func TestWatchEndsWithTheStore(t *testing.T) {
	s := open(t, t.TempDir())
	c := collect(t, s)
	ended := make(chan struct{})
	go func() {
		for range c.Watch(context.Background()) {
		}
		close(ended)
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestOneProcessHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestANewerFormatIsRefused(t *testing.T) {
	for version, part := range map[string]string{"2\n": "newer lapwing", "x": "not a format version", "": "not a format version"} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/version", []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestACollectionOpensOnce(t *testing.T) {
	s := open(t, t.TempDir())
	collect(t, s)
	if _, err := Collect[record](t.Context(), s, "records"); err == nil {
		t.Error("opened twice")
	}
	if _, err := Collect[record](t.Context(), s, "No.Name"); err == nil {
		t.Error("took a bad name")
	}
}

func FuzzKeysSurviveEscaping(f *testing.F) {
	f.Add("a/b.c")
	f.Add("=2E ")
	f.Fuzz(func(t *testing.T, key string) {
		escaped, err := escapeKey(key)
		if err == nil {
			if back, err := unescapeKey(escaped); err != nil || back != key {
				t.Errorf("%q -> %q -> %q, %v", key, escaped, back, err)
			}
		}
		if back, err := unescapeKey(key); err == nil {
			if again, err := escapeKey(back); err == nil && again != key {
				t.Errorf("%q and %q name one key", key, again)
			}
		}
	})
}
