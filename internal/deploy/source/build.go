package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// buildTimeout is how long one builder may take.
const buildTimeout = 15 * time.Minute

// run runs a builder in dir. Its output is shown if it fails.
func (j *job) run(dir string, env []string, name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s is needed to build %s and is not installed here: install it, or build elsewhere and give the zip file", filepath.Base(name), j.Path)
	}
	j.builder.Say(filepath.Base(name) + " " + strings.Join(args[:min(2, len(args))], " "))
	ctx, cancel := context.WithTimeout(j.ctx, buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second // for children that hold the output open
	var out, both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &both
	err = cmd.Run()
	if ctxErr := ctx.Err(); ctxErr != nil {
		return nil, ctxErr
	}
	if err != nil {
		return nil, fmt.Errorf("%s failed: %w\n%s%s", filepath.Base(name), err, tail(both.Bytes()), tail(out.Bytes()))
	}
	return out.Bytes(), nil
}

// tail is the end of what a builder said.
func tail(b []byte) []byte {
	const most = 8 << 10
	return b[max(0, len(b)-most):]
}

// npm installs what package.json says into a copy of the folder.
func (j *job) npm(into string) error {
	if err := j.copy(into, "node_modules"); err != nil {
		return err
	}
	return j.npmInstall(into, "--omit=dev")
}

func (j *job) npmInstall(dir string, args ...string) error {
	install := "install"
	if exists(dir, "package-lock.json") || exists(dir, "npm-shrinkwrap.json") {
		install = "ci"
	}
	_, err := j.run(dir, nil, "npm", slices.Concat([]string{install}, args, []string{"--no-audit", "--no-fund", "--loglevel=error"})...)
	return err
}

// typeScript tells whether the handler is in a TypeScript file, which nothing has
// compiled.
func typeScript(dir, handler string) bool {
	module := strings.TrimSuffix(handler, filepath.Ext(handler))
	for _, ext := range []string{".mjs", ".js", ".cjs"} {
		if exists(dir, module+ext) {
			return false
		}
	}
	return exists(dir, module+".ts")
}

// esbuild bundles JavaScript or TypeScript with the esbuild of the project
// itself. The properties are those of SAM's BuildMethod esbuild.
func (j *job) esbuild(out string) error {
	src := filepath.Join(j.work, "source")
	if err := os.RemoveAll(src); err != nil {
		return err
	}
	if err := j.copy(src, "node_modules"); err != nil {
		return err
	}
	if exists(src, "package.json") {
		if err := j.npmInstall(src); err != nil {
			return err
		}
	}
	tool := filepath.Join(src, "node_modules", ".bin", "esbuild")
	if _, err := os.Stat(tool); err != nil {
		if tool, err = exec.LookPath("esbuild"); err != nil {
			return fmt.Errorf("%s is TypeScript, or is to be bundled, and that needs esbuild: run `npm install --save-dev esbuild` there, or compile it and deploy the JavaScript", j.Path)
		}
	}
	args := []string{"--bundle", "--platform=node", "--format=cjs", "--outdir=" + out}
	var entries []string
	for name, v := range j.BuildProperties {
		flags, err := esbuildFlags(name, v)
		if err != nil {
			return err
		}
		if name == "EntryPoints" {
			entries = flags
			continue
		}
		args = append(args, flags...)
	}
	if len(entries) == 0 {
		module := strings.TrimSuffix(j.Handler, filepath.Ext(j.Handler))
		entries = []string{module + ".ts"}
		if !exists(src, entries[0]) {
			entries[0] = module + ".js"
		}
	}
	slices.Sort(args[4:])
	_, err := j.run(src, nil, tool, slices.Concat(entries, args)...)
	return err
}

// esbuildFlags turns a property of BuildMethod esbuild into flags, EntryPoints
// into files.
func esbuildFlags(name string, v any) (flags []string, err error) {
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	kebab := strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "$1-$2"))
	switch name {
	case "EntryPoints":
		for _, one := range list {
			flags = append(flags, fmt.Sprint(one))
		}
	case "External", "Loader":
		for _, one := range list {
			flags = append(flags, "--"+kebab+":"+fmt.Sprint(one))
		}
	case "Minify", "Sourcemap", "SourcesContent", "KeepNames":
		flags = []string{fmt.Sprintf("--%s=%v", kebab, v)}
	case "Target", "Format", "MainFields":
		var texts []string
		for _, one := range list {
			texts = append(texts, fmt.Sprint(one))
		}
		flags = []string{"--" + kebab + "=" + strings.Join(texts, ",")}
	default:
		return nil, fmt.Errorf("the esbuild property %s is not one that Lapwing has", name)
	}
	return flags, nil
}

// pip installs what requirements.txt says beside the code.
func (j *job) pip(into string) error {
	if !exists(j.Path, "requirements.txt") {
		return fmt.Errorf("%s has a pyproject.toml and no requirements.txt: write one, for example with `uv export --no-dev --no-emit-project -o requirements.txt` or `pip freeze`", j.Path)
	}
	if err := j.copy(into); err != nil {
		return err
	}
	version := strings.TrimPrefix(j.Runtime, "python")
	args := []string{"-m", "pip", "install", "--quiet", "--no-compile", "--requirement", "requirements.txt", "--target", into}
	python := "python" + version
	if _, err := exec.LookPath(python); err != nil || exec.CommandContext(j.ctx, python, "-m", "pip", "--version").Run() != nil {
		// Another Python can fetch what this one needs, if it is there as
		// wheels.
		python = "python3"
		args = append(args, "--only-binary=:all:", "--implementation", "cp", "--python-version", version)
		for _, glibc := range []string{"manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014"} {
			args = append(args, "--platform", glibc+"_"+machine(j.Architecture))
		}
	}
	env := []string{"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PIP_ROOT_USER_ACTION=ignore"}
	_, err := j.run(into, env, python, args...)
	return err
}

// machine is Python's and Rust's name of an architecture.
func machine(architecture string) string {
	if architecture == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// goBuild compiles a Go program into a bootstrap.
func (j *job) goBuild(into string) error {
	arch := "amd64"
	if j.Architecture == "arm64" {
		arch = "arm64"
	}
	env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch}
	_, err := j.run(j.Path, env, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-tags=lambda.norpc", "-o", filepath.Join(into, "bootstrap"), ".")
	return err
}

// cargo compiles a Rust program into a bootstrap: for musl if that is installed,
// so that it needs nothing of the system it runs on, and else for this system.
func (j *job) cargo(into string) error {
	target := machine(j.Architecture) + "-unknown-linux-musl"
	if lib, err := exec.CommandContext(j.ctx, "rustc", "--print", "target-libdir", "--target", target).Output(); err != nil || !exists(strings.TrimSpace(string(lib)), "") {
		if target = machine(j.Architecture) + "-unknown-linux-gnu"; runtime.GOARCH == "arm64" != (j.Architecture == "arm64") {
			return fmt.Errorf("there is no Rust target for %s here: rustup target add %s-unknown-linux-musl", j.Architecture, machine(j.Architecture))
		}
	}
	args := []string{"build", "--release", "--quiet", "--message-format=json", "--target", target, "--target-dir", filepath.Join(j.work, "cargo")}
	if exists(j.Path, "Cargo.lock") {
		args = append(args, "--locked")
	}
	out, err := j.run(j.Path, nil, "cargo", args...)
	if err != nil {
		return err
	}
	var programs []string
	for line := range bytes.Lines(out) {
		var m struct{ Executable string }
		if json.Unmarshal(line, &m) == nil && m.Executable != "" {
			programs = append(programs, m.Executable)
		}
	}
	i := slices.IndexFunc(programs, func(p string) bool { return filepath.Base(p) == "bootstrap" })
	if i < 0 && len(programs) == 1 {
		i = 0
	}
	if i < 0 {
		return fmt.Errorf("%s makes %d programs: name the one that is the function bootstrap, in Cargo.toml", j.Path, len(programs))
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return err
	}
	return copyFile(filepath.Join(into, "bootstrap"), programs[i], 0o755)
}

// java builds a jar with Maven or Gradle, and packs what is in it.
func (j *job) java(into string) error {
	src := filepath.Join(j.work, "source")
	if err := os.RemoveAll(src); err != nil {
		return err
	}
	if err := j.copy(src, "target", "build"); err != nil {
		return err
	}
	pattern := "target/*.jar"
	var err error
	switch {
	case exists(src, "pom.xml"):
		_, err = j.run(src, nil, "mvn", "--batch-mode", "--quiet", "package", "-DskipTests")
	case exists(src, "gradlew"):
		pattern = "build/libs/*.jar"
		_, err = j.run(src, nil, filepath.Join(src, "gradlew"), "--quiet", "assemble")
	default:
		pattern = "build/libs/*.jar"
		_, err = j.run(src, nil, "gradle", "--quiet", "assemble")
	}
	if err != nil {
		return err
	}
	jars, err := filepath.Glob(filepath.Join(escape(src), pattern))
	if err != nil {
		return err
	}
	jars = slices.DeleteFunc(jars, func(jar string) bool {
		base := filepath.Base(jar)
		return strings.HasPrefix(base, "original-") || strings.HasSuffix(base, "-sources.jar") || strings.HasSuffix(base, "-javadoc.jar") || strings.HasSuffix(base, "-plain.jar")
	})
	if len(jars) == 0 {
		return errors.New("the build made no jar")
	}
	largest := slices.MaxFunc(jars, func(a, b string) int { return int(fileSize(a) - fileSize(b)) })
	// On the class path of a function are its folder and lib/*.jar.
	if err := os.MkdirAll(filepath.Join(into, "lib"), 0o700); err != nil {
		return err
	}
	return copyFile(filepath.Join(into, "lib", filepath.Base(largest)), largest, 0o644)
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// bundle installs the gems of a Gemfile beside the code.
func (j *job) bundle(into string) error {
	if err := j.copy(into, "vendor"); err != nil {
		return err
	}
	env := []string{"BUNDLE_PATH=vendor/bundle", "BUNDLE_WITHOUT=development:test", "BUNDLE_APP_CONFIG=" + filepath.Join(into, ".bundle")}
	_, err := j.run(into, env, "bundle", "install", "--quiet")
	return err
}

// make runs `make build-NAME`, as SAM's BuildMethod makefile.
func (j *job) make(out string) error {
	src := filepath.Join(j.work, "source")
	if err := os.RemoveAll(src); err != nil {
		return err
	}
	if err := j.copy(src); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return err
	}
	_, err := j.run(src, []string{"ARTIFACTS_DIR=" + out}, "make", "build-"+j.Name)
	return err
}
