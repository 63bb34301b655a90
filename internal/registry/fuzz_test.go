package registry

import (
	"strings"
	"testing"
	"time"

	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

func FuzzParseManifest(f *testing.F) {
	layer := oci.Descriptor{Digest: "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Size: 3}
	f.Add(manifest(layer, layer), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"`+string(layer.Digest)+`","size":1}]}`), oci.MediaTypeImageIndex)
	f.Add([]byte(`{"schemaVersion":2,"config":null,"layers":[]}`), dockerManifest)
	f.Fuzz(func(t *testing.T, body []byte, mediaType string) {
		img, err := parseManifest(body, mediaType)
		if err != nil {
			if _, ok := asError(err); !ok {
				t.Errorf("error %v is not the client's", err)
			}
			return
		}
		if img.Size < 0 || !validDigest(img.Digest) || img.MediaType == "" || len(img.Blobs) > maxReferences+1 || len(img.Manifests) > maxReferences {
			t.Errorf("image is %+v", img)
		}
		for _, d := range append(img.Blobs, img.Manifests...) {
			if !validDigest(d) {
				t.Errorf("digest %q", d)
			}
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, path := range []string{"/v2", "/v2/", "/v2/_catalog", "/v2/a/b/manifests/1", "/v2/a/blobs/sha256:00", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/x", "/v2/blobs/uploads/tags/list", "/v2/a/referrers/x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := parsePath(path)
		if !ok {
			return
		}
		if !strings.Contains(path, p.name) || !strings.Contains(path, p.ref) {
			t.Errorf("%q: %+v", path, p)
		}
		switch p.kind {
		case endManifest, endBlob, endUpload, endReferrers:
			if p.ref == "" || strings.Contains(p.ref, "/") {
				t.Errorf("%q: %+v", path, p)
			}
			if ref, err := ParseReference(p.ref); err == nil && (ref.Tag == "") == (ref.Digest == "") {
				t.Errorf("%q: %+v", p.ref, ref)
			}
		}
	})
}

func FuzzParseLifecycle(f *testing.F) {
	f.Add(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["a*"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)
	f.Fuzz(func(_ *testing.T, text string) {
		if l, err := ParseLifecycle(text); err == nil {
			l.Expired([]Tagged{{Tags: []string{"ab"}}, {}}, time.Now())
		}
	})
}
