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
