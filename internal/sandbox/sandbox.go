// Package sandbox says what the sandbox of an execution environment is and
// what a driver that makes them must do. The drivers are in the packages below
// it: gvisor (the default, no KVM needed) and, later, microvm.
//
// A sandbox runs a guest (package guest) on a read-only root file system composed
// of mounts, and talks to the worker over exactly one host connection (see
// internal/guest/proto). A driver knows nothing of
// functions, runtimes or invocations; nothing above this package knows what
// gVisor or Firecracker is.
package sandbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// ErrNoCapacity reports that the host lacks the resources for one more sandbox.
var ErrNoCapacity = errors.New("sandbox: host has no capacity left")

// ErrUnfit is wrapped by errors of Sandbox.Snapshot where what runs in the sandbox
// holds something that no snapshot can keep. The text says what, for users.
var ErrUnfit = errors.New("sandbox: cannot be kept in a snapshot")

// Init is the path of process 1's program in every sandbox.
const Init = "/lapwing-init"

// RootDirs and RootFiles are the paths on which drivers mount what is in every
// sandbox.
var (
	RootDirs  = []string{"/proc", "/sys", "/dev", "/tmp"}
	RootFiles = []string{Init}
)

// Mount places a host directory, a file or what is in an image into the sandbox,
// always read-only. The driver makes the mount points, unless the root is an image; /tmp, /dev, /proc and /sys
// are its own. Who writes anywhere but to /tmp is told that the file system is
// read-only (EROFS).
type Mount struct {
	Source string // absolute host path of a directory or a regular file
	Target string // absolute path in the sandbox
	// Image tells that Source is a file with an EROFS image, without
	// compression or inline data of files (see package erofs), and that what is
	// in it is to be mounted, not the file. Sandboxes share its pages in memory.
	Image bool
}

// Symlink is a symbolic link in the sandbox's root, e.g. /bin -> usr/bin.
type Symlink struct {
	Path, Dest string
}

// Network is the network of one sandbox, made by internal/network before the
// sandbox starts and owned by whoever made it. The zero value means loopback
// only.
type Network struct {
	NamespacePath string       // a network namespace, e.g. /run/netns/x
	Interface     string       // the interface in it that becomes the sandbox's eth0
	Address       netip.Prefix // the sandbox's own address
	Gateway       netip.Addr   // default route
	MTU           int
}

// Spec describes a sandbox to create.
type Spec struct {
	ID       string // unique on this host, [a-z0-9-]{1,64}
	Hostname string

	// Root is the absolute host path of an EROFS image, as for Mount.Image,
	// that is the root. It must have what is mounted on: RootDirs, RootFiles and
	// the targets of Mounts. Empty means an empty directory with Symlinks in it,
	// for which there is no place in an image.
	Root     string
	Mounts   []Mount
	Symlinks []Symlink
	// Places are directories of the root, where that is empty, on which nothing is
	// mounted until a sandbox is restored from a snapshot of this one.
	Places []string
	// Added are images that Restore mounts on Places, which are the same in the spec
	// of the snapshot's sandbox. Create has nothing to add them to.
	Added []Mount

	// MemoryMB limits what the function's processes and files in memory may
	// use, in MiB; the driver adds its own fixed overhead to the host limit.
	MemoryMB int
	// CPUMillis is the CPU share in thousandths of a vCPU (1000 = one core).
	CPUMillis int
	// BoostMillis, where it is above CPUMillis, is the CPU share from the start
	// to EndBoost: on Lambda, initialisation gets more CPU than invocations.
	BoostMillis int
	// Held has Restore return when the sandbox is loaded, with the guest as it was
	// when the snapshot was taken: it goes on when something comes in over Conn.
	Held bool
	// CPUs is the number of processors that the guest sees.
	CPUs int
	// TmpMB is the size of /tmp in MiB. It is on the host's disk and does not
	// count as memory.
	TmpMB int
	// MaxProcesses limits processes and threads in the guest.
	MaxProcesses int

	Network Network
}

// Driver makes sandboxes. It is safe for concurrent use; Create calls run side
// by side.
type Driver interface {
	// Create starts a sandbox and returns when the guest runs in it. The
	// context bounds the start only. On error nothing is left behind.
	Create(ctx context.Context, spec Spec) (Sandbox, error)
	// Restore makes a sandbox from a snapshot. The spec is the one that the
	// sandbox of the snapshot was created with, but for ID, Hostname, the values
	// of Network, CPUMillis, BoostMillis, Added and Held: its mounts have the same
	// content in the same order. It returns when the guest program runs again, which finds
	// a new host connection. On error nothing is left behind. A driver without
	// snapshots returns errors.ErrUnsupported.
	Restore(ctx context.Context, spec Spec, s Snapshot) (Sandbox, error)
	// Close destroys all sandboxes of this driver and waits for them.
	Close() error
}

// Snapshot is the stored state of a sandbox: two files, open for reading where a
// sandbox is restored. All clones map Memory and copy what they write, so it must
// not change while any of them lives. Whoever can write to either owns the clones.
type Snapshot struct {
	State  *os.File
	Memory *os.File
}

// Sandbox is one running sandbox.
type Sandbox interface {
	// Conn is the host connection to the guest. It fails when the sandbox
	// ends, for whatever reason.
	Conn() net.Conn
	// Freeze stops all CPU use of the sandbox until Thaw.
	Freeze() error
	Thaw() error
	// EndBoost makes CPUMillis hold from now on, where Spec.BoostMillis held.
	EndBoost() error
	// CPUTime returns the CPU time used so far; it costs less than Stats.
	CPUTime() (time.Duration, error)
	// Stats returns the present resource use.
	Stats() (Stats, error)
	// PeakMemoryMB returns the highest use of memory so far, in MiB and without
	// the driver's overhead, but with what the largest process has in memory of
	// its program and libraries, which is not limited. Unlike Stats it costs
	// next to nothing while the use does not rise.
	PeakMemoryMB() (int, error)
	// Snapshot stops the sandbox for good and writes its state to the two files
	// of s, which are empty and open for writing. Memory becomes a sparse file.
	// The host connection ends. Whether it succeeds or not, the sandbox is then
	// good for nothing but Destroy. A driver without snapshots returns
	// errors.ErrUnsupported.
	Snapshot(ctx context.Context, s Snapshot) error
	// Done is closed when the sandbox has ended; Exit then tells why.
	Done() <-chan struct{}
	Exit() Exit
	// Destroy kills the sandbox if it still runs and removes everything that
	// belongs to it (processes, cgroups, files). It is idempotent.
	Destroy(ctx context.Context) error
}

// Stats is the resource use of one sandbox.
type Stats struct {
	MemoryMB     int   // in use now, without the driver's overhead, in MiB
	MemoryPeakMB int   // the highest so far
	TmpMB        int   // of /tmp on the host's disk, in MiB, rounded up
	CPUNanos     int64 // CPU time used so far
}

// Exit tells how a sandbox ended.
type Exit struct {
	OutOfMemory bool  // the memory limit was overrun
	Err         error // nil after Destroy or a clean exit of the guest
}
