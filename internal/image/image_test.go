package image

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/image/chunk"
)

// file is an entry of a test package.
type file struct {
	name  string
	body  string
	mode  fs.FileMode
	store bool
	edit  func(*zip.FileHeader)
}

func pkg(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		if f.store {
			h.Method = zip.Store
		}
		if f.mode == 0 {
			f.mode = 0o644
		}
		h.SetMode(f.mode)
		if f.edit != nil {
			f.edit(h)
		}
		fw, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(fw, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// patch replaces old by new wherever it stands in the archive, headers included.
func patch(b []byte, old, new string) []byte {
	return bytes.ReplaceAll(b, []byte(old), []byte(new))
}

// central applies edit to every record of the central directory.
func central(b []byte, edit func(record []byte)) []byte {
	b = bytes.Clone(b)
	for i := 0; ; {
		j := bytes.Index(b[i:], []byte("PK\x01\x02"))
		if j < 0 {
			return b
		}
		edit(b[i+j:])
		i += j + 4
	}
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return reopen(t, t.TempDir())
}

// reopen opens a store that the end of the test closes.
func reopen(t testing.TB, dir string, further ...chunk.Source) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler), further...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func unpack(s *Store, b []byte) (Image, error) {
	return s.Unpack(context.Background(), bytes.NewReader(b), int64(len(b)))
}

// content opens what is in an image.
func content(t testing.TB, s *Store, digest string) fs.FS {
	t.Helper()
	tree, done, err := s.open(digest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	return tree
}

// left lists what the store holds.
func left(t testing.TB, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != formatFile && e.Name() != chunkDir {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestUnpackShowsThePackageAsLambdaDoes(t *testing.T) {
	when := time.Date(2024, 5, 6, 7, 8, 10, 0, time.UTC)
	b := pkg(t,
		file{name: "index.js", body: "exports.handler = 1", edit: func(h *zip.FileHeader) { h.Modified = when }},
		file{name: "./bin/run", body: "#!/bin/sh\n", mode: 0o700},
		file{name: "lib/", mode: fs.ModeDir | 0o700},
		file{name: "lib/a/b/c.txt", body: "deep", mode: 0o600, store: true},
		file{name: "lib/latest", body: "a/b", mode: fs.ModeSymlink | 0o777},
		file{name: "lib/a/up", body: "../nowhere", mode: fs.ModeSymlink | 0o777},
		file{name: "setuid", body: "x", mode: 0o777 | fs.ModeSetuid},
		file{name: "Index.js", body: "another file on Linux"},
	)
	s := newStore(t)
	img, err := unpack(s, b)
	if err != nil {
		t.Fatal(err)
	}
	tree := content(t, s, img.Digest)
	for name, want := range map[string]struct {
		body string
		mode fs.FileMode
	}{
		"index.js":      {"exports.handler = 1", 0o644},
		"bin/run":       {"#!/bin/sh\n", 0o755},
		"lib/a/b/c.txt": {"deep", 0o644},
		"setuid":        {"x", 0o755},
		"Index.js":      {"another file on Linux", 0o644},
	} {
		got, err := fs.ReadFile(tree, name)
		if err != nil {
			t.Fatal(err)
		}
		fi, _ := fs.Stat(tree, name)
		if string(got) != want.body || fi.Mode()&(fs.ModeType|fs.ModeSetuid|fs.ModePerm) != want.mode {
			t.Errorf("%s: %q %v, want %q %v", name, got, fi.Mode(), want.body, want.mode)
		}
	}
	for _, dir := range []string{".", "bin", "lib", "lib/a"} {
		if fi, err := fs.Stat(tree, dir); err != nil || !fi.IsDir() || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", dir, fi.Mode(), err)
		}
	}
	if got, _ := fs.ReadLink(tree, "lib/latest"); got != "a/b" {
		t.Errorf("symbolic link: %q", got)
	}
	if fi, _ := fs.Stat(tree, "index.js"); !fi.ModTime().Equal(when) {
		t.Errorf("time %v, want %v", fi.ModTime(), when)
	}
	if want := int64(len("exports.handler = 1") + len("#!/bin/sh\n") + len("deep") + len("x") + len("another file on Linux")); img.UnpackedSize != want {
		t.Errorf("unpacked size %d, want %d", img.UnpackedSize, want)
	}
	if again, err := unpack(s, b); err != nil || again != img {
		t.Errorf("second time: %+v %v", again, err)
	}
}

func TestHostilePackagesAreRefusedAndLeaveNothing(t *testing.T) {
	link := func(name, target string) file {
		return file{name: name, body: target, mode: fs.ModeSymlink | 0o777}
	}
	ok := file{name: "a.txt", body: strings.Repeat("hello ", 100)}
	flags := func(off int, v uint16) func([]byte) {
		return func(r []byte) { binary.LittleEndian.PutUint16(r[off:], v) }
	}
	size32 := func(off int, v uint32) func([]byte) {
		return func(r []byte) { binary.LittleEndian.PutUint32(r[off:], v) }
	}
	good := pkg(t, ok)
	flipped := bytes.Clone(good)
	flipped[len("a.txt")+32] ^= 0xff

	for _, c := range []struct {
		name string
		zip  []byte
		want Reason
	}{
		{"nothing", nil, ReasonNotZip},
		{"not a zip", []byte("Hello, I am not a zip archive at all"), ReasonNotZip},
		{"cut off", good[:len(good)-10], ReasonNotZip},
		{"no entries", pkg(t), ReasonEmpty},
		{"parent directory", pkg(t, file{name: "../evil"}), ReasonOutside},
		{"parent directory inside", pkg(t, file{name: "a/../../evil"}), ReasonOutside},
		{"parent directory that would stay inside", pkg(t, file{name: "a/../b"}), ReasonOutside},
		{"absolute", pkg(t, file{name: "/etc/passwd"}), ReasonOutside},
		{"backslash", pkg(t, file{name: `..\evil`}), ReasonName},
		{"NUL", pkg(t, file{name: "a\x00b"}), ReasonName},
		{"invalid UTF-8", pkg(t, file{name: "a\xff"}), ReasonName},
		{"empty name", pkg(t, file{name: "", body: "x"}), ReasonName},
		{"file named dot", pkg(t, file{name: ".", body: "x"}), ReasonName},
		{"name too long", pkg(t, file{name: strings.Repeat("x", 256)}), ReasonTooDeep},
		{"path too deep", pkg(t, file{name: strings.Repeat("x/", 101) + "y"}), ReasonTooDeep},
		{"path too long", pkg(t, file{name: strings.Repeat(strings.Repeat("x", 200)+"/", 11) + "y"}), ReasonTooDeep},
		{"same file twice", pkg(t, ok, ok), ReasonDuplicate},
		{"same file by another spelling", pkg(t, ok, file{name: "./a.txt"}), ReasonDuplicate},
		{"file over directory", pkg(t, file{name: "d/x"}, file{name: "d"}), ReasonDuplicate},
		{"directory over file", pkg(t, file{name: "d"}, file{name: "d/x"}), ReasonDuplicate},
		{"file through symbolic link", pkg(t, link("d", "e"), file{name: "e/y"}, file{name: "d/x"}), ReasonDuplicate},
		{"device", pkg(t, file{name: "null", mode: fs.ModeDevice | fs.ModeCharDevice | 0o666}), ReasonKind},
		{"named pipe", pkg(t, file{name: "pipe", mode: fs.ModeNamedPipe | 0o666}), ReasonKind},
		{"socket", pkg(t, file{name: "sock", mode: fs.ModeSocket | 0o666}), ReasonKind},
		{"absolute link", pkg(t, link("l", "/etc/passwd")), ReasonSymlink},
		{"link out", pkg(t, link("l", "../../etc/passwd")), ReasonSymlink},
		{"link out by a chain", pkg(t, link("d/up", ".."), link("d/e/up2", "../up/.."), ok), ReasonSymlink},
		{"link out through a link to the root", pkg(t, link("here", "."), link("l", "here/..")), ReasonSymlink},
		{"links in a circle", pkg(t, link("a", "b"), link("b", "a")), ReasonSymlink},
		{"link with NUL", pkg(t, link("l", "a\x00b")), ReasonSymlink},
		{"empty link", pkg(t, link("l", "")), ReasonSymlink},
		{"encrypted", central(good, flags(8, 0x1|0x8)), ReasonEncrypted},
		{"unknown method", central(good, flags(10, 99)), ReasonMethod},
		{"wrong checksum", central(pkg(t, file{name: "a", body: "abc", store: true}), size32(16, 12345)), ReasonCorrupt},
		{"broken data", flipped, ReasonCorrupt},
		{"larger than declared", central(good, size32(24, 10)), ReasonCorrupt},
		{"smaller than declared", central(good, size32(24, 5000)), ReasonCorrupt},
		{"impossible ratio", central(good, size32(24, 200_000_000)), ReasonCorrupt},
		{"directory with data", pkg(t, file{name: "d", body: "x", mode: 0o755, edit: func(h *zip.FileHeader) { h.SetMode(fs.ModeDir | 0o755) }}), ReasonCorrupt},
		{"overlapping entries", overlapping(100), ReasonOverlapping},
		{"too many entries", manyEntries(t, MaxEntries+1), ReasonEntries},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			_, err := unpack(s, c.zip)
			refused, ok := errors.AsType[*Error](err)
			if !ok || refused.Reason != c.want {
				t.Fatalf("got %v, want reason %q", err, c.want)
			}
			if n := left(t, s); len(n) != 0 {
				t.Errorf("left behind: %v", n)
			}
			if refused.Error() == "" {
				t.Error("no text")
			}
		})
	}
}

// manyEntries makes an archive of n empty entries, by hand since it is faster.
func manyEntries(t testing.TB, n int) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for i := range n {
		if _, err := w.CreateRaw(&zip.FileHeader{Name: fmt.Sprintf("%06d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return buf.Bytes()
}

// overlapping makes an archive whose n entries share one deflated megabyte.
func overlapping(n int) []byte {
	plain := make([]byte, 1<<20)
	var packed bytes.Buffer
	fw, _ := flate.NewWriter(&packed, 9)
	fw.Write(plain)
	fw.Close()
	sum := crc32.ChecksumIEEE(plain)

	le := binary.LittleEndian
	var b []byte
	b = append(b, "PK\x03\x04"...)
	b = le.AppendUint16(b, 20)
	b = append(b, 0, 0, 8, 0, 0, 0, 0, 0)
	b = le.AppendUint32(b, sum)
	b = le.AppendUint32(b, uint32(packed.Len()))
	b = le.AppendUint32(b, uint32(len(plain)))
	b = le.AppendUint16(b, 1)
	b = append(b, 0, 0, 'x')
	b = append(b, packed.Bytes()...)
	start := len(b)
	for i := range n {
		b = append(b, "PK\x01\x02"...)
		b = le.AppendUint16(b, 20)
		b = le.AppendUint16(b, 20)
		b = append(b, 0, 0, 8, 0, 0, 0, 0, 0)
		b = le.AppendUint32(b, sum)
		b = le.AppendUint32(b, uint32(packed.Len()))
		b = le.AppendUint32(b, uint32(len(plain)))
		b = le.AppendUint16(b, 4)
		b = append(b, make([]byte, 16)...)
		b = fmt.Appendf(b, "%04d", i)
	}
	dir := len(b) - start
	b = append(b, "PK\x05\x06\x00\x00\x00\x00"...)
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint32(b, uint32(dir))
	b = le.AppendUint32(b, uint32(start))
	return append(b, 0, 0)
}

func TestUnzippedSizeMustBeSmallerThanTheLimit(t *testing.T) {
	zeros := func(sizes ...int) []byte {
		var buf bytes.Buffer
		w := zip.NewWriter(&buf)
		for i, n := range sizes {
			fw, _ := w.Create(fmt.Sprint(i))
			chunk := make([]byte, 1<<20)
			for ; n > 0; n -= len(chunk) {
				fw.Write(chunk[:min(n, len(chunk))])
			}
		}
		w.Close()
		return buf.Bytes()
	}
	s := newStore(t)
	for _, sizes := range [][]int{{MaxUnpacked / 2, MaxUnpacked / 2}} {
		if _, err := unpack(s, zeros(sizes...)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v: %v, want ErrTooLarge", sizes, err)
		}
	}
	if n := left(t, s); len(n) != 0 {
		t.Errorf("left behind: %v", n)
	}
	if testing.Short() {
		return
	}
	if img, err := unpack(s, zeros(MaxUnpacked-1)); err != nil || img.UnpackedSize != MaxUnpacked-1 {
		t.Errorf("just below: %+v %v", img, err)
	}
}

func TestDirectoryOfTheArchiveIsBoundedBeforeItIsRead(t *testing.T) {
	// 20 MB of directory would take hundreds of MB as structures.
	b := manyEntries(t, 420_000)
	s := newStore(t)
	_, err := unpack(s, b)
	if refused, ok := errors.AsType[*Error](err); !ok || refused.Reason != ReasonEntries {
		t.Fatalf("got %v", err)
	}
}

func TestConcurrentUnpacksOfOnePackageShareOneImage(t *testing.T) {
	s := newStore(t)
	var files []file
	for i := range 200 {
		files = append(files, file{name: fmt.Sprintf("d%d/f%d", i%7, i), body: strings.Repeat("x", i)})
	}
	b := pkg(t, files...)
	var wg sync.WaitGroup
	images := make([]Image, 16)
	for i := range images {
		wg.Go(func() {
			img, err := unpack(s, b)
			if err != nil {
				t.Error(err)
			}
			images[i] = img
		})
	}
	wg.Wait()
	for _, img := range images {
		if img != images[0] {
			t.Fatalf("%+v differs from %+v", img, images[0])
		}
	}
	if n := left(t, s); !slices.Equal(n, []string{images[0].Digest + suffix}) {
		t.Errorf("directory holds %v", n)
	}
	if len(s.locks.held) != 0 {
		t.Errorf("locks left: %v", s.locks.held)
	}
}

func TestCancelledUnpackLeavesNothing(t *testing.T) {
	s := newStore(t)
	b := pkg(t, file{name: "a", body: "b"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Unpack(ctx, bytes.NewReader(b), int64(len(b))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := left(t, s); len(n) != 0 {
		t.Errorf("left behind: %v", n)
	}
	// A waiter gives up with its own context, the holder is not disturbed.
	unlock, err := s.locks.lock(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.locks.lock(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiter got %v", err)
	}
	unlock()
	if len(s.locks.held) != 0 {
		t.Error("lock left")
	}
}

func TestListHasAndRemove(t *testing.T) {
	s := newStore(t)
	img, err := unpack(s, pkg(t, file{name: "a", body: "b"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.List(); err != nil || !slices.Equal(got, []string{img.Digest}) {
		t.Fatalf("List: %v %v", got, err)
	}
	if !s.Has(img.Digest) || s.Has(strings.Repeat("0", 64)) || s.Has("../"+img.Digest) {
		t.Error("Has is wrong")
	}
	for range 2 {
		if err := s.Remove(t.Context(), img.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if n := left(t, s); len(n) != 0 || s.Has(img.Digest) {
		t.Errorf("left behind: %v", n)
	}
	if err := s.Remove(t.Context(), ".."); err == nil {
		t.Error("removed something that is no image")
	}
}

func TestOpenSweepsWhatACrashLeft(t *testing.T) {
	s := newStore(t)
	img, err := unpack(s, pkg(t, file{name: "a", body: "b"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, tempPrefix+"123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.dir)
	if n := left(t, s); !slices.Equal(n, []string{img.Digest + suffix}) {
		t.Errorf("directory holds %v", n)
	}
}

func TestOpenDropsDirectoriesFromBeforeImagesAndRefusesANewerFormat(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, strings.Repeat("a", 64))
	if err := os.MkdirAll(filepath.Join(old, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	reopen(t, dir)
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "999") {
		t.Errorf("a newer format: %v", err)
	}
}

func TestSpoolKeepsNoNameAndItsLimit(t *testing.T) {
	s := newStore(t)
	f, size, err := s.Spool(t.Context(), strings.NewReader("12345"), 5)
	if err != nil || size != 5 {
		t.Fatalf("%d %v", size, err)
	}
	defer f.Close()
	if n := left(t, s); len(n) != 0 {
		t.Errorf("named: %v", n)
	}
	if _, _, err := s.Spool(t.Context(), strings.NewReader("123456"), 5); !errors.Is(err, ErrPackageTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pkg(f, file{name: "a", body: "hello"}, file{name: "d/l", body: "../a", mode: fs.ModeSymlink | 0o777}))
	f.Add(pkg(f, file{name: "x/", mode: fs.ModeDir | 0o755}, file{name: "x/y", body: strings.Repeat("z", 500), store: true}))
	f.Add(patch(pkg(f, file{name: "aa/b", body: "x"}), "aa/b", "../b"))
	f.Add(pkg(f, file{name: "l", body: "d/../..", mode: fs.ModeSymlink | 0o777}, file{name: "d", body: ".", mode: fs.ModeSymlink | 0o777}))
	f.Add(overlapping(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		outer := t.TempDir()
		s := reopen(t, filepath.Join(outer, "images"))
		img, err := unpack(s, b)
		if err != nil {
			_, refused := errors.AsType[*Error](err)
			if !refused && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("a package cannot be a fault of the host: %v", err)
			}
			if n := left(t, s); len(n) != 0 {
				t.Fatalf("left behind: %v", n)
			}
			return
		}
		if entries, _ := os.ReadDir(outer); len(entries) != 1 {
			t.Fatalf("wrote outside: %v", entries)
		}
		var size int64
		tree := content(t, s, img.Digest)
		err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			switch {
			case d.Type() == fs.ModeSymlink:
				if target, err := fs.ReadLink(tree, p); err != nil || leavesAtOnce(p, target) {
					return fmt.Errorf("%s leads to %s: %v", p, target, err)
				}
			case fi.Mode().IsRegular():
				size += fi.Size()
			case !fi.IsDir():
				return fmt.Errorf("%s is %v", p, fi.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if size != img.UnpackedSize {
			t.Fatalf("unpacked %d bytes, says %d", size, img.UnpackedSize)
		}
	})
}

// leavesAtOnce tells whether a link's target is outside, where no other link is
// on the way.
func leavesAtOnce(link, target string) bool {
	to := path.Join(path.Dir(link), target)
	return path.IsAbs(target) || !strings.Contains(target, "/") && (to == ".." || strings.HasPrefix(to, "../"))
}

// BenchmarkUnpackSmall unpacks a package of three files.
func BenchmarkUnpackSmall(b *testing.B) {
	s := newStore(b)
	for i := 0; b.Loop(); i++ {
		p := pkg(b, file{name: "index.mjs", body: fmt.Sprint("// ", i)}, file{name: "lib/a.js", body: "a"}, file{name: "package.json", body: "{}"})
		if _, err := unpack(s, p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnpack unpacks a package like a large node_modules: 8,000 files and
// about 50 MB packed.
func BenchmarkUnpack(b *testing.B) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	noise := make([]byte, 6<<10)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	text := []byte(strings.Repeat("module.exports = function (a, b) { return a + b }\n", 300))
	for i := range 8000 {
		fw, err := w.Create(fmt.Sprintf("node_modules/package-%d/lib/file-%d.js", i/20, i))
		if err != nil {
			b.Fatal(err)
		}
		noise[0], noise[1] = byte(i), byte(i>>8)
		fw.Write(noise)
		fw.Write(text)
	}
	w.Close()
	b.SetBytes(int64(buf.Len()))
	for b.Loop() {
		s := reopen(b, b.TempDir())
		if _, err := unpack(s, buf.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
