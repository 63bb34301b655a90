package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// How often, and with which pauses, a registry that cannot be reached is tried.
const (
	pullAttempts = 3
	retryPause   = 2 * time.Second // times the attempts so far
)

// remoteSource reads from a remote registry, or a mirror that has the image.
type remoteSource struct {
	candidates []candidate
	repository string
	transport  http.RoundTripper
}

// manifest implements source. The limit of its size is the library's, 4 MiB.
func (s *remoteSource) manifest(ctx context.Context, identifier string) (body []byte, mediaType string, err error) {
	err = s.each(ctx, func(repo name.Repository, opts []remote.Option) error {
		ref, err := name.ParseReference(repo.Name()+separator(identifier)+identifier, scheme(repo)...)
		if err != nil {
			return &Error{InvalidURI, err}
		}
		d, err := remote.Get(ref, opts...)
		if err != nil {
			return remoteError(ctx, err)
		}
		body, mediaType = d.Manifest, string(d.MediaType)
		return nil
	})
	return body, mediaType, err
}

// scheme makes a reference go to its registry as its repository does.
func scheme(repo name.Repository) []name.Option {
	if repo.Scheme() == "http" {
		return []name.Option{name.Insecure}
	}
	return nil
}

func separator(identifier string) string {
	for _, c := range identifier {
		if c == ':' {
			return "@"
		}
	}
	return ":"
}

// blob implements source.
func (s *remoteSource) blob(ctx context.Context, d oci.Descriptor) (r io.ReadCloser, err error) {
	err = s.each(ctx, func(repo name.Repository, opts []remote.Option) error {
		layer, err := remote.Layer(repo.Digest(d.Digest.String()), opts...)
		if err != nil {
			return remoteError(ctx, err)
		}
		r, err = layer.Compressed()
		return remoteError(ctx, err)
	})
	return r, err
}

// each tries the candidates in their order until one has what is wanted.
func (s *remoteSource) each(ctx context.Context, get func(name.Repository, []remote.Option) error) error {
	var errs []error
	for _, c := range s.candidates {
		var how []name.Option
		if c.plain {
			how = append(how, name.Insecure)
		}
		repo, err := name.NewRepository(c.host+"/"+s.repository, how...)
		if err != nil {
			return &Error{InvalidURI, err}
		}
		err = get(repo, []remote.Option{remote.WithContext(ctx), remote.WithAuth(c.auth), remote.WithTransport(s.transport), remote.WithUserAgent("lapwing")})
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errs[len(errs)-1] // of the registry itself
}

// remoteError tells what an error of a remote registry means.
func remoteError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errStalled) {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		switch e.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return &Error{AccessDenied, err}
		case http.StatusNotFound:
			return &Error{NotFound, err}
		}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Unreachable, err}
}

// remoteSource returns the source of an image in a remote registry.
func (s *Store) remoteSource(ref reference) (*remoteSource, error) {
	config, err := readRegistries(s.opts.ConfigFile)
	if err != nil {
		return nil, err
	}
	return &remoteSource{config.candidates(ref.host), ref.repository, namedTransport{s.opts.Transport, config.named()}}, nil
}

// again runs pull until it works, or fails for another reason than that a
// registry could not be reached, or has failed too often.
func again(ctx context.Context, pull func() error) error {
	for n := 1; ; n++ {
		err := pull()
		if n == pullAttempts || !Is(err, Unreachable) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(retryPause * time.Duration(n)):
		}
	}
}
