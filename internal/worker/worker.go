// Package worker makes and drives execution environments on this host: it
// composes the sandbox of a function version (runtime, code, network, limits,
// environment variables), runs its Init, Invoke and Shutdown phases, meters
// them and writes the function's log.
//
// It implements the interfaces by which package invoke asks for environments.
// Below it, a sandbox.Driver makes the sandboxes, guest/host speaks to the
// program in them, and logstore keeps what they print.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"time"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/meter"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/snapshot"
	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/otlp"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

const (
	// initTimeout is Lambda's limit of the Init phase (Lambda developer guide,
	// execution environment life cycle).
	initTimeout = 10 * time.Second
	// provisionedInitTimeout is the same for provisioned concurrency.
	provisionedInitTimeout = 130 * time.Second
	// freezeAfter is how long an environment stays thawed after an invocation,
	// so that a caller in a loop does not pay for freezing and thawing.
	freezeAfter = 10 * time.Millisecond
	// bootAttempts bounds how often a sandbox is made where one breaks.
	bootAttempts = 3
	// destroyTimeout bounds the removal of a sandbox.
	destroyTimeout = 30 * time.Second
	// credentialsTTL is the life of the role's credentials in an environment;
	// package invoke ends environments before that.
	credentialsTTL = 12 * time.Hour
	// maxFiles and maxProcesses are Lambda's quotas of an environment.
	maxFiles, maxProcesses = 1024, 1024
)

// Network is the network of one sandbox.
type Network struct {
	sandbox.Network
	Mounts   []sandbox.Mount // /etc/resolv.conf and /etc/hosts
	Endpoint string          // URL of the AWS endpoint as the function reaches it
	Release  func()
}

// Networks gives sandboxes their network.
type Networks interface {
	// Acquire returns a network for a new sandbox, limited to so many bytes a
	// second in each direction.
	Acquire(ctx context.Context, bytesPerSecond int64) (Network, error)
}

// Runtimes finds what a runtime id is made of.
type Runtimes interface {
	Resolve(id string) (*runtimes.Runtime, error)
}

// Logs keeps log events. Append does not block for long.
type Logs interface {
	Append(group, stream string, events []logstore.Event) error
}

// Credentials issues the credentials that a function has of its role.
type Credentials interface {
	Issue(roleARN, sessionName string, ttl time.Duration) (credentials.Session, error)
}

// Meter keeps what invocations used. Record does not wait for the disk, and u must
// not change any more: the receipt tells when the usage is there, which its REPORT
// line waits for.
type Meter interface {
	Record(u *meter.Usage, r meter.Report) meter.Receipt
}

// Options configures a Worker. All fields above the blank line are required.
type Options struct {
	Driver      sandbox.Driver
	Networks    Networks
	Runtimes    Runtimes
	Logs        Logs
	Credentials Credentials
	Meter       Meter
	Logger      *slog.Logger

	// Sampler decides about the tracing of invocations that come without a
	// decision; nil means a new one.
	Sampler *trace.Sampler
	// Tracer makes spans of Init and invocations; nil: none.
	Tracer *otlp.Tracer
	// Snapshots keeps snapshots, from which environments start; nil: none is made.
	Snapshots *snapshot.Store
	// SnapshotsFirst lets a start wait until there is a snapshot, so that every
	// environment that can be a clone is one: for tests.
	SnapshotsFirst bool
	// BlanksFirst lets a first start wait until there is a snapshot of its runtime
	// alone, and has no others made or used, but with SnapStart: for tests.
	BlanksFirst bool
	// Standbys is how many clones may be loaded before somebody wants them.
	Standbys int
}

// Worker starts execution environments. It implements invoke.Starter.
type Worker struct {
	opts   Options
	log    *slog.Logger
	starts chan struct{} // bounds how many sandboxes boot at once
	turns  chan struct{} // bounds how many environments start at once; see turn

	snapshots *snapshots
	standbys  *standbys

	initTimeout  time.Duration
	maxProcesses int
}

// New returns a Worker.
func New(opts Options) *Worker {
	if opts.Sampler == nil {
		opts.Sampler = new(trace.Sampler)
	}
	w := &Worker{
		opts: opts,
		log:  opts.Logger,
		// Booting is work for the processor: more at once than it can do only
		// makes each of them later.
		starts: make(chan struct{}, 2*runtime.NumCPU()),
		turns:  make(chan struct{}, 2*runtime.NumCPU()),

		initTimeout: initTimeout, maxProcesses: maxProcesses,
	}
	w.snapshots = newSnapshots(w)
	w.standbys = newStandbys(w)
	return w
}

// Close ends what the worker does in the background. The environments are their
// users' to close.
func (w *Worker) Close() {
	w.snapshots.close()
	w.standbys.close()
}

// Start implements invoke.Starter.
func (w *Worker) Start(ctx context.Context, s invoke.Spec) (invoke.Environment, error) {
	end, err := w.turn(ctx, s)
	if err != nil {
		return nil, err
	}
	defer end()
	e, err := w.newEnvironment(s)
	if err != nil {
		return nil, err
	}
	if e.steps = timeline.From(ctx); e.steps == nil && w.opts.Tracer != nil {
		e.steps = new(timeline.Line) // for the spans below Init's
		ctx = timeline.With(ctx, e.steps)
	}
	e.endTurn = end
	err = e.init(ctx)
	if err == nil && !e.ready && s.Provisioned {
		err = invoke.ErrInit
	}
	if err != nil {
		e.Close()
		if errors.Is(err, sandbox.ErrNoCapacity) {
			err = fmt.Errorf("%w: %w", invoke.ErrNoCapacity, err)
		}
		return nil, err
	}
	return e, nil
}

// instance is a running sandbox and the connection to its guest program.
type instance struct {
	sandbox sandbox.Sandbox
	conn    *host.Conn // nil: it is on standby
	network Network
	kept    *snapshot.Use // that the sandbox was made from; nil: none
}

// boot makes the sandbox of an environment. One that breaks while it starts has
// seen nothing of the function, so another takes its place.
func (w *Worker) boot(ctx context.Context, e *environment) (*instance, error) {
	for n := 1; ; n++ {
		in, err := w.bootOnce(ctx, e)
		if err == nil || n == bootAttempts || ctx.Err() != nil || errors.Is(err, sandbox.ErrNoCapacity) {
			return in, err
		}
		w.log.Warn("a sandbox did not start", "function", e.v.ARN(), "environment", e.id, "error", err)
	}
}

func (w *Worker) bootOnce(ctx context.Context, e *environment) (*instance, error) {
	return w.make(ctx, e, w.opts.Driver.Create, host.New)
}

// make gives an environment a sandbox, which create makes, and connects to it.
func (w *Worker) make(ctx context.Context, e *environment, create func(context.Context, sandbox.Spec) (sandbox.Sandbox, error), connect func(net.Conn, host.Handler) *host.Conn) (*instance, error) {
	in, err := w.place(ctx, e, create)
	if errors.Is(err, sandbox.ErrNoCapacity) && w.standbys.giveUp() {
		in, err = w.place(ctx, e, create)
	}
	if err == nil {
		in.connect(e, connect)
	}
	return in, err
}

// place makes a sandbox for environments like e.
func (w *Worker) place(ctx context.Context, e *environment, create func(context.Context, sandbox.Spec) (sandbox.Sandbox, error)) (*instance, error) {
	slot := e.steps.Begin("wait for a start slot")
	select {
	case w.starts <- struct{}{}:
		defer func() { <-w.starts }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	slot()
	acquired := e.steps.Begin("network")
	network, err := w.opts.Networks.Acquire(ctx, bandwidth(e.v.MemoryMB))
	if err != nil {
		return nil, fmt.Errorf("network of %s: %w", e.v.ARN(), err)
	}
	acquired()
	e.boots++
	spec := e.spec(network)
	spec.ID = fmt.Sprintf("%s-%d", e.id, e.boots)
	created := e.steps.Begin("sandbox")
	sbx, err := create(ctx, spec)
	if err != nil {
		network.Release()
		return nil, fmt.Errorf("sandbox of %s: %w", e.v.ARN(), err)
	}
	created()
	return &instance{sandbox: sbx, network: network}, nil
}

// connect makes the instance that of an environment.
func (in *instance) connect(e *environment, connect func(net.Conn, host.Handler) *host.Conn) {
	in.conn = connect(in.sandbox.Conn(), e)
	e.log.subscribers.Store(in.conn)
}

// destroy kills what still runs and removes everything.
func (w *Worker) destroy(in *instance) {
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()
	if err := in.sandbox.Destroy(ctx); err != nil {
		w.log.Error("sandbox was not removed", "error", err)
	}
	if in.conn != nil {
		in.conn.Close()
	}
	in.network.Release()
	if in.kept != nil {
		in.kept.Release()
	}
}

// alive tells whether the sandbox still runs and can be spoken to. What runs in
// it is another question.
func (in *instance) alive() bool {
	select {
	case <-in.sandbox.Done():
		return false
	default:
	}
	if in.conn == nil {
		return true
	}
	select {
	case <-in.conn.Done():
		return false
	default:
		return true
	}
}
