package worker

import (
	"context"
	"fmt"
	"maps"
	"time"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/runtimes"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/snapshot"
)

// A blank is an environment whose runtime has booted for no function: it waits to be
// told what to be. Of each runtime, and size of memory and /tmp, one snapshot of a
// blank is kept, from which environments start for which there is no snapshot of
// their version: each gets its code and layers and is then started as any other, and
// the guest lets the runtime that waits take the place of a new one. Nothing of any
// function is in such a snapshot, since none has been near it.

// blankID returns the name of the snapshot of a blank that e could start from.
func (e *environment) blankID(s *snapshot.Store) string {
	spec := e.blankOf().spec(Network{})
	spec.Added = nil
	return s.ID(struct {
		Blank   string // what it is of
		Runtime string
		Start   proto.Start
		Sandbox sandbox.Spec
	}{"runtime", e.runtime.Version + " " + e.runtimeARN(), e.blankStart(), spec})
}

// blankOf returns e as the blank that it could start from.
func (e *environment) blankOf() *environment {
	return &environment{w: e.w, v: e.v, runtime: e.runtime, blank: true}
}

// blankStart says how to start the runtime of a blank. Nothing in it is the
// function's but what depends on the size of its memory.
func (e *environment) blankStart() proto.Start {
	env := maps.Clone(e.runtime.Env)
	return proto.Start{
		Command: e.runtime.CommandFor(e.v.MemoryMB, env),
		Dir:     "/",
		Env:     env,
		UID:     runtimes.UserID, GID: runtimes.GroupID,
		MaxFiles: maxFiles, MaxProcs: uint64(e.w.maxProcesses),
		FramedLogs: true,
		Restorable: true, Blank: true,
	}
}

// ofRuntime is the subject of the blank that e could start from.
func (s *snapshots) ofRuntime(e *environment) subject {
	id := e.blankID(s.store)
	what := fmt.Sprintf("runtime %s with %d MB and %d MB of /tmp", e.v.Runtime, e.v.MemoryMB, e.v.EphemeralMB)
	// What there is of the version in it are these sizes and the runtime's name.
	v := &function.Version{Runtime: e.v.Runtime, RuntimeVersionARN: e.v.RuntimeVersionARN, Region: e.v.Region, MemoryMB: e.v.MemoryMB, EphemeralMB: e.v.EphemeralMB}
	return subject{trackKey{what, "blank"}, id, func() error { return s.buildBlank(v, id) }}
}

// blankExcluded tells whether environments like e never start from a blank: where no
// snapshot is wanted, and where a variable of the function, or what starts its
// runtime, acts while that boots. With SnapStart a version has a snapshot of its own
// before anybody can start it.
func (s *snapshots) blankExcluded(e *environment) bool {
	if s.off(e.v) != nil || e.v.Image != nil || e.v.SnapStart {
		return true
	}
	return !e.runtime.Blank(e.start(credentials.Session{}).Env)
}

// blankFor tells whether environments of a version can start from a blank now.
func (s *snapshots) blankFor(v *function.Version) bool {
	if s.off(v) != nil {
		return false
	}
	e, err := s.w.newEnvironment(invoke.Spec{Version: v})
	if err != nil || s.blankExcluded(e) {
		return false
	}
	_, there := s.store.Info(e.blankID(s.store))
	return there
}

// fromBlank makes the environment's sandbox from the snapshot of a blank, if there is
// one, and has one made otherwise. Where that fails it is as if it had not been tried.
func (e *environment) fromBlank(ctx context.Context) *instance {
	s := e.w.snapshots
	if s.blankExcluded(e) {
		return nil
	}
	of := s.ofRuntime(e)
	first := e.w.opts.BlanksFirst
	u := s.get(ctx, of, first, first)
	if u == nil {
		s.schedule(of, buildDelay)
		return nil
	}
	rctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, errRestoreTimeout)
	defer cancel()
	e.blank = true
	in, err := e.w.make(rctx, e, func(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
		return e.w.opts.Driver.Restore(ctx, spec, sandbox.Snapshot{State: u.State, Memory: u.Memory})
	}, host.New)
	e.blank = false
	if err != nil {
		u.Release()
		if ctx.Err() == nil {
			s.failed(of, e, err)
		}
		return nil
	}
	s.restored(of)
	in.kept = u
	return in
}

// buildBlank boots a runtime for nothing else than a snapshot, and keeps that.
func (s *snapshots) buildBlank(v *function.Version, id string) error {
	if err := enoughMemory(v); err != nil {
		return err
	}
	e, err := s.w.newEnvironment(invoke.Spec{Version: v})
	if err != nil {
		return err
	}
	e.blank = true
	ctx, cancel := context.WithTimeout(s.ctx, s.w.initTimeout+buildTimeout)
	defer cancel()
	began := time.Now()
	e.tape.record() // there is no log for it
	if e.in, err = s.w.boot(ctx, e); err != nil {
		return err
	}
	defer e.discard()
	ictx, stop := context.WithTimeoutCause(ctx, s.w.initTimeout, errInitTimeout)
	defer stop()
	res, err := e.in.conn.Start(ictx, e.blankStart())
	switch {
	case err != nil:
		return fmt.Errorf("booting the runtime %s alone: %w", v.Runtime, err)
	case res.Err != nil:
		return fmt.Errorf("the runtime %s did not boot alone: %w", v.Runtime, res.Err)
	case !res.Restorable:
		return &unkept{"its runtime does not take part"}
	case res.Unfit != "":
		return &unkept{res.Unfit}
	}
	about := map[string]any{
		"runtime": e.runtime.Version, "runtimeArn": e.runtimeARN(), "memoryMB": v.MemoryMB, "ephemeralMB": v.EphemeralMB,
	}
	if err := s.keep(ctx, e, id, about, nil); err != nil {
		return err
	}
	info, _ := s.store.Info(id)
	s.w.log.Debug("a snapshot of a runtime alone was made", "runtime", e.runtime.Version, "memoryMB", v.MemoryMB, "bytes", info.Size, "took", time.Since(began))
	return nil
}
