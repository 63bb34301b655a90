package source

import (
	"archive/zip"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// folder makes a folder of files; a name that ends in * can be executed.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		mode := os.FileMode(0o644)
		if n, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = n, 0o755
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build builds a folder with fake builders, and returns the package's files. A
// fake builder writes how it was called to the file "called" where it runs, and
// does what its script says.
func build(t *testing.T, r Request, tools map[string]string) (*Function, map[string]string, error) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if tools != nil {
		bin := map[string]string{}
		for name, script := range tools {
			bin[name+"*"] = "#!/bin/sh\n" + script + "\n"
		}
		t.Setenv("PATH", folder(t, bin)+":/usr/bin:/bin")
	}
	b := &Builder{Newest: func(l string) string { return map[string]string{"nodejs": "nodejs20.x"}[l] }, Say: func(string) {}}
	t.Cleanup(func() { b.Close() })
	fn, err := b.Build(context.Background(), r)
	if err != nil {
		return nil, nil, err
	}
	files := map[string]string{}
	z, err := zip.OpenReader(fn.Package.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		rc, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(rc)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(content)
	}
	return fn, files, nil
}

const handlerJS = "export const handler = async () => 1"

func TestRuntimeAndHandlerAreFoundOut(t *testing.T) {
	for name, tt := range map[string]struct {
		files            map[string]string
		runtime, handler string
	}{
		"module":            {map[string]string{"index.mjs": handlerJS}, "nodejs20.x", "index.handler"},
		"function":          {map[string]string{"index.js": "exports.handler = async function() {}"}, "nodejs20.x", "index.handler"},
		"sam init":          {map[string]string{"app.mjs": "export const lambdaHandler = async (event) => {}"}, "nodejs20.x", "app.lambdaHandler"},
		"exported at last":  {map[string]string{"index.mjs": "const handler = 1\nexport { handler }"}, "nodejs20.x", "index.handler"},
		"main":              {map[string]string{"package.json": `{"main": "./dist/main.js"}`, "dist/main.js": "exports.handler = 1", "index.js": "exports.handler = 1"}, "nodejs20.x", "dist/main.handler"},
		"engines":           {map[string]string{"package.json": `{"engines": {"node": ">=22"}}`, "index.mjs": handlerJS}, "nodejs22.x", "index.handler"},
		"other exports":     {map[string]string{"index.mjs": handlerJS + "\nexport const helper = 1", "util.mjs": "export const x = 1"}, "nodejs20.x", "index.handler"},
		"python":            {map[string]string{"lambda_function.py": "def lambda_handler(event, context):\n  pass"}, "python3.13", "lambda_function.lambda_handler"},
		"python by a value": {map[string]string{"app.py": "app = 1\nhandler = make(app)"}, "python3.13", "app.handler"},
		"ruby":              {map[string]string{"app.rb": "def lambda_handler(event:, context:)\nend"}, "ruby3.3", "app.lambda_handler"},
		"bootstrap":         {map[string]string{"bootstrap*": "#!/bin/sh"}, "provided.al2023", "bootstrap"},
	} {
		t.Run(name, func(t *testing.T) {
			fn, _, err := build(t, Request{Path: folder(t, tt.files)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if fn.Runtime != tt.runtime || fn.Handler != tt.handler {
				t.Errorf("got %s with %s", fn.Runtime, fn.Handler)
			}
		})
	}
}

func TestWhatCannotBeFoundOutIsAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		r     Request
		want  string
	}{
		"nothing":           {map[string]string{"README": ""}, Request{}, "holds nothing that Lapwing knows how to deploy"},
		"two languages":     {map[string]string{"package.json": "{}", "requirements.txt": ""}, Request{}, "could be Node.js or Python: say which with --runtime"},
		"two handlers":      {map[string]string{"index.mjs": handlerJS, "app.mjs": handlerJS}, Request{}, "say which with --handler: index.handler, app.handler"},
		"no handler":        {map[string]string{"index.mjs": "export const x = 1"}, Request{}, "no handler was found"},
		"no java handler":   {map[string]string{"pom.xml": ""}, Request{}, "--handler example.Handler::handleRequest"},
		"handler elsewhere": {map[string]string{"index.mjs": handlerJS}, Request{Handler: "app.handler"}, "the handler is app.handler, and there is no app.mjs"},
		"python package":    {map[string]string{"app.py": ""}, Request{Handler: "pkg.mod.handler"}, "there is no pkg/mod.py"},
		"not executable":    {map[string]string{"bootstrap": ""}, Request{}, "chmod +x it"},
		"other runtime":     {map[string]string{"x": ""}, Request{Runtime: "cobol1"}, "cobol1 is not packaged by Lapwing"},
		"no npm":            {map[string]string{"package.json": `{"dependencies": {"a": "1"}}`, "index.mjs": handlerJS}, Request{}, "npm is needed to build"},
		"pyproject":         {map[string]string{"pyproject.toml": "", "app.py": "def handler(e, c): pass"}, Request{}, "has a pyproject.toml and no requirements.txt"},
		"no esbuild":        {map[string]string{"index.ts": handlerJS}, Request{}, "npm install --save-dev esbuild"},
		"no file":           {map[string]string{}, Request{Path: "/nonexistent"}, "there is no /nonexistent"},
		"link out":          {map[string]string{"bootstrap*": ""}, Request{}, "the symbolic link points out of the folder"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.r.Path == "" {
				tt.r.Path = folder(t, tt.files)
			}
			if name == "link out" {
				if err := os.Symlink("../../etc/passwd", filepath.Join(tt.r.Path, "passwd")); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", t.TempDir())
			if _, _, err := build(t, tt.r, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want %s", err, tt.want)
			}
		})
	}
}

func TestPackagesOfTheSameFilesAreTheSame(t *testing.T) {
	files := map[string]string{"index.mjs": handlerJS, "lib/b.mjs": "b", "lib/a.mjs": "a", "run.sh*": "x"}
	var sums []string
	for i := range 2 {
		dir := folder(t, files)
		if err := os.Chtimes(filepath.Join(dir, "index.mjs"), time.Time{}, time.Unix(int64(1e9*(i+1)), 0)); err != nil {
			t.Fatal(err)
		}
		fn, _, err := build(t, Request{Path: dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, fn.Package.SHA256)
	}
	if sums[0] != sums[1] {
		t.Errorf("got %v", sums)
	}
}

func TestWhatIsLeftOutOfAPackage(t *testing.T) {
	dir := folder(t, map[string]string{"index.mjs": handlerJS, ".git/config": "", "__pycache__/x.pyc": "", "docs/a.md": "", "docs/keep.md": "", "test/x.mjs": "", "src/test/y.mjs": "", "node_modules/dep/index.js": "",
		".lapwingignore": "# what no function needs\n**/test\ndocs\n!docs/keep.md\n"})
	_, files, err := build(t, Request{Path: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "docs/keep.md index.mjs node_modules/dep/index.js" {
		t.Errorf("got %s", got)
	}
}

func TestBuildersRunInACopyAndFillThePackage(t *testing.T) {
	called := `echo "$(basename "$0") $*" >called; `
	python := `[ "$3" = --version ] && exit 1; ` + called
	node := map[string]string{"package.json": `{"dependencies": {"a": "1"}}`, "index.mjs": handlerJS, "node_modules/old/x": ""}
	withLock := map[string]string{"package.json": `{"dependencies": {"a": "1"}}`, "package-lock.json": "{}", "index.mjs": handlerJS}
	for name, tt := range map[string]struct {
		files map[string]string
		r     Request
		tools map[string]string
		want  map[string]string // files of the package, with ~ for "contains"
	}{
		"npm":           {node, Request{}, map[string]string{"npm": called + "mkdir -p node_modules/a; echo dep >node_modules/a/x"}, map[string]string{"called": "npm install --omit=dev --no-audit", "node_modules/a/x": "dep", "index.mjs": handlerJS}},
		"npm with lock": {withLock, Request{}, map[string]string{"npm": called}, map[string]string{"called": "npm ci --omit=dev"}},
		"pip for another version": {map[string]string{"requirements.txt": "requests", "app.py": "def handler(e, c): pass"}, Request{Architecture: "arm64", Runtime: "python3.12"},
			map[string]string{"python3.12": "exit 1", "python3": python}, map[string]string{"called": "--only-binary=:all: --implementation cp --python-version 3.12 --platform manylinux_2_34_aarch64", "app.py": "def handler"}},
		"pip of the version": {map[string]string{"requirements.txt": "requests", "app.py": "def handler(e, c): pass"}, Request{Runtime: "python3.12"},
			map[string]string{"python3.12": `[ "$3" = --version ] && exit 0; ` + called}, map[string]string{"called": "python3.12 -m pip install --quiet --no-compile --requirement requirements.txt --target"}},
		"go": {map[string]string{"go.mod": "module x"}, Request{Architecture: "arm64"},
			map[string]string{"go": `while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done; mkdir -p $(dirname $out); echo "$GOARCH $CGO_ENABLED" >$out`}, map[string]string{"bootstrap": "arm64 0"}},
		"cargo": {map[string]string{"Cargo.toml": ""}, Request{Architecture: "x86_64"},
			map[string]string{"rustc": "echo /", "cargo": `while [ $# -gt 1 ]; do [ "$1" = --target-dir ] && out=$2; [ "$1" = --target ] && target=$2; shift; done; mkdir -p $out; echo $target >$out/f; echo "{\"executable\":\"$out/f\"}"`}, map[string]string{"bootstrap": "x86_64-unknown-linux-musl"}},
		"maven": {map[string]string{"pom.xml": ""}, Request{Handler: "a.B::c"},
			map[string]string{"mvn": `mkdir -p target; echo all >target/f.jar; echo >target/original-f.jar`}, map[string]string{"lib/f.jar": "all"}},
		"bundler": {map[string]string{"Gemfile": "", "app.rb": "def handler(event:, context:); end"}, Request{},
			map[string]string{"bundle": called + `mkdir -p $BUNDLE_PATH/g; echo gem >$BUNDLE_PATH/g/x`}, map[string]string{"vendor/bundle/g/x": "gem"}},
		"makefile": {map[string]string{"Makefile": ""}, Request{Runtime: "provided.al2023", Handler: "x", Name: "Fn", BuildMethod: "makefile"},
			map[string]string{"make": `echo "$1" >$ARTIFACTS_DIR/bootstrap`}, map[string]string{"bootstrap": "build-Fn"}},
		"esbuild": {map[string]string{"index.ts": handlerJS}, Request{BuildMethod: "esbuild", Runtime: "nodejs22.x", Handler: "index.handler",
			BuildProperties: map[string]any{"Minify": true, "Target": "es2022", "External": []any{"a"}, "EntryPoints": []any{"index.ts"}}},
			map[string]string{"esbuild": `for a; do case $a in --outdir=*) out=${a#*=};; esac; done; mkdir -p $out; echo "$*" >$out/index.js`}, map[string]string{"index.js": "--external:a --minify=true --target=es2022"}},
		"layer": {map[string]string{"requirements.txt": "x"}, Request{Layer: true, BuildMethod: "python3.12"},
			map[string]string{"python3.12": `[ "$3" = --version ] && exit 0; ` + called}, map[string]string{"python/called": "pip install"}},
		"layer as it is":    {map[string]string{"nodejs/x": "x"}, Request{Layer: true}, nil, map[string]string{"nodejs/x": "x"}},
		"told not to build": {withLock, Request{NoBuild: true}, nil, map[string]string{"package.json": "dependencies"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.r.Path = folder(t, tt.files)
			_, files, err := build(t, tt.r, tt.tools)
			if err != nil {
				t.Fatal(err)
			}
			for file, want := range tt.want {
				if got, ok := files[file]; !ok || !strings.Contains(got, want) {
					t.Errorf("%s = %q, %t; want %q", file, got, ok, want)
				}
			}
			left, err := os.ReadDir(tt.r.Path)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range left {
				if f.Name() == "called" {
					t.Error("the builder ran in the folder itself")
				}
			}
			if _, ok := files["node_modules/old/x"]; ok {
				t.Error("what was installed before is in the package")
			}
		})
	}
}

func TestABuilderThatFailsIsQuoted(t *testing.T) {
	dir := folder(t, map[string]string{"package.json": `{"dependencies": {"a": "1"}}`, "index.mjs": handlerJS})
	_, _, err := build(t, Request{Path: dir}, map[string]string{"npm": "echo no such package a >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "npm failed: exit status 3\nno such package a") {
		t.Errorf("got %v", err)
	}
}

func TestAFolderIsBuiltByOneAtATime(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := folder(t, map[string]string{"index.mjs": handlerJS})
	first, second := &Builder{Say: func(string) {}}, &Builder{Say: func(string) {}}
	if _, err := first.Build(context.Background(), Request{Path: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Build(context.Background(), Request{Path: dir}); err == nil || !strings.Contains(err.Error(), "is being deployed already") {
		t.Errorf("got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Build(context.Background(), Request{Path: dir}); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
