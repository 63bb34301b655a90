package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/test/harness"
)

// told is what the functions of snapshotFunctions answer.
type told struct {
	Instance string // made in Init: the same in all clones
	Random   string // made in the invocation
	Count    int    // invocations of the environment
	Stream   string
	Key      string // of the credentials
	InitType string
	Own      string
}

var snapshotFunctions = map[types.Runtime]map[string]string{
	types.RuntimeNodejs22x: {"index.mjs": `import crypto from 'node:crypto';
const instance = String(process.hrtime.bigint());
let count = 0;
console.log('init prints this');
export const handler = async () => ({ instance, random: crypto.randomUUID() + Math.random(), count: ++count,
  stream: process.env.AWS_LAMBDA_LOG_STREAM_NAME, key: process.env.AWS_ACCESS_KEY_ID,
  initType: process.env.AWS_LAMBDA_INITIALIZATION_TYPE, own: process.env.OWN });
`},
	types.RuntimePython311: {"index.py": `import os, random, uuid
import time
instance = str(time.time_ns())
count = 0
print('init prints this')
def handler(event, context):
    global count
    count += 1
    e = os.environ
    return dict(instance=instance, random=str(uuid.uuid4()) + str(random.random()), count=count, stream=e['AWS_LAMBDA_LOG_STREAM_NAME'],
                key=e['AWS_ACCESS_KEY_ID'], initType=e['AWS_LAMBDA_INITIALIZATION_TYPE'], own=e['OWN'])
`},
}

// snapshotFunction is a function whose environments start from snapshots.
type snapshotFunction struct {
	t    *testing.T
	s    *harness.Server
	c    *lambda.Client
	name string
}

// deploySnapshotFunction creates one of snapshotFunctions.
func deploySnapshotFunction(t *testing.T, s *harness.Server, id types.Runtime) *snapshotFunction {
	t.Helper()
	name := "snap-" + strings.ReplaceAll(string(id), ".", "")
	f := &snapshotFunction{t: t, s: s, name: name}
	f.c = deployFiles(t, s, name, 512, snapshotFunctions[id], func(in *lambda.CreateFunctionInput) {
		in.Runtime, in.Handler = id, aws.String("index.handler")
		in.Environment = &types.Environment{Variables: map[string]string{"OWN": "value"}}
	})
	return f
}

// reconnect gives the function a client of a server that was started again.
func (f *snapshotFunction) reconnect() { f.c = lambda.NewFromConfig(f.s.Config()) }

// cold makes n invocations, each in an environment that is started for it.
func (f *snapshotFunction) cold(n int) []told {
	f.t.Helper()
	answers, err := invokeCold[told](f.t.Context(), f.c, f.name, n)
	if err != nil {
		f.t.Errorf("a caller got %v\n%s", err, f.s.Log())
	}
	return answers
}

// invokeCold invokes a function n times, each in an environment that is started
// for it, some at once, and returns the answers: an empty one where there is an
// error.
func invokeCold[T any](ctx context.Context, c *lambda.Client, name string, n int) ([]T, error) {
	answers, errs := make([]T, n), make([]error, n)
	turns := make(chan struct{}, 16)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			res, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name},
				lambda.WithAPIOptions(smithyhttp.AddHeaderValue("X-Lapwing-Trace-Start", "1")))
			switch {
			case err != nil:
				errs[i] = err
			case res.FunctionError != nil:
				errs[i] = errors.New(string(res.Payload))
			default:
				errs[i] = json.Unmarshal(res.Payload, &answers[i])
			}
		})
	}
	all.Wait()
	return answers, errors.Join(errs...)
}

// dir returns the directory of the function's snapshot, or "" where there is none.
func (f *snapshotFunction) dir() string {
	found, err := filepath.Glob(filepath.Join(f.s.Data, "snapshots", "[0-9a-f]*", "manifest.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), ":function:"+f.name+":") {
			return filepath.Dir(path)
		}
	}
	return ""
}

// built waits for the snapshot.
func (f *snapshotFunction) built() (dir string) {
	f.t.Helper()
	waitFor(f.t, "a snapshot", func() bool { dir = f.dir(); return dir != "" })
	return dir
}

// log returns what is in the log stream of an environment.
func (f *snapshotFunction) log(stream string) (lines string) {
	f.t.Helper()
	waitFor(f.t, "a REPORT line", func() bool {
		out, err := cloudwatchlogs.NewFromConfig(f.s.Config()).GetLogEvents(f.t.Context(), &cloudwatchlogs.GetLogEventsInput{
			LogGroupName: aws.String("/aws/lambda/" + f.name), LogStreamName: &stream, StartFromHead: aws.Bool(true),
		})
		if err != nil {
			return false
		}
		lines = ""
		for _, e := range out.Events {
			lines += *e.Message
		}
		return strings.Contains(lines, "REPORT RequestId")
	})
	return lines
}

// startWithRuntimes starts a server that makes snapshots, with the runtimes of
// snapshotFunctions.
func startWithRuntimes(t *testing.T, args ...string) *harness.Server {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	for id := range snapshotFunctions {
		if err := harness.AddRuntimes(data, string(id)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := harness.Start(data, args...)
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

func TestClonesAreLikeFreshEnvironmentsAndDifferFromEachOther(t *testing.T) {
	s := startWithRuntimes(t, "--snapshots", "on")
	for id := range snapshotFunctions {
		t.Run(string(id), func(t *testing.T) {
			f := deploySnapshotFunction(t, s, id)
			fresh := f.cold(1)[0]
			f.built()
			const n = 6
			clones := f.cold(n)
			seen := map[string]bool{fresh.Random: true, fresh.Stream: true, fresh.Key: true}
			for _, c := range clones {
				if c.Instance != clones[0].Instance || c.Instance == fresh.Instance {
					t.Errorf("an environment was not restored: %+v, %+v", c, fresh)
				}
				for _, own := range []string{c.Random, c.Stream, c.Key} {
					if seen[own] || own == "" {
						t.Errorf("%q is not of one environment alone", own)
					}
					seen[own] = true
				}
				if c.Count != 1 || c.InitType != "on-demand" || c.Own != "value" {
					t.Errorf("a clone: %+v", c)
				}
				log := f.log(c.Stream)
				for word, times := range map[string]int{"INIT_START": 1, "init prints this": 1, "Init Duration: ": 1, "RESTORE": 0} {
					if strings.Count(log, word) != times {
						t.Errorf("%q is not %d times in the log of a clone:\n%s", word, times, log)
					}
				}
			}
		})
	}
}

func TestDamagedSnapshotsAreFreshStarts(t *testing.T) {
	s := startWithRuntimes(t, "--snapshots", "on")
	f := deploySnapshotFunction(t, s, types.RuntimePython311)
	f.cold(1)
	for _, name := range []string{"memory", "state", "notes", "manifest.json"} {
		for _, running := range []bool{true, false} {
			if running && name == "manifest.json" {
				continue // it is read at the start only
			}
			dir := f.built()
			if !running {
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Truncate(filepath.Join(dir, name), 1); err != nil {
				t.Fatal(err)
			}
			if !running {
				if err := s.Restart(); err != nil {
					t.Fatal(err)
				}
				f.reconnect()
			}
			f.cold(2)
			waitFor(t, "another snapshot", func() bool {
				f.cold(1)
				again := f.dir()
				return again != "" && again != dir
			})
		}
	}
	waitFor(t, "a clone", func() bool {
		a := f.cold(2)
		return a[0].Instance == a[1].Instance
	})
}

func TestKillWhileASnapshotIsMadeOrRestoredHarmsNobody(t *testing.T) {
	s := startWithRuntimes(t, "--snapshots", "on")
	f := deploySnapshotFunction(t, s, types.RuntimePython311)
	for round := range 4 {
		f.cold(1)
		// The snapshot is begun half a second after the Init.
		time.Sleep(400*time.Millisecond + time.Duration(round)*200*time.Millisecond)
		if err := errors.Join(s.Kill(), s.Restart()); err != nil {
			t.Fatal(err)
		}
		f.reconnect()
	}
	f.cold(1)
	f.built()
	for range 3 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 3 {
				_, _ = f.c.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &f.name},
					lambda.WithAPIOptions(smithyhttp.AddHeaderValue("X-Lapwing-Trace-Start", "1"))) // killed
			}
		}()
		time.Sleep(150 * time.Millisecond)
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		<-done
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		f.reconnect()
		f.cold(2)
	}
	waitFor(t, "a clone", func() bool {
		a := f.cold(2)
		return a[0].Instance == a[1].Instance
	})
	left, err := filepath.Glob(filepath.Join(s.Data, "snapshots", "tmp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v stays, %v", left, err)
	}
}

func TestFullDiskCostsNoMoreThanTheSnapshot(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	snapshots := filepath.Join(data, "snapshots")
	if err := os.MkdirAll(snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("snapshots-test", snapshots, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("mounting a small disk:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(snapshots, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := harness.Start(data, "--snapshots", "first")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := deploySnapshotFunction(t, s, types.RuntimePython311)
	f.cold(3)
	out, err := s.Run("functions", "show", f.name)
	if err != nil || !strings.Contains(string(out), "no room on the disk") {
		t.Errorf("%s %v", out, err)
	}
}
