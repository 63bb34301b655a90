package runtimes

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCommandFitsTheHeapToTheMemory(t *testing.T) {
	node := &Runtime{language: nodeJS{}, Command: []string{"node", "index.js"}}
	tests := []struct {
		memory  int
		options string
		want    string
	}{
		{128, "", "node --expose-gc --max-http-header-size=81920 --max-semi-space-size=6 --max-old-space-size=116 index.js"},
		{10240, "--enable-source-maps", "node --expose-gc --max-http-header-size=81920 --max-semi-space-size=512 --max-old-space-size=9216 index.js"},
		{128, "--max_old_space_size=64", "node --expose-gc --max-http-header-size=81920 index.js"},
		{128, "--max-semi-space-size=2", "node --expose-gc --max-http-header-size=81920 index.js"},
	}
	for _, tt := range tests {
		got := node.CommandFor(tt.memory, map[string]string{"NODE_OPTIONS": tt.options})
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%d MB, %q: %v", tt.memory, tt.options, got)
		}
	}
	if len(node.Command) != 2 {
		t.Errorf("Command was changed: %v", node.Command)
	}
	python := &Runtime{language: cPython{}, Command: []string{"python", "x"}}
	if got := python.CommandFor(128, nil); !slices.Equal(got, python.Command) {
		t.Errorf("Python: %v", got)
	}
	if got := (&Runtime{}).CommandFor(128, map[string]string{wrapperVariable: "/opt/w"}); got != nil {
		t.Errorf("provided: %v", got)
	}
}

func TestCommandGoesThroughTheWrapper(t *testing.T) {
	wrapper := filepath.Join(t.TempDir(), "wrapper")
	rt := &Runtime{language: cPython{}, Command: []string{"/bin/echo", "started with", "two words"}}
	run := func() (string, int) {
		command := rt.CommandFor(128, map[string]string{wrapperVariable: wrapper})
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			if _, ok := err.(*exec.ExitError); !ok {
				t.Fatal(err)
			}
			return string(out), err.(*exec.ExitError).ExitCode()
		}
		return string(out), 0
	}
	if out, code := run(); code != 127 || !strings.Contains(out, "does not exist") {
		t.Errorf("missing: %d, %q", code, out)
	}
	if err := os.WriteFile(wrapper, []byte("#!/bin/sh\necho wrapped; exec \"$@\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code := run(); code != 126 || !strings.Contains(out, "is not an executable") {
		t.Errorf("not executable: %d, %q", code, out)
	}
	if err := os.Chmod(wrapper, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := run(); code != 0 || out != "wrapped\nstarted with two words\n" {
		t.Errorf("%d, %q", code, out)
	}
}

func TestOnlyVariablesThatNothingReadsAtItsBootFollowABlankRuntime(t *testing.T) {
	own := map[string]string{"TZ": ":UTC", "NODE_PATH": "/opt/nodejs", "PATH": "/bin"}
	rt := &Runtime{Command: []string{"node"}, Env: own, BootVariables: nodeJS{}.bootVariables()}
	for want, cases := range map[bool][]string{
		true:  {"OWN=1", "NODE_ENV=production", "NODE_CONFIG_DIR=/opt", "AWS_NODEJS_CONNECTION_REUSE_ENABLED=1", "TZ=:UTC", "PATH=/opt/bin", "NODE_PATH=/opt/nodejs"},
		false: {"NODE_OPTIONS=--enable-source-maps", "NODE_EXTRA_CA_CERTS=/opt/ca", "NODE_PATH=/x", "NODE_CONFIGURED=1", "TZ=Europe/Berlin", "LD_PRELOAD=x", "LC_ALL=C", "LANG=C", "UV_THREADPOOL_SIZE=9", "AWS_LAMBDA_EXEC_WRAPPER=/opt/w"},
	} {
		for _, c := range cases {
			env := maps.Clone(own)
			name, value, _ := strings.Cut(c, "=")
			env[name] = value
			if got := rt.Blank(env); got != want {
				t.Errorf("%s: %v", c, got)
			}
			if (&Runtime{Env: own}).Blank(env) {
				t.Errorf("%s: a runtime that takes no part", c)
			}
		}
	}
	if rt.Blank(map[string]string{"PATH": "/bin"}) {
		t.Error("variables that the blank has are missing")
	}
}
