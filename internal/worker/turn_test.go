package worker

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/invoke"
)

func TestTurnsComeOneAfterTheOtherAndEndByThemselves(t *testing.T) {
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
		if waited, err := next(); waited != turnTime || err != nil {
			t.Errorf("waited %v, %v for one that takes long", waited, err)
		}
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
