// Package acceptance_test holds what must be true of the whole program: scaling
// and throttling under load, and what survives a kill -9.
package acceptance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

func start(t *testing.T) *harness.Server {
	t.Helper()
	return startWith(t)
}

// startWith starts a server with further flags.
func startWith(t *testing.T, args ...string) *harness.Server {
	t.Helper()
	s, err := harness.Start(filepath.Join(t.TempDir(), "data"), args...)
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

// deploy creates the Go test function and waits until it is active.
func deploy(t *testing.T, s *harness.Server, name string) *lambda.Client {
	t.Helper()
	return deployProgram(t, s, name, "function", 1769)
}

// deployProgram creates a function of a test program.
func deployProgram(t *testing.T, s *harness.Server, name, program string, memory int32, change ...func(*lambda.CreateFunctionInput)) *lambda.Client {
	t.Helper()
	bootstrap, err := harness.Program("./" + program)
	if err != nil {
		t.Fatal(err)
	}
	return deployFiles(t, s, name, memory, map[string]string{"bootstrap*": bootstrap}, change...)
}

// deployFiles creates a function and waits until it is active.
func deployFiles(t *testing.T, s *harness.Server, name string, memory int32, files map[string]string, change ...func(*lambda.CreateFunctionInput)) *lambda.Client {
	t.Helper()
	c := lambda.NewFromConfig(s.Config())
	in := &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.RuntimeProvidedal2023, Handler: aws.String("x"), MemorySize: &memory, Timeout: aws.Int32(300),
		Role: aws.String("arn:aws:iam::" + s.Account() + ":role/r"),
		Code: &types.FunctionCode{ZipFile: harness.Zip(files)},
	}
	for _, f := range change {
		f(in)
	}
	if _, err := c.CreateFunction(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	w := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := w.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &name}, patience); err != nil {
		t.Fatal(err)
	}
	return c
}

// outcomes counts what has come of invocations.
type outcomes struct {
	mu      sync.Mutex
	kinds   map[string]int // "ok", or what went wrong
	answers map[string]int // of those that went well
}

// answered returns how many invocations have an answer.
func (o *outcomes) answered() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range o.kinds {
		n += k
	}
	return n
}

// parallel makes n invocations at once. The gate opens when so many of them are
// held up by it at the same time and the others have been answered.
func parallel(t *testing.T, s *harness.Server, c *lambda.Client, name string, n, held int) *outcomes {
	t.Helper()
	g := newGate(t, s)
	o := &outcomes{kinds: map[string]int{}, answers: map[string]int{}}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { o.invoke(c, name, g.URL) })
	}
	func() {
		defer g.open()
		logged(t, s, name, "waiting", held)
		waitFor(t, "answers for those that need not wait", func() bool { return o.answered() >= n-held })
	}()
	wg.Wait()
	return o
}

func (o *outcomes) invoke(c *lambda.Client, name, until string) {
	out, err := c.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &name, Payload: fmt.Appendf(nil, `{"until":%q}`, until)})
	kind := "ok"
	throttled, is := errors.AsType[*types.TooManyRequestsException](err)
	switch {
	case is:
		kind = "throttled: " + string(throttled.Reason) + ", retry after " + aws.ToString(throttled.RetryAfterSeconds)
	case err != nil:
		kind = err.Error()
	case out.FunctionError != nil:
		kind = string(out.Payload)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kinds[kind]++
	if kind == "ok" {
		o.answers[string(out.Payload)]++
	}
}

// waitFor waits for what must happen on any machine.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func Test64ParallelColdInvocationsAllSucceedSideBySide(t *testing.T) {
	t.Parallel()
	s := start(t)
	o := parallel(t, s, deploy(t, s, "wide"), "wide", 64, 64)
	if o.kinds["ok"] != 64 || len(o.answers) != 64 { // each environment answers with an id of its own
		t.Errorf("outcomes %v from %d environments\n%s", o.kinds, len(o.answers), s.Log())
	}
}

func TestReservedConcurrencyOf8Throttles56Of64(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := deploy(t, s, "narrow")
	_, err := c.PutFunctionConcurrency(t.Context(), &lambda.PutFunctionConcurrencyInput{FunctionName: aws.String("narrow"), ReservedConcurrentExecutions: aws.Int32(8)})
	if err != nil {
		t.Fatal(err)
	}
	o := parallel(t, s, c, "narrow", 64, 8)
	want := map[string]int{"ok": 8, "throttled: ReservedFunctionConcurrentInvocationLimitExceeded, retry after 1": 56}
	if !maps.Equal(o.kinds, want) {
		t.Errorf("outcomes %v, want %v", o.kinds, want)
	}
}

func TestKillLosesNothingAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := deploy(t, s, "durable")
	ctx, name := t.Context(), aws.String("durable")
	roles := iam.NewFromConfig(s.Config())
	if _, err := roles.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("kept"), AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: name, Name: aws.String("live"), FunctionVersion: aws.String("1")}); err != nil {
		t.Fatal(err)
	}
	if o := parallel(t, s, c, "durable", 3, 3); o.kinds["ok"] != 3 {
		t.Fatalf("outcomes %v", o.kinds)
	}
	env := maps.Clone(s.Env)
	logged(t, s, "durable", "REPORT", 3) // which is only when what it tells is on disk
	g, killed := newGate(t, s), &outcomes{kinds: map[string]int{}, answers: map[string]int{}}
	for range 3 {
		go killed.invoke(c, "durable", g.URL) // sandboxes at work when the kill comes
	}
	logged(t, s, "durable", "waiting", 6)
	old := tracesOf(t, s)
	if len(old.processes) < 3 || len(old.cgroups) < 3 {
		t.Fatalf("the test found only these traces of 3 sandboxes: %+v", old)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, what := range old.left(t) {
		t.Errorf("left over: %s", what)
	}
	for _, k := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "LAPWING_ACCOUNT_ID"} {
		if env[k] != s.Env[k] {
			t.Errorf("%s changed", k)
		}
	}
	c = lambda.NewFromConfig(s.Config())
	for _, q := range []string{"$LATEST", "1", "live"} {
		out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: name, Qualifier: &q, Payload: []byte(`{}`)})
		if err != nil || out.FunctionError != nil {
			t.Errorf("invocation of %s after the restart: %v %+v", q, err, out)
		}
	}
	logs, err := cloudwatchlogs.NewFromConfig(s.Config()).FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{
		LogGroupName: aws.String("/aws/lambda/durable"), FilterPattern: aws.String("REPORT")})
	if err != nil {
		t.Fatal(err)
	}
	if len(logs.Events) < 3 {
		t.Errorf("%d REPORT lines after the restart, want the 3 from before it at least", len(logs.Events))
	}
	if _, err := iam.NewFromConfig(s.Config()).GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("kept")}); err != nil {
		t.Error(err)
	}
}

// traces are what a server's sandboxes are on this host: by what they would be
// found if they were left over.
type traces struct {
	data      string
	processes []string      // directories in /proc
	started   []string      // of each process, to tell it from one with the same id
	cgroups   []string      // directories
	made      []os.FileInfo // of each cgroup, to tell it from one of the same name
}

// tracesOf finds the traces of a running server.
func tracesOf(t *testing.T, s *harness.Server) traces {
	t.Helper()
	tr := traces{data: s.Data}
	parents := []string{fmt.Sprint(s.PID)}
	for len(parents) > 0 {
		children, err := filepath.Glob("/proc/" + parents[0] + "/task/*/children")
		if err != nil {
			t.Fatal(err)
		}
		parents = parents[1:]
		for _, file := range children {
			b, _ := os.ReadFile(file) // the thread may have ended
			for _, pid := range strings.Fields(string(b)) {
				parents = append(parents, pid)
				tr.processes = append(tr.processes, "/proc/"+pid)
				tr.started = append(tr.started, startOf("/proc/"+pid))
				for _, dir := range cgroupsOf("/proc/" + pid) {
					if info, err := os.Stat(dir); err == nil {
						tr.cgroups, tr.made = append(tr.cgroups, dir), append(tr.made, info)
					}
				}
			}
		}
	}
	return tr
}

// startOf returns the start time of a process, empty if there is none.
func startOf(proc string) string {
	b, _ := os.ReadFile(proc + "/stat")
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// cgroupsOf returns the cgroups of a process that are a sandbox's own.
func cgroupsOf(proc string) (dirs []string) {
	b, _ := os.ReadFile(proc + "/cgroup")
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !strings.Contains(parts[2], "lapwing") {
			continue
		}
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/" + parts[1]} {
			if dir := root + parts[2]; dirExists(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

func dirExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// left lists what still is there of the traces.
func (tr traces) left(t *testing.T) (found []string) {
	t.Helper()
	for i, p := range tr.processes {
		if tr.started[i] != "" && startOf(p) == tr.started[i] {
			found = append(found, "process "+p)
		}
	}
	for i, dir := range tr.cgroups {
		// A sandbox that the new server has prepared may have the name of an old one.
		if info, err := os.Stat(dir); err == nil && os.SameFile(info, tr.made[i]) {
			found = append(found, "cgroup "+dir)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, tr.data) {
			found = append(found, "mount "+line)
		}
	}
	return found
}
