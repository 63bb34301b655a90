package worker

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/invoke"
)

// exited is the document of a runtime that ended for a reason.
func exited(reason string) string {
	return `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + requestID + ` Error: Runtime exited ` + reason + `"}`
}

func timedOut(seconds string) string {
	return `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: ` + requestID + ` Error: Task timed out after ` + seconds + ` seconds"}`
}

// Each of these ends the runtime with AWS's own payload. The environment is reset,
// unless its sandbox is lost: the next invocation has a new runtime, and what is
// in /tmp.
func TestEnvironmentIsResetAfterAFailureOfTheRuntime(t *testing.T) {
	for _, c := range []struct{ name, event, want, report string }{
		{"exit 0", `{"do":"exit","n":0}`, exited("without providing a reason"), "Status: error\tError Type: Runtime.ExitError"},
		{"exit 7", `{"do":"exit","n":7}`, exited("with error: exit status 7"), "Status: error\tError Type: Runtime.ExitError"},
		{"killed", `{"do":"kill"}`, exited("with error: signal: killed"), "Status: error\tError Type: Runtime.ExitError"},
		{"timeout", `{"do":"sleep","n":600000}`, timedOut("1.00"), "Status: timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			v := b.function(t)
			b.expect(t, v, `{"do":"write","arg":"/tmp/kept","n":1}`, "null")
			if c.name == "timeout" {
				v.Timeout = time.Second
			}
			res := b.expect(t, v, c.event, c.want)
			if !strings.Contains(string(res.LogTail), c.report) {
				t.Errorf("REPORT lacks %q:\n%s", c.report, res.LogTail)
			}
			v.Timeout = 2 * time.Minute // of the suppressed init too, on a busy host
			res = b.expect(t, v, `{"do":"read","arg":"/tmp/kept"}`, `"\u0000"`)
			if strings.Contains(string(res.LogTail), "Init Duration") {
				t.Errorf("a suppressed init shows:\n%s", res.LogTail)
			}
			b.expect(t, v, `{"do":"count"}`, "2") // of the new runtime
			// The log follows the answers.
			waitFor(t, func() bool { return strings.Count(b.logs.text(), "REPORT RequestId") == 4 })
			if n, logs := len(b.sandboxes.made()), b.logs.environments(); n != 1 || logs != 1 {
				t.Errorf("%d sandboxes, %d log streams", n, logs)
			}
			if strings.Contains(b.logs.text(), "SIGTERM") {
				t.Error("a runtime without extensions got SIGTERM")
			}
		})
	}
}

func TestOverrunOfMemoryEndsTheEnvironment(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.MemoryMB = 256
	b.expect(t, v, `{"do":"count"}`, "1")
	res := b.expect(t, v, `{"do":"allocate","n":600}`, exited("with error: signal: killed"))
	for _, want := range []string{"Memory Size: 256 MB\tMax Memory Used: 256 MB\t", "Status: error\tError Type: Runtime.OutOfMemory"} {
		if !strings.Contains(string(res.LogTail), want) {
			t.Errorf("REPORT lacks %q:\n%s", want, res.LogTail)
		}
	}
	b.expect(t, v, `{"do":"count"}`, "1")
}

func TestInitThatTimesOutIsRepeatedWithinTheInvocation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.worker.initTimeout = time.Second
	v := b.function(t)
	v.Env = map[string]string{"SLOW_INIT": "/tmp/was-slow"} // in the same sandbox
	res := b.expect(t, v, `{"do":"count"}`, "1")
	// As Lambda's supervisor, START follows the suppressed init.
	if tail := string(res.LogTail); !strings.HasPrefix(tail, "START ") || strings.Contains(tail, "Init Duration") {
		t.Errorf("log of the invocation:\n%s", tail)
	}
	b.Retire(v.FunctionARN(), "")
	report := regexp.MustCompile(`INIT_REPORT Init Duration: \d{4,}\.\d\d ms\tPhase: init\tStatus: timeout\n`)
	waitFor(t, func() bool { return report.MatchString(b.logs.text()) })
}

func TestInitThatTimesOutTwiceIsATimeoutOfTheInvocation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.worker.initTimeout = 100 * time.Millisecond
	v := b.function(t)
	v.Timeout = time.Second
	v.Env = map[string]string{"SLOW_INIT": "/tmp/no/such/file"}
	res := b.expect(t, v, `{"do":"count"}`, timedOut("1.00"))
	log := regexp.MustCompile(`^INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: invoke\tStatus: timeout
START RequestId: .*
END RequestId: .*
REPORT .*\tDuration: \d{4,}\.\d\d ms\t.*\tStatus: timeout
$`)
	if !log.Match(res.LogTail) {
		t.Errorf("log of the invocation:\n%s", res.LogTail)
	}
}

func TestProvisionedEnvironmentHasLongerForItsInit(t *testing.T) {
	w := New(Options{})
	for _, c := range []struct {
		provisioned    bool
		timeout, limit time.Duration
	}{
		{false, 900 * time.Second, 10 * time.Second},
		{true, 3 * time.Second, 130 * time.Second},
		{true, 900 * time.Second, 900 * time.Second},
	} {
		e := &environment{w: w, initType: initOnDemand, v: version(c.timeout)}
		if c.provisioned {
			e.initType = initProvisioned
		}
		if got := e.initLimit(); got != c.limit {
			t.Errorf("provisioned %v, timeout %v: %v, want %v", c.provisioned, c.timeout, got, c.limit)
		}
	}
}

func TestInitThatFailsIsRepeatedWithinTheInvocation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.Env = map[string]string{"FAIL_INIT": "1"}
	res := b.expect(t, v, `{"do":"count"}`, exited("with error: exit status 3"))
	if n := strings.Count(string(res.LogTail), "failing on purpose"); n != 1 {
		t.Errorf("the suppressed init printed %d times within the invocation:\n%s", n, res.LogTail)
	}
	b.Retire(v.FunctionARN(), "")
	for _, phase := range []string{"init", "invoke"} {
		line := "ms\tPhase: " + phase + "\tStatus: error\tError Type: Runtime.ExitError\n"
		waitFor(t, func() bool { return strings.Contains(b.logs.text(), line) })
	}
	if n := strings.Count(b.logs.text(), "failing on purpose"); n != 2 {
		t.Errorf("it was initialised %d times", n)
	}
}

func TestCallerGetsTheRuntimesOwnInitError(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const document = `{"errorType":"Runtime.ImportModuleError","errorMessage":"no module"}`
	v := b.custom(t, map[string]string{"bootstrap": `#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/9001
body='` + document + `'
printf 'POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Error-Type: Runtime.ImportModuleError\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body" >&3
read -r line <&3
exit 1
`})
	res := b.expect(t, v, `{}`, document)
	if !strings.Contains(string(res.LogTail), "Phase: invoke\tStatus: error\tError Type: Runtime.ImportModuleError") {
		t.Errorf("log:\n%s", res.LogTail)
	}
}

// The dispatcher asks whether an environment is alive before it uses one, but the
// runtime may end just after that, and its sandbox too.
func TestWhatEndedBetweenInvocationsIsReplacedWithinTheNext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	env, err := b.worker.Start(t.Context(), invoke.Spec{Version: v})
	if err != nil {
		t.Fatal(err)
	}
	defer env.Close()
	e := env.(*environment)
	e.unpark()
	runs := 0
	run := func(payload string) (string, *failure) {
		t.Helper()
		runs++
		req := &invoke.Request{Version: v, RequestID: requestID, Payload: []byte(payload), Tail: true}
		i := &invocation{e: e, ctx: t.Context(), req: req, r: response{req: req, call: new(invoke.Call)}, began: time.Now()}
		i.run()
		i.settle()
		if i.err != nil {
			t.Fatalf("%s: %v", payload, i.err)
		}
		return i.r.held.String(), cmp.Or(i.fail, i.r.failure)
	}
	counts := func() {
		t.Helper()
		if got, fail := run(`{"do":"count"}`); got != "1" || fail != nil {
			t.Errorf("the new runtime counts to %q, %+v", got, fail)
		}
	}
	// On a busy host it may end before it has answered.
	for soon := 20; ; soon *= 4 {
		if _, fail := run(fmt.Sprintf(`{"do":"exit soon","n":%d}`, soon)); fail == nil {
			break
		}
	}
	waitFor(t, func() bool { return e.in.conn.Exited() != nil })
	counts()
	if err := e.in.sandbox.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	counts()
	starts := func() int { return strings.Count(b.logs.text(), "START RequestId: ") }
	waitFor(t, func() bool { return starts() >= runs })
	if got := starts(); got != runs {
		t.Errorf("START is told %d times of %d invocations", got, runs)
	}
}

func TestExtensionIsToldWhyTheEnvironmentEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.opt.dir = filepath.Join(b.dir, "opt")
	if err := os.MkdirAll(filepath.Join(b.opt.dir, "extensions"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.opt.dir, "extensions", "x"), testFunction(t), 0o755); err != nil {
		t.Fatal(err)
	}
	v := b.function(t)
	told := func(what string) {
		t.Helper()
		waitFor(t, func() bool { return strings.Contains(b.logs.text(), "extension: "+what+"\n") })
	}
	v.Timeout = time.Second
	b.expect(t, v, `{"do":"sleep","n":600000}`, timedOut("1.00"))
	told("SHUTDOWN timeout")
	v.Timeout = 2 * time.Minute
	b.expect(t, v, `{"do":"exit","n":1}`, exited("with error: exit status 1"))
	told("SHUTDOWN failure")
	b.expect(t, v, `{"do":"count"}`, "1")
	b.Retire(v.FunctionARN(), "")
	told("SHUTDOWN spindown")
	if n := len(b.sandboxes.made()); n != 1 {
		t.Errorf("%d sandboxes", n)
	}
}

func TestRuntimeThatRegistersForItGetsSIGTERMAtTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.Env = map[string]string{"SIGTERM": "1"}
	b.expect(t, v, `{"do":"count"}`, "1")
	b.Retire(v.FunctionARN(), "")
	waitFor(t, func() bool { return strings.Contains(b.logs.text(), "got SIGTERM\n") })
}

func TestIdleEnvironmentUsesNoCPUAndGoesOnAfterwards(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	b.expect(t, v, `{"do":"background"}`, "null")
	b.expect(t, v, `{"do":"timer","n":60000}`, "null")
	cpu := func() int64 {
		t.Helper()
		st, err := b.sandboxes.made()[0].Stats()
		if err != nil {
			t.Fatal(err)
		}
		return st.CPUNanos
	}
	var before int64
	waitFor(t, func() bool { // longer than its share of the CPU lets it pause
		before = cpu()
		time.Sleep(500 * time.Millisecond)
		return cpu() == before
	})
	// Background work goes on with the next invocation, and so do timers.
	b.expect(t, v, `{"do":"timer","n":1}`, "null")
	waitFor(t, func() bool {
		b.expect(t, v, `{"do":"sleep","n":50}`, `"slept"`)
		return strings.Contains(b.logs.text(), "the timer rang")
	})
	if now := cpu(); now == before {
		t.Error("background work did not go on")
	}
}
