package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/snapshot"
)

// managed finds every runtime.
type managed struct{}

func (managed) Resolve(id string) (*runtimes.Runtime, error) {
	rt := &runtimes.Runtime{ID: id, Version: id + ".v1", Command: []string{"/bin/runtime"}, Clones: strings.HasPrefix(id, "nodejs")}
	if id == "nodejs20.x" {
		rt.BootVariables = []string{"NODE_*", "!NODE_ENV"}
	}
	return rt, nil
}

// countedCredentials are other ones each time.
type countedCredentials struct{ n atomic.Int64 }

func (c *countedCredentials) Issue(string, string, time.Duration) (credentials.Session, error) {
	return credentials.Session{AccessKeyID: fmt.Sprint("ASIA", c.n.Add(1)), Expiration: time.Unix(1, 0)}, nil
}

// rig is a worker with snapshots and without sandboxes.
type rig struct {
	t      *testing.T
	driver *fakeDriver
	store  *snapshot.Store
	dir    string
	logs   *streamLogs
	meter  *memoryMeter
	own    *syncBuffer // the log of the server
	*Worker
	dispatcher *invoke.Dispatcher
}

// streamLogs keeps log lines by their stream.
type streamLogs struct {
	mu      sync.Mutex
	streams map[string]string
}

func (l *streamLogs) Append(_, stream string, events []logstore.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.streams[stream] += e.Message
	}
	return nil
}

func (l *streamLogs) of(stream string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.streams[stream]
}

func (l *streamLogs) all() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.streams {
		all = append(all, text)
	}
	return all
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, driver: &fakeDriver{prints: "hello from init"}, dir: t.TempDir(), logs: &streamLogs{streams: map[string]string{}}, meter: &memoryMeter{}, own: &syncBuffer{}}
	logger := slog.New(slog.NewTextHandler(r.own, nil))
	var err error
	if r.store, err = snapshot.Open(snapshot.Options{Dir: r.dir, Logger: logger, Base: "b"}); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Driver: r.driver, Networks: noNetwork{}, Runtimes: managed{}, Logs: r.logs, Credentials: &countedCredentials{}, Meter: r.meter, Logger: logger,
		Snapshots: r.store,
	}
	for _, f := range change {
		f(&o)
	}
	r.Worker = New(o)
	r.dispatcher = invoke.New(invoke.Options{Starter: r.Worker, Logger: logger})
	t.Cleanup(func() {
		r.dispatcher.Close(context.Background())
		r.Close()
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func node() *function.Version {
	v := version(time.Minute)
	v.Account, v.Region, v.Name, v.Version = "123456789012", "eu-west-1", "f", "1"
	v.Runtime, v.Handler, v.MemoryMB, v.EphemeralMB = "nodejs22.x", "index.handler", 128, 512
	v.Role = "arn:aws:iam::123456789012:role/r"
	v.Logging = function.Logging{Format: "Text", Group: "/aws/lambda/f"}
	return v
}

// run makes a cold start of a version. It returns the environment variables that
// the function has and the log of its environment.
func (r *rig) run(v *function.Version) (env map[string]string, log string) {
	r.t.Helper()
	var out bytes.Buffer
	if _, err := r.invoke(v, &out); err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &env); err != nil {
		r.t.Fatal(err, out.String())
	}
	waitFor(r.t, func() bool {
		log = r.logs.of(env["AWS_LAMBDA_LOG_STREAM_NAME"])
		return strings.Contains(log, "REPORT RequestId")
	})
	return env, log
}

func (r *rig) invoke(v *function.Version, out *bytes.Buffer) (*invoke.Result, error) {
	r.dispatcher.Retire(v.FunctionARN(), "")
	return r.dispatcher.Invoke(r.t.Context(), &invoke.Request{Version: v, InvokedARN: v.ARN(), RequestID: requestID, Payload: []byte("{}")}, out)
}

// settled waits until no snapshot is being made and returns the status.
func (r *rig) settled(v *function.Version) (st function.SnapshotStatus) {
	r.t.Helper()
	waitFor(r.t, func() bool { st = r.Status(v); return st.Reason != reasonBuilding })
	return st
}

// clone runs v until it is started from a snapshot.
func (r *rig) snapshotted(v *function.Version) {
	r.t.Helper()
	r.run(v)
	if st := r.settled(v); !st.Ready {
		r.t.Fatalf("%+v\n%s", st, r.own)
	}
}

func TestSecondEnvironmentStartsFromASnapshotAndNobodySeesIt(t *testing.T) {
	r := newRig(t)
	v := node()
	v.Env = map[string]string{"OWN": "value"}
	if st := r.Status(v); st.Ready || st.Reason != "" {
		t.Errorf("before: %+v", st)
	}
	fresh, first := r.run(v)
	if st := r.settled(v); !st.Ready || st.Size == 0 {
		t.Fatalf("%+v", st)
	}
	if creates, restores := r.driver.counts(); creates != 2 || restores != 0 {
		t.Errorf("%d sandboxes were created and %d restored", creates, restores)
	}
	clone, second := r.run(v)
	other, _ := r.run(v)
	if creates, restores := r.driver.counts(); creates != 2 || restores != 2 {
		t.Errorf("%d sandboxes were created and %d restored", creates, restores)
	}
	for _, name := range perClone {
		if name != "AWS_ENDPOINT_URL" && name != "AWS_SECRET_ACCESS_KEY" && name != "AWS_SESSION_TOKEN" && (clone[name] == fresh[name] || clone[name] == other[name]) {
			t.Errorf("%s is %q in two environments", name, clone[name])
		}
		delete(clone, name)
		delete(fresh, name)
	}
	for name, value := range fresh {
		if clone[name] != value {
			t.Errorf("%s is %q in a clone and %q in a fresh environment", name, clone[name], value)
		}
	}
	if clone["AWS_LAMBDA_INITIALIZATION_TYPE"] != "on-demand" || clone["OWN"] != "value" {
		t.Errorf("variables of a clone: %v", clone)
	}
	want := regexp.MustCompile(`^INIT_START Runtime Version: nodejs22.x.v1\tRuntime Version ARN: .*
hello from init
(after restore
)?START RequestId: ` + requestID + ` Version: 1
END RequestId: ` + requestID + `
REPORT RequestId: ` + requestID + `\tDuration: .* ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: 10 MB\tInit Duration: \d+\.\d\d ms\t
$`)
	for what, log := range map[string]string{"fresh": first, "clone": second} {
		if !want.MatchString(log) {
			t.Errorf("log, %s:\n%s", what, log)
		}
	}
	if all := r.logs.all(); len(all) != 3 {
		t.Errorf("there are %d log streams: %q", len(all), all)
	}
	if st := r.Status(v); st.Uses != 2 {
		t.Errorf("%d uses", st.Uses)
	}
}

func TestAnyChangeMakesAnotherSnapshot(t *testing.T) {
	r := newRig(t)
	ids := map[string]string{}
	check := func(what string, provisioned bool, change func(v *function.Version)) {
		v := node()
		change(v)
		e, err := r.newEnvironment(invoke.Spec{Version: v, Provisioned: provisioned})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := r.newEnvironment(invoke.Spec{Version: v, Provisioned: provisioned})
		id := e.snapshotID(r.store)
		if id != again.snapshotID(r.store) {
			t.Errorf("%s: two environments have two snapshots", what)
		}
		if other, there := ids[id]; there {
			t.Errorf("%s has the snapshot of %s", what, other)
		}
		ids[id] = what
	}
	check("the function", false, func(*function.Version) {})
	check("provisioned", true, func(*function.Version) {})
	for what, change := range map[string]func(v *function.Version){
		"name": func(v *function.Version) { v.Name = "g" }, "version": func(v *function.Version) { v.Version = "2" },
		"runtime": func(v *function.Version) { v.Runtime = "nodejs24.x" }, "handler": func(v *function.Version) { v.Handler = "x.y" },
		"role": func(v *function.Version) { v.Role += "x" }, "memory": func(v *function.Version) { v.MemoryMB = 129 },
		"tmp": func(v *function.Version) { v.EphemeralMB = 513 }, "revision": func(v *function.Version) { v.Revision = "other" }, "variable": func(v *function.Version) { v.Env = map[string]string{"A": "1"} },
		"its value": func(v *function.Version) { v.Env = map[string]string{"A": "2"} }, "code": func(v *function.Version) { v.Code = "/x" },
		"endpoint": func(v *function.Version) { v.Env = map[string]string{"AWS_ENDPOINT_URL": "http://x"} },
		"layers":   func(v *function.Version) { v.Layers = "/y" }, "SnapStart": func(v *function.Version) { v.SnapStart = true },
		"log format": func(v *function.Version) { v.Logging.Format = "JSON" }, "log group": func(v *function.Version) { v.Logging.Group = "g" },
		"log level": func(v *function.Version) { v.Logging.Format, v.Logging.ApplicationLevel = "JSON", "WARN" },
	} {
		check(what, false, change)
	}
}

func TestWhyThereIsNoSnapshot(t *testing.T) {
	for want, c := range map[string]struct {
		driver  func(d *fakeDriver)
		version func(v *function.Version)
		options func(o *Options)
	}{
		"the operator has switched snapshots off":                                 {options: func(o *Options) { o.Snapshots = nil }},
		"the function's owner has switched snapshots off":                         {version: func(v *function.Version) { v.SnapshotsOff = true }},
		"it is a container image, whose runtime does not take part":               {version: func(v *function.Version) { v.Image = &function.Image{} }},
		"the runtime provided.al2023 does not take part":                          {version: func(v *function.Version) { v.Runtime = "provided.al2023" }},
		"its runtime does not take part":                                          {driver: func(d *fakeDriver) { d.aloof = true }},
		"it holds a lock":                                                         {driver: func(d *fakeDriver) { d.unfit = "it holds a lock" }},
		"it prints too much while it is initialised to repeat that in each clone": {driver: func(d *fakeDriver) { d.prints = strings.Repeat("x", 200_000) + "\n" }},
		"the driver of sandboxes has no snapshots":                                {driver: func(d *fakeDriver) { d.snapshot = func(sandbox.Snapshot) error { return errors.ErrUnsupported } }},
		"it has a socket": {driver: func(d *fakeDriver) {
			d.snapshot = func(sandbox.Snapshot) error { return fmt.Errorf("driver: %w: it has a socket", sandbox.ErrUnfit) }
		}},
		"snapshot: no room on the disk: no space left on device": {driver: func(d *fakeDriver) {
			d.snapshot = func(sandbox.Snapshot) error { return fmt.Errorf("%w: %w", snapshot.ErrNoRoom, unix.ENOSPC) }
		}},
	} {
		t.Run(want, func(t *testing.T) {
			r := newRig(t, func(o *Options) {
				if c.options != nil {
					c.options(o)
				}
			})
			if strings.Contains(want, "prints") {
				r.driver.prints = strings.Repeat("x", maxTape)
			} else if c.driver != nil {
				c.driver(r.driver)
			}
			v := node()
			if c.version != nil {
				c.version(v)
			}
			for range 3 {
				r.run(v)
				if st := r.settled(v); st.Ready || st.Reason != want {
					t.Errorf("%+v", st)
				}
			}
			if creates, restores := r.driver.counts(); creates > 4 || restores > 0 {
				t.Errorf("%d sandboxes were created and %d restored", creates, restores)
			}
			if left := r.snapshotDirs(); len(left) > 0 {
				t.Errorf("%v stays", left)
			}
		})
	}
}

func TestWhatLiesInTheFunctionIsNotTriedAgainByTheNextServer(t *testing.T) {
	for what, c := range map[string]struct {
		driver func(d *fakeDriver)
		tries  int // by the next server
	}{
		"its runtime": {func(d *fakeDriver) { d.aloof = true }, 0},
		"a reason":    {func(d *fakeDriver) { d.unfit = "it holds a lock" }, 0},
		"a socket": {func(d *fakeDriver) {
			d.snapshot = func(sandbox.Snapshot) error { return fmt.Errorf("driver: %w: it has a socket", sandbox.ErrUnfit) }
		}, 0},
		"the driver": {func(d *fakeDriver) { d.snapshot = func(sandbox.Snapshot) error { return errors.ErrUnsupported } }, 1},
		"the disk":   {func(d *fakeDriver) { d.snapshot = func(sandbox.Snapshot) error { return unix.EIO } }, 1},
	} {
		t.Run(what, func(t *testing.T) {
			first := newRig(t)
			c.driver(first.driver)
			first.run(node())
			before := first.settled(node())
			if before.Ready || before.Reason == "" {
				t.Fatalf("%+v", before)
			}

			store, err := snapshot.Open(snapshot.Options{Dir: first.dir, Logger: slog.New(slog.DiscardHandler), Base: "b"})
			if err != nil {
				t.Fatal(err)
			}
			next := newRig(t, func(o *Options) { o.Snapshots = store })
			if st := next.Status(node()); c.tries == 0 && st != before {
				t.Errorf("before the first start: %+v, want %+v", st, before)
			}
			c.driver(next.driver)
			next.run(node())
			if st := next.settled(node()); st != before {
				t.Errorf("after it: %+v, want %+v", st, before)
			}
			if creates, _ := next.driver.counts(); creates != 1+c.tries {
				t.Errorf("%d sandboxes were created", creates)
			}

			changed := node()
			changed.Revision = "other"
			next.run(changed)
			next.settled(changed)
			if creates, _ := next.driver.counts(); creates != 1+c.tries+2 {
				t.Errorf("another revision is not tried: %d sandboxes were created", creates)
			}
		})
	}
}

func TestSnapshotNeedsTheDiskForWhatIsUsed(t *testing.T) {
	for what, c := range map[string]struct {
		stats *sandbox.Stats
		want  int64 // MiB
	}{
		"what is used":           {&sandbox.Stats{MemoryMB: 40, TmpMB: 3}, 43},
		"no more than may be":    {&sandbox.Stats{MemoryMB: 4000, TmpMB: 11_000}, 3008 + 10_240},
		"memory nobody counts":   {&sandbox.Stats{TmpMB: 3}, 3008 + 3},
		"nothing can be told":    {nil, 3008 + 10_240},
		"nothing is in its /tmp": {&sandbox.Stats{MemoryMB: 40}, 40},
	} {
		r := newRig(t)
		r.driver.stats = c.stats
		v := node()
		v.MemoryMB, v.EphemeralMB = 3008, 10_240
		e, err := r.newEnvironment(invoke.Spec{Version: v})
		if err != nil {
			t.Fatal(err)
		}
		if e.in, err = r.boot(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if size := e.snapshotSize(); size != c.want<<20+stateRoom {
			t.Errorf("%s: %d MB", what, size>>20)
		}
		e.discard()
	}
}

// snapshotDirs returns what is in the store but for its refusals.
func (r *rig) snapshotDirs() (dirs []string) {
	r.t.Helper()
	list, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, item := range list {
		if item.IsDir() {
			dirs = append(dirs, item.Name())
		}
	}
	return dirs
}

func TestRestoreThatFailsIsAFreshStart(t *testing.T) {
	boom := errors.New("boom")
	for what, breaks := range map[string]func(d *fakeDriver){
		"the driver":  func(d *fakeDriver) { d.restore = func(context.Context, int) error { return boom } },
		"the runtime": func(d *fakeDriver) { d.hook = "Runtime.ExitError" },
		"once": func(d *fakeDriver) {
			d.restore = func(_ context.Context, n int) error { return map[bool]error{true: boom}[n == 1] }
		},
		"no room, it seems": func(d *fakeDriver) { d.restore = func(context.Context, int) error { return sandbox.ErrNoCapacity } },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			v := node()
			r.snapshotted(v)
			breaks(r.driver)
			for n := 1; n <= 4; n++ {
				_, log := r.run(v)
				if c := strings.Count(log, "INIT_START"); c != 1 {
					t.Errorf("INIT_START is told %d times:\n%s", c, log)
				}
				if c := strings.Count(log, "hello from init"); c != 1 {
					t.Errorf("its Init is told %d times:\n%s", c, log)
				}
				if fresh := !strings.Contains(log, "after restore"); what != "once" && !fresh {
					t.Errorf("what a failed restore printed is told:\n%s", log)
				}
			}
			_, restores := r.driver.counts()
			want := map[string]int{"once": 4, "no room, it seems": 4}[what]
			if want == 0 {
				want = maxFailures
				if st := r.Status(v); st.Ready || !strings.HasPrefix(st.Reason, "environments were not restored from it: ") {
					t.Errorf("%+v", st)
				}
			}
			if restores != want {
				t.Errorf("%d restores were tried", restores)
			}
			if c := strings.Count(r.own.String(), "was not restored"); c > 1 || want == maxFailures && c == 0 {
				t.Errorf("it is logged %d times", c)
			}
		})
	}
}

func TestDamagedSnapshotIsAFreshStartAndMadeAgain(t *testing.T) {
	r := newRig(t)
	v := node()
	r.snapshotted(v)
	for range 2 {
		err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "memory" {
				err = os.WriteFile(path, []byte("{}"), 0o400)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, log := r.run(v); strings.Contains(log, "after restore") {
			t.Error("a damaged snapshot is used")
		}
		waitFor(t, func() bool { // by this start, or by one after the damage was found
			r.run(v)
			_, log := r.run(v)
			return strings.Contains(log, "after restore")
		})
	}
}

func TestPanicOfTheSupervisorIsTheFunctionsErrorAndTheNextStartsAfresh(t *testing.T) {
	r := newRig(t)
	v := node()
	r.snapshotted(v)
	r.driver.panics.Store(1)
	var out bytes.Buffer
	res, err := r.invoke(v, &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + requestID + ` Error: Runtime exited with error: signal: killed"}`; out.String() != want || res.FunctionError == "" {
		t.Errorf("the caller got %s, %+v", &out, res)
	}
	if c := strings.Count(r.own.String(), "sandbox ended unexpectedly"); c != 1 {
		t.Errorf("it is logged %d times:\n%s", c, r.own)
	}
	if _, log := r.run(v); !strings.Contains(log, "after restore") {
		t.Errorf("the next environment is none of the snapshot's:\n%s", log)
	}
}

func TestProvisionedEnvironmentsStartFromTheirOwnSnapshot(t *testing.T) {
	r := newRig(t)
	v := node()
	for n := range 2 {
		e, err := r.Start(t.Context(), invoke.Spec{Version: v, Provisioned: true})
		if err != nil {
			t.Fatal(err)
		}
		e.Close()
		waitFor(t, func() bool {
			r.snapshots.mu.Lock()
			defer r.snapshots.mu.Unlock()
			tr := r.snapshots.tracks[trackKey{v.ARN(), initProvisioned}]
			return tr != nil && tr.building == nil
		})
		if _, restores := r.driver.counts(); restores != n {
			t.Errorf("%d were restored", restores)
		}
	}
}

func TestSnapshotsFirstLetsEveryEnvironmentBeAClone(t *testing.T) {
	r := newRig(t, func(o *Options) { o.SnapshotsFirst = true })
	for range 2 {
		if _, log := r.run(node()); !strings.Contains(log, "after restore") {
			t.Errorf("it is no clone:\n%s", log)
		}
	}
}

func snapStart() *function.Version {
	v := node()
	v.SnapStart = true
	return v
}

func TestSnapStartRestoresAndSaysSo(t *testing.T) {
	r := newRig(t)
	v := snapStart()
	if err := r.Prepare(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	init := r.logs.all()
	if len(init) != 1 || !regexp.MustCompile(`^INIT_START .*\nhello from init\nINIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\t\n$`).MatchString(init[0]) {
		t.Errorf("log of the Init: %q", init)
	}
	env, log := r.run(v)
	want := regexp.MustCompile(`^RESTORE_START Runtime Version: nodejs22.x.v1\tRuntime Version ARN: .*
after restore
RESTORE_REPORT Restore Duration: \d+\.\d\d ms\t
START RequestId: .*
END RequestId: .*
REPORT RequestId: ` + requestID + `\tDuration: .* ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: 10 MB\tRestore Duration: \d+\.\d\d ms\tBilled Restore Duration: \d+ ms\t
$`)
	if !want.MatchString(log) {
		t.Errorf("log:\n%s", log)
	}
	if _, there := env["AWS_ACCESS_KEY_ID"]; there || env["AWS_LAMBDA_INITIALIZATION_TYPE"] != "snap-start" {
		t.Errorf("variables: %v", env)
	}
	r.meter.mu.Lock()
	defer r.meter.mu.Unlock()
	u := r.meter.usage[len(r.meter.usage)-1]
	metered := fmt.Sprintf("Billed Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\tRestore Duration: %.2f ms\tBilled Restore Duration: %d ms\t\n",
		u.BilledMs(), u.MemoryMB, u.MaxMemoryMB, milliseconds(u.Restore), u.BilledRestore.Milliseconds())
	if !strings.Contains(log, fmt.Sprintf("\tDuration: %.2f ms\t%s", milliseconds(u.Duration), metered)) {
		t.Errorf("what is metered, %q, is not what is reported:\n%s", metered, log)
	}
	if report := fmt.Sprintf("RESTORE_REPORT Restore Duration: %.2f ms\t\n", milliseconds(u.Restore)); !strings.Contains(log, report) {
		t.Errorf("what is metered is not what is reported, %q:\n%s", report, log)
	}
	if q := u.Quantities(); q.ColdStarts != 1 || q.BilledMs != (u.Duration+u.BilledRestore+time.Millisecond-1).Milliseconds() || q.OnDemandMBMs != 128*q.BilledMs {
		t.Errorf("what is billed: %+v, of %+v", q, u)
	}
	if u.Restore <= 0 || u.BilledRestore <= 0 || u.BilledRestore > u.Restore+time.Millisecond || u.BilledRestore%time.Millisecond != 0 || u.Init != 0 {
		t.Errorf("usage %+v", u)
	}
	if creates, restores := r.driver.counts(); creates != 1 || restores != 1 {
		t.Errorf("%d sandboxes were created and %d restored", creates, restores)
	}
}

func TestSnapStartWithoutASnapshotRunsItsHooksAllTheSame(t *testing.T) {
	r := newRig(t)
	v := snapStart()
	if _, log := r.run(v); !strings.HasPrefix(log, "INIT_START") || !strings.Contains(log, "after restore") {
		t.Errorf("log:\n%s", log)
	}
	if st := r.settled(v); !st.Ready {
		t.Errorf("%+v", st)
	}
}

func TestSnapStartTellsWhatAfterRestoreHooksDo(t *testing.T) {
	r := newRig(t)
	v := snapStart()
	if err := r.Prepare(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	r.driver.hook = "Runtime.AfterRestoreError"
	var out bytes.Buffer
	_, err := r.invoke(v, &out)
	var refused *aws.Error
	if !errors.As(err, &refused) || refused.Code != "SnapStartException" {
		t.Errorf("%v", err)
	}
	waitFor(t, func() bool {
		return strings.Contains(strings.Join(r.logs.all(), ""), "Status: error\tError Type: Runtime.AfterRestoreError\n")
	})
	if _, restores := r.driver.counts(); restores != 1 {
		t.Errorf("%d restores", restores)
	}
}

func TestPrepareTellsWhyAVersionCannotBeInitialised(t *testing.T) {
	r := newRig(t)
	v := snapStart()
	r.driver.initType = "Runtime.ImportModuleError"
	var failed *function.InitFailure
	if err := r.Prepare(t.Context(), v); !errors.As(err, &failed) || *failed != (function.InitFailure{Type: "Runtime.ImportModuleError", Message: "not today"}) {
		t.Errorf("%v", err)
	}
	r.driver.initType = ""
	if err := r.Prepare(t.Context(), v); err != nil {
		t.Errorf("once more: %v", err)
	}
	other := *v
	other.Revision = "before"
	r.Forget(&other)
	if st := r.Status(v); !st.Ready {
		t.Errorf("another revision took its snapshot along: %+v", st)
	}
	r.Forget(v)
	if left, err := os.ReadDir(r.dir); err != nil || len(left) > 0 {
		t.Errorf("%v stays, %v", left, err)
	}
}
