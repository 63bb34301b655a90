// Package acceptance_test holds what must be true of the whole program: scaling
// and throttling under load, and what survives a kill -9.
package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	s, err := harness.Start(filepath.Join(t.TempDir(), "data"))
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

var goFunction = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lapwing-acceptance-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "bootstrap"), "./testdata/function")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "bootstrap"))
	return string(b), err
})

// deploy creates the Go test function and waits until it is active.
func deploy(t *testing.T, s *harness.Server, name string) *lambda.Client {
	t.Helper()
	bootstrap, err := goFunction()
	if err != nil {
		t.Fatal(err)
	}
	c := lambda.NewFromConfig(s.Config())
	_, err = c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.RuntimeProvidedal2023, Handler: aws.String("x"), MemorySize: aws.Int32(128), Timeout: aws.Int32(60),
		Role: aws.String("arn:aws:iam::" + s.Account() + ":role/r"),
		Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"bootstrap*": bootstrap})},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := w.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
	return c
}

// parallel makes n invocations that sleep for ms, and counts the outcomes.
func parallel(c *lambda.Client, name string, n, ms int) (outcomes map[string]int, answers map[string]int) {
	outcomes, answers = map[string]int{}, map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			out, err := c.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &name, Payload: fmt.Appendf(nil, `{"sleep":%d}`, ms)})
			key := "ok"
			var throttled *types.TooManyRequestsException
			switch {
			case errors.As(err, &throttled):
				key = "throttled: " + string(throttled.Reason)
			case err != nil:
				key = err.Error()
			case out.FunctionError != nil:
				key = string(out.Payload)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[key]++
			if key == "ok" {
				answers[string(out.Payload)]++
			}
		})
	}
	wg.Wait()
	return outcomes, answers
}

func Test64ParallelColdInvocationsAllSucceedSideBySide(t *testing.T) {
	s := start(t)
	c := deploy(t, s, "wide")
	outcomes, answers := parallel(c, "wide", 64, 3000)
	if outcomes["ok"] != 64 {
		t.Errorf("outcomes %v\n%s", outcomes, s.Log())
	}
	// Each environment answers with an id of its own. A few may have served
	// twice, where the host was slow to start the last ones.
	if len(answers) < 32 {
		t.Errorf("only %d environments served 64 parallel invocations", len(answers))
	}
}

func TestReservedConcurrencyOf8Throttles56Of64(t *testing.T) {
	s := start(t)
	c := deploy(t, s, "narrow")
	_, err := c.PutFunctionConcurrency(t.Context(), &lambda.PutFunctionConcurrencyInput{FunctionName: aws.String("narrow"), ReservedConcurrentExecutions: aws.Int32(8)})
	if err != nil {
		t.Fatal(err)
	}
	outcomes, _ := parallel(c, "narrow", 64, 5000)
	want := map[string]int{"ok": 8, "throttled: ReservedFunctionConcurrentInvocationLimitExceeded": 56}
	if !maps.Equal(outcomes, want) {
		t.Errorf("outcomes %v, want %v", outcomes, want)
	}
}

func TestKillLosesNothingAndLeavesNothing(t *testing.T) {
	before := leftovers(t, 0)
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
	if outcomes, _ := parallel(c, "durable", 3, 300); outcomes["ok"] != 3 {
		t.Fatalf("outcomes %v", outcomes)
	}
	env := maps.Clone(s.Env)
	time.Sleep(1200 * time.Millisecond) // what functions print is on disk within a second
	go parallel(c, "durable", 3, 5000)  // sandboxes at work when the kill comes
	time.Sleep(500 * time.Millisecond)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if now := leftovers(t, s.PID); !maps.Equal(before, now) {
		for _, key := range slices.Sorted(maps.Keys(now)) {
			if !before[key] {
				t.Errorf("left over: %s", key)
			}
		}
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

// leftovers lists the processes, cgroups, mounts and network namespaces on this
// host that have to do with Lapwing, but for the server itself.
func leftovers(t *testing.T, server int) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		cmdline, err := os.ReadFile(p + "/cmdline")
		if err != nil || filepath.Base(p) == fmt.Sprint(server) {
			continue
		}
		if name, _, _ := strings.Cut(string(cmdline), "\x00"); strings.Contains(name, "lapwing") {
			found["process "+strings.ReplaceAll(string(cmdline), "\x00", " ")] = true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "lapwing") || strings.Contains(line, t.TempDir()) {
			found["mount "+line] = true
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		// The daemon's own group may stay; a sandbox has one below it.
		if err == nil && d.IsDir() && strings.Contains(filepath.Base(filepath.Dir(path)), "lapwing") {
			found["cgroup "+path] = true
		}
		return nil
	})
	return found
}
