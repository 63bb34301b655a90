package runtimes

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// compileTimeout bounds the compilation of Python modules.
const compileTimeout = 5 * time.Minute

//go:embed bootstrap
var bootstraps embed.FS

// bootstrap writes the bootstrap for an interpreter below the registry's
// directory if it is not there, and returns its directory and digest.
func (r *Registry) bootstrap(s spec, in interpreter) (dir, digest string, err error) {
	parent := filepath.Join(r.dir, "bootstrap")
	if s.language == languageNode {
		t, err := nodeBootstrap()
		if err != nil {
			return "", "", err
		}
		dir, err = writeTree(parent, t)
		return dir, t.digest(), err
	}
	t, err := pythonBootstrap()
	if err != nil {
		return "", "", err
	}
	// Compiled code is good for one release of Python only.
	digest = hexDigest(t.digest(), in.version, in.origin)
	dir = filepath.Join(parent, digest[:32])
	if _, err := os.Stat(dir); err == nil {
		return dir, digest, nil
	}
	err = makeDir(dir, func(tmp string) error {
		if err := t.write(tmp); err != nil {
			return err
		}
		return compilePython(context.Background(), s, in, tmp, runtimeDir)
	})
	return dir, digest, err
}

// compilePython compiles the Python modules below dir, which are found below
// path in the sandbox. Uncompiled, every start would compile what it imports
// anew, for nothing is writable there.
func compilePython(ctx context.Context, s spec, in interpreter, dir, path string, below ...string) error {
	ctx, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	cmd, err := in.native(ctx, s, "-I", "-S", "-m", "compileall", "-q",
		// The paths in tracebacks are those in the sandbox.
		"-s", dir, "-p", path,
		// Nothing changes the sources, so that they are not looked at again.
		"--invalidation-mode", "unchecked-hash",
		filepath.Join(append([]string{dir}, below...)...))
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile Python modules: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

// nodeBootstrap joins the modules of the Node.js bootstrap in one file: finding,
// opening and reading each of several would cost more than running them.
func nodeBootstrap() (tree, error) {
	names, err := fs.Glob(bootstraps, "bootstrap/node/*.js")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("'use strict';\nconst modules = {\n")
	for _, name := range names {
		src, err := bootstraps.ReadFile(name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "'./%s'(module, exports, require) {\n%s},\n", filepath.Base(name), src)
	}
	b.WriteString(`};
const loaded = {};
function load(name) {
  if (!modules[name]) return require(name);
  if (!loaded[name]) {
    loaded[name] = { exports: {} };
    modules[name](loaded[name], loaded[name].exports, load);
  }
  return loaded[name].exports;
}
load('./main.js');
`)
	return tree{"index.js": file(b.String())}, nil
}

func pythonBootstrap() (tree, error) {
	names, err := fs.Glob(bootstraps, "bootstrap/python/*.py")
	if err != nil {
		return nil, err
	}
	t := tree{}
	for _, name := range names {
		src, err := bootstraps.ReadFile(name)
		if err != nil {
			return nil, err
		}
		t[filepath.Base(name)] = entry{data: src}
	}
	return t, nil
}
