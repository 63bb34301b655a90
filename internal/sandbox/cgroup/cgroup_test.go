package cgroup

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestFindLayout(t *testing.T) {
	for name, test := range map[string]struct {
		mountinfo, own string
		v1             map[string]hierarchy
		v2             hierarchy
	}{
		"version 2": {
			mountinfo: "22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw\n" +
				"31 22 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			own: "0::/system.slice/lapwing.service\n",
			v2:  hierarchy{"/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/lapwing.service"},
		},
		"version 1, controllers mounted together": {
			mountinfo: "30 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
				"33 22 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n" +
				"34 22 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"35 22 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
				"36 22 0:32 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n",
			own: "4:memory:/user.slice\n3:cpu,cpuacct:/a/b\n2:freezer:/\n1:name=systemd:/x\n0::/x\n",
			v1: map[string]hierarchy{
				"cpu":     {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a/b"},
				"cpuacct": {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a/b"},
				"memory":  {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user.slice"},
				"freezer": {"/sys/fs/cgroup/freezer", "/sys/fs/cgroup/freezer"},
			},
			v2: hierarchy{"/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/x"},
		},
		"in a container that sees its part of the tree": {
			mountinfo: "34 22 0:30 /docker/0123 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			own:       "4:memory:/docker/0123/inner\n",
			v1:        map[string]hierarchy{"memory": {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/inner"}},
		},
		"own path outside of what the mount shows": {
			mountinfo: "34 22 0:30 /docker/0123 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			own:       "4:memory:/elsewhere\n",
			v1:        map[string]hierarchy{"memory": {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"}},
		},
		"nonsense": {mountinfo: "x\n - \n1 2 3 / /m rw - cgroup\n", own: "a:b\n:::\n"},
	} {
		t.Run(name, func(t *testing.T) {
			l := findLayout(test.mountinfo, test.own)
			if !maps.Equal(l.v1, test.v1) {
				t.Errorf("version 1: %v, want %v", l.v1, test.v1)
			}
			if l.v2 != test.v2 {
				t.Errorf("version 2: %v, want %v", l.v2, test.v2)
			}
		})
	}
}

// fakeV2 makes a directory that looks like a group of version 2.
func fakeV2(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The kernel of a machine with version 1 offers no version 2 controllers, so
// what is written to and read from a group is tested on plain files.
func TestGroupV2SpeaksTheKernelsLanguage(t *testing.T) {
	base := t.TempDir()
	tree := filepath.Join(base, "lapwing")
	fakeV2(t, base, map[string]string{"cgroup.controllers": "cpuset cpu io memory hugetlb", "cgroup.subtree_control": ""})
	fakeV2(t, tree, map[string]string{"cgroup.controllers": "cpu memory", "cgroup.subtree_control": ""})
	dir := filepath.Join(tree, "s")
	fakeV2(t, filepath.Join(dir, "guest"), map[string]string{"cpu.max": "max 100000", "cgroup.procs": "7\n8\n"})
	fakeV2(t, filepath.Join(dir, "kernel"), map[string]string{"cgroup.procs": ""})
	fakeV2(t, dir, map[string]string{
		"cgroup.subtree_control": "", "cpu.max.burst": "", "cpu.weight": "",
		"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 1\n", "memory.max": "max", "memory.swap.max": "1",
		"memory.oom.group": "0", "cpu.max": "max 100000", "pids.max": "max", "cgroup.procs": "",
		"memory.stat":   "anon 1000\nfile 5000\nkernel 7\nshmem 2000\n",
		"memory.peak":   "9000\n",
		"memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n",
		"cpu.stat":      "usage_usec 1500\nuser_usec 1000\n",
	})
	tr, err := openV2("lapwing", hierarchy{base, base})
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, base, "cgroup.subtree_control"); got != "+memory +cpu" {
		t.Errorf("controllers enabled: %q", got)
	}
	if got := tr.Missing(); !slices.Equal(got, []string{"pids"}) {
		t.Errorf("missing %v", got)
	}
	g, err := tr.Create("s")
	if err != nil {
		t.Fatal(err)
	}
	if g.StartFD() < 0 {
		t.Error("no descriptor to start processes in the group")
	}
	for _, step := range []struct {
		do         func() error
		file, want string
	}{
		{nil, "memory.oom.group", "1"},
		{func() error { return g.SetMemory(1 << 20) }, "memory.max", "1048576"},
		{nil, "memory.swap.max", "0"},
		{nil, "cgroup.subtree_control", "+cpu"},
		{func() error { return g.SetCPU(250) }, "cpu.max", "75000 100000"},
		{nil, "cpu.max.burst", "75000"},
		{nil, "cpu.weight", "25"},
		{nil, "guest/cpu.max", "25000 100000"}, // which has no burst here
		{func() error { return g.SetCPU(Unlimited) }, "cpu.max", "max 100000"},
		{func() error { return g.AddKernel(6) }, "kernel/cgroup.procs", "6"},
		{func() error { return g.SetProcesses(9) }, "pids.max", "9"},
		{g.Freeze, "cgroup.freeze", "1"},
		{g.Thaw, "cgroup.freeze", "0"},
	} {
		if step.do != nil {
			// Unlike a control file this keeps what is not written over.
			if err := os.Truncate(filepath.Join(dir, step.file), 0); err != nil {
				t.Fatal(err)
			}
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
		}
		if got := contents(t, dir, step.file); got != step.want {
			t.Errorf("%s holds %q, want %q", step.file, got, step.want)
		}
	}
	if pids, err := g.Processes(); err != nil || !slices.Equal(pids, []int{6, 7, 8}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	if m, err := g.Memory(); err != nil || m != (Memory{Used: 3000, Peak: 6000}) {
		t.Errorf("memory %+v, %v", m, err)
	}
	if n, err := g.PeakMemory(); err != nil || n != 6000 {
		t.Errorf("peak %d, %v", n, err)
	}
	for _, rise := range []struct {
		counter, stat string
		want          int64
	}{
		{"100000\n", "anon 1\nfile 0\nshmem 0\n", 6000}, // not read again for so little
		{"200000\n", "anon 1000\nfile 3000\nshmem 2000\n", 199000},
		{"340000\n", "anon 1000\nfile 202000\nshmem 2000\n", 199000}, // files rose, not the peak
	} {
		for name, text := range map[string]string{"memory.peak": rise.counter, "memory.stat": rise.stat} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := g.PeakMemory(); err != nil || n != rise.want {
			t.Errorf("peak %d, %v at %q, want %d", n, err, rise.counter, rise.want)
		}
	}
	if cpu, err := g.CPU(); err != nil || cpu != 1500*time.Microsecond {
		t.Errorf("CPU time %v, %v", cpu, err)
	}
	if n, err := g.OOMKills(); err != nil || n != 2 {
		t.Errorf("%d kills, %v", n, err)
	}
}

// sleeper starts a process that does nothing, in the group.
func sleeper(t *testing.T, g Group) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func openTest(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups can be made by root only")
	}
	tree, err := Open("lapwing-test-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Skip(err) // a host without usable cgroups
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func TestGroup(t *testing.T) {
	tree := openTest(t)
	g, err := tree.Create("group")
	if err != nil {
		t.Fatal(err)
	}
	if g.StartFD() >= 0 {
		t.Skip("processes start in groups of version 2")
	}
	cmd := sleeper(t, g)
	for _, limit := range []int64{64 << 20, 32 << 20, 128 << 20} { // down and up
		if err := g.SetMemory(limit); err != nil {
			t.Error(err)
		}
	}
	for _, millis := range []int{100, 1000, 72, 72, 6000, Unlimited, 1} { // down and up
		if err := g.SetCPU(millis); err != nil {
			t.Error(err)
		}
	}
	if err := g.SetProcesses(10); err != nil {
		t.Error(err)
	}
	if err := errors.Join(g.Freeze(), g.Freeze(), g.Thaw(), g.Thaw(), g.Freeze()); err != nil {
		t.Error(err)
	}
	if _, err := g.CPU(); err != nil {
		t.Error(err)
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("%d kills, %v", n, err)
	}
	stop, err := g.OnOOM(func() { t.Error("memory is there") })
	if err != nil {
		t.Fatal(err)
	}
	stop()
	// The frozen process is killed too.
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if err := <-gone; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended with %v", err)
	}
	if err := g.Remove(); err != nil {
		t.Errorf("removing it again: %v", err)
	}
}

// As in a container that may use half a processor.
func TestALimitAboveTheDaemonsOwnIsTheDaemonsOwn(t *testing.T) {
	tree := openTest(t)
	outer, err := tree.Create("outer")
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Remove()
	own, ok := outer.(*groupV1)
	if !ok || slices.Contains(tree.Missing(), "cpu") {
		t.Skip("needs the cpu controller of version 1")
	}
	if err := own.cpu.set(500); err != nil {
		t.Fatal(err)
	}
	inner := &Tree{v1: maps.Clone(tree.v1)}
	inner.v1["cpu"] = own.cpu.guest
	g, err := inner.Create("inner")
	if err != nil {
		t.Fatal(err)
	}
	for _, millis := range []int{100, 1000, 6000, 400, 100} {
		if err := g.SetCPU(millis); err != nil {
			t.Errorf("limit of %d: %v", millis, err)
		}
	}
	if quota := strings.TrimSpace(contents(t, g.(*groupV1).cpu.guest, "cpu.cfs_quota_us")); quota != "10000" {
		t.Errorf("quota %s, want 10000", quota)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestSweepRemovesWhatAnotherLeft(t *testing.T) {
	tree := openTest(t)
	for _, name := range []string{"a", "b"} {
		g, err := tree.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		sleeper(t, g)
		if name == "b" {
			if err := g.Freeze(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Sweep(tree.Paths()); err != nil {
		t.Fatal(err)
	}
	for _, p := range tree.Paths() {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := Sweep(tree.Paths()); err != nil {
		t.Errorf("sweeping nothing: %v", err)
	}
}

func TestOOMIsSeen(t *testing.T) {
	tree := openTest(t)
	g, err := tree.Create("oom")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	if g.StartFD() >= 0 || slices.Contains(tree.Missing(), "memory") {
		t.Skip("needs the memory controller of version 1")
	}
	if err := g.SetMemory(16 << 20); err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{})
	stop, err := g.OnOOM(func() { close(seen) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	// It waits for its standard input, to be in the group when it begins.
	cmd := exec.Command("sh", "-c", "read x; dd if=/dev/zero of=/dev/null bs=200M count=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("\n"))
	cmd.Wait()
	select {
	case <-seen:
	case <-time.After(30 * time.Second):
		t.Error("nothing was seen")
	}
	if n, err := g.OOMKills(); n == 0 || err != nil {
		t.Errorf("%d kills, %v", n, err)
	}
}
