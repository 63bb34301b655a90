package worker

import (
	"context"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/sandbox"
)

// An environment that starts and uses less than turnLeast of CPU time in
// turnCheck waits for something else than a processor, and lets others start.
// Of a processor that others want too it gets more than that.
const (
	turnCheck = 100 * time.Millisecond
	turnLeast = 2 * time.Millisecond
)

// turn waits until it is an environment's turn to start, first come first
// served. Starting is work for the processors, from the sandbox to the end of
// Init: more at once than they can do makes all of them late and none early, and
// takes memory for all. Whoever asked may have been served meanwhile, by an
// environment that has become free: then the error is invoke.ErrUnwanted.
func (w *Worker) turn(ctx context.Context, s invoke.Spec) (end func(), err error) {
	select {
	case w.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	once := sync.OnceFunc(func() { <-w.turns })
	if s.Wanted != nil && !s.Wanted() {
		once()
		return nil, invoke.ErrUnwanted
	}
	return once, nil
}

// watchTurn calls end when a sandbox that starts is found waiting. The function
// that it returns ends the watch.
func watchTurn(sbx sandbox.Sandbox, end func()) (stop func()) {
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(turnCheck)
		defer tick.Stop()
		var last time.Duration
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
			}
			used, err := sbx.CPUTime()
			if err != nil || used-last < turnLeast {
				end() // an error: it has ended, as whoever started it will find
				return
			}
			last = used
		}
	})
	return func() { close(stopped); wg.Wait() }
}
