package main

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGoldenPackage compares the package of a small model with testdata/golden.
// The golden files end in .golden, so that nobody builds them.
func TestGoldenPackage(t *testing.T) {
	out := t.TempDir()
	if err := run("testdata/models", "testdata/operations.json", out); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "golden")
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(out, path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want := filepath.Join(golden, name+".golden")
		seen[want] = true
		if *update {
			if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
				return err
			}
			return os.WriteFile(want, got, 0o644)
		}
		expected, err := os.ReadFile(want)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, expected) {
			t.Errorf("%s differs from the golden file; if that is meant: go test ./cmd/awsgen -update", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(golden, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[f] {
			t.Errorf("%s is no longer generated", f)
		}
	}
}

// small returns the files of the small model for a list of operations.
func small(t *testing.T, operations ...string) (map[string]string, error) {
	t.Helper()
	var m model
	if err := readJSON("testdata/models/birds.json", &m); err != nil {
		t.Fatal(err)
	}
	return generate("birds", &m, list{Operations: operations})
}

func TestOnlyWhatTheOperationsReachIsEmitted(t *testing.T) {
	files, err := small(t, "GetNest")
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{"Unreached", "EggList", "Kind", "Song"} {
		if strings.Contains(files["schema.go"], "shape"+absent) {
			t.Errorf("%s is emitted", absent)
		}
	}
	if files["enums.go"] != "" || files["errors.go"] != "" {
		t.Error("files without content are emitted")
	}
	if !strings.Contains(files["service.go"], `{Operation: "PutNest", Method: "PUT"`) {
		t.Error("the route of an operation that is not served is missing")
	}
}

func TestOperationThatTheModelLacksIsAnError(t *testing.T) {
	if _, err := small(t, "Fly"); err == nil || !strings.Contains(err.Error(), "Fly") {
		t.Errorf("got %v", err)
	}
}

func TestOutputIsTheSameEveryTime(t *testing.T) {
	first, err := small(t, "PutNest", "Listen", "GetNest")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		again, err := small(t, "GetNest", "PutNest", "Listen")
		if err != nil {
			t.Fatal(err)
		}
		for name := range first {
			if first[name] != again[name] {
				t.Fatalf("%s changed", name)
			}
		}
	}
}

func TestPatternsOfJavaMatchWholeValues(t *testing.T) {
	for _, tt := range []struct {
		pattern, value string
		want           bool
	}{
		{`[a-z\u00DF]+`, "straße", true}, {`[a-z]+`, "a1", false}, {`a|b`, "ax", false}, {`[\u0020-\u00FF]*`, "é", true},
	} {
		re, err := schema.CompilePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := re.MatchString(tt.value); got != tt.want {
			t.Errorf("%s matches %q: %v", tt.pattern, tt.value, got)
		}
	}
	if _, err := schema.CompilePattern(`(?!x).*`); err == nil {
		t.Error("look-around compiles")
	}
}
