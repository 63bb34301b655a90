package acceptance_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"lapwing.dev/lapwing/test/harness"
)

// file is an entry of a layer: a regular file, unless its header says otherwise.
type file struct {
	tar.Header
	content string
}

// layerOf makes a layer.
func layerOf(t *testing.T, files ...file) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if f.Typeflag == 0 {
			f.Typeflag = tar.TypeReg
		}
		if f.Mode == 0 {
			f.Mode = 0o755
		}
		f.Size = int64(len(f.content))
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func named(name, content string) file { return file{tar.Header{Name: name}, content} }

// imageOf makes an image of this machine's architecture.
func imageOf(t *testing.T, config v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := harness.Image(config, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// surroundings is what the program imagefunction answers.
type surroundings struct {
	Args                        []string
	Env                         map[string]string
	Dir                         string
	UID, GID                    int
	Root                        []string
	Writes, Files, Links, Modes map[string]string
}

func imageProgram(t *testing.T) string {
	t.Helper()
	program, err := harness.Program("./imagefunction")
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// repository makes a repository in the server's registry and returns its URI
// and what opens it.
func repository(t *testing.T, s *harness.Server, repo string) (uri string, auth authn.Authenticator) {
	t.Helper()
	uri, auth, err := s.Repository(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	return uri, auth
}

func pushImage(t *testing.T, uri string, auth authn.Authenticator, img v1.Image) string {
	t.Helper()
	if err := harness.Push(t.Context(), uri, auth, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.Hex
}

// createImage creates a function of an image and waits until it is no more
// Pending.
func createImage(t *testing.T, s *harness.Server, name, uri string, change ...func(*lambda.CreateFunctionInput)) *lambda.GetFunctionOutput {
	t.Helper()
	c := lambda.NewFromConfig(s.Config())
	in := &lambda.CreateFunctionInput{
		FunctionName: &name, PackageType: types.PackageTypeImage, MemorySize: aws.Int32(1769), Timeout: aws.Int32(60),
		Role: aws.String("arn:aws:iam::" + s.Account() + ":role/r"), Code: &types.FunctionCode{ImageUri: &uri},
	}
	for _, f := range change {
		f(in)
	}
	out, err := c.CreateFunction(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if out.State != types.StatePending || out.StateReasonCode != types.StateReasonCodeCreating {
		t.Errorf("%s is created %s, %s", name, out.State, out.StateReasonCode)
	}
	return settled(t, s, name)
}

// settled waits until the function is neither Pending nor being updated.
func settled(t *testing.T, s *harness.Server, name string) *lambda.GetFunctionOutput {
	t.Helper()
	c := lambda.NewFromConfig(s.Config())
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out, err := c.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &name})
		if err != nil {
			t.Fatal(err)
		}
		if out.Configuration.State != types.StatePending && out.Configuration.LastUpdateStatus != types.LastUpdateStatusInProgress {
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still %s, %s\n%s", name, out.Configuration.State, out.Configuration.LastUpdateStatus, s.Log())
		}
	}
}

// askImage invokes an image function and returns what it is in.
func askImage(t *testing.T, s *harness.Server, name, qualifier, event string) surroundings {
	t.Helper()
	in := &lambda.InvokeInput{FunctionName: &name, Payload: []byte(event)}
	if qualifier != "" {
		in.Qualifier = &qualifier
	}
	out, err := lambda.NewFromConfig(s.Config()).Invoke(t.Context(), in)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Log())
	}
	var a surroundings
	if err := json.Unmarshal(out.Payload, &a); err != nil || out.FunctionError != nil {
		t.Fatalf("%s answers %s\n%s", name, out.Payload, s.Log())
	}
	return a
}

func TestImageFromScratchWithAStaticProgramRunsWithTheImagesSettings(t *testing.T) {
	t.Parallel()
	s := start(t)
	uri, auth := repository(t, s, "team/scratch")
	img := imageOf(t, v1.Config{
		Entrypoint: []string{"handler"}, Cmd: []string{"one", "two"}, WorkingDir: "/srv/work", User: "root",
		Env: []string{"PATH=/app", "GREETING=from the image", "TZ=Europe/Bern", "AWS_REGION=nowhere"},
	},
		layerOf(t, named("app/handler", imageProgram(t)), named("gone", "x"), named("dir/old", "x"), file{tar.Header{Name: "srv/work", Typeflag: tar.TypeDir}, ""}),
		layerOf(t, named(".wh.gone", ""), named("dir/.wh..wh..opq", ""), named("dir/new", "new"),
			file{tar.Header{Name: "etc/resolv.conf", Typeflag: tar.TypeSymlink, Linkname: "/run/elsewhere"}, ""},
			file{tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../../../dir/new"}, ""},
			file{tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "dir/new"}, ""},
			file{tar.Header{Name: "suid", Mode: 0o4755}, "x"},
		))
	first := pushImage(t, uri+":1", auth, img)

	got := createImage(t, s, "scratch", uri+":1", func(in *lambda.CreateFunctionInput) {
		in.Publish = true
		in.Environment = &types.Environment{Variables: map[string]string{"GREETING": "from the function", "MINE": "1"}}
	})
	f := got.Configuration
	if f.State != types.StateActive || f.PackageType != types.PackageTypeImage || f.Runtime != "" || f.Handler != nil || f.CodeSize != 0 || *f.CodeSha256 != first || f.RuntimeVersionConfig != nil {
		t.Fatalf("the function is %s (%s): %+v\n%s", f.State, aws.ToString(f.StateReason), f, s.Log())
	}
	if c := got.Code; *c.RepositoryType != "ECR" || *c.ImageUri != uri+":1" || *c.ResolvedImageUri != uri+"@sha256:"+first || c.Location != nil {
		t.Errorf("its code is %+v", c)
	}
	a := askImage(t, s, "scratch", "", `{"Write":["/x","/app/x","/tmp/x"],"Read":["/dir/new","/dir/old","/gone","/link","/hard","/suid","/etc/resolv.conf"]}`)
	if fmt.Sprint(a.Args) != "[/app/handler one two]" && fmt.Sprint(a.Args) != "[handler one two]" {
		t.Errorf("arguments are %v", a.Args)
	}
	if a.Dir != "/srv/work" || a.UID == 0 || a.GID == 0 {
		t.Errorf("runs in %s as %d:%d", a.Dir, a.UID, a.GID)
	}
	for name, want := range map[string]string{
		"PATH": "/app", "GREETING": "from the function", "MINE": "1", "TZ": "Europe/Bern", "AWS_REGION": s.Env["AWS_REGION"],
		"AWS_EXECUTION_ENV": "AWS_Lambda_Image", "LAMBDA_TASK_ROOT": "/var/task", "_HANDLER": "", "LANG": "", "LD_LIBRARY_PATH": "",
	} {
		if a.Env[name] != want {
			t.Errorf("%s is %q, want %q", name, a.Env[name], want)
		}
	}
	for path, want := range map[string]string{"/x": "read-only file system", "/app/x": "read-only file system", "/tmp/x": "ok"} {
		if a.Writes[path] != want {
			t.Errorf("writing %s: %s, want %s", path, a.Writes[path], want)
		}
	}
	if a.Files["/dir/new"] != "new" || a.Files["/hard"] != "new" || a.Files["/link"] != "new" || a.Links["/link"] != "../../../dir/new" {
		t.Errorf("files are %q, links %q", a.Files, a.Links)
	}
	for _, path := range []string{"/gone", "/dir/old"} {
		if _, there := a.Modes[path]; there {
			t.Errorf("%s is there", path)
		}
	}
	if a.Modes["/suid"] != "-rwxr-xr-x" || !strings.Contains(a.Files["/etc/resolv.conf"], "nameserver") {
		t.Errorf("modes are %q, resolv.conf is %q", a.Modes, a.Files["/etc/resolv.conf"])
	}

	// The tag moves; functions stay with what it was until they are updated.
	second := pushImage(t, uri+":1", auth, imageOf(t, v1.Config{Entrypoint: []string{"/bin/handler"}}, layerOf(t, named("bin/handler", imageProgram(t)))))
	c := lambda.NewFromConfig(s.Config())
	updated, err := c.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: aws.String("scratch"), ImageConfig: &types.ImageConfig{Command: []string{"three"}, WorkingDirectory: aws.String("/tmp")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if own := updated.ImageConfigResponse; own == nil || fmt.Sprint(own.ImageConfig.Command) != "[three]" || *updated.CodeSha256 != first {
		t.Errorf("updated to %+v", updated)
	}
	settled(t, s, "scratch")
	if a := askImage(t, s, "scratch", "", "{}"); a.Args[len(a.Args)-1] != "three" || len(a.Args) != 2 || a.Dir != "/tmp" {
		t.Errorf("with an ImageConfig it runs %v in %s", a.Args, a.Dir)
	}
	if a := askImage(t, s, "scratch", "1", "{}"); len(a.Args) != 3 {
		t.Errorf("version 1 runs %v", a.Args)
	}
	if _, err := c.UpdateFunctionCode(t.Context(), &lambda.UpdateFunctionCodeInput{FunctionName: aws.String("scratch"), ImageUri: aws.String(uri + ":1")}); err != nil {
		t.Fatal(err)
	}
	if got := settled(t, s, "scratch"); *got.Configuration.CodeSha256 != second || got.Configuration.LastUpdateStatus != types.LastUpdateStatusSuccessful {
		t.Errorf("updated to %+v", got.Configuration)
	}
	if a := askImage(t, s, "scratch", "", "{}"); fmt.Sprint(a.Args) != "[/bin/handler three]" || !strings.Contains(strings.Join(a.Root, " "), "bin") {
		t.Errorf("the new image runs %v, its root has %v", a.Args, a.Root)
	}
	if a := askImage(t, s, "scratch", "1", "{}"); len(a.Args) != 3 {
		t.Errorf("version 1 runs %v", a.Args)
	}

	// What is unpacked can be lost; what was pushed cannot.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.Data + "/images"); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := settled(t, s, "scratch"); got.Configuration.State != types.StateActive {
		t.Fatalf("after a restart the function is %s: %s", got.Configuration.State, aws.ToString(got.Configuration.StateReason))
	}
	askImage(t, s, "scratch", "", "{}")
}
