// Command bench measures Lapwing's speed and prints it as ratios to a floor
// measured in the same run: a bare Node.js HTTP server that echoes the same
// 1 KB of JSON, driven by the same load generator, which signs its requests in
// both cases. `make bench` runs it, as root.
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
	"syscall"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

// nodeRuntime is the runtime of the functions and of the floor.
const nodeRuntime = "nodejs22.x"

// memory of the functions under test: one full vCPU.
const memoryMB = 1769

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	duration := flag.Duration("duration", 5*time.Second, "of each load")
	colds := flag.Int("colds", 10, "cold starts per runtime")
	only := flag.String("only", "", "measure one thing: server, warm, cold, image, scaleout, mixed or environments")
	flag.Parse()
	if err := run(ctx, *duration, *colds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, duration time.Duration, colds int, only string) (err error) {
	dir, err := os.MkdirTemp("", "lapwing-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	if err := harness.AddRuntimes(data, nodeRuntime); err != nil {
		return err
	}
	s, err := harness.Start(data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	node, err := s.Interpreter(nodeRuntime)
	if err != nil {
		return err
	}
	b := &bench{server: s, node: node, dir: dir, duration: duration, colds: colds}
	fmt.Printf("%d CPUs, functions of %d MB, %v a load, 1 KB of JSON each way, SigV4 in all requests\n\n", runtime.NumCPU(), memoryMB, duration)
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{{"server", b.memoryOfServer}, {"warm", b.warm}, {"cold", b.cold}, {"image", b.image},
		{"scaleout", b.scaleOut}, {"mixed", b.mixed}, {"environments", b.memoryOfEnvironments}} {
		if only != "" && only != step.name {
			continue
		}
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w\nserver:\n%s", step.name, err, s.Log())
		}
	}
	return nil
}

// bench is one run.
type bench struct {
	server   *harness.Server
	node     string // the interpreter
	dir      string
	duration time.Duration
	colds    int
}

// goal prints a result and whether it meets what we aim at.
func goal(name string, value float64, format, aim string, met bool) {
	verdict := "met"
	if !met {
		verdict = "MISSED"
	}
	fmt.Printf("  %-46s "+format+"   (aim: %s: %s)\n", name, value, aim, verdict)
}
