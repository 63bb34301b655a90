package harness

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Layer makes a layer of files by name, as Zip does.
func Layer(files map[string]string) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name]))}
		if n := len(name) - 1; name[n] == '*' {
			h.Name, h.Mode = name[:n], 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

// Image makes a container image of this machine's architecture.
func Image(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config = "linux", runtime.GOARCH, config
	return mutate.ConfigFile(img, c)
}

// Repository makes a repository in the server's registry. It returns its URI and
// what opens it.
func (s *Server) Repository(ctx context.Context, repo string) (uri string, auth authn.Authenticator, err error) {
	c := ecr.NewFromConfig(s.Config())
	created, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repo})
	if err != nil {
		return "", nil, err
	}
	issued, err := c.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(*issued.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		return "", nil, err
	}
	user, password, _ := strings.Cut(string(plain), ":")
	return *created.Repository.RepositoryUri, &authn.Basic{Username: user, Password: password}, nil
}

// Push pushes an image as crane does.
func Push(ctx context.Context, uri string, auth authn.Authenticator, img v1.Image) error {
	ref, err := name.ParseReference(uri)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx), remote.WithAuth(auth))
}
