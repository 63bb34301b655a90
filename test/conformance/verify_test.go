package conformance_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lapwing.dev/lapwing/test/harness"
)

// verified is what `lapwing runtimes verify --json` prints of a runtime.
type verified struct {
	Runtime string
	Checks  []struct{ Name, Result, Reason string }
}

// verifyRuntimes runs `lapwing runtimes verify` and returns its reports.
func verifyRuntimes(t *testing.T, data string, ids ...string) (reports []verified, failed bool) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "lapwing"), append([]string{"runtimes", "verify", "--json", "--data", data}, ids...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if jsonErr := json.Unmarshal(out, &reports); jsonErr != nil {
		t.Fatalf("%v: %v\n%s\n%s", cmd.Args, err, out, stderr.Bytes())
	}
	return reports, err != nil
}

// One runtime of each kind passes the checks that Lapwing has for its users.
func TestRuntimesPassVerify(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes a sandbox for each check")
	}
	passVerify(t, "nodejs22.x", "ruby3.3", "provided.al2023")
}

// Every runtime that this machine can hold does.
func TestEveryRuntimePassesVerify_Conformance(t *testing.T) {
	needs(t, "Maven")
	passVerify(t, obtainable(t, []string{
		"nodejs20.x", "nodejs22.x", "nodejs24.x", "python3.11", "python3.12", "python3.13", "java17", "java21", "java25", "ruby3.3", "provided.al2023", "provided.al2",
	})...)
}

func passVerify(t *testing.T, ids ...string) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if err := harness.AddRuntimes(data, ids...); err != nil {
		t.Fatal(err)
	}
	reports, failed := verifyRuntimes(t, data, ids...)
	if failed || len(reports) != len(ids) {
		t.Errorf("%d reports of %v, failed: %t", len(reports), ids, failed)
	}
	for _, r := range reports {
		line := []string{r.Runtime}
		for _, c := range r.Checks {
			line = append(line, c.Name+" "+c.Result)
			if c.Result != "ok" && (c.Result != "n/a" || c.Name != "streaming") {
				t.Errorf("%s, %s: %s: %s", r.Runtime, c.Name, c.Result, c.Reason)
			}
		}
		t.Log(strings.Join(line, ", "))
	}
}
