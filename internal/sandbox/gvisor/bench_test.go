package gvisor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

// BenchmarkCreateDestroy measures the life of a sandbox, from the call of Create
// to its first answer and through Destroy.
func BenchmarkCreateDestroy(b *testing.B) {
	d := newDriver(b)
	var create, answer, destroy, cpu time.Duration
	for b.Loop() {
		start := time.Now()
		s, err := d.Create(b.Context(), testSpec())
		if err != nil {
			b.Fatal(err)
		}
		create += time.Since(start)
		st, err := s.Stats()
		if err != nil {
			b.Fatal(err)
		}
		cpu += time.Duration(st.CPUNanos)
		start = time.Now()
		(&guest{b, s, bufio.NewReader(s.Conn())}).must("hostname", "", 0)
		answer += time.Since(start)
		start = time.Now()
		if err := s.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
		destroy += time.Since(start)
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(ms(create), "create-ms")
	b.ReportMetric(ms(cpu), "create-cpu-ms")
	b.ReportMetric(ms(answer), "answer-ms")
	b.ReportMetric(ms(destroy), "destroy-ms")
}

// BenchmarkCreate64 measures 64 sandboxes that start side by side.
func BenchmarkCreate64(b *testing.B) {
	d := newDriver(b)
	for b.Loop() {
		var wg sync.WaitGroup
		made := make([]sandbox.Sandbox, 64)
		for i := range made {
			wg.Go(func() {
				s, err := d.Create(b.Context(), testSpec())
				if err != nil {
					b.Error(err)
					return
				}
				made[i] = s
			})
		}
		wg.Wait()
		b.StopTimer()
		for _, s := range made {
			if s != nil {
				wg.Go(func() { s.Destroy(b.Context()) })
			}
		}
		wg.Wait()
		b.StartTimer()
	}
}

// BenchmarkPingPong measures a round trip over the host connection beside the
// floor: the same over a Unix socket pair to a native process's goroutine.
func BenchmarkPingPong(b *testing.B) {
	for _, size := range []int{1 << 10, 6 << 20} {
		b.Run(fmt.Sprintf("native/%d", size), func(b *testing.B) {
			dir := b.TempDir()
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, size)
				for {
					if _, err := io.ReadFull(conn, buf); err != nil {
						return
					}
					if _, err := conn.Write(buf); err != nil {
						return
					}
				}
			}()
			conn, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			buf := make([]byte, size)
			b.SetBytes(2 * int64(size))
			for b.Loop() {
				go conn.Write(buf)
				if _, err := io.ReadFull(conn, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("sandbox/%d", size), func(b *testing.B) {
			bounce := newGuest(b, newDriver(b)).echo(size)
			buf := make([]byte, size)
			b.SetBytes(2 * int64(size))
			for b.Loop() {
				if err := bounce(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFreezeThaw measures what a warm invocation pays for the freezing
// around it: freeze, thaw, and the first answer after it beside one without.
func BenchmarkFreezeThaw(b *testing.B) {
	g := newGuest(b, newDriver(b))
	var freeze, thaw, answer, warm time.Duration
	timed := func(sum *time.Duration, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*sum += time.Since(start)
	}
	ask := func() error { _, err := g.try("cpus", "", 0); return err }
	for b.Loop() {
		timed(&warm, ask)
		timed(&freeze, g.Freeze)
		timed(&thaw, g.Thaw)
		timed(&answer, ask)
	}
	us := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(us(freeze), "freeze-µs")
	b.ReportMetric(us(thaw), "thaw-µs")
	b.ReportMetric(us(answer), "answer-after-thaw-µs")
	b.ReportMetric(us(warm), "answer-warm-µs")
}

// BenchmarkCold measures a cold start of Node beside the floor, the native start
// of the same: Create, and Node from the host's /usr to its first output and end.
func BenchmarkCold(b *testing.B) {
	const node = "/usr/bin/node"
	if _, err := os.Stat(node); err != nil {
		b.Skip("there is no", node)
	}
	command := node + " -p 6*7"
	b.Run("native", func(b *testing.B) {
		for b.Loop() {
			if out, err := exec.Command(node, "-p", "6*7").Output(); err != nil || string(out) != "42\n" {
				b.Fatalf("%s, %v", out, err)
			}
		}
	})
	b.Run("sandbox", func(b *testing.B) {
		d := newDriver(b)
		var used time.Duration
		var memory int
		for b.Loop() {
			g := newGuest(b, d, func(s *sandbox.Spec) {
				s.MemoryMB = 512
				s.Mounts = []sandbox.Mount{{Source: "/usr", Target: "/usr"}}
				s.Symlinks = []sandbox.Symlink{{Path: "/lib", Dest: "usr/lib"}, {Path: "/lib64", Dest: "usr/lib64"}}
			})
			if got := g.must("run", command, 0).Text; got != "42\n" {
				b.Fatal(got)
			}
			st, err := g.Stats()
			if err != nil {
				b.Fatal(err)
			}
			used += time.Duration(st.CPUNanos)
			memory = st.MemoryPeakMB
			if err := g.Destroy(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(used.Seconds()*1000/float64(b.N), "cpu-ms")
		b.ReportMetric(float64(memory), "peak-MB")
	})
}

// BenchmarkMemory measures what an idle sandbox takes of the host: the
// proportional set size of its processes and its cgroup's memory.
func BenchmarkMemory(b *testing.B) {
	d := newDriver(b)
	const n = 8
	for b.Loop() {
		var all []*guest
		for range n {
			g := newGuest(b, d)
			g.must("hostname", "", 0)
			all = append(all, g)
		}
		var pss, used int64
		for _, g := range all {
			s := g.Sandbox.(*instance)
			m, err := s.group.Memory()
			if err != nil {
				b.Fatal(err)
			}
			used += m.Used
			for _, pid := range addressSpaces(b, s) {
				pss += proportional(b, pid)
			}
		}
		b.ReportMetric(float64(pss)/n/1024, "pss-MB")
		b.ReportMetric(float64(used)/n/mib, "cgroup-MB")
		for _, g := range all {
			if err := g.Destroy(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// addressSpaces returns a process of each address space of a sandbox: the threads of a
// stub are processes of one.
func addressSpaces(b *testing.B, s *instance) (pids []int) {
	text, err := os.ReadFile(filepath.Join(s.driver.cgroups.Paths()[0], s.name, "cgroup.procs"))
	if err != nil {
		b.Fatal(err)
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		const vm = 1 // KCMP_VM, see kcmp(2)
		if !slices.ContainsFunc(pids, func(other int) bool {
			differ, _, errno := unix.Syscall(unix.SYS_KCMP, uintptr(pid), uintptr(other), vm)
			return errno == 0 && differ == 0
		}) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// proportional returns the proportional set size of a process in KiB.
func proportional(b *testing.B, pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0 // gVisor's stub processes come and go
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("process %d has no Pss", pid)
	return 0
}
