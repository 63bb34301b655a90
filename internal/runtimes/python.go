package runtimes

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// cPython is the language of the python runtimes.
type cPython struct{}

func (cPython) name() string             { return "python" }
func (cPython) product() string          { return "Python" }
func (cPython) executable(s spec) string { return "python" + s.release }

func (cPython) places(s spec) (system, home []string) {
	below := s.release + ".*/bin/python" + s.release
	return []string{"/opt/python/" + s.release + "*/bin/python" + s.release},
		[]string{".pyenv/versions/" + below, ".asdf/installs/python/" + below, ".local/share/mise/installs/python/" + below, ".local/share/uv/python/cpython-" + below}
}

// version asks Python, which must also find its standard library: distributions
// have packages without it.
func (cPython) version(_ spec, _ string, ask func(...string) (string, error)) (string, error) {
	return ask("-I", "-S", "-c", "import json, logging, platform, ssl; print(platform.python_version())")
}

var pythonVersionHeader = regexp.MustCompile(`(?m)^#define PY_VERSION\s+"([\d.]+)"`)

func (cPython) recorded(s spec, prefix string) string {
	text := recordIn(filepath.Join(prefix, "include/python"+s.release+"/patchlevel.h"))
	if m := pythonVersionHeader.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

func (cPython) prefix(program string) string { return filepath.Dir(filepath.Dir(program)) }

func (cPython) relocated(_ spec, usr string) []string { return []string{"PYTHONHOME=" + usr} }

func (cPython) registry(s spec, _ string) (source, error) { return newDebian(s) }

func (l cPython) bootstrap(r *Registry, s spec, in interpreter) (dir, digest string, err error) {
	t, err := embedded("bootstrap/python/*.py")
	if err != nil {
		return "", "", err
	}
	// Compiled code is good for one release of Python only.
	digest = hexDigest(t.digest(), in.version, in.origin)
	dir = filepath.Join(r.dir, "bootstrap", digest[:32])
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

// embedded returns the embedded files that match a pattern, without folders.
func embedded(pattern string) (tree, error) {
	names, err := fs.Glob(bootstraps, pattern)
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

// compileTimeout bounds the compilation of Python modules.
const compileTimeout = 5 * time.Minute

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

// command: -u: what the function prints is in the log at once. -B: nothing is
// writable for .pyc files, so that trying only costs time. -S: no packages of
// this host; the bootstrap does what else the site module would.
func (l cPython) command(s spec) []string {
	return []string{langDir + "/bin/" + l.executable(s), "-u", "-B", "-S", runtimeDir + "/bootstrap.py"}
}

func (cPython) fit(command []string, _ int, _ map[string]string) []string { return command }

func (cPython) environment(spec) map[string]string {
	return map[string]string{"PYTHONPATH": runtimeDir, "LC_CTYPE": "C.UTF-8"}
}
