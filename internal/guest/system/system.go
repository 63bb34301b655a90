// Package system says what a guest needs of the operating system that the
// function runs on. Package process1 has it from Linux, where the guest is
// process 1 of a PID namespace; the sandbox driver gvisor has it from gVisor's
// kernel, inside of which the guest runs there.
package system

import (
	"context"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// System is an operating system with nothing but the function and its
// extensions on it, and process 1. It is safe for concurrent use. Its errors are
// those of package syscall, in whatever wrapping package os has for them.
type System interface {
	// Listen listens on a TCP address ("tcp") or on a name in Linux's abstract
	// namespace, with @ for its first byte ("unix").
	Listen(network, address string) (net.Listener, error)
	// Dial connects to a TCP address.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Pipe makes a pipe whose writing end is for Command.Files.
	Pipe() (Pipe, io.Closer, error)
	// Start starts a process, and calls exited, from another goroutine, when it
	// has ended. No process outlives process 1, and none is left to be reaped.
	Start(c *Command, exited func(syscall.WaitStatus)) (Process, error)
	// KillAll kills every process but process 1. It waits until none is left,
	// but no longer than limit, and tells whether that is so; then every exited
	// has been called.
	KillAll(limit time.Duration) bool
	// OthersRun tells whether there are processes, or may be, besides process 1
	// and those of Start.
	OthersRun() bool
	// Stat returns the mode of a file, and follows symbolic links.
	Stat(path string) (fs.FileMode, error)
	// Files returns the names of what is in a directory and is not a directory.
	Files(dir string) ([]string, error)
}

// Command is a process to start: in a session of its own, without capabilities
// or any way to more privileges, and with no other files than are named here.
type Command struct {
	Path     string // of the program
	Args     []string
	Env      []string
	Dir      string
	Files    []io.Closer // writing ends of pipes, from descriptor 1 on; 0 is /dev/null
	UID, GID int
	// MaxFiles and MaxProcs, where they are not 0, become RLIMIT_NOFILE and
	// RLIMIT_NPROC. There are no core dumps.
	MaxFiles, MaxProcs uint64
}

// Process is a process that was started.
type Process interface {
	// Signal sends a signal to the process or, with group, to all that are still
	// in the process group that it began as the only one of. It does nothing
	// where there is none any more.
	Signal(sig syscall.Signal, group bool)
}

// Pipe is the reading end of a pipe.
type Pipe interface {
	// Await calls f until it returns true: first at once, and then whenever
	// there may be something to read, be it the end.
	Await(f func() bool) error
	// TryRead is Read that returns syscall.EAGAIN where it would have to wait.
	TryRead(p []byte) (int, error)
	// Waiting returns how many bytes can be read without waiting.
	Waiting() int
	Close() error
}

// Keeper is a System that can be kept in a snapshot, with what a guest has open
// on it: its listeners, connections, pipes and processes are Kept.
type Keeper interface {
	System
	// Park makes whoever waits in the System, or comes to it, wait for good: the
	// guest has to be made anew, on the System of a snapshot. Nothing else of the
	// System is usable after it.
	Park()
	// The following return anew what had a handle when it was kept.
	Listener(handle int, network, address string) (net.Listener, error)
	Conn(handle int) (net.Conn, error)
	OpenPipe(handle int) (Pipe, error)
	Process(handle int, exited func(syscall.WaitStatus)) (Process, error)
}

// Kept is what can be kept in a snapshot.
type Kept interface {
	// Resting tells whether, after Park, the one goroutine that reads from it, or
	// accepts connections, waits for good.
	Resting() bool
	// Keep leaves it to the snapshot, and returns the handle that it has there.
	Keep() int
}
