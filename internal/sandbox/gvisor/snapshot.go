package gvisor

import (
	"context"
	"fmt"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// Restore implements sandbox.Driver.
func (d *Driver) Restore(ctx context.Context, spec sandbox.Spec, from sandbox.Snapshot) (sandbox.Sandbox, error) {
	return d.make(ctx, spec, &from)
}

// Snapshot implements sandbox.Sandbox.
func (s *instance) Snapshot(ctx context.Context, to sandbox.Snapshot) error {
	// It may well be frozen, or have little CPU time.
	if err := s.group.Thaw(); err != nil {
		return err
	}
	if err := wire.Send(s.control, &wire.Order{Save: true}, []int{int(to.State.Fd()), int(to.Memory.Fd())}); err != nil {
		return fmt.Errorf("gvisor: snapshot of sandbox %s: %w", s.spec.ID, err)
	}
	select {
	case <-s.saved:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saveErr != nil {
		return fmt.Errorf("gvisor: snapshot of sandbox %s: %w", s.spec.ID, s.saveErr)
	}
	return nil
}

// endSave notes the outcome of a snapshot. Only the first counts.
func (s *instance) endSave(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.saved:
	default:
		s.saveErr = err
		close(s.saved)
	}
}
