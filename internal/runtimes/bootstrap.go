package runtimes

import (
	"embed"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

//go:embed bootstrap
var bootstraps embed.FS

// bootstrap writes the bootstrap of a language below the registry's directory
// if it is not there, and returns its directory and digest.
func (r *Registry) bootstrap(l language) (dir, digest string, err error) {
	var t tree
	if l == languageNode {
		t, err = nodeBootstrap()
	} else {
		t, err = pythonBootstrap()
	}
	if err != nil {
		return "", "", err
	}
	dir, err = writeTree(filepath.Join(r.dir, "bootstrap"), t)
	return dir, t.digest(), err
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
