package sentry

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"gvisor.dev/gvisor/pkg/memutil"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// No collector runs while a clone is loaded, and what is garbage then stays for its life.
func TestCopyingAheadLeavesTheGarbageOfOnePart(t *testing.T) {
	const parts, size = 64, copyBuffer
	content := bytes.Repeat([]byte("lent"), parts*size/4)
	snapshot := openTemp(t)
	if _, err := snapshot.Write(content); err != nil {
		t.Fatal(err)
	}
	from, err := openMemory(int(snapshot.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := memutil.CreateMemFD("memory", 0)
	if err != nil {
		t.Fatal(err)
	}
	to, err := pgalloc.NewMemoryFile(os.NewFile(uintptr(fd), "memory"), pgalloc.MemoryFileOpts{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Destroy()
	var f footprint
	for i := range uint64(parts) {
		f = append(f, touch{Kind: touchCopy, Start: i * size, End: (i + 1) * size})
	}

	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	copied, err := f.copyAhead(from, to)()
	runtime.ReadMemStats(&after)
	if err != nil || copied != parts*size {
		t.Fatalf("copied %d bytes: %v", copied, err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2*copyBuffer {
		t.Errorf("copying %d parts allocated %d KiB", parts, grown>>10)
	}
	got := make([]byte, len(content))
	if _, err := to.File().ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("what was copied differs: %v", err)
	}
}

func openTemp(t *testing.T) *os.File {
	f, err := os.CreateTemp(t.TempDir(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
