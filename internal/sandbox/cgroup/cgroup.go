// Package cgroup limits, measures and freezes the processes of a sandbox with
// Linux control groups, version 1 and 2 alike.
//
// A Tree is one driver's part of the host's cgroup tree, with one Group for each
// sandbox in it. Under version 1 a Group is one directory in the hierarchy of
// each controller, below the daemon's own cgroup, so limits that someone put on
// the daemon hold for its sandboxes too. Under version 2 it is one directory,
// below the daemon's own cgroup where systemd delegated that (Delegate=yes), and
// at the top of the visible tree otherwise.
//
// Inside a Group is another, for what the sandbox's guest does. A sandbox whose
// kernel is a process in user space, such as gVisor's, works for its guest in
// that process, for more CPU time than Linux would take for the same. AddKernel
// moves that process out of the inner group, and SetCPU limits the inner one to
// what the guest was promised and the whole to a multiple of that.
package cgroup

import (
	"bytes"
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

// Unlimited lifts a limit.
const Unlimited = -1

// Memory is the memory use of a group in bytes.
type Memory struct {
	// Used is anonymous and shared memory: what cannot be had back without
	// ending a process. Cached files do not count.
	Used int64
	// Peak is an upper estimate of the highest Used so far: the kernel knows
	// only the peak that includes cached files, from which the files cached
	// now are taken off.
	Peak int64
}

// Group is the cgroup of one sandbox. Its methods may be called side by side.
type Group interface {
	// StartFD is a descriptor for clone3's CLONE_INTO_CGROUP, or -1 where
	// processes must be moved in by Add after their start.
	StartFD() int
	// Add moves a process into the group, to where the guest is.
	Add(pid int) error
	// AddKernel moves the process that is the guest's kernel, but not its
	// children, to where SetCPU allows it CPU time of its own.
	AddKernel(pid int) error
	// Processes lists the group's processes, the oldest first as a rule.
	Processes() ([]int, error)
	// SetMemory limits memory including cached files, and swap, to bytes.
	SetMemory(bytes int64) error
	// SetCPU limits the guest's CPU time to thousandths of a processor, or not
	// at all, and its kernel's in proportion. What is left of a period is kept
	// for the next. Groups that compete for processors get them in proportion
	// to their limits.
	SetCPU(millis int) error
	// SetProcesses limits processes and threads on the host.
	SetProcesses(n int) error
	// Freeze stops the group's processes and returns when they have stopped.
	Freeze() error
	Thaw() error
	Memory() (Memory, error)
	// PeakMemory returns the highest Memory.Peak so far, at little cost.
	PeakMemory() (int64, error)
	CPU() (time.Duration, error)
	// OOMKills returns how many processes were killed for lack of memory.
	OOMKills() (int, error)
	// OnOOM calls f, once, if the group runs out of memory. It is needed where
	// the kernel kills only one process of the group then. It returns a
	// function that ends the watch.
	OnOOM(f func()) (stop func(), err error)
	// Remove kills what is left and removes the group.
	Remove() error
}

// Tree makes groups.
type Tree struct {
	name    string
	v1      map[string]string // controller -> directory of the tree
	v2      string            // directory of the tree
	missing []string
}

// The controllers of a Tree. Without freezer, which version 2 always has, there
// is no Tree; without one of the others there is one that cannot keep the limit.
var wanted = []string{"memory", "cpu", "cpuacct", "pids", "freezer"}

// Open makes or finds the tree called name, a file name.
func Open(name string) (*Tree, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	l := findLayout(string(mounts), string(own))
	if l.v2.mount != "" {
		if have, err := os.ReadFile(filepath.Join(l.v2.mount, "cgroup.controllers")); err == nil && slices.Contains(strings.Fields(string(have)), "memory") {
			return openV2(name, l.v2)
		}
	}
	return openV1(name, l.v1)
}

// Missing lists the controllers that this host does not offer, whose limits
// setters refuse.
func (t *Tree) Missing() []string { return t.missing }

// Paths lists the tree's directories, for Sweep.
func (t *Tree) Paths() []string {
	if t.v2 != "" {
		return []string{t.v2}
	}
	var paths []string
	for _, dir := range t.v1 {
		if !slices.Contains(paths, dir) {
			paths = append(paths, dir)
		}
	}
	slices.Sort(paths)
	return paths
}

// Create makes a group.
func (t *Tree) Create(name string) (Group, error) {
	if t.v2 != "" {
		return createV2(t, name)
	}
	return createV1(t, name)
}

// Close removes the tree, which must be empty.
func (t *Tree) Close() error {
	var errs []error
	for _, p := range t.Paths() {
		errs = append(errs, removeDir(p))
	}
	return errors.Join(errs...)
}

// Sweep kills the processes of all groups in the trees at paths, which an
// earlier process may have left, and removes them.
func Sweep(paths []string) error {
	var errs []error
	// Kill everywhere before anything is removed: a process is in several
	// hierarchies, and a frozen one dies only when the freezer's is thawed.
	for _, p := range paths {
		for _, dir := range below(p) {
			errs = append(errs, killAll(dir))
		}
	}
	for _, p := range paths {
		for _, dir := range below(p) {
			errs = append(errs, removeDir(dir))
		}
		errs = append(errs, removeDir(p))
	}
	return errors.Join(errs...)
}

// below lists the directories in dir and theirs, each after those in it.
func below(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // gone, or of another boot
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			d := filepath.Join(dir, e.Name())
			dirs = append(append(dirs, below(d)...), d)
		}
	}
	return dirs
}

// killAll kills every process in the group at dir, frozen or not.
func killAll(dir string) error {
	if err := write(dir, "cgroup.kill", "1"); err == nil {
		return nil
	}
	pids, err := processes(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("killing process %d: %w", pid, err)
		}
	}
	if err := write(dir, "freezer.state", "THAWED"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// processes lists the processes in the group at dir that this process can see.
func processes(dir string) (pids []int, err error) {
	b, err := read(dir, "cgroup.procs")
	if err != nil {
		return nil, err
	}
	for line := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// removeTimeout bounds the wait for killed processes to leave a group.
const removeTimeout = 5 * time.Second

// removeDir removes the group at dir, waiting for its processes to be gone.
func removeDir(dir string) error {
	deadline := time.Now().Add(removeTimeout)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, err == unix.ENOENT:
			return nil
		case err != unix.EBUSY || time.Now().After(deadline):
			return fmt.Errorf("removing cgroup %s: %w", dir, err)
		}
		time.Sleep(wait)
	}
}

// write writes a control file. Unlike os.WriteFile it never creates one.
func write(dir, name, value string) error {
	path := filepath.Join(dir, name)
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A signal, such as Go's scheduler sends, interrupts the setting of a limit.
	_, err = unix.Write(fd, []byte(value))
	for err == unix.EINTR {
		_, err = unix.Write(fd, []byte(value))
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", value, &fs.PathError{Op: "write", Path: path, Err: err})
	}
	return nil
}

// open opens a control file for one read or write. An os.File would be made
// known to the poller first: eight system calls more.
func open(path string, mode int) (fd int, err error) {
	for {
		fd, err = unix.Open(path, mode|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return fd, nil
		case err != unix.EINTR:
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// read reads a control file.
func read(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 4096) // most are a line; memory.stat has some 2 KB
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = slices.Grow(b, 4096)
		}
	}
}

// readInt reads a control file that holds one number.
func readInt(dir, name string) (int64, error) {
	b, err := read(dir, name)
	if err != nil {
		return 0, err
	}
	return parseInt(b, name)
}

// parseInt reads the number that the content of the control file called name is.
func parseInt(b []byte, name string) (int64, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// readKeys reads the numbers of keys from a control file of "key number" lines;
// what it lacks is 0.
func readKeys(dir, name string, keys ...string) (map[string]int64, error) {
	b, err := read(dir, name)
	if err != nil {
		return nil, err
	}
	return parseKeys(b, name, keys...)
}

// parseKeys reads the numbers of keys from the content of the control file called
// name.
func parseKeys(b []byte, name string, keys ...string) (_ map[string]int64, err error) {
	values := make(map[string]int64, len(keys))
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !slices.Contains(keys, key) {
			continue
		}
		if values[key], err = strconv.ParseInt(value, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return values, nil
}

// freezeTimeout bounds the wait for processes to stop: those in an
// uninterruptible system call stop late.
const freezeTimeout = 5 * time.Second

// await polls until ok.
func await(ok func() (bool, error)) error {
	deadline := time.Now().Add(freezeTimeout)
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		done, err := ok()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes did not stop within %v", freezeTimeout)
		}
		// Not time.Sleep, which takes a millisecond for anything shorter.
		ts := unix.NsecToTimespec(int64(wait))
		if err := unix.Nanosleep(&ts, nil); err != nil && err != unix.EINTR {
			return err
		}
	}
}
