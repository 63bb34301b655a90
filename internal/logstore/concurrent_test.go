package logstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestWritersReadersAndMaintenanceSideBySide(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{SegmentBytes: 16 << 10, QueueBytes: 1 << 20})
	const writers, perWriter = 6, 400
	start := time.Now().Add(-time.Hour)
	ctx, stop := context.WithCancel(t.Context())
	var background, writing sync.WaitGroup

	for w := range writers {
		writing.Go(func() {
			stream := fmt.Sprint("s", w)
			for i := range perWriter {
				at := start.Add(time.Duration(i) * time.Second)
				if err := s.Append("kept", stream, events(at, fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
				if err := s.Append("deleted", stream, events(at, fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	background.Go(func() {
		for ctx.Err() == nil {
			s.maintainOnce(ctx)
		}
	})
	background.Go(func() {
		for ctx.Err() == nil {
			if err := s.DeleteGroup("deleted"); err != nil && !errors.Is(err, ErrGroupNotFound) {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for _, group := range []string{"kept", "deleted"} {
		background.Go(func() {
			for backward := false; ctx.Err() == nil; backward = !backward {
				last := make(map[string]Position)
				for r, err := range s.Read(ctx, group, ReadOptions{Backward: backward}) {
					if errors.Is(err, ErrGroupNotFound) || errors.Is(err, context.Canceled) {
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
					if p, ok := last[""]; ok && (r.Position.Compare(p) < 0) != backward {
						t.Errorf("%v follows %v", r.Position, p)
					}
					last[""] = r.Position
				}
				s.Groups()
				s.Streams(group)
			}
		})
	}
	writing.Wait()
	stop()
	background.Wait()

	check := func() {
		t.Helper()
		for w := range writers {
			got := read(t, s, "kept", ReadOptions{Streams: one(fmt.Sprint("s", w))})
			if len(got) != perWriter {
				t.Fatalf("writer %d: %d events, want %d", w, len(got), perWriter)
			}
			for i, r := range got {
				if r.Message != fmt.Sprint(i) {
					t.Fatalf("writer %d: event %d is %q", w, i, r.Message)
				}
			}
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	check()
}
