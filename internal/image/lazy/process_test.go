package lazy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox/apart"
)

// These tests are about processes that wait for each other. Each wait of theirs
// ends: what does not end within bound is a failure.
const bound = 2 * time.Minute

// roleVariable makes the test's program one of its helpers.
const roleVariable = "LAPWING_TEST_LAZY"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "reader":
		err = readMapped(os.NewFile(3, "image"))
	case "server":
		err = serveUntilKilled()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// readMapped maps a file and has the kernel read it there, page by page: the
// kernel, unlike a program, does not come back after a signal to try again.
func readMapped(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	// Nothing ahead: each page is waited for.
	if err := unix.Madvise(b, unix.MADV_RANDOM); err != nil {
		return err
	}
	memory, err := unix.MemfdCreate("copy", 0)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(memory), "copy")
	for off := 0; off < len(b); off += os.Getpagesize() {
		if _, err := to.Write(b[off : off+os.Getpagesize()]); err != nil {
			return err
		}
	}
	got := make([]byte, len(b))
	if _, err := to.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, pattern(len(b))) {
		return errors.New("the content differs")
	}
	return nil
}

// helper prepares a process in a role.
func helper(role string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.ExtraFiles = files
	return cmd
}

// slow takes its time, and stops where nobody wants an answer any more.
type slow struct {
	memory
	delay time.Duration
	asked atomic.Int64
}

func (s *slow) Read(ctx context.Context, b []byte, off int64) (int, error) {
	s.asked.Add(1)
	select {
	case <-time.After(s.delay):
		return s.memory.Read(ctx, b, off)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func TestASignalDoesNotEndAProcessThatWaitsInAPageFault(t *testing.T) {
	f := newFiles(t)
	content := &slow{memory: memory{data: pattern(100 * os.Getpagesize())}, delay: 5 * time.Millisecond}
	f.Show("image", content)
	file, err := apart.Open(f.Path("image"))
	if err != nil {
		t.Fatal(err)
	}
	reader := helper("reader", file)
	var stderr bytes.Buffer
	reader.Stderr = &stderr
	err = reader.Start()
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- reader.Wait() }()
	for deadline := time.After(bound); ; {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%v: %.1000s", err, stderr.Bytes())
			}
			return
		case <-deadline:
			t.Fatal("it still waits")
		case <-time.After(time.Millisecond):
			// Go's runtime sends it to its own threads all the time.
			if err := reader.Process.Signal(unix.SIGURG); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
		}
	}
}

// serveUntilKilled serves an image that never comes whole, to readers that have
// it mapped and wait, while it opens, shows and hides files itself. It writes a
// line to descriptor 3 once all of that is going on, which its readers have too.
func serveUntilKilled() error {
	f, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	const readers = 3
	never := &slow{memory: memory{data: pattern(1 << 20)}, delay: time.Hour}
	f.Show("image", never)
	alive := os.NewFile(3, "alive")
	for range readers {
		file, err := apart.Open(f.Path("image"))
		if err != nil {
			return err
		}
		if err := helper("reader", file, alive).Start(); err != nil {
			return err
		}
		file.Close()
	}
	var opened atomic.Int64
	for n := range 4 {
		go func() {
			name := strconv.Itoa(n)
			for {
				f.Show(name, empty{})
				if file, err := apart.Open(f.Path(name)); err == nil {
					file.Close()
					opened.Add(1)
				}
				f.Hide(name, nil)
			}
		}()
	}
	// The readers wait for the same page, or for the first to have it.
	for never.asked.Load() == 0 || opened.Load() < 20 {
		time.Sleep(time.Millisecond)
	}
	if _, err := alive.WriteString("ready\n"); err != nil {
		return err
	}
	select {}
}

func TestWhoeverKillsTheServerEndsItAndAllWhoWait(t *testing.T) {
	newFiles(t) // or the test is skipped
	for range 5 {
		alive, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer alive.Close()
		server := helper("server", theirs)
		server.Stderr = os.Stderr // no pipe, which readers would hold open
		err = server.Start()
		theirs.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := alive.SetReadDeadline(time.Now().Add(bound)); err != nil {
			t.Fatal(err)
		}
		ready := make([]byte, len("ready\n"))
		_, err = io.ReadFull(alive, ready)
		if err := errors.Join(err, server.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { server.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(bound):
			t.Fatalf("the server, process %d, cannot be killed", server.Process.Pid)
		}
		// The end of the pipe is the end of the last reader.
		if _, err := io.ReadAll(alive); err != nil {
			t.Fatalf("a reader of the server that was killed still waits: %v", err)
		}
	}
}
