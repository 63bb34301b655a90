package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

// probeTimeout bounds the question for an interpreter's version, on a busy host.
const probeTimeout = time.Minute

// versionPattern finds the version in the path of an interpreter that a
// version manager keeps: .../versions/node/v22.1.0/bin/node.
var versionPattern = regexp.MustCompile(`[/-]v?(\d+\.\d+\.\d+)`)

// findOnHost looks for an interpreter of the runtime's release on this host and
// tells why it could not use those that it found.
func (r *Registry) findOnHost(s spec) (in interpreter, rejected []string, ok bool) {
	seen := map[string]bool{}
	for _, path := range r.candidates(s) {
		path, err := filepath.EvalSymlinks(path)
		if err != nil || seen[path] {
			continue
		}
		seen[path] = true
		version, err := r.probes.version(s, path)
		if err != nil {
			rejected = append(rejected, fmt.Sprintf("%s: %v", path, err))
			continue
		}
		if !s.covers(version) {
			continue
		}
		in, err := r.place(s, path, version)
		if err != nil {
			rejected = append(rejected, fmt.Sprintf("%s: %v", path, err))
			continue
		}
		return in, nil, true
	}
	return interpreter{}, rejected, false
}

// candidates returns where an interpreter of the release may be, best first:
// the host's packages, then what version managers keep, newest first.
func (r *Registry) candidates(s spec) []string {
	name := s.language.executable(s)
	paths := []string{"/usr/bin/" + name, "/usr/local/bin/" + name}
	system, home := s.language.places(s)
	var managed []string
	for _, pattern := range system {
		found, _ := filepath.Glob(pattern) // a fixed pattern is well formed
		managed = append(managed, found...)
	}
	for _, pattern := range home {
		if r.home != "" {
			found, _ := filepath.Glob(filepath.Join(r.home, pattern))
			managed = append(managed, found...)
		}
	}
	slices.SortStableFunc(managed, func(a, b string) int {
		return compareVersions(versionInPath(b), versionInPath(a))
	})
	return append(paths, managed...)
}

func versionInPath(path string) string {
	if m := versionPattern.FindStringSubmatch(path); m != nil {
		return m[1]
	}
	return ""
}

// probe tells the version of an interpreter of this host.
func probe(s spec, path string) (string, error) {
	return s.language.version(s, path, func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
		cmd.WaitDelay = time.Second
		text, err := output(cmd)
		if err != nil && ctx.Err() != nil {
			return "", fmt.Errorf("it has not told its version: %w", ctx.Err())
		}
		return text, err
	})
}

// probes remembers what interpreters said, as long as their files stay the
// same: asking takes a process each time.
type probes map[string]probeResult

type probeResult struct {
	info    fs.FileInfo
	version string
	err     error
}

func (p probes) version(s spec, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	// By release, too: one program may serve several.
	key := s.release + " " + path
	if got, ok := p[key]; ok && sameFile(got.info, info) {
		return got.version, got.err
	}
	version, err := probe(s, path)
	if !errors.Is(err, context.DeadlineExceeded) { // which says more of the host than of the program
		p[key] = probeResult{info, version, err}
	}
	return version, err
}

// sameFile reports whether a file is unchanged.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// output runs a command and returns what it prints.
func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, lastLine(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// place says how an interpreter of this host appears at /var/lang.
func (r *Registry) place(s spec, path, version string) (interpreter, error) {
	in := interpreter{version: version, origin: path, file: path, program: path}
	bin, prefix := filepath.Dir(path), s.language.prefix(path)
	switch {
	case bin == "/usr/bin":
		// The base has it already.
		dir, err := writeTree(filepath.Join(r.dir, "lang"), links(s, path))
		if err != nil {
			return in, err
		}
		in.mounts = []sandbox.Mount{{Source: dir, Target: langDir}}
	case bin == "/usr/local/bin" && s.language == language(nodeJS{}):
		// One file. Its prefix holds other people's things.
		in.mounts = []sandbox.Mount{{Source: path, Target: langDir + "/bin/node"}}
	case prefix == "/usr/local":
		return in, fmt.Errorf("a %s whose prefix is /usr/local is not used, because all of that would be visible to functions", s.language.product())
	default:
		// A prefix of its own.
		in.mounts = []sandbox.Mount{{Source: prefix, Target: langDir}}
	}
	if l, ok := s.language.(configured); ok {
		var err error
		if in.etc, err = l.etc(prefix, "/etc"); err != nil {
			return in, err
		}
	}
	return in, r.checkLibraries(path, prefix)
}

// links returns the tree of a /var/lang that only points to path.
func links(s spec, path string) tree {
	t := tree{}
	for _, name := range []string{s.language.executable(s), s.language.name(), s.language.name() + "3"} {
		t["bin/"+name] = link(path)
	}
	return t
}

// compareVersions compares dotted decimal versions.
func compareVersions(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		if len(x) != len(y) {
			return len(x) - len(y)
		}
		return strings.Compare(x, y)
	})
}
