package sentry

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/runsc/specutils"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// gVisor reaches host files through a "gofer": a server, usually a process of
// its own, that opens them. In directfs mode the kernel opens files itself,
// below a descriptor of each mount's root, and asks the gofer for little more
// than that descriptor. The driver hands the descriptors over when it starts the
// sandbox process, so that little is answered by goroutines here, and a sandbox
// is one process instead of two.
//
// Images need nothing of this: gVisor maps the file and finds everything in it.

// serveMounts returns what gVisor reads the root and each mount from, in order: a
// connection to a server that it starts, or the image.
func (j *job) serveMounts() ([]int, error) {
	server := lisafs.NewServer()
	var sources []int
	for i, m := range append([]wire.Mount{{Image: j.RootImage}}, j.Mounts...) {
		var source int
		var err error
		if m.Image {
			source, err = j.duplicate(wire.Mounts + i)
		} else {
			source, err = serveMount(server, &mountRoot{fd: j.descriptors[wire.Mounts+i], file: m.File})
		}
		if err != nil {
			return nil, fmt.Errorf("serving mounts: %w", err)
		}
		sources = append(sources, source)
	}
	return sources, nil
}

// serveMount starts a server for one mount and returns the connection to it.
func serveMount(server *lisafs.Server, mount *mountRoot) (int, error) {
	client, own, err := unet.SocketPair(false)
	if err != nil {
		return -1, err
	}
	conn, err := server.CreateConnection(own, "/", lisafs.ConnectionOpts{Readonly: true}, mount)
	if err != nil {
		return -1, err
	}
	server.StartConnection(conn)
	return client.Release()
}

// mountConfs tells gVisor's loader what the root and those of the guest's mounts
// that it asks about are made from.
func mountConfs(req *wire.Request, mounts []specs.Mount) []specutils.GoferMountConf {
	root := specutils.GoferMountConf{Lower: specutils.Lisafs}
	if req.RootImage {
		root.Lower = specutils.Erofs
	}
	confs := []specutils.GoferMountConf{root}
	for _, m := range mounts {
		switch {
		case m.Destination == "/tmp":
			confs = append(confs, specutils.GoferMountConf{Lower: specutils.NoneLower, Upper: specutils.AnonOverlay})
		case specutils.IsErofsMount(m):
			confs = append(confs, specutils.GoferMountConf{Lower: specutils.Erofs})
		case specutils.HasMountConfig(m):
			confs = append(confs, specutils.GoferMountConf{Lower: specutils.Lisafs})
		}
	}
	return confs
}

// mountRoot serves the root of one mount.
type mountRoot struct {
	fd   int
	file bool
}

// Mount implements lisafs.ConnectionImpl.
func (m *mountRoot) Mount(c *lisafs.Connection, node *lisafs.Node) (*lisafs.ControlFD, lisafs.Statx, int, error) {
	var st unix.Statx_t
	if err := unix.Statx(m.fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return nil, lisafs.Statx{}, -1, err
	}
	donated, err := unix.Dup(m.fd)
	if err != nil {
		return nil, lisafs.Statx{}, -1, err
	}
	root := &rootFD{mount: m}
	node.IncRef() // the ControlFD takes it over
	root.control.Init(c, node, linux.FileMode(st.Mode), root)
	return &root.control, lisafs.Statx{
		Mask: st.Mask, Mode: st.Mode, Ino: st.Ino, Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		DevMinor: st.Dev_minor, DevMajor: st.Dev_major, RdevMinor: st.Rdev_minor, RdevMajor: st.Rdev_major,
		Size: st.Size, Blksize: st.Blksize, Blocks: st.Blocks,
		Atime: lisafs.StatxTimestamp{Sec: st.Atime.Sec, Nsec: st.Atime.Nsec},
		Btime: lisafs.StatxTimestamp{Sec: st.Btime.Sec, Nsec: st.Btime.Nsec},
		Mtime: lisafs.StatxTimestamp{Sec: st.Mtime.Sec, Nsec: st.Mtime.Nsec},
		Ctime: lisafs.StatxTimestamp{Sec: st.Ctime.Sec, Nsec: st.Ctime.Nsec},
	}, donated, nil
}

// SupportedMessages implements lisafs.ConnectionImpl.
func (m *mountRoot) SupportedMessages() []lisafs.MID {
	return []lisafs.MID{lisafs.Mount, lisafs.OpenAt, lisafs.Close}
}

// MaxMessageSize implements lisafs.ConnectionImpl.
func (m *mountRoot) MaxMessageSize() uint32 { return lisafs.MaxMessageSize() }

// rootFD is the root of a mount as the kernel knows it. The methods of the nil
// interface that it embeds are unreachable: SupportedMessages leaves them out.
type rootFD struct {
	lisafs.ControlFDImpl
	control lisafs.ControlFD
	mount   *mountRoot
}

// FD implements lisafs.ControlFDImpl.
func (r *rootFD) FD() *lisafs.ControlFD { return &r.control }

// Close implements lisafs.ControlFDImpl. The mount's descriptor stays open as
// long as the sandbox.
func (r *rootFD) Close() {}

// Open implements lisafs.ControlFDImpl.
func (r *rootFD) Open(flags uint32) (*lisafs.OpenFD, int, error) {
	open := func() (int, error) {
		if r.mount.file {
			return unix.Dup(r.mount.fd)
		}
		return unix.Openat(r.mount.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	host, err := open()
	if err != nil {
		return nil, -1, err
	}
	o := &openFD{}
	o.open.Init(&r.control, flags, o)
	return &o.open, host, nil
}

// openFD is an open root. The kernel uses the host descriptor that came with it
// and closes this at once.
type openFD struct {
	lisafs.OpenFDImpl
	open lisafs.OpenFD
}

// FD implements lisafs.OpenFDImpl.
func (o *openFD) FD() *lisafs.OpenFD { return &o.open }

// Close implements lisafs.OpenFDImpl.
func (o *openFD) Close() {}
