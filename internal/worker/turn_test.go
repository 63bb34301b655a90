package worker

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/sandbox"
)

// busy is a sandbox that has used so much CPU time for each look at it, and
// after some looks uses none any more.
type busy struct {
	sandbox.Sandbox
	looks, until int64
}

func (b *busy) CPUTime() (time.Duration, error) {
	b.looks++
	return 2 * turnLeast * time.Duration(min(b.looks, b.until)), nil
}

func TestTurnsComeOneAfterTheOtherAndEndWhenASandboxWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Worker{turns: make(chan struct{}, 1)}
		end, err := w.turn(t.Context(), invoke.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		wanted := true
		next := func() (time.Duration, error) {
			began := time.Now()
			end, err := w.turn(t.Context(), invoke.Spec{Wanted: func() bool { return wanted }})
			if err == nil {
				end()
			}
			return time.Since(began), err
		}
		stop := watchTurn(&busy{until: 5}, end)
		if waited, err := next(); waited != 6*turnCheck || err != nil {
			t.Errorf("waited %v, %v for one that is busy for five looks", waited, err)
		}
		stop()
		end() // late
		if waited, err := next(); waited != 0 || err != nil {
			t.Errorf("waited %v, %v for nobody", waited, err)
		}
		wanted = false
		for range 2 { // giving up leaves the turn to the next
			if waited, err := next(); waited != 0 || !errors.Is(err, invoke.ErrUnwanted) {
				t.Errorf("waited %v, %v to be told that nobody wants it", waited, err)
			}
		}
	})
}
