package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// coldBurst measures many requests at once of a function that does not run. From
// a snapshot, where there is one.
func (b *bench) coldBurst(ctx context.Context) error {
	const name = "burst-cold"
	if err := b.deploy(ctx, name, nodeRuntime, map[string]string{"index.js": echoFunction}); err != nil {
		return err
	}
	from := "first start"
	// These leave no environment behind.
	restored, err := b.snapshotted(ctx, name)
	if err != nil {
		return err
	}
	if restored {
		from = "from a snapshot"
	}
	b.settle(ctx)
	var single []time.Duration
	for range quickStarts {
		took, _, err := b.start(ctx, name, true)
		if err != nil {
			return err
		}
		single = append(single, took)
	}
	b.settle(ctx)
	var mu sync.Mutex
	var times []time.Duration
	began := time.Now()
	if err := sideBySide(b.burst, func() error {
		l, err := drive(ctx, b.server.Config(), b.invocations(name), 1, 0) // one request
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		times = append(times, l.latencies...)
		return nil
	}); err != nil {
		return err
	}
	all := loadOf(times)
	all.elapsed = time.Since(began)
	b.report.sample(burstTimes, fmt.Sprintf("Lapwing, Node.js, %s", from), ownKind, all)
	one := loadOf(single).percentile(.5)
	floor := one * time.Duration(b.burst) / time.Duration(runtime.NumCPU())
	b.report.atMost(fmt.Sprintf("%d simultaneous cold requests, p99", b.burst), fmt.Sprintf("%s x %d/%d", short(one), b.burst, runtime.NumCPU()), floor, all.percentile(.99), 1.2)
	return nil
}
