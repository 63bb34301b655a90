package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	oci "github.com/opencontainers/image-spec/specs-go/v1"

	"lapwing.dev/lapwing/internal/state"
)

// putLayer uploads a layer.
func putLayer(ctx context.Context, r *Registry, name, content string) (oci.Descriptor, error) {
	d := digest.FromString(content)
	id, err := r.StartUpload(name)
	if err == nil {
		_, err = r.Append(ctx, name, id, 0, strings.NewReader(content))
	}
	if err == nil {
		_, err = r.FinishUpload(ctx, name, id, d)
	}
	return oci.Descriptor{MediaType: oci.MediaTypeImageLayer, Digest: d, Size: int64(len(content))}, err
}

// manifest is that of an image of these layers, the first being the configuration.
func manifest(layers ...oci.Descriptor) []byte {
	b, err := json.Marshal(oci.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: oci.MediaTypeImageManifest, Config: layers[0], Layers: layers[1:]})
	if err != nil {
		panic(err)
	}
	return b
}

// putImage pushes an image of two layers.
func putImage(ctx context.Context, r *Registry, name, tag, content string) (Image, error) {
	config, err := putLayer(ctx, r, name, "{}"+content)
	if err != nil {
		return Image{}, err
	}
	layer, err := putLayer(ctx, r, name, content)
	if err != nil {
		return Image{}, err
	}
	return r.PutImage(ctx, name, Put{Manifest: manifest(config, layer), Tag: tag})
}

func blobCount(t *testing.T, r *Registry) (n int) {
	t.Helper()
	for _, err := range r.blobs.All() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// sweepLater sweeps as if that much time had passed.
func sweepLater(t *testing.T, r *Registry, later time.Duration) {
	t.Helper()
	r.sweeping.Lock()
	r.started = r.started.Add(-sweepEvery)
	r.sweeping.Unlock()
	if err := r.sweep(t.Context(), time.Now().Add(later)); err != nil {
		t.Fatal(err)
	}
}

func TestWhatNoImageNeedsIsSweptAfterItsGrace(t *testing.T) {
	r, _ := openRegistry(t, t.TempDir())
	create(t, r, "app")
	create(t, r, "other")
	ctx := t.Context()
	img, err := putImage(ctx, r, "app", "1", "one")
	if err != nil {
		t.Fatal(err)
	}
	shared := img.Blobs[1]
	if err := r.Mount(ctx, "other", "app", shared); err != nil {
		t.Fatal(err)
	}
	if _, err := putLayer(ctx, r, "app", "unused"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartUpload("app"); err != nil {
		t.Fatal(err)
	}
	sweepLater(t, r, grace-time.Minute)
	if n := blobCount(t, r); n != 4 || len(r.uploads) != 1 {
		t.Errorf("within the grace period: %d blobs, %d uploads", n, len(r.uploads))
	}
	sweepLater(t, r, grace+time.Minute)
	if n := blobCount(t, r); n != 3 || len(r.uploads) != 0 {
		t.Errorf("after it: %d blobs, %d uploads", n, len(r.uploads))
	}
	if _, err := r.Layer("other", shared); err == nil {
		t.Error("what was mounted and not used is still there")
	}
	if _, err := r.DeleteImage(ctx, "app", Reference{Tag: "1"}); err != nil {
		t.Fatal(err)
	}
	sweepLater(t, r, grace+time.Minute)
	if n := blobCount(t, r); n != 0 || r.links.Len() != 0 {
		t.Errorf("without the image: %d blobs, %d links", n, r.links.Len())
	}
}

func TestWhoAskedForALayerFindsItWhenThePushEnds(t *testing.T) {
	r, _ := openRegistry(t, t.TempDir())
	repo := create(t, r, "app")
	ctx := t.Context()
	layer, err := putLayer(ctx, r, "app", "x")
	if err != nil {
		t.Fatal(err)
	}
	// As old as can be, and asked for just now.
	item, _ := r.links.Get(linkKey(layer.Digest, repo))
	item.Value.Added = item.Value.Added.Add(-1000 * time.Hour)
	if _, err := r.links.Put(ctx, item.Key, item.Value); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Layer("app", layer.Digest); err != nil {
		t.Fatal(err)
	}
	sweepLater(t, r, 0)
	if _, err := r.PutImage(ctx, "app", Put{Manifest: manifest(layer, layer)}); err != nil {
		t.Errorf("the push ends with %v", err)
	}
}

func TestDeletedRepositoriesAreSweptAndTheirNamesAreFree(t *testing.T) {
	r, _ := openRegistry(t, t.TempDir())
	ctx := t.Context()
	create(t, r, "app")
	if _, err := putImage(ctx, r, "app", "1", "one"); err != nil {
		t.Fatal(err)
	}
	id, err := r.StartUpload("app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.DeleteRepository(ctx, "app", false); err == nil {
		t.Error("one with images was deleted without force")
	}
	if _, err := r.DeleteRepository(ctx, "app", true); err != nil {
		t.Fatal(err)
	}
	create(t, r, "app")
	if images, err := r.Images("app"); err != nil || len(images) != 0 {
		t.Errorf("the new one has %v, %v", images, err)
	}
	if _, err := r.Append(ctx, "app", id, 0, strings.NewReader("x")); err == nil {
		t.Error("an upload to the old one goes on in the new one")
	}
	sweepLater(t, r, 0)
	if n := blobCount(t, r); n != 0 || r.images.Len()+r.tags.Len()+r.links.Len()+len(r.uploads) != 0 {
		t.Errorf("left are %d blobs, %d images, %d tags, %d links", n, r.images.Len(), r.tags.Len(), r.links.Len())
	}
}

// Pushes, deletions and sweeps that take whatever they may, all at once: what a
// push acknowledged is whole.
func TestSweepsDoNotTakeFromPushes(t *testing.T) {
	r, _ := openRegistry(t, t.TempDir())
	create(t, r, "app")
	create(t, r, "other")
	ctx, stop := context.WithCancel(t.Context())
	var sweeping, pushing sync.WaitGroup
	sweeping.Go(func() {
		for ctx.Err() == nil {
			if err := errors.Join(r.sweepLinks(t.Context(), time.Now()), r.sweepBlobs(t.Context())); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for w, name := range []string{"app", "other", "app"} {
		pushing.Go(func() {
			for i := range 15 {
				tag := fmt.Sprint("t", w)
				img, err := putImage(t.Context(), r, name, tag, fmt.Sprint("content ", i%3)) // the same in all
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range append(img.Blobs, img.Digest) {
					if err := r.blobs.Verify(state.Digest(d.Encoded())); err != nil {
						t.Errorf("after push %d of %d: %v", i, w, err)
					}
				}
				if _, err := r.DeleteImage(t.Context(), name, Reference{Tag: tag}); err != nil && !isKind(err, ImageNotFound) {
					t.Error(err)
				}
			}
		})
	}
	pushing.Wait()
	stop()
	sweeping.Wait()
}

func isKind(err error, kind Kind) bool {
	e, ok := asError(err)
	return ok && e.Kind == kind
}

func TestLifecyclePolicies(t *testing.T) {
	now := time.Now()
	var images []Tagged
	for i, tags := range [][]string{{"prod-1"}, {"prod-2", "v2"}, {}, {"dev-4"}, {}} {
		images = append(images, Tagged{Image{Digest: digest.FromString(fmt.Sprint(i)), Pushed: now.Add(-time.Duration(i*24+1) * time.Hour)}, tags})
	}
	rule := func(priority int, selection string) string {
		return fmt.Sprintf(`{"rulePriority":%d,"selection":{%s},"action":{"type":"expire"}}`, priority, selection)
	}
	for name, tt := range map[string]struct {
		rules string
		want  string // indexes of images
		err   string
	}{
		"count":             {rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3`), "[3 4]", ""},
		"age":               {rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":3`), "[3 4]", ""},
		"untagged":          {rule(1, `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1`), "[4]", ""},
		"prefix":            {rule(1, `"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":1`), "[1]", ""},
		"both prefixes":     {rule(1, `"tagStatus":"tagged","tagPrefixList":["prod","v"],"countType":"sinceImagePushed","countUnit":"days","countNumber":1`), "[1]", ""},
		"pattern":           {rule(1, `"tagStatus":"tagged","tagPatternList":["*-4"],"countType":"sinceImagePushed","countUnit":"days","countNumber":1`), "[3]", ""},
		"first rule keeps":  {rule(2, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1`) + "," + rule(1, `"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":5`), "[2 3 4]", ""},
		"by pull":           {rules: rule(1, `"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":3`), err: "sinceImagePulled"},
		"any not last":      {rules: rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3`) + "," + rule(2, `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":3`), err: "highest priority number"},
		"priority twice":    {rules: rule(1, `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":3`) + "," + rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3`), err: "not unique"},
		"no prefix":         {rules: rule(1, `"tagStatus":"tagged","countType":"imageCountMoreThan","countNumber":3`), err: "tagPrefixList"},
		"no number":         {rules: rule(1, `"tagStatus":"any","countType":"imageCountMoreThan"`), err: "countNumber"},
		"unknown parameter": {rules: rule(1, `"tagStatus":"any","storageClass":"x","countType":"imageCountMoreThan","countNumber":3`), err: "storageClass"},
		"no rules":          {rules: "", err: "rules"},
	} {
		policy, err := ParseLifecycle(`{"rules":[` + tt.rules + `]}`)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error is %v, want one with %q", name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := []int{}
		for _, e := range policy.Expired(images, now) {
			for i := range images {
				if images[i].Digest == e.Image.Digest {
					got = append(got, i)
				}
			}
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: drops %v, want %s", name, got, tt.want)
		}
	}
}

func TestLifecyclePoliciesAreApplied(t *testing.T) {
	r, _ := openRegistry(t, t.TempDir())
	create(t, r, "app")
	for _, tag := range []string{"a", "b", "c"} {
		if _, err := putImage(t.Context(), r, "app", tag, "of "+tag); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.ModifyRepository(t.Context(), "app", func(r *Repository) error {
		r.Lifecycle = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	images, err := r.Images("app")
	if err != nil || len(images) != 1 {
		t.Errorf("left are %v, %v", images, err)
	}
	if repo, _ := r.Repository("app"); repo.Evaluated.IsZero() {
		t.Error("when it was applied is not noted")
	}
}
