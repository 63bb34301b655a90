// Command bench measures Lapwing's speed, and prints it as ratios to floors that
// are measured in the same run: bare HTTP servers of Node.js, Python and Go that
// echo the same 1 KB of JSON, and native starts of the same interpreters. Beside
// it stand peers that a registry holds, where `scripts/setup bench` could install
// them. All take turns, so that whatever else this host does weighs on all alike.
// `make bench` runs it, as root; docs/performance.md explains what it prints.
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
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

// nodeRuntime is the runtime of the Node.js functions, whose interpreter runs the
// floor and the peers too.
const nodeRuntime = "nodejs22.x"

// memory of the functions under test: one full vCPU.
const memoryMB = 1769

// collectAt is by how much, in percent, this program's heap grows before it is
// collected. It is small: at Go's 100 that is twenty times a second under a load, and
// what the slowest hundredth of the requests told of was the generator.
const collectAt = 2000

// options are what the command line says.
type options struct {
	duration time.Duration
	rounds   int
	burst    int
	only     string
	json     string
	svg      string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "of each load")
	flag.IntVar(&o.rounds, "rounds", 10, "of starts: each has one first start and five of what is quicker")
	flag.IntVar(&o.burst, "burst", 200, "simultaneous requests of a function that does not run")
	flag.StringVar(&o.only, "only", "", "measure some, separated by commas: "+strings.Join(names(), ", ")+"; those in the table when empty")
	flag.StringVar(&o.json, "json", "", "write all results to `FILE`")
	flag.StringVar(&o.svg, "svg", "", "draw the distributions into `FILE`")
	flag.Parse()
	debug.SetGCPercent(collectAt)
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// part is one part of the run.
type part struct {
	name  string
	table bool // it is a part of the table
	run   func(*bench, context.Context) error
}

var parts = []part{
	{"server", true, (*bench).memoryOfServer},
	{"warm", true, (*bench).warm},
	{"starts", true, (*bench).starts},
	{"burst", true, (*bench).coldBurst},
	{"clones", true, (*bench).memoryOfClones},
	{"edgefunction", true, (*bench).edgeFunction},
	{"image", false, (*bench).image},
	{"scaleout", false, (*bench).scaleOut},
	{"mixed", false, (*bench).mixed},
}

func names() (all []string) {
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

// wanted are the parts to run.
func (o options) wanted() ([]part, error) {
	only := strings.Split(o.only, ",")
	var wanted []part
	for _, p := range parts {
		if p.table && o.only == "" || slices.Contains(only, p.name) {
			wanted = append(wanted, p)
		}
	}
	if o.only != "" && len(wanted) != len(only) {
		return nil, fmt.Errorf("-only %s: the parts are %s", o.only, strings.Join(names(), ", "))
	}
	return wanted, nil
}

// bench is one run.
type bench struct {
	options
	server *harness.Server
	node   string // the interpreters
	python string // empty: there is none
	dir    string
	report report
}

func run(ctx context.Context, o options) (err error) {
	wanted, err := o.wanted()
	if err != nil {
		return err
	}
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
	b := &bench{options: o, server: s, dir: dir}
	if b.node, err = s.Interpreter(nodeRuntime); err != nil {
		return err
	}
	for _, runtime := range pythonRuntimes {
		if b.python, err = s.Interpreter(runtime); err == nil {
			break
		}
	}
	b.report = report{Version: 1, Began: time.Now(), CPUs: runtime.NumCPU(), MemoryMB: memoryMB}
	fmt.Printf("%d CPUs, functions of %d MB, %v a load, 1 KB of JSON each way, SigV4 in all requests\n", runtime.NumCPU(), memoryMB, o.duration)
	for _, p := range wanted {
		began := time.Now()
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w\nserver:\n%s", p.name, err, s.Log())
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %v\n", p.name, time.Since(began).Round(time.Second))
	}
	b.report.print(os.Stdout)
	if o.json != "" {
		if err := harness.WriteJSON(o.json, &b.report); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return os.WriteFile(o.svg, b.report.picture(), 0o644)
	}
	return nil
}
