package guestos

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/cleanup"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/loader"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"lapwing.dev/lapwing/internal/guest/system"
)

// umask is what processes begin with.
const umask = 0o022

// running counts the processes of Start whose ends have not been told.
type running struct {
	mu sync.Mutex
	n  int
}

func (r *running) add(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += n
}

func (r *running) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n == 0
}

// Start implements system.System.
func (s *System) Start(c *system.Command, exited func(syscall.WaitStatus)) (system.Process, error) {
	tg, err := s.create(c)
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: c.Path, Err: errno(err)}
	}
	s.kernel.StartProcess(tg)
	return s.watch(tg, exited), nil
}

// watch returns the process of a thread group that runs, and calls exited when it
// has ended.
func (s *System) watch(tg *kernel.ThreadGroup, exited func(syscall.WaitStatus)) *process {
	pids := s.kernel.RootPIDNamespace()
	s.running.add(1)
	go func() {
		tg.WaitExited()
		exited(syscall.WaitStatus(tg.ExitStatus()))
		s.running.add(-1)
	}()
	return &process{pids: pids, tg: tg, group: kernel.ProcessGroupID(pids.IDOfThreadGroup(tg))}
}

// create makes a child of process 1 that has executed c's program, but does not
// run yet. Kernel.CreateProcess makes ones without a parent.
func (s *System) create(c *system.Command) (*kernel.ThreadGroup, error) {
	k := s.kernel
	pids := k.RootPIDNamespace()
	if pids.NumTasks() >= s.most {
		return nil, syscall.EAGAIN
	}
	creds, set := s.credentials(c), s.limits(c)
	ctx := (&kernel.CreateProcessArgs{
		Credentials:    creds,
		Limits:         set,
		UTSNamespace:   k.RootUTSNamespace(),
		IPCNamespace:   k.RootIPCNamespace(),
		PIDNamespace:   pids,
		MountNamespace: s.init.MountNamespace(),
		ContainerID:    s.init.ContainerID(),
	}).NewContext(k)

	root := s.init.MountNamespace().Root(ctx)
	defer root.DecRef(ctx)
	dir, err := k.VFS().GetDentryAt(ctx, creds, &vfs.PathOperation{
		Root: root, Start: root, Path: fspath.Parse(c.Dir), FollowFinalSymlink: true,
	}, &vfs.GetDentryOptions{CheckSearchable: true})
	if err != nil {
		return nil, err
	}
	defer dir.DecRef(ctx)
	files, err := s.files(c)
	if err != nil {
		return nil, err
	}
	defer files.DecRef(ctx)

	traversals := uint(linux.MaxSymlinkTraversals)
	image, creds, _, loadErr := k.LoadTaskImage(ctx, loader.LoadArgs{
		Root: root, WorkingDir: dir, RemainingTraversals: &traversals, ResolveFinal: true,
		Filename: c.Path, Argv: c.Args, Envv: c.Env,
		Features: k.FeatureSet(), NoNewPrivs: true, AllowSUID: k.AllowSUID,
	})
	if loadErr != nil {
		return nil, sysErrno(loadErr)
	}
	tg := k.NewThreadGroup(pids, kernel.NewSignalHandlers(), linux.SIGCHLD, set)
	undo := cleanup.Make(func() { tg.Release(ctx) })
	defer undo.Clean()
	config := &kernel.TaskConfig{
		Kernel:           k,
		Parent:           s.init,
		ThreadGroup:      tg,
		TaskImage:        image,
		FSContext:        kernel.NewFSContext(root, dir, umask),
		FDTable:          files,
		Credentials:      creds,
		NoNewPrivs:       true,
		NetworkNamespace: s.init.GetNetworkNamespace(),
		AllowedCPUMask:   s.init.CPUMask(),
		UTSNamespace:     s.init.GetUTSNamespace(),
		IPCNamespace:     s.init.GetIPCNamespace(),
		MountNamespace:   s.init.GetMountNamespace(),
		ContainerID:      s.init.ContainerID(),
		UserCounters:     k.GetUserCounters(creds.RealKUID),
		Personality:      linux.PER_LINUX,
	}
	files.IncRef()
	creds.UserNamespace.IncRef()
	// As process 1, from which it inherits its cgroups.
	if _, err := k.TaskSet().NewTask(s.init, config); err != nil {
		return nil, err
	}
	undo.Release()
	if _, err := tg.CreateSession(); err != nil {
		return nil, fmt.Errorf("setsid: %w", err) // it leads no process group yet
	}
	return tg, nil
}

// credentials returns those of an unprivileged user. What process 1 may not give
// (its bounding set) such a process cannot get either.
func (s *System) credentials(c *system.Command) *auth.Credentials {
	creds := s.init.Credentials().Fork()
	uid, gid := auth.KUID(c.UID), auth.KGID(c.GID)
	creds.RealKUID, creds.EffectiveKUID, creds.SavedKUID = uid, uid, uid
	creds.RealKGID, creds.EffectiveKGID, creds.SavedKGID = gid, gid, gid
	creds.ExtraKGIDs = nil
	creds.PermittedCaps, creds.EffectiveCaps, creds.InheritableCaps, creds.AmbientCaps = 0, 0, 0, 0
	return creds
}

// limits returns the resource limits of c.
func (s *System) limits(c *system.Command) *limits.LimitSet {
	set := s.init.ThreadGroup().Limits().GetCopy()
	set.SetUnchecked(limits.Core, limits.Limit{})
	for kind, n := range map[limits.LimitType]uint64{limits.NumberOfFiles: c.MaxFiles, limits.ProcessCount: c.MaxProcs} {
		if n > 0 {
			set.SetUnchecked(kind, limits.Limit{Cur: n, Max: n})
		}
	}
	return set
}

// files returns the files of c.
func (s *System) files(c *system.Command) (*kernel.FDTable, error) {
	table := s.kernel.NewFDTable()
	undo := cleanup.Make(func() { table.DecRef(s.ctx) })
	defer undo.Clean()
	add := func(n int, file *vfs.FileDescription) error {
		_, err := table.NewFDAt(s.ctx, int32(n), file, kernel.FDFlags{})
		return err
	}
	var null *vfs.FileDescription
	err := s.at("/dev/null", func(pop *vfs.PathOperation) (err error) {
		null, err = s.kernel.VFS().OpenAt(s.ctx, s.init.Credentials(), pop, &vfs.OpenOptions{Flags: linux.O_RDONLY})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	defer null.DecRef(s.ctx)
	if err := add(0, null); err != nil {
		return nil, err
	}
	for i, f := range c.Files {
		if err := add(1+i, f.(*writer).file); err != nil {
			return nil, err
		}
	}
	undo.Release()
	return table, nil
}

// process implements system.Process.
type process struct {
	pids  *kernel.PIDNamespace
	tg    *kernel.ThreadGroup
	group kernel.ProcessGroupID
}

// Signal implements system.Process.
func (p *process) Signal(sig syscall.Signal, group bool) {
	if !group {
		_ = p.tg.SendSignal(signalInfo(sig)) // an error means that it has gone
	} else if pg := p.pids.ProcessGroupWithID(p.group); pg != nil {
		_ = pg.SendSignal(signalInfo(sig))
	}
}
