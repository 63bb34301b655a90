package conformance_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"lapwing.dev/lapwing/test/harness"
)

// officialClientTests are functions on the provided runtimes that bring AWS's own
// runtime interface clients along, and one in C that brings none.
func officialClientTests(t *testing.T) (tests []runtimeTest) {
	t.Helper()
	tests = append(tests, pythonClientTests(t)...)
	tests = append(tests, nodeClientTests(t)...)
	tests = append(tests, program("lambda_runtime", buildRust(t, "function"), []runtimeTest{
		{name: "echo", event: `{"Echo":{"a":[1,"é"]}}`, want: `{"a":[1,"é"]}`, logs: []string{startLine, endLine, report}},
		{name: "context", event: `{"Do":"context"}`, check: wantContext},
		{name: "environment", event: `{"Do":"env"}`, check: wantEnv},
		{name: "streams", event: `{"Do":"log"}`, want: `null`, logs: []string{`^from stdout of {id}$`, `^from stderr of {id}$`}},
		{name: "error", event: `{"Do":"fail"}`, fails: "Broken", says: `^as told$`},
		{name: "exit", event: `{"Do":"exit"}`, fails: "Runtime.ExitError", says: exited},
		{name: "timeout", event: `{"Do":"sleep"}`, timeout: 2, fails: "Sandbox.Timedout", says: timedOut},
	})...)
	return append(tests, program("C", buildC(t), []runtimeTest{
		{name: "echo", event: `{"a":[1,"é"]}`, again: 1, want: `{"a":[1,"é"]}`, logs: []string{startLine, endLine, report}},
		{name: "streams", event: `"log"`, want: `"log"`, logs: []string{`^from stdout of {id}$`}},
		{name: "error", event: `"fail"`, fails: "Broken", says: `^as told$`},
		{name: "exit", event: `"exit"`, fails: "Runtime.ExitError", says: exited},
		{name: "timeout", event: `"sleep"`, timeout: 2, fails: "Sandbox.Timedout", says: timedOut},
	})...)
}

// program makes the tests those of one bootstrap.
func program(name, bootstrap string, tests []runtimeTest) []runtimeTest {
	for i := range tests {
		tests[i].name = name + " " + tests[i].name
		tests[i].handler = "x"
		tests[i].files = map[string]string{"bootstrap*": bootstrap}
	}
	return tests
}

// pythonClientTests are those of the Python runtimes that depend on the client
// alone, with awslambdaric from PyPI and this host's Python.
func pythonClientTests(t *testing.T) []runtimeTest {
	t.Helper()
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatalf("the provided runtimes have this host's Python: %v", err)
	}
	version := strings.TrimPrefix(filepath.Base(python), "python")
	dir := t.TempDir()
	platform := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	install := exec.Command("python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target", dir,
		"--only-binary=:all:", "--python-version", version, "--platform", "manylinux2014_"+platform, "awslambdaric")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", install.Args, err, out)
	}
	client := filesBelow(t, dir)
	client["bootstrap*"] = "#!/bin/sh\nexport PYTHONPATH=/var/task\nexec /usr/bin/python3 -u -B -m awslambdaric \"$_HANDLER\"\n"
	return onClient("awslambdaric", client, pythonTests)
}

// nodeClientTests are those of the Node.js runtimes that depend on the client
// alone, with aws-lambda-ric from npm and this host's Node.js: the client has
// native code, which is compiled for one version. It is kept for the next run.
func nodeClientTests(t *testing.T) []runtimeTest {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "bin", "tools", "aws-lambda-ric")
	client := filepath.Join(dir, "node_modules", "aws-lambda-ric")
	if _, err := os.Stat(filepath.Join(client, "dist", "rapid-client.node")); err != nil {
		install := exec.Command("npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--loglevel=error", "aws-lambda-ric@3.3.0")
		install.Env = append(os.Environ(), "npm_config_nodedir=/usr")
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", install.Args, err, out)
		}
	}
	files := map[string]string{"bootstrap*": "#!/bin/sh\nexec /usr/bin/node /var/task/node_modules/aws-lambda-ric/bin/index.mjs \"$_HANDLER\"\n"}
	for _, folder := range []string{"bin", "dist"} {
		for name, body := range filesBelow(t, filepath.Join(client, folder)) {
			files["node_modules/aws-lambda-ric/"+folder+"/"+name] = body
		}
	}
	return onClient("aws-lambda-ric", files, nodeTests)
}

// onClient makes tests of a managed runtime those of a runtime interface client
// that comes with the function. It leaves out what AWS's own bootstrap does
// around the client.
func onClient(name string, client map[string]string, managed []runtimeTest) (tests []runtimeTest) {
	for _, tt := range managed {
		if tt.only != "" || tt.json || len(tt.layers) > 0 {
			continue
		}
		tt.name = name + " " + tt.name
		// Only managed runtimes are told where a record of several lines ends.
		tt.logs = slices.DeleteFunc(slices.Clone(tt.logs), func(l string) bool { return strings.HasPrefix(l, "(?s)") })
		files := maps.Clone(client)
		maps.Copy(files, tt.files)
		tt.files = files
		tests = append(tests, tt)
	}
	return tests
}

// filesBelow reads all files below a directory.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir+"/")] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// buildRust builds one of the programs on AWS's crates. All are built together,
// once, and what cargo made of them is kept for the next run.
func buildRust(t *testing.T, name string) string {
	t.Helper()
	dir, err := rustPrograms()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var rustPrograms = sync.OnceValues(func() (string, error) {
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	target := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + "-unknown-linux-gnu"
	dir := filepath.Join(root, "bin", "tools", "cargo")
	cmd := exec.Command("cargo", "build", "--quiet", "--locked", "--target", target, "--target-dir", dir)
	cmd.Dir = "rust"
	cmd.Env = append(os.Environ(), "RUSTFLAGS=-C target-feature=+crt-static", "CARGO_PROFILE_DEV_DEBUG=0")
	cmd.Stderr = os.Stderr
	return filepath.Join(dir, target, "debug"), cmd.Run()
})

// buildC builds the custom runtime in C.
func buildC(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bootstrap")
	if out, err := exec.Command("cc", "-static", "-O2", "-Wall", "-o", path, "cfunction/main.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
