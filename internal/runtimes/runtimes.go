// Package runtimes knows what the managed runtimes are made of: for a runtime
// id such as nodejs22.x or python3.13 it tells which files make up the
// sandbox's root, how the runtime starts and which environment variables it
// gets.
//
// A runtime has three parts. The base is a small Linux user land: a chosen part
// of this host's /usr, read-only, and an /etc made here (see base.go). The
// interpreter is one of exactly the runtime's version, found on this host, named
// by the operator (AddPath) or added from a package registry (Add); another
// version is never taken in its place. The bootstrap talks to the Lambda Runtime
// API and runs the function's handler: our own program, embedded in this binary,
// or for Java AWS's runtime interface client (see maven.go). The provided
// runtimes have the base only: the bootstrap comes with the function's code. An
// OCI image (AddImage) brings all three parts. What differs between languages is
// behind the interface language, a file each.
//
// Nothing here starts a sandbox; the worker does, from what Resolve returns.
package runtimes

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"lapwing.dev/lapwing/internal/sandbox"
)

// Paths in the sandbox, as on AWS.
const (
	langDir    = "/var/lang"    // the interpreter
	runtimeDir = "/var/runtime" // the bootstrap
	taskDir    = "/var/task"    // the function's code
)

// Runtime is what a worker needs to start one runtime. Its slices and maps are
// shared: change none.
type Runtime struct {
	ID      string // e.g. nodejs22.x
	Version string // what INIT_START shows, e.g. nodejs:22.23.3

	Mounts   []sandbox.Mount
	Symlinks []sandbox.Symlink

	// Command starts the runtime; CommandFor makes it fit an environment. It is
	// empty for the provided runtimes, where the first of Candidates that exists
	// is started.
	Command    []string
	Candidates []string

	// Env holds the variables that the runtime itself defines. The function's
	// own may replace those that AWS lets it replace.
	Env map[string]string

	// Clones tells that any function's environments may start from a snapshot:
	// the bootstrap sees to it that they differ in what they must. Other managed
	// runtimes leave that to functions that opt in to SnapStart.
	Clones bool

	// BootVariables are patterns of the variables that the interpreter reads when
	// it starts, beside those of the C library; nil: its bootstrap cannot be started
	// before it is known for which function. See Blank.
	BootVariables []string

	language language
	digest   string // of everything that makes this version differ from another
}

// VersionARN returns the ARN by which logs and GetRuntimeManagementConfig name
// exactly this version of the runtime.
func (r *Runtime) VersionARN(region string) string {
	return "arn:aws:lambda:" + region + "::runtime:" + r.digest
}

// Registry finds runtimes. It is safe for concurrent use.
type Registry struct {
	dir  string
	base base
	home string // where version managers keep interpreters

	finding sync.Mutex // held while an interpreter is looked for; guards probes
	probes  probes

	mu       sync.Mutex // guards resolved; never held for long
	resolved map[string]*resolution
}

// resolution remembers what an id resolved to, for as long as neither the
// interpreter's file nor the directory of added ones changes.
type resolution struct {
	runtime *Runtime
	file    string
	info    fs.FileInfo
	added   fs.FileInfo // nil where there is none
}

// Open opens the registry whose own files (base, bootstraps, added
// interpreters) are below dir, and writes those that are missing.
func Open(dir string) (*Registry, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("runtimes: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("runtimes: %w", err)
	}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("runtimes: %w", err)
	}
	b, err := openBase(dir)
	if err != nil {
		return nil, fmt.Errorf("runtimes: base: %w", err)
	}
	home, _ := os.UserHomeDir() // without one there are no version managers to look at
	return &Registry{dir: dir, base: b, home: home, probes: probes{}, resolved: map[string]*resolution{}}, nil
}

// UnavailableError reports a runtime id that AWS has but nothing here serves.
type UnavailableError struct {
	ID  string
	How string // what to do about it, a sentence
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("runtime %s is not installed here. %s", e.ID, e.How)
}

// UnknownError reports a runtime id that Lapwing does not know.
type UnknownError struct{ ID string }

// Error implements error.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("runtime %q is not known; the runtimes are %s", e.ID, strings.Join(IDs(), ", "))
}

// Resolve returns the runtime of an id. It fails with *UnknownError, or with
// *UnavailableError, which says what to install.
func (r *Registry) Resolve(id string) (*Runtime, error) {
	spec, ok := lookup(id)
	if !ok {
		return nil, &UnknownError{id}
	}
	if rt := r.remembered(spec); rt != nil {
		return rt, nil
	}
	r.finding.Lock()
	defer r.finding.Unlock()
	if rt := r.remembered(spec); rt != nil {
		return rt, nil // another call was faster
	}
	added := r.addedInfo(spec)
	rt, file, err := r.resolve(spec)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("runtimes: %s: %w", id, err)
	}
	r.mu.Lock()
	r.resolved[id] = &resolution{rt, file, info, added}
	r.mu.Unlock()
	return rt, nil
}

// remembered returns what an id resolved to before, if that still holds.
func (r *Registry) remembered(s spec) *Runtime {
	r.mu.Lock()
	got := r.resolved[s.id]
	r.mu.Unlock()
	if got == nil || !got.fresh(r.addedInfo(s)) {
		return nil
	}
	return got.runtime
}

// addedInfo returns the state of the directory of a runtime's added
// interpreters, or nil where there is none.
func (r *Registry) addedInfo(s spec) fs.FileInfo {
	info, err := os.Stat(r.addedDir(s))
	if err != nil {
		return nil
	}
	return info
}

func (g *resolution) fresh(added fs.FileInfo) bool {
	if (added == nil) != (g.added == nil) || added != nil && !sameFile(added, g.added) {
		return false
	}
	info, err := os.Stat(g.file)
	return err == nil && sameFile(info, g.info)
}

// resolve makes the runtime and names the file that must not change for it to
// stay valid.
func (r *Registry) resolve(s spec) (*Runtime, string, error) {
	in, err := r.find(s)
	switch {
	case err != nil:
		return nil, "", err
	case in.image != "":
		return ofImage(s, in), in.file, nil
	case s.language == nil:
		return r.provided(s), in.file, nil
	}
	boot, digest, err := s.language.bootstrap(r, s, in)
	if err != nil {
		return nil, "", fmt.Errorf("runtimes: %s: bootstrap: %w", s.id, err)
	}
	b := r.base
	if in.usr != "" {
		b.usr = in.usr
	}
	if len(in.etc) > 0 {
		if b.etc, err = writeTree(filepath.Join(r.dir, "base"), etcFiles(in.etc)); err != nil {
			return nil, "", fmt.Errorf("runtimes: %s: %w", s.id, err)
		}
	}
	rt := &Runtime{
		ID:       s.id,
		Version:  s.language.name() + ":" + in.version,
		Mounts:   append(b.mounts(), in.mounts...),
		Symlinks: b.symlinks(),
		Env:      environment(s),
		language: s.language,
	}
	rt.Mounts = append(rt.Mounts, sandbox.Mount{Source: boot, Target: runtimeDir})
	rt.Command = s.language.command(s)
	_, rt.Clones = s.language.(cloning)
	if l, ok := s.language.(blank); ok {
		rt.BootVariables = l.bootVariables()
	}
	rt.digest = hexDigest(s.id, in.version, in.origin, digest)
	return rt, in.file, nil
}

// providedCandidates are where the bootstrap of a provided runtime may be.
var providedCandidates = []string{taskDir + "/bootstrap", "/opt/bootstrap"}

func (r *Registry) provided(s spec) *Runtime {
	return &Runtime{
		ID:         s.id,
		Version:    strings.Replace(s.id, ".", ":", 1),
		Mounts:     r.base.mounts(),
		Symlinks:   r.base.symlinks(),
		Candidates: providedCandidates,
		Env:        environment(s),
		digest:     hexDigest(s.id),
	}
}

func hexDigest(parts ...string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\x00"))))
}

// interpreter is one interpreter that fits a runtime.
type interpreter struct {
	version string // e.g. 22.23.3
	origin  string // where it comes from, for people
	file    string // what changes when the interpreter changes
	program string // its executable on this host, where usr is empty
	mounts  []sandbox.Mount
	usr     string            // the /usr that it brings along, or "" for the host's
	etc     tree              // further files of the sandbox's /etc
	image   string            // the root of an OCI image that has all that the runtime needs, or ""
	env     map[string]string // of the image
	added   bool              // by Add, and not found on the host
}

// native returns a command that runs the interpreter on this host.
func (in interpreter) native(ctx context.Context, s spec, args ...string) (*exec.Cmd, error) {
	if in.usr != "" {
		return userlandCommand(ctx, s, in.usr, args...)
	}
	cmd := exec.CommandContext(ctx, in.program, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	return cmd, nil
}

// find returns the interpreter of a runtime that has all that it needs: an added
// one first, else one of this host.
func (r *Registry) find(s spec) (interpreter, error) {
	in, err := r.findInterpreter(s)
	if in.image != "" {
		return in, nil
	}
	if l, ok := s.language.(companion); ok && err == nil {
		if how := l.missing(r, s); how != "" {
			return interpreter{}, &UnavailableError{s.id, how}
		}
	}
	return in, err
}

func (r *Registry) findInterpreter(s spec) (interpreter, error) {
	in, err := r.findAdded(s)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return in, err
	}
	if s.language == nil {
		return interpreter{file: r.base.etc}, nil
	}
	in, rejected, ok := r.findOnHost(s)
	if ok {
		return in, nil
	}
	src, err := s.language.registry(s, r.home)
	how := s.how(err == nil && src != nil)
	if len(rejected) > 0 {
		how += " (Not usable: " + strings.Join(rejected, "; ") + ".)"
	}
	return interpreter{}, &UnavailableError{s.id, how}
}
