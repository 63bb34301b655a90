// Package wire is what the driver in the server and a sandbox process, the
// program cmd/lapwing-sandbox, agree on: which descriptors the process starts
// with, the request that it then reads from one of them, and the reports that it
// writes back. Both are of one build, so nothing of it carries a version.
package wire

import (
	"net"
	"net/netip"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

// Paths of programs.
const (
	// Program is the sandbox program's path in the mount namespace that sandbox
	// processes live in.
	Program = "/lapwing-sandbox"
	// Init is the path of process 1 in a sandbox.
	Init = sandbox.Init
)

// Descriptors that a sandbox process starts with. 0 is /dev/null; 1 and 2 take
// what the process itself has to say.
const (
	Control   = 3 + iota // the request comes in here, reports go out
	GuestConn            // the host connection
	Console              // what process 1 prints
	Tmp                  // the file behind /tmp
	Mounts               // the first of the root and then Request.Mounts

	// MaxMounts bounds Request.Mounts.
	MaxMounts = 128
	// ControlSocket is free at the start: the process puts gVisor's own control
	// socket there, beyond what it was given and below what gVisor assigns.
	ControlSocket = 250
	// Last is the highest of all; see Driver. The process closes it.
	Last = 1023
)

// InitConn is the descriptor at which process 1 finds the host connection, where
// it gets that.
const InitConn = 3

// Request tells a sandbox process what to be. It comes from the driver, so it is
// trusted. It is JSON, as reports are.
type Request struct {
	ID           string
	Hostname     string
	RootImage    bool // the root is an EROFS image, not a directory
	Mounts       []Mount
	MemoryBytes  uint64
	HostMemory   uint64 // bytes
	CPUs         int
	TmpBytes     uint64
	MaxProcesses int
	// InitConn gives the host connection to process 1. Otherwise process 1 idles,
	// and a guest in the sandbox process has it.
	InitConn bool
	Network  *Network // nil for loopback only
	// Filter is the program of the system call filter. Without one the process
	// compiles it and reports it.
	Filter []byte
}

// Mount is one mount whose root is the descriptor at its place.
type Mount struct {
	Target string
	File   bool // a regular file, not a directory
	Image  bool // an EROFS image, whose content is mounted
}

// Network is the network interface of a sandbox. gVisor's own network stack
// speaks to it through a packet socket that the driver opened in the network
// namespace, so the process itself is never in there.
type Network struct {
	Device     int // descriptor of the packet socket
	MAC        net.HardwareAddr
	MTU        int // bytes
	GSOMaxSize uint32
	Address    netip.Prefix
	Gateway    netip.Addr // the zero Addr for none
}

// Report is what a sandbox process says on its control connection: first that
// the guest runs or why it does not, then how it ended: with process 1, or by
// overrunning its memory.
type Report struct {
	Error  string `json:",omitempty"`
	Filter []byte `json:",omitempty"` // where the request had none
	Exited bool   `json:",omitempty"` // process 1 or the guest has ended
	Status int    `json:",omitempty"` // a wait status, where Exited
	// OutOfMemory tells that the guest has taken more memory than it has.
	OutOfMemory bool `json:",omitempty"`
	// Steps are those of the process's own start, with the report that the guest
	// runs.
	Steps []Step `json:",omitempty"`
}

// Step tells when a step of a sandbox process's start was over, by the host's
// clock.
type Step struct {
	Name  string
	Ended time.Time
}
