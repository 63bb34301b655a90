package timeline_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/trace/timeline"
)

func TestStepsComeByTheirBeginAndBeforeTheirParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(timeline.Line)
		from := timeline.From(timeline.With(t.Context(), l))
		whole := from.Begin("sandbox")
		part := from.Begin("sandbox/kernel")
		time.Sleep(2 * time.Second)
		part()
		time.Sleep(time.Second)
		whole()
		now := time.Now()
		l.Add("queue", now.Add(-time.Hour), now)
		l.Begin("never over")
		laps := l.Laps("init/")
		laps.EndAt("done ahead", time.Now().Add(-time.Second))
		time.Sleep(time.Second)
		laps.End("boot")
		laps.EndAt("load", time.Now().Add(time.Second))

		want := []struct {
			name, parent, base string
			took               time.Duration
		}{{"queue", "", "queue", time.Hour}, {"sandbox", "", "sandbox", 3 * time.Second}, {"sandbox/kernel", "sandbox", "kernel", 2 * time.Second},
			{"init/boot", "init", "boot", time.Second}, {"init/load", "init", "load", time.Second}}
		got := l.Steps()
		if len(got) != len(want) {
			t.Fatalf("got %d steps, want %d: %v", len(got), len(want), got)
		}
		for i, w := range want {
			if s := got[i]; s.Name != w.name || s.Parent() != w.parent || s.Base() != w.base || s.Took != w.took {
				t.Errorf("step %d is %+v (parent %q, base %q), want %+v", i, s, s.Parent(), s.Base(), w)
			}
		}
	})
}

func TestWithoutARecordNothingIsRecorded(t *testing.T) {
	if l := timeline.From(context.Background()); l != nil {
		t.Fatalf("an empty context carries %v", l)
	}
	var l *timeline.Line
	if ctx := context.Background(); timeline.With(ctx, l) != ctx {
		t.Error("a nil record made a new context")
	}
	l.Begin("a")()
	l.Laps("a").End("b")
	l.Add("b", time.Time{}, time.Time{})
	if s := l.Steps(); s != nil {
		t.Errorf("got %v", s)
	}
}
