package lambda

import (
	"context"
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
	mu      sync.Mutex
	due     map[functionKey]bool
	working map[functionKey]bool // somebody takes the step; what is due then waits
	wake    chan struct{}        // holds a token while due has something new
}

func newSteps() *steps {
	return &steps{due: map[functionKey]bool{}, working: map[functionKey]bool{}, wake: make(chan struct{}, 1)}
}

// add never blocks: the caller may hold the lock that the worker waits for.
func (q *steps) add(keys ...functionKey) {
	q.mu.Lock()
	for _, key := range keys {
		q.due[key] = true
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the functions that are due and that nobody works on. The caller
// does, until it calls done for each.
func (q *steps) take() (keys []functionKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for key := range q.due {
		if !q.working[key] {
			keys = append(keys, key)
			q.working[key] = true
			delete(q.due, key)
		}
	}
	return keys
}

func (q *steps) done(key functionKey) {
	q.mu.Lock()
	delete(q.working, key)
	again := q.due[key]
	q.mu.Unlock()
	if again {
		q.add(key)
	}
}

// runLifecycle brings functions from Pending to Active, and updates from
// InProgress to Successful. What is to be done stands in the records, so it
// begins with those that an earlier process left half-way. Each function has a
// goroutine of its own: an image can take minutes, for which no other function
// is to wait.
func (s *Service) runLifecycle() {
	for _, e := range s.entries.list("") {
		if e.inProgress() {
			s.steps.add(e.key)
		}
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.steps.wake:
		}
		for _, key := range s.steps.take() {
			s.wg.Go(func() {
				defer s.steps.done(key)
				for s.ctx.Err() == nil {
					err := s.settle(key)
					if err == nil {
						return
					}
					s.log.Error("life cycle of function is held up", "function", key.String(), "err", err)
					select {
					case <-s.ctx.Done():
					case <-time.After(retryDelay):
					}
				}
			})
		}
	}
}

// inProgress tells whether the function or a version has a next step.
func (e *entry) inProgress() (any bool) {
	e.configurations(func(c *configuration, st *status) {
		any = any || st.inProgress()
	})
	return any
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
		v := &e.versions[i].Value
		switch {
		case !v.Config.snapStart():
			decide(&v.status, &v.Config)
		case v.inProgress():
			s.publish(e, v)
		}
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
type outcome struct {
	code, reason string // as the API shows them
	detail       string // more for the function's owner
}

// deploy makes ready what environments of a configuration need.
func (s *Service) deploy(region string, c *configuration) outcome {
	if c.Image != nil {
		return s.deployImage(s.ctx, c.Image)
	}
	if err := s.code.prepare(s.ctx, c); err != nil {
		s.log.Error("code package cannot be unpacked", "digest", c.Code.Digest, "err", err)
		return outcome{code: codeInvalidZip, reason: "Lambda could not unzip the deployment package."}
	}
	if _, err := s.checkPinned(region, c); err != nil {
		return outcome{code: codeInvalidRuntime, reason: err.Error()}
	}
	return outcome{}
}

func (o outcome) apply(st *status) {
	if o.code != "" {
		st.fail(o.code, o.reason)
		st.Detail = o.detail
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
		if !ok || !v.Value.inProgress() || v.Value.Config.snapStart() {
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
