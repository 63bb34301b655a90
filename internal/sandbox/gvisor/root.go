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
	"lapwing.dev/lapwing/internal/sandbox/apart"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// makeRoot returns the directory below dir that is the root of sandboxes with
// these mounts and symlinks: empty but for symlinks and mount points. It is made
// once for each distinct set of them and never changes.
func makeRoot(dir string, mounts []wire.Mount, symlinks []sandbox.Symlink) (string, error) {
	key, err := json.Marshal(struct {
		Mounts   []wire.Mount
		Symlinks []sandbox.Symlink
	}{mounts, symlinks})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(key)
	root := filepath.Join(dir, hex.EncodeToString(sum[:16]))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	building, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(building)
	if err := fillRoot(building, mounts, symlinks); err != nil {
		return "", fmt.Errorf("making the root directory: %w", err)
	}
	// Another Create may have been faster.
	if err := os.Rename(building, root); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making the root directory: %w", err)
	}
	return root, nil
}

func fillRoot(root string, mounts []wire.Mount, symlinks []sandbox.Symlink) error {
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	// Symlinks come last: with paths that make no sense together, such as a
	// mount point below a symlink, this fails and cannot reach out of root.
	// /opt is there without a mount too: programs list it.
	for _, p := range append([]string{"/opt"}, sandbox.RootDirs...) {
		if err := os.Mkdir(filepath.Join(root, p), 0o755); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		path := filepath.Join(root, m.Target)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if m.File {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
		} else if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	for _, l := range symlinks {
		path := filepath.Join(root, l.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.Dest, path); err != nil {
			return err
		}
	}
	return nil
}

// openMount opens what is mounted and describes it.
func openMount(m sandbox.Mount) (f *os.File, mount wire.Mount, err error) {
	mount = wire.Mount{Target: m.Target, Image: m.Image}
	if m.Image {
		// Nothing but its bytes can be reached from the descriptor.
		f, err = apart.Open(m.Source)
	} else {
		f, mount.File, err = openTree(m.Source)
	}
	if err != nil {
		return nil, wire.Mount{}, fmt.Errorf("mount of %s: %w", m.Source, err)
	}
	return f, mount, nil
}

// openTree opens the root of a read-only clone of the mount at path, detached
// from every mount namespace: nothing above or mounted below path can be reached
// from the descriptor.
func openTree(path string) (f *os.File, isFile bool, err error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, false, fmt.Errorf("making it read-only: %w", err)
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
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", tree), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	default:
		err = errors.New("neither a directory nor a regular file")
	}
	if err != nil {
		return nil, false, err
	}
	return os.NewFile(uintptr(fd), path), isFile, nil
}
