// Package wire is what the driver in the server and a sandbox process, the
// program cmd/lapwing-sandbox, agree on: which descriptors the process starts
// with, the orders that then come in through one of them, with further
// descriptors, and the reports that it writes back. Both are of one build, so
// nothing of it carries a version.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

// Paths of programs.
const (
	// Program is the sandbox program's path in the mount namespace that sandbox
	// processes live in.
	Program = "/lapwing-sandbox"
	// Again is its argument where it has executed itself after Order.Begin.
	Again = "again"
	// Init is the path of process 1 in a sandbox.
	Init = sandbox.Init
)

// Descriptors that a sandbox process starts with. 0 is /dev/null; 1 and 2 take
// what the process itself has to say.
const (
	Control = 3 // orders come in here, reports go out
	// Practice is a kernel's state to practise loading with, or an empty file.
	Practice = 4
	// ControlSocket is free at the start: the process puts gVisor's own control
	// socket there, beyond what it was given and below what gVisor assigns.
	ControlSocket = 250
	// InitConnHost is what the process makes of the host connection that process 1 gets.
	InitConnHost = 249
	// Last is the highest of all; see Driver. The process closes it.
	Last = 1023
)

// Places of the descriptors that come with a Request.
const (
	GuestConn = iota // the host connection
	Console          // what process 1 prints
	Tmp              // the file behind /tmp
	Mounts           // the first of the root and then Request.Mounts

	// MaxMounts bounds Request.Mounts: each takes up to five descriptors of a
	// process that starts, all of which must be below InitConnHost.
	MaxMounts = 40
)

// InitConn is the descriptor at which process 1 finds the host connection, where
// it gets that.
const InitConn = 3

// Order is what the driver tells a sandbox process to do: first Begin, then Be, once
// each, and later perhaps Footprint, or Save, the last of all. It comes from the driver, so it is
// trusted.
type Order struct {
	// Begin tells that the process is in its cgroups, and with it will be those
	// that it starts from now on.
	Begin bool     `json:",omitempty"`
	Be    *Request `json:",omitempty"`
	Save  bool     `json:",omitempty"` // into the files that come along: state and memory
	// Footprint asks a clone for what it has touched so far of its memory.
	Footprint bool `json:",omitempty"`
}

// Send sends an order with descriptors.
func Send(c *net.UnixConn, o *Order, descriptors []int) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	// The descriptors come with the head, which is read by itself.
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	if _, _, err := c.WriteMsgUnix(head, unix.UnixRights(descriptors...), nil); err != nil {
		return err
	}
	_, err = c.Write(body)
	return err
}

// ReceiveFlags are the flags of the one recvmsg that Receive makes.
const ReceiveFlags = unix.MSG_CMSG_CLOEXEC

// Receive returns the next order from Control and the descriptors that came with
// it. It blocks the thread. io.EOF means that the driver is gone.
func Receive() (*Order, []int, error) {
	var head [4]byte
	rights := make([]byte, unix.CmsgSpace(4*(MaxMounts+8)))
	n, r, _, _, err := unix.Recvmsg(Control, head[:], rights, ReceiveFlags)
	for err == unix.EINTR {
		n, r, _, _, err = unix.Recvmsg(Control, head[:], rights, ReceiveFlags)
	}
	if err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	for rest := body; len(rest) > 0; rest = rest[n:] {
		if n, err = unix.Read(Control, rest); err != nil {
			return nil, nil, err
		}
		if n == 0 {
			return nil, nil, io.ErrUnexpectedEOF
		}
	}
	messages, err := unix.ParseSocketControlMessage(rights[:r])
	if err != nil {
		return nil, nil, fmt.Errorf("descriptors of an order: %w", err)
	}
	var descriptors []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, nil, fmt.Errorf("descriptors of an order: %w", err)
		}
		descriptors = append(descriptors, fds...)
	}
	o := new(Order)
	return o, descriptors, json.Unmarshal(body, o)
}

// Request tells a sandbox process what to be.
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
	// State and Memory are the places of a snapshot's files, where the sandbox
	// starts from one.
	State, Memory int `json:",omitempty"`
	// Added are mounted once the snapshot is loaded: the place of the first is
	// AddedAt, and the others follow.
	Added   []Mount `json:",omitempty"`
	AddedAt int     `json:",omitempty"`
	// Held has a clone wait, once it is loaded, until something comes in over the
	// host connection. It reports before that.
	Held bool `json:",omitempty"`
	// Footprint is what an earlier clone has reported, where one has.
	Footprint []byte `json:",omitempty"`
	// Inbox is the place of a pipe by which the host's side of the host connection
	// comes, where that is not for process 1. GuestConn is only written then.
	Inbox int `json:",omitempty"`
	// Teach is the place of a file to save the kernel to, for others to practise
	// with (see Practice). It is of no more use then.
	Teach int `json:",omitempty"`
	// Filter is the program of the system call filter. Without one the process
	// compiles it and reports it.
	Filter []byte
}

// Mount is one mount whose root is the descriptor at its place, after Mounts.
type Mount struct {
	Target string
	File   bool // a regular file, not a directory
	Image  bool // an EROFS image, whose content is mounted
}

// Network is the network interface of a sandbox. gVisor's own network stack
// speaks to it through a packet socket that the driver opened in the network
// namespace, so the process itself is never in there.
type Network struct {
	Device     int // place of the packet socket
	MAC        net.HardwareAddr
	MTU        int // bytes
	GSOMaxSize uint32
	Address    netip.Prefix
	Gateway    netip.Addr // the zero Addr for none
}

// Report is what a sandbox process says on its control connection: first that it
// is ready for orders, then that the guest runs or why it does not, at last how it
// ended: with process 1, or by overrunning its memory.
type Report struct {
	// Ready tells that the process has prepared what does not depend on an order,
	// and that from now on it starts all that runs guest code from one process.
	Ready  bool   `json:",omitempty"`
	Error  string `json:",omitempty"`
	Filter []byte `json:",omitempty"` // where the request had none
	Exited bool   `json:",omitempty"` // process 1 or the guest has ended
	Status int    `json:",omitempty"` // a wait status, where Exited
	// Saved tells that a snapshot is complete, Unfit why there cannot be one.
	Saved bool   `json:",omitempty"`
	Unfit string `json:",omitempty"`
	// OutOfMemory tells that the guest has taken more memory than it has.
	OutOfMemory bool `json:",omitempty"`
	// Copied is how many bytes of a snapshot's memory were copied ahead of their
	// use, with the report that the guest runs.
	Copied int64 `json:",omitempty"`
	// Footprint is what a clone has touched of its memory, for those that follow.
	Footprint []byte `json:",omitempty"`
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
