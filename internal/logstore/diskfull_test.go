package logstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFullDiskLosesNothingThatWasAcknowledged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("logstore-test", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skip("mounting a small disk:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := openStore(t, dir, Options{SegmentBytes: 256 << 10, QueueBytes: 1 << 20})
	for _, g := range []string{"a", "b"} {
		if err := errors.Join(s.CreateGroup(g, nil), s.CreateStream(g, "s")); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	acked := make(map[string]int)
	put := func(group string) error {
		lines := chatter(r, time.Now(), 50)
		for i := range lines {
			lines[i].Message = fmt.Sprintf("%d %s", acked[group]+i, lines[i].Message)
		}
		err := s.Put(t.Context(), group, "s", lines)
		if err == nil {
			acked[group] += len(lines)
		}
		return err
	}
	failures := 0
	for i := 0; i < 2000 && failures < 10; i++ {
		if put([]string{"a", "b"}[i%2]) != nil {
			failures++
		}
	}
	if failures < 10 {
		t.Fatal("the disk is not full")
	}
	if err := s.Append("b", "s", chatter(r, time.Now(), 10)); err != nil {
		t.Error(err)
	}
	s.groups["b"].flushPending() // fails, unless sealing has made room
	dropped := s.Stats().DroppedEvents > 0
	check := func(group string) {
		t.Helper()
		next := 0
		for _, rec := range read(t, s, group, ReadOptions{}) {
			number, _, _ := strings.Cut(rec.Message, " ")
			if number == fmt.Sprint(next) {
				next++
			}
		}
		if next < acked[group] {
			t.Errorf("group %s: the first %d events are there, %d were acknowledged", group, next, acked[group])
		}
	}
	check("a")
	check("b")
	if err := s.DeleteGroup("a"); err != nil {
		t.Fatal(err)
	}
	if err := put("b"); err != nil {
		t.Errorf("with room again: %v", err)
	}
	got := read(t, s, "b", ReadOptions{})
	if strings.Contains(fmt.Sprint(messages(got)), "[lapwing] dropped 10 lines") != dropped {
		t.Errorf("events were dropped: %v, and the line that tells of it is not as that", dropped)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	check("b")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
