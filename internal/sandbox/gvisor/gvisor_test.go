package gvisor

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

var testInit string

func TestMain(m *testing.M) {
	MaybeReexec()
	dir, err := os.MkdirTemp("", "gvisor-test-")
	if err != nil {
		panic(err)
	}
	testInit = filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-o", testInit, "./testdata/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func TestPingPong(t *testing.T) {
	d, err := New(t.Context(), Options{Dir: t.TempDir(), InitPath: testInit, Logger: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for range 3 {
		start := time.Now()
		s, err := d.Create(t.Context(), sandbox.Spec{ID: "a", Hostname: "h", MemoryMB: 128, CPUs: 2, CPUMillis: 1000, TmpMB: 64, MaxProcesses: 100})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("create", time.Since(start))
		start = time.Now()
		b := make([]byte, 5)
		if _, err := s.Conn().Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s.Conn(), b); err != nil {
			t.Fatal(err)
		}
		t.Log("first echo", time.Since(start))
		start = time.Now()
		for range 1000 {
			s.Conn().Write([]byte("hello"))
			io.ReadFull(s.Conn(), b)
		}
		t.Log("echo", time.Since(start)/1000)
		start = time.Now()
		if err := s.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Log("destroy", time.Since(start))
	}
}
