package cloudfront

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// tidyPoll is how often the tidier asks whether locations have gone on,
	// while something waits for that.
	tidyPoll = time.Second
	// tidyEvery is how often it looks without being asked to.
	tidyEvery = time.Hour
)

// tidier takes away, in the background, what no location needs any more, and fills
// new key value stores.
type tidier struct {
	work   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newTidier(s *Service) *tidier {
	ctx, cancel := context.WithCancel(context.Background())
	t := &tidier{work: make(chan struct{}, 1), cancel: cancel}
	t.done.Go(func() { t.run(ctx, s) })
	return t
}

func (t *tidier) close() {
	t.cancel()
	t.done.Wait()
}

// wake has the tidier look; it never waits.
func (t *tidier) wake() {
	select {
	case t.work <- struct{}{}:
	default:
	}
}

func (t *tidier) run(ctx context.Context, s *Service) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.work:
		case <-timer.C:
		}
		wait := tidyEvery
		moreReplicas, err := s.dropReplicas(ctx)
		if err == nil {
			err = s.dropOldInvalidations(ctx)
		}
		err = errors.Join(err, s.fillKeyValueStores(ctx))
		moreParts, tidyErr := s.opts.KeyValues.Tidy(ctx, s.opts.Locations.Applied().KeyValues)
		err, more := errors.Join(err, tidyErr), moreReplicas || moreParts
		if err != nil && ctx.Err() == nil {
			s.opts.Logger.Warn("cloudfront: tidying up failed; it is tried again", "error", err)
		}
		if more || err != nil {
			wait = tidyPoll
		}
		timer.Reset(wait)
	}
}
