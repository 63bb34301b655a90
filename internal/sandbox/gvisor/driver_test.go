package gvisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/sandbox"
)

func TestSpecIsSeenInTheGuest(t *testing.T) {
	d := newDriver(t)
	source := t.TempDir()
	for path, text := range map[string]string{"hello.txt": "hello", "sub/deep.txt": "deep"} {
		path = filepath.Join(source, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(source, 0o755); err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, d, func(s *sandbox.Spec) {
		s.Hostname, s.CPUs = "a-name", 3
		s.Mounts = []sandbox.Mount{
			{Source: source, Target: "/var/task"},
			{Source: filepath.Join(source, "hello.txt"), Target: "/etc/one-file"},
		}
		s.Symlinks = []sandbox.Symlink{{Path: "/link", Dest: "var/task/sub"}}
	})
	if got := g.must("hostname", "", 0).Text; got != "a-name" {
		t.Errorf("hostname %q", got)
	}
	if got := g.must("cpus", "", 0).N; got != 3 {
		t.Errorf("%d CPUs, want 3", got)
	}
	for path, want := range map[string]string{
		"/var/task/hello.txt": "hello", "/etc/one-file": "hello", "/link/deep.txt": "deep",
	} {
		if got := g.must("read", path, 0).Text; got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	if got := g.must("list", "/var/task", 0).Text; got != "hello.txt sub " {
		t.Errorf("/var/task holds %q", got)
	}
	if got := g.must("list", "/", 0).Text; got != "dev etc lapwing-init link opt proc sys tmp var " {
		t.Errorf("/ holds %q", got)
	}
	if got := g.must("read", "/proc/meminfo", 0).Text; !strings.Contains(got, " 131072 kB") {
		t.Errorf("/proc/meminfo does not tell of 128 MiB:\n%s", got)
	}
	if got := g.must("stat", "/tmp", 0).Text; got != "dtrwxrwxrwx" {
		t.Errorf("/tmp has mode %s", got)
	}
	if r := g.do("stat", "/dev/shm", 0); !strings.Contains(r.Error, "no such file") {
		t.Errorf("/dev/shm is there: %+v", r)
	}
}

func TestFilesystemIsReadOnlyButForTmp(t *testing.T) {
	d := newDriver(t)
	for _, image := range []bool{false, true} {
		t.Run(fmt.Sprintf("image=%t", image), func(t *testing.T) { filesystemIsReadOnly(t, d, image) })
	}
}

func filesystemIsReadOnly(t *testing.T, d *Driver, image bool) {
	source := t.TempDir()
	if err := os.Chmod(source, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(source, "file")
	if err := os.WriteFile(file, []byte("before"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "private"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(source, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(source, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := sandbox.Mount{Source: source, Target: "/opt"}
	if image {
		mount.Source, mount.Image = imageOf(t, os.DirFS(source)), true
	}
	g := newGuest(t, d, func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{mount} })
	if r := g.do("write", "/proc/new", 1); r.Error == "" {
		t.Error("/proc could be written to")
	}
	for _, c := range []struct{ op, path string }{
		{"write", "/new"}, {"write", "/opt/new"}, {"write", "/opt/sub/new"}, {"write", "/opt/file"}, {"write", "/opt/private"},
		{"write", "/lapwing-init"}, {"write", "/sys/new"}, {"write", "/opt/sub/../link"},
		{"remove", "/opt/file"}, {"mkdir", "/new"}, {"mkdir", "/opt/sub/new"}, {"rename", "/opt/file"}, {"symlink", "/opt/new"},
		{"chmod", "/opt/file"}, {"truncate", "/opt/file"}, {"writable", "/opt/file"}, {"writable", "/"}, {"rmdir", "/opt/sub"},
	} {
		for _, user := range []int{0, 993} {
			r := g.as(user, c.op, c.path, 1)
			if !strings.Contains(r.Error, "read-only file system") {
				t.Errorf("user %d, %s %s: %+v", user, c.op, c.path, r)
			}
		}
	}
	// In /dev process 1, which is Lapwing's own, may make files.
	if r := g.as(993, "write", "/dev/new", 1); !strings.Contains(r.Error, "read-only file system") {
		t.Errorf("write /dev/new: %+v", r)
	}
	// Other refusals stay what they are.
	for _, c := range []struct{ op, path, want string }{
		{"read", "/opt/private", "permission denied"}, {"write", "/opt/nowhere/new", "no such file"}, {"write", "/opt/file/new", "not a directory"},
	} {
		if r := g.as(993, c.op, c.path, 1); !strings.Contains(r.Error, c.want) {
			t.Errorf("%s %s: %+v", c.op, c.path, r)
		}
	}
	g.must("mkdir", "/tmp/roots", 0)
	if r := g.as(993, "write", "/tmp/roots/new", 1); !strings.Contains(r.Error, "permission denied") {
		t.Errorf("another's directory in /tmp: %+v", r)
	}
	if r := g.as(993, "write", "/dev/null", 1); r.Error != "" {
		t.Errorf("/dev/null: %s", r.Error)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "before" {
		t.Errorf("the host's file holds %q, %v", b, err)
	}
	if r := g.as(993, "write", "/tmp/file", 1); r.Error != "" {
		t.Errorf("/tmp/file: %s", r.Error)
	}
	g.must("mkdir", "/tmp/dir", 0)
	g.must("write", "/tmp/dir/file", 1)
}

// imageOf makes an image of a tree.
func imageOf(tb testing.TB, tree fs.FS) (path string) {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "image"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	w := erofs.NewWriter(f)
	if err := w.AddFS(tree); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return f.Name()
}

// withMountPoints adds what every sandbox mounts on to the tree of a root.
func withMountPoints(tree fstest.MapFS) fstest.MapFS {
	for _, dir := range sandbox.RootDirs {
		tree[strings.TrimPrefix(dir, "/")] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	}
	for _, file := range sandbox.RootFiles {
		tree[strings.TrimPrefix(file, "/")] = &fstest.MapFile{Mode: 0o644}
	}
	return tree
}

func TestImagesAreMounted(t *testing.T) {
	d := newDriver(t)
	code := imageOf(t, fstest.MapFS{
		"hello.txt": {Data: []byte("hello"), Mode: 0o644},
		"sub/link":  {Data: []byte("../hello.txt"), Mode: fs.ModeSymlink | 0o777},
		"large":     {Data: bytes.Repeat([]byte("0123456789abcdef"), 100_000), Mode: 0o644},
		"private":   {Mode: 0o600},
	})
	root := imageOf(t, withMountPoints(fstest.MapFS{
		"etc/own":      {Data: []byte("own"), Mode: 0o644},
		"etc/one-file": {Mode: 0o644},
		"tmp/gone":     {Mode: 0o644},
		"var/task":     {Mode: fs.ModeDir | 0o755},
	}))
	g := newGuest(t, d, func(s *sandbox.Spec) {
		s.Root = root
		s.Mounts = []sandbox.Mount{{Source: code, Target: "/var/task", Image: true}, {Source: guestBinary, Target: "/etc/one-file"}}
	})
	for path, want := range map[string]string{
		"/etc/own": "own", "/var/task/hello.txt": "hello", "/var/task/sub/link": "hello",
		"/var/task/large": strings.Repeat("0123456789abcdef", 100_000),
	} {
		if got := g.must("read", path, 0).Text; got != want {
			t.Errorf("%s holds %.100q, want %.100q", path, got, want)
		}
	}
	for path, want := range map[string]string{
		"/": "dev etc lapwing-init proc sys tmp var ", "/etc": "one-file own ", "/tmp": "", "/var/task": "hello.txt large private sub ",
	} {
		if got := g.must("list", path, 0).Text; got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/new", "/etc/own", "/etc/new", "/var/task/new"} {
		if r := g.as(993, "write", path, 1); !strings.Contains(r.Error, "read-only file system") {
			t.Errorf("write %s: %+v", path, r)
		}
	}
	if r := g.as(993, "read", "/var/task/private", 0); !strings.Contains(r.Error, "permission denied") {
		t.Errorf("another's file: %+v", r)
	}
	g.must("write", "/tmp/file", 1)
}

func TestWhatIsNoImageIsRefused(t *testing.T) {
	d := newDriver(t)
	for name, source := range map[string]string{"text": guestBinary, "directory": t.TempDir(), "nothing": "/nowhere/image"} {
		spec := testSpec(func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: source, Target: "/opt", Image: true}} })
		if s, err := d.Create(t.Context(), spec); err == nil {
			t.Errorf("%s was mounted", name)
			s.Destroy(t.Context())
		}
	}
}

func TestTmpHasItsSize(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d, func(s *sandbox.Spec) { s.TmpMB = 256 })
	r := g.do("write", "/tmp/big", 300)
	if !strings.Contains(r.Error, "no space left") {
		t.Errorf("writing 300 MB ended with %q", r.Error)
	}
	if r.N < 250<<20 || r.N > 256<<20 {
		t.Errorf("%d MiB could be written, want 256", r.N>>20)
	}
	// It is more than the sandbox's memory, and yet that is free.
	st, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if st.MemoryMB > 64 {
		t.Errorf("a full /tmp takes %d MB of memory", st.MemoryMB)
	}
	g.must("allocate", "", 100)
	g.must("remove", "/tmp/big", 0)
	g.must("write", "/tmp/again", 200)
}

func TestExitTellsWhy(t *testing.T) {
	d := newDriver(t)
	t.Run("clean", func(t *testing.T) {
		g := newGuest(t, d)
		if _, err := g.try("exit", "", 0); err == nil {
			t.Error("the connection outlives process 1")
		}
		if exit := g.ended(); exit != (sandbox.Exit{}) {
			t.Errorf("exit %+v", exit)
		}
	})
	t.Run("status", func(t *testing.T) {
		g := newGuest(t, d)
		g.try("exit", "", 7)
		if exit := g.ended(); exit.Err == nil || !strings.Contains(exit.Err.Error(), "exit status 7") {
			t.Errorf("exit %+v", exit)
		}
	})
	t.Run("destroyed", func(t *testing.T) {
		g := newGuest(t, d)
		if err := g.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if exit := g.ended(); exit != (sandbox.Exit{}) {
			t.Errorf("exit %+v", exit)
		}
		if _, err := g.try("cpus", "", 0); err == nil {
			t.Error("the connection outlives the sandbox")
		}
		if err := g.Destroy(t.Context()); err != nil {
			t.Errorf("destroying it again: %v", err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		g := newGuest(t, d)
		if err := g.Sandbox.(*instance).process.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit := g.ended(); exit.Err == nil || exit.OutOfMemory {
			t.Errorf("exit %+v", exit)
		}
	})
}

// A sandbox is several processes on the host. It ends with any of them, since
// what that one was about is lost.
func TestSandboxEndsWithAnyOfItsProcesses(t *testing.T) {
	d := newDriver(t)
	for i, most := 0, 1; i < most; i++ {
		g := newGuest(t, d)
		g.must("spin", "", 2)
		g.must("fork", "", 1)
		all := descendants(g.Sandbox.(*instance).process.Pid)
		if most = len(all); i >= most {
			break // fewer than last time
		}
		if err := unix.Kill(all[i], unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if exit := g.ended(); exit.Err == nil || exit.OutOfMemory {
			t.Errorf("after the end of descendant %d of %d: exit %+v", i, most, exit)
		}
	}
}

// descendants returns the processes below one, parents first.
func descendants(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file) // the thread may have ended
		for f := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

func TestCreateRefusesWhatItCannotKeep(t *testing.T) {
	d := newDriver(t)
	for name, change := range map[string]func(*sandbox.Spec){
		"ID":               func(s *sandbox.Spec) { s.ID = "../x" },
		"no memory":        func(s *sandbox.Spec) { s.MemoryMB = 0 },
		"no CPU":           func(s *sandbox.Spec) { s.CPUMillis = 0 },
		"relative source":  func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "x", Target: "/x"}} },
		"missing source":   func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/no/such", Target: "/x"}} },
		"device":           func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/dev/null", Target: "/x"}} },
		"own path":         func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/usr", Target: "/tmp/x"}} },
		"path that climbs": func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/usr", Target: "/x/../../y"}} },
		"same path twice": func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Source: "/usr", Target: "/x"}}
			s.Symlinks = []sandbox.Symlink{{Path: "/x", Dest: "/y"}}
		},
		"network without an address":  func(s *sandbox.Spec) { s.Network.NamespacePath, s.Network.Interface = "/no/such", "x" },
		"network without a namespace": func(s *sandbox.Spec) { s.Network.Interface = "x" },
		"missing namespace": func(s *sandbox.Spec) {
			s.Network = sandbox.Network{NamespacePath: "/no/such", Interface: "x", Address: netip.MustParsePrefix("10.0.0.2/24")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := d.Create(t.Context(), testSpec(change)); err == nil {
				s.Destroy(t.Context())
				t.Error("no error")
			} else {
				t.Log(err)
			}
		})
	}
	if len(d.live) != 0 || d.memoryMB != 0 {
		t.Errorf("%d sandboxes and %d MB are held", len(d.live), d.memoryMB)
	}
}

func TestCreateRefusesAnIDInUse(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	same := func(s *sandbox.Spec) { s.ID = g.Sandbox.(*instance).spec.ID }
	if _, err := d.Create(t.Context(), testSpec(same)); err == nil {
		t.Fatal("two sandboxes with one ID")
	}
	g.must("cpus", "", 0)
	if err := g.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	newGuest(t, d, same)
}

func TestCreateHeedsItsBudget(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.MemoryMB = 300 })
	newGuest(t, d)
	g := newGuest(t, d)
	if _, err := d.Create(t.Context(), testSpec()); !errors.Is(err, sandbox.ErrNoCapacity) {
		t.Fatalf("error %v", err)
	}
	if err := g.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	newGuest(t, d)
	huge := newDriver(t)
	if _, err := huge.Create(t.Context(), testSpec(func(s *sandbox.Spec) { s.MemoryMB = 1 << 30 })); !errors.Is(err, sandbox.ErrNoCapacity) {
		t.Fatalf("more than the host has: error %v", err)
	}
}

func TestCreateEndsWithItsContext(t *testing.T) {
	d := newDriver(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.Create(ctx, testSpec()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	if len(d.live) != 0 {
		t.Error("the sandbox is still there")
	}
}

func TestManySideBySide(t *testing.T) {
	d := newDriver(t)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			s, err := d.Create(t.Context(), testSpec())
			if err != nil {
				t.Error(err)
				return
			}
			g := &guest{t, s, bufio.NewReader(s.Conn())}
			if r, err := g.try("hostname", "", 0); err != nil || r.Text != "guest" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wg.Wait()
}

func TestOneDriverForEachDirectory(t *testing.T) {
	d := newDriver(t)
	if _, err := New(t.Context(), d.opts); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("error %v", err)
	}
	newGuest(t, d) // and the first is unharmed
}

func TestNewNamesWhatItNeeds(t *testing.T) {
	needRoot(t)
	for name, opts := range map[string]Options{
		"missing": {InitPath: "/no/such", SandboxPath: sandboxBinary},
		"dynamic": {InitPath: "/bin/sh", SandboxPath: sandboxBinary},
	} {
		t.Run(name, func(t *testing.T) {
			opts.Dir = t.TempDir()
			d, err := New(t.Context(), opts)
			if err == nil {
				d.Close()
				t.Fatal("no error")
			}
			t.Log(err)
		})
	}
}

// held counts what a process holds of the host.
type held struct{ goroutines, files, mounts, cgroups int }

func count(t *testing.T, d *Driver) (h held) {
	t.Helper()
	h.goroutines = runtime.NumGoroutine()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	h.files = len(files)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	h.mounts = bytes.Count(mounts, []byte(d.opts.Dir)) // others may mount what they like
	for _, p := range d.cgroups.Paths() {
		if err := filepath.WalkDir(p, func(_ string, e fs.DirEntry, err error) error {
			if e.IsDir() {
				h.cgroups++
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestNothingIsLeftBehind(t *testing.T) {
	d := newDriver(t)
	once := func() {
		g := newGuest(t, d)
		g.must("cpus", "", 0)
		if err := g.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	once() // what is made once
	// Goroutines of the last one may need a moment for their last instructions.
	settled := func(ok func(held) bool) held {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if h := count(t, d); ok(h) || time.Now().After(end) {
				return h
			}
		}
	}
	before := settled(func(h held) bool { return h.goroutines <= 4 }) // two of the driver's
	for range 10 {                                                    // what one leaves is ten times there
		once()
	}
	noMore := func(h held) bool {
		return h.goroutines <= before.goroutines && h.files <= before.files && h.mounts <= before.mounts && h.cgroups <= before.cgroups
	}
	if after := settled(noMore); !noMore(after) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if left, err := os.ReadDir(d.opts.Dir); err != nil || len(left) != 4 {
		t.Errorf("the driver's directory holds %v, %v", left, err)
	}
}

func TestDestroyUnderLoad(t *testing.T) {
	d := newDriver(t)
	var wg sync.WaitGroup
	for i := range 4 {
		g := newGuest(t, d)
		g.must("spin", "", 2)
		g.must("fork", "", 20)
		if i%2 == 0 {
			if err := g.Freeze(); err != nil {
				t.Log(err) // the host may be too busy; what counts is that it can be destroyed
			}
		}
		for range 2 { // both of them at once
			wg.Go(func() {
				if err := g.Destroy(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
}

// The guest's supervisor and gVisor's kernel are one Go program: a panic of either
// is its end, as is SIGABRT, by the same way. It takes no other sandbox along, and
// the log tells where it was.
func TestPanicOfTheSandboxProcessEndsThatSandboxAlone(t *testing.T) {
	var log logBuffer
	d := newDriver(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	g, other := newGuest(t, d), newGuest(t, d)
	other.must("allocate", "", 4)
	if err := g.Sandbox.(*instance).process.Signal(unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	if exit := g.ended(); exit.Err == nil || exit.OutOfMemory {
		t.Errorf("exit %+v", exit)
	}
	if text := log.String(); !strings.Contains(text, "sandbox failed") || !strings.Contains(text, "goroutine ") {
		t.Errorf("the log does not tell where it was:\n%s", text)
	}
	if n := other.must("held", "", 0).N; n != 4*mib/4096 {
		t.Errorf("another sandbox's memory adds up to %d", n)
	}
	if err := g.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

// logBuffer keeps a log.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
