package loops

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/quiet"
)

// Socket is the socket of a connection that a loop has. Start, Drain and Abort are
// for anybody; all else is for the loop, and for Serve.
type Socket struct {
	// Scratch is memory for answers, which Serve may use and replace. It is the loop's:
	// what is in it is gone after the turn.
	Scratch []byte

	loop *loop
	conn Conn
	fd   int
	slot int // in the loop's table, or one of the below

	unsent [2][]byte // what the socket did not take
	end    bool      // it is closed when that is sent
	since  time.Time // its start, the last answer, or the last progress of unsent
}

// Slots of a socket that is in no table.
const (
	outside = -1 // not yet
	gone    = -2 // any more
)

// Start has the loop serve the socket.
func (s *Socket) Start() { s.loop.tell(order{s, start}) }

// Drain has the socket closed as soon as what is being sent is sent.
func (s *Socket) Drain() { s.loop.tell(order{s, drain}) }

// Abort has the socket closed.
func (s *Socket) Abort() { s.loop.tell(order{s, abort}) }

// maxWrite is the most that one turn sends of an answer: others wait for it.
const maxWrite = 256 << 10

// Write sends a and then b. What the socket does not take now is sent later: of a,
// that is a copy; b must not change meanwhile. Nothing may be written after that,
// which Full tells.
func (s *Socket) Write(a, b []byte) error {
	s.unsent = [2][]byte{a, b}
	if err := s.send(); err != nil {
		s.unsent = [2][]byte{}
		return err
	}
	s.unsent[0] = bytes.Clone(s.unsent[0])
	return nil
}

// Full tells whether something waits for the client to take what was sent before.
func (s *Socket) Full() bool { return len(s.unsent[0])+len(s.unsent[1]) > 0 }

// send sends what the socket takes.
func (s *Socket) send() error {
	a, b := s.unsent[0], s.unsent[1]
	n, errno := quiet.Writev(s.fd, a, b[:min(len(b), max(maxWrite-len(a), 0))])
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno != 0:
		return os.NewSyscallError("writev", errno)
	}
	s.unsent[0] = a[min(n, len(a)):]
	s.unsent[1] = b[max(n-len(a), 0):]
	s.since = s.loop.now
	return nil
}

// connOf makes an ordinary connection of a descriptor, which it closes.
func connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("a connection leaves its loop: %w", err)
	}
	return quiet.New(nc), nil
}

// Descriptor takes the descriptor out of an ordinary connection of TCP itself, which it
// closes.
func Descriptor(nc net.Conn) (fd int, err error) {
	sc, ok := nc.(syscall.Conn)
	if _, tcp := nc.RemoteAddr().(*net.TCPAddr); !ok || !tcp {
		return 0, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlled := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(controlled, err); err != nil {
		return 0, fmt.Errorf("a connection enters its loop: %w", err)
	}
	nc.Close() // the socket goes on behind the other descriptor
	return fd, nil
}
