package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/state"
)

// Mutability of tags, as in the ECR API.
const (
	Mutable                = "MUTABLE"
	Immutable              = "IMMUTABLE"
	MutableWithExclusion   = "MUTABLE_WITH_EXCLUSION"
	ImmutableWithExclusion = "IMMUTABLE_WITH_EXCLUSION"
)

// immutable tells whether a tag of the repository may not be moved.
func (r *Repository) immutable(tag string) bool {
	excluded := slices.ContainsFunc(r.Exclusions, func(filter string) bool {
		ok, _ := path.Match(filter, tag) // filters hold letters, digits, ._- and *
		return ok
	})
	switch r.Mutability {
	case Immutable:
		return true
	case ImmutableWithExclusion:
		return !excluded
	case MutableWithExclusion:
		return excluded
	}
	return false
}

// Put is an image to be put.
type Put struct {
	Manifest  []byte
	MediaType string        // empty: what the manifest says
	Tag       string        // empty: none
	Digest    digest.Digest // that the client expects; empty: any
	// New refuses an image that is there already, with the same tag.
	New bool
}

// PutImage stores a manifest, whose layers or manifests must be there, and lets
// a tag point to it. It is durable when PutImage returns.
func (r *Registry) PutImage(ctx context.Context, name string, put Put) (Image, error) {
	img, err := parseManifest(put.Manifest, put.MediaType)
	if err != nil {
		return img, err
	}
	if put.Digest != "" && put.Digest != img.Digest {
		return img, fail(DigestMismatch, "Image digest does not match: the digest of the manifest is '%s', not '%s'", img.Digest, put.Digest)
	}
	if put.Tag != "" && !ValidTag(put.Tag) {
		return img, fail(InvalidTag, "Invalid parameter at 'imageTag' failed to satisfy constraint: 'must satisfy regular expression '%s''", tagName)
	}
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return img, err
	}
	defer unlock()
	if err := r.complete(repo, img); err != nil {
		return img, err
	}
	old, there := r.images.Get(repo.ID + "/" + string(img.Digest))
	if err := r.mayTag(repo, img, put, there); err != nil {
		return img, err
	}
	if there {
		img = old.Value
	} else {
		img.Pushed = time.Now().UTC()
		if err := r.storeManifest(ctx, repo, img, put.Manifest); err != nil {
			return img, err
		}
	}
	if put.Tag != "" {
		if _, err := r.tags.Put(ctx, repo.ID+"/"+put.Tag, tag{img.Digest}); err != nil {
			return img, err
		}
	}
	return img, nil
}

// complete checks that all that a manifest refers to is in the repository.
func (r *Registry) complete(repo Repository, img Image) error {
	const missing = "%s with digests '[%s]' required for pushing image into repository with name '%s' in the registry with id '%s' do not exist"
	var lacking []string
	for _, d := range img.Blobs {
		if _, ok := r.links.Get(linkKey(d, repo)); !ok {
			lacking = append(lacking, string(d))
		}
	}
	if lacking != nil {
		return fail(LayersNotFound, missing, "Layers", strings.Join(lacking, ", "), repo.Name, r.opts.AccountID)
	}
	for _, d := range img.Manifests {
		if _, ok := r.images.Get(repo.ID + "/" + string(d)); !ok {
			lacking = append(lacking, string(d))
		}
	}
	if lacking != nil {
		return fail(ReferencedImagesNotFound, missing, "Images", strings.Join(lacking, ", "), repo.Name, r.opts.AccountID)
	}
	return nil
}

// mayTag refuses what a repository's mutability or the API does.
func (r *Registry) mayTag(repo Repository, img Image, put Put, there bool) error {
	var same bool
	if put.Tag != "" {
		held, tagged := r.tags.Get(repo.ID + "/" + put.Tag)
		same = tagged && held.Value.Digest == img.Digest
		if tagged && repo.immutable(put.Tag) && (!same || !put.New) {
			return fail(TagImmutable, "The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the repository is immutable.", put.Tag, repo.Name)
		}
	}
	if put.New && there && (same || put.Tag == "") {
		return fail(ImageExists, "Image with digest '%s' and tag '%s' already exists in the repository with name '%s' in registry with id '%s'",
			img.Digest, put.Tag, repo.Name, r.opts.AccountID)
	}
	return nil
}

// storeManifest makes a manifest durable: the blob, its link, the record.
func (r *Registry) storeManifest(ctx context.Context, repo Repository, img Image, body []byte) error {
	staged, err := r.blobs.Stage(ctx, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if err := r.adopt(ctx, repo, staged); err != nil {
		return err
	}
	_, err = r.images.Create(ctx, repo.ID+"/"+string(img.Digest), img)
	if errors.Is(err, state.ErrTooLarge) {
		return fail(InvalidManifest, "The annotations of the image manifest are too large")
	}
	return err
}

// Reference is a tag or a digest, or both.
type Reference struct {
	Tag    string
	Digest digest.Digest
}

// ParseReference reads the last part of a manifest's path.
func ParseReference(s string) (Reference, error) {
	if strings.Contains(s, ":") {
		d := digest.Digest(s)
		if !validDigest(d) {
			return Reference{}, fail(InvalidDigest, "'%s' is no SHA-256 digest", s)
		}
		return Reference{Digest: d}, nil
	}
	if !ValidTag(s) {
		return Reference{}, fail(InvalidTag, "'%s' is no tag", s)
	}
	return Reference{Tag: s}, nil
}

// Image finds an image.
func (r *Registry) Image(name string, ref Reference) (Image, error) {
	repo, err := r.Repository(name)
	if err != nil {
		return Image{}, err
	}
	return r.image(repo, ref)
}

func (r *Registry) image(repo Repository, ref Reference) (Image, error) {
	missing := func() error {
		return fail(ImageNotFound, "The image with imageId {imageDigest:'%s', imageTag:'%s'} does not exist within the repository with name '%s' in the registry with id '%s'",
			orNull(string(ref.Digest)), orNull(ref.Tag), repo.Name, r.opts.AccountID)
	}
	d := ref.Digest
	if ref.Tag != "" {
		held, ok := r.tags.Get(repo.ID + "/" + ref.Tag)
		if !ok {
			return Image{}, missing()
		}
		if d != "" && d != held.Value.Digest {
			return Image{}, fail(TagMismatch, "The image tag '%s' does not belong to the image with digest '%s'", ref.Tag, d)
		}
		d = held.Value.Digest
	}
	item, ok := r.images.Get(repo.ID + "/" + string(d))
	if !ok {
		return Image{}, missing()
	}
	return item.Value, nil
}

func orNull(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

// Manifest reads an image's manifest.
func (r *Registry) Manifest(img Image) ([]byte, error) {
	f, err := r.blobs.Open(state.Digest(img.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && int64(len(b)) != img.ManifestSize {
		err = fmt.Errorf("manifest %s has %d bytes, not %d", img.Digest, len(b), img.ManifestSize)
	}
	return b, err
}

// Tagged is an image with its tags.
type Tagged struct {
	Image
	Tags []string // sorted
}

// Images returns the images of a repository in the order of their digests.
func (r *Registry) Images(name string) ([]Tagged, error) {
	repo, err := r.Repository(name)
	if err != nil {
		return nil, err
	}
	return r.list(repo), nil
}

func (r *Registry) list(repo Repository) []Tagged {
	tags := map[digest.Digest][]string{}
	for _, t := range r.tags.List(repo.ID + "/") {
		tags[t.Value.Digest] = append(tags[t.Value.Digest], strings.TrimPrefix(t.Key, repo.ID+"/"))
	}
	var all []Tagged
	for _, img := range r.images.List(repo.ID + "/") {
		all = append(all, Tagged{img.Value, tags[img.Value.Digest]})
	}
	return all
}

// TagsAfter returns up to limit tags of a repository, sorted, from the first
// one after a tag.
func (r *Registry) TagsAfter(name, after string, limit int) (page []string, more bool, err error) {
	repo, err := r.Repository(name)
	if err != nil {
		return nil, false, err
	}
	for item := range r.tags.Scan(repo.ID+"/", repo.ID+"/"+after) {
		t := strings.TrimPrefix(item.Key, repo.ID+"/")
		if t == after {
			continue
		}
		if len(page) == limit {
			return page, true, nil
		}
		page = append(page, t)
	}
	return page, false, nil
}

// Referrers returns the images of a repository whose subject is d.
func (r *Registry) Referrers(name string, d digest.Digest) ([]Image, error) {
	repo, err := r.Repository(name)
	if err != nil {
		return nil, err
	}
	var found []Image
	for item := range r.images.Scan(repo.ID+"/", "") {
		if item.Value.Subject == d {
			found = append(found, item.Value)
		}
	}
	return found, nil
}

// DeleteImage removes a tag, and with the last tag its image; or an image by its
// digest, with all its tags. It returns what went. An image that an index lists
// stays.
func (r *Registry) DeleteImage(ctx context.Context, name string, ref Reference) ([]Reference, error) {
	repo, unlock, err := r.lockRepository(name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return r.deleteImage(ctx, repo, ref)
}

// deleteImage is DeleteImage in a repository whose lock is held.
func (r *Registry) deleteImage(ctx context.Context, repo Repository, ref Reference) ([]Reference, error) {
	img, err := r.image(repo, ref)
	if err != nil {
		return nil, err
	}
	tags := r.tagsOf(repo, img.Digest)
	if ref.Tag != "" {
		if len(tags) > 1 {
			err := r.removeTag(ctx, repo, ref.Tag)
			return []Reference{{ref.Tag, img.Digest}}, err
		}
		tags = []string{ref.Tag}
	}
	if in := r.indexesOf(repo, img.Digest); len(in) > 0 {
		return nil, fail(ImageReferenced, "Requested image referenced by manifest list: [%s]", strings.Join(in, ", "))
	}
	var gone []Reference
	for _, t := range tags {
		if err := r.removeTag(ctx, repo, t); err != nil {
			return nil, err
		}
		gone = append(gone, Reference{t, img.Digest})
	}
	if gone == nil {
		gone = []Reference{{Digest: img.Digest}}
	}
	item, ok := r.images.Get(repo.ID + "/" + string(img.Digest))
	if !ok {
		return gone, nil
	}
	return gone, r.images.Delete(ctx, item.Key, item.Revision)
}

func (r *Registry) tagsOf(repo Repository, d digest.Digest) (tags []string) {
	for item := range r.tags.Scan(repo.ID+"/", "") {
		if item.Value.Digest == d {
			tags = append(tags, strings.TrimPrefix(item.Key, repo.ID+"/"))
		}
	}
	return tags
}

func (r *Registry) indexesOf(repo Repository, d digest.Digest) (in []string) {
	for item := range r.images.Scan(repo.ID+"/", "") {
		if slices.Contains(item.Value.Manifests, d) {
			in = append(in, string(item.Value.Digest))
		}
	}
	return in
}

// removeTag removes a tag of a repository whose lock is held.
func (r *Registry) removeTag(ctx context.Context, repo Repository, t string) error {
	item, ok := r.tags.Get(repo.ID + "/" + t)
	if !ok {
		return nil
	}
	return r.tags.Delete(ctx, item.Key, item.Revision)
}
