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
	"net"
	"os"
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
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// guestFiles is RLIMIT_NOFILE of process 1, as on Lambda.
const guestFiles = 1024

// Main is the whole of a sandbox process and never returns. The driver has
// started the process with the descriptors of package wire.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != wire.Program {
		fmt.Fprintln(os.Stderr, "lapwing-sandbox: this program is started by lapwing")
		os.Exit(2)
	}
	var begun steps
	begun.over("process start")
	unix.Close(wire.Last) // it has done its work
	control := os.NewFile(wire.Control, "control")
	report := func(r wire.Report) {
		if err := json.NewEncoder(control).Encode(r); err != nil {
			os.Exit(2) // the driver is gone
		}
	}
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
	req, err := receive(control)
	if err != nil {
		os.Exit(2)
	}
	overrun := func() {
		report(wire.Report{OutOfMemory: true})
		os.Exit(1)
	}
	begun.over("set-up")
	status, err := runSandbox(req, conf, overrun, &begun, func(filter []byte) { report(wire.Report{Filter: filter, Steps: begun}) })
	if err != nil {
		report(wire.Report{Error: err.Error()})
		os.Exit(1)
	}
	report(wire.Report{Exited: true, Status: int(status)})
	os.Exit(0)
}

// requestVariable passes the request on from one attempt to the next.
const requestVariable = "LAPWING_REQUEST"

func receive(control *os.File) (*wire.Request, error) {
	var req wire.Request
	if again := os.Getenv(requestVariable); again != "" {
		return &req, json.Unmarshal([]byte(again), &req)
	}
	return &req, json.NewDecoder(control).Decode(&req)
}

// newLoader is boot.New, tried again in a fresh process image where gVisor's stub
// cannot be mapped. It is mapped at a random address, and where that is in use
// (about one time in a thousand) gVisor looks for a free one in /proc, which the
// void lacks.
func newLoader(args boot.Args, req *wire.Request) (*boot.Loader, error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if text := fmt.Sprint(p); !strings.Contains(text, "/proc/self/maps") {
			panic(p)
		}
		b, err := json.Marshal(req)
		if err != nil {
			panic(err)
		}
		// Of all that is open now the next image gets what this one got.
		first := wire.Mounts + 1 + len(req.Mounts)
		if req.Network != nil {
			first++
		}
		if err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			panic(err)
		}
		panic(unix.Exec(wire.Program, []string{wire.Program}, append(os.Environ(), requestVariable+"="+string(b))))
	}()
	return boot.New(args)
}

// runSandbox is the life of a sandbox process: it builds gVisor's kernel, starts
// process 1 in it, calls running with the filter if that was not given, and serves
// the guest or, where that is process 1, waits for its end. It calls overrun if the
// guest's memory exceeds its limit.
func runSandbox(req *wire.Request, conf *config.Config, overrun func(), begun *steps, running func(filter []byte)) (unix.WaitStatus, error) {
	limitTasks(req.MaxProcesses)
	tellReadOnly()
	args, client, err := loaderArgs(req, conf)
	if err != nil {
		return 0, err
	}
	l, err := newLoader(args, req)
	if err != nil {
		return 0, fmt.Errorf("building the guest kernel: %w", err)
	}
	begun.over("guest kernel")
	var conn net.Conn
	if !req.InitConn {
		if conn, err = hostConnection(); err != nil {
			return 0, err
		}
	}
	watchStubs(func() { os.Exit(1) })
	program, compiled, err := systemCalls(req)
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
	if err := rpc.Call(boot.ContMgrCreateLinksAndRoutes, links(req.Network), nil); err != nil {
		return 0, fmt.Errorf("setting up the network: %w", err)
	}
	started := make(chan error, 1)
	go func() { started <- rpc.Call(boot.ContMgrRootContainerStart, &req.ID, nil) }()
	l.WaitForStartSignal()
	runErr := l.Run()
	if err := errors.Join(runErr, <-started); err != nil {
		return 0, fmt.Errorf("starting process 1: %w", err)
	}
	gomaxprocs.Add(-spare)
	begun.over("process 1")
	k := kernelOf(l)
	settle(k)
	limit := req.MemoryBytes
	if req.InitConn {
		limit += processOne
	}
	watchMemory(k, limit, overrun)
	running(compiled)
	if req.InitConn {
		return unix.WaitStatus(l.WaitExit()), nil
	}
	return serveGuest(k, conn, req.MaxProcesses)
}

// loaderArgs puts together what gVisor's loader is to build the guest from, and
// returns it with a connection to the loader's control socket.
func loaderArgs(req *wire.Request, conf *config.Config) (boot.Args, *unet.Socket, error) {
	goferFDs, err := serveMounts(req)
	if err != nil {
		return boot.Args{}, nil, err
	}
	client, err := controlConnection()
	if err != nil {
		return boot.Args{}, nil, fmt.Errorf("making the control connection: %w", err)
	}
	// The loader closes what it is given, and a second attempt needs it again.
	var stdio []int
	for _, fd := range []int{0, wire.Console, wire.Console} {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return boot.Args{}, nil, fmt.Errorf("standard files of process 1: %w", err)
		}
		stdio = append(stdio, n)
	}
	var passed []boot.FDMapping
	if req.InitConn {
		passed = []boot.FDMapping{{Guest: wire.InitConn, Host: wire.GuestConn}}
	}
	spec := guestSpec(req)
	return boot.Args{
		ID:                req.ID,
		Spec:              spec,
		Conf:              conf,
		ControllerFD:      wire.ControlSocket,
		Device:            fd.New(-1),
		GoferFDs:          goferFDs,
		DevGoferFD:        -1,
		StdioFDs:          stdio,
		PassFDs:           passed,
		ExecFD:            -1,
		GoferFilestoreFDs: []int{wire.Tmp},
		GoferMountConfs:   mountConfs(req, spec.Mounts),
		NumCPU:            req.CPUs,
		CPUQuota:          -1,
		TotalMem:          req.MemoryBytes,
		TotalHostMem:      req.HostMemory,
		UserLogFD:         -1,
		ProductName:       "Lapwing",
		PodInitConfigFD:   -1,
		RootfsUpperTarFD:  -1,
	}, client, nil
}

// sentryConfig returns gVisor's configuration: its defaults except where a
// sandbox of ours differs.
func sentryConfig() (*config.Config, error) {
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	config.RegisterFlags(flags)
	for name, value := range map[string]string{
		"platform":           "systrap",
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
