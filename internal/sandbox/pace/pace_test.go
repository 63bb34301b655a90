package pace

import (
	"testing"
	"time"
)

func TestRateForgets(t *testing.T) {
	var r Rate
	start := time.Now()
	for _, step := range []struct {
		after time.Duration
		takes int
		want  int
	}{
		{0, 3, 3},
		{Span / 2, 2, 5},
		{Span, 1, 5},       // of the span before
		{Span * 2, 0, 1},   // and no more
		{Span * 5, 0, 0},   // nothing for long
		{Span * 6, 4, 4},   // another burst
		{Span * 100, 0, 0}, // all is forgotten
	} {
		now := start.Add(step.after)
		for range step.takes {
			r.Note(now)
		}
		if got := r.Lately(now); got != step.want {
			t.Errorf("after %v: %d, not %d", step.after, got, step.want)
		}
	}
}
