package registry

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's manifests, which have the form of OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// document is a manifest or an index of any of the four media types.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *oci.Descriptor   `json:"config"`
	Layers        []oci.Descriptor  `json:"layers"`
	Manifests     []oci.Descriptor  `json:"manifests"`
	Subject       *oci.Descriptor   `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// parseManifest reads a manifest. mediaType is what the client says that it is,
// empty where it does not. Layers that are to be fetched from elsewhere are not
// among the image's blobs.
func parseManifest(body []byte, mediaType string) (Image, error) {
	var none Image
	if len(body) > maxManifest {
		return none, fail(InvalidManifest, "The image manifest is larger than %d bytes", maxManifest)
	}
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		return none, fail(InvalidManifest, "Invalid image manifest provided: %v", err)
	}
	switch {
	case d.SchemaVersion != 2:
		return none, fail(InvalidManifest, "Invalid image manifest provided: schemaVersion must be 2")
	case mediaType == "" && d.MediaType == "" && d.Manifests != nil:
		mediaType = oci.MediaTypeImageIndex
	case mediaType == "" && d.MediaType == "":
		mediaType = oci.MediaTypeImageManifest
	case mediaType == "":
		mediaType = d.MediaType
	case d.MediaType != "" && d.MediaType != mediaType:
		return none, fail(InvalidManifest, "Invalid image manifest provided: its mediaType is '%s', not '%s'", d.MediaType, mediaType)
	}
	img := Image{Digest: digest.FromBytes(body), MediaType: mediaType, ArtifactType: d.ArtifactType, ManifestSize: int64(len(body))}
	var err error
	switch mediaType {
	case oci.MediaTypeImageManifest, dockerManifest:
		err = d.readImage(&img)
	case oci.MediaTypeImageIndex, dockerList:
		err = d.readIndex(&img)
	default:
		err = fail(InvalidManifest, "Image manifests of media type '%s' are not supported", mediaType)
	}
	if err != nil {
		return none, err
	}
	if d.Subject != nil {
		if err := checkDescriptor(*d.Subject); err != nil {
			return none, err
		}
		img.Subject, img.Annotations = d.Subject.Digest, d.Annotations
	}
	return img, nil
}

func (d *document) readImage(img *Image) error {
	switch {
	case d.Manifests != nil:
		return fail(InvalidManifest, "Invalid image manifest provided: 'manifests' belongs to an index")
	case d.Config == nil:
		return fail(InvalidManifest, "Invalid image manifest provided: 'config' is missing")
	case len(d.Layers) > maxReferences:
		return fail(InvalidManifest, "The image manifest has more than %d layers", maxReferences)
	}
	seen := map[digest.Digest]bool{}
	for _, layer := range append([]oci.Descriptor{*d.Config}, d.Layers...) {
		if err := checkDescriptor(layer); err != nil {
			return err
		}
		img.Size = min(img.Size, maxLayer*maxReferences) + layer.Size
		if len(layer.URLs) == 0 && !seen[layer.Digest] {
			seen[layer.Digest] = true
			img.Blobs = append(img.Blobs, layer.Digest)
		}
	}
	if img.ArtifactType == "" {
		img.ArtifactType = d.Config.MediaType
	}
	return nil
}

func (d *document) readIndex(img *Image) error {
	switch {
	case d.Config != nil || d.Layers != nil:
		return fail(InvalidManifest, "Invalid image manifest provided: 'config' and 'layers' do not belong to an index")
	case len(d.Manifests) > maxReferences:
		return fail(InvalidManifest, "The image index has more than %d manifests", maxReferences)
	}
	for _, m := range d.Manifests {
		if err := checkDescriptor(m); err != nil {
			return err
		}
		img.Manifests = append(img.Manifests, m.Digest)
	}
	return nil
}

func checkDescriptor(d oci.Descriptor) error {
	if !validDigest(d.Digest) {
		return fail(InvalidManifest, "Invalid image manifest provided: '%s' is no SHA-256 digest", d.Digest)
	}
	if d.Size < 0 || d.Size > maxLayer {
		return fail(InvalidManifest, "Invalid image manifest provided: '%s' has a size of %d bytes", d.Digest, d.Size)
	}
	return nil
}

// validDigest tells whether d is one by SHA-256, the only ones that ECR has.
func validDigest(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}
