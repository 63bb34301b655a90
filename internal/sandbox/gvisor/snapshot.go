package gvisor

import (
	"context"
	"errors"

	"lapwing.dev/lapwing/internal/sandbox"
)

// Restore implements sandbox.Driver.
func (d *Driver) Restore(context.Context, sandbox.Spec, sandbox.Snapshot) (sandbox.Sandbox, error) {
	return nil, errors.ErrUnsupported
}

// Snapshot implements sandbox.Sandbox.
func (s *instance) Snapshot(context.Context, sandbox.Snapshot) error {
	return errors.ErrUnsupported
}
