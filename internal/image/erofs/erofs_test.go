package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	gvisor "gvisor.dev/gvisor/pkg/erofs"
)

// write makes an image of what fill adds.
func write(tb testing.TB, fill func(w *Writer) error) *os.File {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "image"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	w := NewWriter(f)
	if err := fill(w); err != nil {
		tb.Fatal(err)
	}
	size, err := w.Close()
	if err != nil {
		tb.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != size || size%BlockSize != 0 {
		tb.Fatalf("the file has %d bytes, Close returned %d", st.Size(), size)
	}
	return f
}

// node is an entry as gVisor reads it.
type node struct {
	Mode     uint16
	UID, GID uint32
	Links    uint32
	Mtime    uint64
	Content  string // or the target of a symbolic link
}

// read returns all that gVisor's reader finds in an image, by path.
func read(tb testing.TB, f *os.File) map[string]node {
	tb.Helper()
	own, err := os.Open(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	img, err := gvisor.OpenImage(own)
	if err != nil {
		tb.Fatal(err)
	}
	defer img.Close()
	tree := map[string]node{}
	var walk func(name string, nid, parent uint64)
	walk = func(name string, nid, parent uint64) {
		i, err := img.Inode(nid)
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		n := node{Mode: i.Mode(), UID: i.UID(), GID: i.GID(), Links: i.Nlink(), Mtime: i.Mtime()}
		switch {
		case i.IsDir():
			var names []string
			err := i.IterDirents(func(child string, typ uint8, childNid uint64) error {
				names = append(names, child)
				if got, err := i.Lookup(child); err != nil || got != childNid {
					return fmt.Errorf("lookup of %q: %d, %v", child, got, err)
				}
				switch child {
				case ".":
					parentIs(tb, name, childNid, nid)
				case "..":
					parentIs(tb, name, childNid, parent)
				default:
					walk(path.Join(name, child), childNid, nid)
				}
				return nil
			})
			if err != nil {
				tb.Fatalf("%s: %v", name, err)
			}
			if !slices.IsSorted(names) || !slices.Contains(names, ".") || !slices.Contains(names, "..") {
				tb.Fatalf("%s: names are %q", name, names)
			}
			if _, err := i.Lookup("no such name"); err == nil {
				tb.Fatalf("%s: found what is not there", name)
			}
		case i.IsSymlink():
			if n.Content, err = i.Readlink(); err != nil {
				tb.Fatalf("%s: %v", name, err)
			}
		default:
			if _, err := i.DataOffset(); err != nil {
				tb.Fatalf("%s cannot be mapped: %v", name, err)
			}
			data, err := i.Data()
			if err != nil {
				tb.Fatalf("%s: %v", name, err)
			}
			for ; !data.IsEmpty(); data = data.Tail() {
				n.Content += string(data.Head().ToSlice())
			}
		}
		tree[name] = n
	}
	walk(".", img.RootNid(), img.RootNid())
	return tree
}

func parentIs(tb testing.TB, name string, got, want uint64) {
	if got != want {
		tb.Fatalf("%s: . or .. is %d, not %d", name, got, want)
	}
}

// check has the format's own tool look at the image.
func check(tb testing.TB, f *os.File) {
	tb.Helper()
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		tb.Fatal("fsck.erofs is missing: scripts/setup test installs erofs-utils")
	}
	if out, err := exec.Command(tool, "--extract", f.Name()).CombinedOutput(); err != nil {
		tb.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
}

func TestEverythingThatWasAddedIsInTheImage(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("0123456789abcdef", 100_000)
	f := write(t, func(w *Writer) error {
		return errors.Join(
			w.Mkdir("bin", Attr{Mode: 0o711, UID: 5, GID: 70_000, Seconds: 1_700_000_000}),
			w.Create("bin/tool", Attr{Mode: 0o755 | fs.ModeSetuid, UID: 1, GID: 2, Seconds: 1_600_000_000}, 4, strings.NewReader("tool")),
			w.Create("large", Attr{Mode: 0o644}, int64(len(large)), strings.NewReader(large)),
			w.Create("empty", Attr{}, 0, nil),
			w.Create("deep/er/file", Attr{Mode: 0o600}, 1, strings.NewReader("x")),
			w.Mkdir("deep", Attr{Mode: 0o700}),
			w.Symlink("link", "bin/tool", Attr{Seconds: 7}),
			w.Symlink("far", strings.Repeat("f", MaxTarget), Attr{}),
			w.Link("bin/alias", "bin/tool"),
			w.Create("-", Attr{}, 1, strings.NewReader("-")), // sorts before "."
			w.Create(strings.Repeat("n", MaxName), Attr{}, 1, strings.NewReader("n")),
			w.Create("bytes\xff", Attr{}, 1, strings.NewReader("b")),
			w.Mkdir(".", Attr{Mode: 0o755 | fs.ModeSticky}),
		)
	})
	want := map[string]node{
		".":                          {Mode: modeDir | 0o1755, Links: 4},
		"bin":                        {modeDir | 0o711, 5, 70_000, 2, 1_700_000_000, ""},
		"bin/tool":                   {modeFile | 0o4755, 1, 2, 2, 1_600_000_000, "tool"},
		"bin/alias":                  {modeFile | 0o4755, 1, 2, 2, 1_600_000_000, "tool"},
		"large":                      {Mode: modeFile | 0o644, Links: 1, Content: large},
		"empty":                      {Mode: modeFile, Links: 1},
		"deep":                       {Mode: modeDir | 0o700, Links: 3},
		"deep/er":                    {Mode: modeDir | 0o755, Links: 2},
		"deep/er/file":               {Mode: modeFile | 0o600, Links: 1, Content: "x"},
		"link":                       {Mode: modeLink | 0o777, Links: 1, Mtime: 7, Content: "bin/tool"},
		"far":                        {Mode: modeLink | 0o777, Links: 1, Content: strings.Repeat("f", MaxTarget)},
		"-":                          {Mode: modeFile, Links: 1, Content: "-"},
		strings.Repeat("n", MaxName): {Mode: modeFile, Links: 1, Content: "n"},
		"bytes\xff":                  {Mode: modeFile, Links: 1, Content: "b"},
	}
	compare(t, read(t, f), want)
	check(t, f)
}

func compare(tb testing.TB, got, want map[string]node) {
	tb.Helper()
	for name, n := range want {
		if g, ok := got[name]; !ok || g != n {
			if len(g.Content)+len(n.Content) > 500 {
				g.Content, n.Content = fmt.Sprint(len(g.Content)), fmt.Sprint(len(n.Content))
			}
			tb.Errorf("%.40q is %+v, want %+v", name, g, n)
		}
	}
	if len(got) != len(want) {
		tb.Errorf("there are %q", slices.Sorted(maps.Keys(got)))
	}
}

// Directories of every size around those at which their layout changes.
func TestDirectoriesOfAnySizeAreListedWhole(t *testing.T) {
	t.Parallel()
	var sizes []int
	for n := 0; n < 280; n += 9 {
		sizes = append(sizes, n)
	}
	want := map[string]node{".": {Mode: modeDir | 0o755, Links: uint32(2 + len(sizes) + 1)}}
	f := write(t, func(w *Writer) error {
		for _, n := range append(sizes, 5000) {
			dir := fmt.Sprintf("d%d", n)
			if err := w.Mkdir(dir, Attr{Mode: 0o755}); err != nil {
				return err
			}
			want[dir] = node{Mode: modeDir | 0o755, Links: 2}
			for i := range n {
				name := fmt.Sprintf("%s/%x", dir, i*7919)
				want[name] = node{Mode: modeFile, Links: 1}
				if err := w.Create(name, Attr{}, 0, nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
	compare(t, read(t, f), want)
	check(t, f)
}

func TestAnImageIsAFunctionOfWhatWasAdded(t *testing.T) {
	t.Parallel()
	fill := func(w *Writer) error {
		for i := range 300 {
			content := strings.Repeat("x", i*37)
			if err := w.Create(fmt.Sprintf("%d/%d", i%7, i), Attr{Mode: 0o644}, int64(len(content)), strings.NewReader(content)); err != nil {
				return err
			}
		}
		return nil
	}
	if a, b := content(t, write(t, fill)), content(t, write(t, fill)); !bytes.Equal(a, b) {
		t.Error("two images of the same differ")
	}
}

func content(tb testing.TB, f *os.File) []byte {
	tb.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestImagesShareTheChunksOfWhatTheyShare adds a file in front of many and makes
// one of them longer: most chunks must stay the same.
func TestImagesShareTheChunksOfWhatTheyShare(t *testing.T) {
	t.Parallel()
	chunks := func(changed bool) map[string]bool {
		f := write(t, func(w *Writer) error {
			rnd := rand.New(rand.NewPCG(1, 2))
			if changed {
				if err := w.Create("a", Attr{}, 5000, strings.NewReader(strings.Repeat("a", 5000))); err != nil {
					return err
				}
			}
			for i := range 2000 {
				size := rnd.IntN(20_000)
				if i%500 == 0 {
					size += 3 * ChunkSize
				}
				b := make([]byte, size)
				for n := range b {
					b[n] = byte(rnd.Uint32())
				}
				if changed && i == 1000 {
					size += 9000
					b = append(b, make([]byte, 9000)...)
				}
				if err := w.Create(fmt.Sprintf("f/%d", i), Attr{}, int64(size), bytes.NewReader(b)); err != nil {
					return err
				}
			}
			return nil
		})
		set := map[string]bool{}
		for c := range slices.Chunk(content(t, f), ChunkSize) {
			set[string(c)] = true
		}
		return set
	}
	before, after := chunks(false), chunks(true)
	same := 0
	for c := range after {
		if before[c] {
			same++
		}
	}
	// Superblock, metadata, and what lies around the two changes.
	if missing := len(after) - same; missing > 8 {
		t.Errorf("%d of %d chunks are new", missing, len(after))
	}
}

func TestBadEntriesAreRefused(t *testing.T) {
	t.Parallel()
	w := NewWriter(discard{})
	if err := errors.Join(w.Create("file", Attr{}, 0, nil), w.Mkdir("dir", Attr{})); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ err, want error }{
		"absolute":        {w.Create("/x", Attr{}, 0, nil), ErrName},
		"empty":           {w.Create("", Attr{}, 0, nil), ErrName},
		"root as file":    {w.Create(".", Attr{}, 0, nil), ErrName},
		"dots":            {w.Create("../x", Attr{}, 0, nil), ErrName},
		"dots inside":     {w.Mkdir("dir/..", Attr{}), ErrName},
		"double slash":    {w.Mkdir("dir//x", Attr{}), ErrName},
		"null":            {w.Create("x\x00", Attr{}, 0, nil), ErrName},
		"long name":       {w.Create(strings.Repeat("x", MaxName+1), Attr{}, 0, nil), ErrName},
		"twice":           {w.Create("file", Attr{}, 0, nil), ErrExists},
		"file as dir":     {w.Mkdir("file", Attr{}), ErrExists},
		"below a file":    {w.Create("file/x", Attr{}, 0, nil), ErrExists},
		"dir as file":     {w.Create("dir", Attr{}, 0, nil), ErrExists},
		"no target":       {w.Symlink("l", "", Attr{}), ErrTarget},
		"long target":     {w.Symlink("l", strings.Repeat("x", MaxTarget+1), Attr{}), ErrTarget},
		"link to nothing": {w.Link("l", "nothing"), ErrTarget},
		"link to a dir":   {w.Link("l", "dir"), ErrTarget},
		"short content":   {w.Create("short", Attr{}, 5, strings.NewReader("1234")), io.ErrUnexpectedEOF},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
}

func TestAddFSAddsATree(t *testing.T) {
	t.Parallel()
	f := write(t, func(w *Writer) error {
		return w.AddFS(fstest.MapFS{
			"a/b": {Data: []byte("b"), Mode: 0o640},
			"a/l": {Data: []byte("b"), Mode: fs.ModeSymlink | 0o777},
		})
	})
	got := read(t, f)
	if got["a/b"].Content != "b" || got["a/b"].Mode != modeFile|0o640 || got["a/l"].Content != "b" || got["a/l"].Mode != modeLink|0o777 {
		t.Errorf("got %+v", got)
	}
}

// discard takes an image and forgets it.
type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// FuzzWriter adds entries that the input describes and compares what gVisor reads
// with what was accepted.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("dabc fdef l"), uint16(3))
	f.Add([]byte("f\x00a/b/c\x01f.-a\x01lx\x01hy"), uint16(600))
	f.Fuzz(func(t *testing.T, script []byte, unit uint16) {
		want := map[string]node{".": {Mode: modeDir | 0o755}}
		img := write(t, func(w *Writer) error {
			var last string
			for n, op := range bytes.Split(script[:min(len(script), 2000)], []byte{1}) {
				if len(op) == 0 {
					continue
				}
				name := string(op[1:])
				size := n * int(unit) % 3000
				data := strings.Repeat("d", size)
				added := node{Links: 1}
				var err error
				switch op[0] % 4 {
				case 0:
					err, added = w.Mkdir(name, Attr{Mode: 0o750}), node{Mode: modeDir | 0o750}
				case 1:
					err = w.Create(name, Attr{}, int64(size), strings.NewReader(data))
					added.Mode, added.Content = modeFile, data
				case 2:
					err = w.Symlink(name, data, Attr{})
					added.Mode, added.Content = modeLink|0o777, data
				default:
					err, added = w.Link(name, last), want[last]
				}
				if err != nil {
					continue
				}
				for dir := path.Dir(name); ; dir = path.Dir(dir) {
					if _, ok := want[dir]; !ok {
						want[dir] = node{Mode: modeDir | 0o755}
					}
					if dir == "." {
						break
					}
				}
				want[name] = added
				last = name
			}
			return nil
		})
		got := read(t, img)
		for name, n := range got {
			n.Links = want[name].Links // the other tests count them
			got[name] = n
		}
		compare(t, got, want)
	})
}
