package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

func TestMemoryOverrunEndsTheSandboxAlone(t *testing.T) {
	d := newDriver(t)
	neighbour := newGuest(t, d)
	neighbour.must("allocate", "", 80)
	g := newGuest(t, d)
	g.must("allocate", "", 100) // within its memory
	if _, err := g.try("allocate", "", 400); err == nil {
		t.Error("500 of 128 MB could be allocated")
	}
	if exit := g.ended(); !exit.OutOfMemory || exit.Err == nil {
		t.Errorf("exit %+v", exit)
	}
	neighbour.must("cpus", "", 0)
	select {
	case <-neighbour.Done():
		t.Errorf("the neighbour has ended: %+v", neighbour.Exit())
	default:
	}
}

// The cgroup leaves room for gVisor, which is not the function's.
func TestMemoryIsLimitedToWhatTheGuestHas(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	for range 4 {
		g.must("allocate", "", 30)
	}
	time.Sleep(time.Second) // it has been looked at
	g.must("cpus", "", 0)
	g.try("allocate", "", 40) // its answer may be faster than its end
	if exit := g.ended(); !exit.OutOfMemory {
		t.Errorf("160 of 128 MB in use: %+v", exit)
	}
}

func TestStatsFollowUse(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	before, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	g.must("allocate", "", 60)
	after, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("before %+v, after %+v", before, after)
	if grown := after.MemoryMB - before.MemoryMB; grown < 58 || grown > 90 {
		t.Errorf("60 MB more show as %d", grown)
	}
	if after.MemoryPeakMB < after.MemoryMB {
		t.Errorf("the peak %d is below the present %d", after.MemoryPeakMB, after.MemoryMB)
	}
	if peak, err := g.PeakMemoryMB(); err != nil || peak < after.MemoryMB || peak > after.MemoryPeakMB+10 {
		t.Errorf("peak %d, %v", peak, err)
	}
	if after.CPUNanos <= before.CPUNanos {
		t.Error("no CPU time was used")
	}
}

// A program's own pages are memory that it uses, though nobody limits them.
func TestPeakMemoryCountsMappedFiles(t *testing.T) {
	d := newDriver(t)
	source := t.TempDir()
	if err := os.Chmod(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "program"), make([]byte, 40*mib), 0o644); err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, d, func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: source, Target: "/opt"}} })
	peak := func() int {
		g.must("allocate", "", 10) // a new peak
		n, err := g.PeakMemoryMB()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := peak()
	g.must("map", "/opt/program", 0)
	if grown := peak() - before; grown < 45 || grown > 65 {
		t.Errorf("10 MiB of memory and 40 MiB of a file show as %d", grown)
	}
}

func TestForkBombIsBounded(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d, func(s *sandbox.Spec) { s.MaxProcesses = 60 })
	r := g.do("fork", "", 1000)
	t.Logf("%d processes, then %s", r.N, r.Error)
	// Each of them has a few threads, which count too.
	if r.Error == "" || r.N > 60 {
		t.Errorf("%d processes could be started, then %q", r.N, r.Error)
	}
	g.must("cpus", "", 0) // process 1 still obeys
	newGuest(t, d)        // and the host still has room
}

// computes waits until the guest has computed something; it tells whether it has.
func (g *guest) computes() bool {
	g.tb.Helper()
	before := g.must("rounds", "", 0).N
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if g.must("rounds", "", 0).N > before {
			return true
		}
	}
	return false
}

func TestCPUTimeIsShared(t *testing.T) {
	d := newDriver(t)
	boosted := func(millis int) *guest {
		g := newGuest(t, d, func(s *sandbox.Spec) { s.CPUMillis, s.BoostMillis = millis, 1000 })
		g.must("spin", "", 1)
		return g
	}
	cpu := func(millis int) *guest {
		g := boosted(millis)
		if err := g.EndBoost(); err != nil {
			t.Fatal(err)
		}
		return g
	}
	used := func(g *guest) int64 {
		st, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return st.CPUNanos
	}
	// The shares are small, so that each gets its own on a busy host, too. What
	// is compared is CPU time as the kernel counted it.
	small, large := cpu(20), cpu(200)
	start := time.Now()
	s, l := used(small), used(large)
	time.Sleep(3 * time.Second)
	s, l = used(small)-s, used(large)-l
	t.Logf("a share of 20 used %v, one of 200 %v", time.Duration(s), time.Duration(l))
	if l < 2*s {
		t.Errorf("ten times the share brought %v instead of %v", time.Duration(l), time.Duration(s))
	}
	if most := time.Since(start) / 10; s > int64(most) {
		t.Errorf("a share of 20 used %v, more than a share of 100 might", time.Duration(s))
	}
	g := boosted(20)
	b := used(g)
	time.Sleep(time.Second)
	b = used(g) - b
	if err := g.EndBoost(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	after := used(g)
	time.Sleep(time.Second)
	after = used(g) - after
	t.Logf("boosted %v in a second, then %v", time.Duration(b), time.Duration(after))
	if b < 2*after {
		t.Error("the boost gave no more CPU time")
	}
}

// gVisor starts processes for guest code from its first such process only, so
// all of them are in its group.
func TestOnlyGVisorsKernelHasCPUTimeBesideTheGuests(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	first := newGuest(t, d)
	d.pool.prepared(t, 1)
	prepared := newGuest(t, d)
	cases := map[string]*guest{"a new one": first, "a prepared one": prepared}
	for _, g := range cases {
		g.must("fork", "", 8)
	}
	source := newGuest(t, d)
	source.must("fork", "", 4)
	clone := restore(t, d, takeSnapshot(t, source))
	clone.must("fork", "", 4)
	cases["a clone"] = clone
	for name, g := range cases {
		t.Run(name, func(t *testing.T) { guestsAreApart(t, g) })
	}
}

func guestsAreApart(t *testing.T, g *guest) {
	s := g.Sandbox.(*instance)
	pids, err := s.group.Processes()
	if err != nil {
		t.Fatal(err)
	}
	guests := 0
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		inGuest := strings.Contains(string(b), "/"+s.name+"/guest\n")
		if kernel := pid == s.process.Pid; kernel == inGuest {
			t.Errorf("process %d (gVisor's kernel: %v) is in\n%s", pid, kernel, b)
		}
		if inGuest {
			guests++
		}
	}
	if guests < 2 {
		t.Errorf("%d processes run guest code", guests)
	}
}

func TestFrozenUsesNoCPU(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("spin", "", 2)
	for range 3 {
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		before, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		after, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if before.CPUNanos != after.CPUNanos {
			t.Errorf("a frozen sandbox used %v", time.Duration(after.CPUNanos-before.CPUNanos))
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		if !g.computes() {
			t.Error("a thawed sandbox does not compute")
		}
	}
	// What comes while it is frozen waits for it.
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := g.try("cpus", "", 0)
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("a frozen sandbox answers: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
}

// Freezing comes at any moment, and must not be taken for the death of anything.
func TestFreezingDoesNoHarm(t *testing.T) {
	d := newDriver(t)
	for range 2 {
		g := newGuest(t, d)
		g.must("churn", "", 0)
		for i := range 150 {
			if err := g.Freeze(); err != nil {
				t.Fatal(err)
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(i%10) * 100 * time.Microsecond)
			if _, err := g.try("cpus", "", 0); err != nil {
				t.Fatalf("after %d times: %v, %+v", i, err, g.ended())
			}
		}
		if !g.computes() {
			t.Error("the guest does not work any more")
		}
	}
}
