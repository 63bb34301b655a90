package gvisor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

// makeRoot returns the root directory for sandboxes with spec's mount points and
// symlinks. It is made once for each distinct set of them.
func makeRoot(dir, initSource string, spec *sandbox.Spec) (string, error) {
	type point struct {
		Path string
		File bool
	}
	var set struct {
		Points   []point
		Symlinks []sandbox.Symlink
	}
	for _, p := range []string{"/proc", "/sys", "/dev", "/tmp"} {
		set.Points = append(set.Points, point{p, false})
	}
	set.Points = append(set.Points, point{initPath, true})
	for _, m := range spec.Mounts {
		st, err := os.Stat(m.Source)
		if err != nil {
			return "", fmt.Errorf("mount: %w", err)
		}
		set.Points = append(set.Points, point{m.Target, !st.IsDir()})
	}
	set.Symlinks = spec.Symlinks
	b, err := json.Marshal(set)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	root := filepath.Join(dir, "roots", hex.EncodeToString(sum[:16]))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(dir, "roots"), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	for _, p := range set.Points {
		path := filepath.Join(tmp, p.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if p.File {
			err = os.WriteFile(path, nil, 0o644)
		} else {
			err = os.MkdirAll(path, 0o755)
		}
		if err != nil {
			return "", err
		}
	}
	for _, l := range set.Symlinks {
		path := filepath.Join(tmp, l.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.Symlink(l.Dest, path); err != nil {
			return "", err
		}
	}
	if err := os.Rename(tmp, root); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return "", err
	}
	return root, nil
}

// openMount opens a read-only clone of the mount at path, detached from every
// name space: nothing above path can be reached from the descriptor.
func openMount(path string) (f *os.File, isFile bool, err error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, false, fmt.Errorf("mount %s: %w", path, err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, false, fmt.Errorf("mount %s: making it read-only: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return nil, false, err
	}
	var fd int
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err = unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	case unix.S_IFREG:
		isFile = true
		// The only way to a regular file from a descriptor of its mount.
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", tree), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	default:
		err = fmt.Errorf("neither a directory nor a regular file")
	}
	if err != nil {
		return nil, false, fmt.Errorf("mount %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), isFile, nil
}
