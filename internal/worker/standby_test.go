package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox/pace"
)

// waiting returns how many clones wait.
func (s *standbys) waiting() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		n += len(l.ready)
	}
	return n
}

func TestStandbysAreTakenOnceAndHaveTheirOwnIdentity(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Standbys = 2 })
	v := node()
	r.snapshotted(v)
	seen := make(map[string]string)
	const starts = 4
	for n := range starts {
		waitFor(t, func() bool { return r.standbys.waiting() > 0 })
		_, before := r.driver.counts()
		env, _ := r.run(v)
		if creates, after := r.driver.counts(); creates != 2 || after == 0 || after < before {
			t.Errorf("start %d: %d sandboxes were created, %d restored, and %d before", n, creates, after, before)
		}
		for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_LAMBDA_LOG_STREAM_NAME"} {
			if other, there := seen[env[name]]; there {
				t.Errorf("%s is %q, as %s", name, env[name], other)
			}
			seen[env[name]] = fmt.Sprint(name, " of start ", n)
		}
	}
	if st := r.Status(v); st.Uses != starts {
		t.Errorf("%d uses of the snapshot, and %d environments were started", st.Uses, starts)
	}
	for _, spec := range r.driver.made {
		if spec.Held {
			t.Error("a new sandbox is held")
		}
	}
}

func TestStandbysGoWithTheirSnapshot(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Standbys = 2 })
	v := node()
	r.snapshotted(v)
	waitFor(t, func() bool { return r.standbys.waiting() == 1 })
	r.Forget(v)
	waitFor(t, func() bool { return r.standbys.waiting() == 0 && len(r.snapshotDirs()) == 0 })
}

func TestStandbysThatEndedAreNotTaken(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Standbys = 1 })
	v := node()
	r.snapshotted(v)
	waitFor(t, func() bool { return r.standbys.waiting() == 1 })
	r.standbys.mu.Lock()
	for _, l := range r.standbys.lines {
		sbx := l.ready[0].sandbox.(*fakeSandbox)
		sbx.conn.Close()
		<-sbx.done
	}
	r.standbys.mu.Unlock()
	r.run(v)
	if creates, _ := r.driver.counts(); creates != 2 {
		t.Errorf("%d sandboxes were created", creates)
	}
}

func TestStandbysGiveWayWhereTheHostIsFull(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Standbys = 2 })
	v := node()
	r.snapshotted(v)
	waitFor(t, func() bool { return r.standbys.waiting() == 1 })
	if !r.standbys.giveUp() || r.standbys.waiting() != 0 {
		t.Error("they stay")
	}
	if r.standbys.giveUp() {
		t.Error("there is nothing to give up any more")
	}
}

func TestStandbysDoNotComeAndGoWhereMemoryIsShort(t *testing.T) {
	const one = standbyReserve + standbyPart*standbyMB<<20 // what is to be available for one
	now, l := time.Now(), &line{id: "a"}
	l.last = now
	s := &standbys{most: 8, lines: map[string]*line{l.id: l}}
	at := func(after time.Duration, available int64) (short bool) {
		s.memory = func() (int64, error) { return available, nil }
		var gone []*instance
		return s.allot(now.Add(after), s.room(), &gone) != nil
	}
	if at(0, one-1) || !at(0, one) {
		t.Error("the bound is another")
	}
	l.ready = make([]*instance, 1)
	if at(0, one-standbyMB<<20); len(l.ready) != 1 {
		t.Error("a clone goes for the memory that it has taken itself")
	}
	if at(0, one/2); len(l.ready) != 0 {
		t.Error("a clone stays where memory is short")
	}
	if at(time.Second, one) {
		t.Error("another is loaded at once")
	}
	if !at(2*standbyRetry, one) {
		t.Error("no other is ever loaded")
	}
}

func TestStandbysAreAllottedByStarts(t *testing.T) {
	now := time.Now()
	type version struct {
		started int           // within the last minute
		ago     time.Duration // the last start
		ready   int
	}
	for what, c := range map[string]struct {
		room     int
		versions []version
		want     []int // how many stay of those that are ready; -1: one more is wanted
	}{
		"one that has just started":          {8, []version{{1, 0, 0}}, []int{-1}},
		"no room":                            {0, []version{{1, 0, 1}}, []int{0}},
		"a burst":                            {8, []version{{20, 0, 7}}, []int{-1}},
		"a burst that has all":               {8, []version{{20, 0, 8}}, []int{8}},
		"two bursts share":                   {8, []version{{20, 0, 5}, {20, time.Second, 3}}, []int{4, -1}},
		"whoever was last":                   {5, []version{{20, 0, 2}, {20, time.Second, 3}}, []int{-1, 2}},
		"a burst leaves one":                 {4, []version{{1, time.Second, 1}, {6, 2 * time.Second, 3}}, []int{1, 3}},
		"more bursts than room":              {2, []version{{9, 0, 0}, {9, time.Second, 1}, {9, 0, 1}}, []int{0, 1, 1}},
		"who starts once takes nobody's":     {1, []version{{1, 10 * time.Second, 1}, {1, 0, 0}}, []int{1, 0}},
		"but from who has not for long":      {1, []version{{0, 2 * pace.Span, 1}, {1, 0, 0}}, []int{0, -1}},
		"the last ones of a quiet time stay": {8, []version{{0, time.Hour, 1}, {0, 2 * time.Hour, 1}, {0, 3 * time.Hour, 1}}, []int{1, 1, 0}},
		"after a burst one stays":            {8, []version{{0, time.Hour, 5}}, []int{1}},
	} {
		t.Run(what, func(t *testing.T) {
			s := &standbys{lines: make(map[string]*line)}
			for i, v := range c.versions {
				l := &line{id: fmt.Sprint(i), last: now.Add(-v.ago), ready: make([]*instance, v.ready)}
				for range v.started {
					l.rate.Note(l.last)
				}
				s.lines[l.id] = l
			}
			lines := make([]*line, len(c.versions))
			for i := range lines {
				lines[i] = s.lines[fmt.Sprint(i)]
			}
			var gone []*instance
			short := s.allot(now, c.room, &gone)
			got := make([]int, len(lines))
			for i, l := range lines {
				if got[i] = len(l.ready); l == short {
					got[i] = -1
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, not %v", got, c.want)
			}
		})
	}
}
