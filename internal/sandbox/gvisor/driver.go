// Package gvisor is the default sandbox driver. It runs each sandbox in gVisor,
// a kernel in user space, and needs neither KVM nor anything else installed.
//
// # One process
//
// A sandbox is one host process (and the processes that gVisor's systrap
// platform runs guest code in): the program cmd/lapwing-sandbox, which is
// gVisor's kernel and the guest beside it, which supervises what runs in the
// sandbox. The driver itself holds nothing of gVisor: package sentry is what runs
// in the process, package wire what the two agree on.
// It does not go through runsc's command line, which executes itself twice and
// starts a second process, the gofer, to open files.
// The driver opens everything beforehand and hands over descriptors: the mounts,
// the file behind /tmp, the packet socket of the network interface, the host
// connection. The process starts as an unprivileged user, without capabilities,
// in an empty mount namespace and a network namespace without interfaces (see
// void), in a PID namespace of its own, and gVisor's seccomp filter closes behind
// it before guest code runs.
//
// # Prepared sandboxes
//
// A process is told what to be by an order, with descriptors, after it has started.
// So some can be started before anybody wants them, and then save a start what
// loading the program and preparing gVisor take (see pool). They hold nothing of any
// function, and each becomes one sandbox.
//
// # Snapshots
//
// A snapshot is gVisor's kernel as it writes it, with all processes of the guest, and
// the memory of these processes in a file beside it, which clones map and copy from
// (see lent.go of package sentry). What belongs to the world outside is not in it: a
// clone gets its own mounts, network, /tmp, host connection, clock and randomness,
// and with open connections to the outside no snapshot is taken. What the first clone
// has touched of its memory when its boost ends is put in place in all later ones
// before they run (see footprints). A clone that is held (sandbox.Spec) is all there
// but for that its processes do not run: these go on with the host's first word.
//
// # File systems
//
// Code comes as EROFS images, files that gVisor maps and reads itself: nothing of
// the host but their bytes can be reached, and sandboxes share them in the page
// cache. What a host cannot read of an image ends the sandbox.
//
// Other mounts are read-only twice: gVisor mounts them so, and the descriptors belong
// to detached read-only clones of the host's mounts, from which nothing above
// can be reached. The sandbox process opens host files as the user nobody, so
// what a mount is to offer must be readable by everyone. Mounts must not change
// while a sandbox uses them. /tmp is a file in Options.Dir without a name: its
// pages are the host's page cache, which the kernel writes back under pressure,
// so a full /tmp takes disk and not the function's memory, as on Lambda. There is
// no /dev/shm, as on Lambda. Writing to anything but /tmp fails with EROFS,
// whatever the permissions.
//
// # Limits
//
// Memory, CPU time and processes are limited by cgroups (see package cgroup),
// what the guest has of memory, processes and threads also by the sandbox process:
// a cgroup holds gVisor too, and has to leave room for that. A sandbox that
// overruns its memory is killed as a whole.
//
// # Costs
//
// Measured on two cores of an AMD EPYC that were busy with other work, so take
// them for upper bounds (go test -bench . prints them for another machine):
// Create 28-41 ms and 20 ms of CPU time, of which half is the loading of the
// program and its packages; 64 sandboxes side by side 2.0 s; Node 188 ms from
// Create to its output, where natively it takes 117 ms. An idle sandbox has a
// proportional set size of 15 MB, 5 MB of them memory of its own; the rest is
// the program. A round trip of 1 KB over the host connection takes 0.07-0.2 ms,
// one of 6 MB 7 ms. Freezing takes 0.05-0.5 ms and thawing 0.04-0.2 ms, about
// 5 µs for each thread, by the cgroup's freezer. gVisor's own pause stops guest
// tasks only: its kernel would keep running timers and answering calls.
//
// # Ends
//
// A sandbox ends with any of its processes, whoever kills it (see watchStubs of
// package sentry).
//
// The sandbox processes are killed by the kernel when the daemon dies. What that
// cannot reach, frozen processes and cgroups, New removes.
package gvisor

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/cgroup"
)

// DefaultPrepared is Options.Prepared of a server.
const DefaultPrepared = 8

// Options configure a Driver.
type Options struct {
	// Dir is the driver's own directory. New removes what an earlier driver
	// left there. Its file system holds the sandboxes' /tmp.
	Dir string
	// InitPath, where it is not empty, is a static program on this host that is
	// process 1 in every sandbox and has the host connection as file descriptor
	// 3, in the place of a guest: for tests of the driver.
	InitPath string
	// SandboxPath is the static lapwing-sandbox binary on this host.
	SandboxPath string
	Logger      *slog.Logger
	// MemoryMB is the sum of Spec.MemoryMB over all sandboxes above which
	// Create returns ErrNoCapacity. 0 means no fixed sum: sandboxes rarely use
	// all that they may. Either way Create leaves some of the host's memory
	// free.
	MemoryMB int
	// Prepared is how many sandboxes may be prepared before somebody wants them.
	// Each takes some 10 MB of memory; there are fewer while nothing starts.
	Prepared int
}

// Driver makes gVisor sandboxes.
type Driver struct {
	opts     Options
	initPath string // of process 1
	log      *slog.Logger
	lock     *os.File
	cgroups  *cgroup.Tree
	void     *void
	hostMem  uint64   // bytes
	filter   []byte   // of system calls
	practice *os.File // a kernel for prepared sandboxes to practise with
	starting sync.WaitGroup

	trees      trees
	footprints footprints

	pool *pool
	made atomic.Int64 // sandbox processes

	mu       sync.Mutex
	closed   bool
	live     map[string]*instance // by ID; nil while it is being made
	reserved map[string]int       // MB, by ID
	memoryMB int                  // the sum
}

var _ sandbox.Driver = (*Driver)(nil)

// New returns a driver, after it has removed whatever an earlier one with the
// same directory left behind. Only one driver at a time can use a directory.
func New(ctx context.Context, opts Options) (_ *Driver, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("gvisor: sandboxes can be made by root only")
	}
	if opts.Dir, err = filepath.Abs(opts.Dir); err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Driver{opts: opts, log: opts.Logger, live: make(map[string]*instance), reserved: make(map[string]int)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("gvisor: %w", err), d.release())
		}
	}()
	for _, path := range []string{opts.SandboxPath, opts.InitPath} {
		if path == "" && path == opts.InitPath {
			continue
		}
		if err := checkStatic(path); err != nil {
			return nil, err
		}
	}
	if d.hostMem, err = sandbox.MemInfo("MemTotal"); err != nil {
		return nil, err
	}
	if err := d.claim(); err != nil {
		return nil, err
	}
	if err := d.sweep(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := d.openCgroups(); err != nil {
		return nil, err
	}
	if d.initPath = opts.InitPath; d.initPath == "" {
		if d.initPath, err = d.writeIdle(); err != nil {
			return nil, err
		}
	}
	voidDir := filepath.Join(opts.Dir, "void")
	for _, dir := range []string{voidDir, d.rootsDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if d.void, err = newVoid(voidDir, opts.SandboxPath); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("practice", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	d.practice = os.NewFile(uintptr(fd), "practice")
	d.pool = newPool(d)
	if err := d.try(ctx); err != nil {
		return nil, err
	}
	d.pool.begin()
	return d, nil
}

// try makes a first sandbox: to find out now, and not at the first invocation,
// whether this host can run any, to get the system call filter compiled, and a
// kernel for others to practise with.
func (d *Driver) try(ctx context.Context) error {
	s, err := d.create(ctx, sandbox.Spec{
		ID: "try", Hostname: "try", MemoryMB: 64, CPUMillis: 1000, CPUs: 1, TmpMB: 1, MaxProcesses: 16,
	}, nil, d.practice)
	if err != nil {
		return err
	}
	d.filter = s.filter
	select {
	case <-s.done: // it ends by itself
	case <-ctx.Done():
	}
	return s.Destroy(ctx)
}

// checkStatic refuses a program that cannot run where there is nothing else.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s must be linked statically (CGO_ENABLED=0)", path)
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode()&0o005 != 0o005 {
		return fmt.Errorf("%s must be readable and executable by everyone", path)
	}
	return nil
}

// claim makes the directory this driver's, as long as it or its process lives.
func (d *Driver) claim() (err error) {
	if err := os.MkdirAll(d.opts.Dir, 0o711); err != nil {
		return err
	}
	d.lock, err = os.OpenFile(filepath.Join(d.opts.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another process", d.opts.Dir)
	}
	return nil
}

func (d *Driver) rootsDir() string    { return filepath.Join(d.opts.Dir, "roots") }
func (d *Driver) cgroupsFile() string { return filepath.Join(d.opts.Dir, "cgroups.json") }

// sweep removes what an earlier driver with this directory left.
func (d *Driver) sweep() error {
	b, err := os.ReadFile(d.cgroupsFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		var paths []string
		if err := json.Unmarshal(b, &paths); err != nil {
			return fmt.Errorf("%s: %w", d.cgroupsFile(), err)
		}
		if err := cgroup.Sweep(paths); err != nil {
			return fmt.Errorf("removing sandboxes of an earlier process: %w", err)
		}
	}
	temporary, err := filepath.Glob(filepath.Join(d.opts.Dir, "tmp-*")) // see namelessFile
	if err != nil {
		return err
	}
	for _, path := range append(temporary, d.rootsDir()) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// openCgroups makes the driver's part of the cgroup tree and writes down where
// it is, for a later sweep.
func (d *Driver) openCgroups() error {
	var st unix.Stat_t
	if err := unix.Stat(d.opts.Dir, &st); err != nil {
		return err
	}
	// Unlike the directory's path, this is the same from every mount namespace.
	tree, err := cgroup.Open(fmt.Sprintf("lapwing-%x-%x", st.Dev, st.Ino))
	if err != nil {
		return err
	}
	d.cgroups = tree
	if missing := tree.Missing(); len(missing) > 0 {
		return fmt.Errorf("this host does not let Lapwing use the cgroup controllers %s, so limits of functions could not be kept", strings.Join(missing, ", "))
	}
	b, err := json.Marshal(tree.Paths())
	if err != nil {
		return err
	}
	return os.WriteFile(d.cgroupsFile(), b, 0o600)
}

// Close implements sandbox.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	already := d.closed
	d.closed = true
	d.mu.Unlock()
	if already {
		return nil
	}
	d.starting.Wait()
	d.mu.Lock()
	live := slices.Collect(maps.Values(d.live))
	d.mu.Unlock()
	return errors.Join(destroyAll(live), d.release())
}

// release gives back what New took.
func (d *Driver) release() error {
	var errs []error
	if d.pool != nil {
		errs = append(errs, d.pool.close())
	}
	if d.void != nil {
		d.void.close()
	}
	if d.cgroups != nil {
		errs = append(errs, d.cgroups.Close(), os.Remove(d.cgroupsFile()))
	}
	errs = append(errs, d.trees.close())
	if d.practice != nil {
		errs = append(errs, d.practice.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}
