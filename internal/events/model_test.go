package events

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/invoke"
)

// fate is what a model run knows of one event.
type fate struct {
	accepted  time.Time
	maxAge    time.Duration
	retries   int
	endings   []time.Time // of attempts that ended in a function error
	successes int
	records   []string // conditions of its invocation records
	dead      int      // dead letters
}

// TestModel runs random functions, configurations, faults of the store and
// restarts, and checks what must be true of every event whatever happens.
func TestModel(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func runModel(t *testing.T, r *rand.Rand) {
	b := newBench(t)
	defer func() { b.close() }()
	fates := map[string]*fate{}
	b.function("records")
	b.function("dead")
	b.replies["records"] = func(req *invoke.Request) (string, bool, error) {
		c := decode(t, req.Payload).RequestContext
		b.mu.Lock()
		defer b.mu.Unlock()
		fates[c.RequestID].records = append(fates[c.RequestID].records, c.Condition)
		if want := len(fates[c.RequestID].endings) + fates[c.RequestID].successes; c.ApproximateInvokeCount != want {
			t.Errorf("%s: %d attempts are said to be %d", c.RequestID, want, c.ApproximateInvokeCount)
		}
		return "null", false, nil
	}
	b.replies["dead"] = func(req *invoke.Request) (string, bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		fates[string(req.Payload[1:len(req.Payload)-1])].dead++
		return "null", false, nil
	}
	names := []string{"a", "b", "c"}
	for _, name := range names {
		p := b.function(name)
		p.MaxRetries, p.MaxAge = r.IntN(3), time.Minute+time.Duration(r.Int64N(int64(10*time.Minute)))
		p.OnSuccess, p.OnFailure, p.DeadLetter = "arn:aws:lambda:eu-west-1:123456789012:function:records", "arn:aws:lambda:eu-west-1:123456789012:function:records", "arn:aws:lambda:eu-west-1:123456789012:function:dead"
		if r.IntN(2) == 0 {
			n := r.IntN(4)
			p.Reserved = &n
		}
		b.replies[name] = b.behaviour(fates, name, p, rand.New(rand.NewPCG(r.Uint64(), 2)))
	}
	b.takes = time.Duration(r.Int64N(int64(5 * time.Second)))
	faulty := rand.New(rand.NewPCG(r.Uint64(), 3))
	var broken atomic.Bool
	b.store.fail = func(string) error {
		if broken.Load() && faulty.IntN(2) == 0 {
			return errors.New("input/output error")
		}
		return nil
	}

	for i := range 60 {
		time.Sleep(time.Duration(r.Int64N(int64(20 * time.Second))))
		broken.Store(r.IntN(4) == 0)
		if r.IntN(12) == 0 { // an orderly restart
			broken.Store(false)
			b.close()
			b.open()
		}
		name, id := names[r.IntN(len(names))], fmt.Sprint("event-", i)
		p, _ := b.Plan(target(name))
		b.mu.Lock()
		fates[id] = &fate{accepted: time.Now(), maxAge: p.MaxAge, retries: p.MaxRetries}
		b.mu.Unlock()
		if b.Accept(t.Context(), &Event{Target: target(name), RequestID: id, Payload: fmt.Appendf(nil, "%q", id)}) != nil {
			b.mu.Lock()
			delete(fates, id)
			b.mu.Unlock()
		}
	}
	broken.Store(false)
	after(time.Hour)
	if n := b.store.len(); n != 0 {
		t.Errorf("%d events are left", n)
	}
	for id, f := range fates {
		f.check(t, id)
	}
}

// behaviour makes a function that succeeds, fails or is throttled by chance, and
// that knows what an attempt must not be.
func (b *bench) behaviour(fates map[string]*fate, name string, p *Plan, r *rand.Rand) func(*invoke.Request) (string, bool, error) {
	failing, throttling := r.IntN(100), r.IntN(60)
	return func(req *invoke.Request) (string, bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		f := fates[req.RequestID]
		if r.IntN(100) < throttling {
			return "", false, &aws.Error{Code: "TooManyRequestsException", Status: 429}
		}
		began := time.Now().Add(-b.takes)
		if age := began.Sub(f.accepted); age >= p.MaxAge {
			b.t.Errorf("%s ran at the age of %v", req.RequestID, age)
		}
		if n := len(f.endings); n > 0 && began.Sub(f.endings[n-1]) < retryWait(n) {
			b.t.Errorf("%s was retried after %v", req.RequestID, began.Sub(f.endings[n-1]))
		}
		if p.Reserved != nil && *p.Reserved == 0 {
			b.t.Errorf("%s ran on a function without concurrency", req.RequestID)
		}
		if r.IntN(100) < failing {
			f.endings = append(f.endings, time.Now())
			return `{"errorMessage":"by chance"}`, true, nil
		}
		f.successes++
		return `"done"`, false, nil
	}
}

func (f *fate) check(t *testing.T, id string) {
	t.Helper()
	if f.successes > 1 || len(f.endings) > f.retries+1 {
		t.Errorf("%s: %d successes and %d errors with %d retries", id, f.successes, len(f.endings), f.retries)
	}
	if len(f.records) != 1 {
		t.Errorf("%s: records %v", id, f.records)
		return
	}
	switch f.records[0] {
	case conditionSuccess:
		if f.successes != 1 || f.dead != 0 {
			t.Errorf("%s: said to have succeeded: %+v", id, f)
		}
		return
	case conditionRetries:
		if len(f.endings) != f.retries+1 {
			t.Errorf("%s: said to be exhausted: %+v", id, f)
		}
	case conditionAge, conditionReserved:
		if len(f.endings) > f.retries {
			t.Errorf("%s: said not to be exhausted: %+v", id, f)
		}
	}
	if f.successes != 0 || f.dead != 1 {
		t.Errorf("%s: said to have failed: %+v", id, f)
	}
}

// TestAnyKillLosesNothing stops a queue in the middle of what it does, without
// any order, and checks that every event still has its outcome.
func TestAnyKillLosesNothing(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			b := newBench(t)
			defer func() { b.close() }()
			p := b.function("f")
			p.OnSuccess = "arn:aws:lambda:eu-west-1:123456789012:function:done"
			b.function("done")
			b.takes = time.Duration(r.Int64N(int64(time.Second)))
			var mu sync.Mutex // events run side by side
			outcomes := rand.New(rand.NewPCG(seed, 5))
			b.replies["f"] = func(*invoke.Request) (string, bool, error) {
				mu.Lock()
				defer mu.Unlock()
				return "null", outcomes.IntN(3) == 0, nil
			}
			p.MaxAge = 5 * time.Hour
			p.MaxRetries = 100 // so that all succeed
			const n = 30
			for i := range n {
				b.accept("f", fmt.Sprint(i), `{}`)
				time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
				if r.IntN(6) == 0 {
					// The store fails from now on: nothing that the old queue
					// still does has an effect, as after a kill.
					old := b.store
					old.mu.Lock()
					b.store = &memory{last: old.last, all: old.all}
					old.fail = func(string) error { return errors.New("killed") }
					old.all = nil
					old.mu.Unlock()
					dead, cancel := context.WithCancel(context.Background())
					cancel()
					b.Close(dead)
					b.open()
				}
			}
			after(10 * time.Hour)
			done := map[string]bool{}
			for _, d := range b.of("done") {
				done[decode(t, d.request.Payload).RequestContext.RequestID] = true
			}
			if len(done) != n || b.store.len() != 0 {
				t.Errorf("seed %d: %d of %d events have an outcome, %d are left", seed, len(done), n, b.store.len())
			}
		})
	}
}
