package gvisor

import (
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/sandbox"
)

// hostEvents takes what a guest says and forgets it.
type hostEvents struct{ host.Handler }

// newServed returns a sandbox with a guest, and the connection to that.
func newServed(t *testing.T) (sandbox.Sandbox, *host.Conn) {
	t.Helper()
	d := newDriver(t, func(o *Options) { o.InitPath = "" })
	s, err := d.Create(t.Context(), testSpec())
	if err != nil {
		t.Fatal(err)
	}
	conn := host.New(s.Conn(), hostEvents{})
	t.Cleanup(func() { conn.Close() })
	return s, conn
}

func TestGuestServesTheHostConnection(t *testing.T) {
	_, conn := newServed(t)
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
	s, conn := newServed(t)
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
	s, _ := newServed(t)
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
