// Package guestos is the System of a guest that runs in a sandbox process, beside
// gVisor's kernel: what the guest needs of the operating system it has from the
// kernel's own objects, without a system call.
//
// All of these objects are the kernel's: sockets and pipes are files of process 1,
// and processes are children of process 1. Process 1 itself does nothing: it is
// there because a PID namespace has one, and because orphans need a parent. It
// ignores SIGCHLD, so its children leave no zombies.
//
// Nothing here runs as a task of the kernel. So the kernel's code must not block
// on behalf of the contexts that it is given: files are read and written without
// waiting, and goroutines here wait for the events of waiter queues.
package guestos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	gerrors "gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/syserr"

	"lapwing.dev/lapwing/internal/guest/system"
)

// System implements system.System.
type System struct {
	kernel *kernel.Kernel
	init   *kernel.Task // process 1
	ctx    context.Context
	most   int // tasks

	running running
	parked  chan struct{} // closed by Park
}

var _ system.Keeper = (*System)(nil)

// New returns the System of a kernel in which process 1 runs, and nothing else
// unless it comes from a snapshot. It keeps the limit of most processes and
// threads.
func New(k *kernel.Kernel, most int) (*System, error) {
	init := k.GlobalInit()
	ignore := linux.SigAction{Handler: linux.SIG_IGN}
	if _, err := init.SetSigAction(linux.SIGCHLD, &ignore); err != nil {
		return nil, fmt.Errorf("guestos: ignoring the end of children: %w", err)
	}
	return &System{kernel: k, init: init.Leader(), ctx: k.SupervisorContext(), most: most, parked: make(chan struct{})}, nil
}

// Stat implements system.System.
func (s *System) Stat(path string) (fs.FileMode, error) {
	var st linux.Statx
	err := s.at(path, func(pop *vfs.PathOperation) (err error) {
		st, err = s.kernel.VFS().StatAt(s.ctx, s.init.Credentials(), pop, &vfs.StatOptions{Mask: linux.STATX_TYPE | linux.STATX_MODE})
		return err
	})
	if err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & linux.S_IFMT {
	case linux.S_IFREG:
	case linux.S_IFDIR:
		mode |= fs.ModeDir
	default:
		mode |= fs.ModeIrregular
	}
	return mode, nil
}

// Files implements system.System.
func (s *System) Files(dir string) (names []string, err error) {
	var file *vfs.FileDescription
	err = s.at(dir, func(pop *vfs.PathOperation) (err error) {
		file, err = s.kernel.VFS().OpenAt(s.ctx, s.init.Credentials(), pop, &vfs.OpenOptions{Flags: linux.O_RDONLY | linux.O_DIRECTORY})
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer file.DecRef(s.ctx)
	err = file.IterDirents(s.ctx, vfs.IterDirentsCallbackFunc(func(d vfs.Dirent) error {
		if d.Type != linux.DT_DIR {
			names = append(names, d.Name)
		}
		return nil
	}))
	return names, errno(err)
}

// at calls f for a path, from the root that process 1 sees.
func (s *System) at(path string, f func(*vfs.PathOperation) error) error {
	root := s.init.MountNamespace().Root(s.ctx)
	defer root.DecRef(s.ctx)
	return errno(f(&vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse(path), FollowFinalSymlink: true}))
}

// look is how often KillAll looks whether all processes have gone.
const look = 200 * time.Microsecond

// KillAll implements system.System.
func (s *System) KillAll(limit time.Duration) bool {
	pids := s.kernel.RootPIDNamespace()
	for _, tg := range pids.ThreadGroups() {
		if tg != s.init.ThreadGroup() {
			// An error means that it has gone.
			_ = tg.SendSignal(signalInfo(syscall.SIGKILL))
		}
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(look) {
		if pids.NumTasks() == 1 && s.running.none() {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
	}
}

// signalInfo is a signal that process 1 sends.
func signalInfo(sig syscall.Signal) *linux.SignalInfo {
	info := &linux.SignalInfo{Signo: int32(sig), Code: linux.SI_USER}
	info.SetPID(1)
	return info
}

// errno returns the kernel's errors as those of package syscall.
func errno(err error) error {
	var e *gerrors.Error
	if errors.As(err, &e) {
		return linuxerr.ToUnix(e)
	}
	return err
}

// sysErrno is errno for the other kind of errors that the kernel has.
func sysErrno(err *syserr.Error) error {
	if err == nil {
		return nil
	}
	return syscall.Errno(err.ToLinux())
}
