package gvisor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

// prepared waits until so many sandboxes are prepared and returns them.
func (p *pool) prepared(tb testing.TB, n int) []*instance {
	tb.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		ready := append([]*instance(nil), p.ready...)
		p.mu.Unlock()
		if len(ready) >= n {
			return ready
		}
		if time.Now().After(end) {
			tb.Fatalf("%d sandboxes are prepared, not %d", len(ready), n)
		}
	}
}

// gone waits until nothing of a sandbox is left.
func gone(t *testing.T, s *instance) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := 0
		for _, path := range s.driver.cgroups.Paths() {
			if _, err := os.Stat(path + "/" + s.name); err == nil {
				left++
			}
		}
		if left == 0 && s.hasEnded() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d cgroups of %s are left; ended: %v", left, s.name, s.hasEnded())
		}
	}
}

func TestPreparedSandboxThatIsKilledIsReplaced(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	first := d.pool.prepared(t, 1)[0]
	if err := first.process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.done
	newGuest(t, d).must("hostname", "", 0)
	gone(t, first)
	if next := d.pool.prepared(t, 1)[0]; next == first {
		t.Error("the one that was killed is still there")
	}
}

func TestPreparedSandboxesGiveWay(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	first := d.pool.prepared(t, 1)[0]
	if d.pool.giveUp(100 * preparedMB) {
		t.Error("one was given up for more than it holds")
	}
	if first.hasEnded() || !d.pool.giveUp(preparedMB) {
		t.Error("none was given up")
	}
	gone(t, first)
}

func TestPreparedSandboxesDoNotGoForTheirOwnMemory(t *testing.T) {
	const more, most = 10_000, 1 << 20
	p := newPool(&Driver{opts: Options{Prepared: most}})
	now := time.Now()
	for range most {
		p.rate.Note(now)
	}
	before := p.want(now)
	p.ready = make([]*instance, more*preparedPart)
	// What the host has available changes meanwhile, but not by as much.
	if n := p.want(now) - before; n < more*9/10 || n > more*11/10 {
		t.Errorf("%d more are wanted for the memory of those that are there, not %d", n, more)
	}
}

func TestPreparedSandboxesDoNotGiveWayToThoseThatNobodyWaitsFor(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	first := d.pool.prepared(t, 1)[0]
	for n := 0; ; n++ {
		available, err := sandbox.MemInfo("MemAvailable")
		if err != nil {
			t.Fatal(err)
		}
		// The host lacks as much as the prepared one has, about.
		spec := &sandbox.Spec{ID: fmt.Sprint("held", n), MemoryMB: int(available/mib) - overheadMB - reserveMB + preparedMB/2, Held: true}
		if err := d.admit(spec); errors.Is(err, sandbox.ErrNoCapacity) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		d.forget(spec.ID) // there is more by now
		d.starting.Done()
	}
	if first.hasEnded() {
		t.Error("it was given up")
	}
}

func TestCloseLeavesNothingThatIsBeingPrepared(t *testing.T) {
	for range 8 {
		d := newDriver(t, func(o *Options) { o.Prepared = 4 })
		g := newGuest(t, d)
		d.pool.hurry()
		time.Sleep(stillness) // the next is under way, or about to be
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range d.cgroups.Paths() {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left, %v", path, err)
			}
		}
		if _, err := d.Create(t.Context(), testSpec()); err == nil {
			t.Error("a sandbox of a closed driver")
		}
		<-g.Done()
	}
}

// A prepared sandbox has nothing but what the driver's own process may do, and none
// becomes two sandboxes.
func TestPreparedSandboxesAreUsedOnce(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 2 })
	first := d.pool.prepared(t, 1)[0]
	g := newGuest(t, d)
	if got := g.Sandbox.(*instance); got != first {
		t.Errorf("sandbox %s is not the prepared %s", got.name, first.name)
	}
	if err := g.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, first)
	if again := newGuest(t, d).Sandbox.(*instance); again == first {
		t.Error("it was used twice")
	}
	if _, err := d.Create(t.Context(), testSpec(func(s *sandbox.Spec) { s.Root = "/no/such" })); err == nil || !strings.Contains(err.Error(), "/no/such") {
		t.Errorf("without a root: %v", err)
	}
}

func TestPreparedSandboxesHavePractised(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	s := d.pool.prepared(t, 1)[0]
	if st, err := d.practice.Stat(); err != nil || st.Size() < 10<<10 {
		t.Errorf("the kernel to practise with: %v, %v", st, err)
	}
	if text := tail(s.stderr); strings.Contains(text, "practis") {
		t.Error(text)
	}
}
