// Package gvisor is the default sandbox driver. It runs each sandbox in gVisor,
// a kernel in user space that is linked into this binary, and needs neither KVM
// nor anything else installed.
package gvisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"lapwing.dev/lapwing/internal/sandbox"
)

const (
	initPath   = "/lapwing-init"
	guestFiles = 1024 // RLIMIT_NOFILE as on Lambda
)

// Options configure a Driver.
type Options struct {
	// Dir is the driver's own directory: empty, or left by an earlier daemon.
	Dir string
	// InitPath is the static lapwing-init binary on this host.
	InitPath string
	Logger   *slog.Logger
}

// Driver makes gVisor sandboxes.
type Driver struct {
	opts Options
	void *void

	mu     sync.Mutex
	closed bool
	live   map[string]*instance
}

var _ sandbox.Driver = (*Driver)(nil)

// New returns a driver.
func New(ctx context.Context, opts Options) (*Driver, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("gvisor: sandboxes need root")
	}
	for _, dir := range []string{"void", "roots", "tmp"} {
		if err := os.MkdirAll(filepath.Join(opts.Dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("gvisor: %w", err)
		}
	}
	v, err := newVoid(filepath.Join(opts.Dir, "void"))
	if err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	return &Driver{opts: opts, void: v, live: make(map[string]*instance)}, nil
}

// Close implements sandbox.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	live := d.live
	d.live = nil
	d.mu.Unlock()
	var errs []error
	for _, s := range live {
		errs = append(errs, s.Destroy(context.Background()))
	}
	d.void.close()
	return errors.Join(errs...)
}
