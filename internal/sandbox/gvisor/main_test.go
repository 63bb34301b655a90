package gvisor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/program"
)

// Programs that TestMain builds. They are static whatever the tests are, so the
// tests can run with the race detector.
var hostBinary, guestBinary, runtimeBinary string

// sandboxBinary is the built lapwing-sandbox.
var sandboxBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			return m.Run() // the tests skip themselves
		}
		dir, err := os.MkdirTemp("", "gvisor-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			panic(err)
		}
		if sandboxBinary, err = program.Install(dir); err != nil {
			panic(err)
		}
		hostBinary, guestBinary, runtimeBinary = filepath.Join(dir, "host"), filepath.Join(dir, "guest"), filepath.Join(dir, "runtime")
		for _, out := range []string{hostBinary, guestBinary, runtimeBinary} {
			cmd := exec.Command("go", "build", "-o", out, "./testdata/"+filepath.Base(out))
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if text, err := cmd.CombinedOutput(); err != nil {
				panic(fmt.Sprintf("building %s: %v\n%s", out, err, text))
			}
		}
		return m.Run()
	}())
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("sandboxes can be made by root only")
	}
}

// testLog passes what a driver logs to the test's own log.
type testLog struct{ tb testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.tb.Logf("%s", b)
	return len(b), nil
}

// newDriver returns a driver that the end of the test closes.
func newDriver(tb testing.TB, change ...func(*Options)) *Driver {
	tb.Helper()
	needRoot(tb)
	opts := Options{
		Dir: tb.TempDir(), InitPath: guestBinary, SandboxPath: sandboxBinary,
		Logger: slog.New(slog.NewTextHandler(testLog{tb}, nil)),
	}
	for _, f := range change {
		f(&opts)
	}
	d, err := New(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	return d
}

var lastID atomic.Int64

// testSpec returns a spec with a fresh ID.
func testSpec(change ...func(*sandbox.Spec)) sandbox.Spec {
	spec := sandbox.Spec{
		ID: fmt.Sprintf("test-%d", lastID.Add(1)), Hostname: "guest",
		MemoryMB: 128, CPUMillis: 2000, CPUs: 2, TmpMB: 64, MaxProcesses: 256,
	}
	for _, f := range change {
		f(&spec)
	}
	return spec
}

// guest speaks to process 1 of a sandbox.
type guest struct {
	tb testing.TB
	sandbox.Sandbox
	in *bufio.Reader
}

// newGuest makes a sandbox that the end of the test destroys.
func newGuest(tb testing.TB, d *Driver, change ...func(*sandbox.Spec)) *guest {
	tb.Helper()
	s, err := d.Create(tb.Context(), testSpec(change...))
	if err != nil {
		tb.Fatal(err)
	}
	return &guest{tb, s, bufio.NewReader(s.Conn())}
}

type guestReply struct {
	Text  string
	N     int64
	Error string
}

// try sends a command and returns what comes back.
func (g *guest) try(op, path string, n int) (r guestReply, err error) {
	b, err := json.Marshal(map[string]any{"Op": op, "Path": path, "N": n})
	if err != nil {
		return r, err
	}
	if err := g.Conn().SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return r, err
	}
	if _, err := g.Conn().Write(append(b, '\n')); err != nil {
		return r, err
	}
	line, err := g.in.ReadBytes('\n')
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(line, &r)
}

// do sends a command that must be answered, be it with an error of the guest's.
func (g *guest) do(op, path string, n int) guestReply {
	g.tb.Helper()
	r, err := g.try(op, path, n)
	if err != nil {
		g.tb.Fatalf("%s %s: %v", op, path, err)
	}
	return r
}

// must sends a command that must succeed.
func (g *guest) must(op, path string, n int) guestReply {
	g.tb.Helper()
	r := g.do(op, path, n)
	if r.Error != "" {
		g.tb.Fatalf("%s %s: %s", op, path, r.Error)
	}
	return r
}

// as sends a command that a child process with another user id obeys.
func (g *guest) as(user int, op, path string, n int) guestReply {
	g.tb.Helper()
	b, err := json.Marshal(map[string]any{"Op": op, "Path": path, "N": n})
	if err != nil {
		g.tb.Fatal(err)
	}
	return g.do("as", string(b), user)
}

// echo makes the guest return every n bytes.
func (g *guest) echo(n int) (bounce func([]byte) error) {
	g.tb.Helper()
	b, err := json.Marshal(map[string]any{"Op": "echo", "N": n})
	if err != nil {
		g.tb.Fatal(err)
	}
	if _, err := g.Conn().Write(append(b, '\n')); err != nil {
		g.tb.Fatal(err)
	}
	return func(buf []byte) error {
		sent := make(chan error, 1)
		go func() {
			_, err := g.Conn().Write(buf)
			sent <- err
		}()
		if _, err := io.ReadFull(g.in, buf); err != nil {
			return err
		}
		return <-sent
	}
}

// ended waits for the sandbox's end.
func (g *guest) ended() sandbox.Exit {
	g.tb.Helper()
	select {
	case <-g.Done():
	case <-time.After(30 * time.Second):
		g.tb.Fatal("the sandbox does not end")
	}
	return g.Exit()
}
