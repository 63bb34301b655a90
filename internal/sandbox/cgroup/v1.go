package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func openV1(name string, found map[string]hierarchy) (*Tree, error) {
	t := &Tree{name: name, v1: make(map[string]string)}
	for _, c := range wanted {
		h, ok := found[c]
		if !ok {
			t.missing = append(t.missing, c)
			continue
		}
		if _, err := os.Stat(h.own); err != nil {
			h.own = h.mount
		}
		dir := filepath.Join(h.own, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			if c == "freezer" {
				return nil, fmt.Errorf("cgroup: the freezer controller cannot be used: %w", err)
			}
			t.missing = append(t.missing, c)
			continue
		}
		t.v1[c] = dir
	}
	if t.v1["freezer"] == "" {
		return nil, errors.New("cgroup: this host offers no cgroup controllers (neither cgroup v2 with memory nor v1 with freezer is mounted)")
	}
	return t, nil
}

// groupV1 is a Group in version 1 hierarchies.
type groupV1 struct {
	dirs   map[string]string // by controller
	cpu    cpuLimit          // where there is that controller
	freeze *os.File          // freezer.state
	peak   peak
	used   heldFile // cpuacct.usage
}

func createV1(t *Tree, name string) (_ Group, err error) {
	g := &groupV1{dirs: make(map[string]string)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Remove())
		}
	}()
	for c, dir := range t.v1 {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("cgroup: %w", err)
		}
		g.dirs[c] = dir
	}
	if dir := g.dirs["cpu"]; dir != "" {
		g.cpu = cpuLimit{whole: dir, guest: filepath.Join(dir, guestGroup), burst: "cpu.cfs_burst_us", quota: quotaV1, share: sharesV1}
		if err := os.Mkdir(g.cpu.guest, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("cgroup: %w", err)
		}
	}
	g.freeze, err = os.OpenFile(filepath.Join(g.dirs["freezer"], "freezer.state"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return g, nil
}

// unique lists the group's directories, without those of controllers that are
// mounted together twice.
func (g *groupV1) unique() []string {
	return slices.Compact(slices.Sorted(maps.Values(g.dirs)))
}

func (g *groupV1) StartFD() int { return -1 }

func (g *groupV1) Add(pid int) error {
	for _, dir := range g.unique() {
		if dir == g.dirs["cpu"] {
			dir = g.cpu.guest
		}
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cgroup: adding a process: %w", err)
		}
	}
	return nil
}

func (g *groupV1) AddKernel(pid int) error {
	if g.cpu.whole == "" {
		return nil // nothing is limited
	}
	if err := write(g.cpu.whole, "cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("cgroup: moving the guest's kernel: %w", err)
	}
	return nil
}

// dir returns the group's directory in the hierarchy of controller.
func (g *groupV1) dir(controller string) (string, error) {
	if d := g.dirs[controller]; d != "" {
		return d, nil
	}
	return "", fmt.Errorf("cgroup: this host has no %s controller", controller)
}

func (g *groupV1) Processes() ([]int, error) { return processes(g.dirs["freezer"]) }

func (g *groupV1) SetMemory(bytes int64) error {
	dir, err := g.dir("memory")
	if err != nil {
		return err
	}
	value := strconv.FormatInt(bytes, 10)
	// The limit with swap must never be below the one without: lower that one
	// last, raise it first.
	const plain, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	setSwap := func() error {
		err := write(dir, swap, value)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a kernel without swap accounting
		}
		return err
	}
	if err := write(dir, plain, value); errors.Is(err, unix.EINVAL) {
		if err := setSwap(); err != nil {
			return fmt.Errorf("cgroup: memory limit: %w", err)
		}
		if err := write(dir, plain, value); err != nil {
			return fmt.Errorf("cgroup: memory limit: %w", err)
		}
		return nil
	} else if err != nil {
		return fmt.Errorf("cgroup: memory limit: %w", err)
	}
	if err := setSwap(); err != nil {
		return fmt.Errorf("cgroup: memory limit: %w", err)
	}
	return nil
}

func (g *groupV1) SetCPU(millis int) error {
	if _, err := g.dir("cpu"); err != nil {
		return err
	}
	if err := g.cpu.set(millis); err != nil {
		return fmt.Errorf("cgroup: CPU limit: %w", err)
	}
	return nil
}

// quotaV1 implements cpuLimit.quota. The period is the kernel's default. Version 1
// refuses a quota above one that the daemon itself is limited to, which then is
// the limit.
func quotaV1(dir string, µs int) error {
	err := write(dir, "cpu.cfs_quota_us", strconv.Itoa(µs))
	if errors.Is(err, unix.EINVAL) {
		return write(dir, "cpu.cfs_quota_us", strconv.Itoa(Unlimited))
	}
	return err
}

// sharesV1 implements cpuLimit.share: 1,024 are a whole processor's.
func sharesV1(dir string, millis int) error {
	return write(dir, "cpu.shares", strconv.Itoa(max(2, millis*1024/1000)))
}

func (g *groupV1) SetProcesses(n int) error {
	dir, err := g.dir("pids")
	if err != nil {
		return err
	}
	if err := write(dir, "pids.max", strconv.Itoa(n)); err != nil {
		return fmt.Errorf("cgroup: process limit: %w", err)
	}
	return nil
}

func (g *groupV1) Freeze() error {
	if _, err := g.freeze.WriteAt([]byte("FROZEN"), 0); err != nil {
		return fmt.Errorf("cgroup: freezing: %w", err)
	}
	var buf [16]byte
	if err := await(func() (bool, error) {
		n, _ := g.freeze.ReadAt(buf[:], 0)
		state := strings.TrimSpace(string(buf[:n]))
		if state == "" {
			return false, errors.New("freezer.state cannot be read")
		}
		return state == "FROZEN", nil
	}); err != nil {
		return fmt.Errorf("cgroup: freezing: %w", err)
	}
	return nil
}

func (g *groupV1) Thaw() error {
	if _, err := g.freeze.WriteAt([]byte("THAWED"), 0); err != nil {
		return fmt.Errorf("cgroup: thawing: %w", err)
	}
	return nil
}

func (g *groupV1) Memory() (Memory, error) {
	dir, err := g.dir("memory")
	if err != nil {
		return Memory{}, err
	}
	st, err := readKeys(dir, "memory.stat", "total_rss", "total_cache", "total_shmem")
	if err != nil {
		return Memory{}, fmt.Errorf("cgroup: %w", err)
	}
	peak, err := readInt(dir, "memory.max_usage_in_bytes")
	if err != nil {
		return Memory{}, fmt.Errorf("cgroup: %w", err)
	}
	used := st["total_rss"] + st["total_shmem"]
	files := st["total_cache"] - st["total_shmem"]
	return Memory{Used: used, Peak: max(used, peak-files)}, nil
}

func (g *groupV1) PeakMemory() (int64, error) {
	dir, err := g.dir("memory")
	if err != nil {
		return 0, err
	}
	return g.peak.read(dir, "memory.max_usage_in_bytes", g.Memory)
}

func (g *groupV1) CPU() (time.Duration, error) {
	dir, err := g.dir("cpuacct")
	if err != nil {
		return 0, err
	}
	n, err := g.used.readInt(dir, "cpuacct.usage")
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	return time.Duration(n), nil
}

func (g *groupV1) OOMKills() (int, error) {
	dir, err := g.dir("memory")
	if err != nil {
		return 0, err
	}
	st, err := readKeys(dir, "memory.oom_control", "oom_kill")
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	return int(st["oom_kill"]), nil
}

func (g *groupV1) OnOOM(f func()) (stop func(), err error) {
	dir, err := g.dir("memory")
	if err != nil {
		return nil, err
	}
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	event := os.NewFile(uintptr(fd), "oom")
	if err := write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", fd, control.Fd())); err != nil {
		event.Close()
		return nil, fmt.Errorf("cgroup: watching for lack of memory: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var buf [8]byte
		if _, err := event.Read(buf[:]); err == nil {
			f()
		}
	})
	return func() { event.Close(); wg.Wait() }, nil
}

func (g *groupV1) Remove() error {
	var errs []error
	for _, dir := range g.unique() {
		errs = append(errs, killAll(dir))
	}
	if g.cpu.guest != "" {
		errs = append(errs, killAll(g.cpu.guest), removeDir(g.cpu.guest))
	}
	for _, dir := range g.unique() {
		errs = append(errs, removeDir(dir))
	}
	if g.freeze != nil {
		g.freeze.Close()
	}
	g.peak.file.close()
	g.used.close()
	return errors.Join(errs...)
}
