package gvisor

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

// takeSnapshot makes a snapshot of g and returns it, open for reading.
func takeSnapshot(tb testing.TB, g *guest) sandbox.Snapshot {
	tb.Helper()
	dir := tb.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		return f
	}
	snap := sandbox.Snapshot{State: open("state"), Memory: open("memory")}
	if err := g.Snapshot(tb.Context(), snap); err != nil {
		tb.Fatal(err)
	}
	return snap
}

// restore makes a sandbox from a snapshot.
func restore(tb testing.TB, d *Driver, snap sandbox.Snapshot, change ...func(*sandbox.Spec)) *guest {
	tb.Helper()
	s, err := d.Restore(tb.Context(), testSpec(change...), snap)
	if err != nil {
		tb.Fatal(err)
	}
	return &guest{tb, s, bufio.NewReader(s.Conn())}
}

func TestSnapshotRestore(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("hostname", "", 0)
	t0 := time.Now()
	snap := takeSnapshot(t, g)
	t.Log("snapshot", time.Since(t0))
	st, _ := snap.State.Stat()
	t.Log("state bytes", st.Size())
	for range 5 {
		t0 = time.Now()
		r := restore(t, d, snap)
		t.Log("restore", time.Since(t0))
		t.Log(r.must("hostname", "", 0))
		t.Log("answer", time.Since(t0))
		b := make([]byte, 65536)
		n, _ := r.Sandbox.(*instance).stderr.ReadAt(b, 0)
		t.Logf("%s", b[:n])
	}
}
