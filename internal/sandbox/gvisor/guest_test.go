package gvisor

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/sandbox"
)

// hostSide keeps what a guest says of logs, and forgets the rest.
type hostSide struct {
	host.Handler
	*host.Conn

	mu   sync.Mutex
	logs []string
}

func (h *hostSide) Log(_ proto.Log, msg []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logs = append(h.logs, string(msg))
}

func (h *hostSide) RuntimeDone(host.RuntimeDone) {}
func (h *hostSide) Extension(proto.Extension)    {}

// has tells whether a line has come within some time.
func (h *hostSide) has(line string) bool {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		found := slices.Contains(h.logs, line)
		h.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}

// newServed returns a sandbox with a guest, and the connection to that.
func newServed(t *testing.T, change ...func(*sandbox.Spec)) (*Driver, sandbox.Sandbox, *hostSide) {
	t.Helper()
	d := newDriver(t, func(o *Options) { o.InitPath = "" })
	s, err := d.Create(t.Context(), testSpec(change...))
	if err != nil {
		t.Fatal(err)
	}
	return d, s, connect(t, s, host.New)
}

func connect(t *testing.T, s sandbox.Sandbox, by func(net.Conn, host.Handler) *host.Conn) *hostSide {
	h := &hostSide{}
	h.Conn = by(s.Conn(), h)
	t.Cleanup(func() { h.Close() })
	return h
}

func TestGuestServesTheHostConnection(t *testing.T) {
	_, _, conn := newServed(t)
	for dir, want := range map[string]string{
		"/none":         "stat /none: no such file or directory",
		"/lapwing-init": "chdir /lapwing-init: not a directory",
		"/":             "fork/exec /none: no such file or directory",
	} {
		res, err := conn.Start(t.Context(), proto.Start{Command: []string{"/none"}, Dir: dir, UID: 993, GID: 990})
		if err != nil {
			t.Fatal(err)
		}
		if res.Err == nil || !strings.Contains(res.Err.Error(), want) {
			t.Errorf("start in %s: %v", dir, res.Err)
		}
		if err := conn.Reset(t.Context(), "failure"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSandboxEndsWithItsGuest(t *testing.T) {
	_, s, conn := newServed(t)
	<-conn.Ready() // what it says first has been read
	conn.Close()
	select {
	case <-s.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the sandbox does not end")
	}
	if exit := s.Exit(); exit.Err != nil {
		t.Errorf("exit: %v", exit.Err)
	}
}

func TestSandboxEndsWhereItsGuestIsToldNonsense(t *testing.T) {
	_, s, _ := newServed(t)
	if _, err := s.Conn().Write(proto.AppendData(nil, proto.TypeHello, 0)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the sandbox does not end")
	}
	if exit := s.Exit(); exit.Err == nil {
		t.Error("a clean exit")
	}
}

// withRuntime mounts the runtime of the tests, and as an extension too.
func withRuntime(s *sandbox.Spec) {
	s.Mounts = []sandbox.Mount{
		{Source: runtimeBinary, Target: "/var/runtime"},
		{Source: runtimeBinary, Target: "/opt/extensions/counter"},
	}
}

func startRuntime(snapStart bool) proto.Start {
	start := proto.Start{Command: []string{"/var/runtime"}, Dir: "/", UID: 993, GID: 990, MaxFiles: 1024, MaxProcs: 128, Restorable: true, Env: map[string]string{}}
	if snapStart {
		start.Env["AWS_LAMBDA_INITIALIZATION_TYPE"] = "snap-start"
	}
	return start
}

// reply takes the response of an invocation.
type reply struct{ body []byte }

func (r *reply) Start(proto.ResponseStart)   {}
func (r *reply) Write(b []byte) (int, error) { r.body = append(r.body, b...); return len(b), nil }
func (r *reply) End(*host.RuntimeError)      {}

func TestGuestGoesOnInEachCloneOfASnapshot(t *testing.T) {
	d, s, conn := newServed(t, withRuntime)
	res, err := conn.Start(t.Context(), startRuntime(true))
	if err != nil || res.Err != nil || !res.Restorable {
		t.Fatalf("start: %+v %v", res, err)
	}
	if !conn.has("initialised") {
		t.Errorf("logs: %q", conn.logs)
	}
	snap := newSnapshot(t)
	if err := s.Snapshot(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	for clone := range 3 {
		s, err := d.Restore(t.Context(), testSpec(withRuntime), snap)
		if err != nil {
			t.Fatal(err)
		}
		conn := connect(t, s, host.Resume)
		if res, err := conn.Restore(t.Context(), proto.Restore{}); err != nil || res.Err != nil {
			t.Fatalf("restore: %+v %v", res, err)
		}
		for n := range 3 {
			var r reply
			inv := proto.Invocation{RequestID: fmt.Sprintf("8476a536-e9f4-11e8-9739-2dfe598c3f%d%d", clone, n)}
			running, err := conn.Invoke(t.Context(), inv, []byte(`"e"`), &r)
			if want := fmt.Sprintf(`"e" %d`, n); err != nil || string(r.body) != want {
				t.Fatalf("clone %d, event %d: %q %v", clone, n, r.body, err)
			}
			if out, err := running.Wait(t.Context()); err != nil || out.Exit != nil {
				t.Fatalf("clone %d, after event %d: %+v %v", clone, n, out, err)
			}
		}
		for _, line := range []string{"restored, a child of 1", "event 2", "extension 2"} {
			if !conn.has(line) {
				t.Errorf("clone %d: no %q in its logs: %q", clone, line, conn.logs)
			}
		}
		if err := conn.Reset(t.Context(), "timeout"); err != nil {
			t.Errorf("reset of a clone: %v", err)
		}
		if res, err := conn.Start(t.Context(), startRuntime(true)); err != nil || !res.Restorable {
			t.Errorf("start of a clone that was reset: %+v %v", res, err)
		}
		if err := s.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestGuestThatDoesNotWaitForASnapshotHasNone(t *testing.T) {
	_, s, conn := newServed(t, withRuntime)
	<-conn.Ready()
	if err := s.Snapshot(t.Context(), newSnapshot(t)); !errors.Is(err, sandbox.ErrUnfit) {
		t.Errorf("snapshot: %v", err)
	}
}
