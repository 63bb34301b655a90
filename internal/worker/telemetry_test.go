package worker

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// withExtension returns a version of the test function with the program of
// testdata/telemetry as an extension.
func (b *bench) withExtension(t *testing.T) *function.Version {
	t.Helper()
	v := b.function(t)
	program := filepath.Join(b.dir, "extension")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/telemetry")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	v.Layers = b.image(t, map[string]string{"extensions/telemetry": string(content)})
	return v
}

// told returns what the extension was told: the type of each event and, for
// each, its first record.
func (b *bench) told(t *testing.T) (types []string, records map[string]map[string]any) {
	t.Helper()
	records = map[string]map[string]any{}
	for _, m := range regexp.MustCompile(`telemetry: (\S+) (.*)`).FindAllStringSubmatch(b.logs.text(), -1) {
		types = append(types, m[1])
		var r map[string]any
		if m[2] != "" && m[2][0] == '{' {
			if err := json.Unmarshal([]byte(m[2]), &r); err != nil {
				t.Fatal(err)
			}
		}
		if records[m[1]] == nil {
			records[m[1]] = r
		}
	}
	return types, records
}

func TestExtensionIsToldOfInitAndInvocation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.withExtension(t)
	b.expect(t, v, `{"do":"print","arg":"hello","n":1}`, "null")
	waitFor(t, func() bool { return b.InUse(v.FunctionARN()) == 0 })
	b.Retire(v.FunctionARN(), "")
	waitFor(t, func() bool { return strings.Contains(b.logs.text(), "telemetry: SHUTDOWN spindown\n") })

	types, records := b.told(t)
	// The function may have a word on SIGTERM too.
	if n := slices.Index(types, "function"); n >= 0 {
		types = slices.Concat(types[:n+1], slices.DeleteFunc(slices.Clone(types[n+1:]), func(t string) bool { return t == "function" }))
	}
	want := []string{
		"platform.initStart", "platform.telemetrySubscription", "platform.initRuntimeDone", "platform.extension",
		"platform.initReport", "platform.start", "function", "platform.runtimeDone", "platform.report", "SHUTDOWN",
	}
	if sorted := slices.Sorted(slices.Values(types)); !slices.Equal(sorted, slices.Sorted(slices.Values(want))) || types[0] != want[0] {
		t.Errorf("told\n%q, want\n%q", types, want)
	}
	for _, c := range []struct{ event, field, want string }{
		{"platform.initStart", "initializationType", `"on-demand"`},
		{"platform.initStart", "phase", `"init"`},
		{"platform.initStart", "functionName", `"f"`},
		{"platform.telemetrySubscription", "types", `["platform","function"]`},
		{"platform.initRuntimeDone", "status", `"success"`},
		{"platform.extension", "events", `["INVOKE","SHUTDOWN"]`},
		{"platform.extension", "state", `"Ready"`},
		{"platform.initReport", "status", `"success"`},
		{"platform.start", "requestId", `"` + requestID + `"`},
		{"platform.start", "version", `"$LATEST"`},
		{"platform.runtimeDone", "requestId", `"` + requestID + `"`},
		{"platform.runtimeDone", "status", `"success"`},
		{"platform.report", "status", `"success"`},
	} {
		if got, _ := json.Marshal(records[c.event][c.field]); string(got) != c.want {
			t.Errorf("%s has %s %s, want %s", c.event, c.field, got, c.want)
		}
	}
	spans, _ := json.Marshal(records["platform.runtimeDone"]["spans"])
	for _, name := range []string{"responseLatency", "responseDuration", "runtimeOverhead"} {
		if !strings.Contains(string(spans), `"`+name+`"`) {
			t.Errorf("no span %s in %s", name, spans)
		}
	}
	log := b.logs.text()
	for _, line := range []string{
		"TELEMETRY\tName: telemetry\tState: Subscribed\tTypes: [Platform, Function]\n",
		"EXTENSION\tName: telemetry\tState: Ready\tEvents: [INVOKE,SHUTDOWN]\n",
	} {
		if !strings.Contains(log, line) {
			t.Errorf("no line %q in the log:\n%s", line, log)
		}
	}
	// The time of the extension is part of the duration, and told apart.
	b.meter.mu.Lock()
	u := b.meter.usage[0]
	b.meter.mu.Unlock()
	if u.PostRuntime < 50*time.Millisecond || u.Duration < u.PostRuntime {
		t.Errorf("duration %v, of that extensions %v", u.Duration, u.PostRuntime)
	}
	done := records["platform.runtimeDone"]["metrics"].(map[string]any)
	if ms := done["durationMs"].(float64); ms <= 0 || ms > milliseconds(u.Duration-u.PostRuntime)+1 || done["producedBytes"] != float64(len("null")) {
		t.Errorf("runtimeDone has the metrics %v, the usage is %+v", done, u)
	}
}

func TestExtensionIsToldOfATimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.withExtension(t)
	v.Timeout = time.Second
	b.expect(t, v, `{"do":"sleep","n":600000}`, timedOut("1.00"))
	waitFor(t, func() bool { return strings.Contains(b.logs.text(), "telemetry: SHUTDOWN timeout\n") })
	types, records := b.told(t)
	if got, _ := json.Marshal(records["platform.runtimeDone"]); !strings.Contains(string(got), `"status":"timeout"`) {
		t.Errorf("runtimeDone is %s, among %q", got, types)
	}
}

func TestFailedExtensionFailsInit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.Layers = b.image(t, map[string]string{"extensions/x": "no program"})
	got, _ := b.invoke(t, v, `{"do":"count"}`)
	if !strings.Contains(got, `"errorType":"Extension.LaunchError"`) {
		t.Errorf("got %s", got)
	}
	waitFor(t, func() bool { return strings.Contains(b.logs.text(), "REPORT") })
	log := b.logs.text()
	for _, line := range []string{
		"EXTENSION\tName: x\tState: LaunchError\tEvents: []\tError Type: Extension.LaunchError\n",
		"Phase: init\tStatus: error\tError Type: Extension.LaunchError\n",
	} {
		if !strings.Contains(log, line) {
			t.Errorf("no %q in the log:\n%s", line, log)
		}
	}
}
