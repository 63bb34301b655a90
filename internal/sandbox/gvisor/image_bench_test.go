package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/sandbox"
)

// hostParts is what programs of the host's /usr need to run.
var hostParts = []string{"bin/node", "bin/python3.11", "lib/python3.11", "lib/x86_64-linux-gnu"}

// addHost adds hostParts to an image, below prefix.
func addHost(w *erofs.Writer, prefix string) error {
	usr := os.DirFS("/usr")
	for _, part := range hostParts {
		err := fs.WalkDir(usr, part, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := fs.Stat(usr, name) // of what a link leads to
			if err != nil || info.IsDir() || !info.Mode().IsRegular() {
				return nil
			}
			f, err := usr.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return w.Create(prefix+name, erofs.Attr{Mode: info.Mode(), Seconds: info.ModTime().Unix()}, info.Size(), f)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// modules is a function's code: 300 modules that the first one loads.
func modules() fstest.MapFS {
	tree := fstest.MapFS{}
	var index strings.Builder
	for i := range 300 {
		name := fmt.Sprintf("node_modules/m%d/index.js", i)
		tree[name] = &fstest.MapFile{Data: []byte(fmt.Sprintf("exports.n = %d // %s\n", i, strings.Repeat("x", 4000))), Mode: 0o644}
		fmt.Fprintf(&index, "require('m%d');", i)
	}
	index.WriteString("console.log(42)")
	tree["start.py"] = &fstest.MapFile{Data: []byte("import json, asyncio, http.client\nprint(42)\n"), Mode: 0o644}
	tree["index.js"] = &fstest.MapFile{Data: []byte(index.String()), Mode: 0o644}
	for name := range tree { // directories for os.CopyFS to make readable
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			tree[dir] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		}
	}
	return tree
}

// BenchmarkMounts measures starts from Create to a program's output by turns with
// directories and images, and what the sandboxes use: -benchtime 20x for medians
// of 20.
func BenchmarkMounts(b *testing.B) {
	d := newDriver(b)
	dir := b.TempDir()
	code := modules()
	if err := os.CopyFS(filepath.Join(dir, "code"), code); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	codeImage := imageOf(b, code)
	b.Logf("the image of %d files took %v", len(code), time.Since(began))
	host, err := os.Create(filepath.Join(dir, "host"))
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	w := erofs.NewWriter(host)
	if err := addHost(w, ""); err != nil {
		b.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		b.Fatal(err)
	}
	usr := map[bool]sandbox.Mount{false: {Source: "/usr", Target: "/usr"}, true: {Source: host.Name(), Target: "/usr", Image: true}}
	task := map[bool]sandbox.Mount{false: {Source: filepath.Join(dir, "code"), Target: "/var/task"}, true: {Source: codeImage, Target: "/var/task", Image: true}}
	cases := []struct {
		name         string
		runtime, own bool // are images
		command      string
	}{
		{"node-code-dir", false, false, "/usr/bin/node /var/task/index.js"},
		{"node-code-image", false, true, "/usr/bin/node /var/task/index.js"},
		{"node-all-image", true, true, "/usr/bin/node /var/task/index.js"},
		{"python-dir", false, true, "/usr/bin/python3.11 /var/task/start.py"},
		{"python-image", true, true, "/usr/bin/python3.11 /var/task/start.py"},
	}
	times, memory := map[string][]time.Duration{}, map[string]int64{}
	for b.Loop() {
		for _, c := range cases {
			began := time.Now()
			g := newGuest(b, d, func(s *sandbox.Spec) {
				s.MemoryMB = 512
				s.Mounts = []sandbox.Mount{usr[c.runtime], task[c.own]}
				s.Symlinks = []sandbox.Symlink{{Path: "/lib", Dest: "usr/lib"}, {Path: "/lib64", Dest: "usr/lib/x86_64-linux-gnu"}}
			})
			if got := g.must("run", c.command, 0).Text; got != "42\n" {
				b.Fatalf("%s: %s", c.name, got)
			}
			times[c.name] = append(times[c.name], time.Since(began))
			for _, pid := range addressSpaces(b, g.Sandbox.(*instance)) {
				memory[c.name] += proportional(b, pid)
			}
			if err := g.Destroy(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	for name, t := range times {
		slices.Sort(t)
		b.ReportMetric(t[len(t)/2].Seconds()*1000, name+"-ms")
		b.ReportMetric(float64(memory[name])/float64(len(t))/1024, name+"-pss-MB")
	}
}

// BenchmarkLargeImage measures the start of a program from an image of 3 GB: from
// chunks, nothing of which is in memory, and with the image put together whole
// first, as an unpacking would. It takes about 8 GB of disk for the while.
func BenchmarkLargeImage(b *testing.B) {
	needRoot(b)
	const size, files = 3 << 30, 96
	dir := b.TempDir()
	digest := strings.Repeat("c", 64)
	open := func(dir string) *image.Store {
		s, err := image.Open(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	closeStore := func(s *image.Store) {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := s.Close(ctx); err != nil {
			b.Error(err)
		}
	}
	store := open(dir)
	began := time.Now()
	err := store.Build(b.Context(), digest, func(w *erofs.Writer) error {
		if err := errors.Join(addHost(w, "usr/"), w.AddFS(withMountPoints(fstest.MapFS{}))); err != nil {
			return err
		}
		for i := range files {
			random := rand.NewChaCha8([32]byte{byte(i)})
			if err := w.Create(fmt.Sprintf("data/%d", i), erofs.Attr{Mode: 0o644}, size/files, io.LimitReader(random, size/files)); err != nil {
				return err
			}
		}
		return errors.Join(w.Symlink("lib64", "usr/lib/x86_64-linux-gnu", erofs.Attr{}), w.Symlink("lib", "usr/lib", erofs.Attr{}))
	})
	if err != nil {
		b.Fatal(err)
	}
	build := time.Since(began)
	closeStore(store)
	var onDisk int64
	if err := filepath.WalkDir(filepath.Join(dir, "chunks"), func(_ string, e fs.DirEntry, err error) error {
		if info, statErr := e.Info(); statErr == nil && !e.IsDir() {
			onDisk += info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}

	d := newDriver(b)
	start := func(root string) {
		g := newGuest(b, d, func(s *sandbox.Spec) { s.MemoryMB, s.Root = 512, root })
		if got := g.must("run", "/usr/bin/node -p 6*7", 0).Text; got != "42\n" {
			b.Fatal(got)
		}
		if err := g.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	var lazy, again, whole, unpack time.Duration
	var read int64
	for b.Loop() {
		forget(b, dir)
		store := open(dir) // a new mount, with nothing in the page cache
		began := time.Now()
		start(store.Path(digest))
		lazy += time.Since(began)
		read += store.BytesRead()
		began = time.Now()
		start(store.Path(digest))
		again += time.Since(began)

		forget(b, dir)
		copied := filepath.Join(b.TempDir(), "whole")
		began = time.Now()
		copyFile(b, store.Path(digest), copied)
		unpack += time.Since(began)
		start(copied)
		whole += time.Since(began)
		if err := os.Remove(copied); err != nil {
			b.Fatal(err)
		}
		closeStore(store)
	}
	n := float64(b.N)
	b.ReportMetric(build.Seconds(), "build-s")
	b.ReportMetric(float64(onDisk)/mib, "stored-MB")
	b.ReportMetric(lazy.Seconds()/n, "lazy-start-s")
	b.ReportMetric(again.Seconds()/n, "second-start-s")
	b.ReportMetric(float64(read)/n/mib, "lazy-read-MB")
	b.ReportMetric(whole.Seconds()/n, "whole-start-s")
	b.ReportMetric(unpack.Seconds()/n, "of-which-unpack-s")
}

func copyFile(b *testing.B, from, to string) {
	b.Helper()
	in, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20)); err != nil {
		b.Fatal(err)
	}
	if err := out.Sync(); err != nil {
		b.Fatal(err)
	}
}

// forget has the kernel give up what it has in memory of the files below dir.
func forget(b *testing.B, dir string) {
	b.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		b.Fatal(err)
	}
}
