package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	oci "github.com/opencontainers/image-spec/specs-go/v1"

	"lapwing.dev/lapwing/internal/registry"
	"lapwing.dev/lapwing/internal/state"
)

// source is where the parts of one image come from.
type source interface {
	// manifest returns the manifest that a tag or digest names. It has its
	// digest.
	manifest(ctx context.Context, identifier string) (body []byte, mediaType string, err error)
	// blob opens a layer or configuration. What it reads need not be what the
	// descriptor says.
	blob(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error)
}

// Local is Lapwing's own registry. Package registry's Registry implements it.
type Local interface {
	Image(repository string, ref registry.Reference) (registry.Image, error)
	Manifest(img registry.Image) ([]byte, error)
	OpenLayer(repository string, d digest.Digest) (*os.File, error)
}

// localSource reads our own registry.
type localSource struct {
	registry   Local
	repository string
}

func (l localSource) manifest(_ context.Context, identifier string) ([]byte, string, error) {
	ref, err := registry.ParseReference(identifier)
	if err != nil {
		return nil, "", localError(err)
	}
	img, err := l.registry.Image(l.repository, ref)
	if err != nil {
		return nil, "", localError(err)
	}
	body, err := l.registry.Manifest(img)
	return body, img.MediaType, localError(err)
}

func (l localSource) blob(_ context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	f, err := l.registry.OpenLayer(l.repository, d.Digest)
	if err != nil {
		return nil, localError(err)
	}
	return f, nil
}

// localError puts an error of our own registry into the words of this package.
func localError(err error) error {
	if e, ok := errors.AsType[*registry.Error](err); ok {
		return &Error{NotFound, e}
	}
	if errors.Is(err, state.ErrNotFound) { // deleted since it was found
		return &Error{NotFound, err}
	}
	return err
}

// cachedSource keeps what it reads from a remote registry, by digest, and reads
// it only once.
type cachedSource struct {
	remote *remoteSource
	blobs  *state.Blobs
}

func (c cachedSource) manifest(ctx context.Context, identifier string) ([]byte, string, error) {
	if d := digest.Digest(identifier); d.Validate() == nil {
		if body, err := c.cached(d); err == nil {
			return body, mediaTypeOf(body), nil
		}
	}
	body, mediaType, err := c.remote.manifest(ctx, identifier)
	if err == nil {
		err = c.keep(ctx, digest.FromBytes(body), bytes.NewReader(body))
	}
	return body, mediaType, err
}

// cached reads a manifest that has been kept.
func (c cachedSource) cached(d digest.Digest) ([]byte, error) {
	f, err := c.blobs.Open(state.Digest(d.Encoded()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err == nil && digest.FromBytes(body) != d {
		err = fmt.Errorf("blob %s is damaged", d)
	}
	return body, err
}

func (c cachedSource) blob(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	f, err := c.blobs.Open(state.Digest(d.Digest.Encoded()))
	if err == nil || !errors.Is(err, state.ErrNotFound) {
		return f, err
	}
	r, err := c.remote.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	err = errors.Join(c.keep(ctx, d.Digest, io.LimitReader(r, d.Size+1)), r.Close())
	if err != nil {
		return nil, err
	}
	return c.blobs.Open(state.Digest(d.Digest.Encoded()))
}

// keep stores what has a digest, and nothing else.
func (c cachedSource) keep(ctx context.Context, d digest.Digest, r io.Reader) error {
	in := &failingReader{r: r}
	staged, err := c.blobs.Stage(ctx, in)
	switch {
	case in.err != nil:
		return remoteError(ctx, in.err)
	case err != nil:
		return err
	case string(staged.Digest) != d.Encoded():
		return errors.Join(fail(Invalid, "the registry sent content of the digest sha256:%s for %s", staged.Digest, d), staged.Discard())
	}
	return staged.Commit()
}

// failingReader keeps the error of a connection apart from those of this host.
type failingReader struct {
	r   io.Reader
	err error
}

func (f *failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
