package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace"
)

// intervals returns the times between the runs of a function.
func (b *bench) intervals(name string) (d []time.Duration) {
	runs := b.of(name)
	for i := 1; i < len(runs); i++ {
		d = append(d, runs[i].at.Sub(runs[i-1].at))
	}
	return d
}

func TestAnEventRunsOnceWithItsRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.function("f")
		err := b.Accept(t.Context(), &Event{Target: target("f"), RequestID: "r1", Payload: []byte(`{"a":1}`), ClientContext: `{"c":1}`, Trace: "Root=1-a-b;Sampled=1"})
		if err != nil {
			t.Fatal(err)
		}
		after(24 * time.Hour)
		runs := b.of("f")
		if len(runs) != 1 {
			t.Fatalf("%d runs", len(runs))
		}
		r := runs[0].request
		if r.RequestID != "r1" || string(r.Payload) != `{"a":1}` || r.ClientContext != `{"c":1}` || r.InvokedARN != "arn:aws:lambda:eu-west-1:123456789012:function:f" ||
			r.TraceID != "Root=1-a-b;Sampled=1;Lineage="+trace.HopName(r.InvokedARN)+":1" {
			t.Errorf("%+v", r)
		}
		if b.store.len() != 0 || b.backlog("eu-west-1", "f") != 0 || b.counts["received"] != 1 || b.counts["dropped"] != 0 {
			t.Errorf("%d left, %v", b.store.len(), b.counts)
		}
	})
}

func TestFunctionErrorsAreRetriedAfterOneAndTwoMinutes(t *testing.T) {
	for retries, want := range [][]time.Duration{nil, {time.Minute}, {time.Minute, 2 * time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			p := b.function("f")
			p.MaxRetries, p.OnFailure = retries, "arn:aws:lambda:eu-west-1:123456789012:function:failed"
			b.function("failed")
			b.replies["f"] = fail
			b.accept("f", "r1", `{"a":1}`)
			after(time.Hour)
			if got := b.intervals("f"); !slices.Equal(got, want) {
				t.Errorf("%d retries: intervals %v", retries, got)
			}
			for _, r := range b.of("f") {
				if r.request.RequestID != "r1" {
					t.Errorf("request id %s", r.request.RequestID)
				}
			}
			got := b.of("failed")
			if len(got) != 1 {
				t.Fatalf("%d records", len(got))
			}
			r := decode(t, got[0].request.Payload)
			if r.Version != "1.0" || r.RequestContext != (requestContext{"r1", "arn:aws:lambda:eu-west-1:123456789012:function:f:$LATEST", "RetriesExhausted", retries + 1}) ||
				string(r.RequestPayload) != `{"a":1}` || *r.ResponseContext != (responseContext{200, "$LATEST", "Unhandled"}) || !strings.Contains(string(r.ResponsePayload), "broken") {
				t.Errorf("%s", got[0].request.Payload)
			}
			if b.counts["dropped"] != 1 || b.store.len() != 0 {
				t.Errorf("%v, %d left", b.counts, b.store.len())
			}
		})
	}
}

func TestThrottledEventsBackOffExponentiallyUntilTheirMaximumAge(t *testing.T) {
	for name, cause := range map[string]error{
		"429": &aws.Error{Code: "TooManyRequestsException", Status: 429},
		"500": &aws.Error{Code: "ServiceException", Status: 500},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			p := b.function("f")
			p.MaxAge, p.DeadLetter, p.OnFailure = time.Hour, "arn:aws:lambda:eu-west-1:123456789012:function:dead", "arn:aws:lambda:eu-west-1:123456789012:function:failed"
			b.function("dead")
			b.function("failed")
			b.replies["f"] = func(*invoke.Request) (string, bool, error) { return "", false, cause }
			b.accept("f", "r1", `{"a":1}`)
			after(2 * time.Hour)
			got := b.intervals("f")
			for i, d := range got {
				if want := min(time.Second<<i, 5*time.Minute); d != want {
					t.Errorf("%s: interval %d is %v, not %v", name, i, d, want)
				}
			}
			if n := len(got); n != 19 {
				t.Errorf("%s: %d retries", name, n)
			}
			dead := b.of("dead")
			if len(dead) != 1 || string(dead[0].request.Payload) != `{"a":1}` || !strings.Contains(dead[0].request.ClientContext, `"ErrorCode":"`+name+`"`) {
				t.Errorf("%s: dead letters %+v", name, dead)
			}
			r := decode(t, b.of("failed")[0].request.Payload)
			if r.RequestContext.Condition != "EventAgeExceeded" || r.RequestContext.ApproximateInvokeCount != 0 || r.ResponseContext != nil || r.ResponsePayload != nil {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestARetryThatWouldComeTooLateIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		p := b.function("f")
		p.MaxAge, p.OnFailure = time.Minute, "arn:aws:lambda:eu-west-1:123456789012:function:failed"
		b.function("failed")
		b.replies["f"], b.takes = fail, time.Second
		b.accept("f", "r1", `{}`)
		after(10 * time.Second)
		r := decode(t, b.of("failed")[0].request.Payload)
		if r.RequestContext.Condition != "EventAgeExceeded" || r.RequestContext.ApproximateInvokeCount != 1 || r.ResponseContext == nil {
			t.Errorf("%+v", r)
		}
	})
}

func TestZeroReservedConcurrencySendsEventsToTheirDestinationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		p := b.function("f")
		zero := 0
		p.Reserved = &zero
		p.OnFailure, p.DeadLetter = "arn:aws:lambda:eu-west-1:123456789012:function:failed", "arn:aws:lambda:eu-west-1:123456789012:function:dead"
		b.function("failed")
		b.function("dead")
		b.accept("f", "r1", `{}`)
		after(time.Second)
		if len(b.of("f")) != 0 || len(b.of("dead")) != 1 {
			t.Errorf("%d runs, %d dead letters", len(b.of("f")), len(b.of("dead")))
		}
		if r := decode(t, b.of("failed")[0].request.Payload); r.RequestContext.Condition != "ZeroReservedConcurrency" || r.ResponseContext != nil {
			t.Errorf("%+v", r)
		}
	})
}

func TestDestinationsThatCallTheirOwnCallersAreStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		p, g := b.function("f"), b.function("g")
		p.OnSuccess, g.OnSuccess = g.InvokedARN, p.InvokedARN
		p.OnFailure = "arn:aws:lambda:eu-west-1:123456789012:function:failed"
		b.function("failed")
		b.accept("f", "r1", `{}`)
		after(time.Hour)
		if f, g := len(b.of("f")), len(b.of("g")); f != trace.MaxLineage || g != trace.MaxLineage {
			t.Errorf("%d and %d runs", f, g)
		}
		if b.counts["recursion"] != 1 || len(b.of("failed")) != 1 {
			t.Errorf("%v", b.counts)
		}
		p.AllowRecursion = true
		g.AllowRecursion = true
		b.accept("f", "r2", `{}`)
		b.mu.Lock()
		b.takes = time.Second
		b.mu.Unlock()
		after(time.Minute)
		if n := len(b.of("f")); n < 40 {
			t.Errorf("a loop that is allowed ended after %d runs", n)
		}
	})
}

func TestWhatCannotBeDeliveredIsCountedAndDoesNotHoldUpTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		p := b.function("f")
		p.MaxRetries = 0
		p.OnSuccess = "arn:aws:lambda:eu-west-1:123456789012:function:big"
		p.OnFailure, p.DeadLetter = "arn:aws:sqs:eu-west-1:123456789012:q", "arn:aws:lambda:eu-west-1:123456789012:function:gone"
		b.function("big")
		b.replies["f"] = fail
		b.accept("f", "r1", `{}`)
		after(time.Second)
		b.replies["f"] = func(*invoke.Request) (string, bool, error) {
			return `"` + strings.Repeat("x", MaxPayload) + `"`, false, nil
		}
		b.accept("f", "r2", `{}`)
		after(time.Second)
		if b.counts["destination failed"] != 2 || b.counts["dead letter failed"] != 1 || b.store.len() != 0 {
			t.Errorf("%v, %d left", b.counts, b.store.len())
		}
	})
}

func TestAnEventOfAFunctionThatIsGoneIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.accept("gone", "r1", `{}`)
		after(time.Second)
		if b.counts["dropped"] != 1 || b.store.len() != 0 {
			t.Errorf("%v, %d left", b.counts, b.store.len())
		}
	})
}

func TestAnEventWaitsForItsFunctionToComeUpButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.function("f")
		broken := func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.broken = err
		}
		broken(errors.New("it is Failed"))
		b.accept("f", "r1", `{}`)
		after(time.Hour)
		if n := len(b.of("f")); n != 0 || b.store.len() != 1 {
			t.Fatalf("%d runs, %d left", n, b.store.len())
		}
		broken(nil)
		after(maxBackoff)
		if n := len(b.of("f")); n != 1 || b.store.len() != 0 {
			t.Fatalf("%d runs, %d left", n, b.store.len())
		}
		broken(errors.New("it is Failed"))
		b.accept("f", "r2", `{}`)
		after(DefaultMaxAge + maxBackoff)
		if n := len(b.of("f")); n != 1 || b.store.len() != 0 || b.counts["dropped"] != 1 {
			t.Errorf("%d runs, %d left, %v", n, b.store.len(), b.counts)
		}
	})
}

func TestABacklogOfOneFunctionDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.function("busy")
		b.function("other")
		b.takes = time.Minute
		b.replies["busy"] = throttle
		for i := range 1000 {
			b.accept("busy", fmt.Sprint("b", i), `{}`)
		}
		b.accept("other", "o", `{}`)
		after(time.Second)
		if len(b.of("other")) != 1 {
			t.Error("the other function's event has not been started")
		}
		b.mu.Lock()
		b.takes = time.Millisecond
		b.mu.Unlock()
		after(2 * time.Hour)
		// All are throttled: the lane probes about once a second, whatever the
		// backlog.
		if n := len(b.of("busy")); n > 2*3600+100 {
			t.Errorf("%d attempts in two hours", n)
		}
		b.mu.Lock()
		delete(b.replies, "busy")
		b.mu.Unlock()
		after(10 * time.Minute)
		if n := b.backlog("eu-west-1", "busy"); n != 0 {
			t.Errorf("%d events are left ten minutes after the function has room", n)
		}
	})
}

func TestParallelismFollowsWhatTheFunctionHasRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.function("f")
		b.takes = time.Second
		for i := range 2000 {
			b.accept("f", fmt.Sprint(i), `{}`)
		}
		after(500 * time.Millisecond)
		if n := len(b.of("f")); n != initialParallel {
			t.Errorf("%d events run at first", n)
		}
		after(time.Minute)
		if n := len(b.of("f")); n != 2000 {
			t.Errorf("%d events of 2000 have run", n)
		}
	})
}

func TestAStoreThatFailsForAWhileMakesNothingRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		p := b.function("f")
		p.OnSuccess = "arn:aws:lambda:eu-west-1:123456789012:function:done"
		b.function("done")
		b.accept("f", "r1", `{}`)
		b.store.mu.Lock()
		b.store.fail = func(op string) error {
			if op == "get" {
				return nil
			}
			return errors.New("no space left on device")
		}
		b.store.mu.Unlock()
		after(10 * time.Minute)
		b.store.mu.Lock()
		b.store.fail = nil
		b.store.mu.Unlock()
		after(10 * time.Minute)
		if f, d := len(b.of("f")), len(b.of("done")); f != 1 || d != 1 || b.store.len() != 0 {
			t.Errorf("%d runs, %d records, %d left", f, d, b.store.len())
		}
	})
}

func TestCloseWaitsForWhatRunsAndLeavesTheRestForTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.function("f")
		b.takes = 10 * time.Second
		for i := range initialParallel + 5 {
			b.accept("f", fmt.Sprint(i), `{}`)
		}
		after(time.Second)
		b.close()
		if n := b.store.len(); n != 5 {
			t.Errorf("%d events are left after an orderly end", n)
		}
		b.accept("f", "late", `{}`) // is durable, and for the next start
		b.open()
		after(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b.Close(ctx) // before the five have ended
		if n := b.store.len(); n != 6 {
			t.Errorf("%d events are left after an end in a hurry", n)
		}
		b.open()
		defer b.close()
		after(time.Minute)
		if n := b.store.len(); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

func TestAttemptsCountAcrossRestartsAndOldCopiesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.function("f")
		b.replies["f"] = fail
		b.accept("f", "r1", `{}`)
		after(time.Second)
		b.close()
		// As a crash between the two writes of a retry leaves it.
		b.store.all[0] = message{bytes.ReplaceAll(b.store.all[b.store.last].head, []byte(`"attempts":1,`), nil), []byte(`{}`)}
		b.open()
		defer b.close()
		if b.store.len() != 1 {
			t.Errorf("%d copies", b.store.len())
		}
		after(time.Hour)
		if got := b.intervals("f"); !slices.Equal(got, []time.Duration{time.Minute, 2 * time.Minute}) {
			t.Errorf("intervals %v", got)
		}
	})
}

func TestOpenRefusesWhatItCannotRead(t *testing.T) {
	for name, h := range map[string]string{
		"a newer version": `{"v":2,"region":"r","function":"f","requestId":"i","accepted":"2026-01-01T00:00:00Z"}`,
		"no function":     `{"v":1,"region":"r","requestId":"i","accepted":"2026-01-01T00:00:00Z"}`,
		"no JSON":         `x`,
	} {
		m := newMemory()
		m.all[1] = message{[]byte(h), nil}
		if _, err := open(t.Context(), m, Options{}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestAPendingEventIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(pending{}); n > 32 {
		t.Errorf("%d bytes", n)
	}
}

func TestResponsesOfAnyFormFitARecord(t *testing.T) {
	for in, want := range map[string]string{"": "null", `{"a":1}`: `{"a":1}`, "plain": `"plain"`, "\xff": `"�"`} {
		if got := string(asJSON([]byte(in))); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(`{"v":1,"region":"r","function":"f","requestId":"i","accepted":"2026-01-01T00:00:00Z","attempts":1,"notBefore":"2026-01-01T00:01:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h head
		if json.Unmarshal(b, &h) != nil || h.check() != nil {
			return
		}
		again, err := json.Marshal(h)
		if err != nil {
			t.Skip(err) // a time beyond the year 9999
		}
		var g head
		if err := json.Unmarshal(again, &g); err != nil || g.check() != nil || !g.Accepted.Equal(h.Accepted) || g.Target != h.Target {
			t.Errorf("%s reads as %+v, %v", again, g, err)
		}
	})
}

// crowd is a store of many events, which it makes up when they are read.
type crowd struct {
	memory
	n int
}

func (c *crowd) Heads(_ context.Context, visit func(uint64, head) error) error {
	for i := range c.n {
		h := head{Version: headVersion, Target: target(fmt.Sprint("f", i%10)), RequestID: fmt.Sprintf("%036d", i), Accepted: time.Now(), ClientContext: strings.Repeat("x", 1000)}
		if err := visit(uint64(i+1), h); err != nil {
			return err
		}
	}
	return nil
}

func TestABacklogIsCheapInMemory(t *testing.T) {
	const n = 100_000
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	q, err := open(t.Context(), &crowd{n: n}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes an event", each)
	if each > 200 {
		t.Errorf("%.0f bytes an event", each)
	}
	if got := q.backlog("eu-west-1", "f3"); got != n/10 {
		t.Errorf("%d events of one function", got)
	}
	q.Close(t.Context())
}

// backlog returns how many events of a function wait or run.
func (q *Queue) backlog(region, function string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[laneKey{region, function}]
	if l == nil {
		return 0
	}
	return len(l.events) + l.running
}
