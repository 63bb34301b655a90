package conformance_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// skopeo pushes and pulls by the library of Podman and Buildah, after a login
// with the password of GetAuthorizationToken, as AWS documents it for docker.
func TestSkopeoPushesPullsAndDeletes_Conformance(t *testing.T) {
	needs(t, "skopeo")
	c := ecr.NewFromConfig(server.Config())
	created, err := c.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: aws.String("conformance/skopeo")})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := c.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := base64.StdEncoding.DecodeString(*issued.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		t.Fatal(err)
	}
	_, password, _ := strings.Cut(string(plain), ":")
	uri := *created.Repository.RepositoryUri
	host, _, _ := strings.Cut(uri, "/")
	dir := t.TempDir()
	auth := filepath.Join(dir, "auth.json")

	img, err := random.Image(3<<20, 3)
	if err != nil {
		t.Fatal(err)
	}
	var index v1.ImageIndex
	if index, err = random.Index(1<<10, 2, 2); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(layout.Path) error{
		"image": func(p layout.Path) error { return p.AppendImage(img) },
		"index": func(p layout.Path) error { return p.AppendIndex(index) },
	} {
		p, err := layout.Write(filepath.Join(dir, name), empty.Index)
		if err == nil {
			err = write(p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	skopeo(t, password, "login", "--authfile", auth, "--tls-verify=false", "--username", "AWS", "--password-stdin", host)
	for _, name := range []string{"image", "index"} {
		skopeo(t, "", "copy", "--authfile", auth, "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:"+filepath.Join(dir, name), "docker://"+uri+":"+name)
		skopeo(t, "", "copy", "--authfile", auth, "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+uri+":"+name, "oci:"+filepath.Join(dir, name+"-back"))
	}
	if d, err := img.Digest(); err != nil {
		t.Error(err)
	} else if got := skopeo(t, "", "inspect", "--authfile", auth, "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+uri+":image"); got != d.String() {
		t.Errorf("digest is %s, want %s", got, d)
	}
	if tags := skopeo(t, "", "list-tags", "--authfile", auth, "--tls-verify=false", "docker://"+uri); !strings.Contains(tags, `"image"`) || !strings.Contains(tags, `"index"`) {
		t.Errorf("tags are %s", tags)
	}
	skopeo(t, "", "delete", "--authfile", auth, "--tls-verify=false", "docker://"+uri+":image")
	left, err := c.ListImages(t.Context(), &ecr.ListImagesInput{RepositoryName: created.Repository.RepositoryName})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range left.ImageIds {
		if aws.ToString(id.ImageTag) == "image" {
			t.Error("the deleted image is still there")
		}
	}
}

// skopeo runs the tool and returns what it printed.
func skopeo(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "skopeo", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		t.Fatalf("skopeo %s: %v\n%s\nserver:\n%s", args[0], err, failed.String(), server.Log())
	}
	return strings.TrimSpace(out.String())
}
