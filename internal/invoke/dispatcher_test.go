package invoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// fakeStarter makes environments that sleep instead of working.
type fakeStarter struct {
	startTime time.Duration
	runTime   time.Duration // until the caller is answered
	tail      time.Duration // after that, until the environment is free
	closeTime time.Duration
	capacity  int // 0: unlimited

	mu      sync.Mutex
	started int
	live    int
	startIn func(n int) error              // may refuse the n-th start
	fails   func(Spec) error               // may refuse a start
	work    func(e *fakeEnv, req *Request) // replaces sleeping for runTime
	cpuTime time.Duration                  // of an invocation
}

type fakeEnv struct {
	s    *fakeStarter
	n    int
	v    *function.Version
	spec Spec
	busy atomic.Bool
	dead atomic.Bool
	t    *testing.T

	served atomic.Int64
}

func (s *fakeStarter) starter(t *testing.T) Starter {
	return starterFunc(func(ctx context.Context, spec Spec) (Environment, error) {
		s.mu.Lock()
		if s.capacity > 0 && s.live >= s.capacity {
			s.mu.Unlock()
			return nil, fmt.Errorf("no room: %w", ErrNoCapacity)
		}
		s.started++
		s.live++
		n, fails := s.started, s.fails
		s.mu.Unlock()
		time.Sleep(s.startTime)
		if s.startIn != nil {
			if err := s.startIn(n); err != nil {
				return nil, err
			}
		}
		if fails != nil {
			if err := fails(spec); err != nil {
				s.mu.Lock()
				s.live--
				s.mu.Unlock()
				return nil, err
			}
		}
		return &fakeEnv{s: s, n: n, v: spec.Version, spec: spec, t: t}, nil
	})
}

type starterFunc func(context.Context, Spec) (Environment, error)

func (f starterFunc) Start(ctx context.Context, s Spec) (Environment, error) {
	return f(ctx, s)
}

func (e *fakeEnv) Invoke(ctx context.Context, req *Request, call *Call) Ending {
	if !e.busy.CompareAndSwap(false, true) {
		e.t.Error("two invocations in one environment")
	}
	if e.dead.Load() {
		e.t.Error("invocation in an environment that has ended")
	}
	if e.v != req.Version && e.v.Revision != req.Version.Revision {
		e.t.Error("invocation in an environment of another revision")
	}
	if e.spec.Tenant != req.TenantID {
		e.t.Errorf("invocation of tenant %q in an environment of %q", req.TenantID, e.spec.Tenant)
	}
	if e.s.work != nil {
		e.s.work(e, req)
	} else {
		time.Sleep(e.s.runTime)
	}
	call.Finish(&Result{}, fmt.Appendf(nil, "env %d", e.n))
	return Ending{Waits: e.s.tail > 0, Run: func() bool {
		time.Sleep(e.s.tail)
		e.served.Add(1)
		e.busy.Store(false)
		return !e.dead.Load()
	}}
}

func (e *fakeEnv) CPUTime() time.Duration { return time.Duration(e.served.Load()) * e.s.cpuTime }

func (e *fakeEnv) Alive() bool { return !e.dead.Load() }

func (e *fakeEnv) Close() {
	if e.dead.Swap(true) {
		return
	}
	time.Sleep(e.s.closeTime)
	e.s.mu.Lock()
	e.s.live--
	e.s.mu.Unlock()
}

func (s *fakeStarter) counts() (started, live int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started, s.live
}

func version(name string) *function.Version {
	return &function.Version{Account: "123456789012", Region: "us-east-1", Name: name, Version: function.Latest, Revision: "1"}
}

// reserve reserves concurrency for a function.
func reserve(d *Dispatcher, name string, n int) *function.Version {
	v := version(name)
	d.Configure(v.FunctionARN(), Limits{Reserved: &n})
	return v
}

// scenario runs f with a dispatcher over s in a bubble of fake time.
func scenario(t *testing.T, s *fakeStarter, opts Options, f func(t *testing.T, d *Dispatcher)) {
	synctest.Test(t, func(t *testing.T) {
		opts.Starter = s.starter(t)
		d := New(opts)
		f(t, d)
		d.Close(t.Context())
		if _, live := s.counts(); live != 0 {
			t.Errorf("%d environments left after Close", live)
		}
	})
}

func invoke(d *Dispatcher, v *function.Version) (string, error) {
	var b bytes.Buffer
	_, err := d.Invoke(context.Background(), &Request{Version: v, RequestID: "r"}, &b)
	return b.String(), err
}

// parallel makes n invocations at once and returns how many gave each outcome.
func parallel(d *Dispatcher, v *function.Version, n int) map[string]int {
	var mu sync.Mutex
	out := map[string]int{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_, err := invoke(d, v)
			key := "ok"
			if e, ok := errors.AsType[*aws.Error](err); ok {
				key = fmt.Sprint(e.Status, " ", e.Code, " ", e.Extra["Reason"])
			} else if err != nil {
				key = err.Error()
			}
			mu.Lock()
			out[key]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return out
}

func TestSequentialInvocationsReuseTheEnvironment(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Millisecond, tail: time.Millisecond}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		for range 5 {
			if got, err := invoke(d, version("f")); err != nil || got != "env 1" {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	})
}

func TestInvocationThatAsksForAStartGetsANewEnvironmentThatServesNoOther(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Millisecond}
	one := 1
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := version("f")
		if _, err := invoke(d, v); err != nil { // leaves an idle environment
			t.Fatal(err)
		}
		for n := 2; n <= 3; n++ {
			var b bytes.Buffer
			line := new(timeline.Line)
			if _, err := d.Invoke(t.Context(), &Request{Version: v, Start: line}, &b); err != nil || b.String() != fmt.Sprint("env ", n) {
				t.Fatalf("got %q, %v", b.String(), err)
			}
			if steps := line.Steps(); len(steps) != 1 || steps[0].Name != "admission" {
				t.Errorf("steps %v", steps)
			}
			synctest.Wait()
			if _, live := s.counts(); live != 1 {
				t.Errorf("%d environments are left, want the idle one", live)
			}
		}
		if got, err := invoke(d, v); err != nil || got != "env 1" {
			t.Errorf("another invocation got %q, %v", got, err)
		}
		synctest.Wait()
		if n := d.InUse(v.FunctionARN()); n != 0 {
			t.Errorf("%d units of concurrency are in use", n)
		}
		// It is limited like any other.
		d.Configure(v.FunctionARN(), Limits{Reserved: &one})
		out := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := d.Invoke(t.Context(), &Request{Version: v, Start: new(timeline.Line)}, new(bytes.Buffer))
				out <- err
			}()
		}
		first, second := <-out, <-out
		if e, ok := errors.AsType[*aws.Error](first); !ok || e.Status != 429 || second != nil {
			t.Errorf("with a reservation of 1: %v, %v", first, second)
		}
		// A start that fails gives back what it had.
		s.startIn = func(int) error { return errors.New("broken") }
		if _, err := d.Invoke(t.Context(), &Request{Version: v, Start: new(timeline.Line)}, new(bytes.Buffer)); err == nil {
			t.Error("a start that failed answered")
		}
		s.startIn = nil
		s.mu.Lock()
		s.live--
		s.mu.Unlock()
		if n := d.InUse(v.FunctionARN()); n != 0 {
			t.Errorf("%d units of concurrency are in use after a failed start", n)
		}
	})
}

func TestParallelColdInvocationsScaleOutSideBySide(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Minute}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		begin := time.Now()
		if got := parallel(d, version("f"), 64); got["ok"] != 64 {
			t.Fatalf("outcomes %v", got)
		}
		if took := time.Since(begin); took != time.Second+time.Minute {
			t.Errorf("took %v: the starts or runs waited for one another", took)
		}
		if started, _ := s.counts(); started != 64 {
			t.Errorf("%d environments started, want 64", started)
		}
	})
}

// A host that starts one environment at a time has started a few when they have
// served a burst of short invocations: the others are not started any more.
func TestStartsThatNobodyWaitsForAreGivenUp(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: 100 * time.Millisecond}
	synctest.Test(t, func(t *testing.T) {
		turn := make(chan struct{}, 1)
		start := s.starter(t)
		d := New(Options{Starter: starterFunc(func(ctx context.Context, spec Spec) (Environment, error) {
			turn <- struct{}{}
			defer func() { <-turn }()
			if !spec.Wanted() {
				return nil, ErrUnwanted
			}
			return start.Start(ctx, spec)
		})})
		defer d.Close(t.Context())
		for range 2 { // what was given up leaves nothing that a later burst counts on
			if got := parallel(d, version("f"), 50); got["ok"] != 50 {
				t.Fatalf("outcomes %v", got)
			}
			time.Sleep(time.Minute)
		}
		// Two environments have served 30 of 50 by the third second.
		if started, _ := s.counts(); started < 3 || started > 10 {
			t.Errorf("%d environments started for bursts of 50", started)
		}
		if got := parallel(d, version("g"), 1); got["ok"] != 1 {
			t.Fatalf("outcomes %v", got)
		}
	})
}

func TestReservedConcurrencyThrottlesTheRest(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		got := parallel(d, reserve(d, "f", 8), 64)
		if got["ok"] != 8 || got["429 TooManyRequestsException ReservedFunctionConcurrentInvocationLimitExceeded"] != 56 {
			t.Fatalf("outcomes %v", got)
		}
	})
}

func TestReservedZeroStopsAFunction(t *testing.T) {
	s := &fakeStarter{}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		if got := parallel(d, reserve(d, "f", 0), 3); got["ok"] != 0 {
			t.Fatalf("outcomes %v", got)
		}
	})
}

func TestAccountLimitExcludesWhatOthersReserved(t *testing.T) {
	s := &fakeStarter{runTime: time.Second}
	scenario(t, s, Options{AccountLimit: 20}, func(t *testing.T, d *Dispatcher) {
		reserve(d, "g", 8)
		got := parallel(d, version("f"), 20)
		if got["ok"] != 12 || got["429 TooManyRequestsException ConcurrentInvocationLimitExceeded"] != 8 {
			t.Fatalf("outcomes %v", got)
		}
	})
}

func TestCallerThatCallsAgainAtOnceIsNotThrottledByItsOwnCall(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Millisecond, tail: 5 * time.Millisecond}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := reserve(d, "f", 1)
		for range 3 {
			if got, err := invoke(d, v); err != nil || got != "env 1" {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	})
}

func TestEnvironmentThatIsLongInFinishingHoldsNoCallerUp(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, tail: time.Minute}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		invoke(d, version("f"))
		begin := time.Now()
		if got, err := invoke(d, version("f")); err != nil || got != "env 2" {
			t.Fatalf("got %q, %v", got, err)
		}
		if took := time.Since(begin); took > s.startTime+finishGrace {
			t.Errorf("took %v: the caller waited for an environment that was not free", took)
		}
	})
}

func TestWaiterTakesAnEnvironmentThatFreesBeforeItsOwnHasStarted(t *testing.T) {
	s := &fakeStarter{startTime: 10 * time.Second, runTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		invoke(d, version("f"))
		begin := time.Now()
		if got := parallel(d, version("f"), 2); got["ok"] != 2 {
			t.Fatalf("outcomes %v", got)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %v, want 2s", took)
		}
		time.Sleep(time.Minute)
		if _, live := s.counts(); live != 2 {
			t.Errorf("%d environments live, want the second one kept for later", live)
		}
	})
}

func TestFailedStartAnswersExactlyItsInvocation(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Second, startIn: func(n int) error {
		if n%2 == 0 {
			return errors.New("disk on fire")
		}
		return nil
	}}
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Starter: s.starter(t)})
		got := parallel(d, version("f"), 10)
		if got["ok"] != 5 || got["500 ServiceException "] != 5 {
			t.Errorf("outcomes %v", got)
		}
		d.Close(t.Context())
	})
}

func TestIdleEnvironmentsEndAfterTheirTime(t *testing.T) {
	s := &fakeStarter{runTime: time.Second}
	scenario(t, s, Options{IdleTimeout: time.Minute}, func(t *testing.T, d *Dispatcher) {
		parallel(d, version("f"), 4)
		for range 100 { // one is enough for this load: the most recently used
			invoke(d, version("f"))
			synctest.Wait() // until the environment is free again
		}
		if _, live := s.counts(); live != 1 {
			t.Errorf("%d environments live, want 1", live)
		}
		time.Sleep(2 * time.Minute)
		if _, live := s.counts(); live != 0 {
			t.Errorf("%d environments live after idling, want 0", live)
		}
		if n := len(d.snapshot()); n != 0 {
			t.Errorf("%d function homes kept, want 0", n)
		}
	})
}

func TestFunctionRunsOnWhenItsCallerLeaves(t *testing.T) {
	s := &fakeStarter{runTime: time.Minute}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Invoke(ctx, &Request{Version: version("f")}, &bytes.Buffer{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		if n := d.InUse(version("f").FunctionARN()); n != 1 {
			t.Errorf("concurrency %d while the function still runs, want 1", n)
		}
		time.Sleep(time.Hour / 60)
		synctest.Wait()
		if n := d.InUse(version("f").FunctionARN()); n != 0 {
			t.Errorf("concurrency %d after it, want 0", n)
		}
		if got, err := invoke(d, version("f")); err != nil || got != "env 1" {
			t.Errorf("got %q, %v, want the same environment", got, err)
		}
	})
}

func TestFunctionRunsWhenItsCallerLeavesDuringTheStart(t *testing.T) {
	s := &fakeStarter{startTime: 10 * time.Second}
	var ran atomic.Int64
	s.work = func(*fakeEnv, *Request) { ran.Add(1) }
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Invoke(ctx, &Request{Version: version("f")}, &bytes.Buffer{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		time.Sleep(time.Minute)
		if n := ran.Load(); n != 1 {
			t.Errorf("the function ran %d times, want once", n)
		}
	})
}

func TestFailedStartIsNotToldToWhomAnotherStartServes(t *testing.T) {
	s := &fakeStarter{runTime: 6 * time.Second, startTime: 10 * time.Second}
	s.startIn = func(n int) error {
		switch n {
		case 2:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.live--
			return errors.New("disk on fire")
		case 3:
			time.Sleep(time.Second)
		}
		return nil
	}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		invoke(d, version("f"))
		// Two starts for two waiters, of whom one gets the first environment.
		if got := parallel(d, version("f"), 3); got["ok"] != 3 {
			t.Errorf("outcomes %v", got)
		}
	})
}

func TestCloseEndsAllEnvironmentsSideBySide(t *testing.T) {
	for _, busy := range []bool{false, true} {
		s := &fakeStarter{startTime: time.Second, runTime: time.Minute, closeTime: time.Second}
		scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
			for range 10 {
				go invoke(d, version("f"))
			}
			time.Sleep(30 * time.Second)
			if !busy {
				time.Sleep(time.Minute)
			}
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			d.Close(ctx)
			want := time.Second
			if busy { // these do not break off, as real ones do
				want = 32 * time.Second
			}
			if took := time.Since(begin); took != want {
				t.Errorf("busy %t: Close took %v, want %v", busy, took, want)
			}
		})
	}
}

func TestFullHostGivesUpTheLongestIdleEnvironment(t *testing.T) {
	s := &fakeStarter{runTime: time.Second, capacity: 2}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		invoke(d, version("a"))
		time.Sleep(time.Second)
		invoke(d, version("b"))
		if got, err := invoke(d, version("c")); err != nil || got != "env 3" {
			t.Fatalf("got %q, %v", got, err)
		}
		if got, _ := invoke(d, version("b")); got != "env 2" {
			t.Errorf("b ran in %q: the wrong environment was given up", got)
		}
	})
}

func TestFullHostOfBusyEnvironmentsRefuses(t *testing.T) {
	s := &fakeStarter{runTime: time.Second, capacity: 2}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		got := parallel(d, version("a"), 3)
		if got["ok"] != 2 || got["500 ServiceException "] != 1 {
			t.Fatalf("outcomes %v", got)
		}
	})
}

func TestNewRevisionNeverRunsInAnOldEnvironment(t *testing.T) {
	s := &fakeStarter{runTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		invoke(d, version("f"))
		v2 := version("f")
		v2.Revision = "2"
		if got, err := invoke(d, v2); err != nil || got != "env 2" {
			t.Fatalf("got %q, %v", got, err)
		}
		synctest.Wait()
		if _, live := s.counts(); live != 1 {
			t.Errorf("%d environments live, want the old one ended", live)
		}
		d.Retire(v2.FunctionARN(), "")
		synctest.Wait()
		if _, live := s.counts(); live != 0 {
			t.Errorf("%d environments live after Retire", live)
		}
	})
}

func TestPanicInTheEnvironmentAnswersTheCaller(t *testing.T) {
	s := &fakeStarter{work: func(*fakeEnv, *Request) { panic("boom") }}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		if got := parallel(d, version("f"), 1); got["500 ServiceException "] != 1 {
			t.Fatalf("outcomes %v", got)
		}
	})
}
