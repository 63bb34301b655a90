package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/image/erofs"
)

const flatName = "00000000000000000000000000000000000000000000000000000000000000aa"

// archive makes a layer of entries like these: "dir/", "file=content",
// "link->target", "hard=>target".
func archive(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := tar.Header{Mode: 0o644}
		var content string
		if name, target, ok := strings.Cut(e, "=>"); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeLink
		} else if name, target, ok := strings.Cut(e, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeSymlink
		} else if name, body, ok := strings.Cut(e, "="); ok {
			h.Name, content, h.Typeflag = name, body, tar.TypeReg
		} else {
			h.Name, h.Typeflag, h.Mode = e, tar.TypeDir, 0o750
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layers(archives ...[]byte) (list []Layer) {
	for _, a := range archives {
		list = append(list, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a)), nil })
	}
	return list
}

// flat is what an image holds: contents and targets by path, "dir" for
// directories.
func flat(t testing.TB, s *Store) map[string]string {
	t.Helper()
	tree, done, err := s.open(flatName)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	got := map[string]string{}
	err = fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case d.IsDir():
			got[path] = "dir"
		case d.Type() == fs.ModeSymlink:
			target, err := fs.ReadLink(tree, path)
			got[path] = "->" + target
			return err
		default:
			b, err := fs.ReadFile(tree, path)
			got[path] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFlattenLaysLayersOverEachOther(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers [][]string
		want   []string
	}{
		{"none", nil, nil},
		{"a later file hides an earlier one", [][]string{{"a=1"}, {"a=2"}}, []string{"a=2"}},
		{"within a layer too", [][]string{{"a=1", "a=2"}}, []string{"a=2"}},
		{"directories are joined", [][]string{{"d/", "d/a=1"}, {"d/", "d/b=2"}}, []string{"d=dir", "d/a=1", "d/b=2"}},
		{"a file takes the place of a directory", [][]string{{"d/a=1"}, {"d=2"}}, []string{"d=2"}},
		{"a directory takes the place of a file", [][]string{{"d=1"}, {"d/"}}, []string{"d=dir"}},
		{"a whiteout removes", [][]string{{"a=1", "d/b=2"}, {".wh.a=", "d/.wh.b="}}, []string{"d=dir"}},
		{"a whiteout removes a directory", [][]string{{"d/a=1"}, {".wh.d="}}, nil},
		{"a whiteout of nothing is nothing", [][]string{{"a=1"}, {"x/y/.wh.b="}}, []string{"a=1"}},
		{"a whiteout spares its own layer", [][]string{{"a=1"}, {"a=2", ".wh.a="}}, []string{"a=2"}},
		{"an opaque directory hides what is below", [][]string{{"d/a=1", "d/e/b=2"}, {"d/c=3", "d/.wh..wh..opq="}}, []string{"d=dir", "d/c=3"}},
		{"an opaque directory spares its own layer", [][]string{{"d/e/a=1", "d/e/f=0"}, {"d/", "d/e/b=2", "d/.wh..wh..opq="}}, []string{"d=dir", "d/e=dir", "d/e/b=2"}},
		{"a hard link is another name", [][]string{{"a=1", "b=>a"}, {".wh.a="}}, []string{"b=1"}},
		{"a hard link to a lower layer", [][]string{{"a=1"}, {"b=>a"}}, []string{"a=1", "b=1"}},
		{"a symbolic link is followed on the way", [][]string{{"usr/lib/", "lib->usr/lib"}, {"lib/a=1"}}, []string{"usr=dir", "usr/lib=dir", "lib=->usr/lib", "usr/lib/a=1"}},
		{"an absolute one too", [][]string{{"run/", "var/run->/run", "var/run/a=1"}}, []string{"run=dir", "var=dir", "var/run=->/run", "run/a=1"}},
		{"links do not lead out", [][]string{{"up->../../../..", "up/a=1"}}, []string{"up=->../../../..", "a=1"}},
		{"nor do names", [][]string{{"../../a=1", "/b=2", "./c=3"}}, []string{"a=1", "b=2", "c=3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			var archives [][]byte
			for _, l := range tt.layers {
				archives = append(archives, archive(t, l...))
			}
			if err := s.Flatten(t.Context(), flatName, layers(archives...), MountPoints{}); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for _, e := range tt.want {
				path, content, _ := strings.Cut(e, "=")
				want[path] = content
			}
			if got := flat(t, s); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestFlattenMakesMountPoints(t *testing.T) {
	s := newStore(t)
	a := archive(t, "tmp->var/tmp", "etc/hosts=mine", "etc/resolv.conf->../run/resolv.conf", "proc/x=1")
	if err := s.Flatten(t.Context(), flatName, layers(a), MountPoints{Dirs: []string{"/proc", "/tmp", "/dev"}, Files: []string{"/etc/hosts", "/etc/resolv.conf", "/init"}}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"etc": "dir", "etc/hosts": "mine", "etc/resolv.conf": "", "init": "", "proc": "dir", "proc/x": "1", "tmp": "dir", "dev": "dir"}
	if got := flat(t, s); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFlattenRefusesAndLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	sparse := bytes.Clone(archive(t, "a=1"))
	copy(sparse[124:], fmt.Sprintf("%011o", int64(MaxFlattened)+1)) // its size
	copy(sparse[148:], checksum(sparse[:512]))
	for _, tt := range []struct {
		name  string
		layer Layer
		want  func(error) bool
	}{
		{"no archive", layers([]byte(strings.Repeat("x", 1024)))[0], isReason(ReasonCorrupt)},
		{"a cut archive", layers(archive(t, "a="+strings.Repeat("x", 4096))[:2048])[0], isReason(ReasonCorrupt)},
		{"a hard link to nothing", layers(archive(t, "a=>b"))[0], isReason(ReasonHardLink)},
		{"a hard link to a directory", layers(archive(t, "b/", "a=>b"))[0], isReason(ReasonHardLink)},
		{"links in circles", layers(archive(t, "a->b", "b->a", "a/c=1"))[0], isReason(ReasonSymlink)},
		{"a file below a file", layers(archive(t, "a=1", "a/b=2"))[0], isReason(ReasonDuplicate)},
		{"a name that is too long", layers(archive(t, strings.Repeat("x", 256)+"=1"))[0], isReason(ReasonTooDeep)},
		{"a file that is too large", layers(sparse)[0], func(err error) bool { return errors.Is(err, ErrTooLarge) }},
		{"a layer that cannot be opened", func(context.Context) (io.ReadCloser, error) { return nil, broken }, func(err error) bool { return errors.Is(err, broken) }},
		{"a layer that is not what it should be", func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(archive(t, "a=1")), failing{broken})), nil
		}, func(err error) bool { return errors.Is(err, broken) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := reopen(t, dir)
			good := layers(archive(t, "good=1"))
			if err := s.Flatten(t.Context(), flatName, append(good, tt.layer), MountPoints{}); !tt.want(err) {
				t.Errorf("got %v", err)
			}
			if got := append(left(t, s), chunks(t, s)...); len(got) != 0 {
				t.Errorf("%v are left", got)
			}
			if err := s.Flatten(t.Context(), flatName, good, MountPoints{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func isReason(r Reason) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*Error](err)
		return ok && e.Reason == r
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// checksum is that of a tar header.
func checksum(h []byte) string {
	sum := 0
	for i, b := range h {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	return fmt.Sprintf("%06o\x00 ", sum)
}

func FuzzFlatten(f *testing.F) {
	f.Add(archive(f, "a=1", "b->a", "c=>a", "d/"), archive(f, ".wh.a=", "d/.wh..wh..opq=", "b/e=2"))
	f.Add([]byte("x"), []byte{})
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		err := flatten(t.Context(), erofs.NewWriter(nowhere{}), layers(lower, upper), MountPoints{Dirs: []string{"/tmp"}}, 1<<20)
		_, refused := errors.AsType[*Error](err)
		if err != nil && !refused && !errors.Is(err, ErrTooLarge) {
			t.Errorf("not a refusal: %v", err)
		}
	})
}

// nowhere takes an image and forgets it.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
