package gvisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/quiet"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// handover is the descriptors that a sandbox process gets with a request, in their
// order. The driver closes its copies once they are sent.
type handover struct{ files []*os.File }

func (h *handover) add(f *os.File) { h.files = append(h.files, f) }

func (h *handover) close() {
	for _, f := range h.files {
		f.Close()
	}
}

func (h *handover) descriptors() []int {
	var fds []int
	for _, f := range h.files {
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// prepare opens everything that the sandbox process gets, in the order of the
// places of package wire, and returns the request that goes with it.
func (s *instance) prepare(h *handover) (*wire.Request, error) {
	d := s.driver
	conn, err := h.socketPair("conn")
	if err != nil {
		return nil, err
	}
	hostConn, err := fileConn(conn)
	if err != nil {
		return nil, err
	}
	if err := h.dup(s.console); err != nil {
		return nil, err
	}
	tmp, err := namelessFile(d.opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("making the file for /tmp: %w", err)
	}
	h.add(tmp)
	ours, err := duplicate(tmp)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.tmp = ours
	s.mu.Unlock()

	req := &wire.Request{
		ID:           s.spec.ID,
		Hostname:     s.spec.Hostname,
		MemoryBytes:  uint64(s.spec.MemoryMB) * mib,
		HostMemory:   d.hostMem,
		CPUs:         s.spec.CPUs,
		TmpBytes:     uint64(s.spec.TmpMB) * mib,
		MaxProcesses: s.spec.MaxProcesses,
		InitConn:     d.opts.InitPath != "",
		Filter:       d.filter,
	}
	mounts := append([]sandbox.Mount{{Source: d.initPath, Target: wire.Init}}, s.spec.Mounts...)
	var opened []*os.File
	for _, m := range mounts {
		f, mount, err := d.openMount(m)
		if err != nil {
			return nil, errors.Join(err, closeAll(opened))
		}
		opened = append(opened, f)
		req.Mounts = append(req.Mounts, mount)
	}
	root := sandbox.Mount{Source: s.spec.Root, Image: true}
	if root.Source == "" {
		if root.Source, err = makeRoot(d.rootsDir(), req.Mounts, s.spec.Places, s.spec.Symlinks); err != nil {
			return nil, errors.Join(err, closeAll(opened))
		}
		root.Image = false
	}
	f, mount, err := d.openMount(root)
	if err != nil {
		return nil, errors.Join(err, closeAll(opened))
	}
	req.RootImage = mount.Image
	h.add(f)
	h.files = append(h.files, opened...)

	if s.spec.Network.NamespacePath != "" {
		device, n, err := openNetwork(&s.spec.Network)
		if err != nil {
			return nil, err
		}
		n.Device = len(h.files)
		h.add(device)
		req.Network = n
	}
	s.mu.Lock()
	s.conn = hostConn
	s.mu.Unlock()
	if !req.InitConn {
		if err := s.joinInbox(h, req, hostConn); err != nil {
			return nil, err
		}
	}
	if s.practice != nil {
		req.Teach = len(h.files)
		if err := h.dup(s.practice); err != nil {
			return nil, err
		}
	}
	if s.from != nil {
		if s.memoryID, err = memoryIDOf(s.from.Memory); err != nil {
			return nil, fmt.Errorf("the memory of the snapshot: %w", err)
		}
		req.Footprint = d.footprints.of(s.memoryID)
		s.pioneer = req.Footprint == nil
		req.Held = s.spec.Held
		req.State = len(h.files)
		req.Memory = req.State + 1
		for _, f := range []*os.File{s.from.State, s.from.Memory} {
			if err := h.lend(f); err != nil {
				return nil, err
			}
		}
	}
	req.AddedAt = len(h.files)
	for _, m := range s.spec.Added {
		f, mount, err := d.openMount(m)
		if err != nil {
			return nil, err
		}
		h.add(f)
		req.Added = append(req.Added, mount)
	}
	return req, nil
}

// inboxBytes is how much of an event fits into the pipe at once.
const inboxBytes = 256 << 10

// joinInbox makes the pipe by which the guest hears of the host, and it the writing
// side of the host connection.
func (s *instance) joinInbox(h *handover, req *wire.Request, conn *net.UnixConn) error {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making the pipe of the host connection: %w", err)
	}
	req.Inbox = len(h.files)
	h.add(theirs)
	// Without leave for so much it has what a pipe has.
	_, _ = unix.FcntlInt(theirs.Fd(), unix.F_SETPIPE_SZ, inboxBytes)
	both, err := quiet.Join(conn, ours)
	if err != nil {
		ours.Close()
		return err
	}
	s.mu.Lock()
	s.conn = both
	s.mu.Unlock()
	return nil
}

// fileConn turns a socket into a connection.
func fileConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// dup adds a duplicate of f.
func (h *handover) dup(f *os.File) error {
	again, err := duplicate(f)
	if err == nil {
		h.add(again)
	}
	return err
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicating %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// lend adds a descriptor of the file f that can be read only, whatever can be done by
// way of f: what all clones map must be nobody's to write.
func (h *handover) lend(f *os.File) error {
	again, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return fmt.Errorf("opening %s again: %w", f.Name(), err)
	}
	h.add(again)
	return nil
}

// socketPair adds one end of a new connection and returns the other.
func (h *handover) socketPair(name string) (*os.File, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket pair: %w", err)
	}
	h.add(os.NewFile(uintptr(p[1]), name))
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		return nil, err
	}
	return os.NewFile(uintptr(p[0]), name), nil
}

// namelessFile makes a file in dir that goes with its last descriptor.
func namelessFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "tmp"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	// A file system that cannot do it at once, such as older overlayfs.
	f, err := os.CreateTemp(dir, "tmp-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// logBytes bounds what a sandbox process and process 1 may print each. Neither
// prints anything unless it fails.
const logBytes = 64 * 1024

// logFile makes a file in memory that takes logBytes and no more.
func logFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("making a log file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(logBytes); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("sealing a log file: %w", err)
	}
	return f, nil
}

// tail returns the text in a log file, shortened to what a log line can bear.
func tail(f *os.File) string {
	const most = 4096
	b := make([]byte, logBytes)
	n, _ := f.ReadAt(b, 0)
	text := strings.TrimRight(string(b[:n]), "\x00\n")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}

var validID = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// check refuses a Spec that cannot be kept.
func check(spec *sandbox.Spec) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("gvisor: invalid spec: "+format, args...)
	}
	switch {
	case !validID.MatchString(spec.ID):
		return bad("ID %q", spec.ID)
	case spec.MemoryMB < 1:
		return bad("MemoryMB %d", spec.MemoryMB)
	case spec.CPUMillis < 1:
		return bad("CPUMillis %d", spec.CPUMillis)
	case spec.CPUs < 1:
		return bad("CPUs %d", spec.CPUs)
	case spec.TmpMB < 1:
		return bad("TmpMB %d", spec.TmpMB)
	case spec.MaxProcesses < 1:
		return bad("MaxProcesses %d", spec.MaxProcesses)
	}
	if n := len(spec.Mounts) + len(spec.Added); n >= wire.MaxMounts { // one is process 1's program
		return bad("%d mounts", n)
	}
	for _, m := range spec.Added {
		// /opt is a place in every root that is not an image.
		if !m.Image || !path.IsAbs(m.Source) || spec.Root != "" || m.Target != "/opt" && !slices.Contains(spec.Places, m.Target) {
			return bad("added mount %+v", m)
		}
	}
	if n := spec.Network; n != (sandbox.Network{}) {
		switch {
		case n.NamespacePath == "" || n.Interface == "":
			return bad("a network without a namespace or an interface")
		case !n.Address.IsValid():
			return bad("network address %v", n.Address)
		case n.Gateway.IsValid() && n.Gateway.Is4() != n.Address.Addr().Is4():
			return bad("gateway %v of %v", n.Gateway, n.Address)
		}
	}
	return checkPaths(spec, bad)
}

// checkPaths refuses mounts and symlinks whose paths make no sense.
func checkPaths(spec *sandbox.Spec, bad func(string, ...any) error) error {
	var paths []string
	if spec.Root != "" && (!path.IsAbs(spec.Root) || len(spec.Symlinks)+len(spec.Places) > 0) {
		return bad("root %q with %d symlinks and %d places", spec.Root, len(spec.Symlinks), len(spec.Places))
	}
	for _, m := range spec.Mounts {
		if !path.IsAbs(m.Source) {
			return bad("mount source %q", m.Source)
		}
		paths = append(paths, m.Target)
	}
	for _, l := range spec.Symlinks {
		paths = append(paths, l.Path)
	}
	paths = append(paths, spec.Places...)
	for i, p := range paths {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return bad("path %q", p)
		}
		for _, own := range ownPaths {
			if p == own || strings.HasPrefix(p, own+"/") {
				return bad("path %q is the driver's own", p)
			}
		}
		if slices.Contains(paths[:i], p) {
			return bad("path %q is used twice", p)
		}
	}
	return nil
}

// ownPaths are in every sandbox.
var ownPaths = append(slices.Clone(sandbox.RootDirs), sandbox.RootFiles...)
