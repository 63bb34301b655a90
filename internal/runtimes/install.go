package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

// manifestFormat is the version of the manifest's format.
const manifestFormat = 1

// manifest describes an added interpreter; it lies beside it as manifest.json.
type manifest struct {
	Format  int    `json:"format"`
	ID      string `json:"id"`
	Version string `json:"version"`
	Source  string `json:"source"` // for people
	Layout  string `json:"layout"`
	// Env holds the variables that an image sets.
	Env map[string]string `json:"env,omitempty"`
	// Prefix is where in a user land the interpreter is; usr if empty.
	Prefix string `json:"prefix,omitempty"`
}

// Layouts of an added interpreter's directory.
const (
	// layoutPrefix: lang/ is the prefix that appears at /var/lang; libraries
	// come from the host's /usr.
	layoutPrefix = "prefix"
	// layoutUserland: usr/ is a whole /usr, with the interpreter in usr/bin.
	layoutUserland = "userland"
)

// source is a registry that has interpreters.
type source interface {
	source() string
	// add finds the newest version of a release and calls into with it; into
	// calls fill with an empty directory unless the version is there already.
	add(ctx context.Context, f *fetcher, s spec, into func(version string, fill func(dir string) (manifest, error)) error) error
}

// releaseVersion matches a version that is no pre-release.
var releaseVersion = regexp.MustCompile(`^\d+(\.\d+)*$`)

func (r *Registry) addedDir(s spec) string { return filepath.Join(r.dir, "added", s.id) }

// sourceOf returns where a runtime's interpreter can be added from.
func (r *Registry) sourceOf(s spec) (source, error) {
	if s.language == nil {
		return nil, errors.New("it needs no interpreter and is always there")
	}
	src, err := s.language.registry(s, r.home)
	if err == nil && src == nil {
		err = fmt.Errorf("no package registry that Lapwing uses has it. %s", s.how(false))
	}
	return src, err
}

// Add brings the newest interpreter of a runtime's release from a package
// registry (npm for Node.js, Debian for Python, Ruby and OpenJDK) and what else
// the runtime needs. A release that no registry has is that of this host. It
// verifies what it downloads against digests that are signed, announced by the
// registry or known here, and what is on disk is complete or absent. progress,
// which may be nil, is called now and then. A version that is there already is
// kept.
func (r *Registry) Add(ctx context.Context, id string, progress func(Progress)) error {
	s, ok := lookup(id)
	if !ok {
		return &UnknownError{id}
	}
	src, err := r.sourceOf(s)
	if err != nil && !r.onHost(s) {
		return fmt.Errorf("add %s: %w", id, err)
	}
	return r.adding(ctx, s, progress, func() error {
		f := newFetcher(progress)
		if l, ok := s.language.(companion); ok {
			if err := l.add(ctx, r, f); err != nil {
				return err
			}
			if r.onHost(s) {
				return nil // that was all that was missing
			}
		}
		if src == nil {
			return nil
		}
		return src.add(ctx, f, s, func(version string, fill func(string) (manifest, error)) error {
			return r.install(s, f, version, fill)
		})
	})
}

// onHost reports whether this host has an interpreter of the runtime.
func (r *Registry) onHost(s spec) bool {
	if s.language == nil {
		return false
	}
	r.finding.Lock()
	defer r.finding.Unlock()
	_, _, ok := r.findOnHost(s)
	return ok
}

// adding runs fill, which adds to the directory of a runtime, while nobody else
// does.
func (r *Registry) adding(ctx context.Context, s spec, progress func(Progress), fill func() error) error {
	id, dir := s.id, r.addedDir(s)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("add %s: %w", id, err)
	}
	unlock, err := lock(ctx, filepath.Join(r.dir, "added", ".lock"), progress)
	if err != nil {
		return fmt.Errorf("add %s: %w", id, err)
	}
	defer unlock()
	// What a crashed Add left behind: nobody else is at work.
	left, _ := filepath.Glob(filepath.Join(dir, tmpPrefix+"*"))
	for _, tmp := range left {
		if err := os.RemoveAll(tmp); err != nil {
			return fmt.Errorf("add %s: %w", id, err)
		}
	}
	if err := fill(); err != nil {
		return fmt.Errorf("add %s: %w", id, err)
	}
	return nil
}

// install makes the directory of one version.
func (r *Registry) install(s spec, f *fetcher, version string, fill func(string) (manifest, error)) error {
	if !releaseVersion.MatchString(version) || !s.covers(version) {
		return fmt.Errorf("version %q is not of release %s", version, s.release)
	}
	dir := filepath.Join(r.addedDir(s), version)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return makeDir(dir, func(tmp string) error {
		m, err := fill(tmp)
		if err != nil {
			return err
		}
		m.ID, m.Version = s.id, version
		f.progress(Progress{Step: "check " + s.id})
		if err := r.check(s, m, tmp); err != nil {
			return err
		}
		return writeManifest(tmp, m)
	})
}

func writeManifest(dir string, m manifest) error {
	m.Format = manifestFormat
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest.json"), append(text, '\n'), 0o644)
}

// check makes sure that a new interpreter can run before it is put in place.
func (r *Registry) check(s spec, m manifest, dir string) error {
	if m.Layout == layoutUserland {
		return checkUserland(s, m, dir)
	}
	path := filepath.Join(dir, "lang/bin", s.language.executable(s))
	if err := r.checkLibraries(path, filepath.Join(dir, "lang")); err != nil {
		return err
	}
	version, err := probe(s, path)
	if err != nil {
		return err
	}
	if version != m.Version {
		return fmt.Errorf("the program says that it is version %s, not %s", version, m.Version)
	}
	return nil
}

// Remove removes every added interpreter of a runtime. Sandboxes that still
// run on one must be gone. It is no error if there is none.
func (r *Registry) Remove(ctx context.Context, id string) error {
	s, ok := lookup(id)
	if !ok {
		return &UnknownError{id}
	}
	unlock, err := lock(ctx, filepath.Join(r.dir, "added", ".lock"), nil)
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	defer unlock()
	if err := os.RemoveAll(r.addedDir(s)); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	r.mu.Lock()
	delete(r.resolved, id)
	r.mu.Unlock()
	return nil
}

// lockPoll is the pause between attempts to take a lock that another process has.
const lockPoll = 100 * time.Millisecond

// lock takes an exclusive lock between processes, and tells progress, which may
// be nil, where it has to wait for it.
func lock(ctx context.Context, path string, progress func(Progress)) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if progress != nil {
			progress(Progress{Step: "wait for another 'lapwing runtimes' to end"})
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// findAdded returns what was added for a runtime, or an error that is
// fs.ErrNotExist: an image comes before an interpreter that the operator named,
// and that before the newest from a registry.
func (r *Registry) findAdded(s spec) (interpreter, error) {
	if dir := r.findImage(s); dir != "" {
		return r.openAdded(s, dir)
	}
	if dir := filepath.Join(r.addedDir(s), pathDir); isDir(dir) {
		return r.openAdded(s, dir)
	}
	dir := r.addedDir(s)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return interpreter{}, err
	}
	versions := []string{}
	for _, e := range entries {
		if releaseVersion.MatchString(e.Name()) {
			versions = append(versions, e.Name())
		}
	}
	if len(versions) == 0 {
		return interpreter{}, fs.ErrNotExist
	}
	return r.openAdded(s, filepath.Join(dir, slices.MaxFunc(versions, compareVersions)))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// openAdded reads what is at dir.
func (r *Registry) openAdded(s spec, dir string) (interpreter, error) {
	path := filepath.Join(dir, "manifest.json")
	text, err := os.ReadFile(path)
	if err != nil {
		// Not as fs.ErrNotExist: that would mean that nothing was added.
		return interpreter{}, fmt.Errorf("runtimes: %s: the added interpreter is damaged, remove and add it again: %v", s.id, err)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return interpreter{}, fmt.Errorf("runtimes: %s: %w", path, err)
	}
	if m.Format != manifestFormat {
		return interpreter{}, fmt.Errorf("runtimes: %s has format %d; this program knows %d", path, m.Format, manifestFormat)
	}
	in := interpreter{version: m.Version, origin: m.Source, file: path, added: true}
	switch m.Layout {
	case layoutPrefix:
		in.program = filepath.Join(dir, "lang/bin", s.language.executable(s))
		in.mounts = []sandbox.Mount{{Source: filepath.Join(dir, "lang"), Target: langDir}}
	case layoutUserland:
		in.usr = filepath.Join(dir, "usr")
		if err := r.placeUserland(s, m, dir, &in); err != nil {
			return interpreter{}, err
		}
	case layoutImage:
		in.image, in.env = dir, m.Env
	case layoutPath:
		return r.named(s, m.Source)
	default:
		return interpreter{}, fmt.Errorf("runtimes: %s has layout %q", path, m.Layout)
	}
	return in, nil
}

// placeUserland says how the interpreter of a user land appears at /var/lang.
func (r *Registry) placeUserland(s spec, m manifest, dir string, in *interpreter) error {
	prefix := filepath.Join(dir, m.Prefix)
	if l, ok := s.language.(configured); ok {
		var err error
		if in.etc, err = l.etc(prefix, filepath.Join(dir, "etc")); err != nil {
			return err
		}
	}
	if m.Prefix != "" {
		in.mounts = []sandbox.Mount{{Source: prefix, Target: langDir}}
		return nil
	}
	lang, err := writeTree(filepath.Join(r.dir, "lang"), links(s, "/usr/bin/"+s.language.executable(s)))
	in.mounts = []sandbox.Mount{{Source: lang, Target: langDir}}
	return err
}
