package lambda

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// Reason codes of a life cycle that failed (Lambda API reference,
// StateReasonCode).
const (
	codeInvalidRuntime = "InvalidRuntime"
	codeInvalidZip     = "InvalidZipFileException"
)

// retryDelay is the wait after a step that failed on a fault of this host.
const retryDelay = 5 * time.Second

// steps are the functions whose life cycle has a next step.
type steps struct {
	mu   sync.Mutex
	due  map[functionKey]struct{}
	wake chan struct{} // holds a token while due has something new
}

func newSteps() *steps { return &steps{due: map[functionKey]struct{}{}, wake: make(chan struct{}, 1)} }

// add never blocks: the caller may hold the lock that the worker waits for.
func (q *steps) add(keys ...functionKey) {
	q.mu.Lock()
	for _, key := range keys {
		q.due[key] = struct{}{}
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *steps) take() []functionKey {
	q.mu.Lock()
	defer q.mu.Unlock()
	keys := slices.Collect(maps.Keys(q.due))
	clear(q.due)
	return keys
}

// runLifecycle is the worker: it brings functions from Pending to Active, and
// updates from InProgress to Successful. What is to be done stands in the
// records, so it begins with those that an earlier process left half-way.
func (s *Service) runLifecycle() {
	for _, e := range s.entries.list("") {
		s.steps.add(e.key)
	}
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	var failed []functionKey
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.steps.wake:
		case <-retry.C:
			s.steps.add(failed...)
			failed = nil
			continue
		}
		for _, key := range s.steps.take() {
			if s.ctx.Err() != nil {
				return
			}
			if err := s.settle(key); err != nil {
				s.log.Error("life cycle of function is held up", "function", key.String(), "err", err)
				failed = append(failed, key)
				retry.Reset(retryDelay)
			}
		}
	}
}

// settle ends the creation or update of a function that is under way, if any.
// What takes time is done without the lock: requests meanwhile are refused as
// conflicts, not held up.
func (s *Service) settle(key functionKey) error {
	e := s.entries.get(key)
	if e == nil {
		return nil
	}
	outcomes := map[string]outcome{} // by deployment
	decide := func(st *status, c *configuration) {
		if _, ok := outcomes[c.Deployment]; !ok && st.inProgress() {
			outcomes[c.Deployment] = s.deploy(key.region, c)
		}
	}
	decide(&e.function.Value.status, &e.function.Value.Config)
	for i := range e.versions {
		decide(&e.versions[i].Value.status, &e.versions[i].Value.Config)
	}
	if len(outcomes) == 0 || s.ctx.Err() != nil {
		return nil
	}

	defer s.lock(key)()
	ctx, cancel := writeContext(s.ctx)
	defer cancel()
	defer s.reload(key)
	return s.conclude(ctx, key, outcomes)
}

// outcome is how a deployment ended: well, if code is empty.
type outcome struct{ code, reason string }

// deploy makes ready what environments of a configuration need.
func (s *Service) deploy(region string, c *configuration) outcome {
	if err := s.code.prepare(s.ctx, c); err != nil {
		s.log.Error("code package cannot be unpacked", "digest", c.Code.Digest, "err", err)
		return outcome{codeInvalidZip, "Lambda could not unzip the deployment package."}
	}
	if _, err := s.checkPinned(region, c); err != nil {
		return outcome{codeInvalidRuntime, err.Error()}
	}
	return outcome{}
}

func (o outcome) apply(st *status) {
	if o.code != "" {
		st.fail(o.code, o.reason)
	} else {
		st.succeed()
	}
}

// conclude writes the outcomes down. The function may have been deleted, or
// deleted and created, since they were found: then they concern nobody.
func (s *Service) conclude(ctx context.Context, key functionKey, outcomes map[string]outcome) error {
	e := s.entries.get(key)
	if e == nil {
		return nil
	}
	for _, v := range e.versions {
		o, ok := outcomes[v.Value.Config.Deployment]
		if !ok || !v.Value.inProgress() {
			continue
		}
		o.apply(&v.Value.status)
		if _, err := s.versions.Update(ctx, v.Key, v.Revision, v.Value); err != nil {
			return err
		}
	}
	f := e.function.Value
	o, ok := outcomes[f.Config.Deployment]
	if !ok || !f.inProgress() {
		return nil
	}
	if o.apply(&f.status); o.code == "" {
		f.Serving = nil
	}
	if _, err := s.functions.Update(ctx, key.String(), e.function.Revision, f); err != nil {
		return err
	}
	s.reload(key) // before environments of the old configuration go
	s.code.dropAll(e)
	s.opts.Invoker.Retire(e.arn, function.Latest)
	return nil
}
