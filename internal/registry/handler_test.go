package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
)

func randomImage(t *testing.T, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(1024, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, img interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (c *client) push(s string, img v1.Image) {
	c.t.Helper()
	if err := remote.Write(c.ref(s), img, c.auth()...); err != nil {
		c.t.Fatalf("push %s: %v", s, err)
	}
}

func TestWhatIsPushedCanBePulled(t *testing.T) {
	c := newClient(t, "app", "team/app")
	for media, change := range map[string]func(v1.Image) v1.Image{
		"docker": func(img v1.Image) v1.Image { return img },
		"oci": func(img v1.Image) v1.Image {
			return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
		},
	} {
		img := change(randomImage(t, 3))
		c.push("team/app:"+media, img)
		for _, ref := range []string{"team/app:" + media, "team/app@" + digestOf(t, img).String()} {
			pulled, err := remote.Image(c.ref(ref), c.auth()...)
			if err != nil {
				t.Fatalf("%s: %v", ref, err)
			}
			if err := validate.Image(pulled); err != nil {
				t.Errorf("%s: %v", ref, err)
			}
			if digestOf(t, pulled) != digestOf(t, img) {
				t.Errorf("%s: another image came back", ref)
			}
		}
	}
	_, err := remote.Image(c.ref("app:docker"), c.auth()...)
	refused(t, err, 404, "MANIFEST_UNKNOWN", "does not exist within the repository with name 'app'")
}

func TestIndexesNeedTheirManifests(t *testing.T) {
	c := newClient(t, "app")
	index, err := random.Index(512, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	res := c.do("PUT", "/v2/app/manifests/multi", string(raw), "Content-Type", string(types.OCIImageIndex))
	if res.StatusCode != 400 {
		t.Errorf("an index without its manifests: %s", res.Status)
	}
	if err := remote.WriteIndex(c.ref("app:multi"), index, c.auth()...); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Index(c.ref("app:multi"), c.auth()...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(pulled); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	child := c.ref("app@" + manifest.Manifests[0].Digest.String())
	refused(t, remote.Delete(child, c.auth()...), 403, "DENIED", "referenced by manifest list")
	if err := remote.Delete(c.ref("app:multi"), c.auth()...); err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(child, c.auth()...); err != nil {
		t.Errorf("without the index: %v", err)
	}
}

func TestLayersAreMountedFromOtherRepositories(t *testing.T) {
	c := newClient(t, "base", "app")
	img := randomImage(t, 2)
	c.push("base:1", img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	d := digestOf(t, layers[0]).String()
	if res := c.do("HEAD", "/v2/app/blobs/"+d, ""); res.StatusCode != 404 {
		t.Errorf("a layer of another repository: %s", res.Status)
	}
	if res := c.do("POST", "/v2/app/blobs/uploads/?mount="+d+"&from=base", ""); res.StatusCode != 201 || !strings.HasSuffix(res.Header.Get("Location"), "/v2/app/blobs/"+d) {
		t.Errorf("mount: %s to %s", res.Status, res.Header.Get("Location"))
	}
	if res := c.do("HEAD", "/v2/app/blobs/"+d, ""); res.StatusCode != 200 || res.ContentLength <= 0 {
		t.Errorf("after the mount: %s, %d bytes", res.Status, res.ContentLength)
	}
	for _, from := range []string{"none", "app"} {
		other := digest.FromString("x").String()
		if res := c.do("POST", "/v2/app/blobs/uploads/?mount="+other+"&from="+from, ""); res.StatusCode != 202 {
			t.Errorf("what cannot be mounted is uploaded, but from %s: %s", from, res.Status)
		}
	}
	// The tool does it by itself.
	pulled, err := remote.Image(c.ref("base:1"), c.auth()...)
	if err != nil {
		t.Fatal(err)
	}
	c.push("app:1", pulled)
}

func TestReferrersAreFoundByTheirSubject(t *testing.T) {
	c := newClient(t, "app")
	img := randomImage(t, 1)
	c.push("app:1", img)
	subject, err := remote.Head(c.ref("app:1"), c.auth()...)
	if err != nil {
		t.Fatal(err)
	}
	for i, kind := range []string{"application/vnd.sbom", "application/vnd.signature"} {
		about := mutate.Annotations(mutate.ConfigMediaType(mutate.MediaType(randomImage(t, 1), types.OCIManifestSchema1), types.MediaType(kind)), map[string]string{"n": fmt.Sprint(i)})
		signed := mutate.Subject(about.(v1.Image), *subject).(v1.Image)
		c.push("app@"+digestOf(t, signed).String(), signed)
	}
	repo := c.ref("app:1").Context()
	index, err := remote.Referrers(repo.Digest(subject.Digest.String()), c.auth()...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 2 {
		t.Fatalf("referrers are %+v, %v", manifest, err)
	}
	res := c.do("GET", "/v2/app/referrers/"+subject.Digest.String()+"?artifactType=application/vnd.sbom", "")
	if res.StatusCode != 200 || res.Header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered: %s, %v", res.Status, res.Header)
	}
	found, err := c.r.Referrers("app", digest.Digest(subject.Digest.String()))
	if err != nil || len(found) != 2 || found[0].Annotations["n"] == "" || found[0].ArtifactType == "" {
		t.Errorf("found %+v, %v", found, err)
	}
	if res := c.do("GET", "/v2/app/referrers/"+digest.FromString("x").String(), ""); res.StatusCode != 200 {
		t.Errorf("of nothing: %s", res.Status)
	}
}

func TestTagsAreListedInPages(t *testing.T) {
	c := newClient(t, "app")
	img := randomImage(t, 1)
	c.push("app:t0", img)
	for i := 1; i < 7; i++ {
		if err := remote.Tag(c.ref("app:t0").Context().Tag(fmt.Sprint("t", i)), img, c.auth()...); err != nil {
			t.Fatal(err)
		}
	}
	tags, err := remote.List(c.ref("app:t0").Context(), append(c.auth(), remote.WithPageSize(3))...)
	if err != nil || !slices.Equal(tags, []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6"}) {
		t.Errorf("tags are %v, %v", tags, err)
	}
	if res := c.do("GET", "/v2/app/tags/list?n=x", ""); res.StatusCode != 400 {
		t.Errorf("n=x: %s", res.Status)
	}
	repositories, err := remote.Catalog(t.Context(), c.ref("app:t0").Context().Registry, c.auth()...)
	if err != nil || !slices.Equal(repositories, []string{"app"}) {
		t.Errorf("repositories are %v, %v", repositories, err)
	}
}

func TestDeletingATagKeepsTheImageWhileAnotherTagPointsToIt(t *testing.T) {
	c := newClient(t, "app")
	img := randomImage(t, 1)
	c.push("app:a", img)
	c.push("app:b", img)
	byDigest := c.ref("app@" + digestOf(t, img).String())
	if err := remote.Delete(c.ref("app:a"), c.auth()...); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(byDigest, c.auth()...); err != nil {
		t.Errorf("with a tag left: %v", err)
	}
	if err := remote.Delete(c.ref("app:b"), c.auth()...); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Image(byDigest, c.auth()...); err == nil {
		t.Error("without a tag it is still there")
	}
	refused(t, remote.Delete(byDigest, c.auth()...), 404, "MANIFEST_UNKNOWN", "does not exist")
}

func TestPushIsRefusedInECRsWords(t *testing.T) {
	c := newClient(t, "app")
	refused(t, remote.Write(c.ref("none:1"), randomImage(t, 1), c.auth()...), 404, "NAME_UNKNOWN",
		"The repository with name 'none' does not exist in the registry with id '"+account+"'")

	c.push("app:1", randomImage(t, 1))
	if _, err := c.r.ModifyRepository(t.Context(), "app", func(r *Repository) error { r.Mutability = Immutable; return nil }); err != nil {
		t.Fatal(err)
	}
	refused(t, remote.Write(c.ref("app:1"), randomImage(t, 1), c.auth()...), 400, "TAG_INVALID",
		"The image tag '1' already exists in the 'app' repository and cannot be overwritten because the repository is immutable.")
	c.push("app:2", randomImage(t, 1))

	img := randomImage(t, 1)
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path, body, mediaType string
		status                int
	}{
		"without its layers":  {"/v2/app/manifests/new", string(raw), string(types.DockerManifestSchema2), 400},
		"too large":           {"/v2/app/manifests/new", `{"schemaVersion":2` + strings.Repeat(" ", maxManifest) + "}", string(types.OCIManifestSchema1), 400},
		"not JSON":            {"/v2/app/manifests/new", "x", string(types.OCIManifestSchema1), 400},
		"of schema 1":         {"/v2/app/manifests/new", `{"schemaVersion":1}`, string(types.DockerManifestSchema1), 400},
		"of another type":     {"/v2/app/manifests/new", `{"schemaVersion":2}`, "text/plain", 400},
		"of another digest":   {"/v2/app/manifests/" + digest.FromString("x").String(), string(raw), string(types.DockerManifestSchema2), 400},
		"with a bad tag":      {"/v2/app/manifests/-x", string(raw), string(types.DockerManifestSchema2), 400},
		"with a bad name":     {"/v2/App/manifests/x", string(raw), string(types.DockerManifestSchema2), 400},
		"at no path":          {"/v2/app/other/x", string(raw), string(types.DockerManifestSchema2), 404},
		"by SHA-512 of layer": {"/v2/app/manifests/x", `{"schemaVersion":2,"config":{"digest":"` + digest.SHA512.FromString("x").String() + `","size":1}}`, string(types.OCIManifestSchema1), 400},
	} {
		if res := c.do("PUT", tt.path, tt.body, "Content-Type", tt.mediaType); res.StatusCode != tt.status {
			t.Errorf("a manifest %s: %s, want %d", name, res.Status, tt.status)
		}
	}
	if res := c.do("DELETE", "/v2/app/blobs/"+digest.FromString("x").String(), ""); res.StatusCode != 405 {
		t.Errorf("delete a layer: %s", res.Status)
	}
}

func TestOnlyTokensOpenTheRegistry(t *testing.T) {
	c := newClient(t, "app")
	_, err := remote.List(c.ref("app:1").Context(), c.options("old")...)
	refused(t, err, 403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	_, err = remote.List(c.ref("app:1").Context(), c.options("bad")...)
	refused(t, err, 401, "UNAUTHORIZED", "Not Authorized")
	res := c.do("GET", "/v2/", "", "Authorization", "Bearer x")
	if want := `Basic realm="https://` + account + `.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com"`; res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") != want {
		t.Errorf("challenge is %s, %q", res.Status, res.Header.Get("WWW-Authenticate"))
	}
	if res := c.do("GET", "/v2/", ""); res.StatusCode != 200 || res.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("the base is %s", res.Status)
	}
}

func TestUploadsComeInChunksInOrder(t *testing.T) {
	c := newClient(t, "app")
	const content = "hello, layers"
	d := digest.FromString(content).String()
	start := c.do("POST", "/v2/app/blobs/uploads/", "")
	at := start.Header.Get("Location")
	if start.StatusCode != 202 || at == "" {
		t.Fatalf("start: %s, %v", start.Status, start.Header)
	}
	steps := []struct {
		method, path, body, contentRange string
		status                           int
		have                             string
	}{
		{"PATCH", at, "hello", "0-4", 202, "0-4"},
		{"PATCH", at, "hello", "0-4", 416, "0-4"},
		{"PATCH", at, "layers", "7-12", 416, "0-4"},
		{"PATCH", at, ", ", "5-7", 400, ""},
		{"PATCH", at, ", ", "x", 400, ""},
		{"PATCH", at, ", ", "bytes 5-6/*", 202, "0-6"},
		{"GET", at, "", "", 204, "0-6"},
		{"PUT", at, "layers", "", 400, ""},
		{"PUT", at + "?digest=" + d, "layers", "7-12", 201, ""},
		{"GET", at, "", "", 404, ""},
	}
	for _, s := range steps {
		var header []string
		if s.contentRange != "" {
			header = []string{"Content-Range", s.contentRange}
		}
		res := c.do(s.method, s.path, s.body, header...)
		if res.StatusCode != s.status || s.have != "" && res.Header.Get("Range") != s.have {
			t.Errorf("%s %q of %s: %s, %q; want %d, %q", s.method, s.body, s.contentRange, res.Status, res.Header.Get("Range"), s.status, s.have)
		}
	}
	res := c.do("GET", "/v2/app/blobs/"+d, "", "Range", "bytes=7-12")
	if res.StatusCode != 206 || res.ContentLength != 6 {
		t.Errorf("a range of the layer: %s, %d bytes", res.Status, res.ContentLength)
	}
	if res := c.do("POST", "/v2/app/blobs/uploads/?digest="+digest.FromString("all").String(), "all"); res.StatusCode != 201 {
		t.Errorf("all at once: %s", res.Status)
	}
	c.nothingUnderWay()
}

// nothingUnderWay checks that no upload is left.
func (c *client) nothingUnderWay() {
	c.t.Helper()
	entries, err := os.ReadDir(c.r.opts.Dir)
	if err != nil || len(entries) != 0 {
		c.t.Errorf("left are %v, %v", entries, err)
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if len(c.r.uploads) != 0 {
		c.t.Errorf("%d uploads are under way", len(c.r.uploads))
	}
}

func TestUploadsThatFailLeaveNothing(t *testing.T) {
	c := newClient(t, "app")
	other := digest.FromString("other").String()
	if res := c.do("POST", "/v2/app/blobs/uploads/?digest="+other, "content"); res.StatusCode != 400 {
		t.Errorf("all at once with another digest: %s", res.Status)
	}
	at := c.do("POST", "/v2/app/blobs/uploads/", "").Header.Get("Location")
	if res := c.do("PUT", at+"?digest="+other, "content"); res.StatusCode != 400 {
		t.Errorf("another digest: %s", res.Status)
	}
	at = c.do("POST", "/v2/app/blobs/uploads/", "").Header.Get("Location")
	if res := c.do("DELETE", at, ""); res.StatusCode != 204 {
		t.Errorf("cancel: %s", res.Status)
	}
	c.nothingUnderWay()
	for d := range c.r.blobs.All() {
		t.Errorf("blob %s is there", d)
	}

	// A client that goes away in the middle of a chunk.
	id, err := c.r.StartUpload("app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.Append(t.Context(), "app", id, 0, strings.NewReader("whole,")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.Append(t.Context(), "app", id, -1, io.MultiReader(strings.NewReader("half"), broken{})); err == nil {
		t.Error("a broken chunk was taken")
	}
	if size, err := c.r.UploadSize(t.Context(), "app", id); size != 6 || err != nil {
		t.Errorf("%d bytes are there, %v", size, err)
	}
	if _, err := c.r.Append(t.Context(), "app", id, 6, strings.NewReader("again")); err != nil {
		t.Fatal(err)
	}
	want := digest.FromString("whole,again")
	if _, err := c.r.FinishUpload(t.Context(), "app", id, want); err != nil {
		t.Error(err)
	}
	f, err := c.r.OpenLayer("app", want)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, []byte("whole,again")) {
		t.Errorf("the layer is %q, %v", b, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHostNamesMeanNothing(t *testing.T) {
	c := newClient(t, "app")
	c.push("app:1", randomImage(t, 1))
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+c.host+"/v2/app/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = account + ".dkr.ecr.us-east-1.amazonaws.com"
	req.SetBasicAuth("AWS", "good")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("by another name: %s", res.Status)
	}
}
