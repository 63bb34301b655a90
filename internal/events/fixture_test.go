package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/state"
)

// memory is a store that a test looks into.
type memory struct {
	mu   sync.Mutex
	last uint64
	all  map[uint64]message
	fail func(op string) error // may be nil
}

type message struct {
	head    []byte
	payload []byte
}

func newMemory() *memory { return &memory{all: map[uint64]message{}} }

func (m *memory) do(op string) error {
	if m.fail == nil {
		return nil
	}
	return m.fail(op)
}

func (m *memory) Add(_ context.Context, h head, payload []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(h)
	if err := errors.Join(err, m.do("add")); err != nil {
		return 0, err
	}
	m.last++
	m.all[m.last] = message{b, payload}
	return m.last, nil
}

func (m *memory) Get(_ context.Context, id uint64) (h head, payload []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("get"); err != nil {
		return h, nil, err
	}
	msg, ok := m.all[id]
	if !ok {
		return h, nil, state.ErrNotFound
	}
	return h, msg.payload, json.Unmarshal(msg.head, &h)
}

func (m *memory) Remove(_ context.Context, id uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("remove"); err != nil {
		return err
	}
	delete(m.all, id)
	return nil
}

func (m *memory) Heads(_ context.Context, visit func(uint64, head) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.all)) {
		var h head
		if err := json.Unmarshal(m.all[id].head, &h); err != nil {
			return err
		}
		if err := visit(id, h); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all)
}

// run is one attempt as the function saw it.
type run struct {
	at      time.Time
	request *invoke.Request
}

// bench is a Queue on a fake clock with functions that behave as told.
type bench struct {
	*Queue
	t     *testing.T
	store *memory

	mu      sync.Mutex
	plans   map[Target]*Plan
	broken  error                                                                             // of Plan, where there is a plan; may be nil
	replies map[string]func(*invoke.Request) (response string, functionError bool, err error) // by function
	takes   time.Duration                                                                     // each run
	runs    []run
	counts  map[string]int // by method of Observer
	ages    []time.Duration
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t: t, store: newMemory(), plans: map[Target]*Plan{}, counts: map[string]int{},
		replies: map[string]func(*invoke.Request) (string, bool, error){},
	}
	b.open()
	return b
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.Queue, err = open(b.t.Context(), b.store, Options{Invoker: b, Observer: b}); err != nil {
		b.t.Fatal(err)
	}
	b.Start(b)
}

func (b *bench) close() { b.Close(context.Background()) }

// function makes a function and returns its plan, for the test to change.
func (b *bench) function(name string) *Plan {
	v := &function.Version{Account: "123456789012", Region: "eu-west-1", Name: name, Version: function.Latest}
	p := &Plan{Version: v, InvokedARN: v.FunctionARN(), RecordARN: v.ARN(), MaxAge: DefaultMaxAge, MaxRetries: DefaultMaxRetries}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plans[target(name)] = p
	return p
}

func target(name string) Target { return Target{Region: "eu-west-1", Function: name} }

func (b *bench) accept(name, id, payload string) {
	b.t.Helper()
	if err := b.Accept(b.t.Context(), &Event{Target: target(name), RequestID: id, Payload: []byte(payload)}); err != nil {
		b.t.Fatal(err)
	}
}

// Plan implements Functions.
func (b *bench) Plan(t Target) (*Plan, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.plans[t]
	if p == nil {
		return nil, fmt.Errorf("%v: %w", t, ErrNoFunction)
	}
	c := *p
	return &c, b.broken
}

// Invoke implements Invoker.
func (b *bench) Invoke(ctx context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
	b.mu.Lock()
	b.runs = append(b.runs, run{time.Now(), req})
	reply, takes := b.replies[req.Version.Name], b.takes
	b.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	response, failed, err := `"ok"`, false, error(nil)
	if reply != nil {
		response, failed, err = reply(req)
	}
	if err != nil {
		return nil, err
	}
	result := &invoke.Result{}
	if failed {
		result.FunctionError = "Unhandled"
	}
	_, err = io.WriteString(w, response)
	return result, err
}

// of returns the runs of a function.
func (b *bench) of(name string) (runs []run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.runs {
		if r.request.Version.Name == name {
			runs = append(runs, r)
		}
	}
	return runs
}

func (b *bench) count(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[what]++
}

func (b *bench) EventReceived(Target) { b.count("received") }
func (b *bench) EventAge(_ Target, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ages = append(b.ages, d)
}
func (b *bench) EventDropped(Target)      { b.count("dropped") }
func (b *bench) RecursionStopped(Target)  { b.count("recursion") }
func (b *bench) DeadLetterFailed(Target)  { b.count("dead letter failed") }
func (b *bench) DestinationFailed(Target) { b.count("destination failed") }

// after lets the fake clock run.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func throttle(*invoke.Request) (string, bool, error) {
	return "", false, &aws.Error{Code: "TooManyRequestsException", Status: 429, Message: "Rate Exceeded."}
}

func fail(*invoke.Request) (string, bool, error) {
	return `{"errorType":"Error","errorMessage":"broken"}`, true, nil
}

func decode(t *testing.T, b []byte) (r record) {
	t.Helper()
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return r
}
