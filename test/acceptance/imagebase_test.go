package acceptance_test

import (
	"archive/tar"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// entrypoint does what AWS's base images document of theirs: the handler is the
// command, and without a Runtime API there is an emulator.
const entrypoint = `#!/bin/sh
if [ $# -ne 1 ]; then
  echo "entrypoint requires the handler name to be the first argument" 1>&2
  exit 142
fi
export _HANDLER="$1"
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then
  exec /usr/local/bin/aws-lambda-rie "${LAMBDA_RUNTIME_DIR}/bootstrap"
fi
exec "${LAMBDA_RUNTIME_DIR}/bootstrap"
`

// extension registers, says so and waits.
const extension = `#!/bin/sh
echo "extension is up"
id=$(wget -q -S -O /dev/null --header 'Lambda-Extension-Name: watcher' --post-data '{"events":[]}' \
  "http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/register" 2>&1 | sed -n 's/.*Lambda-Extension-Identifier: *//Ip' | tr -d '\r')
exec wget -q -O /dev/null --header "Lambda-Extension-Identifier: $id" "http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/event/next"
`

// baseImage is an image like those on AWS's base images: a small user land with
// a shell, the entry point, a runtime and the function's handler as the command.
func baseImage(t *testing.T, settings v1.Config, more ...file) v1.Image {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v: scripts/setup test installs it", err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	userland := []file{named("usr/bin/busybox", string(program)), {tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"}, ""}}
	for _, name := range []string{"sh", "wget", "sed", "tr"} {
		userland = append(userland, file{tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, ""})
	}
	settings.Env = append(settings.Env, "LANG=en_US.UTF-8", "TZ=:/etc/localtime", "PATH=/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"LD_LIBRARY_PATH=/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib", "LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime")
	if settings.WorkingDir == "" {
		settings.WorkingDir = "/var/task"
	}
	return imageOf(t, settings, layerOf(t, userland...),
		layerOf(t, named("lambda-entrypoint.sh", entrypoint), named("var/runtime/bootstrap", imageProgram(t))),
		layerOf(t, append([]file{{tar.Header{Name: "var/task/", Typeflag: tar.TypeDir}, ""}}, more...)...))
}

func TestImageOnABaseImageGetsItsHandlerFromTheCommand(t *testing.T) {
	t.Parallel()
	s := start(t)
	uri, auth := repository(t, s, "team/base")
	pushImage(t, uri+":1", auth, baseImage(t, v1.Config{Entrypoint: []string{"/lambda-entrypoint.sh"}, Cmd: []string{"app.handler"}},
		named("var/task/app.py", "code"), named("opt/extensions/watcher", extension)))
	if got := createImage(t, s, "base", uri+":1").Configuration; got.State != types.StateActive {
		t.Fatalf("it is %s: %s", got.State, aws.ToString(got.StateReason))
	}
	a := askImage(t, s, "base", "", `{"Read":["/var/task/app.py","/bin"]}`)
	if a.Env["_HANDLER"] != "app.handler" || a.Env["LAMBDA_TASK_ROOT"] != "/var/task" || a.Env["LAMBDA_RUNTIME_DIR"] != "/var/runtime" ||
		a.Env["TZ"] != ":/etc/localtime" || a.Dir != "/var/task" || a.Files["/var/task/app.py"] != "code" || a.Links["/bin"] != "usr/bin" {
		t.Errorf("it is in %+v", a)
	}
	logged(t, s, "base", `"extension is up"`, 1)
}

func TestImageThatCannotBeStartedSaysWhyInLambdasWords(t *testing.T) {
	t.Parallel()
	s := start(t)
	uri, auth := repository(t, s, "team/broken")
	pushImage(t, uri+":1", auth, baseImage(t, v1.Config{Entrypoint: []string{"/lambda-entrypoint.sh"}}, named("alien", "\x7fELF\x02\x01\x01")))
	for name, tt := range map[string]struct {
		config    types.ImageConfig
		errorType string
		message   string
	}{
		"no-handler":     {types.ImageConfig{}, "Runtime.ExitError", "Runtime exited with error: exit status 142"},
		"no-entry-point": {types.ImageConfig{EntryPoint: []string{"/nothing"}}, "Runtime.InvalidEntrypoint", "fork/exec /nothing: no such file or directory"},
		"not-in-path":    {types.ImageConfig{EntryPoint: []string{"nothing"}}, "Runtime.InvalidEntrypoint", `exec: "nothing": executable file not found in $PATH`},
		"no-directory":   {types.ImageConfig{WorkingDirectory: aws.String("/nowhere")}, "Runtime.InvalidWorkingDir", "/nowhere: no such file or directory"},
		"no-program":     {types.ImageConfig{EntryPoint: []string{"/alien"}}, "Runtime.InvalidEntrypoint", "fork/exec /alien: exec format error"},
		"a-directory":    {types.ImageConfig{EntryPoint: []string{"/var"}}, "Runtime.InvalidEntrypoint", "fork/exec /var: permission denied"},
	} {
		createImage(t, s, name, uri+":1", func(in *lambda.CreateFunctionInput) { in.ImageConfig = &tt.config })
		out, err := lambda.NewFromConfig(s.Config()).Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name})
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ ErrorType, ErrorMessage string }
		if err := json.Unmarshal(out.Payload, &e); err != nil || e.ErrorType != tt.errorType || !strings.HasSuffix(e.ErrorMessage, tt.message) {
			t.Errorf("%s: %s, want %s: %s", name, out.Payload, tt.errorType, tt.message)
		}
	}
}
