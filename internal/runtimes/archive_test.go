package runtimes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// tarOf makes a tar archive.
func tarOf(t testing.TB, members ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		body := h.Uname // where the tests put it
		h.Uname = ""
		h.Size = int64(len(body))
		if h.Typeflag != 0 && h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func all(name string) string { return name }

func unpackTo(dir string, data []byte, choose func(string) string) error {
	u, err := newUnpacker(dir)
	if err != nil {
		return err
	}
	defer u.close()
	return u.tar(bytes.NewReader(data), choose)
}

func TestUnpackKeepsWhatIsInside(t *testing.T) {
	dir := t.TempDir()
	err := unpackTo(dir, tarOf(t,
		tar.Header{Name: "./usr/", Typeflag: tar.TypeDir, Mode: 0o777},
		tar.Header{Name: "./usr/bin/tool", Mode: 0o4755, Uname: "program"},
		tar.Header{Name: "usr/share/text", Mode: 0o600, Uname: "words"},
		tar.Header{Name: "usr/bin/link", Typeflag: tar.TypeSymlink, Linkname: "/bin/tool"},
		tar.Header{Name: "usr/bin/same", Typeflag: tar.TypeLink, Linkname: "./usr/bin/tool"},
		tar.Header{Name: "usr/left/out", Uname: "x"},
	), func(name string) string {
		if strings.HasPrefix(name, "usr/left") {
			return ""
		}
		return name
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"usr/bin/tool": 0o755, "usr/share/text": 0o644, "usr/bin/same": 0o755} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want mode %v", name, info, err, mode)
		}
	}
	if dest, err := os.Readlink(filepath.Join(dir, "usr/bin/link")); err != nil || dest != "/bin/tool" {
		t.Errorf("link: %q, %v", dest, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/left")); err == nil {
		t.Error("usr/left was unpacked")
	}
}

func TestUnpackRefusesHostileArchives(t *testing.T) {
	tests := map[string][]tar.Header{
		"absolute":                {{Name: "/etc/passwd", Uname: "x"}},
		"parent":                  {{Name: "../escape", Uname: "x"}},
		"parent within":           {{Name: "a/../../escape", Uname: "x"}},
		"through a link":          {{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "out/escape", Uname: "x"}},
		"through an absolute one": {{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "out/escape", Uname: "x"}},
		"onto a link":             {{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../escape"}, {Name: "out", Uname: "x"}},
		"hard link out":           {{Name: "out", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}},
		"device":                  {{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"fifo":                    {{Name: "fifo", Typeflag: tar.TypeFifo}},
		"twice":                   {{Name: "a", Uname: "x"}, {Name: "a", Uname: "y"}},
	}
	for name, members := range tests {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "dir")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unpackTo(dir, tarOf(t, members...), all); err == nil {
				t.Error("no error")
			}
			if entries, _ := os.ReadDir(parent); len(entries) != 1 {
				t.Errorf("something was written outside: %v", entries)
			}
		})
	}
}

func TestUnpackStopsAtItsLimits(t *testing.T) {
	u, err := newUnpacker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	u.bytes, u.files = 10, 2
	if err := u.tar(bytes.NewReader(tarOf(t, tar.Header{Name: "a", Uname: "12345678901"})), all); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many bytes: %v", err)
	}
	if err := u.tar(bytes.NewReader(tarOf(t, tar.Header{Name: "b"}, tar.Header{Name: "c"}, tar.Header{Name: "d"})), all); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many files: %v", err)
	}
}

// debOf makes a Debian package around a data archive.
func debOf(name string, data []byte) []byte {
	var b bytes.Buffer
	b.WriteString(arMagic)
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", []byte("odd")}, {name, data}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// pack compresses data by the suffix of a name.
func pack(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch filepath.Ext(name) {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackDebReadsEveryCompression(t *testing.T) {
	data := tarOf(t,
		tar.Header{Name: "./usr/lib/x.so", Uname: "library"},
		tar.Header{Name: "./usr/share/man/x.1", Uname: "manual"},
		tar.Header{Name: "./etc/x.conf", Uname: "configuration"})
	for _, name := range []string{"data.tar", "data.tar.gz", "data.tar.xz", "data.tar.zst"} {
		dir := t.TempDir()
		if err := unpackDeb(bytes.NewReader(debOf(name, pack(t, name, data))), dir); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, "usr/lib/x.so")); string(got) != "library" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for _, not := range []string{"etc", "usr/share"} {
			if _, err := os.Stat(filepath.Join(dir, not)); err == nil {
				t.Errorf("%s: %s was unpacked", name, not)
			}
		}
	}
}

func TestUnpackDebRefusesDamagedPackages(t *testing.T) {
	good := debOf("data.tar", tarOf(t, tar.Header{Name: "usr/lib/x", Uname: "x"}))
	for name, data := range map[string][]byte{
		"empty":           {},
		"no ar archive":   []byte("PK\x03\x04 and so on"),
		"no data":         good[:len(arMagic)],
		"truncated":       good[:len(good)-700],
		"header mark":     bytes.Replace(good, []byte("`\n"), []byte("xx"), 1),
		"size":            bytes.Replace(good, []byte("4         `"), []byte("-1        `"), 1),
		"unknown packing": debOf("data.tar.lzma", nil),
		"no such packing": debOf("data.tar.xz", []byte("this is no xz stream")),
	} {
		if err := unpackDeb(bytes.NewReader(data), t.TempDir()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzUnpackDeb(f *testing.F) {
	data := tarOf(f, tar.Header{Name: "usr/lib/x", Uname: "x"}, tar.Header{Name: "usr/lib/l", Typeflag: tar.TypeSymlink, Linkname: "../../.."})
	for _, name := range []string{"data.tar", "data.tar.gz", "data.tar.xz", "data.tar.zst"} {
		f.Add(debOf(name, pack(f, name, data)))
	}
	f.Fuzz(func(t *testing.T, deb []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "dir")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		unpackDeb(bytes.NewReader(deb), dir) // whatever it says
		if entries, _ := os.ReadDir(parent); len(entries) != 1 {
			t.Errorf("something was written outside: %v", entries)
		}
	})
}

func FuzzReadPackages(f *testing.F) {
	f.Add("Package: a\nVersion: 1\nSize: 3\nFilename: pool/a.deb\nSHA256: " + strings.Repeat("0a", 32) + "\n\nPackage: b\n")
	f.Fuzz(func(t *testing.T, index string) {
		readPackages(strings.NewReader(index), func(p debPackage, name string) {
			if name == "" || !filepath.IsLocal(p.path) || len(p.sum) != 32 || p.size < 0 {
				t.Errorf("package %q: %+v", name, p)
			}
		})
	})
}

func FuzzCompareDebVersions(f *testing.F) {
	f.Add("1:2.3~rc1-4+deb13u1", "1:2.3-4")
	f.Fuzz(func(t *testing.T, a, b string) {
		if x, y := compareDebVersions(a, b), compareDebVersions(b, a); (x > 0) != (y < 0) || (x == 0) != (y == 0) {
			t.Errorf("%q against %q: %d, the other way %d", a, b, x, y)
		}
	})
}

func TestCompareDebVersions(t *testing.T) {
	ascending := []string{"0.9", "1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-1", "1.0-1+b1", "1.0-1+deb13u1", "1.0-1+deb13u10", "1.0.1", "1.2a", "1.2b", "1.10", "1:0.1"}
	for i := range ascending {
		for j := range ascending {
			got := compareDebVersions(ascending[i], ascending[j])
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("compare(%q, %q) = %d", ascending[i], ascending[j], got)
			}
		}
	}
}
