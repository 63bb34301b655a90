package acceptance_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// chosenClones tells how many clones of a runtime are compared.
func chosenClones() int {
	if os.Getenv("LAPWING_LOAD") == "full" { // make load
		return 500
	}
	return 40
}

// sampler is a handler that answers with samples of all generators of random
// numbers that its runtime has.
type sampler struct {
	runtime types.Runtime
	ext     string // of its file in internal/runtimes/testdata/random
	// unseeded is a handler around it in an environment in which what the runtime
	// reseeds with does nothing.
	unseeded string
	// drawnAnew are the samples that differ all the same: they come from the
	// kernel.
	drawnAnew []string
}

var samplers = []sampler{
	{types.RuntimeNodejs22x, ".js", `
process.dlopen = () => { throw new Error('Module did not self-register'); }; // how it has OpenSSL reseeded
Buffer.prototype.readInt32LE = () => 1; // of what Math.random is seeded with
module.exports = require('./index.js');
`, nil},
	{types.RuntimePython311, ".py", `
import random, _ssl
random.seed = _ssl.RAND_add = lambda *args: None
from index import handler
`, []string{"random.Random", "random.SystemRandom", "secrets.token_hex", "os.urandom", "uuid.uuid4"}},
	{types.RuntimeRuby33, ".rb", `
require_relative 'index'
Random.singleton_class.prepend(Module.new { def srand(*seed) = seed.empty? ? 0 : super })
Random.define_singleton_method(:new_seed) { 1 << 100 }
OpenSSL::Random.define_singleton_method(:random_add) { |*| }
`, []string{"Random.new", "SecureRandom.uuid"}},
}

// deploy creates a function with the handler, or with its control.
func (m sampler) deploy(t *testing.T, s *harness.Server, file string) (c *lambda.Client, name string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join(root, "internal/runtimes/testdata/random/index"+m.ext))
	if err != nil {
		t.Fatal(err)
	}
	name = file + "-" + strings.ReplaceAll(string(m.runtime), ".", "")
	files := map[string]string{"index" + m.ext: string(code), "control" + m.ext: m.unseeded}
	return deployFiles(t, s, name, 256, files, func(in *lambda.CreateFunctionInput) {
		in.Runtime, in.Handler = m.runtime, aws.String(file+".handler")
	}), name
}

// samplesOfClones returns what n clones of a sampler draw.
func samplesOfClones(t *testing.T, c *lambda.Client, name string, n int) []map[string]any {
	t.Helper()
	all, err := invokeCold[map[string]any](t.Context(), c, name, n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// snapshotUses returns how often a function's snapshot was used.
func snapshotUses(t *testing.T, s *harness.Server, name string) int {
	t.Helper()
	out, err := s.Run("functions", "show", "--json", name)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var versions []struct{ Snapshot struct{ Uses int } }
	if err := json.Unmarshal(out, &versions); err != nil || len(versions) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return versions[0].Snapshot.Uses
}

// No two clones of a snapshot share a random number, and that they are seeded
// anew is the reason: where it does nothing, they share them.
func TestClonesShareNoRandomNumbers(t *testing.T) {
	var ids []string
	for _, m := range samplers {
		ids = append(ids, string(m.runtime))
	}
	s := startSamplers(t, ids)
	for _, m := range samplers {
		t.Run(string(m.runtime), func(t *testing.T) {
			c, name := m.deploy(t, s, "index")
			n, began := chosenClones(), time.Now()
			seen := make(map[string]string)
			for i, samples := range samplesOfClones(t, c, name, n) {
				if len(samples) < 5 {
					t.Fatalf("clone %d has %v", i, samples)
				}
				for generator, value := range samples {
					at := fmt.Sprintf("%s of clone %d", generator, i)
					if other, there := seen[fmt.Sprint(value)]; there {
						t.Errorf("%s is %s: %v", at, other, value)
					}
					seen[fmt.Sprint(value)] = at
				}
			}
			t.Logf("%d samples of %d clones in %v", len(seen), n, time.Since(began))
			if uses := snapshotUses(t, s, name); uses != n {
				t.Errorf("%d of %d environments were clones", uses, n)
			}

			c, name = m.deploy(t, s, "control")
			all := samplesOfClones(t, c, name, 6)
			for generator, value := range all[0] {
				for _, other := range all[1:] {
					if same := value == other[generator]; same == slices.Contains(m.drawnAnew, generator) {
						t.Errorf("unseeded, %s is the same: %v", generator, same)
					}
				}
			}
		})
	}
}

// startSamplers starts a server with these runtimes, on which every environment
// is a clone.
func startSamplers(t *testing.T, ids []string) *harness.Server {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if err := harness.AddRuntimes(data, ids...); err != nil {
		t.Fatal(err)
	}
	s, err := harness.Start(data, "--snapshots", "first")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	return s
}
