package invoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/function"
)

// load is a random load on a dispatcher over a host that fails at random.
type load struct {
	t     *testing.T
	d     *Dispatcher
	audit *audit

	mu  sync.Mutex // of rng
	rng *rand.Rand

	limit     int  // of the account
	fluctuate bool // reservations change meanwhile
	revisions map[string]int
	calls     sync.WaitGroup
}

func (l *load) below(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.IntN(n)
}

func (l *load) millis(n int) time.Duration { return time.Duration(l.below(n)) * time.Millisecond }

var errLuck = errors.New("no luck")

// host is where environments start slowly, fail to, run and crash.
func (l *load) host() *fakeStarter {
	s := &fakeStarter{startTime: 50 * time.Millisecond, tail: 2 * time.Millisecond, capacity: 6 + l.below(30)}
	s.closeTime = l.millis(20)
	s.work = func(e *fakeEnv, _ *Request) {
		time.Sleep(l.millis(100))
		if l.below(12) == 0 {
			e.Close() // it crashes
		}
	}
	s.fails = func(spec Spec) error {
		switch {
		case l.below(10) > 0:
			return nil
		case spec.Provisioned && l.below(2) == 0:
			return ErrInit
		}
		return errLuck
	}
	return s
}

// functions of the load; those of the last one's invocations have tenants.
const functions = 4

func (l *load) version(i int) *function.Version {
	v := version(fmt.Sprint("f", i))
	if l.below(2) == 0 {
		v.Version = "1"
	} else {
		v.Revision = fmt.Sprint(l.revisions[v.Name])
	}
	return v
}

func (l *load) call() {
	i := l.below(functions)
	req := &Request{Version: l.version(i), RequestID: "r", Asynchronous: l.below(2) == 0}
	if i == functions-1 {
		req.TenantID = string(rune('a' + l.below(3)))
	}
	patience := time.Hour
	if l.below(4) == 0 {
		patience = l.millis(200)
	}
	l.calls.Go(func() {
		ctx, cancel := context.WithTimeout(l.t.Context(), patience)
		defer cancel()
		_, err := l.d.Invoke(ctx, req, &bytes.Buffer{})
		if _, refused := errors.AsType[*aws.Error](err); err != nil && !refused && ctx.Err() == nil {
			l.t.Errorf("invocation: %v", err)
		}
	})
}

// configure gives a function limits that AWS would admit.
func (l *load) configure(i int, reserve bool) {
	arn := version(fmt.Sprint("f", i)).FunctionARN()
	limits := Limits{Reserved: l.audit.reserved[arn]}
	if reserve {
		limits.Reserved = nil
		if l.below(2) == 0 {
			n := l.below(l.limit / functions)
			limits.Reserved = &n
		}
	}
	most := l.limit / functions / 2
	if limits.Reserved != nil {
		most = *limits.Reserved
	}
	if n := l.below(most + 1); n > 0 && i < functions-1 {
		v := version(fmt.Sprint("f", i))
		v.Version = "1"
		limits.Provisioned = []Allocation{{Version: v, Count: n, Token: fmt.Sprint(l.below(1e9))}}
	}
	l.audit.configuring(arn, limits.Reserved)
	l.d.Configure(arn, limits)
	l.audit.configured(arn, limits.Reserved)
}

func (l *load) step() {
	time.Sleep(l.millis(8))
	switch l.below(40) {
	case 0:
		l.configure(l.below(functions), l.fluctuate)
	case 1: // an update
		v := version(fmt.Sprint("f", l.below(functions)))
		l.revisions[v.Name]++
		l.d.Retire(v.FunctionARN(), v.Version)
	case 2:
		time.Sleep(l.millis(500))
	default:
		l.call()
	}
}

// Whatever happens, every call is answered, no environment runs two invocations
// or those of two tenants or revisions, no limit is exceeded, what is
// provisioned comes up, and in the end nothing is left.
func TestRandomLoadKeepsTheInvariants(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runLoad(t, seed) })
		})
	}
}

func runLoad(t *testing.T, seed uint64) {
	l := &load{t: t, rng: rand.New(rand.NewPCG(seed, 1)), revisions: map[string]int{}, fluctuate: seed%2 == 1}
	l.limit = 8 + l.below(24)
	l.audit = newAudit(t, l.limit, !l.fluctuate)
	host := l.host()
	l.d = New(Options{Starter: host.starter(t), AccountLimit: l.limit, IdleTimeout: 200 * time.Millisecond, Observer: l.audit})
	for i := range functions {
		l.configure(i, true)
	}
	l.audit.begin()
	for range 300 {
		l.step()
	}
	l.calls.Wait()

	// With a host that is well again, what is provisioned is there.
	host.mu.Lock()
	host.capacity, host.fails = 0, nil
	host.mu.Unlock()
	time.Sleep(5 * time.Minute)
	for _, h := range l.d.snapshot() {
		h.mu.Lock()
		for _, pr := range h.provisions {
			s := pr.status()
			if s.State != Failed && (s.State != Ready || s.Allocated != pr.want || s.Available != pr.want) {
				t.Errorf("%s: %+v, want %d ready", h.arn, s, pr.want)
			}
		}
		h.mu.Unlock()
	}
	for i := range functions {
		l.d.Configure(version(fmt.Sprint("f", i)).FunctionARN(), Limits{})
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for _, h := range l.d.snapshot() {
		t.Errorf("function home left: %s", h.arn)
	}
	if a := l.d.accounts["us-east-1"]; a.claimed.Load() != 0 || a.reserved.Load() != 0 {
		t.Errorf("%d units claimed and %d reserved in the end", a.claimed.Load(), a.reserved.Load())
	}
	if _, live := host.counts(); live != 0 {
		t.Errorf("%d environments left", live)
	}
	l.audit.end()
	l.d.Close(t.Context())
}

// audit is an Observer that knows the limits.
type audit struct {
	t       *testing.T
	limit   int
	account bool // whether the account's limit can be checked: reservations are fixed

	mu        sync.Mutex
	began     bool
	reserved  map[string]*int // as configured last
	either    map[string]*int // as configured before, while that changes
	demand    map[string]int  // invocations on demand, by function
	allocated map[string]int  // provisioned environments, by function
	busy      map[string]int  // of these
}

func newAudit(t *testing.T, limit int, account bool) *audit {
	return &audit{
		t: t, limit: limit, account: account,
		reserved: map[string]*int{}, either: map[string]*int{},
		demand: map[string]int{}, allocated: map[string]int{}, busy: map[string]int{},
	}
}

func (a *audit) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.began = true
}

func (a *audit) configuring(arn string, n *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.either[arn], a.reserved[arn] = a.reserved[arn], n
}

func (a *audit) configured(arn string, n *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.either[arn] = n
}

func (a *audit) Admitted(req *Request, by Served) {
	a.mu.Lock()
	defer a.mu.Unlock()
	arn := req.Version.FunctionARN()
	if by == Provisioned {
		a.busy[arn]++
		if a.busy[arn] > a.allocated[arn] {
			a.t.Errorf("%d invocations in %d provisioned environments", a.busy[arn], a.allocated[arn])
		}
		return
	}
	a.demand[arn]++
	was, is := a.either[arn], a.reserved[arn]
	if was != nil && is != nil && a.demand[arn]+a.allocated[arn] > max(*was, *is) {
		a.t.Errorf("%d on demand and %d provisioned, %d reserved", a.demand[arn], a.allocated[arn], *is)
	}
	a.check()
}

// check checks the account's limit.
func (a *audit) check() {
	if !a.account || !a.began {
		return
	}
	used, reserved := 0, 0
	for i := range functions {
		arn := version(fmt.Sprint("f", i)).FunctionARN()
		if r := a.reserved[arn]; r != nil {
			reserved += *r
		} else {
			used += a.demand[arn] + a.allocated[arn]
		}
	}
	if used > a.limit-reserved {
		a.t.Errorf("%d of the account's %d in use, with %d reserved", used, a.limit, reserved)
	}
}

func (a *audit) Released(req *Request, by Served) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if by == Provisioned {
		a.busy[req.Version.FunctionARN()]--
	} else {
		a.demand[req.Version.FunctionARN()]--
	}
}

func (a *audit) Throttled(*Request, string) {}

func (a *audit) Allocated(v *function.Version, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.allocated[v.FunctionARN()] += n
	a.check()
}

func (a *audit) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range []map[string]int{a.demand, a.allocated, a.busy} {
		for arn, n := range m {
			if n != 0 {
				a.t.Errorf("%s: %d not released", arn, n)
			}
		}
	}
}
