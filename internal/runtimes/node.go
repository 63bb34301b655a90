package runtimes

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// nodeJS is the language of the nodejs runtimes.
type nodeJS struct{}

func (nodeJS) name() string           { return "nodejs" }
func (nodeJS) product() string        { return "Node.js" }
func (nodeJS) executable(spec) string { return "node" }

func (nodeJS) places(s spec) (system, home []string) {
	return []string{"/usr/bin/nodejs", "/usr/local/n/versions/node/" + s.release + ".*/bin/node", "/opt/node-v" + s.release + ".*/bin/node"},
		[]string{
			".nvm/versions/node/v" + s.release + ".*/bin/node",
			".asdf/installs/nodejs/" + s.release + ".*/bin/node",
			".volta/tools/image/node/" + s.release + ".*/bin/node",
			".local/share/mise/installs/node/" + s.release + ".*/bin/node",
			".local/share/fnm/node-versions/v" + s.release + ".*/installation/bin/node",
		}
}

func (nodeJS) version(_ spec, _ string, ask func(...string) (string, error)) (string, error) {
	return ask("-p", "process.versions.node")
}

var nodeVersionHeader = regexp.MustCompile(`(?m)^#define NODE_(MAJOR|MINOR|PATCH)_VERSION (\d+)$`)

func (nodeJS) recorded(_ spec, prefix string) string {
	return joinMatches(nodeVersionHeader, recordIn(filepath.Join(prefix, "include/node/node_version.h")))
}

// joinMatches joins what three matches of a header's pattern have in their
// second group to a version.
func joinMatches(pattern *regexp.Regexp, text string) string {
	var parts []string
	for _, m := range pattern.FindAllStringSubmatch(text, 4) {
		parts = append(parts, m[2])
	}
	if len(parts) != 3 {
		return ""
	}
	return strings.Join(parts, ".")
}

func (nodeJS) prefix(program string) string { return filepath.Dir(filepath.Dir(program)) }

func (nodeJS) relocated(spec, string) []string { return nil }

func (nodeJS) registry(_ spec, home string) (source, error) { return newNPMNode(home) }

// bootstrap joins the modules of the Node.js bootstrap in one file: finding,
// opening and reading each of several would cost more than running them.
func (nodeJS) bootstrap(r *Registry, _ spec, _ interpreter) (dir, digest string, err error) {
	t, err := nodeBootstrap()
	if err != nil {
		return "", "", err
	}
	dir, err = writeTree(filepath.Join(r.dir, "bootstrap"), t)
	return dir, t.digest(), err
}

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
	return tree{"index.js": file(b.String()), "reseed.node": {data: reseedObject(elfMachine)}}, nil
}

func (nodeJS) command(spec) []string {
	return []string{langDir + "/bin/node", runtimeDir + "/index.js"}
}

// fit adds what AWS starts Node.js with: a young generation of a tenth of the
// memory and the rest for the old one, unless the function sizes its heap itself.
func (nodeJS) fit(command []string, memoryMB int, env map[string]string) []string {
	flags := []string{"--expose-gc", "--max-http-header-size=81920"}
	options := strings.ReplaceAll(env["NODE_OPTIONS"], "_", "-")
	if !strings.Contains(options, "--max-semi-space-size") && !strings.Contains(options, "--max-old-space-size") {
		young := memoryMB / 10
		flags = append(flags,
			fmt.Sprintf("--max-semi-space-size=%d", young/2),
			fmt.Sprintf("--max-old-space-size=%d", memoryMB-young))
	}
	return slices.Insert(command, 1, flags...)
}

// bootVariables: Node.js's own are NODE_* (command line API, "Environment
// variables"), but for some that only libraries read, and libuv's UV_*. OpenSSL and
// ICU read theirs when they are initialised.
func (nodeJS) bootVariables() []string {
	return []string{
		"NODE_*", "!NODE_ENV", "!NODE_CONFIG", "!NODE_CONFIG_DIR", "!NODE_CONFIG_ENV",
		"UV_*", "OPENSSL_*", "SSL_CERT_*", "ICU_*", "NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM",
	}
}

func (nodeJS) environment(s spec) map[string]string {
	return map[string]string{
		"NODE_PATH": fmt.Sprintf("/opt/nodejs/node%s/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task", s.release),
	}
}
