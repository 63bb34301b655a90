package invoke

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/trace"
	"lapwing.dev/lapwing/internal/trace/otlp"
)

const (
	// DefaultIdleTimeout is how long an environment waits for work.
	DefaultIdleTimeout = 10 * time.Minute
	// maxLifetime ends environments whatever their use, as Lambda does every
	// few hours; it is shorter than the life of their role's credentials.
	maxLifetime = 8 * time.Hour
	// finishGrace is how long an invocation waits for an environment that has
	// answered its caller and is about to ask for work, before another one is
	// started. It is far shorter than any start.
	finishGrace = 10 * time.Millisecond
	// throttleGrace is the same where the alternative is a 429.
	throttleGrace = 100 * time.Millisecond
)

// Options configures a Dispatcher. Starter is required.
type Options struct {
	Starter Starter
	// AccountLimit is the concurrency of the account in each Region; 0 means
	// DefaultAccountLimit.
	AccountLimit int
	// IdleTimeout ends environments that had no work for so long; 0 means
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// Memory is the host's; when less than MemoryLow bytes of it are available,
	// idle environments are given up. May be nil.
	Memory    Memory
	MemoryLow int64
	// Processors tells how busy the host is. May be nil.
	Processors Processors
	// Observer is told of concurrency as it changes. May be nil.
	Observer Observer
	Logger   *slog.Logger
	// Tracer makes spans of the waits for an environment. May be nil.
	Tracer *otlp.Tracer
}

// Dispatcher admits invocations and brings them to execution environments.
type Dispatcher struct {
	opts Options
	log  *slog.Logger

	ctx    context.Context // ends when environments must end
	cancel context.CancelFunc
	life   sync.RWMutex   // orders wg.Go, where it comes from outside, before the Wait of Close
	wg     sync.WaitGroup // every goroutine of the dispatcher

	began  time.Time
	demand *demand
	ahead  chan struct{} // bounds how many provisioned environments start at once

	mu       sync.RWMutex
	homes    map[string]*home    // by function ARN
	accounts map[string]*account // by Region
	closed   bool
}

// New returns a Dispatcher. Close ends it.
func New(opts Options) *Dispatcher {
	if opts.AccountLimit == 0 {
		opts.AccountLimit = DefaultAccountLimit
	}
	if opts.IdleTimeout == 0 {
		opts.IdleTimeout = DefaultIdleTimeout
	}
	if opts.Observer == nil {
		opts.Observer = noObserver{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Dispatcher{
		opts: opts, log: opts.Logger, began: time.Now(), demand: newDemand(opts.Processors),
		ahead: make(chan struct{}, max(4, runtime.NumCPU())),
		homes: map[string]*home{}, accounts: map[string]*account{},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wg.Go(d.reap)
	return d
}

// Invoke runs req and writes the response, or the error payload, to w; it
// returns when the caller may have its answer. A writer that is a Beginner is
// told first when a streamed response begins. When ctx ends first, Invoke
// returns its error and does not touch w any more, while the function runs on.
// Throttles and other refusals are *aws.Error.
func (d *Dispatcher) Invoke(ctx context.Context, req *Request, w io.Writer) (*Result, error) {
	if req.After != nil && !req.Streaming {
		return d.attend(req, w)
	}
	call := newCall()
	if !d.spawn(func() { d.run(req, call) }) {
		return nil, errClosing()
	}
	for {
		select {
		case p := <-call.data:
			if err := p.writeTo(w); err != nil {
				w = io.Discard // a broken caller must not disturb the function
			}
		case <-call.done:
			return call.answer(w)
		case <-ctx.Done():
			close(call.left)
			return nil, ctx.Err()
		}
	}
}

// run drives one invocation to its end, whether or not the caller still waits.
func (d *Dispatcher) run(req *Request, call *Call) {
	i := &invocation{d: d, req: req, call: call}
	i.begin()
	i.end()
}

// smallAnswer is the largest response, in bytes, that surely leaves at once, so
// that what is left of its invocation can wait for that.
const smallAnswer = 16 << 10

// attend is Invoke in the caller's goroutine.
func (d *Dispatcher) attend(req *Request, w io.Writer) (*Result, error) {
	if !d.enter() {
		return nil, errClosing()
	}
	i := &invocation{d: d, req: req, call: new(Call)}
	i.begin()
	end := func() {
		defer d.wg.Done()
		i.end()
	}
	switch {
	case i.ending.Waits && i.call.ended:
		go end()
	case i.call.ended && len(i.call.last) <= smallAnswer && !i.wanted:
		req.After(end)
	default:
		end()
	}
	return i.call.answer(w)
}

// invocation is one on its way.
type invocation struct {
	d      *Dispatcher
	req    *Request
	call   *Call
	env    *environment // nil: it never had one, or has given it back
	ending Ending
	wanted bool // others waited for its environment when it answered
}

// begin runs it until its response is complete.
func (i *invocation) begin() {
	defer i.recover()
	env, err := i.d.queue(i.req)
	if err != nil {
		i.call.Fail(err)
		return
	}
	i.env = env
	i.call.onEnd = func() { i.wanted = env.home.answered(env) }
	i.ending = env.Invoke(i.d.ctx, i.req, i.call)
}

// end runs what is left of it, and gives its environment back.
func (i *invocation) end() {
	reusable := false
	defer func() {
		if !i.call.ended {
			i.call.Fail(errService(errors.New("the invocation ended without an answer")))
		}
		if i.env != nil {
			i.env.home.release(i.env, reusable)
		}
	}()
	defer i.recover()
	if i.ending.Run != nil {
		reusable = i.ending.Run()
	}
}

// recover sees to it that a fault of the platform neither leaves the caller
// hanging nor hands a broken environment to the next invocation.
func (i *invocation) recover() {
	if r := recover(); r != nil {
		i.d.log.Error("invocation panicked", "requestId", i.req.RequestID, "panic", r, "stack", string(debug.Stack()))
	}
}

// queue is acquire, and makes a span of it.
func (d *Dispatcher) queue(req *Request) (*environment, error) {
	if d.opts.Tracer == nil {
		return d.acquire(req)
	}
	span := d.opts.Tracer.Start(trace.Parse(req.TraceID), otlp.Internal, "queue "+req.Version.Name)
	defer span.End()
	env, err := d.acquire(req)
	if e, ok := errors.AsType[*aws.Error](err); ok {
		span.Fail(e.Code)
	}
	return env, err
}

func (d *Dispatcher) acquire(req *Request) (*environment, error) {
	for {
		h, err := d.home(req.Version.FunctionARN())
		if err != nil {
			return nil, err
		}
		env, err := h.acquire(req)
		if !errors.Is(err, errGone) {
			return env, err
		}
	}
}

// Retire ends the environments of a function, or of one of its versions where
// version is not empty: idle ones now, busy ones when their invocation is over.
func (d *Dispatcher) Retire(functionARN, version string) {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.ctx.Err() != nil {
		return // Close ends everything
	}
	if h := d.find(functionARN); h != nil {
		h.retire(version)
	}
}

// Configure sets the concurrency of a function. It takes effect at once for
// what is admitted next; the environments that are to be provisioned start by
// and by, and Allocation tells how far they are.
func (d *Dispatcher) Configure(functionARN string, l Limits) {
	d.life.RLock()
	defer d.life.RUnlock()
	for d.ctx.Err() == nil {
		h := d.find(functionARN)
		if h == nil && l.Reserved == nil && len(l.Provisioned) == 0 {
			return // as it is
		}
		var err error
		if h == nil {
			if h, err = d.home(functionARN); err != nil {
				return // closing
			}
		}
		if err = h.configure(l); !errors.Is(err, errGone) {
			return
		}
	}
}

// Allocation tells what has become of the provisioned concurrency of a version
// with this revision.
func (d *Dispatcher) Allocation(v *function.Version) AllocationStatus {
	h := d.find(v.FunctionARN())
	if h == nil {
		return AllocationStatus{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if pr := h.provisions[keyOf(v, "")]; pr != nil {
		return pr.status()
	}
	return AllocationStatus{}
}

// InUse returns the concurrency that a function uses now.
func (d *Dispatcher) InUse(functionARN string) int {
	h := d.find(functionARN)
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inUse
}

// clock returns the time since d began, which never goes back.
func (d *Dispatcher) clock() time.Duration { return time.Since(d.began) }

// Close admits nothing more, waits for the invocations under way until ctx
// ends, and then ends all environments.
func (d *Dispatcher) Close(ctx context.Context) {
	d.mu.Lock()
	d.closed = true
	homes := slices.Collect(maps.Values(d.homes))
	d.mu.Unlock()
	for _, h := range homes {
		h.drain(ctx)
	}
	d.life.Lock()
	d.cancel()
	d.life.Unlock()
	// What is busy or starting ends by itself from now on.
	for _, h := range d.snapshot() {
		h.close()
	}
	d.wg.Wait()
}

// spawn runs f in a goroutine of the dispatcher, unless that is past its end.
func (d *Dispatcher) spawn(f func()) bool {
	d.life.RLock()
	defer d.life.RUnlock()
	return d.fork(f)
}

// enter makes Close wait for the caller, until that calls d.wg.Done, unless the
// dispatcher is past its end.
func (d *Dispatcher) enter() bool {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.wg.Add(1)
	return true
}

// fork is spawn for those who are in a goroutine of the dispatcher, or hold
// d.life: Close waits for them, and so for f.
func (d *Dispatcher) fork(f func()) bool {
	if d.ctx.Err() != nil {
		return false
	}
	d.wg.Go(f)
	return true
}

// find returns the home of a function, or nil.
func (d *Dispatcher) find(functionARN string) *home {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.homes[functionARN]
}

// home returns the one place where a function is accounted for.
func (d *Dispatcher) home(functionARN string) (*home, error) {
	d.mu.RLock()
	h, closed := d.homes[functionARN], d.closed
	d.mu.RUnlock()
	if closed {
		return nil, errClosing()
	}
	if h != nil {
		return h, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosing()
	}
	if h = d.homes[functionARN]; h == nil {
		h = &home{
			d: d, arn: functionARN, account: d.account(regionOf(functionARN)),
			pools: map[poolKey]*pool{}, provisions: map[poolKey]*provision{},
		}
		d.homes[functionARN] = h
	}
	return h, nil
}

// account returns the account's concurrency in a Region. d.mu is held.
func (d *Dispatcher) account(region string) *account {
	a := d.accounts[region]
	if a == nil {
		a = &account{limit: int64(d.opts.AccountLimit)}
		d.accounts[region] = a
	}
	return a
}

// regionOf returns the Region in an ARN.
func regionOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 5); len(parts) == 5 {
		return parts[3]
	}
	return ""
}

func (d *Dispatcher) snapshot() []*home {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.homes))
}
