// Package apart does things on threads that differ from the others of the process
// (Thread), among them to open files that the process itself serves, through FUSE
// (Open).
//
// A thread that waits for an answer cannot be killed, and while it is there, so
// are the descriptors that it shares with the threads that would answer. A process
// killed at that moment would stay for ever, with its locks. So files are opened by
// a thread that shares no descriptors, and has none through which this process
// answers (Serve): with the others of the process /dev/fuse is closed, and the
// kernel ends the wait.
//
// All else the thread keeps: Go's runtime may use its poller on any thread, and
// where that is closed it ends the process.
package apart

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

var (
	servedMu sync.Mutex
	served   = map[int]bool{}
)

// Serve tells that this process answers through a descriptor for files that it
// serves, until done is called.
func Serve(fd int) (done func()) {
	servedMu.Lock()
	defer servedMu.Unlock()
	served[fd] = true
	return func() {
		servedMu.Lock()
		defer servedMu.Unlock()
		delete(served, fd)
	}
}

// leave gives the calling thread descriptors of its own, without those of Serve.
func leave() error {
	servedMu.Lock()
	defer servedMu.Unlock()
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return err
	}
	for fd := range served {
		if err := unix.Close(fd); err != nil && !errors.Is(err, unix.EBADF) {
			return err
		}
	}
	return nil
}

// Open opens a regular file for reading, and refuses anything else: even to ask
// what a file is can be a wait. A path through /proc/self/fd is this process's.
func Open(path string) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(pair[0])
	opened := make(chan error, 1)
	Thread(func() { opened <- open(path, pair[1]) })
	err = <-opened
	unix.Close(pair[1])
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("opening %s: %d control messages, %v", path, len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("opening %s: %d descriptors, %v", path, len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), path), nil
}

// open opens the file on a thread that is given up, and sends its descriptor.
func open(path string, socket int) error {
	if err := leave(); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	// Go's poller will ask the same, and must not wait for the answer.
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		return err
	}
	return unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fd), nil, 0)
}
