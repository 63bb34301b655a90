package lazy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is a file in memory that counts reads and may fail.
type memory struct {
	data  []byte
	reads atomic.Int64
	fail  atomic.Bool
}

func (m *memory) Length() int64 { return int64(len(m.data)) }

func (m *memory) Read(_ context.Context, b []byte, off int64) (int, error) {
	m.reads.Add(1)
	if m.fail.Load() {
		return 0, errors.New("not to be had")
	}
	return copy(b, m.data[min(off, int64(len(m.data))):]), nil
}

func newFiles(t *testing.T) *Files {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	f, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return f
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

func TestAFileIsReadAndMappedFromThePageCache(t *testing.T) {
	f := newFiles(t)
	m := &memory{data: pattern(3<<20 + 17)}
	f.Show("image", m)
	for range 2 {
		b, err := os.ReadFile(f.Path("image"))
		if err != nil || !bytes.Equal(b, m.data) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
	before := m.reads.Load()
	file, err := os.Open(f.Path("image"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := unix.Mmap(int(file.Fd()), 0, len(m.data), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if !bytes.Equal(b, m.data) {
		t.Error("mapped, it differs")
	}
	if after := m.reads.Load(); after != before {
		t.Errorf("%d reads for what is in the page cache", after-before)
	}
}

func TestFilesAreReadOnlyAndNothingElseIsThere(t *testing.T) {
	f := newFiles(t)
	f.Show("image", &memory{data: pattern(10)})
	if _, err := os.OpenFile(f.Path("image"), os.O_RDWR, 0); err == nil {
		t.Error("opened for writing")
	}
	if err := os.WriteFile(f.Path("new"), nil, 0o600); err == nil {
		t.Error("made a file")
	}
	if _, err := os.Stat(f.Path("other")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another name: %v", err)
	}
	st, err := os.Stat(f.Path("image"))
	if err != nil || st.Size() != 10 || !st.Mode().IsRegular() {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestWhatCannotBeReadIsAnErrorAndCanBeReadLater(t *testing.T) {
	f := newFiles(t)
	m := &memory{data: pattern(100_000)}
	m.fail.Store(true)
	f.Show("image", m)
	if _, err := os.ReadFile(f.Path("image")); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	m.fail.Store(false)
	if b, err := os.ReadFile(f.Path("image")); err != nil || !bytes.Equal(b, m.data) {
		t.Errorf("later: %v", err)
	}
}

func TestAHiddenFileStaysForThoseWhoHaveItOpen(t *testing.T) {
	f := newFiles(t)
	m := &memory{data: pattern(2 << 20)}
	f.Show("image", m)
	file, err := os.Open(f.Path("image"))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	f.Hide("image", func() { close(gone) })
	if _, err := os.Open(f.Path("image")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened a hidden file: %v", err)
	}
	if b, err := io.ReadAll(file); err != nil || !slices.Equal(b, m.data) {
		t.Errorf("the open file: %v", err)
	}
	select {
	case <-gone:
		t.Error("gone while it is open")
	default:
	}
	file.Close()
	<-gone
	again := &memory{data: []byte("another")}
	f.Show("image", again)
	if b, err := os.ReadFile(f.Path("image")); err != nil || string(b) != "another" {
		t.Errorf("shown again: %q, %v", b, err)
	}
	f.Hide("nothing", nil)
}
