package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestAMountIsOfWhatIsAtItsPathNow(t *testing.T) {
	needRoot(t)
	var all trees
	defer func() {
		if err := all.close(); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(t.TempDir(), "mount")
	for i := range 3 {
		want := fmt.Sprint("file-", i)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, want), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			f, isFile, err := all.open(path)
			if err != nil || isFile {
				t.Fatal(isFile, err)
			}
			names, err := f.Readdirnames(0)
			if err != nil || len(names) != 1 || names[0] != want {
				t.Errorf("%q, %v in it, not %s", names, err, want)
			}
			if _, err := os.Create(fmt.Sprintf("/proc/self/fd/%d/new", f.Fd())); err == nil {
				t.Error("it can be written to")
			}
			f.Close()
		}
		if err := os.Rename(path, fmt.Sprint(path, i)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := all.open(path); !os.IsNotExist(err) {
			t.Errorf("where nothing is any more: %v", err)
		}
	}
}

func TestFewTreesAreKept(t *testing.T) {
	needRoot(t)
	var all trees
	dir := t.TempDir()
	for i := range mostTrees + 10 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
		f, isFile, err := all.open(path)
		if err != nil || !isFile {
			t.Fatal(isFile, err)
		}
		f.Close()
	}
	if n := len(all.made); n != mostTrees {
		t.Errorf("%d are kept, not %d", n, mostTrees)
	}
	if err := all.close(); err != nil {
		t.Error(err)
	}
}
