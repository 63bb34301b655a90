// Package container finds, pulls and unpacks the container images of functions.
//
// Resolve finds what a URI names, in Lapwing's own registry or a remote one: the
// manifest's digest, which is what a function version keeps, and what the image
// says of its processes. Prepare makes the image's root file system, which
// package image keeps, from its layers. Our own registry is read directly; what
// comes from a remote one is kept as blobs by its digest, so that it is pulled
// once, and an image that a function has is there though its registry is not.
// Collect removes what no function version has any more.
//
// Everything is verified while it is read: manifests, configurations and pulled
// layers by their digests, the content of layers by the digests that the
// configuration lists. What a registry sends is bounded and believed in nothing
// else. Half a pull or half an image never stays: package state and package
// image stage both, and sweep at the next start what a crash has left.
package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	oci "github.com/opencontainers/image-spec/specs-go/v1"

	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/state"
)

// maxSize is how large an image's layers may be together, in bytes,
// uncompressed (Lambda quotas).
const maxSize = image.MaxFlattened

// resolveTimeout bounds how long a client waits for a remote registry.
const resolveTimeout = 25 * time.Second

// atOnce is how many images are prepared at the same time.
const atOnce = 2

// Options configures a Store.
type Options struct {
	Images    *image.Store
	Blobs     *state.Blobs // our own set, for what comes from remote registries
	Local     Local
	AccountID string
	// Architecture of this host, as Lambda calls it.
	Architecture string
	// Hosts are the host:port of the own registry, and Domains its names, with
	// whatever port; both beside ECR's form account.dkr.ecr.region.domain.
	Hosts, Domains []string
	// ConfigFile has the credentials and mirrors of remote registries, in the
	// form of docker's config.json. It need not be there.
	ConfigFile string
	// Transport carries requests to remote registries; nil means a new one.
	Transport http.RoundTripper
}

// Store finds and prepares images. It is safe for concurrent use.
type Store struct {
	opts  Options
	slots chan struct{}
}

// New returns a Store.
func New(opts Options) *Store {
	if opts.Transport == nil {
		opts.Transport = newTransport()
	}
	return &Store{opts: opts, slots: make(chan struct{}, atOnce)}
}

// Image is an image as a function version keeps it: all that must be known to
// find it again and to start it.
type Image struct {
	URI string `json:"uri"` // as it was asked for
	// Host is the remote registry; empty means Lapwing's own.
	Host       string   `json:"host,omitempty"`
	Repository string   `json:"repository"`
	Digest     string   `json:"digest"`   // of the manifest: sha256:…
	Resolved   string   `json:"resolved"` // URI by digest
	Root       string   `json:"root"`     // name of its root file system in package image
	Settings   Settings `json:"settings"`
}

// Settings is what an image says of its processes, as far as Lambda heeds it.
type Settings struct {
	EntryPoint       []string          `json:"entryPoint,omitempty"`
	Command          []string          `json:"command,omitempty"`
	WorkingDirectory string            `json:"workingDirectory"` // absolute
	Env              map[string]string `json:"env,omitempty"`
}

// Resolve finds the image that a URI names at this moment. here is the host by
// which the client reached Lapwing; empty: unknown.
func (s *Store) Resolve(ctx context.Context, uri, here string) (Image, error) {
	ref, err := s.parseURI(uri, here)
	if err != nil {
		return Image{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, resolveTimeout, &Error{Unreachable, errors.New("the registry did not answer in time")})
	defer cancel()
	src, err := s.source(ref)
	if err != nil {
		return Image{}, err
	}
	body, mediaType, err := src.manifest(ctx, ref.identifier())
	if err != nil {
		return Image{}, err
	}
	// As on AWS, an image in ECR must be one, not an index of several. Other
	// registries, which AWS does not read, are full of those.
	if isIndex(mediaType) && ref.host != "" {
		chosen, err := choose(body, s.opts.Architecture)
		if err != nil {
			return Image{}, err
		}
		if body, mediaType, err = src.manifest(ctx, chosen.Digest.String()); err != nil {
			return Image{}, err
		}
	}
	p, err := s.read(ctx, src, body, mediaType)
	if err != nil {
		return Image{}, err
	}
	repository, _, _ := strings.Cut(uri, "@")
	if slash, colon := strings.LastIndexByte(repository, '/'), strings.LastIndexByte(repository, ':'); colon > slash {
		repository = repository[:colon]
	}
	d := digest.FromBytes(body)
	return Image{
		URI: uri, Host: ref.host, Repository: ref.repository, Digest: d.String(), Resolved: repository + "@" + d.String(),
		Root: rootName(p.config.RootFS.DiffIDs), Settings: settingsOf(p.config),
	}, nil
}

// source returns where the parts of an image come from.
func (s *Store) source(ref reference) (source, error) {
	if ref.host == "" {
		return localSource{s.opts.Local, ref.repository}, nil
	}
	r, err := s.remoteSource(ref)
	return cachedSource{r, s.opts.Blobs}, err
}

// parts are an image's documents.
type parts struct {
	manifest oci.Manifest
	config   oci.Image
}

// read reads what a manifest refers to, but for the layers.
func (s *Store) read(ctx context.Context, src source, body []byte, mediaType string) (p parts, err error) {
	if p.manifest, err = parseManifest(body, mediaType); err != nil {
		return p, err
	}
	r, err := src.blob(ctx, p.manifest.Config)
	if err != nil {
		return p, err
	}
	defer r.Close()
	config, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return p, fmt.Errorf("container: configuration: %w", err)
	}
	if digest.FromBytes(config) != p.manifest.Config.Digest {
		return p, fail(Invalid, "the configuration does not have the digest %s", p.manifest.Config.Digest)
	}
	p.config, err = parseConfig(config, len(p.manifest.Layers))
	return p, err
}

// rootName names the root file system that layers with these digests make.
func rootName(layers []digest.Digest) string {
	h := sha256.New()
	io.WriteString(h, "lapwing container root 1\n")
	for _, d := range layers {
		io.WriteString(h, string(d)+"\n")
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Prepare makes an image's root file system, or finds it. The image must still
// be in our own registry, if it came from there; from a remote one it need not
// be asked for once it has been pulled.
func (s *Store) Prepare(ctx context.Context, img Image) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := again(ctx, func() error { return s.prepare(ctx, img) })
	if !Is(err, Invalid) || img.Host == "" {
		return err
	}
	// Perhaps it is what we keep that is broken, and not the image.
	damaged, check := s.dropDamaged(img)
	if check != nil || !damaged {
		return errors.Join(err, check)
	}
	return again(ctx, func() error { return s.prepare(ctx, img) })
}

// dropDamaged removes those blobs of an image that do not have their digests any
// more.
func (s *Store) dropDamaged(img Image) (damaged bool, err error) {
	kept, err := s.keptBlobs(img)
	for blob := range kept {
		if s.opts.Blobs.Verify(blob) != nil {
			damaged, err = true, errors.Join(err, s.opts.Blobs.Delete(blob))
		}
	}
	return damaged, err
}

// keptBlobs are the blobs of an image from a remote registry, as far as its
// manifest is there.
func (s *Store) keptBlobs(img Image) (map[state.Digest]bool, error) {
	d := digest.Digest(img.Digest)
	blobs := map[state.Digest]bool{state.Digest(d.Encoded()): true}
	body, err := cachedSource{blobs: s.opts.Blobs}.cached(d)
	if err != nil {
		return blobs, nil // it is pulled again when it is needed
	}
	m, err := parseManifest(body, mediaTypeOf(body))
	for _, part := range append(m.Layers, m.Config) {
		blobs[state.Digest(part.Digest.Encoded())] = true
	}
	return blobs, err
}

func (s *Store) prepare(ctx context.Context, img Image) error {
	src, err := s.source(reference{host: img.Host, repository: img.Repository})
	if err != nil {
		return err
	}
	body, mediaType, err := src.manifest(ctx, img.Digest)
	if err != nil {
		return err
	}
	if digest.FromBytes(body) != digest.Digest(img.Digest) {
		return fail(Invalid, "the manifest does not have the digest %s", img.Digest)
	}
	p, err := s.read(ctx, src, body, mediaType)
	if err != nil {
		return err
	}
	if os, arch := p.config.OS, p.config.Architecture; os != "linux" || arch != goArchitecture(s.opts.Architecture) {
		return fail(Architecture, "the image is for %s/%s, this host runs linux/%s", os, arch, goArchitecture(s.opts.Architecture))
	}
	var layers []image.Layer
	for i, d := range p.manifest.Layers {
		layers = append(layers, func(ctx context.Context) (io.ReadCloser, error) {
			return openLayer(ctx, src, d, p.config.RootFS.DiffIDs[i])
		})
	}
	err = s.opts.Images.Flatten(ctx, img.Root, layers, mountPoints())
	if _, ok := errors.AsType[*image.Error](err); ok {
		return &Error{Invalid, err}
	}
	if errors.Is(err, image.ErrTooLarge) {
		return fail(TooLarge, "the image has more than %d bytes uncompressed", int64(maxSize))
	}
	return err
}

// Has tells whether an image's root file system is there.
func (s *Store) Has(img Image) bool { return s.opts.Images.Has(img.Root) }

// mountPoints are what every sandbox mounts on an image's root: its own, and an
// environment's name resolution.
func mountPoints() image.MountPoints {
	return image.MountPoints{Dirs: sandbox.RootDirs, Files: append([]string{"/etc/resolv.conf", "/etc/hosts"}, sandbox.RootFiles...)}
}

// Collect removes what was pulled for images other than the given ones. None may
// be resolved meanwhile; what is prepared must be among them.
func (s *Store) Collect(ctx context.Context, used []Image) error {
	kept := map[state.Digest]bool{}
	for _, img := range used {
		if img.Host == "" {
			continue
		}
		blobs, err := s.keptBlobs(img)
		if err != nil {
			return err
		}
		maps.Copy(kept, blobs)
	}
	for blob, err := range s.opts.Blobs.All() {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && !kept[blob] {
			err = s.opts.Blobs.Delete(blob)
		}
		if err != nil {
			return fmt.Errorf("container: collect: %w", err)
		}
	}
	return nil
}
