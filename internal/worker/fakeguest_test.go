package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/sandbox"
)

// fakeDriver makes sandboxes in which a fakeGuest runs, and snapshots of them.
type fakeDriver struct {
	mu       sync.Mutex
	creates  int
	restores int
	made     []sandbox.Spec
	restored []sandbox.Spec

	prints   string // that each Init prints
	initType string // InitError or so; empty: it succeeds
	aloof    bool   // the runtime does not stop to be restored
	unfit    string
	stats    *sandbox.Stats // of each sandbox; nil: it cannot be told

	snapshot func(sandbox.Snapshot) error // in place of writing one
	restore  func(ctx context.Context, n int) error
	hook     string        // error type that a restored runtime reports
	hang     time.Duration // how long a restored runtime takes
	panics   atomic.Int64  // how many invocations the sandbox is to end in
}

func (d *fakeDriver) Close() error { return nil }

func (d *fakeDriver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	d.mu.Lock()
	d.creates++
	d.made = append(d.made, spec)
	d.mu.Unlock()
	return d.sandbox(&fakeGuest{driver: d}), nil
}

func (d *fakeDriver) Restore(ctx context.Context, spec sandbox.Spec, s sandbox.Snapshot) (sandbox.Sandbox, error) {
	d.mu.Lock()
	d.restores++
	d.restored = append(d.restored, spec)
	n := d.restores
	d.mu.Unlock()
	if d.restore != nil {
		if err := d.restore(ctx, n); err != nil {
			return nil, err
		}
	}
	g := &fakeGuest{driver: d, resumed: true}
	b, err := io.ReadAll(s.Memory)
	if err == nil {
		err = json.Unmarshal(b, &g.env)
	}
	if err != nil {
		return nil, err
	}
	return d.sandbox(g), nil
}

func (d *fakeDriver) counts() (creates, restores int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.creates, d.restores
}

func (d *fakeDriver) sandbox(g *fakeGuest) *fakeSandbox {
	ours, theirs := net.Pipe()
	s := &fakeSandbox{driver: d, conn: ours, guest: g, done: make(chan struct{})}
	go func() {
		g.serve(theirs)
		theirs.Close()
		close(s.done)
	}()
	return s
}

type fakeSandbox struct {
	driver *fakeDriver
	conn   net.Conn
	guest  *fakeGuest
	done   chan struct{}
}

func (s *fakeSandbox) Conn() net.Conn                { return s.conn }
func (s *fakeSandbox) Freeze() error                 { return nil }
func (s *fakeSandbox) Thaw() error                   { return nil }
func (s *fakeSandbox) EndBoost() error               { return nil }
func (s *fakeSandbox) PeakMemoryMB() (int, error)    { return 10, nil }
func (s *fakeSandbox) Done() <-chan struct{}         { return s.done }
func (s *fakeSandbox) Exit() sandbox.Exit            { return sandbox.Exit{} }
func (s *fakeSandbox) Destroy(context.Context) error { return s.conn.Close() }
func (s *fakeSandbox) CPUTime() (time.Duration, error) {
	return 0, errors.ErrUnsupported
}
func (s *fakeSandbox) Stats() (sandbox.Stats, error) {
	if s.driver.stats == nil {
		return sandbox.Stats{}, errors.ErrUnsupported
	}
	return *s.driver.stats, nil
}

func (s *fakeSandbox) Snapshot(ctx context.Context, to sandbox.Snapshot) error {
	s.conn.Close()
	<-s.done
	if s.driver.snapshot != nil {
		return s.driver.snapshot(to)
	}
	_, err := io.WriteString(to.State, "state")
	return errors.Join(err, writeJSON(to.Memory, s.guest.env))
}

func writeJSON(f *os.File, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = f.Write(b)
	}
	return err
}

// fakeGuest speaks as lapwing-init does, around a function that returns its
// environment.
type fakeGuest struct {
	driver  *fakeDriver
	resumed bool
	env     map[string]string
}

func (g *fakeGuest) serve(c net.Conn) {
	out := make(chan []byte, 100)
	defer close(out)
	go func() { // a pipe holds nothing: reading must not wait for writing
		for b := range out {
			c.Write(b)
		}
	}()
	send := func(t proto.Type, v any) { out <- proto.AppendFrame(nil, t, v) }
	meta := func(t proto.Type, m any, body []byte) {
		out <- append(proto.AppendMeta(nil, t, m, len(body)), body...)
	}
	send(proto.TypeHello, proto.Hello{Version: proto.Version})
	r := proto.NewReader(c)
	for {
		f, err := r.Read()
		if err != nil {
			return
		}
		switch f.Type {
		case proto.TypeStart:
			var s proto.Start
			f.Decode(&s)
			g.env = s.Env
			if g.driver.prints != "" && !s.Blank {
				meta(proto.TypeLog, proto.Log{TimeUs: time.Now().UnixMicro(), Source: "function"}, []byte(g.driver.prints))
			}
			switch {
			case g.driver.initType != "":
				meta(proto.TypeInitError, proto.ErrorMeta{ErrorType: g.driver.initType}, []byte(`{"errorMessage":"not today"}`))
				send(proto.TypeRuntimeExit, proto.RuntimeExit{Reason: "with error: exit status 1"})
			case s.Restorable && !g.driver.aloof:
				send(proto.TypeRuntimeDone, proto.InvokeDone{})
				send(proto.TypeSnapshotReady, proto.SnapshotReady{Unfit: g.driver.unfit})
			default:
				send(proto.TypeInitDone, proto.InitDone{})
			}
		case proto.TypeRestore:
			var x proto.Restore
			f.Decode(&x)
			maps.Copy(g.env, x.Env)
			meta(proto.TypeLog, proto.Log{TimeUs: time.Now().UnixMicro(), Source: "function"}, []byte("after restore"))
			time.Sleep(g.driver.hang)
			if g.driver.hook != "" {
				meta(proto.TypeInitError, proto.ErrorMeta{ErrorType: g.driver.hook}, []byte(`{"errorMessage":"no"}`))
				send(proto.TypeRuntimeExit, proto.RuntimeExit{Reason: "with error: exit status 65"})
				continue
			}
			send(proto.TypeInitDone, proto.InitDone{})
		case proto.TypeInvoke:
			var inv proto.Invocation
			f.Split(&inv)
			if g.driver.panics.Add(-1) >= 0 {
				return
			}
			b, _ := json.Marshal(g.env)
			send(proto.TypeResponseStart, proto.ResponseStart{RequestID: inv.RequestID})
			out <- append(proto.AppendData(nil, proto.TypeResponseData, len(b)), b...)
			send(proto.TypeResponseEnd, proto.ResponseEnd{})
			send(proto.TypeInvokeDone, proto.InvokeDone{RequestID: inv.RequestID})
		case proto.TypeReset:
			out <- proto.AppendData(nil, proto.TypeResetDone, 0)
		case proto.TypeShutdown:
			return
		}
	}
}
