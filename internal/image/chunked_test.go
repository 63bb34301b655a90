package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/image/chunk"
	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/image/lazy"
)

var imageA, imageB = strings.Repeat("a", 64), strings.Repeat("b", 64)

func needRoot(t testing.TB) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
}

// noise is content that does not compress.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// add returns a fill function that adds files, each with n bytes of noise.
func add(n int, seeds ...uint64) func(*erofs.Writer) error {
	return func(w *erofs.Writer) error {
		for _, seed := range seeds {
			name := "f/" + string(rune('a'+seed))
			if err := w.Create(name, erofs.Attr{Mode: 0o644}, int64(n), bytes.NewReader(noise(seed, n))); err != nil {
				return err
			}
		}
		return nil
	}
}

func chunks(t testing.TB, s *Store) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, chunkDir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// hold checks that an image has these files of n bytes.
func hold(t testing.TB, s *Store, digest string, n int, seeds ...uint64) {
	t.Helper()
	tree, done, err := s.open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for _, seed := range seeds {
		if got, err := fs.ReadFile(tree, "f/"+string(rune('a'+seed))); err != nil || !bytes.Equal(got, noise(seed, n)) {
			t.Errorf("file %d: %d bytes, %v", seed, len(got), err)
		}
	}
}

// noChunks waits until all chunks are gone: the kernel tells in its own time that a
// file was closed.
func noChunks(t testing.TB, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(chunks(t, s)) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d chunks are left", len(chunks(t, s)))
		}
	}
}

func TestBuildMakesAnImageOnceAndLeavesNothingWhenItFails(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	broken := errors.New("broken")
	err := s.Build(t.Context(), imageA, func(w *erofs.Writer) error { return errors.Join(add(1<<20, 1)(w), broken) })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if n := append(left(t, s), chunks(t, s)...); len(n) != 0 || s.Has(imageA) {
		t.Errorf("left behind: %v", n)
	}
	var builds atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := s.Build(t.Context(), imageA, func(w *erofs.Writer) error {
				builds.Add(1)
				return add(100, 1)(w)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if builds.Load() != 1 {
		t.Errorf("%d builds", builds.Load())
	}
	hold(t, s, imageA, 100, 1)
	if err := s.Build(t.Context(), "../x", nil); err == nil {
		t.Error("built under a name that is no digest")
	}
}

func TestImagesShareChunksWhichGoWithTheLast(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	const n = 2<<20 + 1
	if err := s.Build(t.Context(), imageA, add(n, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	before := len(chunks(t, s))
	if err := s.Build(t.Context(), imageB, add(n, 4, 2, 3)); err != nil {
		t.Fatal(err)
	}
	// Five chunks for the file that is new; the two of the metadata are the same
	// but for the name.
	if more := len(chunks(t, s)) - before; more > 7 {
		t.Errorf("%d chunks more than %d", more, before)
	}
	if err := s.Remove(t.Context(), imageA); err != nil {
		t.Fatal(err)
	}
	hold(t, s, imageB, n, 4, 2, 3)
	if list, err := s.List(); err != nil || !slices.Equal(list, []string{imageB}) || s.Has(imageA) {
		t.Errorf("there are %v, %v", list, err)
	}
	s = reopen(t, s.dir)
	hold(t, s, imageB, n, 4, 2, 3)
	if err := s.Remove(t.Context(), imageB); err != nil {
		t.Fatal(err)
	}
	noChunks(t, s)
}

func TestWhoHasARemovedImageOpenKeepsIt(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	if err := s.Build(t.Context(), imageA, add(3<<20, 1)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(s.Path(imageA))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), imageA); err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	if _, err := whole.ReadFrom(f); err != nil || !bytes.Contains(whole.Bytes(), noise(1, 3<<20)) {
		t.Errorf("%d bytes, %v", whole.Len(), err)
	}
	f.Close()
	noChunks(t, s)
}

func TestOpenSweepsChunksWithoutAnImageAndDropsDamagedManifests(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	for _, image := range []string{imageA, imageB} {
		if err := s.Build(t.Context(), image, add(1<<20, uint64(image[0]))); err != nil {
			t.Fatal(err)
		}
	}
	// One crashed before its manifest was there, another's disk has failed it.
	manifest, err := os.ReadFile(s.manifest(imageB))
	if err != nil {
		t.Fatal(err)
	}
	manifest[len(manifest)/2] ^= 1
	if err := errors.Join(os.Remove(s.manifest(imageA)), os.WriteFile(s.manifest(imageB), manifest, 0o600)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.dir)
	if got := append(chunks(t, s), left(t, s)...); len(got) != 0 || s.Has(imageA) || s.Has(imageB) {
		t.Errorf("left: %v", got)
	}
	if err := s.Build(t.Context(), imageB, add(10, 1)); err != nil {
		t.Fatal(err)
	}
	hold(t, s, imageB, 10, 1)
}

// otherNode is a further tier: the chunks of another store.
type otherNode struct {
	chunk.Source
	asked atomic.Int32
}

func (o *otherNode) Fetch(ctx context.Context, d chunk.Digest) ([]byte, error) {
	o.asked.Add(1)
	return o.Source.Fetch(ctx, d)
}

func TestChunksThatAreMissingOrDamagedComeFromTheNextTier(t *testing.T) {
	needRoot(t)
	const n = 3 << 20
	other := newStore(t)
	if err := other.Build(t.Context(), imageA, add(n, 1)); err != nil {
		t.Fatal(err)
	}
	further := &otherNode{Source: other.chunked.chunks}
	s := reopen(t, t.TempDir(), further)
	if err := s.Build(t.Context(), imageA, add(n, 1)); err != nil {
		t.Fatal(err)
	}
	all := chunks(t, s)
	if err := errors.Join(os.Remove(all[0]), os.WriteFile(all[1], []byte("LWC\x01\x00 rotten"), 0o600), os.Truncate(all[2], 3)); err != nil {
		t.Fatal(err)
	}
	hold(t, s, imageA, n, 1)
	if asked := further.asked.Load(); asked == 0 {
		t.Error("the tier was not asked")
	}
	before := further.asked.Load()
	s = reopen(t, s.dir, further) // with nothing in the page cache
	hold(t, s, imageA, n, 1)
	if asked := further.asked.Load(); asked != before {
		t.Errorf("%d chunks had to be asked for again", asked-before)
	}
}

func TestWithoutFUSEAnImageIsPutTogether(t *testing.T) {
	s := newStore(t)
	s.chunked.files = func() *lazy.Files { return nil }
	if err := s.Build(t.Context(), imageA, add(2<<20+5, 1, 2)); err != nil {
		t.Fatal(err)
	}
	if s.Path(imageA) != s.file(imageA) || !s.Has(imageA) {
		t.Errorf("it is at %s", s.Path(imageA))
	}
	hold(t, s, imageA, 2<<20+5, 1, 2)
	// After a loss it is made again from its chunks.
	if err := os.Remove(s.file(imageA)); err != nil || s.Has(imageA) {
		t.Fatal(err)
	}
	if err := s.Build(t.Context(), imageA, nil); err != nil {
		t.Fatal(err)
	}
	hold(t, s, imageA, 2<<20+5, 1, 2)
	if err := s.Remove(t.Context(), imageA); err != nil {
		t.Fatal(err)
	}
	if got := append(left(t, s), chunks(t, s)...); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestADamagedImageIsToldAndCanBeMadeAgain(t *testing.T) {
	needRoot(t)
	const n = 3 << 20
	for what, damage := range map[string]func(string) error{
		"missing": os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("LWC\x01\x00 rotten"), 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newStore(t)
			if err := s.Build(t.Context(), imageA, add(n, 1)); err != nil {
				t.Fatal(err)
			}
			for _, path := range chunks(t, s) {
				if err := damage(path); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.ReadFile(s.Path(imageA)); err == nil {
				t.Error("read what is not there")
			}
			if got := <-s.Lost(); got != imageA || s.Has(imageA) {
				t.Errorf("lost %s, there: %v", got, s.Has(imageA))
			}
			if err := s.Build(t.Context(), imageA, add(n, 1)); err != nil {
				t.Fatal(err)
			}
			hold(t, s, imageA, n, 1)
		})
	}
}

func TestAnImageThatLacksChunksIsNotThereAfterAStart(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	if err := s.Build(t.Context(), imageA, add(3<<20, 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(chunks(t, s)[1]); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.dir)
	if s.Has(imageA) || len(chunks(t, s)) > 0 {
		t.Errorf("%d chunks are left", len(chunks(t, s)))
	}
}
