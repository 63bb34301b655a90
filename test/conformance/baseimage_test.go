package conformance_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"lapwing.dev/lapwing/test/harness"
)

// imageRuntime is one that no registry has, so that it can only be the image's.
const imageRuntime = "dotnet8"

// baseImage makes an image that is laid out like AWS's base images, in an OCI
// layout: its bootstrap is the function of these tests, which has no need of the
// rest. A name that ends in / is a folder.
func baseImage(t *testing.T, bootstrap string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, body string) {
		h.Mode, h.Size = 0o755, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		add(tar.Header{Name: "usr/" + name + "/", Typeflag: tar.TypeDir}, "")
		add(tar.Header{Name: name, Linkname: "usr/" + name, Typeflag: tar.TypeSymlink}, "")
	}
	add(tar.Header{Name: "etc/of-the-image", Typeflag: tar.TypeReg}, "yes")
	add(tar.Header{Name: "var/lang/bin/shared/Microsoft.NETCore.App/8.0.99/", Typeflag: tar.TypeDir}, "")
	add(tar.Header{Name: "var/runtime/bootstrap", Typeflag: tar.TypeReg}, bootstrap)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{mustDiffID(t, layer)}},
		Config: v1.Config{Env: []string{"OF_THE_IMAGE=yes"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.Write(filepath.Join(t.TempDir(), "layout"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	return string(path)
}

func mustDiffID(t *testing.T, l v1.Layer) v1.Hash {
	t.Helper()
	id, err := l.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A base image makes a runtime that neither this host nor a registry has: the
// image's bootstrap runs zip functions on the image's files.
func TestARuntimeOfABaseImageRunsFunctions(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes a sandbox")
	}
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	reference := baseImage(t, buildGo(t, "./function"))
	add := exec.Command(filepath.Join(root, "bin", "lapwing"), "runtimes", "add", imageRuntime, "--image", reference, "--data", server.Data)
	if out, err := add.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("dotnet8 added: dotnet:8.0.99")) {
		t.Fatalf("%v: %v\n%s", add.Args, err, out)
	}
	f := &fleet{Server: server, lambda: lambda.NewFromConfig(server.Config()), logs: cloudwatchlogs.NewFromConfig(server.Config())}
	f.one(t, imageRuntime, runtimeTest{name: "context", handler: "Assembly::Type::Method", event: `{"Do":"context"}`, check: wantContext,
		files: map[string]string{"readme": "the bootstrap is the image's"}, logs: []string{startLine, endLine, report, `^INIT_START Runtime Version: dotnet:8`}})
	f.one(t, imageRuntime, runtimeTest{name: "files", handler: "x", event: `{"Do":"read","Echo":"/etc/of-the-image"}`, want: `"yes"`, files: map[string]string{"readme": "nothing"}})
	f.one(t, imageRuntime, runtimeTest{name: "environment", handler: "x", event: `{"Do":"env"}`, files: map[string]string{"readme": "nothing"}, check: func(t *testing.T, o outcome) {
		wantEnv(t, o)
		for _, want := range []string{`"OF_THE_IMAGE":"yes"`, `"AWS_EXECUTION_ENV":"AWS_Lambda_dotnet8"`} {
			if !strings.Contains(string(o.payload), want) {
				t.Errorf("no %s in %s", want, o.payload)
			}
		}
	}})
	// No conformance function is a compiled .NET one, which verify says; and a
	// runtime that is not what its id says fails.
	reports, failed := verifyRuntimes(t, server.Data, imageRuntime)
	if failed || len(reports) != 1 || reports[0].Checks[0].Result != "n/a" || !strings.Contains(reports[0].Checks[0].Reason, imageRuntime) {
		t.Errorf("verify: %+v, failed: %t", reports, failed)
	}
	out, err := server.Run("runtimes", "list")
	if err != nil || !slices.ContainsFunc(strings.Split(string(out), "\n"), func(l string) bool {
		return strings.HasPrefix(l, "dotnet8 ") && strings.Contains(l, "added") && strings.Contains(l, "image "+reference+" sha256:")
	}) {
		t.Errorf("list: %v\n%s", err, out)
	}
}
