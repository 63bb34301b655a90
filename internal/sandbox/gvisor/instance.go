package gvisor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/cgroup"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// instance is one sandbox, or a process that waits to become one: see pool.
type instance struct {
	driver  *Driver
	name    string // of its cgroup
	group   cgroup.Group
	process *os.Process
	control *net.UnixConn // orders out, reports in
	stderr  *os.File      // of the sandbox process
	console *os.File      // of process 1

	// What follows is set once the instance is to be a sandbox.
	spec     sandbox.Spec
	from     *sandbox.Snapshot // nil: a new one
	practice *os.File          // to save its kernel to, where that is all it is for
	conn     net.Conn
	tmp      *os.File // behind /tmp
	memoryID memoryID // of from
	pioneer  bool     // the first clone, which is to tell what it has touched
	base     cgroup.Memory
	files    mappedFiles

	ready chan struct{} // closed when the process is ready for orders or never will be
	up    chan struct{} // closed when the guest runs or never will
	saved chan struct{} // closed when a snapshot is complete or never will be
	done  chan struct{} // closed when all processes are gone

	mu       sync.Mutex
	startErr error
	saveErr  error
	filter   []byte      // as reported
	steps    []wire.Step // of the process, as reported
	copied   int64       // bytes of its memory that were copied before it was up
	exit     sandbox.Exit
	outOfMem bool
	killed   bool // by us

	started func() // tells the pool that the start is over; nil while it is there
	remove  func() error
}

var _ sandbox.Sandbox = (*instance)(nil)

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	return d.make(ctx, spec, nil)
}

// make makes a sandbox, from a snapshot if there is one.
func (d *Driver) make(ctx context.Context, spec sandbox.Spec, from *sandbox.Snapshot) (sandbox.Sandbox, error) {
	s, err := d.create(ctx, spec, from, nil)
	if err != nil {
		return nil, err // not a nil *instance
	}
	return s, nil
}

func (d *Driver) create(ctx context.Context, spec sandbox.Spec, from *sandbox.Snapshot, practice *os.File) (*instance, error) {
	if err := check(&spec); err != nil {
		return nil, err
	}
	if from == nil && len(spec.Added) > 0 {
		return nil, errors.New("gvisor: invalid spec: images are added to a snapshot only")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := d.admit(&spec); err != nil {
		return nil, err
	}
	defer d.starting.Done()
	laps := timeline.From(ctx).Laps("sandbox/")
	s, err := d.pool.take()
	if err != nil {
		d.forget(spec.ID)
		return nil, fmt.Errorf("gvisor: sandbox %s: %w", spec.ID, err)
	}
	d.assign(s, spec, from)
	s.practice = practice
	laps.End("process")
	err = s.launch(laps)
	if err == nil {
		err = s.await(ctx)
	}
	if err == nil {
		for _, step := range s.steps {
			laps.EndAt(step.Name, step.Ended)
		}
		err = s.settle()
		laps.End("limits")
	}
	if spec.Held {
		s.started() // nothing runs any more, for now
	}
	if err != nil {
		err = fmt.Errorf("gvisor: sandbox %s: %w", spec.ID, err)
		return nil, errors.Join(err, s.Destroy(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// newInstance starts a sandbox process, which then waits to be told what to be. One
// that nobody waits for has the time to practise.
func (d *Driver) newInstance(practise bool) (_ *instance, err error) {
	s := &instance{driver: d, name: fmt.Sprintf("s%d", d.made.Add(1)), ready: make(chan struct{}), up: make(chan struct{}), saved: make(chan struct{}), done: make(chan struct{})}
	s.remove = sync.OnceValue(s.removeAll)
	defer func() {
		if err != nil {
			s.closeFiles()
			err = errors.Join(fmt.Errorf("starting the process: %w", err), s.remove())
		}
	}()
	if s.group, err = d.cgroups.Create(s.name); err != nil {
		return nil, err
	}
	var h handover
	defer h.close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	h.add(null)
	if s.stderr, err = logFile("stderr"); err != nil {
		return nil, err
	}
	if s.console, err = logFile("console"); err != nil {
		return nil, err
	}
	for range 2 {
		if err := h.dup(s.stderr); err != nil {
			return nil, err
		}
	}
	control, err := h.socketPair("control")
	if err != nil {
		return nil, err
	}
	if s.control, err = fileConn(control); err != nil {
		return nil, err
	}
	lesson := null
	if practise {
		lesson = d.practice
	}
	if err := h.lend(lesson); err != nil {
		return nil, err
	}
	if s.process, err = d.void.start(h.files, s.group.StartFD()); err != nil {
		return nil, err
	}
	err = s.group.Add(s.process.Pid)
	if err == nil {
		// When the host runs out of memory, rather a sandbox than the daemon.
		err = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", s.process.Pid), []byte("500"), 0)
	}
	if err == nil {
		err = wire.Send(s.control, &wire.Order{Begin: true}, nil)
	}
	if err != nil {
		s.kill()
		s.process.Wait()
		return nil, err
	}
	go s.watch()
	return s, nil
}

// launch tells the process what to be.
func (s *instance) launch(laps *timeline.Laps) (err error) {
	if err := s.limit(); err != nil {
		return err
	}
	var h handover
	defer h.close()
	req, err := s.prepare(&h)
	if err != nil {
		return err
	}
	laps.End("files and mounts")
	if err := wire.Send(s.control, &wire.Order{Be: req}, h.descriptors()); err != nil {
		return fmt.Errorf("sending the request: %w", err)
	}
	return nil
}

// limit sets the limits of the cgroup. CPU time is free until the guest runs.
func (s *instance) limit() error {
	if err := s.group.SetMemory(int64(s.spec.MemoryMB+overheadMB) * mib); err != nil {
		return err
	}
	// gVisor runs each guest process in a host process with a thread per guest CPU
	// and one more; its kernel has threads of its own.
	return s.group.SetProcesses(s.spec.MaxProcesses*(s.spec.CPUs+1) + 256)
}

// await waits until process 1 runs.
func (s *instance) await(ctx context.Context) error {
	for _, c := range []<-chan struct{}{s.up, s.ready} {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startErr
}

// settle begins the sandbox's normal life, once the guest runs.
func (s *instance) settle() (err error) {
	if s.base, err = s.group.Memory(); err != nil {
		return err
	}
	s.base.Used -= s.copied // which the guest uses
	return s.group.SetCPU(max(s.spec.CPUMillis, s.spec.BoostMillis))
}

// reportBytes bounds all that a sandbox process reports in its life, of which the
// program of the system call filter is most.
const reportBytes = mib

// watch reads what the sandbox process reports and waits for its end. It is the
// one goroutine of a sandbox.
func (s *instance) watch() {
	stopOOM, err := s.group.OnOOM(func() {
		s.mu.Lock()
		s.outOfMem = true
		s.mu.Unlock()
		s.kill()
	})
	if err != nil {
		stopOOM = func() {}
		s.fail(err)
		s.kill()
	}
	reports := json.NewDecoder(io.LimitReader(s.control, reportBytes))
	var end *wire.Report
	for {
		var r wire.Report
		if err := reports.Decode(&r); err != nil {
			break // the process has ended, or is not what it should be
		}
		switch {
		case r.Error != "":
			err := errors.New(r.Error)
			s.fail(err)
			s.endSave(err)
		case r.OutOfMemory:
			s.mu.Lock()
			s.outOfMem = true
			s.mu.Unlock()
		case r.Ready:
			s.getReady()
		case r.Exited:
			end = &r
		case r.Saved:
			s.endSave(nil)
		case r.Footprint != nil:
			s.driver.footprints.keep(s.memoryID, r.Footprint)
		case r.Unfit != "":
			s.endSave(fmt.Errorf("%w: %s", sandbox.ErrUnfit, r.Unfit))
		default:
			s.mu.Lock()
			s.filter, s.steps, s.copied = r.Filter, r.Steps, r.Copied
			s.mu.Unlock()
			s.fail(nil)
		}
	}
	s.kill()
	state, err := s.process.Wait()
	stopOOM()
	s.ended(end, state, err)
	s.closeFiles()
	close(s.done)
}

// getReady moves gVisor's kernel out of the part of the cgroup whose CPU time is
// limited to the guest's share: what it has started by now runs guest code, and
// starts all else that does. On cgroup version 1 this takes a grace period of RCU,
// some 10 ms, during which the start goes on.
func (s *instance) getReady() {
	select {
	case <-s.ready:
		return // it has said so before
	default:
	}
	if err := s.group.AddKernel(s.process.Pid); err != nil {
		s.fail(err)
		s.kill()
	}
	close(s.ready)
}

// ended notes why the sandbox ended: after end, if process 1 ended by itself,
// and with the sandbox process in state.
func (s *instance) ended(end *wire.Report, state *os.ProcessState, waitErr error) {
	kills, err := s.group.OOMKills()
	if err != nil {
		s.driver.log.Error("cannot tell whether a sandbox ran out of memory", "sandbox", s.id(), "err", err)
	}
	s.mu.Lock()
	switch {
	case s.outOfMem || kills > 0:
		s.exit = sandbox.Exit{OutOfMemory: true, Err: errOutOfMemory}
	case s.killed || end != nil && end.Status == 0:
	case end != nil:
		s.exit.Err = fmt.Errorf("process 1 ended: %s", describe(unix.WaitStatus(end.Status)))
	case waitErr != nil:
		s.exit.Err = waitErr
	default:
		s.exit.Err = fmt.Errorf("the sandbox process ended: %v", state)
	}
	exit := s.exit
	s.mu.Unlock()
	if exit.Err != nil && !exit.OutOfMemory {
		s.driver.log.Error("sandbox failed", "sandbox", s.id(), "err", exit.Err,
			"kernel", tail(s.stderr), "console", tail(s.console))
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	s.fail(fmt.Errorf("it ended before process 1 ran: %w", cmp.Or(exit.Err, errDestroyed)))
	s.endSave(fmt.Errorf("it ended before a snapshot was complete: %w", cmp.Or(exit.Err, errDestroyed)))
}

var (
	errOutOfMemory = errors.New("out of memory")
	errDestroyed   = errors.New("destroyed")
)

// describe says how a process ended.
func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "signal: " + ws.Signal().String()
	}
	return "exit status " + strconv.Itoa(ws.ExitStatus())
}

// fail notes the outcome of the start, nil for success. Only the first counts.
func (s *instance) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isUp() {
		s.startErr = err
		close(s.up)
	}
}

func (s *instance) isUp() bool     { return isClosed(s.up) }
func (s *instance) hasEnded() bool { return isClosed(s.done) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// id names the sandbox for logs, also while it is prepared.
func (s *instance) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.spec.ID, "prepared "+s.name)
}

// kill ends all processes of the sandbox: the kernel kills a PID namespace with
// its first process, which a frozen one can only be once it is thawed.
func (s *instance) kill() {
	if err := s.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.driver.log.Error("cannot kill a sandbox", "sandbox", s.id(), "err", err)
	}
	if err := s.group.Thaw(); err != nil {
		s.driver.log.Error("cannot thaw a sandbox to end it", "sandbox", s.id(), "err", err)
	}
}

// Destroy implements sandbox.Sandbox.
func (s *instance) Destroy(ctx context.Context) error {
	s.mu.Lock()
	s.killed = true
	s.mu.Unlock()
	select {
	case <-s.done:
	default:
		s.kill()
		select {
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.remove()
}

// removeAll removes what is left once the processes are gone.
func (s *instance) removeAll() error {
	var err error
	if s.group != nil {
		err = s.group.Remove()
	}
	if s.started != nil {
		s.started()
	}
	s.closeConn() // the process may have ended before it was made
	s.driver.forget(s.spec.ID)
	return err
}

func (s *instance) closeConn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *instance) closeFiles() {
	s.closeConn()
	if s.control != nil {
		s.control.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range []*os.File{s.console, s.stderr, s.tmp} {
		f.Close() // a nil one refuses
	}
}

// Conn implements sandbox.Sandbox.
func (s *instance) Conn() net.Conn { return s.conn }

// Done implements sandbox.Sandbox.
func (s *instance) Done() <-chan struct{} { return s.done }

// Exit implements sandbox.Sandbox.
func (s *instance) Exit() sandbox.Exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exit
}

// Freeze implements sandbox.Sandbox.
func (s *instance) Freeze() error { return s.group.Freeze() }

// Thaw implements sandbox.Sandbox.
func (s *instance) Thaw() error { return s.group.Thaw() }

// EndBoost implements sandbox.Sandbox.
func (s *instance) EndBoost() error {
	s.started()
	if err := s.askFootprint(); err != nil {
		return fmt.Errorf("gvisor: sandbox %s: %w", s.id(), err)
	}
	if s.spec.BoostMillis <= s.spec.CPUMillis {
		return nil
	}
	return s.group.SetCPU(s.spec.CPUMillis)
}

// CPUTime implements sandbox.Sandbox.
func (s *instance) CPUTime() (time.Duration, error) { return s.group.CPU() }

// Stats implements sandbox.Sandbox.
func (s *instance) Stats() (sandbox.Stats, error) {
	var st sandbox.Stats
	cpu, err := s.CPUTime()
	if err != nil {
		return st, err
	}
	st.CPUNanos = int64(cpu)
	if st.TmpMB, err = s.tmpMB(); err != nil {
		return st, err
	}
	m, err := s.group.Memory()
	if err != nil {
		return st, err
	}
	st.MemoryMB = int(max(0, m.Used-s.base.Used) / mib)
	st.MemoryPeakMB = int(max(0, m.Peak-s.base.Used) / mib)
	return st, nil
}

// tmpMB returns what is in /tmp.
func (s *instance) tmpMB() (int, error) {
	s.mu.Lock()
	tmp := s.tmp
	s.mu.Unlock()
	if tmp == nil {
		return 0, nil
	}
	info, err := tmp.Stat()
	if err != nil {
		return 0, fmt.Errorf("gvisor: the file behind /tmp: %w", err)
	}
	return int((info.Sys().(*syscall.Stat_t).Blocks*512 + mib - 1) / mib), nil
}

// PeakMemoryMB implements sandbox.Sandbox.
func (s *instance) PeakMemoryMB() (int, error) {
	peak, err := s.group.PeakMemory()
	if err != nil {
		return 0, err
	}
	peak, err = s.files.peak(s, peak)
	return int(max(0, peak-s.base.Used) / mib), err
}
