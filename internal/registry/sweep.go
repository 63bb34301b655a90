package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/state"
)

// sweepUntil sweeps every hour, and soon after a repository was deleted.
func (r *Registry) sweepUntil(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.wake:
		}
		if err := r.sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.log.Error("the registry was not swept", "error", err)
		}
	}
}

func (r *Registry) sweepSoon() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// sweep removes uploads that nobody continues, images that lifecycle policies
// expire, what was of deleted repositories, layers that no image refers to, and
// blobs that no repository holds. One sweep runs at a time.
func (r *Registry) sweep(ctx context.Context, now time.Time) error {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	errs := []error{r.sweepUploads(ctx, now)}
	for _, repo := range r.repositories.List("") {
		if repo.Value.Lifecycle != "" {
			errs = append(errs, r.applyLifecycle(ctx, repo.Value.Name, now))
		}
	}
	errs = append(errs, r.sweepDeleted(ctx))
	if now.Sub(r.started) >= sweepEvery {
		errs = append(errs, r.sweepLinks(ctx, now))
	}
	return errors.Join(append(errs, r.sweepBlobs(ctx))...)
}

func (r *Registry) sweepUploads(ctx context.Context, now time.Time) error {
	r.mu.Lock()
	var all []*upload
	for _, u := range r.uploads {
		all = append(all, u)
	}
	r.mu.Unlock()
	living := r.living()
	var errs []error
	for _, u := range all {
		select {
		case u.turn <- struct{}{}:
		default:
			continue // in use
		}
		if !u.removed && (!living[u.repository] || now.Sub(u.used) > uploadLife) {
			errs = append(errs, r.remove(u))
		}
		u.release()
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// living returns the ids of the repositories.
func (r *Registry) living() map[string]bool {
	ids := map[string]bool{}
	for _, repo := range r.repositories.List("") {
		ids[repo.Value.ID] = true
	}
	return ids
}

// sweepDeleted removes the records of repositories that are gone. They are
// listed before the repositories: none of a new one can be among them.
func (r *Registry) sweepDeleted(ctx context.Context) error {
	images, tags, links := r.images.List(""), r.tags.List(""), r.links.List("")
	living := r.living()
	first := func(key string) string { id, _, _ := strings.Cut(key, "/"); return id }
	last := func(key string) string { _, id, _ := strings.Cut(key, "/"); return id }
	return errors.Join(
		deleteDead(ctx, r.tags, tags, living, first),
		deleteDead(ctx, r.images, images, living, first),
		deleteDead(ctx, r.links, links, living, last))
}

func deleteDead[T any](ctx context.Context, c *state.Collection[T], items []state.Item[T], living map[string]bool, id func(key string) string) error {
	for _, item := range items {
		if living[id(item.Key)] {
			continue
		}
		if err := c.Delete(ctx, item.Key, item.Revision); err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
	}
	return nil
}

// sweepLinks removes the links of blobs that no image of their repository needs
// and that nobody asked for within the grace period.
func (r *Registry) sweepLinks(ctx context.Context, now time.Time) error {
	old := map[string][]state.Item[link]{} // by repository id
	for _, item := range r.links.List("") {
		if now.Sub(item.Value.Added) > grace {
			_, id, _ := strings.Cut(item.Key, "/")
			old[id] = append(old[id], item)
		}
	}
	r.mu.Lock()
	for key, at := range r.asked {
		if now.Sub(at) > grace {
			delete(r.asked, key)
		}
	}
	r.mu.Unlock()
	const batch = 50 // while pushes to the repository wait
	for id, items := range old {
		for len(items) > 0 {
			n := min(batch, len(items))
			if err := r.dropLinks(ctx, id, items[:n]); err != nil {
				return err
			}
			items = items[n:]
		}
	}
	return nil
}

// dropLinks removes those links of a repository that are not needed.
func (r *Registry) dropLinks(ctx context.Context, id string, items []state.Item[link]) error {
	defer r.lock(id)()
	needed := map[string]bool{}
	for img := range r.images.Scan(id+"/", "") {
		needed[img.Value.Digest.Encoded()] = true
		for _, d := range img.Value.Blobs {
			needed[d.Encoded()] = true
		}
	}
	for _, item := range items {
		blob, _, _ := strings.Cut(item.Key, "/")
		r.mu.Lock()
		_, asked := r.asked[item.Key]
		r.mu.Unlock()
		if needed[blob] || asked {
			continue
		}
		if err := r.links.Delete(ctx, item.Key, item.Revision); err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
	}
	return nil
}

// sweepBlobs removes blobs that have no link.
func (r *Registry) sweepBlobs(ctx context.Context) error {
	for d, err := range r.blobs.All() {
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.linked(d) {
			continue
		}
		if err := r.dropBlob(d); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) linked(d state.Digest) bool {
	for range r.links.Scan(string(d)+"/", "") {
		return true
	}
	return false
}

// dropBlob removes a blob unless it got a link meanwhile.
func (r *Registry) dropBlob(d state.Digest) error {
	r.gc.Lock()
	defer r.gc.Unlock()
	if r.linked(d) {
		return nil
	}
	return r.blobs.Delete(d)
}

// applyLifecycle removes the images that a repository's policy expires.
func (r *Registry) applyLifecycle(ctx context.Context, name string, now time.Time) error {
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return nil // was deleted
	}
	images := r.list(repo)
	unlock()
	policy, err := ParseLifecycle(repo.Lifecycle)
	if err != nil {
		return fmt.Errorf("lifecycle policy of repository %s: %w", name, err)
	}
	for _, e := range policy.Expired(images, now) {
		if err := r.expire(ctx, repo, e.Image); err != nil {
			return fmt.Errorf("expire an image of repository %s: %w", name, err)
		}
	}
	_, err = r.ModifyRepository(ctx, name, func(repo *Repository) error { repo.Evaluated = now.UTC(); return nil })
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == RepositoryNotFound {
		return nil
	}
	return err
}

// expire removes an image. One that was tagged otherwise in the meantime is
// judged anew the next time.
func (r *Registry) expire(ctx context.Context, was Repository, img Tagged) error {
	repo, unlock, err := r.lockRepository(was.Name)
	if err != nil {
		return nil // was deleted
	}
	defer unlock()
	if repo.ID != was.ID || repo.Lifecycle != was.Lifecycle || !slices.Equal(r.tagsOf(repo, img.Digest), img.Tags) {
		return nil
	}
	_, err = r.deleteImage(ctx, repo, Reference{Digest: img.Digest})
	if _, refused := errors.AsType[*Error](err); refused {
		return nil // gone, or listed by an index
	}
	return err
}
