package image

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// show lists what is in an image, one line an entry, in order.
func show(t testing.TB, s *Store, digest string) []string {
	t.Helper()
	tree := content(t, s, digest)
	var lines []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		line := name
		switch {
		case d.IsDir():
			line += "/"
		case d.Type() == fs.ModeSymlink:
			to, err := fs.ReadLink(tree, name)
			if err != nil {
				return err
			}
			line += " -> " + to
		default:
			b, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			line += " " + info.Mode().String() + " " + string(b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func digests(t testing.TB, s *Store, packages ...[]byte) (list []string) {
	t.Helper()
	for _, b := range packages {
		img, err := unpack(s, b)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, img.Digest)
	}
	return list
}

func TestMergeLaysLaterImagesOverEarlierOnes(t *testing.T) {
	dir := file{name: "d/", mode: fs.ModeDir | 0o755}
	for name, tt := range map[string]struct {
		images [][]byte
		want   []string
	}{
		"directories are joined, later files count": {[][]byte{
			pkg(t, file{name: "bin/a", body: "1", mode: 0o755}, file{name: "bin/b", body: "1"}, file{name: "one", body: "1"}),
			pkg(t, file{name: "bin/b", body: "2", mode: 0o755}, file{name: "lib/c", body: "2"}),
			pkg(t, file{name: "lib/c", body: "3"}),
		}, []string{"bin/", "bin/a -rwxr-xr-x 1", "bin/b -rwxr-xr-x 2", "lib/", "lib/c -rw-r--r-- 3", "one -rw-r--r-- 1"}},
		"a file over a directory": {[][]byte{
			pkg(t, file{name: "d/x/y", body: "1"}, file{name: "d-e", body: "1"}),
			pkg(t, file{name: "d", body: "2"}),
		}, []string{"d -rw-r--r-- 2", "d-e -rw-r--r-- 1"}},
		"a directory over a file": {[][]byte{
			pkg(t, file{name: "d", body: "1"}), pkg(t, dir, file{name: "d/x", body: "2"}),
		}, []string{"d/", "d/x -rw-r--r-- 2"}},
		"nothing is written through a symbolic link": {[][]byte{
			pkg(t, file{name: "a/x", body: "1"}, file{name: "d", body: "a", mode: fs.ModeSymlink | 0o777}),
			pkg(t, file{name: "d/x", body: "2"}),
		}, []string{"a/", "a/x -rw-r--r-- 1", "d/", "d/x -rw-r--r-- 2"}},
		"a symbolic link over a directory": {[][]byte{
			pkg(t, file{name: "d/x", body: "1"}),
			pkg(t, file{name: "d", body: "nowhere", mode: fs.ModeSymlink | 0o777}),
		}, []string{"d -> nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			list := digests(t, s, tt.images...)
			for range 2 {
				if err := s.Merge(t.Context(), list); err != nil {
					t.Fatal(err)
				}
			}
			merged := MergedDigest(list)
			if got := show(t, s, merged); !slices.Equal(got, tt.want) {
				t.Errorf("merged:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			// Each image stays what it is, and the merged one outlives them.
			again := digests(t, s, tt.images...)
			if !slices.Equal(again, list) {
				t.Errorf("images %v, were %v", again, list)
			}
			for _, d := range list {
				if err := s.Remove(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
			if got := show(t, s, merged); !slices.Equal(got, tt.want) {
				t.Errorf("after the removal of its parts: %v", got)
			}
		})
	}
}

func TestOrderNamesAMergedImageAndOneImageNeedsNone(t *testing.T) {
	s := newStore(t)
	list := digests(t, s, pkg(t, file{name: "a", body: "1"}), pkg(t, file{name: "a", body: "2"}))
	back := []string{list[1], list[0]}
	if MergedDigest(list) == MergedDigest(back) {
		t.Error("the order does not count")
	}
	if MergedDigest(nil) != "" || MergedDigest(list[:1]) != list[0] {
		t.Error("none or one image get a name of their own")
	}
	for _, l := range [][]string{nil, list[:1]} {
		if err := s.Merge(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if got := left(t, s); len(got) != 2 {
		t.Errorf("made %v", got)
	}
}

func TestMergeThatFailsLeavesNothing(t *testing.T) {
	s := newStore(t)
	list := digests(t, s, pkg(t, file{name: "a", body: "1"}))
	missing := append(list, strings.Repeat("0", 64))
	if err := s.Merge(t.Context(), missing); err == nil {
		t.Error("merged an image that is not there")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	two := append(list, digests(t, s, pkg(t, file{name: "b", body: "1"}))...)
	if err := s.Merge(ctx, two); err == nil {
		t.Error("merged although cancelled")
	}
	if got := left(t, s); len(got) != 2 || s.Has(MergedDigest(two)) {
		t.Errorf("left behind: %v", got)
	}
}
