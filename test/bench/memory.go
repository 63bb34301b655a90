package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memoryOfServer measures what the server uses with nothing deployed.
func (b *bench) memoryOfServer(context.Context) error {
	time.Sleep(3 * time.Second) // let it settle
	rss, err := field(fmt.Sprintf("/proc/%d/status", b.server.PID), "VmRSS:")
	if err != nil {
		return err
	}
	b.report.memory("idle server, RSS", "", 0, float64(rss)/1024, 60, "<= 60 MiB")
	n, total, err := b.sandboxes()
	if err != nil {
		return err
	}
	prepared := "none"
	if n > 0 {
		prepared = fmt.Sprintf("%d, %.1f MiB each (PSS)", n, total/float64(n))
	}
	b.report.Rows = append(b.report.Rows, row{Measure: "prepared sandboxes beside it", Value: prepared})
	return nil
}

// sandboxes returns how many sandboxes there are and the sum of their
// proportional set sizes, in MiB.
func (b *bench) sandboxes() (n int, mib float64, err error) {
	children, err := processes()
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range children[b.server.PID] {
		n++
		mib += float64(proportional(pid, children)) / 1024
	}
	return n, mib, nil
}

// clones is how many idle environments, and native processes, are compared.
const clones = 8

// memoryOfClones measures what each more idle environment of a function takes,
// beside each more idle Node.js process: the growth of the proportional set
// sizes of all, so that what they share is counted once.
func (b *bench) memoryOfClones(ctx context.Context) error {
	// The first has as many sandboxes prepared, and clones on standby, as the second
	// will: they are smaller, and would count as its environments.
	if err := b.manyOf(ctx, "clones-ahead", func() error { return nil }); err != nil {
		return err
	}
	var before int
	var had float64
	err := b.manyOf(ctx, "clones", func() (err error) {
		before, had, err = b.sandboxes()
		return err
	})
	if err != nil {
		return err
	}
	after, have, err := b.sandboxes()
	if err != nil {
		return err
	}
	if after <= before {
		return fmt.Errorf("%d environments before, %d after %d invocations at once", before, after, clones+1)
	}
	alone, more, err := b.nativeClones()
	if err != nil {
		return err
	}
	each := (have - had) / float64(after-before)
	b.report.memory("each more idle Node.js clone, PSS", fmt.Sprintf("native idle one %.1f MiB", alone), alone, each, .6, "<= 0.60 x")
	b.report.note("each more native idle Node.js beside the first takes %.1f MiB (PSS).", more)
	return nil
}

// manyOf has clones more environments of a function than one, which all are idle when it
// returns. It calls whileOne when there is one, and perhaps a snapshot.
func (b *bench) manyOf(ctx context.Context, name string, whileOne func() error) error {
	const hold = "exports.handler = (event) => new Promise((done) => setTimeout(done, 3000, event));"
	if err := b.deploy(ctx, name, nodeRuntime, map[string]string{"index.js": hold}); err != nil {
		return err
	}
	invoke := func() error {
		_, err := drive(ctx, b.server.Config(), b.invocations(name), 1, 0)
		return err
	}
	if err := invoke(); err != nil {
		return err
	}
	b.settle(ctx)
	time.Sleep(3 * time.Second) // a snapshot may be taken meanwhile, in an environment of its own
	b.settle(ctx)
	if err := whileOne(); err != nil {
		return err
	}
	if err := sideBySide(clones+1, invoke); err != nil {
		return err
	}
	b.settle(ctx)
	return nil
}

// nativeClones returns what an idle Node.js process takes that shares its pages
// with none, and by how much each more makes the proportional set sizes of all
// grow, in MiB.
func (b *bench) nativeClones() (alone, more float64, err error) {
	var all []server
	defer func() { stopAll(all) }()
	sum := func(what string) (mib float64, err error) {
		for _, s := range all {
			kib, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid), what)
			if err != nil {
				return 0, err
			}
			mib += float64(kib) / 1024
		}
		return mib, nil
	}
	var had float64
	for n := range clones + 1 {
		s, err := startPrinting("an idle Node.js", []string{b.node, "-e", nodeServer})
		if err != nil {
			return 0, 0, err
		}
		all = append(all, s)
		if n == 0 {
			if alone, err = sum("Rss:"); err != nil {
				return 0, 0, err
			}
		}
		if n == 1 {
			if had, err = sum("Pss:"); err != nil {
				return 0, 0, err
			}
		}
	}
	have, err := sum("Pss:")
	return alone, (have - had) / (clones - 1), err
}

// settle waits until the server and its sandboxes have nothing to do, for some
// seconds at most: what is measured next is not to pay for what was before.
func (b *bench) settle(ctx context.Context) {
	const look, patience = 100 * time.Millisecond, 10 * time.Second
	before := b.ticks()
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(look)
		now := b.ticks()
		if now-before <= 1 { // a hundredth of a second each
			return
		}
		before = now
	}
}

// ticks returns the CPU time of the server and all below it. Those that have
// ended meanwhile make it less, which counts as rest.
func (b *bench) ticks() int {
	children, err := processes()
	if err != nil {
		return 0
	}
	var sum func(pid int) int
	sum = func(pid int) (ticks int) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil { // else it has ended
			if _, rest, ok := strings.Cut(string(stat), ") "); ok {
				for _, f := range strings.Fields(rest)[11:13] { // utime and stime, see proc(5)
					n, _ := strconv.Atoi(f) // the kernel's number
					ticks += n
				}
			}
		}
		for _, child := range children[pid] {
			ticks += sum(child)
		}
		return ticks
	}
	return sum(b.server.PID)
}

// processes returns the children of every process.
func processes() (map[int][]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if parent, err := field(dir+"/status", "PPid:"); err == nil { // it may have ended
			children[parent] = append(children[parent], pid)
		}
	}
	return children, nil
}

// proportional returns the proportional set size of a process and all below it,
// in KiB. What several processes have as one address space counts once.
func proportional(pid int, children map[int][]int) int {
	var counted []int
	sum := 0
	var add func(pid int)
	add = func(pid int) {
		if !slices.ContainsFunc(counted, func(other int) bool { return oneMemory(pid, other) }) {
			counted = append(counted, pid)
			if kib, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:"); err == nil { // else it has ended, or is a zombie
				sum += kib
			}
		}
		for _, child := range children[pid] {
			add(child)
		}
	}
	add(pid)
	return sum
}

// oneMemory tells whether two processes have one address space, as the threads of a
// gVisor stub do, which are processes: the kernel tells the same set of each of them.
func oneMemory(a, b int) bool {
	const vm = 1 // KCMP_VM, see kcmp(2)
	differ, _, errno := unix.Syscall(unix.SYS_KCMP, uintptr(a), uintptr(b), vm)
	return errno == 0 && differ == 0
}

// field returns the number in a line of a file in /proc.
func field(path, name string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
