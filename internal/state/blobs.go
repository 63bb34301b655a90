package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// Blobs is a directory of files named by the SHA-256 of their content. A file
// is there whole or not at all, and never changes. Blobs counts no references:
// who deletes a digest must know that nobody else needs it.
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
	return &Blobs{dir}, errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// Put stores what r holds and returns its digest and size. It is durable when
// Put returns. Content that is there already is stored once; concurrent Puts
// of the same content are fine. An error from r is returned wrapped, and
// leaves nothing behind. Limit the size by limiting r.
func (b *Blobs) Put(ctx context.Context, r io.Reader) (_ Digest, size int64, err error) {
	f, err := os.CreateTemp(filepath.Join(b.dir, blobTemp), "put-")
	if err != nil {
		return "", 0, fmt.Errorf("store blob: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if removed := os.Remove(f.Name()); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
		if err != nil {
			err = fmt.Errorf("store blob: %w", err)
		}
	}()
	hash := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, hash), contextReader{ctx, r})
	if err != nil {
		return "", 0, err
	}
	digest := Digest(hex.EncodeToString(hash.Sum(nil)))
	if err := f.Chmod(0o444); err != nil {
		return "", 0, err
	}
	if err := f.Sync(); err != nil {
		return "", 0, err
	}
	path := b.Path(digest)
	if err := os.Rename(f.Name(), path); err != nil {
		return "", 0, err
	}
	return digest, size, syncDir(filepath.Dir(path))
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
