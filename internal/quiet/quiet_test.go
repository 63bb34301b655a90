package quiet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns the two ends of a TCP connection, the first a quiet one.
func pair(t *testing.T) (net.Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := New(ours)
	t.Cleanup(func() { c.Close(); theirs.Close() })
	return c, theirs.(*net.TCPConn)
}

func TestMoreThanTheSocketHoldsPassesBothWays(t *testing.T) {
	c, theirs := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		io.Copy(theirs, theirs) // an echo
		theirs.CloseWrite()
	}()
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		c.(*Conn).CloseWrite()
		written <- err
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-written); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d", len(got), len(sent))
	}
}

func TestReadWaitsUntilTheDeadline(t *testing.T) {
	c, theirs := pair(t)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestCloseEndsARead(t *testing.T) {
	c, _ := pair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond)
	c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the read ended with %v", err)
	}
}

func TestErrorsOfTheSocketAreReturned(t *testing.T) {
	c, theirs := pair(t)
	if err := theirs.SetLinger(0); err != nil { // its close is a reset
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v", err)
	}
}

func TestWhatHasNoSocketIsLeftAlone(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if New(a) != a {
		t.Error("it was wrapped")
	}
}

func TestAFileOfTheKernelIsReadAtAnOffset(t *testing.T) {
	f, err := os.Open("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	var buf [64]byte
	for range 2 { // the file's own position stays
		n, err := ReadAt(f, buf[:], 1)
		if err != nil || !bytes.Equal(buf[:n], want[1:]) {
			t.Errorf("read %q, %v, want %q", buf[:n], err, want[1:])
		}
	}
	f.Close()
	if n, err := ReadAt(f, buf[:], 0); err == nil {
		t.Errorf("read %d of a closed file", n)
	}
}

func TestTryingDoesNotWait(t *testing.T) {
	c, theirs := pair(t)
	q := c.(*Conn)
	buf := make([]byte, 64<<10)
	if n, err := q.TryRead(buf); n != 0 || err != nil {
		t.Errorf("read %d, %v of nothing", n, err)
	}
	sent := 0
	for {
		n, err := q.TryWrite(buf)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n < len(buf) {
			break
		}
	}
	if n, err := io.CopyN(theirs, theirs, int64(len(buf))); err != nil {
		t.Fatal(n, err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for got := 0; got < len(buf); {
		n, err := q.Read(buf) // waits, so that there is something
		if err != nil {
			t.Fatal(err)
		}
		m, err := q.TryRead(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += n + m
	}
	theirs.Close()
	for {
		if _, err := q.Read(buf); err != nil {
			break
		}
	}
	if n, err := q.TryRead(buf); n != 0 || err == nil {
		t.Errorf("read %d, %v at the end", n, err)
	}
}

// joinedPair returns a connection that Join made, and what the other end has: what it
// reads from, and what it writes to.
func joinedPair(t *testing.T) (*Conn, *os.File, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	socket, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Join(socket.(*net.UnixConn), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); from.Close(); theirs.Close() })
	return c, from, theirs
}

func TestWhatTheOtherEndReadsWakesNobodyOfAJoinedConnection(t *testing.T) {
	c, from, _ := joinedPair(t)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { // as Go's poller does
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET})
	})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]unix.EpollEvent, 1)
	if n, err := unix.EpollWait(epoll, events, 1000); n != 1 || err != nil { // it can be written, at first
		t.Fatal(n, err)
	}
	if _, err := c.Write([]byte("event")); err != nil {
		t.Fatal(err)
	}
	if n, err := from.Read(make([]byte, 16)); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if n, _ := unix.EpollWait(epoll, events, 10); n != 0 {
		t.Errorf("woken for %#x", events[0].Events)
	}
}

func TestAJoinedConnectionIsOne(t *testing.T) {
	c, from, theirs := joinedPair(t)
	if New(c) != net.Conn(c) {
		t.Error("it was wrapped once more")
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write(make([]byte, 1<<20)); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d, %v", n, err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, from); err != nil { // to the end
		t.Errorf("the other end read %v", err)
	}
	c.Close()
	if _, err := theirs.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the other end wrote %v", err)
	}
}
