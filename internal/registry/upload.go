package registry

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/fsync"
	"lapwing.dev/lapwing/internal/state"
)

// upload is a layer under way: a file, named by the repository's id and its own.
// What was acknowledged of it is on the disk, so that it goes on after a restart.
type upload struct {
	id         string
	repository string // id
	path       string
	turn       chan struct{} // holds one value while somebody uses what is below

	size    int64
	hash    hash.Hash // of the file so far; nil: to be made by reading it
	used    time.Time
	removed bool
}

func newUpload(dir, repository, id string) *upload {
	return &upload{id: id, repository: repository, path: filepath.Join(dir, repository+"."+id), turn: make(chan struct{}, 1), used: time.Now()}
}

// loadUploads finds the uploads that a former process had under way.
func (r *Registry) loadUploads() error {
	r.uploads = map[string]*upload{}
	if err := makeDir(r.opts.Dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.opts.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		repository, id, ok := strings.Cut(e.Name(), ".")
		if !ok || !info.Mode().IsRegular() {
			continue
		}
		if info.Mode().Perm()&0o200 == 0 {
			// It was about to become a blob, or has become one under another name:
			// nothing may be added to it.
			if err := os.Remove(filepath.Join(r.opts.Dir, e.Name())); err != nil {
				return err
			}
			continue
		}
		u := newUpload(r.opts.Dir, repository, id)
		u.size, u.used = info.Size(), info.ModTime()
		r.uploads[id] = u
	}
	return nil
}

// StartUpload begins the upload of a layer and returns its id.
func (r *Registry) StartUpload(name string) (id string, err error) {
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return "", err
	}
	defer unlock()
	u := newUpload(r.opts.Dir, repo.ID, uuid.NewString())
	u.hash = sha256.New()
	r.mu.Lock()
	full := len(r.uploads) >= maxUploads
	if !full {
		r.uploads[u.id] = u
	}
	r.mu.Unlock()
	if full {
		return "", fail(TooManyUploads, "There are %d layer uploads under way in the registry with id '%s'", maxUploads, r.opts.AccountID)
	}
	f, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), fsync.Dir(r.opts.Dir))
	}
	if err != nil {
		r.forget(u)
		return "", err
	}
	return u.id, nil
}

func (r *Registry) forget(u *upload) {
	r.mu.Lock()
	delete(r.uploads, u.id)
	r.mu.Unlock()
}

// take finds an upload of a repository and waits until nobody else uses it.
func (r *Registry) take(ctx context.Context, name, id string) (*upload, error) {
	repo, err := r.Repository(name)
	if err != nil {
		return nil, err
	}
	missing := fail(UploadNotFound, "The upload '%s' does not exist in the repository with name '%s' in the registry with id '%s'", id, name, r.opts.AccountID)
	r.mu.Lock()
	u := r.uploads[id]
	r.mu.Unlock()
	if u == nil || u.repository != repo.ID {
		return nil, missing
	}
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if u.removed {
		u.release()
		return nil, missing
	}
	u.used = time.Now()
	return u, nil
}

func (u *upload) release() { <-u.turn }

// UploadSize returns how much of an upload is there.
func (r *Registry) UploadSize(ctx context.Context, name, id string) (int64, error) {
	u, err := r.take(ctx, name, id)
	if err != nil {
		return 0, err
	}
	defer u.release()
	return u.size, nil
}

// Append adds what body holds to an upload, and returns how much is there when
// it is durable. at is where it must begin, -1 where that is left open. After an
// error nothing of it is there.
func (r *Registry) Append(ctx context.Context, name, id string, at int64, body io.Reader) (size int64, err error) {
	u, err := r.take(ctx, name, id)
	if err != nil {
		return 0, err
	}
	defer u.release()
	if at >= 0 && at != u.size {
		return u.size, &Error{Kind: InvalidPart, Size: u.size,
			Message: "The layer part of the upload '" + id + "' does not begin where the last one ended"}
	}
	if u.hash == nil {
		if err := u.rehash(ctx); err != nil {
			return u.size, err
		}
	}
	err = u.write(body)
	return u.size, err
}

// write appends to the file, or leaves it as it was.
func (u *upload) write(body io.Reader) (err error) {
	before, err := u.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(u.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// An earlier state of the hash fits only if the file is cut, too.
			if cut := f.Truncate(u.size); cut != nil {
				u.hash = nil
				err = errors.Join(err, cut)
			} else {
				err = errors.Join(err, u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(before))
			}
		}
		err = errors.Join(err, f.Close())
	}()
	// After a cut that failed or a crash there may be more than was acknowledged.
	if err := f.Truncate(u.size); err != nil {
		return err
	}
	if _, err := f.Seek(u.size, io.SeekStart); err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(f, u.hash), io.LimitReader(body, maxLayer-u.size+1))
	switch {
	case err != nil:
		return err
	case u.size+n > maxLayer:
		return fail(TooLarge, "The layer is larger than %d MiB", maxLayer>>20)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	u.size += n
	return nil
}

// rehash reads what is there of an upload of a former process.
func (u *upload) rehash(ctx context.Context) error {
	f, err := os.Open(u.path)
	if err != nil {
		return err
	}
	defer f.Close()
	h, chunk := sha256.New(), make([]byte, 1<<20)
	for left := u.size; left > 0; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(f, chunk[:min(left, int64(len(chunk)))])
		if err != nil {
			return err
		}
		h.Write(chunk[:n])
		left -= int64(n)
	}
	u.hash = h
	return nil
}

// FinishUpload makes an upload a layer of its repository, durably. Its digest
// must be want; an upload that is something else is dropped.
func (r *Registry) FinishUpload(ctx context.Context, name, id string, want digest.Digest) (size int64, err error) {
	if !validDigest(want) {
		return 0, fail(InvalidDigest, "'%s' is no SHA-256 digest", want)
	}
	u, err := r.take(ctx, name, id)
	if err != nil {
		return 0, err
	}
	defer u.release()
	if u.hash == nil {
		if err := u.rehash(ctx); err != nil {
			return 0, err
		}
	}
	got := hex.EncodeToString(u.hash.Sum(nil))
	if got != want.Encoded() {
		return 0, errors.Join(fail(DigestMismatch, "Layer digest does not match: the digest of the layer is 'sha256:%s', not '%s'", got, want), r.remove(u))
	}
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if repo.ID != u.repository {
		return 0, r.noRepository(name)
	}
	staged, err := r.blobs.StageFile(u.path, state.Digest(got), u.size)
	if err != nil {
		return 0, err
	}
	u.removed = true
	r.forget(u)
	return u.size, r.adopt(ctx, repo, staged)
}

// CancelUpload drops an upload.
func (r *Registry) CancelUpload(ctx context.Context, name, id string) error {
	u, err := r.take(ctx, name, id)
	if err != nil {
		return err
	}
	defer u.release()
	return r.remove(u)
}

// remove removes an upload that is taken.
func (r *Registry) remove(u *upload) error {
	u.removed = true
	r.forget(u)
	if err := os.Remove(u.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
