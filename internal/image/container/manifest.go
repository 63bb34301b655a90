package container

import (
	"encoding/json"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of what is read into memory or remembered, in bytes.
const (
	maxManifest = 4 << 20
	maxConfig   = 4 << 20
	// maxSettings bounds what an image sets for its processes. Lambda allows
	// ImageConfig 16 KB; an image's own settings come with the function's
	// record, too.
	maxSettings = 64 << 10
	maxLayers   = 127 // as Docker's
)

// Media types of Docker, whose documents have the form of OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerTar      = "application/vnd.docker.image.rootfs.diff.tar"
)

// compression is how a layer is compressed.
type compression int

const (
	compressionNone compression = iota
	compressionGzip
	compressionZstd
)

var layerTypes = map[string]compression{
	oci.MediaTypeImageLayer:     compressionNone,
	dockerTar:                   compressionNone,
	oci.MediaTypeImageLayerGzip: compressionGzip,
	dockerLayer:                 compressionGzip,
	oci.MediaTypeImageLayerZstd: compressionZstd,
}

// isIndex tells whether a manifest of this media type lists others.
func isIndex(mediaType string) bool {
	return mediaType == oci.MediaTypeImageIndex || mediaType == dockerList
}

// mediaTypeOf is the media type of a manifest by what it says itself.
func mediaTypeOf(body []byte) string {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	_ = json.Unmarshal(body, &m) // parseManifest will tell
	switch {
	case m.MediaType != "":
		return m.MediaType
	case m.Manifests != nil:
		return oci.MediaTypeImageIndex
	}
	return oci.MediaTypeImageManifest
}

// parseManifest reads the manifest of an image.
func parseManifest(body []byte, mediaType string) (oci.Manifest, error) {
	var m oci.Manifest
	if mediaType != oci.MediaTypeImageManifest && mediaType != dockerManifest {
		return m, fail(Unsupported, "manifest of media type %q", mediaType)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fail(Invalid, "manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return m, fail(Invalid, "manifest of schema version %d", m.SchemaVersion)
	}
	if m.Config.MediaType != oci.MediaTypeImageConfig && m.Config.MediaType != dockerConfig {
		return m, fail(Unsupported, "configuration of media type %q", m.Config.MediaType)
	}
	if err := checkDescriptor(m.Config, maxConfig); err != nil {
		return m, err
	}
	if len(m.Layers) > maxLayers {
		return m, fail(Invalid, "image of %d layers, more than %d", len(m.Layers), maxLayers)
	}
	for _, layer := range m.Layers {
		if _, ok := layerTypes[layer.MediaType]; !ok {
			return m, fail(Unsupported, "layer of media type %q", layer.MediaType)
		}
		if err := checkDescriptor(layer, maxSize); err != nil {
			return m, err
		}
	}
	return m, nil
}

func checkDescriptor(d oci.Descriptor, limit int64) error {
	switch {
	case d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256:
		return fail(Invalid, "%q is no SHA-256 digest", string(d.Digest))
	case d.Size < 0:
		return fail(Invalid, "%s has a size of %d bytes", d.Digest, d.Size)
	case d.Size > limit:
		return fail(TooLarge, "%s has a size of %d bytes, more than %d", d.Digest, d.Size, limit)
	}
	return nil
}

// choose returns the manifest for an architecture that an index lists.
func choose(body []byte, architecture string) (oci.Descriptor, error) {
	var index oci.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return oci.Descriptor{}, fail(Invalid, "index: %w", err)
	}
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == goArchitecture(architecture) {
			return m, checkDescriptor(m, maxManifest)
		}
	}
	return oci.Descriptor{}, fail(Architecture, "the index lists no image for linux/%s", goArchitecture(architecture))
}

// goArchitecture is Lambda's architecture in the words of images.
func goArchitecture(architecture string) string {
	if architecture == "x86_64" {
		return "amd64"
	}
	return architecture
}

// parseConfig reads an image's configuration, without looking at its
// architecture.
func parseConfig(body []byte, layers int) (oci.Image, error) {
	var c oci.Image
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fail(Invalid, "configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return c, fail(Invalid, "the configuration is of %d layers, the manifest lists %d", len(c.RootFS.DiffIDs), layers)
	}
	for _, id := range c.RootFS.DiffIDs {
		if id.Validate() != nil || id.Algorithm() != digest.SHA256 {
			return c, fail(Invalid, "%q is no SHA-256 digest", string(id))
		}
	}
	size := len(c.Config.WorkingDir)
	for _, list := range [][]string{c.Config.Env, c.Config.Entrypoint, c.Config.Cmd} {
		for _, s := range list {
			if size += len(s); strings.ContainsRune(s, 0) {
				return c, fail(Invalid, "the configuration has a NUL character")
			}
		}
	}
	if size > maxSettings {
		return c, fail(Invalid, "environment, entry point and command have %d bytes, more than %d", size, maxSettings)
	}
	return c, nil
}

// settingsOf takes from a configuration what Lambda heeds of it.
func settingsOf(c oci.Image) Settings {
	s := Settings{EntryPoint: c.Config.Entrypoint, Command: c.Config.Cmd, WorkingDirectory: path.Join("/", c.Config.WorkingDir)}
	for _, variable := range c.Config.Env {
		if name, value, ok := strings.Cut(variable, "="); ok && name != "" {
			if s.Env == nil {
				s.Env = map[string]string{}
			}
			s.Env[name] = value
		}
	}
	return s
}
