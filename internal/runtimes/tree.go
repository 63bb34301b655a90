package runtimes

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/fsync"
)

// tree is a small directory tree by its files' relative paths.
type tree map[string]entry

// entry is a file or a symbolic link of a tree.
type entry struct {
	data []byte
	link string // the target, where it is a link
}

func file(text string) entry   { return entry{data: []byte(text)} }
func link(target string) entry { return entry{link: target} }

// digest identifies the tree by its content.
func (t tree) digest() string {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(h, "%q %q %d\n", path, t[path].link, len(t[path].data))
		h.Write(t[path].data)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// writeTree writes the tree to a directory below parent whose name is the
// tree's digest, and returns its path. A directory of that name is complete:
// it is renamed into place when everything is on disk.
func writeTree(parent string, t tree) (string, error) {
	dir := filepath.Join(parent, t.digest()[:32])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return dir, makeDir(dir, t.write)
}

// write writes the tree into a directory.
func (t tree) write(dir string) error {
	for path, e := range t {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if e.link != "" {
			if err := os.Symlink(e.link, path); err != nil {
				return err
			}
		} else if err := os.WriteFile(path, e.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// abandoned is the age at which a temporary directory was left by a crash.
const abandoned = time.Hour

// sweep removes what crashes left in the directories below dir that makeDir
// fills, except for those of Add, which does so itself.
func sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*", tmpPrefix+"*"))
	if err != nil {
		return err
	}
	for _, tmp := range left {
		info, err := os.Stat(tmp)
		if err != nil || time.Since(info.ModTime()) < abandoned {
			continue // gone, or perhaps another process is at work
		}
		if err := os.RemoveAll(tmp); err != nil {
			return err
		}
	}
	return nil
}

// tmpPrefix begins the names of the temporary directories of makeDir.
const tmpPrefix = ".tmp-"

// makeDir makes a directory with all of its content or not at all: fill writes
// into a temporary directory beside it, which is brought to disk and then renamed. If
// another process was faster, its directory stays.
func makeDir(dir string, fill func(tmp string) error) (err error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, tmpPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // nothing is left of it after the rename
	if err := fill(tmp); err != nil {
		return err
	}
	if err := makeReadable(tmp); err != nil {
		return err
	}
	if err := syncFileSystem(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsync.Dir(parent)
}

// makeReadable lets everybody read what is below root, and the owner alone
// write it, whatever the umask is: functions run as another user.
func makeReadable(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() || info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if info.Mode().Perm() == mode {
			return nil
		}
		return os.Chmod(path, mode)
	})
}

// syncFileSystem makes sure that everything on the file system of dir is on
// disk. An interpreter has thousands of files: syncing each takes minutes.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}

// maxRecord limits a file that tells a version.
const maxRecord = 1 << 20

// recordIn returns what a small file below an interpreter's prefix or an image
// holds, or "": it may be anything, a link to a device among it.
func recordIn(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxRecord {
		return ""
	}
	text, _ := os.ReadFile(path) // unreadable tells as little as absent
	return string(text)
}
