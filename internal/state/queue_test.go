package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

func queue(t testing.TB, s *Store) *Queue[record] {
	t.Helper()
	q, err := OpenQueue[record](t.Context(), s, "jobs")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func heads(t testing.TB, q *Queue[record]) (ids []uint64, names []string) {
	t.Helper()
	err := q.Heads(t.Context(), func(id uint64, h record) error {
		ids, names = append(ids, id), append(names, h.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, names
}

func TestAQueueHoldsMessagesUntilTheyAreRemovedInAnyOrder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	q := queue(t, s)
	if ids, _ := heads(t, q); len(ids) != 0 {
		t.Errorf("a new queue holds %v", ids)
	}
	var ids []uint64
	for i := range 10 {
		id, err := q.Add(t.Context(), record{Name: fmt.Sprint("ünïcode \r\n", i)}, []byte(fmt.Sprint("body\x00\n", i)))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, i := range []int{0, 9, 4} {
		for range 2 { // the second time there is nothing to remove
			if err := q.Remove(t.Context(), ids[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := q.Get(t.Context(), ids[i]); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of a message that was removed: %v", err)
		}
	}
	check := func(q *Queue[record]) {
		t.Helper()
		got, names := heads(t, q)
		want := []uint64{ids[1], ids[2], ids[3], ids[5], ids[6], ids[7], ids[8]}
		if !slices.Equal(got, want) || names[0] != "ünïcode \r\n1" {
			t.Errorf("%v %q, want %v", got, names, want)
		}
		h, body, err := q.Get(t.Context(), ids[5])
		if err != nil || h.Name != "ünïcode \r\n5" || string(body) != "body\x00\n5" {
			t.Errorf("%+v %q %v", h, body, err)
		}
	}
	check(q)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	q = queue(t, s)
	check(q)
	id, err := q.Add(t.Context(), record{}, nil)
	if err != nil || id <= ids[9] {
		t.Errorf("id %d after %d, %v", id, ids[9], err)
	}
}

func TestAQueueRefusesWhatIsTooLarge(t *testing.T) {
	q := queue(t, open(t, t.TempDir()))
	for name, add := range map[string]func() error{
		"body": func() error { _, err := q.Add(t.Context(), record{}, make([]byte, MaxValueSize+1)); return err },
		"head": func() error {
			_, err := q.Add(t.Context(), record{Name: strings.Repeat("x", maxHeadSize)}, nil)
			return err
		},
	} {
		if err := add(); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := q.Add(t.Context(), record{Name: strings.Repeat("x", maxHeadSize-100)}, make([]byte, MaxValueSize)); err != nil {
		t.Errorf("the largest message: %v", err)
	}
}

func TestManyUseAQueueAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	q := queue(t, s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 40 {
				id, err := q.Add(t.Context(), record{Name: fmt.Sprint(w), Count: i}, nil)
				if err == nil && i%4 != 0 {
					err = q.Remove(t.Context(), id)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if ids, _ := heads(t, q); len(ids) != 80 {
		t.Errorf("%d messages of 80", len(ids))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if ids, _ := heads(t, queue(t, open(t, dir))); len(ids) != 80 {
		t.Errorf("%d messages of 80 after reopening", len(ids))
	}
}
