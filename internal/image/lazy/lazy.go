// Package lazy shows files that are not there whole as if they were: a read-only
// FUSE file system whose reads fetch what is asked for. The kernel keeps what was
// read in its page cache, for all who have the file open or mapped, and asks
// again only for what it had to give up.
//
// The file system is mounted nowhere: it hangs on a descriptor of this process,
// through which alone its files can be opened, and goes with it, however it ends.
// There is nothing to unmount after a crash, and reads by whoever has a file open
// then fail.
package lazy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox/apart"
)

// Content is what is shown as a file. It never changes.
type Content interface {
	// Length is the size of the file, in bytes.
	Length() int64
	// Read reads len(b) bytes at off, or up to the end of the file.
	Read(ctx context.Context, b []byte, off int64) (int, error)
}

const (
	// readTimeout bounds one read, after which it fails with EIO: rather an
	// error for a function than no end.
	readTimeout = time.Minute
	// maxRead is the size of the largest read, in bytes.
	maxRead = 512 << 10
	// forever is how long the kernel may keep what it knows of a file. Names it
	// asks for each time: to tell it that one is gone is to wait for whoever is
	// looking for one, which here can be this process.
	forever = 365 * 24 * time.Hour
)

// Files shows files. It is safe for concurrent use.
type Files struct {
	fuse.RawFileSystem // for what is refused
	log                *slog.Logger
	root               *os.File // of the mount
	server             *fuse.Server
	served             chan struct{} // closed when serving has ended
	unserve            func()        // see apart.Serve

	mu    sync.Mutex
	last  uint64 // node
	nodes map[uint64]*file
	names map[string]*file
}

// file is one file, as long as it is shown or open.
type file struct {
	node    uint64
	content Content
	opens   int
	gone    func() // set when it is not shown any more
}

// New returns Files that show none yet. It fails where the host has no FUSE or
// keeps this process from it.
func New(log *slog.Logger) (*Files, error) {
	f := &Files{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), log: log, served: make(chan struct{}),
		last: fuse.FUSE_ROOT_ID, nodes: map[uint64]*file{}, names: map[string]*file{},
	}
	if err := f.mount(); err != nil {
		return nil, fmt.Errorf("lazy: FUSE: %w", err)
	}
	go func() {
		defer close(f.served)
		defer f.unserve()
		f.server.Serve()
	}()
	if err := f.settle(); err != nil {
		return nil, fmt.Errorf("lazy: FUSE: %w", errors.Join(err, f.root.Close()))
	}
	return f, nil
}

// settle has the kernel ask, once and for all, for what is not implemented: to
// poll and to flush files. It would ask for the one while Go's runtime adds a file
// to its poller, and for the other while it starts a process; either keeps all
// goroutines waiting, those among them that would answer.
func (f *Files) settle() error {
	const name = "settle"
	f.Show(name, empty{})
	defer f.Hide(name, nil)
	file, err := apart.Open(f.Path(name)) // polls and closes
	if err != nil {
		return err
	}
	return file.Close()
}

// empty is the content of a file of no bytes.
type empty struct{}

func (empty) Length() int64                                    { return 0 }
func (empty) Read(context.Context, []byte, int64) (int, error) { return 0, nil }

// mount makes the file system without a place in any namespace.
func (f *Files) mount() error {
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/fuse: %w", err)
	}
	f.unserve = apart.Serve(device)
	fail := func(what string, err error) error {
		f.unserve()
		unix.Close(device)
		return fmt.Errorf("%s: %w", what, err)
	}
	config, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail("fsopen", err)
	}
	defer unix.Close(config)
	for _, o := range [][2]string{
		{"source", "lapwing"}, {"fd", strconv.Itoa(device)}, {"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"},
		{"max_read", strconv.Itoa(maxRead)},
	} {
		if err := unix.FsconfigSetString(config, o[0], o[1]); err != nil {
			return fail(o[0], err)
		}
	}
	// The processes that read are other users'; only they get a descriptor.
	if err := unix.FsconfigSetFlag(config, "allow_other"); err != nil {
		return fail("allow_other", err)
	}
	if err := unix.FsconfigCreate(config); err != nil {
		return fail("fsconfig", err)
	}
	// Not noexec: guests run programs from here.
	root, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fail("fsmount", err)
	}
	f.root = os.NewFile(uintptr(root), "lazy files")
	f.server, err = fuse.NewServer(f, fmt.Sprintf("/dev/fd/%d", device), &fuse.MountOptions{
		MaxWrite: maxRead, MaxBackground: 64, DisableXAttrs: true, DisableReadDirPlus: true,
		Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		f.unserve()
		f.root.Close()
		return fmt.Errorf("serving: %w", err) // NewServer has closed the device
	}
	return nil
}

// Path returns where this process can open the file of that name, by package
// apart: a process that waits for itself cannot be killed.
func (f *Files) Path(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.root.Fd(), name)
}

// Show shows content under a name without slashes, unless that name is shown.
func (f *Files) Show(name string, content Content) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] != nil {
		return
	}
	f.last++
	shown := &file{node: f.last, content: content}
	f.names[name], f.nodes[f.last] = shown, shown
}

// Hide lets nobody open the file of that name from now on, and calls gone, if it
// is not nil, once nobody has it open.
func (f *Files) Hide(name string, gone func()) {
	if gone == nil {
		gone = func() {}
	}
	f.mu.Lock()
	hidden := f.names[name]
	delete(f.names, name)
	if hidden != nil {
		hidden.gone = gone
		if hidden.opens > 0 {
			gone = func() {}
		} else {
			delete(f.nodes, hidden.node)
		}
	}
	f.mu.Unlock()
	gone()
}

// Close ends the file system. Whoever has a file open still must let go of it
// first: Close waits for that, and for ctx at most.
func (f *Files) Close(ctx context.Context) error {
	err := f.root.Close()
	select {
	case <-f.served:
		return err
	case <-ctx.Done():
		return fmt.Errorf("lazy: files are still open: %w", ctx.Err())
	}
}

func (f *Files) node(id uint64) *file {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[id]
}

func (shown *file) attr(out *fuse.Attr) {
	size := uint64(shown.content.Length())
	*out = fuse.Attr{Ino: shown.node, Mode: fuse.S_IFREG | 0o400, Nlink: 1, Size: size, Blocks: (size + 511) / 512, Blksize: maxRead}
}

// Lookup implements fuse.RawFileSystem.
func (f *Files) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	shown := f.names[name]
	f.mu.Unlock()
	if header.NodeId != fuse.FUSE_ROOT_ID || shown == nil {
		return fuse.ENOENT
	}
	out.NodeId = shown.node
	out.SetAttrTimeout(forever)
	shown.attr(&out.Attr)
	return fuse.OK
}

// GetAttr implements fuse.RawFileSystem.
func (f *Files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	if in.NodeId == fuse.FUSE_ROOT_ID {
		out.Attr = fuse.Attr{Ino: fuse.FUSE_ROOT_ID, Mode: fuse.S_IFDIR | 0o500, Nlink: 2}
		return fuse.OK
	}
	shown := f.node(in.NodeId)
	if shown == nil {
		return fuse.ENOENT
	}
	shown.attr(&out.Attr)
	return fuse.OK
}

// Open implements fuse.RawFileSystem.
func (f *Files) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	shown := f.nodes[in.NodeId]
	switch {
	case shown == nil || shown.gone != nil:
		return fuse.ENOENT
	case in.Flags&unix.O_ACCMODE != unix.O_RDONLY:
		return fuse.EROFS
	}
	shown.opens++
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// Release implements fuse.RawFileSystem.
func (f *Files) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f.mu.Lock()
	shown := f.nodes[in.NodeId]
	if shown == nil {
		f.mu.Unlock()
		return
	}
	shown.opens--
	gone := shown.gone
	if gone == nil || shown.opens > 0 {
		gone = func() {}
	} else {
		delete(f.nodes, in.NodeId)
	}
	f.mu.Unlock()
	gone()
}

// Flush implements fuse.RawFileSystem. That it is not implemented the kernel
// remembers, and asks no more.
func (f *Files) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read implements fuse.RawFileSystem. The kernel tells when a process that waits
// gets a signal, of which Go's runtime sends many, and it tells no less when the
// cgroup is frozen. An error then would be the end of a process that waits in a
// page fault. So every read is finished, within readTimeout.
func (f *Files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	shown := f.node(in.NodeId)
	if shown == nil {
		return nil, fuse.ENOENT
	}
	ctx, stop := context.WithTimeout(context.Background(), readTimeout)
	defer stop()
	n, err := shown.content.Read(ctx, buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil {
		f.log.Error("part of an image cannot be had", "offset", in.Offset, "err", err)
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}
