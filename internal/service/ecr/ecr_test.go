package ecr_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	client "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/ecr"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/registry"
	"lapwing.dev/lapwing/internal/service/ecr"
	"lapwing.dev/lapwing/test/servicetest"
)

// newClient returns an SDK client of the service and the registry behind one
// gateway, and the gateway's URL.
func newClient(t *testing.T) (*client.Client, string) {
	t.Helper()
	i := servicetest.New(t)
	r, err := registry.Open(t.Context(), registry.Options{
		Store: i.Store, Dir: filepath.Join(i.Dir, "uploads"), AccountID: i.Credentials.AccountID(), Region: "us-east-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	cfg := i.Serve(gateway.Options{
		Services: []*aws.Service{api.NewService(ecr.New(r, i.Credentials, nil))}, Region: "us-east-1",
		Registry: r.Handler(registry.HandlerOptions{Authenticate: i.Credentials.CheckRegistryToken}),
	})
	return client.NewFromConfig(cfg), *cfg.BaseEndpoint
}

func ptr[T any](v T) *T { return &v }

func create(t *testing.T, c *client.Client, name string) *types.Repository {
	t.Helper()
	out, err := c.CreateRepository(t.Context(), &client.CreateRepositoryInput{RepositoryName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return out.Repository
}

// push pushes a random image the way that container tools do, with the password
// of GetAuthorizationToken.
func push(t *testing.T, c *client.Client, ref string) v1.Image {
	t.Helper()
	token, err := c.GetAuthorizationToken(t.Context(), &client.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := base64.StdEncoding.DecodeString(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := strings.Cut(string(plain), ":")
	img, err := random.Image(512, 2)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img, remote.WithContext(t.Context()), remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		t.Fatal(err)
	}
	return img
}

func refused(t *testing.T, what string, err error, code, words string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), words) {
		t.Errorf("%s: %v, want %s with %q", what, err, code, words)
	}
}

func TestRepositoriesAreMadeDescribedAndDeleted(t *testing.T) {
	c, base := newClient(t)
	repo := create(t, c, "team/app")
	host := strings.TrimPrefix(base, "http://")
	if *repo.RepositoryUri != host+"/team/app" || !strings.HasSuffix(*repo.RepositoryArn, ":repository/team/app") || repo.ImageTagMutability != types.ImageTagMutabilityMutable {
		t.Errorf("repository is %s, %s, %s", *repo.RepositoryUri, *repo.RepositoryArn, repo.ImageTagMutability)
	}
	for i := range 3 {
		create(t, c, fmt.Sprint("other-", i))
	}
	var names []string
	for p := client.NewDescribeRepositoriesPaginator(c, &client.DescribeRepositoriesInput{MaxResults: ptr(int32(3))}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Repositories {
			names = append(names, *r.RepositoryName)
		}
	}
	if !slices.Equal(names, []string{"other-0", "other-1", "other-2", "team/app"}) {
		t.Errorf("repositories are %v", names)
	}
	_, err := c.CreateRepository(t.Context(), &client.CreateRepositoryInput{RepositoryName: ptr("team/app")})
	refused(t, "again", err, "RepositoryAlreadyExistsException", "The repository with name 'team/app' already exists in the registry with id")
	_, err = c.CreateRepository(t.Context(), &client.CreateRepositoryInput{RepositoryName: ptr("App")})
	refused(t, "a bad name", err, "InvalidParameterException", "repositoryName")
	_, err = c.CreateRepository(t.Context(), &client.CreateRepositoryInput{RepositoryName: ptr("scan"), ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: true}})
	refused(t, "scanning", err, "InvalidParameterException", "scanOnPush")
	_, err = c.CreateRepository(t.Context(), &client.CreateRepositoryInput{RepositoryName: ptr("kms"), EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeKms}})
	refused(t, "a key", err, "InvalidParameterException", "KMS")

	push(t, c, *repo.RepositoryUri+":1")
	_, err = c.DeleteRepository(t.Context(), &client.DeleteRepositoryInput{RepositoryName: repo.RepositoryName})
	refused(t, "with an image", err, "RepositoryNotEmptyException", "cannot be deleted because it still contains images")
	if _, err = c.DeleteRepository(t.Context(), &client.DeleteRepositoryInput{RepositoryName: repo.RepositoryName, Force: true}); err != nil {
		t.Error(err)
	}
	_, err = c.DescribeRepositories(t.Context(), &client.DescribeRepositoriesInput{RepositoryNames: []string{"team/app"}})
	refused(t, "deleted", err, "RepositoryNotFoundException", "The repository with name 'team/app' does not exist in the registry with id")
}

func TestPushedImagesAreListedDescribedAndDeleted(t *testing.T) {
	c, _ := newClient(t)
	repo := create(t, c, "app")
	img := push(t, c, *repo.RepositoryUri+":1")
	push(t, c, *repo.RepositoryUri+":2")
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for p := client.NewListImagesPaginator(c, &client.ListImagesInput{RepositoryName: ptr("app"), MaxResults: ptr(int32(1))}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		listed += len(out.ImageIds)
	}
	if listed != 2 {
		t.Errorf("%d images are listed", listed)
	}
	described, err := c.DescribeImages(t.Context(), &client.DescribeImagesInput{RepositoryName: ptr("app"), ImageIds: []types.ImageIdentifier{{ImageTag: ptr("1")}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := described.ImageDetails[0]; *got.ImageDigest != d.String() || !slices.Equal(got.ImageTags, []string{"1"}) || *got.ImageSizeInBytes < 1024 {
		t.Errorf("described is %+v", got)
	}
	_, err = c.DescribeImages(t.Context(), &client.DescribeImagesInput{RepositoryName: ptr("app"), ImageIds: []types.ImageIdentifier{{ImageTag: ptr("none")}}})
	refused(t, "an unknown tag", err, "ImageNotFoundException", "The image with imageId {imageDigest:'null', imageTag:'none'} does not exist within the repository with name 'app'")

	got, err := c.BatchGetImage(t.Context(), &client.BatchGetImageInput{RepositoryName: ptr("app"), ImageIds: []types.ImageIdentifier{{ImageTag: ptr("1")}, {ImageTag: ptr("none")}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Images) != 1 || *got.Images[0].ImageManifest != string(raw) || len(got.Failures) != 2 ||
		got.Failures[0].FailureCode != types.ImageFailureCodeImageNotFound || got.Failures[1].FailureCode != types.ImageFailureCodeMissingDigestAndTag {
		t.Errorf("got %d images, %+v", len(got.Images), got.Failures)
	}
	// Tagging an image anew, as the ECR user guide has it.
	put := &client.PutImageInput{RepositoryName: ptr("app"), ImageManifest: got.Images[0].ImageManifest, ImageTag: ptr("stable")}
	if _, err := c.PutImage(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	_, err = c.PutImage(t.Context(), put)
	refused(t, "the same again", err, "ImageAlreadyExistsException", "and tag 'stable' already exists in the repository with name 'app'")

	gone, err := c.BatchDeleteImage(t.Context(), &client.BatchDeleteImageInput{RepositoryName: ptr("app"), ImageIds: []types.ImageIdentifier{{ImageDigest: ptr(d.String())}, {ImageTag: ptr("none")}}})
	if err != nil || len(gone.ImageIds) != 2 || len(gone.Failures) != 1 {
		t.Errorf("deleted are %+v, %v", gone, err)
	}
}

func TestImmutableTagsStay(t *testing.T) {
	c, _ := newClient(t)
	repo := create(t, c, "app")
	push(t, c, *repo.RepositoryUri+":1")
	push(t, c, *repo.RepositoryUri+":dev-1")
	manifest := func(tag string) *string {
		out, err := c.BatchGetImage(t.Context(), &client.BatchGetImageInput{RepositoryName: ptr("app"), ImageIds: []types.ImageIdentifier{{ImageTag: &tag}}})
		if err != nil {
			t.Fatal(err)
		}
		return out.Images[0].ImageManifest
	}
	_, err := c.PutImageTagMutability(t.Context(), &client.PutImageTagMutabilityInput{
		RepositoryName: ptr("app"), ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion,
		ImageTagMutabilityExclusionFilters: []types.ImageTagMutabilityExclusionFilter{{Filter: ptr("dev-*"), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PutImage(t.Context(), &client.PutImageInput{RepositoryName: ptr("app"), ImageManifest: manifest("dev-1"), ImageTag: ptr("1")})
	refused(t, "an immutable tag", err, "ImageTagAlreadyExistsException", "cannot be overwritten because the repository is immutable")
	if _, err = c.PutImage(t.Context(), &client.PutImageInput{RepositoryName: ptr("app"), ImageManifest: manifest("1"), ImageTag: ptr("dev-1")}); err != nil {
		t.Errorf("a tag that is excluded: %v", err)
	}
}

func TestLayersAreUploadedInParts(t *testing.T) {
	c, _ := newClient(t)
	create(t, c, "app")
	content := bytes.Repeat([]byte("layer "), 100_000)
	d := digest.FromBytes(content).String()
	up, err := c.InitiateLayerUpload(t.Context(), &client.InitiateLayerUploadInput{RepositoryName: ptr("app")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CompleteLayerUpload(t.Context(), &client.CompleteLayerUploadInput{RepositoryName: ptr("app"), UploadId: up.UploadId, LayerDigests: []string{d}})
	refused(t, "without parts", err, "EmptyUploadException", "no layer parts")
	for first := 0; first < len(content); first += 200_000 {
		last := first + 200_000 - 1
		part := &client.UploadLayerPartInput{RepositoryName: ptr("app"), UploadId: up.UploadId, PartFirstByte: ptr(int64(first)), PartLastByte: ptr(int64(last)), LayerPartBlob: content[first : last+1]}
		out, err := c.UploadLayerPart(t.Context(), part)
		if err != nil || *out.LastByteReceived != int64(last) {
			t.Fatalf("part at %d: %v", first, err)
		}
		_, err = c.UploadLayerPart(t.Context(), part)
		refused(t, "a part again", err, "InvalidLayerPartException", "")
	}
	if _, err := c.CompleteLayerUpload(t.Context(), &client.CompleteLayerUploadInput{RepositoryName: ptr("app"), UploadId: up.UploadId, LayerDigests: []string{d}}); err != nil {
		t.Fatal(err)
	}
	out, err := c.BatchCheckLayerAvailability(t.Context(), &client.BatchCheckLayerAvailabilityInput{
		RepositoryName: ptr("app"), LayerDigests: []string{d, digest.FromString("none").String(), "x"},
	})
	if err != nil || len(out.Layers) != 2 || out.Layers[0].LayerAvailability != types.LayerAvailabilityAvailable || *out.Layers[0].LayerSize != int64(len(content)) ||
		out.Layers[1].LayerAvailability != types.LayerAvailabilityUnavailable || len(out.Failures) != 1 {
		t.Errorf("layers are %+v, %v", out, err)
	}
	_, err = c.PutImage(t.Context(), &client.PutImageInput{RepositoryName: ptr("app"), ImageManifest: ptr(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"` + digest.FromString("none").String() + `"},"layers":[]}`)})
	refused(t, "an image without its layers", err, "LayersNotFoundException", "required for pushing image into repository with name 'app'")
	_, err = c.UploadLayerPart(t.Context(), &client.UploadLayerPartInput{RepositoryName: ptr("app"), UploadId: up.UploadId, PartFirstByte: ptr(int64(0)), PartLastByte: ptr(int64(0)), LayerPartBlob: []byte("x")})
	refused(t, "a finished upload", err, "UploadNotFoundException", "does not exist")
}

func TestPoliciesAndTagsAreKept(t *testing.T) {
	c, _ := newClient(t)
	repo := create(t, c, "app")
	name := repo.RepositoryName
	_, err := c.GetRepositoryPolicy(t.Context(), &client.GetRepositoryPolicyInput{RepositoryName: name})
	refused(t, "no policy", err, "RepositoryPolicyNotFoundException", "Repository policy does not exist for the repository with name 'app'")
	policy := `{"Version":"2012-10-17","Statement":[]}`
	if _, err := c.SetRepositoryPolicy(t.Context(), &client.SetRepositoryPolicyInput{RepositoryName: name, PolicyText: &policy}); err != nil {
		t.Fatal(err)
	}
	if out, err := c.DeleteRepositoryPolicy(t.Context(), &client.DeleteRepositoryPolicyInput{RepositoryName: name}); err != nil || *out.PolicyText != policy {
		t.Errorf("deleted policy: %v", err)
	}
	_, err = c.GetLifecyclePolicy(t.Context(), &client.GetLifecyclePolicyInput{RepositoryName: name})
	refused(t, "no lifecycle policy", err, "LifecyclePolicyNotFoundException", "Lifecycle policy does not exist")
	lifecycle := `{"rules":[{"rulePriority":1,"description":"keep one","selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	_, err = c.PutLifecyclePolicy(t.Context(), &client.PutLifecyclePolicyInput{RepositoryName: name, LifecyclePolicyText: ptr(strings.Replace(lifecycle, "imageCountMoreThan", "sinceImagePulled", 1))})
	refused(t, "an unsupported rule", err, "InvalidParameterException", "sinceImagePulled")
	if _, err := c.PutLifecyclePolicy(t.Context(), &client.PutLifecyclePolicyInput{RepositoryName: name, LifecyclePolicyText: &lifecycle}); err != nil {
		t.Fatal(err)
	}
	first := push(t, c, *repo.RepositoryUri+":1")
	push(t, c, *repo.RepositoryUri+":2")
	if _, err := c.StartLifecyclePolicyPreview(t.Context(), &client.StartLifecyclePolicyPreviewInput{RepositoryName: name}); err != nil {
		t.Fatal(err)
	}
	preview, err := c.GetLifecyclePolicyPreview(t.Context(), &client.GetLifecyclePolicyPreviewInput{RepositoryName: name})
	if err != nil || len(preview.PreviewResults) != 1 || preview.Status != types.LifecyclePolicyPreviewStatusComplete {
		t.Fatalf("preview is %+v, %v", preview, err)
	}
	if d, _ := first.Digest(); *preview.PreviewResults[0].ImageDigest != d.String() {
		t.Error("the preview drops the newer image")
	}
	if _, err := c.TagResource(t.Context(), &client.TagResourceInput{ResourceArn: repo.RepositoryArn, Tags: []types.Tag{{Key: ptr("a"), Value: ptr("1")}, {Key: ptr("b"), Value: ptr("2")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UntagResource(t.Context(), &client.UntagResourceInput{ResourceArn: repo.RepositoryArn, TagKeys: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	tags, err := c.ListTagsForResource(t.Context(), &client.ListTagsForResourceInput{ResourceArn: repo.RepositoryArn})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "b" {
		t.Errorf("tags are %+v, %v", tags, err)
	}
	_, err = c.StartImageScan(t.Context(), &client.StartImageScanInput{RepositoryName: name, ImageId: &types.ImageIdentifier{ImageTag: ptr("1")}})
	refused(t, "a scan", err, "ValidationException", "not supported by Lapwing")
	_, err = c.GetDownloadUrlForLayer(t.Context(), &client.GetDownloadUrlForLayerInput{RepositoryName: name, LayerDigest: ptr(digest.FromString("x").String())})
	refused(t, "a layer's URL", err, "InvalidParameterException", "GetDownloadUrlForLayer")
}

func TestTheEndpointOfTheRegistryIsTheClientsOwn(t *testing.T) {
	c, base := newClient(t)
	out, err := c.GetAuthorizationToken(t.Context(), &client.GetAuthorizationTokenInput{})
	if err != nil || *out.AuthorizationData[0].ProxyEndpoint != base {
		t.Errorf("endpoint is %+v, %v", out, err)
	}
}
