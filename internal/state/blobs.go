package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"lapwing.dev/lapwing/internal/fsync"
)

// Digest names a blob: the SHA-256 of its content in lower-case hexadecimal.
type Digest string

// ParseDigest checks that s is a digest.
func ParseDigest(s string) (Digest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != s {
		return "", fmt.Errorf("%q is no SHA-256 digest", s)
	}
	return Digest(s), nil
}

// Blobs is a set of files named by the SHA-256 of their content. A file is
// there whole or not at all, and never changes. Blobs counts no references: a
// set has one owner, who knows which of its digests are still needed.
//
// They are plain files and not JetStream's object store: that splits content
// into chunks of 128 KB and would sync each, and its readers cannot hand a
// path to a sandbox.
type Blobs struct{ dir string }

const blobTemp = "tmp"

// openBlobs opens the directory and removes what unfinished Puts left.
func openBlobs(dir string) (*Blobs, error) {
	tmp := filepath.Join(dir, blobTemp)
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, err
	}
	// All 256 at once, so that Put needs to sync one directory only.
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, err
		}
	}
	return &Blobs{dir}, errors.Join(fsync.Dir(dir), fsync.Dir(filepath.Dir(dir)))
}

// Put stores what r holds and returns its digest and size. It is durable when
// Put returns. Content that is there already is stored once; concurrent Puts
// of the same content are fine. An error from r is returned wrapped, and
// leaves nothing behind. Limit the size by limiting r.
func (b *Blobs) Put(ctx context.Context, r io.Reader) (Digest, int64, error) {
	staged, err := b.Stage(ctx, r)
	if err != nil {
		return "", 0, err
	}
	return staged.Digest, staged.Size, staged.Commit()
}

// Staged is content that is written and synced but has not become a blob yet.
// It must be committed or discarded.
type Staged struct {
	Digest Digest
	Size   int64
	blobs  *Blobs
	path   string
}

// Stage does the first, slow half of Put, for owners that must do the second
// half under a lock: so that the blob is not deleted as unneeded before the
// owner has noted the need.
func (b *Blobs) Stage(ctx context.Context, r io.Reader) (_ *Staged, err error) {
	f, err := os.CreateTemp(filepath.Join(b.dir, blobTemp), "put-")
	if err != nil {
		return nil, fmt.Errorf("store blob: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("store blob: %w", errors.Join(err, f.Close(), os.Remove(f.Name())))
		}
	}()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), contextReader{ctx, r})
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o444); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	digest := Digest(hex.EncodeToString(hash.Sum(nil)))
	return &Staged{Digest: digest, Size: size, blobs: b, path: f.Name()}, nil
}

// Commit makes the content a blob. It is durable when Commit returns; after an
// error it may be there or not.
func (s *Staged) Commit() error {
	path := s.blobs.Path(s.Digest)
	err := os.Rename(s.path, path)
	if err != nil {
		err = errors.Join(err, os.Remove(s.path))
	} else {
		err = fsync.Dir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("store blob %s: %w", s.Digest, err)
	}
	return nil
}

// Discard drops the content. After Commit it does nothing.
func (s *Staged) Discard() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard blob: %w", err)
	}
	return nil
}

// All iterates over the digests in the set, in no particular order. It ends
// with the first error.
func (b *Blobs) All() iter.Seq2[Digest, error] {
	return func(yield func(Digest, error) bool) {
		for i := range 256 {
			entries, err := os.ReadDir(filepath.Join(b.dir, fmt.Sprintf("%02x", i)))
			if err != nil {
				yield("", err)
				return
			}
			for _, e := range entries {
				d, err := ParseDigest(e.Name())
				if !yield(d, err) || err != nil {
					return
				}
			}
		}
	}
}

// contextReader ends reading when ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// Path returns where the blob is or would be. The file must not be changed.
func (b *Blobs) Path(d Digest) string {
	if len(d) < 2 {
		return filepath.Join(b.dir, "invalid")
	}
	return filepath.Join(b.dir, string(d[:2]), string(d))
}

// Open opens a blob for reading; one that is not there is ErrNotFound. The
// file stays readable if the blob is deleted meanwhile.
func (b *Blobs) Open(d Digest) (*os.File, error) {
	f, err := os.Open(b.Path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", d, ErrNotFound)
	}
	return f, err
}

// Delete removes a blob; one that is not there is no error.
func (b *Blobs) Delete(d Digest) error {
	err := os.Remove(b.Path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Verify reads a blob and says whether its content still has its digest.
func (b *Blobs) Verify(d Digest) error {
	f, err := b.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != string(d) {
		return fmt.Errorf("blob %s is damaged: its content has the digest %s", d, got)
	}
	return nil
}

// StageFile stages a file that somebody else wrote and synced: one on the same
// file system, with this digest and size, that nobody will change. Commit takes
// it away from where it is.
func (b *Blobs) StageFile(path string, d Digest, size int64) (*Staged, error) {
	if err := os.Chmod(path, 0o444); err != nil {
		return nil, fmt.Errorf("store blob: %w", err)
	}
	return &Staged{Digest: d, Size: size, blobs: b, path: path}, nil
}
