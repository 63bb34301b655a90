package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

var (
	programsMu sync.Mutex
	programs   = map[string]string{}
)

// Program builds a Go program for sandboxes and returns it, for Zip. pkg is its
// package as `go build` takes it. A process builds each program once.
func Program(pkg string) (string, error) {
	programsMu.Lock()
	defer programsMu.Unlock()
	if p, ok := programs[pkg]; ok {
		return p, nil
	}
	dir, err := os.MkdirTemp("", "lapwing-program-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	programs[pkg] = string(b)
	return string(b), nil
}
