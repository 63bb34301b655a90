package worker

import (
	"context"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/invoke"
)

// turnTime is how long an environment that starts keeps others waiting: one
// whose Init takes longer waits, as a rule, for something else than a processor.
const turnTime = 250 * time.Millisecond

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
	t := time.AfterFunc(turnTime, once)
	return func() { t.Stop(); once() }, nil
}
