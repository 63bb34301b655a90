// Package process1 is the System of a guest that is process 1 of a PID
// namespace on Linux.
package process1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/guest/system"
)

// Linux implements system.System.
type Linux struct {
	mu     sync.Mutex
	procs  map[int]func(syscall.WaitStatus) // by process id: whom to tell of the end
	reaped chan struct{}                    // closed when no process is left; nil: there is none
}

// New returns the one System of this process, which must be process 1.
func New() (*Linux, error) {
	if os.Getpid() != 1 {
		// It reaps and kills every process that it can see.
		return nil, errors.New("process1: not process 1 of a PID namespace")
	}
	return &Linux{procs: map[int]func(syscall.WaitStatus){}}, nil
}

// Listen implements system.System.
func (l *Linux) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

// Dial implements system.System.
func (l *Linux) Dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// Stat implements system.System.
func (l *Linux) Stat(path string) (fs.FileMode, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return fi.Mode(), nil
}

// Files implements system.System.
func (l *Linux) Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Start implements system.System.
func (l *Linux) Start(c *system.Command, exited func(syscall.WaitStatus)) (system.Process, error) {
	null, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	defer syscall.Close(null)
	files := []uintptr{uintptr(null)}
	for _, f := range c.Files {
		files = append(files, uintptr(f.(*writer).fd))
	}
	attr := &syscall.ProcAttr{
		Dir:   c.Dir,
		Env:   c.Env,
		Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			// An unprivileged user has no capabilities after exec.
			Credential: &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID)},
		},
	}
	// Held until the process is known, so that the reaper knows it too.
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := limit(c); err != nil {
		return nil, err
	}
	// The child inherits it from this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("no new privileges: %w", err)
	}
	pid, err := syscall.ForkExec(c.Path, c.Args, attr)
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: c.Path, Err: err}
	}
	l.procs[pid] = exited
	if l.reaped == nil {
		l.reaped = make(chan struct{})
		go l.reap()
	}
	return process(pid), nil
}

// limit sets the resource limits that children inherit; there is no way to set
// them between fork and exec. Process 1 itself needs few files, and root is not
// held to the limit of processes.
func limit(c *system.Command) error {
	set := func(what string, resource int, n uint64) error {
		if n == 0 {
			return nil
		}
		// Through syscall: it also stops the runtime from restoring the
		// original limit of files in children.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("setrlimit %s: %w", what, err)
		}
		return nil
	}
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit core: %w", err)
	}
	return errors.Join(
		set("nofile", unix.RLIMIT_NOFILE, c.MaxFiles),
		set("nproc", unix.RLIMIT_NPROC, c.MaxProcs),
	)
}

// reap waits for the end of processes, orphans too, until there is none left.
func (l *Linux) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR || err == nil && !ws.Exited() && !ws.Signaled() {
			continue
		}
		l.mu.Lock()
		if err != nil { // ECHILD
			if len(l.procs) > 0 { // one has just been started
				l.mu.Unlock()
				continue
			}
			close(l.reaped)
			l.reaped = nil // the next process starts it anew
			l.mu.Unlock()
			return
		}
		exited := l.procs[pid]
		delete(l.procs, pid)
		l.mu.Unlock()
		if exited != nil {
			exited(ws)
		}
	}
}

// KillAll implements system.System.
func (l *Linux) KillAll(limit time.Duration) bool {
	l.mu.Lock()
	reaped := l.reaped
	l.mu.Unlock()
	if reaped == nil {
		return true
	}
	if os.Getpid() == 1 {
		syscall.Kill(-1, syscall.SIGKILL)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-reaped:
		return true
	case <-timer.C:
		return false
	}
}

// process is the id of a process.
type process int

// Signal implements system.Process.
func (p process) Signal(sig syscall.Signal, group bool) {
	if group {
		p = -p
	}
	syscall.Kill(int(p), sig) // an error means that it has gone
}

// Pipe implements system.System.
func (l *Linux) Pipe() (system.Pipe, io.Closer, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	w := &writer{fds[1]}
	// Only the reading end: the children's must block when the pipe is full.
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		syscall.Close(fds[0])
		w.Close()
		return nil, nil, err
	}
	return &pipe{os.NewFile(uintptr(fds[0]), "pipe"), fds[0]}, w, nil
}

// writer is the writing end of a pipe.
type writer struct{ fd int }

// Close implements io.Closer.
func (w *writer) Close() error { return syscall.Close(w.fd) }

// pipe is the reading end of a pipe.
type pipe struct {
	file *os.File
	fd   int // of file
}

// Await implements system.Pipe.
func (p *pipe) Await(f func() bool) error {
	rc, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(uintptr) bool { return f() })
}

// TryRead implements system.Pipe.
func (p *pipe) TryRead(b []byte) (int, error) {
	for {
		n, err := syscall.Read(p.fd, b)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Waiting implements system.Pipe.
func (p *pipe) Waiting() int {
	n, err := unix.IoctlGetInt(p.fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// Close implements system.Pipe.
func (p *pipe) Close() error { return p.file.Close() }
