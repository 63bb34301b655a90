package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox/apart"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// void is where sandbox processes live: a mount namespace whose root is a
// read-only directory with nothing in it but the program and three files of
// hardware facts, a network namespace without a working interface, and empty IPC
// and UTS namespaces. It is made once and costs a sandbox nothing; each sandbox
// adds a PID namespace. It consists of a thread that has entered it and starts
// the processes from there, so it ends with the daemon and the last sandbox and
// leaves nothing on the host.
//
// The thread lives as long as the daemon, which is what makes the parent-death
// signal of the processes sound: it is the thread's death that sends it.
type void struct {
	spawns chan spawn
	done   chan struct{}
}

type spawn struct {
	attr   *os.ProcAttr
	result chan<- spawned
}

type spawned struct {
	process *os.Process
	err     error
}

const nobody = 65534

// voidFiles are read by the Go runtime and gVisor at the start of a process.
var voidFiles = []string{
	"/proc/sys/vm/mmap_min_addr",
	"/proc/cpuinfo",
	"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
}

// newVoid makes a void whose processes run program. Its root is built over the
// directory mountPoint, in the new mount namespace only.
func newVoid(mountPoint, program string) (*void, error) {
	v := &void{spawns: make(chan spawn), done: make(chan struct{})}
	entered := make(chan error)
	apart.Thread(func() { v.run(mountPoint, program, entered) })
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("entering the void: %w", err)
	}
	return v, nil
}

func (v *void) run(mountPoint, program string, entered chan<- error) {
	defer close(v.done)
	if err := enterVoid(mountPoint, program); err != nil {
		entered <- err
		return
	}
	if err := refuseCalls(); err != nil {
		entered <- err
		return
	}
	entered <- nil
	for s := range v.spawns {
		p, err := os.StartProcess(wire.Program, []string{wire.Program}, s.attr)
		s.result <- spawned{p, err}
	}
}

// close ends the thread, and by the parent-death signal every process that is
// left.
func (v *void) close() {
	close(v.spawns)
	<-v.done
}

// start starts a sandbox process with files as its descriptors. cgroup is the
// descriptor of a cgroup v2 directory to start it in, or -1.
func (v *void) start(files []*os.File, cgroup int) (*os.Process, error) {
	sys := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID,
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{}},
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if cgroup >= 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, cgroup
	}
	// The kernel enlarges a table of descriptors slowly, by a grace period of
	// RCU, once the process has threads. Here it has none: a descriptor far up
	// makes the table large from the start.
	files = append(files, make([]*os.File, wire.Last+1-len(files))...)
	files[wire.Last] = files[0]
	result := make(chan spawned, 1)
	v.spawns <- spawn{&os.ProcAttr{Dir: "/", Env: []string{"TZ=UTC"}, Files: files, Sys: sys}, result}
	r := <-result
	return r.process, r.err
}

// enterVoid moves the calling thread into a new void.
func enterVoid(root, program string) error {
	exe, err := unix.OpenTree(unix.AT_FDCWD, program, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening the program: %w", err)
	}
	defer unix.Close(exe)
	contents := make(map[string][]byte)
	for _, name := range voidFiles {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without huge pages
		}
		if err != nil {
			return err
		}
		contents[name] = b
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("lapwing-void", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=256k"); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	for name, b := range contents {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, b, 0o444); err != nil {
			return err
		}
	}
	binary := filepath.Join(root, wire.Program)
	if err := os.WriteFile(binary, nil, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(exe, "", unix.AT_FDCWD, binary, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting the program: %w", err)
	}
	const ro = unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", binary, "", ro, ""); err != nil {
		return fmt.Errorf("making the program read-only: %w", err)
	}
	if err := unix.Mount("", root, "", ro|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("making the root read-only: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	return unix.Chdir("/")
}

// refuseCalls makes the calling thread, and the processes that it starts, unable
// to make two system calls that gVisor tries, and can do without:
//
//   - Registering for private expedited memory barriers. gVisor registers as it
//     is loaded, which makes a process with threads wait for a grace period of
//     RCU, several milliseconds, and then never uses it.
//   - Listening to seccomp notifications. gVisor speaks with the stub of a guest
//     process by them, and takes the stub for dead if it asks for one that the
//     freezer has just withdrawn. Without them it uses futexes.
func refuseCalls() error {
	const (
		number    = 0  // offsets in struct seccomp_data, of a little-endian machine
		argument0 = 16 // as gVisor supports no others
		argument1 = 24
		// In no package for system calls yet.
		registerPrivateExpedited = 1 << 4 // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
		load                     = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal                    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		give                     = unix.BPF_RET | unix.BPF_K
	)
	program := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_SECCOMP, Jt: 4},
		{Code: equal, K: unix.SYS_MEMBARRIER, Jf: 2},
		{Code: load, K: argument0},
		{Code: equal, K: registerPrivateExpedited, Jt: 3},
		{Code: give, K: unix.SECCOMP_RET_ALLOW},
		{Code: load, K: argument1},
		{Code: equal, K: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, Jf: 1},
		{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: give, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// Root may do so without giving up privileges that execve would grant.
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
