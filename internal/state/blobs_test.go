package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func digestOf(content string) Digest {
	sum := sha256.Sum256([]byte(content))
	return Digest(hex.EncodeToString(sum[:]))
}

func tempFiles(t *testing.T, b *Blobs) int {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(b.dir, blobTemp))
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

func TestABlobIsNamedByItsContent(t *testing.T) {
	b := open(t, t.TempDir()).Blobs()
	for _, content := range []string{"", "hello", strings.Repeat("long", 1<<20)} {
		d, size, err := b.Put(t.Context(), strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		if d != digestOf(content) || size != int64(len(content)) {
			t.Errorf("Put = %s, %d", d, size)
		}
		f, err := b.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(got) != content {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		if err := b.Verify(d); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := b.Delete(d); err != nil {
				t.Error(err)
			}
		}
		_, err = b.Open(d)
		wantError(t, "Open after Delete", err, ErrNotFound)
	}
	if n := tempFiles(t, b); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestAnUnfinishedPutLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := s.Blobs()
	broken := errors.New("broken")
	_, _, err := b.Put(t.Context(), io.MultiReader(strings.NewReader("part"), iotest.ErrReader(broken)))
	wantError(t, "Put of a broken reader", err, broken)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = b.Put(ctx, strings.NewReader("x"))
	wantError(t, "Put with an ended context", err, context.Canceled)
	if n := tempFiles(t, b); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
	// What a killed process left is swept at the next start.
	if err := os.WriteFile(filepath.Join(b.dir, blobTemp, "put-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := tempFiles(t, open(t, dir).Blobs()); n != 0 {
		t.Errorf("%d temporary files are left after reopening", n)
	}
}

func TestStagedContentIsNoBlobUntilCommitted(t *testing.T) {
	s := open(t, t.TempDir())
	b, err := s.BlobSet("own")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.BlobSet("../x"); err == nil {
		t.Error("took a bad name")
	}
	for _, commit := range []bool{false, true} {
		staged, err := b.Stage(t.Context(), strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Open(staged.Digest)
		wantError(t, "Open of what is staged", err, ErrNotFound)
		if commit {
			if err := staged.Commit(); err != nil {
				t.Error(err)
			}
		}
		if err := staged.Discard(); err != nil {
			t.Error(err)
		}
		var all []Digest
		for d, err := range b.All() {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, d)
		}
		if (len(all) == 1) != commit || tempFiles(t, b) != 0 {
			t.Errorf("committed %v: the set holds %v", commit, all)
		}
	}
	_, err = s.Blobs().Open(digestOf("x"))
	wantError(t, "Open in another set", err, ErrNotFound)
}

func TestConcurrentPutsOfOneContent(t *testing.T) {
	b := open(t, t.TempDir()).Blobs()
	content := strings.Repeat("same", 10000)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			d, _, err := b.Put(t.Context(), strings.NewReader(content))
			if err == nil {
				err = b.Verify(d)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestVerifyFindsDamage(t *testing.T) {
	b := open(t, t.TempDir()).Blobs()
	d, _, err := b.Put(t.Context(), strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.Path(d)+".new", []byte("c0ntent"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.Path(d)+".new", b.Path(d)); err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(d); err == nil {
		t.Error("damage was not found")
	}
	wantError(t, "Verify of nothing", b.Verify(digestOf("other")), ErrNotFound)
}

func TestParseDigest(t *testing.T) {
	good := string(digestOf(""))
	if d, err := ParseDigest(good); err != nil || string(d) != good {
		t.Error(d, err)
	}
	for _, bad := range []string{"", "ab", strings.ToUpper(good), good + "00", "../" + good[3:]} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func BenchmarkBlobPut(b *testing.B) {
	blobs := open(b, b.TempDir()).Blobs()
	content := make([]byte, 1<<20)
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		content[0], content[1], content[2] = byte(i), byte(i>>8), byte(i>>16)
		if _, _, err := blobs.Put(b.Context(), bytes.NewReader(content)); err != nil {
			b.Fatal(err)
		}
	}
}
