package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

var (
	errInitTimeout = errors.New("worker: initialisation timed out")
	errTimeout     = errors.New("worker: task timed out")
)

// Phases in which a runtime is initialised.
const (
	phaseInit   = "init"
	phaseInvoke = "invoke" // after an Init that failed: suppressed init
	// phaseRestore is what is told of a runtime that is restored, with SnapStart.
	phaseRestore = "restore"
)

// Initialization types, as functions see them in AWS_LAMBDA_INITIALIZATION_TYPE.
const (
	initOnDemand    = "on-demand"
	initProvisioned = "provisioned-concurrency"
	initSnapStart   = "snap-start"
)

// environment is one execution environment: an identity (log stream, first
// invocation) and the sandbox that it lives in. Its methods are called one
// after the other, but for Log and Alive.
type environment struct {
	w        *Worker
	v        *function.Version
	tenant   string // the only one that it serves; empty without tenant isolation
	initType string
	runtime  *runtimes.Runtime
	id       string // 32 hex digits
	stream   *logStream
	log      *systemLog
	boots    int
	endTurn  func()         // lets others start; see turn
	steps    *timeline.Line // of its start; nil where nobody asks
	blank    bool           // its sandbox is one of the runtime alone, or a clone of such
	tape     tape           // holds back what the guest tells, where nobody is to hear of it yet

	deadlines deadlines

	in           *instance     // nil where there is no sandbox any more
	ready        bool          // a runtime has been initialised in it
	initDuration time.Duration // reported by the first invocation
	restored     restoredIn    // reported by the first invocation
	initEnded    time.Time
	peakMemory   int // MiB, the highest use seen so far

	mu     sync.Mutex // guards what follows: freezing happens in a timer
	busy   bool
	frozen bool
	closed bool
	broken bool // failed, or cannot be frozen or thawed: killed without ceremony
	// timer goes off when it may be time to freeze, and is set anew then if it is
	// not: setting it for each invocation would cost more.
	timer  *time.Timer
	timed  bool      // timer is set
	idleAt time.Time // since when it is not busy
}

func (w *Worker) newEnvironment(s invoke.Spec) (*environment, error) {
	v := s.Version
	rt, err := w.runtime(v)
	if err != nil {
		return nil, err
	}
	var b [16]byte
	rand.Read(b[:])
	e := &environment{w: w, v: v, tenant: s.Tenant, initType: initTypeOf(v, s.Provisioned), runtime: rt, id: hex.EncodeToString(b[:]), busy: true}
	now := time.Now()
	e.stream = &logStream{store: w.opts.Logs, config: v.Logging, name: streamName(v, e.id, now), began: now, log: w.log}
	e.log = &systemLog{stream: e.stream, version: v, runtime: rt, id: e.id, initType: e.initType, tenant: e.tenant, meter: w.opts.Meter}
	return e, nil
}

// initTypeOf returns how an environment of a version is initialised. SnapStart and
// provisioned concurrency exclude each other.
func initTypeOf(v *function.Version, provisioned bool) string {
	switch {
	case v.SnapStart:
		return initSnapStart
	case provisioned:
		return initProvisioned
	}
	return initOnDemand
}

// runtime finds the runtime of a version. The error is for whoever invokes it.
func (w *Worker) runtime(v *function.Version) (*runtimes.Runtime, error) {
	if v.Image != nil {
		return runtimes.OfImage(v.Image.Env), nil
	}
	rt, err := w.opts.Runtimes.Resolve(v.Runtime)
	if err == nil && v.RuntimeVersionARN != "" && rt.VersionARN(v.Region) != v.RuntimeVersionARN {
		err = fmt.Errorf("version %s of runtime %s is not installed here any more", v.RuntimeVersionARN, v.Runtime)
	}
	if err != nil {
		refused := lambda.NewInvalidRuntimeException("The runtime or runtime version specified is not supported: %v", err)
		return nil, refused.WithCause(err)
	}
	return rt, nil
}

// Log implements host.Handler.
func (e *environment) Log(l proto.Log, msg []byte) {
	if !e.tape.log(l, msg) {
		e.stream.function(l, msg)
	}
}

// init runs the Init phase. Only a fault of the platform is an error; where a
// runtime fails to initialise, the first invocation tries again.
func (e *environment) init(ctx context.Context) error {
	if done, err := e.initFromSnapshot(ctx); done || err != nil {
		return err
	}
	e.in = e.fromBlank(ctx)
	if e.in == nil {
		in, err := e.w.boot(ctx, e)
		if err != nil {
			return err // it has never been: no line in the log
		}
		e.in = in
	}
	defer watchTurn(e.in.sandbox, e.endTurn)()
	e.log.initStart(e.stream.began, phaseInit)
	ictx, cancel := context.WithTimeoutCause(ctx, e.initLimit(), errInitTimeout)
	defer cancel()
	began := time.Now()
	fail, err := e.startRuntime(ictx)
	if err != nil {
		return err
	}
	took := time.Since(began)
	e.log.initReport(began.Add(took), phaseInit, took, fail)
	if fail != nil {
		e.reset(fail)
	} else {
		e.initDuration, e.initEnded = took, began.Add(took)
		e.w.snapshots.want(e)
	}
	e.park()
	return nil
}

// initLimit returns the limit of the Init phase: 10 s, or for what is started
// ahead, and with SnapStart, 130 s or the function's timeout, whichever is longer
// (Lambda developer guide, "Init phase").
func (e *environment) initLimit() time.Duration {
	if e.initType != initOnDemand {
		return max(provisionedInitTimeout, e.v.Timeout)
	}
	return e.w.initTimeout
}

// startRuntime starts the runtime in a sandbox that has just booted or been
// reset. With SnapStart its runtime stops to be restored, and is, in place: what
// hooks it has run as they would with a snapshot.
func (e *environment) startRuntime(ctx context.Context) (*failure, error) {
	defer e.steps.Begin("init")()
	creds, err := e.credentials(credentialsTTL)
	if err != nil {
		return nil, err
	}
	start := e.start(creds)
	start.Restorable = e.initType == initSnapStart
	res, err := e.in.conn.Start(ctx, start)
	if err == nil && res.Restorable {
		res, err = e.in.conn.Restore(ctx, proto.Restore{})
	}
	return e.started(ctx, res, err)
}

// started takes the outcome of a start.
func (e *environment) started(ctx context.Context, res host.InitResult, err error) (*failure, error) {
	switch {
	case err != nil:
		return e.fault(ctx, err)
	case res.Err != nil:
		f := runtimeFailure(res.Err)
		f.platform = true
		return f, nil
	}
	if err := e.in.sandbox.EndBoost(); err != nil {
		return nil, fmt.Errorf("CPU share of %s: %w", e.v.ARN(), err)
	}
	e.ready = true
	return nil, nil
}

// credentials issues what the function has of its role.
func (e *environment) credentials(ttl time.Duration) (credentials.Session, error) {
	creds, err := e.w.opts.Credentials.Issue(e.v.Role, credentials.SessionName(e.v.Name), ttl)
	if err != nil {
		return creds, fmt.Errorf("credentials of %s: %w", e.v.Role, err)
	}
	return creds, nil
}

// start says how to start the runtime.
func (e *environment) start(creds credentials.Session) proto.Start {
	var endpoint string
	if e.in != nil {
		endpoint = e.in.network.Endpoint
	}
	env := variables(e.v, e.runtime, e.initType, e.stream.name, endpoint, creds)
	s := proto.Start{
		Command:    e.command(env),
		Candidates: e.runtime.Candidates,
		Dir:        e.dir(),
		Env:        env,
		UID:        runtimes.UserID, GID: runtimes.GroupID,
		MaxFiles: maxFiles, MaxProcs: uint64(e.w.maxProcesses),
		FunctionName: e.v.Name, FunctionVersion: e.v.Version, Handler: e.v.Handler,
		AccountID: e.v.Account,
		// Managed runtimes tell where a record of several lines ends.
		FramedLogs: len(e.runtime.Command) > 0 && e.v.Image == nil,
		JSONLogs:   e.log.json(),
	}
	if e.initType == initSnapStart {
		s.Credentials = served(creds)
	}
	return s
}

// command starts the function's runtime. An image's own runtime heeds the
// function's wrapper script, if any does.
func (e *environment) command(env map[string]string) []string {
	if e.v.Image != nil {
		return e.v.Image.Command
	}
	return e.runtime.CommandFor(e.v.MemoryMB, env)
}

// dir is the working directory of the function's processes.
func (e *environment) dir() string {
	if e.v.Image != nil {
		return e.v.Image.Dir
	}
	return taskDir
}

// fault tells what a failed connection to the guest means: a time-out, an
// overrun of memory, or a sandbox that broke.
func (e *environment) fault(ctx context.Context, err error) (*failure, error) {
	switch {
	case errors.Is(err, errInitTimeout):
		return timeoutFailure(e.initLimit()), nil
	case errors.Is(err, errTimeout):
		return timeoutFailure(e.v.Timeout), nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case e.ranOutOfMemory():
		return outOfMemoryFailure(), nil
	}
	e.w.log.Error("sandbox ended unexpectedly", "function", e.v.ARN(), "environment", e.id, "error", err, "exit", e.in.sandbox.Exit().Err)
	return crashFailure(), nil
}

// ranOutOfMemory tells whether the sandbox ended by overrunning its memory. A
// sandbox whose connection broke is about to end, so this waits for it a moment.
func (e *environment) ranOutOfMemory() bool {
	select {
	case <-e.in.sandbox.Done():
		return e.in.sandbox.Exit().OutOfMemory
	case <-time.After(oomGrace):
		return false
	}
}

// maxMemory returns the highest use of memory so far, in MiB: all of it after
// an overrun, as Lambda reports it.
func (e *environment) maxMemory(f *failure) int {
	if f != nil && f.errorType == typeOutOfMemory {
		return e.v.MemoryMB
	}
	if e.in == nil {
		return e.peakMemory
	}
	if peak, err := e.in.sandbox.PeakMemoryMB(); err == nil { // else it has ended
		e.peakMemory = max(e.peakMemory, min(peak, e.v.MemoryMB))
	}
	return e.peakMemory
}

// fail notes that the environment is of no more use. It gets no Shutdown phase.
func (e *environment) fail() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = true
}

// CPUTime implements invoke.Environment.
func (e *environment) CPUTime() time.Duration {
	if e.in == nil {
		return 0
	}
	used, err := e.in.sandbox.CPUTime()
	if err != nil {
		return 0
	}
	return used
}

// Alive implements invoke.Environment.
func (e *environment) Alive() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.broken && (e.in == nil || e.in.alive())
}

// Close implements invoke.Environment: the Shutdown phase, and then everything
// is removed.
func (e *environment) Close() {
	e.unpark()
	e.mu.Lock()
	e.closed = true
	broken := e.broken
	e.mu.Unlock()
	if !broken && e.ready && e.in.alive() {
		ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
		// An error only means that it had to be killed.
		_ = e.in.conn.Shutdown(ctx, proto.ReasonSpindown)
		cancel()
	}
	e.discard()
	e.deadlines.close()
	e.stream.flush()
}

// park lets the environment freeze when it has been idle for a moment.
func (e *environment) park() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy, e.idleAt = false, time.Now()
	e.freezeIn(freezeAfter)
}

// freezeIn has freeze called, unless it will be already. e.mu is held.
func (e *environment) freezeIn(d time.Duration) {
	switch {
	case e.timed:
	case e.timer == nil:
		e.timer = time.AfterFunc(d, e.freeze)
	default:
		e.timer.Reset(d)
	}
	e.timed = true
}

func (e *environment) freeze() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.timed = false
	if e.busy || e.closed || e.frozen || e.in == nil || !e.in.alive() {
		return
	}
	if left := freezeAfter - time.Since(e.idleAt); left > 0 {
		e.freezeIn(left)
		return
	}
	if err := e.in.sandbox.Freeze(); err != nil {
		e.w.log.Error("environment was not frozen", "environment", e.id, "error", err)
		e.broken = true
		return
	}
	e.frozen = true
}

// unpark makes the environment run, and stay so; it tells whether that worked.
func (e *environment) unpark() (thawed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy = true
	if !e.frozen {
		return true
	}
	e.frozen = false
	if err := e.in.sandbox.Thaw(); err != nil {
		e.w.log.Error("environment was not thawed", "environment", e.id, "error", err)
		e.broken = true
		return false
	}
	return true
}

// spec describes the sandbox of the environment, which has yet no ID.
func (e *environment) spec(net Network) sandbox.Spec {
	mounts := append([]sandbox.Mount{}, e.runtime.Mounts...)
	mounts = append(mounts, net.Mounts...)
	own, root := e.mounts()
	var places []string
	if e.blank {
		places = []string{taskDir}
	} else {
		mounts, own = append(mounts, own...), nil
	}
	return sandbox.Spec{
		Hostname:     "169-254-100-1",
		Root:         root,
		Mounts:       mounts,
		Places:       places,
		Added:        own,
		Symlinks:     e.runtime.Symlinks,
		MemoryMB:     e.v.MemoryMB,
		CPUMillis:    cpuMillis(e.v.MemoryMB),
		BoostMillis:  cpus(e.v.MemoryMB) * 1000,
		CPUs:         cpus(e.v.MemoryMB),
		TmpMB:        e.v.EphemeralMB,
		MaxProcesses: e.w.maxProcesses,
		Network:      net.Network,
	}
}

// taskDir is where a function's code is.
const taskDir = "/var/task"

// mounts returns what is the function's own in its sandbox: code and layers, or the
// root of its image.
func (e *environment) mounts() (mounts []sandbox.Mount, root string) {
	switch {
	case e.v.Image != nil:
		root = e.v.Image.Root
	case e.v.Code != "": // else it is of no function
		mounts = append(mounts, sandbox.Mount{Source: e.v.Code, Target: taskDir, Image: true})
	}
	if e.v.Layers != "" {
		mounts = append(mounts, sandbox.Mount{Source: e.v.Layers, Target: "/opt", Image: true})
	}
	return mounts, root
}
