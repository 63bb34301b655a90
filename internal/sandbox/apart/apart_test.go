package apart

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestOpenOpensAFileAndLeavesTheOthersOpen(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			f, err := Open(fmt.Sprintf("/proc/self/fd/%d/file", root.Fd()))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if _, err := root.Stat(); err != nil {
		t.Errorf("another descriptor: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestTheRuntimeMayUseItsPollerWhileFilesAreOpened(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Timers of all distances, and somebody who polls.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go io.Copy(io.Discard, r)
	defer w.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				timer := time.AfterFunc(time.Duration(i%50)*time.Microsecond, func() {})
				if f, err := Open(name); err != nil {
					t.Error(err)
				} else {
					f.Close()
				}
				timer.Stop()
			}
		})
	}
	wg.Wait()
}

func TestWhoeverOpensDoesNotHaveWhatIsServed(t *testing.T) {
	device, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	done := Serve(int(device.Fd()))
	path := fmt.Sprintf("/proc/thread-self/fd/%d", device.Fd())
	left := make(chan error, 1)
	look := func() {
		Thread(func() {
			if err := leave(); err != nil {
				left <- err
				return
			}
			_, err := os.Lstat(path)
			left <- err
		})
	}
	look()
	if err := <-left; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with what is served: %v", err)
	}
	done()
	look()
	if err := <-left; err != nil {
		t.Errorf("with what is not: %v", err)
	}
}
