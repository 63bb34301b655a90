package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

// lapwing is what Lapwing is called among the servers.
const lapwing = "Lapwing, Node.js"

// warm measures invocations of functions that are running, beside the floors and
// the peers.
func (b *bench) warm(ctx context.Context) error {
	if err := b.deploy(ctx, "echo", nodeRuntime, map[string]string{"index.js": echoFunction}); err != nil {
		return err
	}
	all, err := b.floors()
	if err != nil {
		return err
	}
	defer func() { stopAll(all) }()
	all = append(all, b.peers(ctx)...)
	all = append(all, server{name: lapwing, kind: ownKind, url: b.invocations("echo"), stop: func() {}})
	one, err := b.byTurns(ctx, all, 1)
	if err != nil {
		return err
	}
	var many []server
	for _, s := range all {
		if s.single {
			b.report.note("%s runs one invocation at a time: it has no part in the load of 32.", s.name)
			continue
		}
		many = append(many, s)
	}
	loads, err := b.byTurns(ctx, many, 32)
	if err != nil {
		return err
	}
	r := &b.report
	for i, results := range []map[string]*load{one, loads} {
		for _, s := range all {
			if l := results[s.name]; l != nil {
				r.sample([]string{warmLatency, warmLoad}[i], s.name, s.kind, l)
			}
		}
	}
	floor, own := one[bareNode], one[lapwing]
	r.atMost("warm invocation, concurrency 1, p50", "bare Node.js", floor.percentile(.5), own.percentile(.5), 2)
	r.atMost("warm invocation, concurrency 1, p99", "bare Node.js", floor.percentile(.99), own.percentile(.99), 2.5)
	rate, bare := loads[lapwing].throughput(), loads[bareNode].throughput()
	met := rate/bare >= .35
	r.Rows = append(r.Rows, row{"throughput at 32, a second", fmt.Sprintf("bare Node.js %.0f", bare), fmt.Sprintf("%.0f", rate), rate / bare, ">= 0.35 x", &met})
	return b.warmByWrk(ctx, slices.DeleteFunc(many, func(s server) bool { return s.kind == floorKind && s.name != bareNode }))
}

// warmByWrk measures the throughput once more, with a generator that takes less of the
// processors.
func (b *bench) warmByWrk(ctx context.Context, all []server) error {
	rates := map[string][]float64{}
	failed := map[string]bool{}
	for turn := range turns + 1 {
		for _, s := range all {
			if failed[s.name] {
				continue
			}
			rate, err := b.driveByWrk(ctx, s.url, 32, b.duration/turns)
			switch {
			case errors.Is(err, harness.ErrNoWrk):
				b.report.absent("throughput by wrk: %v", err)
				return nil
			case err != nil && s.kind == peerKind && ctx.Err() == nil:
				failed[s.name] = true
				b.report.absent("%s driven by wrk: %v", s.name, err)
			case err != nil:
				return fmt.Errorf("%s: %w", s.name, err)
			case turn > 0:
				rates[s.name] = append(rates[s.name], rate)
			}
			time.Sleep(20 * time.Millisecond) // lets what it left behind settle
		}
	}
	mean := func(name string) float64 {
		sum := 0.0
		for _, r := range rates[name] {
			sum += r
		}
		return sum / float64(max(1, len(rates[name])))
	}
	rate, bare := mean(lapwing), mean(bareNode)
	b.report.Rows = append(b.report.Rows, row{
		Measure: "the same, driven by wrk", Floor: fmt.Sprintf("bare Node.js %.0f", bare), Value: fmt.Sprintf("%.0f", rate), Ratio: rate / bare,
	})
	for _, s := range all {
		if s.kind == peerKind && !failed[s.name] {
			b.report.note("%s, 32 in flight, driven by wrk: %.0f a second.", s.name, mean(s.name))
		}
	}
	return nil
}

// byTurns drives all servers with so many requests in flight, in rounds, after
// one to warm up: as many environments as requests. A peer that fails is noted and
// has no result.
func (b *bench) byTurns(ctx context.Context, all []server, concurrency int) (map[string]*load, error) {
	results := map[string]*load{}
	failed := map[string]bool{}
	for turn := range turns + 1 {
		for _, s := range all {
			if failed[s.name] {
				continue
			}
			l, err := drive(ctx, b.server.Config(), s.url, concurrency, b.duration/turns)
			switch {
			case err != nil && s.kind == peerKind && ctx.Err() == nil:
				failed[s.name] = true
				delete(results, s.name)
				b.report.absent("%s with %d requests in flight: %v", s.name, concurrency, err)
			case err != nil:
				return nil, fmt.Errorf("%s: %w", s.name, err)
			case turn > 0:
				results[s.name] = results[s.name].add(l)
			}
			time.Sleep(20 * time.Millisecond) // lets what it left behind settle
		}
	}
	return results, nil
}
