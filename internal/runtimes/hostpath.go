package runtimes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// layoutPath: the interpreter is one of this host that the operator named.
const layoutPath = "path"

// pathDir is the name of the directory that remembers it.
const pathDir = "path"

// AddPath makes the interpreter at a path of this host a runtime's, in the place
// of whatever served it but an image. It must be of exactly the runtime's
// release, and is asked for its version: whoever calls this trusts it.
func (r *Registry) AddPath(ctx context.Context, id, path string) error {
	s, ok := lookup(id)
	if !ok {
		return &UnknownError{id}
	}
	if s.language == nil {
		return fmt.Errorf("add %s: it needs no interpreter", id)
	}
	return r.adding(ctx, s, nil, func() error {
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		in, err := r.named(s, path)
		if err != nil {
			return err
		}
		dir := filepath.Join(r.addedDir(s), pathDir)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		return makeDir(dir, func(tmp string) error {
			return writeManifest(tmp, manifest{ID: s.id, Version: in.version, Source: path, Layout: layoutPath})
		})
	})
}

// named returns the interpreter that an operator named.
func (r *Registry) named(s spec, path string) (interpreter, error) {
	version, err := probe(s, path)
	if err != nil {
		return interpreter{}, fmt.Errorf("%s: %w", path, err)
	}
	if !s.covers(version) {
		return interpreter{}, fmt.Errorf("%s is %s %s, and %s needs %s", path, s.language.product(), version, s.id, s.release)
	}
	in, err := r.place(s, path, version)
	in.added = true
	return in, err
}
