// Package sentry is what runs in a sandbox process: gVisor's kernel, which it
// calls the sentry, and a guest (package guest) that supervises what runs in it.
// Main builds a kernel from the descriptors and the request that the driver hands
// over (see package wire), serves the guest and reports.
//
// It is a program of its own, cmd/lapwing-sandbox, because a process pays for
// all that its binary holds: as a second role of the server's binary it took
// a third more CPU time to start and half as much memory again.
package sentry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cpuid"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/gomaxprocs"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/ring0"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/erofs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"

	"lapwing.dev/lapwing/internal/guest"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/sentry/guestos"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// collectAt is by how much the heap grows, in percent, before Go's collector runs.
// It takes all processors for some milliseconds when it does, and an invocation that
// comes then waits for them. What is alive is a few megabytes.
const collectAt = 250

// guestFiles is RLIMIT_NOFILE of process 1, as on Lambda.
const guestFiles = 1024

// Main is the whole of a sandbox process and never returns. The driver has
// started the process with the descriptors of package wire.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != wire.Program {
		fmt.Fprintln(os.Stderr, "lapwing-sandbox: this program is started by lapwing")
		os.Exit(2)
	}
	unix.Close(wire.Last) // it has done its work
	control := os.NewFile(wire.Control, "control")
	report := func(r wire.Report) {
		if err := json.NewEncoder(control).Encode(r); err != nil {
			os.Exit(2) // the driver is gone
		}
	}
	// Until the guest runs the garbage is less than what a collection costs, and
	// a heap that no collection is due of is kept.
	collect := debug.SetGCPercent(-1)
	// What every sandbox needs is done while the driver prepares the request.
	debug.SetTraceback("system")
	log.SetLevel(log.Warning)
	log.SetTarget(warnings{log.GoogleEmitter{Writer: &log.Writer{Next: os.Stderr}}})
	cpuid.Initialize()
	ring0.InitDefault()
	seccheck.Initialize()
	conf, err := sentryConfig()
	if err != nil {
		report(wire.Report{Error: err.Error()})
		os.Exit(1)
	}
	if len(os.Args) == 1 {
		if order, _, err := wire.Receive(); err != nil || !order.Begin {
			os.Exit(2)
		}
	}
	interrupted := new(bell)
	if err := startPlatform(conf, interrupted); err != nil {
		report(wire.Report{Error: err.Error()})
		os.Exit(1)
	}
	if err := practise(); err != nil {
		log.Warningf("It has not practised: %v", err)
	}
	report(wire.Report{Ready: true})
	order, descriptors, err := wire.Receive()
	if err != nil || order.Be == nil {
		os.Exit(2)
	}
	j := &job{Request: order.Be, descriptors: descriptors, report: report, collect: collect, interrupted: interrupted}
	j.steps.over("request")
	status, err := j.run(conf)
	if err != nil {
		report(wire.Report{Error: err.Error()})
		os.Exit(1)
	}
	report(wire.Report{Exited: true, Status: int(status)})
	os.Exit(0)
}

// job is what a sandbox process is to be.
type job struct {
	*wire.Request
	descriptors []int // by place
	report      func(wire.Report)
	steps       steps
	collect     int               // Go's GOGC, once the guest runs
	guest       *guest.Supervisor // nil where process 1 has the host connection
	host        *hostConn         // as guest
	interrupted *bell             // rings when a task is interrupted
	memory      *lentMemory       // of the snapshot, in a clone
	copied      uint64            // bytes of it that were copied ahead
}

// duplicate returns another descriptor of what is at a place: gVisor closes what it
// is given.
func (j *job) duplicate(place int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(j.descriptors[place]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicating a descriptor: %w", err)
	}
	return fd, nil
}

// overrun ends the process because the guest has taken more memory than it has.
func (j *job) overrun() {
	j.report(wire.Report{OutOfMemory: true})
	os.Exit(1)
}

// run is the life of a sandbox, to the exit status of its guest.
func (j *job) run(conf *config.Config) (unix.WaitStatus, error) {
	limitTasks(j.MaxProcesses)
	tellReadOnly()
	j.serveExchanges()
	if j.State != 0 {
		return j.resume(conf)
	}
	return j.begin(conf)
}

// startPlatform prepares what runs guest code, which is the same for all guests.
// gVisor maps its stub at a random address, and where that is in use (about one
// time in a thousand) it looks for a free one in /proc, which the void lacks: then
// it is tried again in a fresh process image.
//
// On all platforms the interruption of a task rings b.
func startPlatform(conf *config.Config, b *bell) error {
	if err := ringFor(conf.Platform, b); err != nil {
		return err
	}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if text := fmt.Sprint(p); !strings.Contains(text, "/proc/self/maps") {
			panic(p)
		}
		if err := unix.CloseRange(wire.Practice+1, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			panic(err)
		}
		panic(unix.Exec(wire.Program, []string{wire.Program, wire.Again}, os.Environ()))
	}()
	p, err := startStubs(conf)
	if err != nil {
		return err
	}
	// Address spaces for process 1 and the runtime; gVisor keeps and reuses
	// what is released.
	var made [2]platform.AddressSpace
	for i := range made {
		if made[i], err = p.NewAddressSpace(); err != nil {
			return err
		}
	}
	for _, a := range made {
		a.Release()
	}
	return nil
}

// startStubs returns a first platform, whose stubs are the parents of all others.
//
// All of them are batch processes to the host's scheduler, which only means that
// one that is woken does not take the processor from who woke it. gVisor's kernel
// wakes a stub and then waits for it; the stub's answer, a futex without a value,
// is repeated until somebody waits. A stub that came first repeated it for all of
// its time slice, several milliseconds.
func startStubs(conf *config.Config) (platform.Platform, error) {
	runtime.LockOSThread() // gVisor forks them from this thread
	defer runtime.UnlockOSThread()
	if err := setScheduler(unix.SCHED_BATCH); err != nil {
		return nil, err
	}
	p, err := newPlatform(conf, 1)
	return p, errors.Join(err, setScheduler(unix.SCHED_NORMAL))
}

// setScheduler changes the scheduling policy of the calling thread. Its niceness stays:
// in the void nobody may lower that of a server that was started as a nice one.
func setScheduler(policy uint32) error {
	now, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: now.Nice}, 0)
	}
	if err != nil {
		return fmt.Errorf("choosing a scheduling policy: %w", err)
	}
	return nil
}

// newPlatform returns a platform for a guest that sees so many processors.
func newPlatform(conf *config.Config, cpus int) (platform.Platform, error) {
	p, err := platform.Lookup(conf.Platform)
	if err != nil {
		return nil, err
	}
	return p.New(platform.Options{DisableFastPath: conf.SystrapDisableFastPath, ApplicationCores: cpus})
}

// begin builds a kernel, starts process 1 in it, and serves the guest or, where
// that is process 1, waits for its end.
func (j *job) begin(conf *config.Config) (unix.WaitStatus, error) {
	args, client, err := j.loaderArgs(conf)
	if err != nil {
		return 0, err
	}
	l, err := boot.New(args)
	if err != nil {
		return 0, fmt.Errorf("building the guest kernel: %w", err)
	}
	settleClocks(kernelOf(l))
	j.steps.over("guest kernel")
	if err := j.takeHostConnection(); err != nil {
		return 0, err
	}
	watchStubs(func() { os.Exit(1) })
	program, compiled, err := j.systemCalls()
	if err != nil {
		return 0, err
	}
	l.PreSeccompCallback = func() {
		// The loader, which is told to install no filter, calls this at the
		// point where it would.
		if err := seccomp.SetFilter(program); err != nil {
			panic(fmt.Sprintf("installing the system call filter: %v", err))
		}
	}
	// The loader speaks to itself from goroutines that block in system calls,
	// each of which holds up a processor of Go's scheduler for a while.
	const spare = 6
	gomaxprocs.Add(spare)
	// It takes the network and the signal to start over a control connection.
	rpc := urpc.NewClient(client)
	defer rpc.Close()
	if err := rpc.Call(boot.ContMgrCreateLinksAndRoutes, j.links(), nil); err != nil {
		return 0, fmt.Errorf("setting up the network: %w", err)
	}
	started := make(chan error, 1)
	go func() { started <- rpc.Call(boot.ContMgrRootContainerStart, &j.ID, nil) }()
	l.WaitForStartSignal()
	runErr := l.Run()
	if err := errors.Join(runErr, <-started); err != nil {
		return 0, fmt.Errorf("starting process 1: %w", err)
	}
	gomaxprocs.Add(-spare)
	j.steps.over("process 1")
	k := kernelOf(l)
	settle(k)
	if j.Teach != 0 {
		j.report(wire.Report{Filter: compiled})
		return 0, teach(k, j.descriptors[j.Teach])
	}
	j.watchMemory(k, func() uint64 { return 0 })()
	return j.serve(k, compiled, nil)
}

// watchMemory returns a function that begins to watch: the process ends once the guest
// has more memory than it may. lent is what it has of a snapshot's.
func (j *job) watchMemory(k *kernel.Kernel, lent func() uint64) (begin func()) {
	limit := j.MemoryBytes
	if j.InitConn {
		limit += processOne
	}
	// What was copied ahead is there before the guest has used anything.
	return watchMemory(k, limit-min(limit, j.copied), lent, j.overrun)
}

// serve tells that the guest of k runs, and serves it until it ends. What there is
// of its earlier life is in saved.
func (j *job) serve(k *kernel.Kernel, filter, saved []byte) (unix.WaitStatus, error) {
	if !j.InitConn {
		sys, err := guestos.New(k, j.MaxProcesses)
		if err != nil {
			return 0, err
		}
		j.guest = guest.New(sys)
	}
	debug.SetGCPercent(max(j.collect, collectAt))
	if !j.Held { // else it has reported
		j.report(wire.Report{Filter: filter, Steps: j.steps, Copied: int64(j.copied)})
	}
	go j.takeOrders(k)
	if j.InitConn {
		k.WaitExited()
		return unix.WaitStatus(k.GlobalInit().ExitStatus()), nil
	}
	return serveGuest(j.guest, j.host, saved), nil
}

// loaderArgs puts together what gVisor's loader is to build the guest from, and
// returns it with a connection to the loader's control socket.
func (j *job) loaderArgs(conf *config.Config) (boot.Args, *unet.Socket, error) {
	goferFDs, err := j.serveMounts()
	if err != nil {
		return boot.Args{}, nil, err
	}
	client, err := controlConnection()
	if err != nil {
		return boot.Args{}, nil, fmt.Errorf("making the control connection: %w", err)
	}
	fds, err := j.standardFiles()
	if err != nil {
		return boot.Args{}, nil, err
	}
	tmp, err := j.duplicate(wire.Tmp)
	if err != nil {
		return boot.Args{}, nil, err
	}
	var passed []boot.FDMapping
	if j.InitConn {
		passed = []boot.FDMapping{{Guest: wire.InitConn, Host: fds[wire.InitConn]}}
	}
	spec := guestSpec(j.Request)
	return boot.Args{
		ID:                j.ID,
		Spec:              spec,
		Conf:              conf,
		ControllerFD:      wire.ControlSocket,
		Device:            fd.New(-1),
		GoferFDs:          goferFDs,
		DevGoferFD:        -1,
		StdioFDs:          fds[:3],
		PassFDs:           passed,
		ExecFD:            -1,
		GoferFilestoreFDs: []int{tmp},
		GoferMountConfs:   mountConfs(j.Request, spec.Mounts),
		NumCPU:            j.CPUs,
		CPUQuota:          -1,
		TotalMem:          j.MemoryBytes,
		TotalHostMem:      j.HostMemory,
		UserLogFD:         -1,
		ProductName:       productName,
		PodInitConfigFD:   -1,
		RootfsUpperTarFD:  -1,
	}, client, nil
}

// standardFiles returns descriptors for process 1, by their numbers there.
func (j *job) standardFiles() ([]int, error) {
	fds := make([]int, 3, 4)
	for i, fd := range []int{0, j.descriptors[wire.Console], j.descriptors[wire.Console]} {
		var err error
		if fds[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	if !j.InitConn {
		return fds, nil
	}
	// gVisor saves a socket of the host by its number.
	if err := unix.Dup3(j.descriptors[wire.GuestConn], wire.InitConnHost, unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	return append(fds, wire.InitConnHost), nil
}

// sentryConfig returns gVisor's configuration: its defaults except where a
// sandbox of ours differs.
func sentryConfig() (*config.Config, error) {
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	config.RegisterFlags(flags)
	for name, value := range map[string]string{
		"platform":           "systrap", // the way of running guest code that works everywhere
		"network":            "sandbox",
		"directfs":           "true", // the mounts are descriptors, there is no gofer process
		"overlay2":           "none",
		"file-access":        "exclusive", // images never change while they are mounted
		"file-access-mounts": "exclusive",
		"host-uds":           "none",
		"host-fifo":          "none",
		"oci-seccomp":        "false",
		"net-raw":            "false",
		"root":               "/",
		// The fast path saves wake-ups by spinning, with CPU time that a
		// function has little of and its neighbours have a use for.
		"systrap-disable-fast-path": "true",
	} {
		if err := flags.Set(name, value); err != nil {
			return nil, fmt.Errorf("gVisor option %s: %w", name, err)
		}
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		return nil, fmt.Errorf("gVisor configuration: %w", err)
	}
	conf.DisableSeccomp = true // runSandbox installs the filter
	// Nothing of cgroups is mounted, as on Lambda, so gVisor need not make any.
	kernel.CgroupCtrls = nil
	return conf, nil
}

// guestSpec describes process 1 and its file systems.
func guestSpec(req *wire.Request) *specs.Spec {
	files := specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Hard: guestFiles, Soft: guestFiles}
	procs := specs.POSIXRlimit{Type: "RLIMIT_NPROC", Hard: uint64(req.MaxProcesses), Soft: uint64(req.MaxProcesses)}
	core := specs.POSIXRlimit{Type: "RLIMIT_CORE"}
	caps := []string{"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_RESOURCE"}
	spec := &specs.Spec{
		Hostname: req.Hostname,
		Root:     &specs.Root{Path: "/", Readonly: true},
		Process: &specs.Process{
			Args:            []string{wire.Init},
			Env:             []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
			Cwd:             "/",
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:         []specs.POSIXRlimit{files, procs, core},
		},
		Linux: &specs.Linux{},
		Mounts: []specs.Mount{
			{Type: "proc", Destination: "/proc", Options: []string{"nosuid", "noexec"}},
			{Type: "sysfs", Destination: "/sys", Options: []string{"ro", "nosuid", "noexec"}},
			{Type: "dev", Destination: "/dev", Options: []string{"nosuid", "noexec"}},
			// A bind mount for which the loader finds no lower layer becomes a
			// tmpfs in the file that is given for it.
			{Type: "bind", Source: "/tmp", Destination: "/tmp", Options: []string{"nosuid", "mode=01777", "size=" + strconv.FormatUint(req.TmpBytes, 10)}},
		},
	}
	for i, m := range req.Mounts {
		kind := "bind"
		if m.Image {
			kind = erofs.Name
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Type: kind, Source: strconv.Itoa(i), Destination: m.Target, Options: []string{"ro", "nosuid"},
		})
	}
	return spec
}

// controlConnection makes a listening socket at wire.ControlSocket and returns a
// connection to it. The socket has a name only in the void's network namespace,
// where no sandbox can connect to anything once it has its filter.
func controlConnection() (*unet.Socket, error) {
	const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	listener, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(listener)
	if err := unix.Bind(listener, &unix.SockaddrUnix{}); err != nil { // a free name
		return nil, err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return nil, err
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return nil, err
	}
	conn, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(conn, name); err != nil {
		return nil, err
	}
	if err := unix.Dup3(listener, wire.ControlSocket, unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	return unet.NewSocket(conn)
}

// warnings is gVisor's log. The driver shows it when a sandbox fails.
type warnings struct{ log.Emitter }

// Emit implements log.Emitter.
func (w warnings) Emit(depth int, level log.Level, at time.Time, format string, args ...any) {
	if strings.HasPrefix(format, "*** SECCOMP WARNING") {
		return // the loader does not know of the filter that it gets, see filter.go
	}
	w.Emitter.Emit(depth+1, level, at, format, args...)
}
