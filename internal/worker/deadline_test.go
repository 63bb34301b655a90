package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestInvocationsShareTheirContextUntilOneIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadlines
		first := d.begin(t.Context(), time.Now().Add(3*time.Second))
		time.Sleep(time.Second)
		d.end()
		time.Sleep(time.Minute) // the timer goes off while there is no invocation
		began := time.Now()
		second := d.begin(t.Context(), began.Add(3*time.Second))
		time.Sleep(2 * time.Second)
		d.end()
		third := d.begin(t.Context(), time.Now().Add(3*time.Second))
		if second != first || third != first || third.Err() != nil {
			t.Errorf("invocations that are not late have contexts of their own, or one that has ended: %v", third.Err())
		}
		<-third.Done()
		if took := time.Since(began); took != 5*time.Second || context.Cause(third) != errTimeout {
			t.Errorf("ended after %v: %v", took, context.Cause(third))
		}
		d.end()
		began = time.Now()
		fourth := d.begin(t.Context(), began.Add(3*time.Second))
		if fourth.Err() != nil {
			t.Fatalf("the next invocation has a context that has ended")
		}
		d.end()
		fifth := d.begin(t.Context(), began.Add(time.Second)) // its timeout is shorter
		<-fifth.Done()
		if took := time.Since(began); took != time.Second || context.Cause(fifth) != errTimeout {
			t.Errorf("ended after %v: %v", took, context.Cause(fifth))
		}
		d.end()
		d.close()
	})
}

func TestContextOfAnInvocationEndsWithItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadlines
		parent, cancel := context.WithCancel(t.Context())
		ctx := d.begin(parent, time.Now().Add(time.Hour))
		cancel()
		<-ctx.Done()
		if context.Cause(ctx) != context.Canceled {
			t.Errorf("ended by %v", context.Cause(ctx))
		}
		d.end()
		other := d.begin(t.Context(), time.Now().Add(time.Hour))
		if other.Err() != nil {
			t.Error("an invocation of another caller has a context that has ended")
		}
		d.end()
		d.close()
		<-other.Done()
		time.Sleep(2 * time.Hour) // nothing is left to go off
	})
}
