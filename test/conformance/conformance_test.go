// Package conformance_test drives the built program from outside, as users do:
// each official client takes a function through its life.
//
// The clients are the AWS CLI and boto3 of this machine (Debian's packages), the
// SDK for Go of go.mod, and the SDK for JavaScript from npm. Tests that need other
// registries run with LAPWING_CONFORMANCE=all, among them the newest AWS CLI and
// boto3 from PyPI; their names end in _Conformance.
package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// nodeRuntime is the runtime that the clients' functions use.
const nodeRuntime = "nodejs22.x"

var server *harness.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// Most of a test is waiting: for a sandbox, a line in a log, a deadline.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "lapwing-conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	if err := harness.AddRuntimes(data, nodeRuntime); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if server, err = harness.Start(data); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Stop()
	return m.Run()
}

// code returns the test function in one of its versions.
func code(version int) []byte {
	return harness.Zip(map[string]string{"index.js": fmt.Sprintf(`
exports.handler = async (event) => {
  if (event.fail) throw new Error(event.fail);
  return { event, version: %d };
};`, version)})
}

// needs leaves a test to `make conformance`, for what it needs is in registries
// that `make test` does without. `make conformance` knows it by its name.
func needs(t *testing.T, what string) {
	t.Helper()
	if !strings.HasSuffix(t.Name(), "_Conformance") {
		t.Fatal("`make conformance` runs tests whose names end in _Conformance only")
	}
	if os.Getenv("LAPWING_CONFORMANCE") != "all" {
		t.Skipf("needs %s: `make conformance` runs it", what)
	}
}

func TestMakeConformanceMissesNoTest(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if f != "conformance_test.go" && bytes.Contains(b, []byte("LAPWING_CONFORMANCE")) {
			t.Errorf("%s: call needs instead of asking for LAPWING_CONFORMANCE", f)
		}
	}
}

func role() string { return "arn:aws:iam::" + server.Account() + ":role/conformance" }

// client runs a client's script with all that it needs in the environment.
func client(t *testing.T, name string, extra []string, command ...string) {
	t.Helper()
	dir := t.TempDir()
	env := append(server.Environ(), "NAME="+name, "RUNTIME="+nodeRuntime, "ROLE="+role())
	for i := 1; i <= 2; i++ {
		path := filepath.Join(dir, fmt.Sprintf("v%d.zip", i))
		if err := os.WriteFile(path, code(i), 0o644); err != nil {
			t.Fatal(err)
		}
		env = append(env, fmt.Sprintf("V%d=%s", i, path))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(env, extra...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasSuffix(bytes.TrimSpace(out), []byte("OK")) {
		t.Fatalf("%s: %v\n%s\nserver:\n%s", strings.Join(command, " "), err, out, server.Log())
	}
}

// explicit tells the clients of this machine, which may be old, the endpoint as a
// parameter instead of by AWS_ENDPOINT_URL.
var explicit = []string{"EXPLICIT_ENDPOINT=1"}

func TestAWSCLI(t *testing.T) {
	t.Parallel()
	client(t, "with-cli", explicit, "sh", "clients/lifecycle.sh")
}

func TestDataStreamsByBoto3(t *testing.T) {
	t.Parallel()
	client(t, "with-boto3", explicit, "python3", "clients/streams.py")
}

func TestBoto3(t *testing.T) {
	t.Parallel()
	client(t, "with-boto3", explicit, "python3", "clients/lifecycle.py")
}

func TestSDKForJavaScript(t *testing.T) {
	t.Parallel()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	// The packages are kept between runs: they are a dependency like any other.
	dir := filepath.Join(root, "bin", "tools", "sdk-js")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "lifecycle.mjs"} {
		b, err := os.ReadFile(filepath.Join("clients", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(root, "scripts", "npm"), "install", "--prefix", dir, "--no-audit", "--no-fund", "--loglevel=error")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	node, err := server.Interpreter(nodeRuntime)
	if err != nil {
		t.Fatal(err)
	}
	client(t, "with-js", nil, node, filepath.Join(dir, "lifecycle.mjs"))
}

func TestNewestPythonClients_Conformance(t *testing.T) {
	t.Parallel()
	needs(t, "PyPI")
	venv := filepath.Join(t.TempDir(), "venv")
	for _, command := range [][]string{
		{"python3", "-m", "venv", venv},
		{filepath.Join(venv, "bin", "pip"), "install", "-q", "--disable-pip-version-check", "awscli", "boto3[crt]"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	path := []string{"PATH=" + filepath.Join(venv, "bin") + ":" + os.Getenv("PATH")}
	client(t, "with-new-cli", path, "sh", "clients/lifecycle.sh")
	python := filepath.Join(venv, "bin", "python3") // by the test's own PATH it would be another
	client(t, "with-new-boto3", nil, python, "clients/lifecycle.py")
	keyValueStore(t, cloudfront.NewFromConfig(server.Config()), "with-boto3-crt", `{"data":[]}`)
	client(t, "with-boto3-crt", nil, python, "clients/keyvaluestore.py")
}

func TestSDKForGo(t *testing.T) {
	t.Parallel()
	c := lambda.NewFromConfig(server.Config())
	ctx := t.Context()
	name := aws.String("with-go")
	_, err := c.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: name, Runtime: nodeRuntime, Handler: aws.String("index.handler"), Role: aws.String(role()), MemorySize: aws.Int32(1769), Timeout: aws.Int32(60),
		Code: &types.FunctionCode{ZipFile: code(1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	get := &lambda.GetFunctionInput{FunctionName: name}
	active := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 100 * time.Millisecond })
	updated := lambda.NewFunctionUpdatedV2Waiter(c, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = 100 * time.Millisecond })
	if err := active.Wait(ctx, get, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	version := func(qualifier string) int {
		t.Helper()
		out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: name, Qualifier: &qualifier, Payload: []byte(`{"who":"go"}`)})
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Event   map[string]string
			Version int
		}
		if err := json.Unmarshal(out.Payload, &answer); err != nil || answer.Event["who"] != "go" {
			t.Fatalf("answer %s: %v", out.Payload, err)
		}
		return answer.Version
	}
	if v := version("$LATEST"); v != 1 {
		t.Errorf("version %d", v)
	}
	if _, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: name, ZipFile: code(2)}); err != nil {
		t.Fatal(err)
	}
	if err := updated.Wait(ctx, get, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: name, Name: aws.String("live"), FunctionVersion: aws.String("1")}); err != nil {
		t.Fatal(err)
	}
	if latest, live := version("$LATEST"), version("live"); latest != 2 || live != 1 {
		t.Errorf("$LATEST %d, live %d", latest, live)
	}
	var names []string
	for pages := lambda.NewListFunctionsPaginator(c, &lambda.ListFunctionsInput{MaxItems: aws.Int32(1)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Functions {
			names = append(names, *f.FunctionName)
		}
	}
	if !strings.Contains(strings.Join(names, " "), "with-go") {
		t.Errorf("functions %v", names)
	}
	if _, err := c.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: name}); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetFunction(ctx, get)
	if _, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok {
		t.Errorf("error after the deletion: %v", err)
	}
}
