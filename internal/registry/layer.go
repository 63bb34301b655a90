package registry

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/state"
)

func linkKey(d digest.Digest, repo Repository) string { return d.Encoded() + "/" + repo.ID }

// adopt makes staged content a blob of a repository whose lock is held.
func (r *Registry) adopt(ctx context.Context, repo Repository, staged *state.Staged) error {
	r.gc.RLock()
	defer r.gc.RUnlock()
	if err := staged.Commit(); err != nil {
		return err
	}
	return r.link(ctx, repo, digest.NewDigestFromEncoded(digest.SHA256, string(staged.Digest)), staged.Size)
}

// link notes that a repository holds a blob. gc is read-locked.
func (r *Registry) link(ctx context.Context, repo Repository, d digest.Digest, size int64) error {
	key := linkKey(d, repo)
	r.askedFor(key)
	_, err := r.links.Create(ctx, key, link{size, time.Now().UTC()})
	if errors.Is(err, state.ErrExists) {
		return nil
	}
	return err
}

// askedFor gives a link its grace period anew. It is kept in memory: the first
// sweep that takes links is an hour after a start, and no push lasts over one.
func (r *Registry) askedFor(key string) {
	r.mu.Lock()
	r.asked[key] = time.Now()
	r.mu.Unlock()
}

// Layer finds a layer, or any other blob of a repository, and returns its size.
// It stays for the grace period at least.
func (r *Registry) Layer(name string, d digest.Digest) (int64, error) {
	repo, err := r.Repository(name)
	if err != nil {
		return 0, err
	}
	if !validDigest(d) {
		return 0, fail(InvalidDigest, "'%s' is no SHA-256 digest", d)
	}
	// Noted first: a sweep that comes in between sees either, or has gone.
	r.askedFor(linkKey(d, repo))
	unlock := r.lock(repo.ID)
	item, ok := r.links.Get(linkKey(d, repo))
	unlock()
	if !ok {
		r.mu.Lock()
		delete(r.asked, linkKey(d, repo))
		r.mu.Unlock()
		return 0, fail(LayerNotFound, "The layer with digest '%s' does not exist in the repository with name '%s' in the registry with id '%s'", d, name, r.opts.AccountID)
	}
	return item.Value.Size, nil
}

// OpenLayer opens a layer for reading.
func (r *Registry) OpenLayer(name string, d digest.Digest) (*os.File, error) {
	if _, err := r.Layer(name, d); err != nil {
		return nil, err
	}
	return r.blobs.Open(state.Digest(d.Encoded()))
}

// Mount makes a layer of one repository one of another, without its bytes.
func (r *Registry) Mount(ctx context.Context, name, from string, d digest.Digest) error {
	size, err := r.Layer(from, d)
	if err != nil {
		return err
	}
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return err
	}
	defer unlock()
	r.gc.RLock()
	defer r.gc.RUnlock()
	source, err := r.Repository(from)
	if err != nil {
		return err
	}
	// While gc is locked, what has a link is there.
	if _, ok := r.links.Get(linkKey(d, source)); !ok {
		return fail(LayerNotFound, "The layer with digest '%s' does not exist in the repository with name '%s' in the registry with id '%s'", d, from, r.opts.AccountID)
	}
	return r.link(ctx, repo, d, size)
}
