package gvisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/sandbox"
)

// exchanging starts a runtime that waits for events in exchanges, in so many threads.
func exchanging(t *testing.T, conn *hostSide, threads int) {
	t.Helper()
	start := startRuntime(false)
	start.Restorable = false
	start.Env["EXCHANGERS"] = strconv.Itoa(threads)
	if res, err := conn.Start(t.Context(), start); err != nil || res.Err != nil {
		t.Fatalf("start: %+v %v", res, err)
	}
}

// begin begins an invocation, and returns what comes of it.
func begin(ctx context.Context, conn *hostSide, n int, event string) (r *reply, over func() error) {
	r = new(reply)
	inv := proto.Invocation{RequestID: fmt.Sprintf("8476a536-e9f4-11e8-9739-2dfe598c%04d", n)}
	running, err := conn.Invoke(ctx, inv, []byte(event), r)
	return r, func() error {
		if err != nil {
			return err
		}
		out, err := running.Wait(ctx)
		if err == nil && out.Exit != nil {
			err = errors.New(out.Exit.Reason)
		}
		return err
	}
}

// TestExchangesInManyThreads has threads of one process wait for events, while signals
// come, and the host order what it may order.
func TestExchangesInManyThreads(t *testing.T) {
	for _, threads := range []int{1, 4} {
		t.Run(fmt.Sprint(threads), func(t *testing.T) {
			_, s, conn := newServed(t, withExchanger)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n := 0
			for life := range 6 {
				exchanging(t, conn, threads)
				for range 200 {
					n++
					event := fmt.Sprintf("event %d", n)
					r, over := begin(ctx, conn, n, event)
					if err := over(); err != nil || string(r.body) != event {
						t.Fatalf("event %d: %q %v", n, r.body, err)
					}
					switch n % 50 {
					case 0:
						time.Sleep(15 * time.Millisecond) // until who reads has changed
					case 1:
						if err := errors.Join(s.Freeze(), s.Thaw()); err != nil {
							t.Fatal(err)
						}
					}
				}
				if life%3 == 1 { // else it waits
					running, stop := context.WithTimeout(ctx, 50*time.Millisecond)
					if _, over := begin(running, conn, n+1, "sleep"); over() == nil {
						t.Error("it did not sleep")
					}
					stop()
				}
				if life%3 == 2 {
					if _, over := begin(ctx, conn, n+1, "exit"); over() == nil {
						t.Error("it did not end")
					}
				}
				began := time.Now()
				if err := conn.Reset(ctx, "timeout"); err != nil {
					t.Fatalf("reset: %v", err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("a reset took %v", took)
				}
			}
			exchanging(t, conn, threads)
			if err := s.Snapshot(ctx, newSnapshot(t)); !errors.Is(err, sandbox.ErrUnfit) {
				t.Errorf("snapshot: %v", err)
			}
		})
	}
}

func TestSandboxEndsWithItsHostWhileAnExchangeWaits(t *testing.T) {
	_, s, conn := newServed(t, withExchanger)
	exchanging(t, conn, 2)
	time.Sleep(50 * time.Millisecond)
	conn.Close()
	select {
	case <-s.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the sandbox does not end")
	}
}

func withExchanger(s *sandbox.Spec) {
	s.Mounts = []sandbox.Mount{{Source: runtimeBinary, Target: "/var/runtime"}}
}
