package invoke

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

func TestBucketRefillsContinuouslyAndKeepsNoMoreThanItHolds(t *testing.T) {
	var b bucket
	take := func(now time.Duration) (n int) {
		for b.take(now, 1000, 10*time.Second) {
			n++
		}
		return n
	}
	now := time.Minute
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 1000}, {0, 0}, {time.Second, 100}, {5 * time.Millisecond, 0}, {5 * time.Millisecond, 1}, {time.Hour, 1000}, {10 * time.Second, 1000}} {
		now += step.after
		if n := take(now); n != step.want {
			t.Errorf("%d tokens %v later, want %d", n, step.after, step.want)
		}
	}
	if b.take(now, 0, time.Second) {
		t.Error("a bucket of no tokens gave one")
	}
}

func TestFunctionGetsAThousandNewEnvironmentsInTenSeconds(t *testing.T) {
	s := &fakeStarter{runTime: time.Minute}
	scenario(t, s, Options{AccountLimit: 5000}, func(t *testing.T, d *Dispatcher) {
		got := parallel(d, version("f"), 1500)
		if got["ok"] != 1000 || got["429 TooManyRequestsException FunctionInvocationRateLimitExceeded"] != 500 {
			t.Errorf("outcomes %v", got)
		}
		// What is there counts no more, and others have a rate of their own.
		if got := parallel(d, version("f"), 1000); got["ok"] != 1000 {
			t.Errorf("warm: %v", got)
		}
		if got := parallel(d, version("g"), 1000); got["ok"] != 1000 {
			t.Errorf("another function: %v", got)
		}
	})
}

func TestSynchronousRequestsASecondAreTenTimesTheConcurrency(t *testing.T) {
	s := &fakeStarter{}
	scenario(t, s, Options{AccountLimit: 4}, func(t *testing.T, d *Dispatcher) {
		burst := func(name string, asynchronous bool) (ok int, reason string) {
			for range 50 {
				_, err := d.Invoke(t.Context(), &Request{Version: version(name), Asynchronous: asynchronous}, &bytes.Buffer{})
				if e, refused := errors.AsType[*aws.Error](err); refused {
					reason = e.Extra["Reason"] + " " + e.Header.Get("Retry-After")
				} else if err == nil {
					ok++
				}
				synctest.Wait()
			}
			return ok, reason
		}
		if ok, reason := burst("f", false); ok != 40 || reason != "FunctionInvocationRateLimitExceeded 1" {
			t.Errorf("account: %d, %s", ok, reason)
		}
		if ok, reason := burst("f", true); ok != 50 {
			t.Errorf("asynchronous: %d, %s", ok, reason)
		}
		reserve(d, "g", 2)
		if ok, reason := burst("g", false); ok != 20 || reason != "ReservedFunctionInvocationRateLimitExceeded 1" {
			t.Errorf("reserved: %d, %s", ok, reason)
		}
		time.Sleep(500 * time.Millisecond)
		if ok, _ := burst("g", false); ok != 10 {
			t.Errorf("reserved, after half a second: %d", ok)
		}
	})
}

func TestReservationTakesAndGivesBackWhatIsInUse(t *testing.T) {
	s := &fakeStarter{runTime: time.Minute}
	scenario(t, s, Options{AccountLimit: 10}, func(t *testing.T, d *Dispatcher) {
		done := make(chan map[string]int)
		go func() { done <- parallel(d, version("f"), 4) }()
		time.Sleep(time.Second)
		reserve(d, "f", 5)
		if got := parallel(d, version("g"), 6); got["ok"] != 5 { // 10 less 5
			t.Errorf("beside a reservation: %v", got)
		}
		if got := <-done; got["ok"] != 4 {
			t.Errorf("outcomes %v", got)
		}
		d.Configure(version("f").FunctionARN(), Limits{})
		if got := parallel(d, version("g"), 11); got["ok"] != 10 {
			t.Errorf("without one: %v", got)
		}
	})
}

func TestRegionsHaveAccountsOfTheirOwn(t *testing.T) {
	s := &fakeStarter{runTime: time.Second}
	scenario(t, s, Options{AccountLimit: 3}, func(t *testing.T, d *Dispatcher) {
		other := version("f")
		other.Region = "eu-west-1"
		done := make(chan map[string]int)
		go func() { done <- parallel(d, other, 3) }()
		time.Sleep(time.Millisecond)
		if got := parallel(d, version("f"), 3); got["ok"] != 3 {
			t.Errorf("outcomes %v", got)
		}
		<-done
	})
}

func TestTenantsNeverShareAnEnvironment(t *testing.T) {
	s := &fakeStarter{startTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		for _, call := range []struct{ tenant, want string }{{"blue", "env 1"}, {"green", "env 2"}, {"blue", "env 1"}, {"green", "env 2"}} {
			var b bytes.Buffer
			if _, err := d.Invoke(t.Context(), &Request{Version: version("f"), TenantID: call.tenant}, &b); err != nil || b.String() != call.want {
				t.Errorf("%s ran in %q, %v, want %s", call.tenant, &b, err, call.want)
			}
			synctest.Wait()
		}
	})
}

func TestTenantsThatWentAwayAreForgottenWhileOthersAreBusy(t *testing.T) {
	s := &fakeStarter{}
	scenario(t, s, Options{IdleTimeout: time.Second}, func(t *testing.T, d *Dispatcher) {
		v := version("f")
		s.work = func(_ *fakeEnv, req *Request) {
			if req.TenantID == "busy" {
				time.Sleep(time.Hour)
			}
		}
		go d.Invoke(t.Context(), &Request{Version: v, TenantID: "busy"}, &bytes.Buffer{})
		for i := range 20 {
			if _, err := d.Invoke(t.Context(), &Request{Version: v, TenantID: string(rune('a' + i))}, &bytes.Buffer{}); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute)
		h := d.find(v.FunctionARN())
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.pools); n != 1 {
			t.Errorf("%d pools kept, want that of the busy tenant", n)
		}
	})
}

func TestTenantsEnvironmentsAreLimitedByTheFunctionsConcurrency(t *testing.T) {
	s := &fakeStarter{}
	scenario(t, s, Options{IdleTimeout: time.Hour}, func(t *testing.T, d *Dispatcher) {
		v := reserve(d, "f", 2)
		var ok, throttled int
		for i := range 7 {
			time.Sleep(time.Second)
			_, err := d.Invoke(t.Context(), &Request{Version: v, TenantID: string(rune('a' + i))}, &bytes.Buffer{})
			if e, refused := errors.AsType[*aws.Error](err); refused && e.Status == 429 {
				throttled++
			} else if err == nil {
				ok++
			}
			synctest.Wait()
		}
		if ok != 5 || throttled != 2 {
			t.Errorf("%d ran and %d were throttled, want 5 and 2", ok, throttled)
		}
		time.Sleep(3 * time.Hour)
		if _, err := d.Invoke(t.Context(), &Request{Version: v, TenantID: "z"}, &bytes.Buffer{}); err != nil {
			t.Errorf("after the others were reaped: %v", err)
		}
	})
}

// shrinking is a host with a GB less an eighth of that for each environment.
type shrinking struct{ s *fakeStarter }

func (m shrinking) Available() (int64, error) {
	_, live := m.s.counts()
	return 1<<30 - int64(live)<<27, nil
}

func TestIdleEnvironmentsEndWhenTheHostRunsOutOfMemory(t *testing.T) {
	s := &fakeStarter{runTime: time.Second}
	scenario(t, s, Options{Memory: shrinking{s}, MemoryLow: 1 << 29}, func(t *testing.T, d *Dispatcher) {
		parallel(d, version("a"), 2)
		time.Sleep(time.Millisecond)
		parallel(d, version("b"), 4)
		time.Sleep(5 * time.Second)
		if _, live := s.counts(); live != 4 {
			t.Errorf("%d environments live, want the 4 that memory allows", live)
		}
		if got, _ := invoke(d, version("b")); got == "env 7" {
			t.Error("those that were idle for less long were given up")
		}
	})
}
