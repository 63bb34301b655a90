package gvisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// newSnapshot returns empty files for a snapshot.
func newSnapshot(tb testing.TB) sandbox.Snapshot {
	tb.Helper()
	dir := tb.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		return f
	}
	return sandbox.Snapshot{State: open("state"), Memory: open("memory")}
}

// takeSnapshot makes a snapshot of g.
func takeSnapshot(tb testing.TB, g *guest) sandbox.Snapshot {
	tb.Helper()
	snap := newSnapshot(tb)
	if err := g.Snapshot(tb.Context(), snap); err != nil {
		tb.Fatal(err)
	}
	return snap
}

// restore makes a sandbox from a snapshot.
func restore(tb testing.TB, d *Driver, snap sandbox.Snapshot, change ...func(*sandbox.Spec)) *guest {
	tb.Helper()
	s, err := d.Restore(tb.Context(), testSpec(change...), snap)
	if err != nil {
		tb.Fatal(err)
	}
	return &guest{tb, s, bufio.NewReader(s.Conn())}
}

func TestClonesGoOnFromTheSnapshotAndAreApart(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 2 })
	g := newGuest(t, d)
	const pages = 5 << 20 / 4096
	g.must("allocate", "", 5)
	g.must("write", "/tmp/file", 3)
	g.must("serve", "127.0.0.1:8080", 100)
	snap := takeSnapshot(t, g)
	clones := []*guest{restore(t, d, snap), restore(t, d, snap)}
	for _, c := range clones {
		if n := c.must("held", "", 0).N; n != pages {
			t.Errorf("a clone's memory adds up to %d, not %d", n, pages)
		}
		if n := c.must("stat", "/tmp/file", 0).N; n != 3<<20 {
			t.Errorf("the file in /tmp has %d bytes", n)
		}
		if n := c.must("get", "http://127.0.0.1:8080/", 0).N; n != 100 {
			t.Errorf("a clone's server answers %d bytes", n)
		}
	}
	clones[0].must("scribble", "", 7)
	clones[0].must("write", "/tmp/other", 1)
	if n := clones[0].must("held", "", 0).N; n != 7*pages {
		t.Errorf("the memory that a clone has written to adds up to %d, not %d", n, 7*pages)
	}
	for _, c := range []*guest{clones[1], restore(t, d, snap)} {
		if n := c.must("held", "", 0).N; n != pages {
			t.Errorf("another clone's memory adds up to %d, not %d", n, pages)
		}
		if r := c.do("stat", "/tmp/other", 0); r.Error == "" {
			t.Error("a clone sees another's file")
		}
	}
}

func TestClonesKeepTheRegistersOfTheirThreads(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("hold", "", 0)
	snap := takeSnapshot(t, g)
	for range 2 {
		if restore(t, d, snap).must("let go", "", 0).N != 1 {
			t.Error("floating point registers are not what they were")
		}
	}
}

// What a snapshot takes on the disk is known before it is made.
func TestSnapshotTakesHardlyMoreThanTheSandboxUses(t *testing.T) {
	const more = 32 // the part of the worker's allowance that this is sure of, in MiB
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("allocate", "", 40)
	g.must("write", "/tmp/file", 30)
	st, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if st.TmpMB < 30 || st.TmpMB > 40 {
		t.Errorf("30 MB in /tmp are %d MB", st.TmpMB)
	}
	snap := takeSnapshot(t, g)
	taken := 0
	for _, f := range []*os.File{snap.State, snap.Memory} {
		var on unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &on); err != nil {
			t.Fatal(err)
		}
		taken += int(on.Blocks * 512 / mib)
	}
	t.Logf("a snapshot of %d MB where %d MB of memory and %d MB of /tmp are used", taken, st.MemoryMB, st.TmpMB)
	if taken > st.MemoryMB+st.TmpMB+more {
		t.Errorf("a snapshot of %d MB where %d MB of memory and %d MB of /tmp are used", taken, st.MemoryMB, st.TmpMB)
	}
}

func TestClonesHaveTheirOwnRandomness(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("random", "", 0)
	snap := takeSnapshot(t, g)
	seen := make(map[string]bool)
	for range 8 {
		c := restore(t, d, snap)
		text := c.must("random", "", 0).Text
		if seen[text[:16]] || seen[text[16:]] {
			t.Errorf("two clones drew %s", text)
		}
		seen[text[:16]], seen[text[16:]] = true, true
		c.Destroy(t.Context())
	}
}

func TestClonesKnowWhatTimeItIs(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("time", "", 0)
	snap := takeSnapshot(t, g)
	time.Sleep(time.Second)
	before := time.Now()
	c := restore(t, d, snap)
	got := time.Unix(0, c.must("time", "", 0).N)
	if got.Before(before.Add(-10*time.Millisecond)) || got.After(time.Now().Add(10*time.Millisecond)) {
		t.Errorf("the clone's clock shows %v, after %v", got, before)
	}
}

// gVisor tells time by the processor's counter soon after the start, and has had
// little time to learn its pace.
func TestClocksGoRightFromTheStart(t *testing.T) {
	d := newDriver(t)
	origin := newGuest(t, d)
	origin.must("time", "", 0)
	snap := takeSnapshot(t, origin)
	for name, g := range map[string]*guest{"new": newGuest(t, d), "clone": restore(t, d, snap)} {
		for range 8 {
			const most = 5 * time.Millisecond
			before := time.Now()
			got := time.Unix(0, g.must("time", "", 0).N)
			if after := time.Now(); got.Before(before.Add(-most)) || got.After(after.Add(most)) {
				t.Errorf("%s: the clock is %v ahead and %v behind", name, got.Sub(after), before.Sub(got))
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
}

func TestClonesKeepTheirLimits(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("allocate", "", 40)
	snap := takeSnapshot(t, g)
	c := restore(t, d, snap)
	if r, err := c.try("fork", "", 1000); err != nil || r.N > 256 {
		t.Errorf("a clone started %d processes, %v", r.N, err)
	}
	c = restore(t, d, snap)
	if _, err := c.try("allocate", "", 400); err == nil {
		t.Error("a clone took more memory than it may")
	}
	if exit := c.ended(); !exit.OutOfMemory {
		t.Errorf("it ended with %+v", exit)
	}
}

func TestWhatAClonesSnapshotHoldsCountsAsItsMemory(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("allocate", "", 90)
	snap := takeSnapshot(t, g)
	c := restore(t, d, snap)
	c.must("scribble", "", 7) // what is copied counts once
	c.must("allocate", "", 15)
	time.Sleep(time.Second) // it has been looked at
	c.must("cpus", "", 0)
	c = restore(t, d, snap)
	c.try("allocate", "", 70) // its answer may be faster than its end
	if exit := c.ended(); !exit.OutOfMemory {
		t.Errorf("160 of 128 MB in use: %+v", exit)
	}
}

func TestClonesOfManyProcesses(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("fork", "", 5)
	snap := takeSnapshot(t, g)
	c := restore(t, d, snap)
	if n := len(strings.Fields(c.must("list", "/proc", 0).Text)); n < 6 {
		t.Errorf("%d names in /proc", n)
	}
	c.must("fork", "", 2)
}

func TestManyClonesAtOnce(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 4 })
	g := newGuest(t, d)
	snap := takeSnapshot(t, g)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			s, err := d.Restore(t.Context(), testSpec(), snap)
			if err != nil {
				t.Error(err)
				return
			}
			c := &guest{t, s, bufio.NewReader(s.Conn())}
			if r, err := c.try("hostname", "", 0); err != nil || r.Text != "guest" {
				t.Errorf("a clone answers %+v, %v", r, err)
			}
			s.Destroy(t.Context())
		})
	}
	wg.Wait()
}

func TestDamagedSnapshotsFailAndLeaveNothing(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("allocate", "", 1)
	whole := takeSnapshot(t, g)
	if err := g.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(whole.State.Name())
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(change func(b []byte) []byte) sandbox.Snapshot {
		snap := newSnapshot(t)
		if _, err := snap.State.Write(change(append([]byte(nil), state...))); err != nil {
			t.Fatal(err)
		}
		snap.Memory = whole.Memory
		return snap
	}
	for name, snap := range map[string]sandbox.Snapshot{
		"empty state":     damaged(func(b []byte) []byte { return nil }),
		"half of a state": damaged(func(b []byte) []byte { return b[:len(b)/2] }),
		"another's state": damaged(func(b []byte) []byte { clear(b[:16]); return b }),
		"no memory":       {State: whole.State, Memory: newSnapshot(t).Memory},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		s, err := d.Restore(ctx, testSpec(), snap)
		cancel()
		if err == nil {
			t.Errorf("%s: restored", name)
			s.Destroy(t.Context())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.live) != 0 {
		t.Errorf("%d sandboxes are left", len(d.live))
	}
}

func TestNoSnapshotIsTakenOfOpenConnections(t *testing.T) {
	d := newDriver(t)
	network, outside := testNetwork(t)
	if err := outside(func() error {
		l, err := net.Listen("tcp", "10.99.0.1:8080")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, d, func(s *sandbox.Spec) { s.Network = network })
	g.must("connect", "tcp!10.99.0.1:8080", 0)
	err := g.Snapshot(t.Context(), newSnapshot(t))
	if !errors.Is(err, sandbox.ErrUnfit) || !strings.Contains(err.Error(), "10.99.0.1:8080") {
		t.Errorf("snapshot: %v", err)
	}
}

func TestClonesHaveTheNetworkThatTheyAreGiven(t *testing.T) {
	d := newDriver(t)
	with := func(n sandbox.Network) func(*sandbox.Spec) { return func(s *sandbox.Spec) { s.Network = n } }
	first, _ := testNetwork(t)
	g := newGuest(t, d, with(first))
	g.must("interfaces", "", 0)
	snap := takeSnapshot(t, g)
	second, outside := testNetwork(t)
	second.Address = netip.MustParsePrefix("10.99.0.77/24")
	var l net.Listener
	if err := outside(func() (err error) {
		l, err = net.Listen("tcp", "10.99.0.1:8080")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := restore(t, d, snap, with(second))
	if got := c.must("interfaces", "", 0).Text; !strings.Contains(got, "eth0 1500 [10.99.0.77/24]") || strings.Contains(got, "10.99.0.2/") {
		t.Errorf("interfaces\n%s", got)
	}
	c.must("connect", "tcp!10.99.0.1:8080", 0)
}

func TestClonesHaveProcAndSys(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	mounts := g.must("read", "/proc/mounts", 0).Text
	name := g.must("read", "/sys/devices/virtual/dmi/id/product_name", 0).Text
	c := restore(t, d, takeSnapshot(t, g))
	sorted := func(s string) []string { // without descriptors, which are the process's
		return slices.Sorted(strings.Lines(regexp.MustCompile(`[rw]fdno=\d+`).ReplaceAllString(s, "")))
	}
	if got := c.must("read", "/proc/mounts", 0).Text; !slices.Equal(sorted(got), sorted(mounts)) {
		t.Errorf("mounts of a clone:\n%s\nnot\n%s", got, mounts)
	}
	if got := c.must("read", "/sys/devices/virtual/dmi/id/product_name", 0).Text; got != name {
		t.Errorf("the product is %q, not %q", got, name)
	}
	if got := c.must("read", "/proc/self/stat", 0).Text; !strings.HasPrefix(got, "1 (") {
		t.Errorf("/proc/self/stat has %q", got)
	}
	if r := c.do("write", "/proc/x", 1); r.Error == "" {
		t.Error("a file was made in /proc")
	}
}

// BenchmarkRestore measures clones from the call of Restore to their first answers.
func BenchmarkRestore(b *testing.B) {
	d := newDriver(b, func(o *Options) { o.Prepared = 4 })
	g := newGuest(b, d)
	snap := takeSnapshot(b, g)
	var took, answer, cpu time.Duration
	for b.Loop() {
		time.Sleep(200 * time.Millisecond) // until one is prepared
		var s0 time.Duration
		d.pool.mu.Lock()
		if n := len(d.pool.ready); n > 0 {
			s0, _ = d.pool.ready[n-1].group.CPU()
		}
		d.pool.mu.Unlock()
		start := time.Now()
		s, err := d.Restore(b.Context(), testSpec(), snap)
		if err != nil {
			b.Fatal(err)
		}
		took += time.Since(start)
		st, err := s.Stats()
		if err != nil {
			b.Fatal(err)
		}
		cpu += time.Duration(st.CPUNanos) - s0
		(&guest{b, s, bufio.NewReader(s.Conn())}).must("hostname", "", 0)
		answer += time.Since(start)
		s.Destroy(b.Context())
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(ms(took), "restore-ms")
	b.ReportMetric(ms(cpu), "restore-cpu-ms")
	b.ReportMetric(ms(answer), "answer-ms")
}

func TestSnapshotsAreTakenOfWhatIsFrozenOrHasLittleCPUTime(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d, func(s *sandbox.Spec) { s.CPUMillis = 70 })
	g.must("allocate", "", 4)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	c := restore(t, d, takeSnapshot(t, g))
	if n := c.must("held", "", 0).N; n != 4<<20/4096 {
		t.Errorf("the clone's memory adds up to %d", n)
	}
}

func TestSnapshotOfWhatHasEndedFails(t *testing.T) {
	d := newDriver(t)
	for name, end := range map[string]func(*guest){
		"killed":    func(g *guest) { g.Sandbox.(*instance).process.Kill(); <-g.Done() },
		"destroyed": func(g *guest) { g.Destroy(t.Context()) },
		"snapshot":  func(g *guest) { takeSnapshot(t, g); g.Destroy(t.Context()) },
		"dying":     func(g *guest) { g.Sandbox.(*instance).process.Kill() },
	} {
		g := newGuest(t, d)
		end(g)
		if err := g.Snapshot(t.Context(), newSnapshot(t)); err == nil && name != "snapshot" || errors.Is(err, sandbox.ErrUnfit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSnapshotAndRestoreEndWithTheirContexts(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	snap := takeSnapshot(t, newGuest(t, d))
	for wait := time.Millisecond; wait < 200*time.Millisecond; wait *= 2 {
		g := newGuest(t, d)
		g.must("allocate", "", 30)
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		if err := g.Snapshot(ctx, newSnapshot(t)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a snapshot within %v: %v", wait, err)
		}
		cancel()
		if err := g.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), wait)
		s, err := d.Restore(ctx, testSpec(), snap)
		cancel()
		if err == nil {
			err = s.Destroy(t.Context())
		} else if errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		if err != nil {
			t.Errorf("a clone within %v: %v", wait, err)
		}
	}
	nothingLives(t, d, 1)
}

// nothingLives fails where a driver has more sandboxes than those of the test.
func nothingLives(t *testing.T, d *Driver, but int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.live) != but {
		t.Errorf("there are %d sandboxes, not %d", len(d.live), but)
	}
}

func TestSnapshotsOfOtherMountsAreRefused(t *testing.T) {
	d := newDriver(t)
	mounts := func(names ...string) func(*sandbox.Spec) {
		return func(s *sandbox.Spec) {
			for _, name := range names {
				s.Mounts = append(s.Mounts, sandbox.Mount{Source: "/usr/lib", Target: "/" + name})
			}
		}
	}
	g := newGuest(t, d, mounts("a", "b"))
	g.must("list", "/b", 0)
	snap := takeSnapshot(t, g)
	restore(t, d, snap, mounts("a", "b")).must("list", "/b", 0)
	for _, names := range [][]string{nil, {"a"}, {"a", "c"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		s, err := d.Restore(ctx, testSpec(mounts(names...)), snap)
		cancel()
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("mounts %q: %v, %v", names, s, err)
		}
	}
	nothingLives(t, d, 2)
}

func TestAsManyMountsAsThereMayBeAreRestored(t *testing.T) {
	d := newDriver(t)
	full := func(s *sandbox.Spec) {
		for i := range wire.MaxMounts - 1 { // beside process 1's program
			s.Mounts = append(s.Mounts, sandbox.Mount{Source: "/usr/lib", Target: "/" + strings.Repeat("m", i+1)})
		}
	}
	g := newGuest(t, d, full)
	last := "/" + strings.Repeat("m", wire.MaxMounts-1)
	g.must("list", last, 0)
	restore(t, d, takeSnapshot(t, g), full).must("list", last, 0)
}

// tampered is how many states the next test tries.
const tampered = 24

// A state whose bytes were changed may do to the sandbox process what it likes. The
// driver only has to end it.
func TestStatesThatWereTamperedWithHarmTheirSandboxAlone(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 1 })
	g := newGuest(t, d)
	g.must("allocate", "", 1)
	whole := takeSnapshot(t, g)
	if err := g.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(whole.State.Name())
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make(map[string]int)
	for range tampered {
		at, bit := rand.IntN(len(state)), byte(1)<<rand.IntN(8)
		snap := newSnapshot(t)
		state[at] ^= bit
		_, err := snap.State.Write(state)
		state[at] ^= bit
		if err != nil {
			t.Fatal(err)
		}
		snap.Memory = whole.Memory
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		s, err := d.Restore(ctx, testSpec(), snap)
		cancel()
		switch {
		case err == nil:
			outcomes["restored"]++
			s.Conn().SetDeadline(time.Now().Add(time.Second))
			(&guest{t, s, bufio.NewReader(s.Conn())}).try("allocate", "", 1)
			if err := s.Destroy(t.Context()); err != nil {
				t.Error(err)
			}
		case errors.Is(err, context.DeadlineExceeded):
			outcomes["late"]++
			t.Logf("byte %d of %d, bit %#x: %v", at, len(state), bit, err)
		default:
			outcomes["refused"]++
		}
		snap.State.Close()
	}
	t.Logf("%v", outcomes)
	nothingLives(t, d, 0)
	restore(t, d, whole).must("held", "", 0)
}

func TestAMemoryFileThatIsCutOffEndsItsClones(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("allocate", "", 8)
	snap := takeSnapshot(t, g)
	c := restore(t, d, snap)
	if err := os.Truncate(snap.Memory.Name(), 0); err != nil {
		t.Fatal(err)
	}
	if r, err := c.try("held", "", 0); err == nil {
		t.Fatalf("it answers %+v", r)
	}
	if exit := c.ended(); exit.Err == nil {
		t.Errorf("it ended with %+v", exit)
	}
	if s, err := d.Restore(t.Context(), testSpec(), snap); err == nil {
		t.Errorf("%v was restored", s)
	}
	newGuest(t, d).must("hostname", "", 0)
}

func TestASandboxProcessCannotWriteToItsSnapshot(t *testing.T) {
	d := newDriver(t)
	snap := takeSnapshot(t, newGuest(t, d)) // open for writing
	c := restore(t, d, snap)
	root := fmt.Sprintf("/proc/%d", c.Sandbox.(*instance).process.Pid)
	links, err := os.ReadDir(root + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, l := range links {
		to, _ := os.Readlink(root + "/fd/" + l.Name())
		if to != snap.State.Name() && to != snap.Memory.Name() {
			continue
		}
		found++
		b, err := os.ReadFile(root + "/fdinfo/" + l.Name())
		if err != nil {
			t.Fatal(err)
		}
		flags := regexp.MustCompile(`flags:\s*(\d+)`).FindSubmatch(b)
		n, err := strconv.ParseInt(string(flags[1]), 8, 64)
		if err != nil || n&unix.O_ACCMODE != unix.O_RDONLY {
			t.Errorf("%s is open with the flags %#o", to, n)
		}
	}
	if found == 0 {
		t.Error("it has no descriptor of the memory")
	}
}

// A clone's memory counts as if it had initialised itself: what it has of the
// snapshot, once, whether it reads or writes it, and what it takes beside it.
func TestPeakMemoryOfACloneIsThatOfAFreshSandbox(t *testing.T) {
	d := newDriver(t)
	peak := func(g *guest) int {
		t.Helper()
		n, err := g.PeakMemoryMB()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	g := newGuest(t, d)
	g.must("allocate", "", 40)
	fresh := peak(g)
	snap := takeSnapshot(t, g)
	const near = 12 // MiB
	for what, use := range map[string]func(c *guest) (more int){
		"reads":            func(c *guest) int { c.must("held", "", 0); return 0 },
		"writes":           func(c *guest) int { c.must("scribble", "", 7); return 0 },
		"reads and writes": func(c *guest) int { c.must("held", "", 0); peak(c); c.must("scribble", "", 7); return 0 },
		"takes more":       func(c *guest) int { c.must("held", "", 0); c.must("allocate", "", 30); return 30 },
	} {
		c := restore(t, d, snap)
		more := use(c)
		got := peak(c)
		t.Logf("%s: %d MB, a fresh sandbox %d MB", what, got, fresh+more)
		if got < fresh+more-near || got > fresh+more+near {
			t.Errorf("%s: %d MB, but a fresh sandbox %d MB", what, got, fresh+more)
		}
	}
}
