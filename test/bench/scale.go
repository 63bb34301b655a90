package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

const (
	// burst is how many environments the scale-out starts from zero, and hold
	// how long each is busy, so that none serves two invocations.
	burst, hold = 50, 10 * time.Second
	// functions and callers are those of the mixed load.
	functions, callers = 20, 16
)

// scaleOut measures how fast a function comes from nothing to many environments:
// a burst of invocations that each need one of their own. Its floor is as many
// starts of a native program on this host.
func (b *bench) scaleOut(ctx context.Context) error {
	bootstrap, err := harness.Program("lapwing.dev/lapwing/test/bench/function")
	if err != nil {
		return err
	}
	if err := b.deploy(ctx, "burst", "provided.al2023", map[string]string{"bootstrap*": bootstrap, "hold": hold.String()}); err != nil {
		return err
	}
	began := time.Now()
	if err := sideBySide(burst, func() error {
		_, err := drive(ctx, b.server.Config(), b.invocations("burst"), 1, 0) // one request
		return err
	}); err != nil {
		return err
	}
	rate := burst / (time.Since(began) - hold).Seconds()
	began = time.Now()
	if err := sideBySide(burst, func() error { return exec.CommandContext(ctx, b.node, "-e", "0").Run() }); err != nil {
		return err
	}
	floor := burst / time.Since(began).Seconds()
	b.report.note("scale-out: %d invocations at once of a Go function that does not run and takes %v: %.1f environments a second; native node -e 0: %.1f processes a second; %.3f x", burst, hold, rate, floor, rate/floor)
	return nil
}

// sideBySide runs f so many times at once and returns the first error.
func sideBySide(n int, f func() error) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- f() }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// mixed measures a load that is spread over many functions at random, beside
// the same load on the bare server.
func (b *bench) mixed(ctx context.Context) error {
	urls := make([]string, functions)
	for i := range urls {
		name := fmt.Sprintf("mixed-%d", i)
		if err := b.deploy(ctx, name, nodeRuntime, map[string]string{"index.js": "exports.handler = async (event) => event;"}); err != nil {
			return err
		}
		urls[i] = b.invocations(name)
	}
	bare, err := startPrinting(bareNode, []string{b.node, "-e", nodeServer})
	if err != nil {
		return err
	}
	defer bare.stop()
	if _, err := b.spread(ctx, urls); err != nil { // warm up
		return err
	}
	var floor, own *load
	for range turns {
		f, err := b.spread(ctx, []string{bare.url})
		if err != nil {
			return err
		}
		l, err := b.spread(ctx, urls)
		if err != nil {
			return err
		}
		floor, own = floor.add(f), own.add(l)
	}
	cpus := float64(runtime.NumCPU())
	measure := fmt.Sprintf("%d callers of %d functions", callers, functions)
	b.report.sample(measure, bareNode, floorKind, floor)
	b.report.sample(measure, lapwing, ownKind, own)
	b.report.note("mixed load: Lapwing %.0f invocations a second and CPU, %.3f x the bare Node.js server", own.throughput()/cpus, own.throughput()/floor.throughput())
	return nil
}

// spread is one round of the mixed load: each caller takes a URL at random
// every few requests.
func (b *bench) spread(ctx context.Context, urls []string) (*load, error) {
	var mu sync.Mutex
	var sum *load
	began := time.Now()
	err := sideBySide(callers, func() error {
		for time.Since(began) < b.duration/turns {
			l, err := drive(ctx, b.server.Config(), urls[rand.IntN(len(urls))], 1, 10*time.Millisecond)
			if err != nil {
				return err
			}
			mu.Lock()
			sum = sum.add(l)
			mu.Unlock()
		}
		return nil
	})
	if err == nil {
		sum.elapsed = time.Since(began)
	}
	return sum, err
}
