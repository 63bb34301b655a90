package chunk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAFileOfAnySizeWithHolesComesBack(t *testing.T) {
	for _, size := range []int64{1, Size - 1, Size, Size + 1, 5*Size + 100} {
		s := newStore(t)
		w := NewWriter(s)
		want := make([]byte, size)
		// Rising offsets with holes, then the start.
		for off := int64(10); off < size; off += Size + 999 {
			copy(want[off:], "text")
			if _, err := w.WriteAt(want[off:min(off+4, size)], off); err != nil {
				t.Fatal(err)
			}
		}
		copy(want, "start")
		want[size-1] = 'e'
		if _, err := w.WriteAt(want[size-1:], size-1); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(want[:min(5, size)], 0); err != nil {
			t.Fatal(err)
		}
		m, stored, err := w.Close()
		if err != nil || m.Size != size || stored == 0 {
			t.Fatalf("%d bytes: %+v %d %v", size, m, stored, err)
		}
		if m, err = DecodeManifest(m.Encode()); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if n, err := NewReader(s).File(m).Read(t.Context(), got, 0); err != nil || n != int(size) || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: read %d, %v", size, n, err)
		}
		if err := s.Release(m); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.dir, "*", "*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestWritesOutOfOrderAreRefused(t *testing.T) {
	w := NewWriter(newStore(t))
	if _, err := w.WriteAt([]byte("x"), 5*Size); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("x"), 2*Size); err == nil {
		t.Error("went back")
	}
	if _, err := w.WriteAt([]byte("x"), maxFile); err == nil {
		t.Error("went too far")
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
}

func TestZerosTakeNoRoomAndTextTakesLittle(t *testing.T) {
	s := newStore(t)
	if d, n, err := s.Put(make([]byte, Size)); d != (Digest{}) || n != 0 || err != nil {
		t.Errorf("zeros: %s %d %v", d, n, err)
	}
	text := []byte(strings.Repeat("a line of text\n", 10_000))
	d, n, err := s.Put(text)
	if err != nil || n > int64(len(text)/10) {
		t.Errorf("text takes %d bytes, %v", n, err)
	}
	if _, n, err := s.Put(text); n != 0 || err != nil {
		t.Errorf("again it takes %d bytes, %v", n, err)
	}
	// Put twice, it is there until it is released twice.
	m := &Manifest{Size: int64(len(text)), Chunks: []Digest{d}}
	if err := s.Release(m); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Fetch(t.Context(), d); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := s.Release(m); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), d); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

func TestADamagedChunkIsFoundOutAndDeleted(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"other content": func(b []byte) []byte { return append([]byte(header), append([]byte{plain}, b...)...) },
		"other version": func(b []byte) []byte { b[3] = 9; return b },
		"other kind":    func(b []byte) []byte { b[4] = 9; return b },
		"cut off":       func(b []byte) []byte { return b[:len(b)-3] },
		"empty":         func([]byte) []byte { return nil },
		"too long":      func(b []byte) []byte { return append(b, make([]byte, 3*Size)...) },
	} {
		s := newStore(t)
		d, _, err := s.Put([]byte(strings.Repeat("content", 1000)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(s.path(d))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path(d), damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context(), d); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Fetch(t.Context(), d); !errors.Is(err, ErrMissing) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(header + "\x00plain"))
	f.Add(append([]byte(header+"\x01"), encoder().EncodeAll([]byte("compressed"), nil)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := decode(b); err == nil && len(got) > Size {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add((&Manifest{Size: Size + 1, Chunks: []Digest{Sum([]byte("a")), {}}}).Encode())
	f.Add([]byte(manifestHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err == nil && !bytes.Equal(m.Encode(), b) {
			t.Error("encoded again, it differs")
		}
	})
}

func TestChunksOfADamagedImageAreWrittenAnew(t *testing.T) {
	s := newStore(t)
	content := []byte(strings.Repeat("lapwing ", 1000))
	d, _, err := s.Put(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(d), []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := os.Open(s.path(d)) // by who is about to find it damaged
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	old := &Manifest{Size: int64(len(content)), Chunks: []Digest{d}}
	s.Distrust(old)
	if _, stored, err := s.Put(content); err != nil || stored == 0 {
		t.Fatalf("%d bytes stored, %v", stored, err)
	}
	if err := errors.Join(s.removeFile(d, read), s.Release(old)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Fetch(t.Context(), d); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, stored, err := s.Put(content); err != nil || stored != 0 {
		t.Errorf("put once more: %d bytes stored, %v", stored, err)
	}
}
