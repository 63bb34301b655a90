// Package timeline records the steps of one piece of work, with the time when
// each began and what it took: the start of an execution environment, from the
// request that it is for to the reply. The parts that do the work find the
// record in their context and note their own steps in it.
//
// Most work has no record: all methods work on nil, and cost a comparison then.
package timeline

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Step is one step. The steps of a step are named below it, as in
// sandbox/kernel.
type Step struct {
	Name  string
	Began time.Time
	Took  time.Duration
}

// Parent returns the name of the step that s is a part of; empty: none.
func (s Step) Parent() string {
	i := strings.LastIndexByte(s.Name, '/')
	return s.Name[:max(i, 0)]
}

// Base returns the step's own name.
func (s Step) Base() string { return s.Name[strings.LastIndexByte(s.Name, '/')+1:] }

// Line is the record of one piece of work. It is safe for concurrent use. A nil
// Line records nothing.
type Line struct {
	mu    sync.Mutex
	steps []Step
}

// Add notes a step that is over.
func (l *Line) Add(name string, began, ended time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, Step{name, began, ended.Sub(began)})
}

// Begin begins a step, which the function that it returns ends. One that is not
// ended is not recorded.
func (l *Line) Begin(name string) (end func()) {
	if l == nil {
		return func() {}
	}
	began := time.Now()
	return func() { l.Add(name, began, time.Now()) }
}

// Laps records steps that follow one another: each begins where the one before
// has ended. It is for one goroutine at a time. A nil Laps records nothing.
type Laps struct {
	line   *Line
	prefix string
	began  time.Time
}

// Laps begins such steps now; prefix is put before their names.
func (l *Line) Laps(prefix string) *Laps {
	if l == nil {
		return nil
	}
	return &Laps{l, prefix, time.Now()}
}

// End ends the step that is under way.
func (l *Laps) End(name string) {
	if l != nil {
		l.EndAt(name, time.Now())
	}
}

// EndAt is End for a step that another process saw end. One that was over before
// the steps began, because it had been done ahead, is left out.
func (l *Laps) EndAt(name string, ended time.Time) {
	if l != nil && !ended.Before(l.began) {
		l.line.Add(l.prefix+name, l.began, ended)
		l.began = ended
	}
}

// Steps returns what has been recorded so far, by the time when it began, and a
// step before its parts.
func (l *Line) Steps() []Step {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	steps := slices.Clone(l.steps)
	slices.SortStableFunc(steps, func(a, b Step) int {
		return cmp.Or(a.Began.Compare(b.Began), strings.Count(a.Name, "/")-strings.Count(b.Name, "/"))
	})
	return steps
}

type contextKey struct{}

// With returns a context that carries l, or ctx itself if that is nil.
func With(ctx context.Context, l *Line) context.Context {
	if l == nil {
		return ctx
	}
	return context.WithValue(ctx, contextKey{}, l)
}

// From returns the record that ctx carries, or nil.
func From(ctx context.Context) *Line {
	l, _ := ctx.Value(contextKey{}).(*Line)
	return l
}
