package guest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/system/process1"
)

// The test binary plays three parts: the tests, process 1 of a sandbox (in
// namespaces of its own), and the runtimes and extensions in it.
const (
	roleEnv = "LAPWING_TEST_ROLE"
	optEnv  = "LAPWING_TEST_OPT" // a directory to mount at /opt
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); {
	case role == "":
		os.Exit(m.Run())
	case role == "init":
		if err := beInit(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
			os.Exit(1)
		}
	default:
		f, ok := functions[role]
		if !ok {
			panic("no such function: " + role)
		}
		f()
	}
}

func beInit() error {
	os.Unsetenv(roleEnv)
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if opt := os.Getenv(optEnv); opt != "" {
		if err := unix.Mount(opt, "/opt", "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	conn, err := net.FileConn(os.NewFile(3, "host"))
	if err != nil {
		return err
	}
	sys, err := process1.New()
	if err != nil {
		return err
	}
	return New(sys).Run(conn)
}

// loopbackUp brings the loopback interface of a fresh network namespace up.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// sandbox is a guest under test.
type sandbox struct {
	*host.Conn
	logs *logs
	cmd  *exec.Cmd
}

// startSandbox starts process 1 in namespaces of its own. opt, where not
// empty, is mounted at /opt.
func startSandbox(t testing.TB, opt string) *sandbox {
	t.Helper()
	s, conn := bootSandbox(t, opt)
	s.Conn = host.New(conn, s.logs)
	return s
}

// Invoke runs a whole invocation.
func (s *sandbox) Invoke(ctx context.Context, inv proto.Invocation, payload []byte, w host.ResponseWriter) (host.Outcome, error) {
	running, err := s.Conn.Invoke(ctx, inv, payload, w)
	if err != nil {
		return host.Outcome{}, err
	}
	return running.Wait(ctx)
}

// bootSandbox is startSandbox without the host's end of the connection, which
// the test makes of what is returned.
func bootSandbox(t testing.TB, opt string) (*sandbox, net.Conn) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: the guest is process 1 of a PID namespace")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(role("").Command[0])
	cmd.Env = append(os.Environ(), roleEnv+"=init", optEnv+"="+opt)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &sandbox{logs: new(logs), cmd: cmd}
	t.Cleanup(func() {
		s.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return s, conn
}

// role returns what starts one of the functions below as the runtime.
func role(name string) proto.Start {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return proto.Start{
		Command: []string{exe}, Dir: "/", MaxFiles: 1024,
		Env:          map[string]string{roleEnv: name, "AWS_LAMBDA_FUNCTION_NAME": "f", "TZ": ":UTC"},
		FunctionName: "f", FunctionVersion: "$LATEST", Handler: "h", AccountID: "123456789012",
	}
}

// run starts a sandbox with one of the functions and waits until it is ready.
func run(t testing.TB, name string) *sandbox {
	t.Helper()
	s := startSandbox(t, "")
	res, err := s.Start(t.Context(), role(name))
	if err != nil || res.Err != nil {
		t.Fatalf("start: %v %v", err, res.Err)
	}
	return s
}

// reply is a ResponseWriter that keeps everything.
type reply struct {
	start *proto.ResponseStart
	body  []byte
	err   *host.RuntimeError
	ends  int
	write func([]byte) // called for each write
	end   func()       // called at the end
}

func (r *reply) Start(s proto.ResponseStart) { r.start = &s }
func (r *reply) Write(p []byte) (int, error) {
	if r.write != nil {
		r.write(p)
	}
	r.body = append(r.body, p...)
	return len(p), nil
}
func (r *reply) End(err *host.RuntimeError) {
	r.err = err
	r.ends++
	if r.end != nil {
		r.end()
	}
}

const requestID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

func invocation() proto.Invocation {
	return proto.Invocation{
		RequestID:          requestID,
		DeadlineMs:         time.Now().Add(time.Minute).UnixMilli(),
		InvokedFunctionARN: "arn:aws:lambda:us-east-1:123456789012:function:f",
	}
}

// invoke invokes with a fresh reply.
func (s *sandbox) invoke(t testing.TB, payload string) (*reply, host.Outcome) {
	t.Helper()
	r := new(reply)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := s.Invoke(ctx, invocation(), []byte(payload), r)
	if err != nil {
		t.Fatalf("invoke: %v", err)
	}
	if r.ends != 1 {
		t.Fatalf("End was called %d times", r.ends)
	}
	return r, out
}

// logs keeps log messages.
type logs struct {
	mu   sync.Mutex
	msgs []string
	meta []proto.Log

	done       []host.RuntimeDone
	extensions []proto.Extension
	subscribed []proto.Subscription

	runtimeDone func(host.RuntimeDone) // is called too, where it is set
}

func (l *logs) RuntimeDone(d host.RuntimeDone) {
	l.mu.Lock()
	l.done = append(l.done, d)
	told := l.runtimeDone
	l.mu.Unlock()
	if told != nil {
		told(d)
	}
}

func (l *logs) Extension(e proto.Extension) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extensions = append(l.extensions, e)
}

func (l *logs) Subscribed(s proto.Subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribed = append(l.subscribed, s)
}

func (l *logs) Log(m proto.Log, msg []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.msgs = append(l.msgs, string(msg))
	l.meta = append(l.meta, m)
}

func (l *logs) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.msgs)
}

func contains(t testing.TB, where, what string) {
	t.Helper()
	if !strings.Contains(where, what) {
		t.Errorf("%q does not hold %q", where, what)
	}
}

// waitLog waits for a log message.
func (s *sandbox) waitLog(t testing.TB, msg string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !slices.Contains(s.logs.all(), msg); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no log message %q", msg)
		}
	}
}
