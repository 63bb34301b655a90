package gvisor

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/apart"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// openMount opens what is mounted and describes it.
func (d *Driver) openMount(m sandbox.Mount) (f *os.File, mount wire.Mount, err error) {
	mount = wire.Mount{Target: m.Target, Image: m.Image}
	if m.Image {
		// Nothing but its bytes can be reached from the descriptor.
		f, err = apart.Open(m.Source)
	} else {
		f, mount.File, err = d.trees.open(m.Source)
	}
	if err != nil {
		return nil, wire.Mount{}, fmt.Errorf("mount of %s: %w", m.Source, err)
	}
	return f, mount, nil
}

// trees are read-only clones of the host's mounts, detached from every mount
// namespace: nothing above or mounted below their roots can be reached from a
// descriptor. Sandboxes share them, since to make one, and more to give it back, the
// kernel waits for all processors.
type trees struct {
	mu   sync.Mutex
	made map[string]*tree // by path
}

// mostTrees bounds how many are kept. A host has some dozens of runtimes and files
// for all sandboxes.
const mostTrees = 256

// tree is one of them.
type tree struct {
	root *os.File // O_PATH
	stat unix.Stat_t
}

// open opens the root of the tree for a path.
func (t *trees) open(path string) (f *os.File, isFile bool, err error) {
	var now unix.Stat_t
	if err := unix.Stat(path, &now); err != nil {
		return nil, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.made[path]
	if c == nil || c.stat.Dev != now.Dev || c.stat.Ino != now.Ino {
		if c, err = newTree(path); err != nil {
			return nil, false, err
		}
		t.keep(path, c)
	}
	return c.open(path)
}

// keep keeps a tree in the place of an older one, or of any where there are many.
func (t *trees) keep(path string, c *tree) {
	if t.made == nil {
		t.made = make(map[string]*tree)
	}
	if old := t.made[path]; old != nil {
		old.root.Close()
	}
	for other, c := range t.made {
		if len(t.made) < mostTrees {
			break
		}
		c.root.Close()
		delete(t.made, other)
	}
	t.made[path] = c
}

// close gives all of them back.
func (t *trees) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, c := range t.made {
		errs = append(errs, c.root.Close())
	}
	t.made = nil
	return errors.Join(errs...)
}

func newTree(path string) (*tree, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, err
	}
	c := &tree{root: os.NewFile(uintptr(fd), path)}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, errors.Join(fmt.Errorf("making it read-only: %w", err), c.root.Close())
	}
	if err := unix.Fstat(fd, &c.stat); err != nil {
		return nil, errors.Join(err, c.root.Close())
	}
	return c, nil
}

// open opens the root of a tree anew.
func (c *tree) open(path string) (f *os.File, isFile bool, err error) {
	root := int(c.root.Fd())
	fd := -1
	switch c.stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err = unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	case unix.S_IFREG:
		isFile = true
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", root), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	default:
		err = errors.New("neither a directory nor a regular file")
	}
	if err != nil {
		return nil, false, err
	}
	return os.NewFile(uintptr(fd), path), isFile, nil
}
