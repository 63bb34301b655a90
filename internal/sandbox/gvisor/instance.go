package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

// instance is one sandbox.
type instance struct {
	id      string
	driver  *Driver
	conn    net.Conn
	process *os.Process
	control *os.File

	done chan struct{}
	mu   sync.Mutex
	exit sandbox.Exit
	kill bool
}

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (_ sandbox.Sandbox, err error) {
	var cleanup []func()
	defer func() {
		for i := len(cleanup) - 1; i >= 0; i-- {
			cleanup[i]()
		}
	}()
	keep := func(f *os.File) *os.File { cleanup = append(cleanup, func() { f.Close() }); return f }

	root, err := makeRoot(d.opts.Dir, d.opts.InitPath, &spec)
	if err != nil {
		return nil, err
	}
	controlOurs, controlTheirs, err := socketPair("control")
	if err != nil {
		return nil, err
	}
	keep(controlTheirs)
	connOurs, connTheirs, err := socketPair("conn")
	if err != nil {
		return nil, err
	}
	keep(connTheirs)
	keep(connOurs) // net.FileConn duplicates it
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	keep(null)
	consoleFD, err := unix.MemfdCreate("console", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	console := keep(os.NewFile(uintptr(consoleFD), "console"))
	tmpFD, err := unix.Open(d.opts.Dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	tmp := keep(os.NewFile(uintptr(tmpFD), "tmp"))

	files := []*os.File{null, console, console, controlTheirs, connTheirs, console, tmp}
	req := bootRequest{
		ID: spec.ID, Hostname: spec.Hostname,
		MemoryBytes: uint64(spec.MemoryMB) << 20, HostMemory: 8 << 30,
		CPUs: spec.CPUs, TmpBytes: uint64(spec.TmpMB) << 20, MaxProcesses: spec.MaxProcesses,
	}
	mounts := append([]sandbox.Mount{{Source: root}, {Source: d.opts.InitPath, Target: initPath}}, spec.Mounts...)
	for i, m := range mounts {
		f, isFile, err := openMount(m.Source)
		if err != nil {
			return nil, err
		}
		files = append(files, keep(f))
		if i > 0 {
			req.Mounts = append(req.Mounts, bootMount{Target: m.Target, File: isFile})
		}
	}
	process, err := d.void.start(files, -1)
	if err != nil {
		return nil, fmt.Errorf("starting the sandbox process: %w", err)
	}
	if err := json.NewEncoder(controlOurs).Encode(&req); err != nil {
		return nil, err
	}
	reports := json.NewDecoder(controlOurs)
	var rep bootReport
	if err := reports.Decode(&rep); err != nil || rep.Error != "" {
		process.Kill()
		st, _ := process.Wait()
		b := make([]byte, 65536)
		n, _ := console.ReadAt(b, 0)
		return nil, fmt.Errorf("starting: %v %v %v\n%s", err, rep.Error, st, b[:n])
	}
	conn, err := net.FileConn(connOurs)
	if err != nil {
		return nil, err
	}
	s := &instance{id: spec.ID, driver: d, conn: conn, process: process, control: controlOurs, done: make(chan struct{})}
	go s.watch(reports)
	d.mu.Lock()
	d.live[s.id] = s
	d.mu.Unlock()
	return s, nil
}

func (s *instance) watch(reports *json.Decoder) {
	var rep bootReport
	err := reports.Decode(&rep)
	state, werr := s.process.Wait()
	s.mu.Lock()
	switch {
	case s.kill:
	case werr != nil:
		s.exit.Err = werr
	case rep.Exited && rep.Status != 0:
		s.exit.Err = fmt.Errorf("process 1 ended with %#x", rep.Status)
	case !rep.Exited:
		s.exit.Err = fmt.Errorf("sandbox process: %v %v", state, err)
	}
	s.mu.Unlock()
	s.conn.Close()
	s.control.Close()
	close(s.done)
}

func (s *instance) Conn() net.Conn        { return s.conn }
func (s *instance) Freeze() error         { return errors.ErrUnsupported }
func (s *instance) Thaw() error           { return errors.ErrUnsupported }
func (s *instance) Done() <-chan struct{} { return s.done }
func (s *instance) Stats() (sandbox.Stats, error) {
	return sandbox.Stats{}, errors.ErrUnsupported
}
func (s *instance) Exit() sandbox.Exit { s.mu.Lock(); defer s.mu.Unlock(); return s.exit }
func (s *instance) Destroy(ctx context.Context) error {
	s.mu.Lock()
	s.kill = true
	s.mu.Unlock()
	s.process.Kill()
	<-s.done
	s.driver.mu.Lock()
	delete(s.driver.live, s.id)
	s.driver.mu.Unlock()
	return nil
}

func socketPair(name string) (ours, theirs *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(p[0]), name), os.NewFile(uintptr(p[1]), name), nil
}

var _ = io.EOF
var _ = time.Second
