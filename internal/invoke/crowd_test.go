package invoke

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// processors are the host's: so many threads for each want one.
type processors struct{ threads atomic.Int64 }

func (p *processors) Demand() (int, error) {
	if p.threads.Load() < 0 {
		return 0, errors.New("not known")
	}
	return int(p.threads.Load()) * runtime.NumCPU(), nil
}

// callers has so many callers invoke f n times each, one call after the other.
func callers(t *testing.T, d *Dispatcher, callers, n int) {
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range n {
				if _, err := invoke(d, version("f")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// startsOfMany counts the environments that are started for many callers at once of a
// function that has run for a while.
func startsOfMany(t *testing.T, threads int, cpuTime time.Duration) (started, many int) {
	s := &fakeStarter{startTime: 300 * time.Millisecond, runTime: 2 * time.Millisecond, cpuTime: cpuTime}
	var host processors
	host.threads.Store(int64(threads))
	many = 16 * runtime.NumCPU()
	scenario(t, s, Options{Processors: &host}, func(t *testing.T, d *Dispatcher) {
		callers(t, d, (3*runtime.NumCPU()+1)/2, 50)
		callers(t, d, many, 50)
		started, _ = s.counts()
	})
	return started, many
}

func TestFunctionThatComputesGetsNoMoreEnvironmentsThanTheProcessorsAreGoodFor(t *testing.T) {
	if started, _ := startsOfMany(t, 4, time.Millisecond); started > 2*runtime.NumCPU() {
		t.Errorf("%d environments on %d processors", started, runtime.NumCPU())
	}
}

func TestEnvironmentsThatDoNotCompeteForProcessorsAreAsManyAsRequests(t *testing.T) {
	tests := map[string]struct {
		threads int
		cpuTime time.Duration
	}{
		"the function waits for something else":    {4, 10 * time.Microsecond},
		"processors are free":                      {0, time.Millisecond},
		"nobody knows whether processors are free": {-1, time.Millisecond},
		"nobody knows what the function takes":     {4, 0},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			if started, many := startsOfMany(t, c.threads, c.cpuTime); started < many*3/4 {
				t.Errorf("%d environments for %d callers", started, many)
			}
		})
	}
}

func TestWhoWaitsForAnEnvironmentThatStaysBusyGetsAnother(t *testing.T) {
	s := &fakeStarter{startTime: time.Second, cpuTime: time.Millisecond}
	release := make(chan struct{})
	var hang atomic.Bool
	s.work = func(*fakeEnv, *Request) {
		if time.Sleep(2 * time.Millisecond); hang.Load() {
			<-release
		}
	}
	var host processors
	host.threads.Store(4)
	busy := (3*runtime.NumCPU() + 1) / 2
	scenario(t, s, Options{Processors: &host}, func(t *testing.T, d *Dispatcher) {
		release = make(chan struct{}) // of the bubble
		host.threads.Store(0)
		callers(t, d, busy+1, 100)
		host.threads.Store(4)
		callers(t, d, busy, 50)
		hang.Store(true)
		var wg sync.WaitGroup
		wg.Go(func() { callers(t, d, busy, 1) })
		time.Sleep(5 * time.Millisecond)
		hang.Store(false)
		began := time.Now()
		if _, err := invoke(d, version("f")); err != nil { // served by the one that is idle
			t.Error(err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("waited for %v beside an idle environment", took)
		}
		close(release)
		wg.Wait()
	})
}
