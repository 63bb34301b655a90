package runtimes

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// baseImage is laid out like AWS's base images.
func baseImage() map[string]string {
	return map[string]string{
		"bin": "->usr/bin", "sbin": "->usr/sbin", "lib": "->usr/lib", "lib64": "->usr/lib64",
		"usr/bin/sh": "shell", "usr/lib/os-release": "ID=\"amzn\"\nVERSION_ID=\"2023\"\n",
		"etc/passwd": "root:x:0:0::/:/bin/sh\nsecret:x:1:1::/:\n", "etc/shadow": "secret", "etc/system-release": "Amazon Linux",
		"root/.profile": "not needed", "lambda-entrypoint.sh": "not needed",
		"var/lang/bin/node": "node", "var/lang/include/node/node_version.h": "#define NODE_MAJOR_VERSION 22\n#define NODE_MINOR_VERSION 14\n#define NODE_PATCH_VERSION 1\n",
		"var/runtime/bootstrap": "#!/bin/sh\n",
	}
}

// makeImage makes an image of one layer; a content that begins with -> is a link.
func makeImage(t *testing.T, files map[string]string, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(files[path])), Typeflag: tar.TypeReg}
		if dest, ok := strings.CutPrefix(files[path], "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, dest, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, files[path])
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Env = []string{"LANG=other", "OF_THE_IMAGE=yes"}
	if change != nil {
		change(config)
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

// inLayout writes an image to an OCI layout and returns its path.
func inLayout(t *testing.T, image v1.Image) string {
	t.Helper()
	path, err := layout.Write(filepath.Join(t.TempDir(), "layout"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	return string(path)
}

func TestAnImageBecomesARuntime(t *testing.T) {
	image := makeImage(t, baseImage(), nil)
	server := httptest.NewServer(registry.New())
	t.Cleanup(server.Close)
	inRegistry := strings.TrimPrefix(server.URL, "http://") + "/lambda/nodejs:22"
	ref, err := name.ParseReference(inRegistry)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(saved, ref, image); err != nil {
		t.Fatal(err)
	}
	for kind, reference := range map[string]string{"registry": inRegistry, "docker save": saved, "layout": inLayout(t, image)} {
		t.Run(kind, func(t *testing.T) {
			r := openTest(t)
			if err := r.AddImage(t.Context(), "nodejs22.x", reference, nil); err != nil {
				t.Fatal(err)
			}
			rt, err := r.Resolve("nodejs22.x")
			if err != nil {
				t.Fatal(err)
			}
			if rt.Version != "nodejs:22.14.1" || rt.Env["OF_THE_IMAGE"] != "yes" || rt.Env["LANG"] != "en_US.UTF-8" || rt.Env["AWS_EXECUTION_ENV"] != "AWS_Lambda_nodejs22.x" {
				t.Errorf("%s, %v", rt.Version, rt.Env)
			}
			// The image's bootstrap fits the heap and runs the wrapper itself.
			if got := rt.CommandFor(128, map[string]string{wrapperVariable: "/opt/w"}); !slices.Equal(got, []string{"/var/runtime/bootstrap"}) {
				t.Errorf("command %v", got)
			}
			var targets []string
			etc := ""
			for _, m := range rt.Mounts {
				targets = append(targets, m.Target)
				if m.Target == "/etc" {
					etc = m.Source
				}
			}
			if !slices.Equal(targets, []string{"/usr", "/etc", "/var/lang", "/var/runtime"}) || len(rt.Symlinks) != 4 {
				t.Errorf("mounts %v, links %v", targets, rt.Symlinks)
			}
			passwd, err := os.ReadFile(filepath.Join(etc, "passwd"))
			if err != nil || strings.Contains(string(passwd), "secret") || !strings.Contains(string(passwd), user) {
				t.Errorf("passwd %q, %v", passwd, err)
			}
			if _, err := os.Stat(filepath.Join(etc, "shadow")); err == nil {
				t.Error("the image's shadow file is there")
			}
			if l := r.listing(mustLookup(t, "nodejs22.x")); l.Status != StatusAdded || !strings.Contains(l.Source, reference) {
				t.Errorf("listing %+v", l)
			}
		})
	}
}

func mustLookup(t *testing.T, id string) spec {
	t.Helper()
	s, ok := lookup(id)
	if !ok {
		t.Fatal(id)
	}
	return s
}

func TestTheImageThatWasAddedLastCounts(t *testing.T) {
	r := openTest(t)
	for _, minor := range []string{"14", "15", "14"} {
		files := baseImage()
		files["var/lang/include/node/node_version.h"] = strings.Replace(files["var/lang/include/node/node_version.h"], "14", minor, 1)
		if err := r.AddImage(t.Context(), "nodejs22.x", inLayout(t, makeImage(t, files, nil)), nil); err != nil {
			t.Fatal(err)
		}
		rt, err := r.Resolve("nodejs22.x")
		if err != nil || rt.Version != "nodejs:22."+minor+".1" {
			t.Fatalf("%+v, %v; want 22.%s.1", rt, err, minor)
		}
	}
	if err := r.Remove(t.Context(), "nodejs22.x"); err != nil {
		t.Fatal(err)
	}
	if r.findImage(mustLookup(t, "nodejs22.x")) != "" {
		t.Error("an image is left")
	}
}

func TestAnImageServesProvidedRuntimes(t *testing.T) {
	r := openTest(t)
	reference := inLayout(t, makeImage(t, baseImage(), nil))
	if err := r.AddImage(t.Context(), "provided.al2023", reference, nil); err != nil {
		t.Fatal(err)
	}
	rt, err := r.Resolve("provided.al2023")
	if err != nil || len(rt.Command) != 0 || len(rt.Candidates) != 2 || len(rt.Symlinks) != 4 {
		t.Errorf("%+v, %v", rt, err)
	}
	if err := r.AddImage(t.Context(), "provided.al2", reference, nil); err == nil || !strings.Contains(err.Error(), "it is not Amazon Linux 2") {
		t.Errorf("Amazon Linux 2023 as 2: %v", err)
	}
}

func TestImagesThatAreNoRuntimeAreRefused(t *testing.T) {
	without := func(name string) map[string]string {
		files := baseImage()
		delete(files, name)
		return files
	}
	for name, tt := range map[string]struct {
		files  map[string]string
		change func(*v1.ConfigFile)
		id     string
		want   string
	}{
		"another release":      {baseImage(), nil, "nodejs24.x", `has Node.js "22.14.1", and nodejs24.x needs 24`},
		"another language":     {baseImage(), nil, "python3.13", `has Python "", and python3.13 needs 3.13`},
		"no bootstrap":         {without("var/runtime/bootstrap"), nil, "nodejs22.x", "no program /var/runtime/bootstrap"},
		"another layout":       {without("bin"), nil, "nodejs22.x", "its /bin is not a link"},
		"another architecture": {baseImage(), func(c *v1.ConfigFile) { c.Architecture = "s390x" }, "nodejs22.x", "it is for linux/s390x"},
		"unknown runtime":      {baseImage(), nil, "nodejs1.x", "is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			r := openTest(t)
			err := r.AddImage(t.Context(), tt.id, inLayout(t, makeImage(t, tt.files, tt.change)), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if left := leftovers(t, r); len(left) > 0 && name != "unknown runtime" {
				for _, path := range left {
					if filepath.Base(path) != ".lock" {
						t.Errorf("left behind: %s", path)
					}
				}
			}
		})
	}
	if err := openTest(t).AddImage(t.Context(), "nodejs22.x", "no such:reference", nil); err == nil {
		t.Error("a malformed reference is taken")
	}
}

// An image's links can lead to any place of this host, where nothing may be
// written and which no sandbox may see.
func TestAnImagesLinksLeadNowhere(t *testing.T) {
	host := t.TempDir()
	secret := filepath.Join(host, "passwd")
	if err := os.WriteFile(secret, []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		links map[string]string // the others of the image below them are left out
		want  string            // "" where the image is taken
	}{
		"etc":           {map[string]string{"etc": host}, "its /etc is not a directory"},
		"usr":           {map[string]string{"usr": host}, "its /usr is not a directory"},
		"var/lang":      {map[string]string{"var/lang": host}, "its /var/lang is not a directory"},
		"var/runtime":   {map[string]string{"var/runtime": host}, "its /var/runtime is not a directory"},
		"etc by itself": {map[string]string{"etc/a": ".", "etc/a/passwd": secret}, ""},
		"version":       {map[string]string{"var/lang/include/node/node_version.h": "/dev/zero"}, `has Node.js ""`},
	} {
		t.Run(name, func(t *testing.T) {
			files := baseImage()
			for path, dest := range tt.links {
				maps.DeleteFunc(files, func(other, _ string) bool { return strings.HasPrefix(other, path+"/") && tt.links[other] == "" })
				files[path] = "->" + dest
			}
			r := openTest(t)
			err := r.AddImage(t.Context(), "nodejs22.x", inLayout(t, makeImage(t, files, nil)), nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if text, err := os.ReadFile(secret); string(text) != "the host's" {
				t.Errorf("the host's file is %q now, %v", text, err)
			}
			if here, err := os.ReadDir(host); len(here) != 1 {
				t.Errorf("the host's directory has %v, %v", here, err)
			}
		})
	}
}

// Versions are read from files alone: nothing of an image runs on the host.
func TestVersionsAreRecordedInFiles(t *testing.T) {
	for id, tt := range map[string]struct{ path, text, want string }{
		"python3.14": {"include/python3.14/patchlevel.h", "#define PY_MAJOR_VERSION 3\n#define PY_VERSION              \"3.14.2\"\n", "3.14.2"},
		"java21":     {"release", "IMPLEMENTOR=\"Amazon.com Inc.\"\nJAVA_VERSION=\"21.0.5\"\n", "21.0.5"},
		"java25":     {"release", "JAVA_VERSION=\"25\"\n", "25"},
		"ruby3.4":    {"lib/libruby.so.3.4.7", "", "3.4.7"},
		"ruby3.3":    {"lib/ruby/3.3.0/json.rb", "", "3.3"},
		"ruby3.2":    {"lib/libruby.so.3.2.1-gdb.py", "", ""},
		"dotnet8":    {"bin/shared/Microsoft.NETCore.App/8.0.11/x.dll", "", "8.0.11"},
		"dotnet10":   {"bin/shared/Microsoft.NETCore.App/8.0.11/x.dll", "", ""},
	} {
		prefix := t.TempDir()
		path := filepath.Join(prefix, tt.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		s := mustLookup(t, id)
		if got := s.language.recorded(s, prefix); got != tt.want || got != "" && !s.covers(got) {
			t.Errorf("%s: %q, want %q", id, got, tt.want)
		}
	}
}

func TestANamedInterpreterServesItsReleaseOnly(t *testing.T) {
	r := openTest(t)
	r.home = t.TempDir()
	node := filepath.Join(t.TempDir(), "prefix/bin/node")
	if err := os.MkdirAll(filepath.Dir(node), 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, node); err != nil {
		t.Fatal(err)
	}
	// The test program says that it is 22.99.1.
	if err := r.AddPath(t.Context(), "nodejs24.x", node); err == nil || !strings.Contains(err.Error(), "is Node.js 22.99.1, and nodejs24.x needs 24") {
		t.Errorf("as 24: %v", err)
	}
	if err := r.AddPath(t.Context(), "nodejs22.x", node); err != nil {
		t.Fatal(err)
	}
	if rt, err := r.Resolve("nodejs22.x"); err != nil || rt.Version != "nodejs:22.99.1" {
		t.Errorf("%+v, %v", rt, err)
	}
	if err := r.AddPath(t.Context(), "provided.al2023", node); err == nil {
		t.Error("a provided runtime takes an interpreter")
	}
}
