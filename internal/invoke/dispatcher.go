package invoke

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

const (
	// DefaultAccountLimit is Lambda's default concurrency of an account in a
	// Region (Lambda quotas).
	DefaultAccountLimit = 1000
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
	// AccountLimit is the concurrency of the whole account; 0 means
	// DefaultAccountLimit.
	AccountLimit int
	// Reserved returns the sum of all functions' reserved concurrency, which
	// is taken off AccountLimit for the functions that have none. May be nil.
	Reserved func() int
	// IdleTimeout ends environments that had no work for so long; 0 means
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// Observer is told of concurrency as it changes. May be nil.
	Observer Observer
	Logger   *slog.Logger
}

// Dispatcher admits invocations and brings them to execution environments.
type Dispatcher struct {
	opts Options
	log  *slog.Logger

	ctx    context.Context // ends when environments must end
	cancel context.CancelFunc
	life   sync.RWMutex   // orders wg.Go, where it comes from outside, before the Wait of Close
	wg     sync.WaitGroup // every goroutine of the dispatcher

	unreserved atomic.Int64 // concurrency in use by functions without a reservation

	mu     sync.RWMutex
	homes  map[string]*home // by function ARN
	closed bool
}

// New returns a Dispatcher. Close ends it.
func New(opts Options) *Dispatcher {
	if opts.AccountLimit == 0 {
		opts.AccountLimit = DefaultAccountLimit
	}
	if opts.IdleTimeout == 0 {
		opts.IdleTimeout = DefaultIdleTimeout
	}
	if opts.Reserved == nil {
		opts.Reserved = func() int { return 0 }
	}
	if opts.Observer == nil {
		opts.Observer = noObserver{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Dispatcher{opts: opts, log: opts.Logger, homes: map[string]*home{}}
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
			return call.result, call.err
		case <-ctx.Done():
			close(call.left)
			return nil, ctx.Err()
		}
	}
}

// run drives one invocation to its end, whether or not the caller still waits.
func (d *Dispatcher) run(req *Request, call *Call) {
	var (
		env      *environment
		err      error
		reusable bool
	)
	defer func() {
		// A fault of the platform must neither leave the caller hanging nor
		// hand a broken environment to the next invocation.
		if r := recover(); r != nil {
			d.log.Error("invocation panicked", "requestId", req.RequestID, "panic", r, "stack", string(debug.Stack()))
		}
		call.Fail(errService(errors.New("the invocation ended without an answer"))) // no effect once answered
		if env != nil {
			env.home.release(env, reusable)
		}
	}()
	if env, err = d.acquire(req.Version); err != nil {
		call.Fail(err)
		return
	}
	call.onEnd = func() { env.home.answered(env) }
	reusable = env.Invoke(d.ctx, req, call)
}

func (d *Dispatcher) acquire(v *function.Version) (*environment, error) {
	for {
		h, err := d.home(v)
		if err != nil {
			return nil, err
		}
		env, err := h.acquire(v)
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
	d.mu.RLock()
	h := d.homes[functionARN]
	d.mu.RUnlock()
	if h != nil {
		h.retire(func(v *function.Version) bool { return version == "" || v.Version == version })
	}
}

// InUse returns the concurrency that a function uses now.
func (d *Dispatcher) InUse(functionARN string) int {
	d.mu.RLock()
	h := d.homes[functionARN]
	d.mu.RUnlock()
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inUse
}

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
		h.retire(func(*function.Version) bool { return true })
	}
	d.wg.Wait()
}

// spawn runs f in a goroutine of the dispatcher, unless that is past its end.
func (d *Dispatcher) spawn(f func()) bool {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.wg.Go(f)
	return true
}

// home returns the one place where the function of v is accounted for.
func (d *Dispatcher) home(v *function.Version) (*home, error) {
	arn := v.FunctionARN()
	d.mu.RLock()
	h, closed := d.homes[arn], d.closed
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
	if h = d.homes[arn]; h == nil {
		h = &home{d: d, arn: arn, pools: map[poolKey]*pool{}}
		d.homes[arn] = h
	}
	return h, nil
}

// reap ends idle environments whose time is over.
func (d *Dispatcher) reap() {
	t := time.NewTicker(max(d.opts.IdleTimeout/20, 10*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case now := <-t.C:
			for _, h := range d.snapshot() {
				if h.reap(now) {
					d.forget(h)
				}
			}
		}
	}
}

func (d *Dispatcher) forget(h *home) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.drop() {
		delete(d.homes, h.arn)
	}
}

// giveUpOne ends the environment that has been idle for longest, of whatever
// function, and waits until its room is free. It tells whether there was one.
func (d *Dispatcher) giveUpOne() bool {
	var oldest *home
	var since time.Time
	for _, h := range d.snapshot() {
		if t, ok := h.oldestIdle(); ok && (oldest == nil || t.Before(since)) {
			oldest, since = h, t
		}
	}
	return oldest != nil && oldest.giveUpOldest()
}

func (d *Dispatcher) snapshot() []*home {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.homes))
}
