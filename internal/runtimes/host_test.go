package runtimes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInterpretersOfVersionManagersAreFoundNewestFirst(t *testing.T) {
	r := openTest(t)
	r.home = t.TempDir()
	for _, path := range []string{
		".nvm/versions/node/v22.9.0/bin/node",
		".nvm/versions/node/v22.10.1/bin/node",
		".nvm/versions/node/v2.2.0/bin/node",
		".asdf/installs/nodejs/22.3.0/bin/node",
		".local/share/fnm/node-versions/v22.11.0/installation/bin/node",
		".pyenv/versions/3.12.1/bin/python3.12",
		".pyenv/versions/3.12.10/bin/python3.12",
		".pyenv/versions/3.1.2/bin/python3.1",
		".local/share/uv/python/cpython-3.12.9-linux-x86_64-gnu/bin/python3.12",
	} {
		path = filepath.Join(r.home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string][]string{
		"nodejs22.x": {"v22.11.0/installation", "v22.10.1", "v22.9.0", "nodejs/22.3.0"},
		"python3.12": {"3.12.10", "cpython-3.12.9", "3.12.1/"},
	} {
		s, _ := lookup(id)
		got := slices.DeleteFunc(r.candidates(s), func(path string) bool { return !strings.HasPrefix(path, r.home) })
		if len(got) != len(want) {
			t.Errorf("%s: %v", id, got)
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %d is %s, want one with %s", id, i, got[i], want[i])
			}
		}
	}
}

// An interpreter of another version never stands in, and what one that does not
// run says is in the error.
func TestOnlyAnInterpreterOfTheVersionIsTaken(t *testing.T) {
	r := openTest(t)
	r.home = t.TempDir()
	path := filepath.Join(r.home, ".nvm/versions/node/v24.1.0/bin/node")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(script string) {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := spec{"nodejs24.x", nodeJS{}, "24"}
	write("echo 240.1.0")
	if in, _, ok := r.findOnHost(s); ok && in.program == path {
		t.Error("version 240.1.0 was taken for 24")
	}
	write("echo some words of it >&2; exit 3")
	if _, err := r.probes.version(s, path); err == nil || !strings.Contains(err.Error(), "some words of it") {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestCompareVersions(t *testing.T) {
	for _, pair := range [][2]string{{"22.9.0", "22.10.0"}, {"9.0.0", "10.0.0"}, {"3.12.1", "3.12.10"}, {"", "1.0.0"}} {
		if compareVersions(pair[0], pair[1]) >= 0 || compareVersions(pair[1], pair[0]) <= 0 {
			t.Errorf("%s is not before %s", pair[0], pair[1])
		}
	}
}

func TestOpenSweepsWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, "base", tmpPrefix+"old"), filepath.Join(dir, "base", tmpPrefix+"young")
	for _, tmp := range []string{old, young} {
		if err := os.MkdirAll(tmp, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * abandoned)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the old one is still there")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("the young one is gone: another process may be at work in it")
	}
}
