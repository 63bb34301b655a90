package runtimes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openTest(t testing.TB) *Registry {
	t.Helper()
	r, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProvidedRuntimesResolveEverywhere(t *testing.T) {
	r := openTest(t)
	for _, id := range []string{"provided.al2023", "provided.al2"} {
		rt, err := r.Resolve(id)
		if err != nil {
			t.Fatal(err)
		}
		if len(rt.Command) != 0 || len(rt.Candidates) != 2 || rt.Candidates[0] != "/var/task/bootstrap" {
			t.Errorf("%s: Command %v, Candidates %v", id, rt.Command, rt.Candidates)
		}
		if _, ok := rt.Env["AWS_EXECUTION_ENV"]; ok {
			t.Errorf("%s: AWS_EXECUTION_ENV is set, on AWS it is not", id)
		}
		if arn := rt.VersionARN("eu-west-1"); !strings.HasPrefix(arn, "arn:aws:lambda:eu-west-1::runtime:") || len(arn) != 34+64 {
			t.Errorf("%s: VersionARN %q", id, arn)
		}
	}
}

func TestResolveRefusesUnknownRuntimes(t *testing.T) {
	r := openTest(t)
	for _, id := range []string{"", "nodejs18.x", "python2.7", "nodejs22", "NODEJS22.x", "../nodejs22.x"} {
		_, err := r.Resolve(id)
		var unknown *UnknownError
		if !errors.As(err, &unknown) {
			t.Errorf("Resolve(%q) = %v, want *UnknownError", id, err)
		}
	}
}

// Every mount of a runtime that resolves exists, lies at an absolute path, and
// nothing of the host but /usr, an interpreter's prefix and our own files is in it.
func TestResolvedRuntimesMountOnlyWhatTheyNeed(t *testing.T) {
	r := openTest(t)
	resolved := 0
	for _, id := range IDs() {
		rt, err := r.Resolve(id)
		if err != nil {
			var unavailable *UnavailableError
			if !errors.As(err, &unavailable) || !strings.Contains(err.Error(), id) || !strings.Contains(strings.ToLower(err.Error()), "install") {
				t.Errorf("Resolve(%s) = %v, want an *UnavailableError that names the runtime and what to do", id, err)
			}
			continue
		}
		resolved++
		for _, m := range rt.Mounts {
			if _, err := os.Stat(m.Source); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) {
				t.Errorf("%s: mount %+v is not absolute", id, m)
			}
			if m.Source == "/" || m.Source == "/usr" || m.Source == "/usr/local" || strings.HasPrefix(m.Source, "/etc") {
				t.Errorf("%s: mounts %s of the host", id, m.Source)
			}
		}
	}
	if resolved < 2 {
		t.Errorf("only %d runtimes resolve", resolved)
	}
}
