package gvisor

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/image/chunk"
	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/sandbox"
)

// lazyImage makes an image of which nothing has been read yet, behind FUSE, as
// large ones are, and returns the directory of its store too.
func lazyImage(t *testing.T, tree fs.FS) (path, dir string) {
	t.Helper()
	needRoot(t)
	dir = t.TempDir()
	store, err := image.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := store.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	digest := strings.Repeat("a", 64)
	if err := store.Build(t.Context(), digest, func(w *erofs.Writer) error { return w.AddFS(tree) }); err != nil {
		t.Fatal(err)
	}
	return store.Path(digest), dir
}

var large = strings.Repeat("0123456789abcdef", 500_000)

func TestALazyImageIsReadAsFarAsItIsWanted(t *testing.T) {
	path, _ := lazyImage(t, withMountPoints(fstest.MapFS{
		"large": {Data: []byte(large), Mode: 0o644}, "small": {Data: []byte("small"), Mode: 0o644}, "var/task": {Mode: fs.ModeDir | 0o755},
	}))
	d := newDriver(t)
	g := newGuest(t, d, func(s *sandbox.Spec) {
		s.Root = path
		s.Mounts = []sandbox.Mount{{Source: path, Target: "/var/task", Image: true}}
	})
	for path, want := range map[string]string{"/small": "small", "/var/task/large": large} {
		if got := g.must("read", path, 0).Text; got != want {
			t.Errorf("%s holds %.100q, want %.100q", path, got, want)
		}
	}
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	g.must("read", "/small", 0)
}

// gVisor has an image mapped, so what cannot be read is the end of the sandbox and
// not an error of one call. What counts is that it is no hang.
func TestPartsOfAnImageThatCannotBeHadEndTheSandbox(t *testing.T) {
	path, dir := lazyImage(t, fstest.MapFS{"large": {Data: []byte(large), Mode: 0o644}})
	d := newDriver(t)
	g := newGuest(t, d, func(s *sandbox.Spec) {
		s.Mounts = []sandbox.Mount{{Source: path, Target: "/var/task", Image: true}}
	})
	chunks, err := filepath.Glob(filepath.Join(dir, "chunks", "*", "*"))
	if err != nil || len(chunks) == 0 {
		t.Fatal(chunks, err)
	}
	for _, c := range chunks {
		if err := os.Remove(c); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := g.try("read", "/var/task/large", 0); err == nil && r.Error == "" {
		t.Errorf("read %d bytes that are not there", len(r.Text))
	} else {
		t.Logf("%v %v", r.Error, err)
	}
	if exit := g.ended(); exit.Err == nil || exit.OutOfMemory {
		t.Errorf("it ended with %+v", exit)
	} else {
		t.Log(exit.Err)
	}
}

func TestAProgramWhosePagesCannotBeHadEndsTheSandbox(t *testing.T) {
	program, err := os.ReadFile(guestBinary)
	if err != nil {
		t.Fatal(err)
	}
	path, dir := lazyImage(t, fstest.MapFS{"program": {Data: program, Mode: 0o755}})
	d := newDriver(t)
	g := newGuest(t, d, func(s *sandbox.Spec) {
		s.Mounts = []sandbox.Mount{{Source: path, Target: "/var/task", Image: true}}
	})
	// What it takes to start the program is there, but not what it then runs.
	first := chunk.Sum(program[:chunk.Size]).String()
	chunks, err := filepath.Glob(filepath.Join(dir, "chunks", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		if filepath.Base(c) != first {
			if err := os.Remove(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r, err := g.try("run", "/var/task/program sleep", 0); err == nil && r.Error == "" {
		t.Error("it ran")
	}
	g.ended()
}
