package conformance_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"lapwing.dev/lapwing/test/harness"
)

// Versions of AWS's runtime interface clients, as their registries have them.
const (
	pythonClient = "awslambdaric==4.2.2"
	nodeClient   = "aws-lambda-ric@4.0.2"
	javaClient   = "com.amazonaws:aws-lambda-java-runtime-interface-client:2.10.1"
)

func TestPythonClientOnDebianImage_Conformance(t *testing.T) {
	needs(t, "PyPI and skopeo")
	t.Parallel()
	python := command(t, "sh", "-c", `apt-cache depends python3-minimal | sed -n 's/.*Depends: *\(python3\.[0-9]*\)-minimal$/\1/p'`)
	task := filepath.Join(t.TempDir(), "function")
	venv := filepath.Join(t.TempDir(), "venv")
	command(t, "python3", "-m", "venv", venv)
	command(t, filepath.Join(venv, "bin", "pip"), "install", "-q", "--disable-pip-version-check", "--only-binary=:all:",
		"--python-version", strings.TrimPrefix(python, "python"), "--target", task, pythonClient)
	write(t, filepath.Join(task, "app.py"), "import os, sys\ndef handler(event, context):\n    return {'event': event, 'version': sys.version_info[:2], 'dir': os.getcwd(), 'name': context.function_name}\n")
	uri := pushed(t, "image-python", v1.Config{
		WorkingDir: "/function", Entrypoint: []string{"/usr/bin/" + python, "-m", "awslambdaric"}, Cmd: []string{"app.handler"},
	}, append(debianLayers(t, python, "libstdc++6"), directoryLayer(t, task, "function")))
	got := invokeImage(t, "image-python", uri, `{"a":1}`)
	if !strings.Contains(got, `"event": {"a": 1}`) || !strings.Contains(got, `"dir": "/function"`) || !strings.Contains(got, `"name": "image-python"`) {
		t.Errorf("it answers %s", got)
	}
}

func TestJavaClientOnDebianImage_Conformance(t *testing.T) {
	needs(t, "Maven and skopeo")
	t.Parallel()
	task := filepath.Join(t.TempDir(), "function")
	write(t, filepath.Join(task, "pom.xml"), pom())
	command(t, "mvn", "-q", "-B", "-f", filepath.Join(task, "pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory="+task)
	// A class of the JDK will do as the handler: it adds up.
	uri := pushed(t, "image-java", v1.Config{
		WorkingDir: "/function", Entrypoint: []string{"java", "-cp", "./*", "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"},
		Cmd: []string{"java.util.concurrent.atomic.AtomicInteger::addAndGet"}, Env: []string{"PATH=" + javaHome(t) + "/bin:/usr/bin"},
	}, append(debianLayers(t, "default-jre-headless"), directoryLayer(t, task, "function")))
	if got := invokeImage(t, "image-java", uri, "5"); got != "5" {
		t.Errorf("it answers %s", got)
	}
	if got := invokeImage(t, "image-java", "", "6"); got != "11" {
		t.Errorf("then it answers %s", got)
	}
}

// javaHome is where the default JRE of Debian will be.
func javaHome(t *testing.T) string {
	t.Helper()
	release := command(t, "sh", "-c", `apt-cache depends default-jre-headless | sed -n 's/.*Depends: *openjdk-\([0-9]*\)-jre-headless$/\1/p'`)
	return "/usr/lib/jvm/java-" + release + "-openjdk-" + command(t, "dpkg", "--print-architecture")
}

func pom() string {
	c := strings.Split(javaClient, ":")
	return fmt.Sprintf(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>x</groupId><artifactId>x</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency></dependencies></project>`, c[0], c[1], c[2])
}

func TestNodeClientOnAnArbitraryImage_Conformance(t *testing.T) {
	needs(t, "npm, a C++ compiler, cmake and skopeo")
	t.Parallel()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	// It compiles a library of its own, so it is kept between runs.
	task := filepath.Join(root, "bin", "tools", "node-ric")
	command(t, filepath.Join(root, "scripts", "npm"), "install", "--prefix", task, "--no-audit", "--no-fund", "--loglevel=error", nodeClient)
	write(t, filepath.Join(task, "app.js"), "exports.handler = async (event, context) => ({ event, dir: process.cwd(), name: context.functionName });\n")
	node, err := server.Interpreter(nodeRuntime) // the client is for no older one
	if err != nil {
		t.Fatal(err)
	}
	uri := pushed(t, "image-node", v1.Config{
		// Lambda gives images no _HANDLER, which this client wants since version 4.
		Entrypoint: []string{"/bin/sh", "-c", `export _HANDLER="$0"; exec node node_modules/.bin/aws-lambda-ric`}, Cmd: []string{"app.handler"},
		WorkingDir: "/function", Env: []string{"PATH=/usr/bin", "LAMBDA_TASK_ROOT=/function"},
	}, append(debianLayers(t, "dash", "libstdc++6"), programLayer(t, node), directoryLayer(t, task, "function")))
	if got := invokeImage(t, "image-node", uri, `{"a":1}`); got != `{"event":{"a":1},"dir":"/function","name":"image-node"}` {
		t.Errorf("it answers %s", got)
	}
}

// command runs a program and returns what it printed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out.String(), failed.String())
	}
	return strings.TrimSpace(out.String())
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tarLayer makes a layer of what a command writes, a tar archive.
func tarLayer(t *testing.T, name string, args ...string) v1.Layer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &failed
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, failed.String())
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// debianLayers makes layers of Debian packages and all that they depend on, one
// for each, as they are.
func debianLayers(t *testing.T, packages ...string) (layers []v1.Layer) {
	t.Helper()
	dir := t.TempDir()
	all := strings.Fields(command(t, "sh", "-c", `apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $@ | grep '^[a-z0-9]' | sort -u`, "sh", "base-files", strings.Join(packages, " ")))
	all = slices.DeleteFunc(all, func(p string) bool { return slices.Contains(unneeded, p) || strings.Contains(p, ":") })
	command(t, "sh", append([]string{"-c", `cd "$0" && apt-get download -q "$@"`, dir}, all...)...)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) == 0 {
		t.Fatalf("no packages: %v", err)
	}
	// Where directories are links, such as /lib, it is this package's.
	slices.SortStableFunc(debs, func(a, b string) int { return rank(a) - rank(b) })
	for _, deb := range debs {
		layers = append(layers, tarLayer(t, "dpkg-deb", "--fsys-tarfile", deb))
	}
	return layers
}

func rank(deb string) int {
	if strings.HasPrefix(filepath.Base(deb), "base-files_") {
		return 0
	}
	return 1
}

// unneeded are packages that only setting up others needs.
var unneeded = []string{"dpkg", "debconf", "perl", "perl-base", "perl-modules", "cdebconf", "tar", "adduser", "passwd", "systemd", "mawk", "gawk", "original-awk"}

// directoryLayer makes a layer of a directory.
func directoryLayer(t *testing.T, dir, as string) v1.Layer {
	t.Helper()
	return tarLayer(t, "tar", "-C", dir, "--owner=0", "--group=0", "--transform", "flags=rSh;s|^\\.|"+as+"|", "-c", ".")
}

// programLayer makes a layer of a program of this host, in /usr/bin, and its
// libraries, but for the C library's.
func programLayer(t *testing.T, program string) v1.Layer {
	t.Helper()
	libraries := strings.Fields(command(t, "sh", "-c", `ldd "$0" | sed -n 's/.*=> *\(\/[^ ]*\) .*/\1/p'`, program))
	dir, base := filepath.Split(program)
	args := []string{"-ch", "--transform", "flags=rSh;s|^" + base + "$|usr/bin/" + base + "|", "-C", dir, base, "-C", "/"}
	for _, f := range libraries {
		if !strings.Contains(f, "ld-linux") && !strings.Contains(f, "libc.so") {
			args = append(args, strings.TrimPrefix(f, "/"))
		}
	}
	return tarLayer(t, "tar", args...)
}

// pushed makes an image and pushes it as Docker's format with skopeo.
func pushed(t *testing.T, repository string, config v1.Config, layers []v1.Layer) (uri string) {
	t.Helper()
	img, err := harness.Image(config, layers...)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	uri, auth, err := server.Repository(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	login := auth.(*authn.Basic)
	file := filepath.Join(t.TempDir(), "auth.json")
	host, _, _ := strings.Cut(uri, "/")
	skopeo(t, login.Password, "login", "--authfile", file, "--tls-verify=false", "--username", login.Username, "--password-stdin", host)
	skopeo(t, "", "copy", "-q", "--authfile", file, "--format", "v2s2", "--dest-tls-verify=false", "oci:"+dir, "docker://"+uri+":1")
	return uri + ":1"
}

// invokeImage creates a function of an image, unless uri is empty, and invokes it.
func invokeImage(t *testing.T, name, uri, event string) string {
	t.Helper()
	c := lambda.NewFromConfig(server.Config())
	if uri != "" {
		if _, err := c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
			FunctionName: &name, PackageType: types.PackageTypeImage, MemorySize: aws.Int32(1769), Timeout: aws.Int32(120),
			Role: aws.String(role()), Code: &types.FunctionCode{ImageUri: &uri},
		}); err != nil {
			t.Fatal(err)
		}
		w := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 100 * time.Millisecond })
		if err := w.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &name}, 10*time.Minute); err != nil {
			t.Fatalf("%v\nserver:\n%s", err, server.Log())
		}
	}
	out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: []byte(event), LogType: types.LogTypeTail})
	if err != nil {
		t.Fatal(err)
	}
	if out.FunctionError != nil {
		log, _ := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
		t.Fatalf("%s answers %s\n%s", name, out.Payload, log)
	}
	return string(out.Payload)
}
