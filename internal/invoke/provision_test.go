package invoke

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// published is version 1 of a function.
func published(name string) *function.Version {
	v := version(name)
	v.Version = "1"
	return v
}

// provide provisions version 1 of a function.
func provide(d *Dispatcher, name string, n int) *function.Version {
	v := published(name)
	d.Configure(v.FunctionARN(), Limits{Provisioned: []Allocation{{Version: v, Count: n, Token: fmt.Sprint(n)}}})
	return v
}

func wantStatus(t *testing.T, d *Dispatcher, v *function.Version, want AllocationStatus) {
	t.Helper()
	synctest.Wait()
	if got := d.Allocation(v); got != want {
		t.Errorf("status %+v, want %+v", got, want)
	}
}

// served counts on what invocations were admitted.
type served struct {
	noObserver
	by        [3]atomic.Int64
	throttled atomic.Int64
}

func (s *served) Admitted(_ *Request, by Served) { s.by[by].Add(1) }
func (s *served) Throttled(*Request, string)     { s.throttled.Add(1) }
func (s *served) String() string {
	return fmt.Sprintf("%d on demand, %d provisioned, %d spilled, %d throttled", s.by[OnDemand].Load(), s.by[Provisioned].Load(), s.by[Spillover].Load(), s.throttled.Load())
}

func TestProvisionedEnvironmentsServeOnceAllAreUp(t *testing.T) {
	var n atomic.Int64
	s := &fakeStarter{startTime: time.Second, runTime: 10 * time.Millisecond}
	s.fails = func(spec Spec) error {
		if spec.Provisioned && n.Add(1) == 2 {
			time.Sleep(time.Minute)
		}
		return nil
	}
	by := &served{}
	scenario(t, s, Options{Observer: by}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 2)
		time.Sleep(30 * time.Second)
		wantStatus(t, d, v, AllocationStatus{State: InProgress, Allocated: 1})
		begin := time.Now()
		invoke(d, v)
		if took := time.Since(begin); took < time.Second {
			t.Errorf("the invocation took %v: it had no cold start", took)
		}
		time.Sleep(time.Minute)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
		begin = time.Now()
		if got := parallel(d, v, 2); got["ok"] != 2 || time.Since(begin) != 10*time.Millisecond {
			t.Errorf("%v in %v", got, time.Since(begin))
		}
		if got, want := by.String(), "1 on demand, 2 provisioned, 0 spilled, 0 throttled"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestInvocationsBeyondTheAllocationSpillOver(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Minute}
	by := &served{}
	scenario(t, s, Options{Observer: by}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 2)
		time.Sleep(10 * time.Second)
		if got := parallel(d, v, 5); got["ok"] != 5 {
			t.Errorf("outcomes %v", got)
		}
		if got, want := by.String(), "0 on demand, 2 provisioned, 3 spilled, 0 throttled"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestCallerThatCallsAgainAtOnceStaysProvisioned(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Millisecond, tail: 5 * time.Millisecond}
	by := &served{}
	scenario(t, s, Options{Observer: by}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 1)
		time.Sleep(10 * time.Second)
		for range 5 {
			invoke(d, v)
		}
		if got, want := by.String(), "0 on demand, 5 provisioned, 0 spilled, 0 throttled"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestWhollyProvisionedReservationLeavesNothingForLatest(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v, n := published("f"), 3
		d.Configure(v.FunctionARN(), Limits{Reserved: &n, Provisioned: []Allocation{{Version: v, Count: n}}})
		time.Sleep(10 * time.Second)
		if got := parallel(d, version("f"), 1); got["429 TooManyRequestsException ReservedFunctionConcurrentInvocationLimitExceeded"] != 1 {
			t.Errorf("$LATEST: %v", got)
		}
		if got := parallel(d, v, 4); got["ok"] != 3 {
			t.Errorf("the version: %v", got)
		}
	})
}

func TestProvisionedConcurrencyIsTakenOffTheAccounts(t *testing.T) {
	s := &fakeStarter{runTime: time.Second}
	scenario(t, s, Options{AccountLimit: 10}, func(t *testing.T, d *Dispatcher) {
		provide(d, "f", 4)
		time.Sleep(time.Second)
		if got := parallel(d, version("g"), 10); got["ok"] != 6 {
			t.Errorf("outcomes %v", got)
		}
	})
}

func TestProvisionedStartWaitsForAUnitOfConcurrency(t *testing.T) {
	s := &fakeStarter{runTime: time.Minute}
	scenario(t, s, Options{AccountLimit: 2}, func(t *testing.T, d *Dispatcher) {
		done := make(chan map[string]int)
		go func() { done <- parallel(d, version("g"), 2) }()
		time.Sleep(time.Second)
		v := provide(d, "f", 1)
		time.Sleep(10 * time.Second)
		wantStatus(t, d, v, AllocationStatus{State: InProgress})
		<-done
		time.Sleep(time.Second)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 1, Available: 1})
	})
}

func TestProvisionedEnvironmentThatEndsIsReplaced(t *testing.T) {
	s := &fakeStarter{startTime: time.Second}
	s.work = func(e *fakeEnv, _ *Request) { e.Close() }
	scenario(t, s, Options{IdleTimeout: time.Minute}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 2)
		time.Sleep(10 * time.Second)
		invoke(d, v)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 1, Available: 1})
		time.Sleep(2 * time.Second)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
		time.Sleep(time.Hour)
		if started, live := s.counts(); started != 3 || live != 2 {
			t.Errorf("%d started and %d live after idling for long", started, live)
		}
		time.Sleep(24 * time.Hour)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
		if started, _ := s.counts(); started < 7 {
			t.Errorf("%d started within a day: their age is not limited", started)
		}
	})
}

func TestAllocationFailsWhenTheFunctionDoesNotInitialise(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	s := &fakeStarter{startTime: time.Second, fails: func(Spec) error {
		if broken.Load() {
			return fmt.Errorf("exit: %w", ErrInit)
		}
		return nil
	}}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 2)
		time.Sleep(time.Hour)
		wantStatus(t, d, v, AllocationStatus{State: Failed})
		if started, _ := s.counts(); started > 2*maxInitFailures {
			t.Errorf("%d starts of a function that cannot start", started)
		}
		broken.Store(false)
		provide(d, "f", 2)
		time.Sleep(time.Hour)
		wantStatus(t, d, v, AllocationStatus{State: Failed}) // nobody has asked again
		d.Configure(v.FunctionARN(), Limits{Provisioned: []Allocation{{Version: v, Count: 2, Token: "again"}}})
		time.Sleep(time.Minute)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
	})
}

func TestAllocationGoesOnWhenTheHostCanAgain(t *testing.T) {
	s := &fakeStarter{fails: func(Spec) error { return ErrNoCapacity }}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 1)
		time.Sleep(time.Hour)
		wantStatus(t, d, v, AllocationStatus{State: InProgress})
		s.mu.Lock()
		s.fails = nil
		s.mu.Unlock()
		time.Sleep(provisionRetryMax + time.Second)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 1, Available: 1})
	})
}

func TestAllocationMovesToAnotherVersion(t *testing.T) {
	s := &fakeStarter{startTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		one, n := published("f"), 2
		two := *one
		two.Version = "2"
		d.Configure(one.FunctionARN(), Limits{Reserved: &n, Provisioned: []Allocation{{Version: one, Count: 2}}})
		time.Sleep(10 * time.Second)
		d.Configure(one.FunctionARN(), Limits{Reserved: &n, Provisioned: []Allocation{{Version: &two, Count: 2}}})
		time.Sleep(10 * time.Second)
		wantStatus(t, d, one, AllocationStatus{})
		wantStatus(t, d, &two, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
		if _, live := s.counts(); live != 2 {
			t.Errorf("%d environments live, want 2", live)
		}
	})
}

func TestAllocationShrinksAndGrows(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, runTime: time.Minute}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 3)
		time.Sleep(10 * time.Second)
		done := make(chan map[string]int)
		go func() { done <- parallel(d, v, 3) }()
		time.Sleep(time.Second)
		provide(d, "f", 1)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 3, Available: 3}) // all are busy
		if got := <-done; got["ok"] != 3 {
			t.Errorf("outcomes %v", got)
		}
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 1, Available: 1})
		provide(d, "f", 2)
		wantStatus(t, d, v, AllocationStatus{State: InProgress, Allocated: 1, Available: 1})
		time.Sleep(2 * time.Second)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
	})
}

func TestProvisionedStartsTakeTurns(t *testing.T) {
	var now, peak atomic.Int64
	s := &fakeStarter{fails: func(Spec) error {
		if n := now.Add(1); n > peak.Load() {
			peak.Store(n)
		}
		time.Sleep(time.Second)
		now.Add(-1)
		return nil
	}}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 50)
		time.Sleep(time.Minute)
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 50, Available: 50})
		if want := int64(max(4, runtime.NumCPU())); peak.Load() != want {
			t.Errorf("%d starts at once, want %d", peak.Load(), want)
		}
	})
}

func TestFullHostDoesNotGiveUpProvisionedEnvironments(t *testing.T) {
	s := &fakeStarter{capacity: 2}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := provide(d, "f", 2)
		time.Sleep(time.Second)
		if got := parallel(d, version("g"), 1); got["500 ServiceException "] != 1 {
			t.Errorf("outcomes %v", got)
		}
		wantStatus(t, d, v, AllocationStatus{State: Ready, Allocated: 2, Available: 2})
	})
}

func TestCloseWhileAllocating(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, fails: func(s Spec) error {
		if s.Version.Name == "broken" {
			return errors.Join(ErrInit, errLuck)
		}
		return nil
	}}
	scenario(t, s, Options{AccountLimit: 30}, func(t *testing.T, d *Dispatcher) {
		provide(d, "f", 40)
		provide(d, "broken", 1)
		time.Sleep(2500 * time.Millisecond)
	})
}
