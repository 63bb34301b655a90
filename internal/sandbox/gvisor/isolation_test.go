package gvisor

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

func TestHostIsOutOfReach(t *testing.T) {
	d := newDriver(t)
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(outside, "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(inside, "absolute")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secret", filepath.Join(inside, "relative")); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(inside, "private")
	if err := os.WriteFile(private, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(inside, "socket")
	unixListener, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer unixListener.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	abstract, err := net.Listen("unix", fmt.Sprintf("@gvisor-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()

	g := newGuest(t, d, func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: inside, Target: "/mnt"}} })
	for _, path := range []string{
		secret, "/mnt/../secret", "/mnt/absolute", "/mnt/relative", "/mnt/private",
		"/etc/passwd", "/proc/1/root" + secret, "/proc/self/cwd/../.." + secret,
	} {
		if r := g.do("read", path, 0); r.Error == "" {
			t.Errorf("%s can be read: %q", path, r.Text)
		}
	}
	for _, addr := range []string{
		"unix!/mnt/socket", "unix!" + abstract.Addr().String(), "tcp!" + tcp.Addr().String(), "tcp!192.0.2.1:80",
	} {
		if r := g.do("dial", addr, 0); r.Error == "" {
			t.Errorf("%s can be reached", addr)
		}
	}
	if got := g.must("interfaces", "", 0).Text; strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "lo ") {
		t.Errorf("without a network there is\n%s", got)
	}
	// The guest's own loopback works.
	g.must("serve", "127.0.0.1:9001", 10)
	if n := g.must("get", "http://127.0.0.1:9001/", 0).N; n != 10 {
		t.Errorf("%d bytes came over loopback", n)
	}
}

func TestSandboxProcessHasNoPrivileges(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	pid := g.Sandbox.(*instance).process.Pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t \n",
		"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !bytes.Contains(status, []byte(want)) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		host, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if ns == "pid" {
			own, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", pid))
		}
		if err != nil {
			t.Fatal(err)
		}
		if host == own {
			t.Errorf("the sandbox process is in the host's %s namespace", ns)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if !strings.Contains(line, " ro,") {
			t.Errorf("a mount that is not read-only: %s", line)
		}
	}
	if n := strings.Count(string(mounts), "\n"); n != 2 {
		t.Errorf("%d mounts, want the root and the program:\n%s", n, mounts)
	}
}

func TestDaemonKilledLeavesNothing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	daemon := exec.Command(hostBinary, dir, sandboxBinary, guestBinary)
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	daemon.Stderr = testLog{t}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	root := fmt.Sprintf("/proc/%d", daemon.Process.Pid)
	children := sandboxesBelow(t, root)
	for end := time.Now().Add(30 * time.Second); len(children) < 4 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		children = sandboxesBelow(t, root)
	}
	if len(children) != 4 {
		t.Fatalf("the daemon has the sandbox processes %v, not three sandboxes and a prepared one", children)
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	daemon.Wait()

	d := newDriver(t, func(o *Options) { o.Dir = dir })
	for _, pid := range children {
		deadline := time.Now().Add(30 * time.Second)
		for alive(pid) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if alive(pid) {
			t.Errorf("sandbox process %s lives", pid)
		}
	}
	for _, path := range d.cgroups.Paths() {
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				t.Errorf("cgroup %s/%s is left", path, e.Name())
			}
		}
	}
	if left, err := os.ReadDir(d.rootsDir()); err != nil || len(left) != 1 { // the new driver's first
		t.Errorf("root directories are left: %v, %v", left, err)
	}
	newGuest(t, d).must("cpus", "", 0)
}

// Processes of a sandbox may be killed from outside one by one, by an operator or
// for lack of memory on the host, before Destroy or while it works.
func TestDestroyWhileProcessesAreKilledInAnyOrder(t *testing.T) {
	d := newDriver(t)
	var pids, dirs []string
	var wg sync.WaitGroup
	for i := range 6 {
		g := newGuest(t, d)
		g.must("fork", "", 10)
		id := g.Sandbox.(*instance).name
		var own []string
		for _, path := range d.cgroups.Paths() {
			dir := filepath.Join(path, id)
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, dir)
			own = strings.Fields(string(b)) // the same in each
		}
		if len(own) < 3 {
			t.Fatalf("the sandbox has the processes %v", own)
		}
		pids = append(pids, own...)
		if i%3 == 2 {
			if err := g.Freeze(); err != nil {
				t.Log(err)
			}
		}
		rand.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
		kill := func(pids []string) {
			for _, p := range pids {
				pid, err := strconv.Atoi(p)
				if err != nil {
					t.Error(err)
				}
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
					t.Error(err)
				}
			}
		}
		kill(own[:len(own)/2])
		wg.Go(func() { kill(own[len(own)/2:]) })
		wg.Go(func() {
			if err := g.Destroy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %s lives", pid)
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
	if len(d.live) != 0 {
		t.Errorf("the driver still has %d sandboxes", len(d.live))
	}
}

// sandboxesBelow lists the children of the process at root in /proc.
func sandboxesBelow(t *testing.T, root string) (pids []string) {
	t.Helper()
	tasks, err := filepath.Glob(root + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(b))...)
	}
	return pids
}

// alive tells whether the process is there and no zombie.
func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
