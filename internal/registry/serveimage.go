package registry

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// page is how many names a list has at most, unless the client wants fewer.
const page = 1000

// pageOf reads the parameters n and last of a list.
func pageOf(r *http.Request) (after string, n int, err error) {
	q := r.URL.Query()
	n = page
	if s := q.Get("n"); s != "" {
		if n, err = strconv.Atoi(s); err != nil || n < 0 {
			return "", 0, fail(InvalidPage, "The parameter 'n' must be a number.")
		}
	}
	return q.Get("last"), min(n, page), nil
}

// linkNext tells where the list goes on.
func linkNext(w http.ResponseWriter, r *http.Request, names []string, n int, more bool) {
	if more && len(names) > 0 {
		next := url.URL{Path: r.URL.Path, RawQuery: url.Values{"last": {names[len(names)-1]}, "n": {strconv.Itoa(n)}}.Encode()}
		w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
	}
}

func (h *handler) catalog(w http.ResponseWriter, r *http.Request, _ place) error {
	after, n, err := pageOf(r)
	if err != nil {
		return err
	}
	repositories, more := h.registry.Repositories(after, n)
	names := []string{}
	for _, repo := range repositories {
		names = append(names, repo.Name)
	}
	linkNext(w, r, names, n, more)
	return writeJSON(w, "application/json", map[string]any{"repositories": names})
}

func (h *handler) listTags(w http.ResponseWriter, r *http.Request, p place) error {
	after, n, err := pageOf(r)
	if err != nil {
		return err
	}
	tags, more, err := h.registry.TagsAfter(p.name, after, n)
	if err != nil {
		return err
	}
	if tags == nil {
		tags = []string{}
	}
	linkNext(w, r, tags, n, more)
	return writeJSON(w, "application/json", map[string]any{"name": p.name, "tags": tags})
}

func (h *handler) getManifest(w http.ResponseWriter, r *http.Request, p place) error {
	ref, err := ParseReference(p.ref)
	if err != nil {
		return err
	}
	img, err := h.registry.Image(p.name, ref)
	if err != nil {
		return err
	}
	body, err := h.registry.Manifest(img)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", img.MediaType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Docker-Content-Digest", string(img.Digest))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // fails only when the client has left
	}
	return nil
}

func (h *handler) putManifest(w http.ResponseWriter, r *http.Request, p place) error {
	ref, err := ParseReference(p.ref)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		return fmt.Errorf("read a manifest: %w", err)
	}
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	img, err := h.registry.PutImage(r.Context(), p.name, Put{Manifest: body, MediaType: strings.TrimSpace(mediaType), Tag: ref.Tag, Digest: ref.Digest})
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Location", "/v2/"+p.name+"/manifests/"+string(img.Digest))
	header.Set("Docker-Content-Digest", string(img.Digest))
	if img.Subject != "" {
		header.Set("OCI-Subject", string(img.Subject))
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (h *handler) deleteManifest(w http.ResponseWriter, r *http.Request, p place) error {
	ref, err := ParseReference(p.ref)
	if err != nil {
		return err
	}
	if _, err := h.registry.DeleteImage(r.Context(), p.name, ref); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (h *handler) listReferrers(w http.ResponseWriter, r *http.Request, p place) error {
	d := digest.Digest(p.ref)
	if !validDigest(d) {
		return fail(InvalidDigest, "'%s' is no SHA-256 digest", d)
	}
	found, err := h.registry.Referrers(p.name, d)
	if err != nil {
		return err
	}
	want := r.URL.Query().Get("artifactType")
	index := oci.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: oci.MediaTypeImageIndex, Manifests: []oci.Descriptor{}}
	for _, img := range found {
		if want == "" || want == img.ArtifactType {
			index.Manifests = append(index.Manifests, oci.Descriptor{
				MediaType: img.MediaType, Digest: img.Digest, Size: img.ManifestSize, ArtifactType: img.ArtifactType, Annotations: img.Annotations,
			})
		}
	}
	if want != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return writeJSON(w, oci.MediaTypeImageIndex, index)
}
