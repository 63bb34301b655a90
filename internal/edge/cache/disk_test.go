package cache

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

const large = 5<<20 + 12345

// bodyOf returns bytes that belong to a name alone.
func bodyOf(name string, n int) []byte {
	var seed [32]byte
	copy(seed[:], name)
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// reopen closes a store as a crash would find it, without waiting for anything
// but what is written, and opens it again.
func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := Open(s.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func openOnDisk(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Memory == 0 {
		o.Memory = 16 << 20
	}
	if o.Disk == 0 {
		o.Disk = 1 << 30
	}
	o.Logger = slog.New(slog.DiscardHandler)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func files(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestObjectsOutliveARestart(t *testing.T) {
	s := openOnDisk(t, Options{})
	sizes := map[string]int{"/empty": 0, "/small": 1000, "/block": blockSize, "/edge": maxInMemory, "/over": maxInMemory + 1, "/large": large}
	for path, n := range sizes {
		h := head(path)
		h.Header = map[string][]string{"Content-Type": {"text/plain"}, "X-A": {"1", "2"}}
		store(t, s, key(path), h, string(bodyOf(path, n)))
	}
	for range 2 {
		s = reopen(t, s)
		for path, n := range sizes {
			o, ok := s.Get(key(path))
			if !ok {
				t.Errorf("%s is gone", path)
				continue
			}
			if got := content(t, o); got != string(bodyOf(path, n)) || o.Head.Length != int64(n) {
				t.Errorf("%s has another body: %d bytes", path, len(got))
			}
			if o.Head.Header.Get("Content-Type") != "text/plain" || len(o.Head.Header["X-A"]) != 2 || o.Head.Path != path || !o.Head.Lifetime.Store {
				t.Errorf("%s has another head: %+v", path, o.Head)
			}
			o.Release()
		}
	}
}

func TestRangesOfALargeObjectAreReadFromItsFile(t *testing.T) {
	s := openOnDisk(t, Options{})
	body := bodyOf("a", large)
	store(t, s, key("a"), head("/a"), string(body))
	s = reopen(t, s)
	o, ok := s.Get(key("a"))
	if !ok {
		t.Fatal("gone")
	}
	defer o.Release()
	if o.Bytes() != nil {
		t.Error("a large object is in memory")
	}
	for _, r := range [][2]int64{{0, 1}, {blockSize - 1, 2}, {large - 1, 1}, {large - 10, 100}, {1000, -1}} {
		want := body[r[0]:]
		if r[1] >= 0 {
			want = want[:min(int64(len(want)), r[1])]
		}
		b := o.Body(t.Context(), r[0], r[1])
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %d bytes, %v", r, len(got), err)
		}
		b.Close()
		b = o.Body(t.Context(), r[0], r[1])
		var got []byte
		for {
			f, off, n, err := b.Section()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			part := make([]byte, n)
			if _, err := f.ReadAt(part, off); err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v by sections: %d bytes", r, len(got))
		}
		b.Close()
	}
}

// damage changes a file in one of several ways.
func damage(t *testing.T, path string, how int) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	what := ""
	switch how {
	case 0:
		b, what = nil, "emptied"
	case 1:
		b, what = b[:len(b)/2], "cut in half"
	case 2:
		b, what = b[:len(b)-1], "cut by a byte"
	case 3:
		b, what = append(b, 0), "a byte longer"
	case 4:
		clear(b)
		what = "zeroed"
	default:
		i := rand.IntN(len(b))
		b[i] ^= 1 << rand.IntN(8)
		what = fmt.Sprintf("with a bit of byte %d of %d flipped", i, len(b))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

func TestDamagedFileIsNeverServed(t *testing.T) {
	for _, n := range []int{0, 3000, maxInMemory + 1, 3 << 20} {
		for how := range 20 {
			s := openOnDisk(t, Options{})
			body := bodyOf("a", n)
			store(t, s, key("a"), head("/a"), string(body))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			what := damage(t, files(t, filepath.Join(s.options.Dir, "objects"))[0], how)
			s, err := Open(s.options)
			if err != nil {
				t.Fatal(err)
			}
			if o, ok := s.Get(key("a")); ok {
				b := o.Body(t.Context(), 0, -1)
				got, err := io.ReadAll(b)
				if !bytes.HasPrefix(body, got) {
					t.Errorf("%d bytes, %s: a changed byte was served", n, what)
				} else if err == nil && (len(got) != n || n <= 4*blockSize) {
					t.Errorf("%d bytes, %s: %d bytes were served as whole", n, what, len(got))
				} else if err == nil {
					t.Errorf("%d bytes, %s: nobody noticed", n, what)
				}
				b.Close()
				o.Release()
				if _, ok := s.Get(key("a")); ok {
					t.Errorf("%d bytes, %s: it is still there", n, what)
				}
			}
			s.Close()
		}
	}
}

func TestFileDamagedWhileItIsInUseIsNotServed(t *testing.T) {
	s := openOnDisk(t, Options{})
	defer s.Close()
	body := bodyOf("a", large)
	store(t, s, key("a"), head("/a"), string(body))
	s.disk.settle()
	path := files(t, filepath.Join(s.options.Dir, "objects"))[0]
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{body[4<<20] + 1}, 4<<20); err != nil {
		t.Fatal(err)
	}
	o, ok := s.Get(key("a"))
	if !ok {
		return
	}
	defer o.Release()
	got, err := io.ReadAll(o.Body(t.Context(), 0, -1))
	if err == nil || !bytes.HasPrefix(body, got) {
		t.Errorf("%d bytes were served, %v", len(got), err)
	}
}

func TestTiersStayWithinTheirBounds(t *testing.T) {
	s := openOnDisk(t, Options{Memory: 1 << 20, Disk: 4 << 20})
	defer s.Close()
	var g sync.WaitGroup
	for w := range 4 {
		g.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("/%d/%d", w, i)
				n := 1000 + rand.IntN(60_000)
				if i%50 == 0 {
					n = 2 << 20
				}
				f, _ := s.Fill(key(name), 0)
				f.Begin(head(name))
				f.Write(bodyOf(name, n))
				f.Commit()
				f.Leave()
				if o, ok := s.Get(key(fmt.Sprintf("/%d/%d", w, rand.IntN(i+1)))); ok {
					o.Release()
				}
			}
		})
	}
	g.Wait()
	s.disk.settle()
	st := s.Stats()
	if st.MemoryBytes > 1<<20 || st.DiskBytes > 4<<20 {
		t.Errorf("%+v", st)
	}
	var used int64
	for _, path := range files(t, s.options.Dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		used += info.Size()
	}
	if used > 4<<20+8192 {
		t.Errorf("%d bytes on disk", used)
	}
	if st.DiskBytes < 1<<20 {
		t.Errorf("only %d bytes are used", st.DiskBytes)
	}
}

func TestRefreshChangesTheHeadAndKeepsTheBody(t *testing.T) {
	for _, n := range []int{1000, large} {
		s := openOnDisk(t, Options{})
		body := bodyOf("a", n)
		store(t, s, key("a"), head("/a"), string(body))
		o, _ := s.Get(key("a"))
		for _, v := range []string{"2", strings.Repeat("long", 1000), "3"} {
			h := *o.Head
			h.Header = map[string][]string{"X-Version": {v}}
			h.Lifetime.TTL = 2 * time.Hour
			fresh := refresh(s, key("a"), o, h)
			o.Release()
			if content(t, fresh) != string(body) {
				t.Fatal("the refreshed object has another body")
			}
			o = fresh
		}
		o.Release()
		s = reopen(t, s)
		o, ok := s.Get(key("a"))
		if !ok || content(t, o) != string(body) || o.Head.Header["X-Version"][0] != "3" || o.Head.Lifetime.TTL != 2*time.Hour {
			t.Fatalf("of %d bytes: found %v", n, ok)
		}
		o.Release()
	}
}

func TestInvalidationsHoldAfterARestart(t *testing.T) {
	s := openOnDisk(t, Options{})
	store(t, s, key("a"), head("/a"), "a")
	store(t, s, key("b"), head("/b"), "b")
	inv := distribution.Invalidation{ID: "I1", Distribution: "E1", Paths: []string{"/a"}}
	if err := s.Invalidate(inv); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, ok := s.Get(key("a")); ok {
		t.Error("the invalidated object is back")
	}
	if _, ok := s.Get(key("b")); !ok {
		t.Error("another object is gone")
	}
	store(t, s, key("a"), head("/a"), "new")
	if err := s.Invalidate(inv); err != nil { // as the records tell again
		t.Fatal(err)
	}
	if _, ok := s.Get(key("a")); !ok {
		t.Error("an invalidation that was told before has hit a later object")
	}
}

func TestLostInvalidationsMakeTheCacheEmpty(t *testing.T) {
	for _, content := range []string{"", "{", "{}"} {
		s := openOnDisk(t, Options{})
		store(t, s, key("a"), head("/a"), "a")
		s.Close()
		if err := os.WriteFile(filepath.Join(s.options.Dir, "invalidations.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(s.options)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Get(key("a")); ok {
			t.Errorf("with %q an object is there", content)
		}
		s.Close()
	}
}

func TestManyInvalidationsAreForgottenOnceObjectsWereLookedThrough(t *testing.T) {
	s := openOnDisk(t, Options{})
	store(t, s, key("a"), head("/p/1"), "a")
	store(t, s, key("b"), head("/b"), "b")
	f, _ := s.Fill(key("c"), 0)
	var all []string
	for i := range maxPaths + 1 {
		all = append(all, fmt.Sprintf("/p/%d", i))
	}
	if err := s.Invalidate(distribution.Invalidation{ID: "I1", Distribution: "E1", Paths: all}); err != nil {
		t.Fatal(err)
	}
	s.work.Wait()
	if n := s.epochs.count(); n != 0 {
		t.Errorf("%d paths are kept", n)
	}
	f.Begin(head("/p/2"))
	f.Commit()
	f.Leave()
	for name, want := range map[string]bool{"a": false, "b": true, "c": false} {
		if _, ok := s.Get(key(name)); ok != want {
			t.Errorf("%s: found %v", name, ok)
		}
	}
	s.Close()
}

// settle waits until what waits now is written.
func (d *disk) settle() {
	var g sync.WaitGroup
	for i := range d.work {
		g.Add(1)
		d.work[i] <- g.Done
	}
	g.Wait()
	d.loaded.Wait()
}
