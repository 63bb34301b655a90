package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var wantedV2 = []string{"memory", "cpu", "pids"}

func openV2(name string, h hierarchy) (*Tree, error) {
	base := h.mount
	if delegated(h.own) {
		base = h.own
	}
	missing, err := enable(base)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(base, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	if _, err := enable(dir); err != nil {
		return nil, err
	}
	return &Tree{name: name, v2: dir, missing: missing}, nil
}

// delegated tells whether systemd gave the group at dir to its processes.
func delegated(dir string) bool {
	for _, attr := range []string{"user.delegate", "trusted.delegate"} {
		var b [2]byte
		if n, err := unix.Getxattr(dir, attr, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// enable gives the groups below dir the controllers that dir has, and returns
// which it has not.
func enable(dir string) (missing []string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	have := strings.Fields(string(b))
	var on []string
	for _, c := range wantedV2 {
		if slices.Contains(have, c) {
			on = append(on, "+"+c)
		} else {
			missing = append(missing, c)
		}
	}
	value := strings.Join(on, " ")
	err = write(dir, "cgroup.subtree_control", value)
	if errors.Is(err, unix.EBUSY) {
		// A group with processes in it can have no controllers for groups
		// below, unless it is the very root: make room.
		if err := evacuate(dir); err != nil {
			return nil, err
		}
		err = write(dir, "cgroup.subtree_control", value)
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup: enabling controllers in %s: %w", dir, err)
	}
	return missing, nil
}

// evacuate moves the processes of the group at dir into a leaf below it.
func evacuate(dir string) error {
	leaf := filepath.Join(dir, "lapwing-host")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cgroup: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	for _, pid := range strings.Fields(string(b)) {
		if err := write(leaf, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cgroup: moving process %s: %w", pid, err)
		}
	}
	return nil
}

// groupV2 is a Group in the version 2 hierarchy. Version 2 allows no processes
// beside groups, so the guest's kernel has one too.
type groupV2 struct {
	dir    string
	cpu    cpuLimit
	handle *os.File // of the guest's group
	freeze *os.File // cgroup.freeze
	peak   peak
	used   heldFile // cpu.stat
}

func createV2(t *Tree, name string) (_ Group, err error) {
	g := &groupV2{dir: filepath.Join(t.v2, name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cgroup: %w", err), g.Remove())
		}
	}()
	for _, part := range []string{guestGroup, kernelGroup} {
		if err := os.Mkdir(filepath.Join(g.dir, part), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if !slices.Contains(t.missing, "cpu") {
		if err := write(g.dir, "cgroup.subtree_control", "+cpu"); err != nil {
			return nil, err
		}
	}
	guest := filepath.Join(g.dir, guestGroup)
	g.cpu = cpuLimit{whole: g.dir, guest: guest, burst: "cpu.max.burst", quota: quotaV2, share: weightV2}
	if g.handle, err = os.Open(guest); err != nil {
		return nil, err
	}
	if g.freeze, err = os.OpenFile(filepath.Join(g.dir, "cgroup.freeze"), os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	// Of a sandbox that lacks memory nothing shall be left.
	if err := write(g.dir, "memory.oom.group", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return g, nil
}

func (g *groupV2) StartFD() int { return int(g.handle.Fd()) }

// Add implements Group. Processes have started in the group by StartFD.
func (g *groupV2) Add(int) error { return nil }

func (g *groupV2) AddKernel(pid int) error {
	if err := write(filepath.Join(g.dir, kernelGroup), "cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("cgroup: moving the guest's kernel: %w", err)
	}
	return nil
}

// Processes implements Group. The kernel's process is the oldest.
func (g *groupV2) Processes() (pids []int, err error) {
	for _, part := range []string{kernelGroup, guestGroup} {
		in, err := processes(filepath.Join(g.dir, part))
		if err != nil {
			return nil, err
		}
		pids = append(pids, in...)
	}
	return pids, nil
}

func (g *groupV2) SetMemory(bytes int64) error {
	if err := write(g.dir, "memory.max", strconv.FormatInt(bytes, 10)); err != nil {
		return fmt.Errorf("cgroup: memory limit: %w", err)
	}
	if err := write(g.dir, "memory.swap.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroup: swap limit: %w", err)
	}
	return nil
}

func (g *groupV2) SetCPU(millis int) error {
	if err := g.cpu.set(millis); err != nil {
		return fmt.Errorf("cgroup: CPU limit: %w", err)
	}
	return nil
}

// quotaV2 implements cpuLimit.quota.
func quotaV2(dir string, µs int) error {
	if µs == Unlimited {
		return write(dir, "cpu.max", fmt.Sprintf("max %d", cpuPeriod))
	}
	return write(dir, "cpu.max", fmt.Sprintf("%d %d", µs, cpuPeriod))
}

// weightV2 implements cpuLimit.share: 100 are a whole processor's.
func weightV2(dir string, millis int) error {
	return write(dir, "cpu.weight", strconv.Itoa(min(max(1, millis/10), 10_000)))
}

func (g *groupV2) SetProcesses(n int) error {
	if err := write(g.dir, "pids.max", strconv.Itoa(n)); err != nil {
		return fmt.Errorf("cgroup: process limit: %w", err)
	}
	return nil
}

func (g *groupV2) Freeze() error {
	if _, err := g.freeze.WriteAt([]byte("1"), 0); err != nil {
		return fmt.Errorf("cgroup: freezing: %w", err)
	}
	if err := await(func() (bool, error) {
		st, err := readKeys(g.dir, "cgroup.events", "frozen")
		return st["frozen"] == 1, err
	}); err != nil {
		return fmt.Errorf("cgroup: freezing: %w", err)
	}
	return nil
}

func (g *groupV2) Thaw() error {
	if _, err := g.freeze.WriteAt([]byte("0"), 0); err != nil {
		return fmt.Errorf("cgroup: thawing: %w", err)
	}
	return nil
}

func (g *groupV2) Memory() (Memory, error) {
	st, err := readKeys(g.dir, "memory.stat", "anon", "file", "shmem")
	if err != nil {
		return Memory{}, fmt.Errorf("cgroup: %w", err)
	}
	used := st["anon"] + st["shmem"]
	peak, err := readInt(g.dir, "memory.peak")
	if errors.Is(err, fs.ErrNotExist) { // before Linux 5.19
		return Memory{Used: used, Peak: used}, nil
	}
	if err != nil {
		return Memory{}, fmt.Errorf("cgroup: %w", err)
	}
	return Memory{Used: used, Peak: max(used, peak-(st["file"]-st["shmem"]))}, nil
}

func (g *groupV2) PeakMemory() (int64, error) {
	return g.peak.read(g.dir, "memory.peak", g.Memory)
}

func (g *groupV2) CPU() (time.Duration, error) {
	var buf [4096]byte // some ten lines
	b, err := g.used.read(g.dir, "cpu.stat", buf[:])
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	st, err := parseKeys(b, "cpu.stat", "usage_usec")
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	return time.Duration(st["usage_usec"]) * time.Microsecond, nil
}

func (g *groupV2) OOMKills() (int, error) {
	st, err := readKeys(g.dir, "memory.events", "oom_kill")
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	return int(st["oom_kill"]), nil
}

// OnOOM implements Group. The kernel kills the whole group (memory.oom.group).
func (g *groupV2) OnOOM(func()) (stop func(), err error) { return func() {}, nil }

func (g *groupV2) Remove() error {
	for _, f := range []*os.File{g.handle, g.freeze} {
		if f != nil {
			f.Close()
		}
	}
	g.peak.file.close()
	g.used.close()
	var errs []error
	for _, dir := range []string{filepath.Join(g.dir, guestGroup), filepath.Join(g.dir, kernelGroup), g.dir} {
		errs = append(errs, killAll(dir), removeDir(dir))
	}
	return errors.Join(errs...)
}
