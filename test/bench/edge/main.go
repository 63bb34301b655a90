// Command edge measures the speed of an edge location beside nginx, Varnish and
// HAProxy: hits of small and larger objects over HTTP/1.1 and over HTTP/2 with TLS,
// with the throughput, the 99th percentile and the CPU time a request costs the
// server; and storms of viewers who want one object that is not there, cacheable or
// not; and whether each keeps the rules of caching that the RFCs have for shared
// caches. All have the same origin and the same load generators (wrk, h2load), and take
// turns, so that whatever else this host does weighs on all alike. The figure that
// holds on a busy machine is the CPU time. With -front it measures nothing, and has
// the servers stand before somebody else's origin, for tests of caches that others
// wrote.
//
// `make bench` runs it after the other benchmark, as root; peers and generators come
// from Debian by `scripts/setup bench`, and those that are not there are said.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

type options struct {
	duration time.Duration
	rounds   int
	only     string
	json     string
	rules    string
	front    int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "of each load")
	flag.IntVar(&o.rounds, "rounds", 3, "of loads, of which the median counts")
	flag.StringVar(&o.only, "only", "", "measure some, separated by commas: "+strings.Join(partNames(), ", "))
	flag.StringVar(&o.json, "json", "", "write all results to `FILE`")
	flag.StringVar(&o.rules, "rules", "", "write what came of the rules of caching to `FILE`, as Markdown")
	flag.IntVar(&o.front, "front", 0, "measure nothing: put all servers before the origin at this `PORT` of 127.0.0.1, which alone says how long its answers last, and wait for an interrupt")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"h1", (*bench).http1},
	{"h2", (*bench).http2},
	{"storms", (*bench).storms},
	{"rules", (*bench).conformance},
}

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// bench is one run.
type bench struct {
	options
	dir     string
	origin  *origin
	servers []*server
	report  report
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "lapwing-bench-edge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir, report: report{Version: 1, Began: time.Now(), CPUs: runtime.NumCPU()}}
	if o.front != 0 {
		b.origin = &origin{port: o.front}
	} else if b.origin, err = startOrigin(); err != nil {
		return err
	}
	defer b.origin.close()
	lapwing, err := b.startLapwing(ctx)
	if err != nil {
		return fmt.Errorf("lapwing: %w", err)
	}
	b.servers = append(b.servers, lapwing)
	defer func() {
		for _, s := range b.servers {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, p := range peers {
		dir := filepath.Join(dir, p.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		s, err := p.start(b, ctx, dir)
		if err != nil {
			b.report.Absent = append(b.report.Absent, fmt.Sprintf("%s: %v", p.name, err))
			continue
		}
		b.servers = append(b.servers, s)
	}
	if o.front != 0 {
		for _, s := range b.servers {
			fmt.Printf("%s\thttp://%s:%d\tat 127.0.0.1:%d\n", s.name, s.host, s.plain, s.plain)
		}
		<-ctx.Done()
		return nil
	}
	fmt.Printf("%d CPUs, %d rounds of %v, medians; CPU is that of the server and its processes\n", runtime.NumCPU(), o.rounds, o.duration)
	for _, p := range parts {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), p.name) {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.report.print(os.Stdout)
	if o.json != "" {
		return harness.WriteJSON(o.json, &b.report)
	}
	return nil
}
