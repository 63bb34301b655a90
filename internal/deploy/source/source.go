// Package source makes packages for Lambda out of folders of source code: it finds
// out what language they are in, installs dependencies or compiles, and packs the
// result. It works in a copy and never changes the folder.
//
// Builders run where they always run for the same folder, so that the same source
// makes the same package, and its hash tells whether anything changed.
package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/deploy/archive"
)

// Request asks for a package.
type Request struct {
	// Path is a folder, or a zip file or jar that is taken as it is.
	Path string
	// Runtime and Handler may be empty: then they are found out.
	Runtime, Handler string
	// Architecture is Lambda's name of one, x86_64 or arm64.
	Architecture string
	// NoBuild packs the folder as it is.
	NoBuild bool

	// Name, BuildMethod and BuildProperties are those of a resource of a SAM
	// template, for code that says how it is built; Layer tells that it is a
	// layer.
	Name            string
	BuildMethod     string
	BuildProperties map[string]any
	Layer           bool
}

// Function is a package, and how it is to be run.
type Function struct {
	Package          archive.Package
	Runtime, Handler string
}

// Builder makes packages.
type Builder struct {
	// Newest finds the newest runtime of a language ("nodejs", "python") that
	// functions can have; "" if there is none.
	Newest func(language string) string
	// Say is told what is going on where it takes time.
	Say func(string)

	locks []*os.File
}

// Close frees the folders that packages were built in. The packages are gone then.
func (b *Builder) Close() error {
	var errs []error
	for _, f := range b.locks {
		errs = append(errs, f.Close())
	}
	b.locks = nil
	return errors.Join(errs...)
}

// Build makes a package.
func (b *Builder) Build(ctx context.Context, r Request) (*Function, error) {
	info, err := os.Stat(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s", r.Path)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if ext := filepath.Ext(r.Path); ext != ".zip" && ext != ".jar" {
			return nil, fmt.Errorf("%s is neither a folder nor a zip file", r.Path)
		}
		pack, err := archive.Existing(r.Path)
		return &Function{pack, r.Runtime, r.Handler}, err
	}
	j := &job{Request: r, builder: b, ctx: ctx}
	if j.Path, err = filepath.Abs(r.Path); err != nil {
		return nil, err
	}
	if j.skip, err = ignore(j.Path); err != nil {
		return nil, err
	}
	if err := j.describe(); err != nil {
		return nil, err
	}
	if err := j.open(); err != nil {
		return nil, err
	}
	dir, skip, err := j.build()
	if err != nil {
		return nil, err
	}
	pack, err := archive.Folder(filepath.Join(j.work, "package.zip"), dir, skip)
	return &Function{pack, j.Runtime, j.Handler}, err
}

// job is one package in work.
type job struct {
	Request
	builder *Builder
	ctx     context.Context // of the builders that it runs
	lang    *language       // nil: packed as it is
	skip    archive.Skip
	work    string // its own folder
}

// describe finds out the language, the runtime and the handler.
func (j *job) describe() error {
	if j.Layer {
		j.lang = byRuntime(j.BuildMethod, j.Path)
		if j.lang == nil && j.BuildMethod != "" && j.BuildMethod != "makefile" {
			return fmt.Errorf("%s: Lapwing does not have the BuildMethod %s for layers", j.Name, j.BuildMethod)
		}
		j.Runtime = j.BuildMethod
		return nil
	}
	if j.Runtime != "" {
		if j.lang = byRuntime(j.Runtime, j.Path); j.lang == nil && !strings.HasPrefix(j.Runtime, "provided") {
			return fmt.Errorf("code for the runtime %s is not packaged by Lapwing: package it, and give the zip file", j.Runtime)
		}
	} else if err := j.detect(); err != nil {
		return err
	}
	if j.Handler == "" {
		handler, err := j.lang.handler(j.Path)
		if err != nil {
			return err
		}
		j.Handler = handler
	}
	return j.checkHandler()
}

// checkHandler finds out in time that the file of a handler is not there. A layer
// may have it, at a path below /.
func (j *job) checkHandler() error {
	if j.lang != nil && j.lang.name == bootstrap {
		info, err := os.Stat(filepath.Join(j.Path, "bootstrap"))
		if err == nil && info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s/bootstrap cannot be executed: chmod +x it", j.Path)
		}
		return nil // a layer may have it
	}
	if j.NoBuild || j.BuildMethod != "" || j.lang == nil || len(j.lang.extensions) == 0 || strings.HasPrefix(j.Handler, "/") {
		return nil
	}
	module := strings.TrimSuffix(j.Handler, filepath.Ext(j.Handler))
	if j.lang.family == "python" {
		module = strings.ReplaceAll(module, ".", "/")
	}
	if slices.ContainsFunc(j.lang.extensions, func(ext string) bool { return exists(j.Path, module+ext) }) ||
		j.lang.family == "python" && exists(j.Path, module+"/__init__.py") {
		return nil
	}
	return fmt.Errorf("the handler is %s, and there is no %s in %s: name the right one", j.Handler, module+j.lang.extensions[0], j.Path)
}

// detect finds the language by what is in the folder, and takes the runtime from
// it.
func (j *job) detect() error {
	found := byManifest(j.Path)
	if len(found) == 0 {
		found = bySource(j.Path)
	}
	switch len(found) {
	case 0:
		return fmt.Errorf("%s holds nothing that Lapwing knows how to deploy: it looks for package.json or *.mjs, *.js; requirements.txt or *.py; go.mod; Cargo.toml; pom.xml; build.gradle; Gemfile or *.rb; a bootstrap. Name a runtime with --runtime, or another folder", j.Path)
	case 1:
		j.lang = found[0]
	default:
		var names []string
		for _, l := range found {
			names = append(names, l.name)
		}
		return fmt.Errorf("%s could be %s: say which with --runtime", j.Path, strings.Join(names, " or "))
	}
	j.Runtime = j.lang.runtime(j.Path, j.builder.Newest)
	return nil
}

// open makes the folder of the job, empty, and locks it.
func (j *job) open() error {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d", j.Path, j.Name, os.Geteuid()))
	j.work = filepath.Join(cache, "lapwing", "deploy", hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(j.work, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(j.work, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("%s is being deployed already: wait until that is done", j.Path)
	}
	j.builder.locks = append(j.builder.locks, lock)
	for _, name := range []string{"package.zip", "build"} {
		if err := os.RemoveAll(filepath.Join(j.work, name)); err != nil {
			return err
		}
	}
	return nil
}

// build builds what has to be built, and returns the folder to pack and what to
// leave out of it.
func (j *job) build() (dir string, skip archive.Skip, err error) {
	out := filepath.Join(j.work, "build")
	switch {
	case j.NoBuild:
		return j.Path, j.skip, nil
	case j.BuildMethod == "makefile":
		return out, nil, j.make(out)
	case j.BuildMethod == "esbuild" || j.lang != nil && j.lang.name == "Node.js" && !j.Layer && typeScript(j.Path, j.Handler):
		return out, nil, j.esbuild(out)
	case j.lang == nil || !j.lang.needed(j.Path):
		return j.Path, j.skip, nil
	}
	into := out
	if j.Layer && j.lang.layer != "" {
		into = filepath.Join(out, j.lang.layer)
	}
	return out, built, j.lang.build(j, into)
}

// built leaves out what installers leave behind.
func built(name string, dir bool) (bool, error) {
	base := filepath.Base(name)
	return base == "__pycache__" || name == "package.zip", nil
}

// copy copies the folder, without what is ignored and what is named.
func (j *job) copy(to string, without ...string) error {
	return copyTree(to, j.Path, func(name string, dir bool) (bool, error) {
		if slices.Contains(without, name) {
			return true, nil
		}
		return j.skip(name, dir)
	})
}
