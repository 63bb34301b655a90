package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"lapwing.dev/lapwing/test/harness"
)

const (
	// quickStarts is how many starts from a snapshot, and native ones, go to one
	// first start: they are quicker, and have a p99 to tell.
	quickStarts = 5
	// snapshotPatience is how long a snapshot may take to be there.
	snapshotPatience = 10 * time.Second
	// longInit is how long the init of the function with a long one takes.
	longInit = 2 * time.Second
	// startHeader asks for a new environment, and has the steps of its start in
	// the answer (`lapwing trace-start`).
	startHeader = "X-Lapwing-Trace-Start"
)

var pythonRuntimes = []string{"python3.13", "python3.12", "python3.11"}

// starting is a function whose starts are measured, and what they are compared
// with.
type starting struct {
	name    string
	who     string
	runtime string
	files   map[string]string
	native  []string // the same start on this host, run to its end; nil: its init is the floor

	snapshot                    bool // there was one
	natives, firsts, fromStored []time.Duration
}

// functionsToStart are those that this host can run.
func (b *bench) functionsToStart() ([]*starting, error) {
	bootstrap, err := harness.Program("lapwing.dev/lapwing/test/bench/function")
	if err != nil {
		return nil, err
	}
	floor, err := b.program("lapwing.dev/lapwing/test/bench/floor")
	if err != nil {
		return nil, err
	}
	all := []*starting{
		{name: "start-node", who: "Node.js", runtime: nodeRuntime, files: map[string]string{"index.js": echoFunction}, native: []string{b.node, "-e", "0"}},
		{name: "start-go", who: "Go", runtime: "provided.al2023", files: map[string]string{"bootstrap*": bootstrap}, native: []string{floor, "end"}},
		{name: "start-init", who: "Node.js with an init of 2 s", runtime: nodeRuntime, files: map[string]string{
			"index.js": fmt.Sprintf("const end = Date.now() + %d; while (Date.now() < end);\n", longInit.Milliseconds()) + echoFunction}},
	}
	if b.python == "" {
		b.report.absent("Python: no interpreter of %s on this host", strings.Join(pythonRuntimes, ", "))
		return all, nil
	}
	for _, runtime := range pythonRuntimes {
		if p, err := b.server.Interpreter(runtime); err == nil {
			return append(all, &starting{name: "start-python", who: "Python", runtime: runtime,
				files: map[string]string{"index.py": "def handler(event, context):\n    return event\n"}, native: []string{p, "-c", "0"}}), nil
		}
	}
	return all, nil
}

// starts measures from request to reply where no environment runs: the first
// start ever of a version, and those from its snapshot.
func (b *bench) starts(ctx context.Context) error {
	all, err := b.functionsToStart()
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := b.deploy(ctx, s.name, s.runtime, s.files); err != nil {
			return err
		}
	}
	for n := range b.rounds {
		for _, s := range all {
			if err := b.round(ctx, s, n); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, s := range all {
		b.tellStarts(s)
	}
	return nil
}

// round measures one first start of a function and some of the quicker ones.
func (b *bench) round(ctx context.Context, s *starting, n int) error {
	if s.native == nil && n >= 2 && !s.snapshot {
		return nil // two are enough of what only waits
	}
	if err := b.renew(ctx, s.name, n); err != nil {
		return err
	}
	b.settle(ctx)
	took, _, err := b.start(ctx, s.name, false)
	if err != nil {
		return err
	}
	s.firsts = append(s.firsts, took)
	if n == 0 || s.snapshot {
		if s.snapshot, err = b.snapshotted(ctx, s.name); err != nil {
			return err
		}
	}
	b.settle(ctx)
	for range quickStarts {
		if s.native != nil {
			took, err := native(ctx, s.native)
			if err != nil {
				return err
			}
			s.natives = append(s.natives, took)
		}
		if !s.snapshot {
			continue
		}
		took, restored, err := b.start(ctx, s.name, true)
		if err != nil {
			return err
		}
		if restored { // else it was evicted, or could not be used: not what is measured
			s.fromStored = append(s.fromStored, took)
		}
	}
	return nil
}

// snapshotted waits until a function starts from a snapshot; false where it does
// not within some time.
func (b *bench) snapshotted(ctx context.Context, name string) (bool, error) {
	for end := time.Now().Add(snapshotPatience); ; time.Sleep(time.Second) {
		_, restored, err := b.start(ctx, name, true)
		if err != nil || restored || time.Now().After(end) {
			return restored, err
		}
	}
}

// start measures one invocation. It asks for a new environment where fresh, and
// tells then whether that was restored from a snapshot.
func (b *bench) start(ctx context.Context, name string, fresh bool) (took time.Duration, restored bool, err error) {
	c := lambda.NewFromConfig(b.server.Config(), func(o *lambda.Options) {
		if fresh {
			o.APIOptions = append(o.APIOptions, smithyhttp.AddHeaderValue(startHeader, "1"))
		}
	})
	began := time.Now()
	out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: payload})
	if err != nil {
		return 0, false, err
	}
	took = time.Since(began)
	var echoed bytes.Buffer // Python writes spaces
	if out.FunctionError != nil || json.Compact(&echoed, out.Payload) != nil || !bytes.Equal(echoed.Bytes(), payload) {
		return 0, false, fmt.Errorf("%s: %.300s", name, out.Payload)
	}
	if !fresh {
		return took, false, nil
	}
	var header http.Header
	if raw, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok {
		header = raw.Header
	}
	var trace struct{ Steps []struct{ Name string } }
	if err := json.Unmarshal([]byte(header.Get(startHeader)), &trace); err != nil {
		return 0, false, fmt.Errorf("the steps of the start: %w", err)
	}
	for _, s := range trace.Steps {
		restored = restored || s.Name == "restore"
	}
	return took, restored, nil
}

// native returns the time of a command from its start to its end.
func native(ctx context.Context, command []string) (time.Duration, error) {
	began := time.Now()
	if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%v: %w\n%s", command, err, out)
	}
	return time.Since(began), nil
}

// startAims are the aims of starts from a snapshot, in units of the floor: p50
// and p99; and of the first start.
var startAims = map[string]struct{ p50, p99, first float64 }{
	"Node.js": {1, 2, 2.5},
	"Python":  {2, 4, 0},
}

// tellStarts adds the starts of one function to the report.
func (b *bench) tellStarts(s *starting) {
	r := &b.report
	first := loadOf(s.firsts)
	r.sample(startTimes, s.who+", first start of a version", firstKind, first)
	floor, floorName := loadOf([]time.Duration{longInit}), "the init"
	if s.native != nil {
		floor, floorName = loadOf(s.natives), "native"
		r.sample(startTimes, s.who+", native", floorKind, floor)
	}
	base := floor.percentile(.5)
	aims := startAims[s.who]
	measure := "start from a snapshot, " + s.who
	var stored *load
	if len(s.fromStored) > 0 {
		stored = loadOf(s.fromStored)
		r.sample(startTimes, s.who+", from a snapshot", ownKind, stored)
	}
	switch {
	case stored == nil:
		aim := "<= 0.05 x"
		if s.native != nil {
			aim = fmt.Sprintf("<= %.2f x", aims.p50)
		}
		if s.who == "Go" {
			aim = "<= 30 ms more"
		}
		r.missing(measure, "no snapshot", aim)
	case s.native == nil:
		r.atMost(measure+", p50", floorName, base, stored.percentile(.5), .05)
	case s.who == "Go":
		r.atMostMore(measure+", p50", floorName, base, stored.percentile(.5), 30*time.Millisecond)
	default:
		r.atMost(measure+", p50", floorName, base, stored.percentile(.5), aims.p50)
		r.atMost(measure+", p99", floorName, base, stored.percentile(.99), aims.p99)
	}
	measure = "first start ever of a version, " + s.who
	switch {
	case aims.first > 0:
		r.atMost(measure+", p50", floorName, base, first.percentile(.5), aims.first)
	default:
		r.beside(measure+", p50", floorName, base, first.percentile(.5))
	}
}
