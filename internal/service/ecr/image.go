package ecr

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/ecr"
	"lapwing.dev/lapwing/internal/registry"
)

// PutImage implements api.API.
func (s *Service) PutImage(ctx context.Context, in *api.PutImageInput) (*api.PutImageOutput, error) {
	if err := s.own(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	img, err := s.registry.PutImage(ctx, *in.RepositoryName, registry.Put{
		Manifest: []byte(*in.ImageManifest), MediaType: aws.Value(in.ImageManifestMediaType), Tag: aws.Value(in.ImageTag),
		Digest: digest.Digest(aws.Value(in.ImageDigest)), New: true,
	})
	if err != nil {
		return nil, failure(err)
	}
	return &api.PutImageOutput{Image: &api.Image{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, ImageManifest: in.ImageManifest, ImageManifestMediaType: aws.Ptr(img.MediaType),
		ImageId: &api.ImageIdentifier{ImageDigest: aws.Ptr(string(img.Digest)), ImageTag: in.ImageTag},
	}}, nil
}

// reference reads an image's identifier; its failure is nil where it is one.
func reference(id *api.ImageIdentifier) (registry.Reference, *api.ImageFailure) {
	ref := registry.Reference{Tag: aws.Value(id.ImageTag), Digest: digest.Digest(aws.Value(id.ImageDigest))}
	failed := func(code api.ImageFailureCode, reason string) *api.ImageFailure {
		return &api.ImageFailure{ImageId: id, FailureCode: code, FailureReason: aws.Ptr(reason)}
	}
	if ref == (registry.Reference{}) {
		return ref, failed(api.ImageFailureCodeMissingDigestAndTag, "Invalid request parameters: both tag and digest cannot be null")
	}
	if ref.Digest != "" {
		if r, err := registry.ParseReference(string(ref.Digest)); err != nil || r.Digest == "" {
			return ref, failed(api.ImageFailureCodeInvalidImageDigest, "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
		}
	}
	if ref.Tag != "" && !registry.ValidTag(ref.Tag) {
		return ref, failed(api.ImageFailureCodeInvalidImageTag, "Invalid request parameters: image tag should satisfy the regex '[a-zA-Z0-9-_.]+'")
	}
	return ref, nil
}

// imageFailure is what a batch says of one image; nil for errors that are not
// the client's.
func imageFailure(id *api.ImageIdentifier, err error) *api.ImageFailure {
	e, ok := errors.AsType[*registry.Error](err)
	if !ok {
		return nil
	}
	f := &api.ImageFailure{ImageId: id, FailureReason: aws.Ptr(e.Message)}
	switch e.Kind {
	case registry.ImageNotFound:
		f.FailureCode, f.FailureReason = api.ImageFailureCodeImageNotFound, aws.Ptr("Requested image not found")
	case registry.TagMismatch:
		f.FailureCode = api.ImageFailureCodeImageTagDoesNotMatchDigest
	case registry.ImageReferenced:
		f.FailureCode = api.ImageFailureCodeImageReferencedByManifestList
	default:
		return nil
	}
	return f
}

// maxBatch bounds the manifests of one answer, in bytes.
const maxBatch = 64 << 20

// BatchGetImage implements api.API.
func (s *Service) BatchGetImage(_ context.Context, in *api.BatchGetImageInput) (*api.BatchGetImageOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	out := &api.BatchGetImageOutput{Images: []*api.Image{}, Failures: []*api.ImageFailure{}}
	size := 0
	for _, id := range in.ImageIds {
		ref, failed := reference(id)
		if failed != nil {
			out.Failures = append(out.Failures, failed)
			continue
		}
		img, err := s.registry.Image(*in.RepositoryName, ref)
		if err == nil && len(in.AcceptedMediaTypes) > 0 && !slices.Contains(in.AcceptedMediaTypes, img.MediaType) {
			err = &registry.Error{Kind: registry.ImageNotFound}
		}
		if err != nil {
			if failed = imageFailure(id, err); failed == nil {
				return nil, failure(err)
			}
			out.Failures = append(out.Failures, failed)
			continue
		}
		manifest, err := s.registry.Manifest(img)
		if err != nil {
			return nil, err
		}
		if size += len(manifest); size > maxBatch {
			return nil, api.NewLimitExceededException("The manifests of the images are larger than %d MiB together.", maxBatch>>20)
		}
		out.Images = append(out.Images, &api.Image{
			RegistryId: s.id(), RepositoryName: in.RepositoryName, ImageManifest: aws.Ptr(string(manifest)), ImageManifestMediaType: aws.Ptr(img.MediaType),
			ImageId: &api.ImageIdentifier{ImageDigest: aws.Ptr(string(img.Digest)), ImageTag: id.ImageTag},
		})
	}
	return out, nil
}

// BatchDeleteImage implements api.API.
func (s *Service) BatchDeleteImage(ctx context.Context, in *api.BatchDeleteImageInput) (*api.BatchDeleteImageOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	out := &api.BatchDeleteImageOutput{ImageIds: []*api.ImageIdentifier{}, Failures: []*api.ImageFailure{}}
	for _, id := range in.ImageIds {
		ref, failed := reference(id)
		if failed == nil {
			gone, err := s.registry.DeleteImage(ctx, *in.RepositoryName, ref)
			for _, g := range gone {
				out.ImageIds = append(out.ImageIds, identifier(g))
			}
			if failed = imageFailure(id, err); err != nil && failed == nil {
				return nil, failure(err)
			}
		}
		if failed != nil {
			out.Failures = append(out.Failures, failed)
		}
	}
	return out, nil
}

func identifier(ref registry.Reference) *api.ImageIdentifier {
	id := &api.ImageIdentifier{ImageDigest: aws.Ptr(string(ref.Digest))}
	if ref.Tag != "" {
		id.ImageTag = aws.Ptr(ref.Tag)
	}
	return id
}

// selected tells whether images with or without tags are asked for.
func selected(tagged bool, status api.TagStatus) bool {
	switch status {
	case api.TagStatusTagged:
		return tagged
	case api.TagStatusUntagged:
		return !tagged
	}
	return true
}

// active tells whether images are asked for that are in use: all of ours are.
func active(f api.ImageStatusFilter) bool {
	return f == "" || f == api.ImageStatusFilterActive || f == api.ImageStatusFilterAny
}

// ListImages implements api.API.
func (s *Service) ListImages(_ context.Context, in *api.ListImagesInput) (*api.ListImagesOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	after, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	filter := aws.Value(in.Filter)
	images, err := s.registry.Images(*in.RepositoryName)
	if err != nil {
		return nil, failure(err)
	}
	out := &api.ListImagesOutput{ImageIds: []*api.ImageIdentifier{}}
	last := ""
	for _, img := range images {
		if !active(filter.ImageStatus) || !selected(len(img.Tags) > 0, filter.TagStatus) {
			continue
		}
		tags := img.Tags
		if len(tags) == 0 {
			tags = []string{""}
		}
		for _, t := range tags {
			key := string(img.Digest) + " " + t
			if after != "" && key <= after {
				continue
			}
			if len(out.ImageIds) == limit(in.MaxResults, defaultPage) {
				out.NextToken = token(last)
				return out, nil
			}
			last = key
			out.ImageIds = append(out.ImageIds, identifier(registry.Reference{Tag: t, Digest: img.Digest}))
		}
	}
	return out, nil
}

func (s *Service) detail(repository string, img registry.Tagged) *api.ImageDetail {
	d := &api.ImageDetail{
		RegistryId: s.id(), RepositoryName: aws.Ptr(repository), ImageDigest: aws.Ptr(string(img.Digest)), ImageTags: img.Tags,
		ImageSizeInBytes: aws.Ptr(img.Size), ImagePushedAt: aws.Ptr(img.Pushed), ImageManifestMediaType: aws.Ptr(img.MediaType), ImageStatus: api.ImageStatusActive,
	}
	if img.ArtifactType != "" {
		d.ArtifactMediaType = aws.Ptr(img.ArtifactType)
	}
	if img.Subject != "" {
		d.SubjectManifestDigest = aws.Ptr(string(img.Subject))
	}
	return d
}

// DescribeImages implements api.API.
func (s *Service) DescribeImages(_ context.Context, in *api.DescribeImagesInput) (*api.DescribeImagesOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	images, err := s.registry.Images(*in.RepositoryName)
	if err != nil {
		return nil, failure(err)
	}
	out := &api.DescribeImagesOutput{ImageDetails: []*api.ImageDetail{}}
	if len(in.ImageIds) > 0 {
		if in.NextToken != nil || in.MaxResults != nil {
			return nil, invalid("Invalid parameter at 'imageIds' failed to satisfy constraint: 'not allowed with nextToken or maxResults'")
		}
		return out, s.describeOnly(in, images, out)
	}
	after, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	filter := aws.Value(in.Filter)
	for _, img := range images {
		if string(img.Digest) <= after || !active(filter.ImageStatus) || !selected(len(img.Tags) > 0, filter.TagStatus) {
			continue
		}
		if n := len(out.ImageDetails); n == limit(in.MaxResults, defaultPage) {
			out.NextToken = token(*out.ImageDetails[n-1].ImageDigest)
			break
		}
		out.ImageDetails = append(out.ImageDetails, s.detail(*in.RepositoryName, img))
	}
	return out, nil
}

// describeOnly describes the images that a request names.
func (s *Service) describeOnly(in *api.DescribeImagesInput, images []registry.Tagged, out *api.DescribeImagesOutput) error {
	for _, id := range in.ImageIds {
		ref, failed := reference(id)
		if failed != nil {
			return invalid("%s", *failed.FailureReason)
		}
		img, err := s.registry.Image(*in.RepositoryName, ref)
		if err != nil {
			return failure(err)
		}
		i, ok := slices.BinarySearchFunc(images, img.Digest, func(t registry.Tagged, d digest.Digest) int { return strings.Compare(string(t.Digest), string(d)) })
		if !ok { // was put since
			images, i = []registry.Tagged{{Image: img}}, 0
		}
		out.ImageDetails = append(out.ImageDetails, s.detail(*in.RepositoryName, images[i]))
	}
	return nil
}

// PutImageScanningConfiguration implements api.API: scanning stays off.
func (s *Service) PutImageScanningConfiguration(_ context.Context, in *api.PutImageScanningConfigurationInput) (*api.PutImageScanningConfigurationOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	if aws.Value(in.ImageScanningConfiguration.ScanOnPush) {
		return nil, api.NewValidationException("Image scanning (scanOnPush) is not supported by Lapwing.")
	}
	return &api.PutImageScanningConfigurationOutput{
		RegistryId: s.id(), RepositoryName: in.RepositoryName, ImageScanningConfiguration: &api.ImageScanningConfiguration{ScanOnPush: aws.Ptr(false)},
	}, nil
}

// StartImageScan implements api.API: it is refused.
func (s *Service) StartImageScan(_ context.Context, in *api.StartImageScanInput) (*api.StartImageScanOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	return nil, api.NewValidationException("Image scanning is not supported by Lapwing.")
}

// DescribeImageScanFindings implements api.API: no image was ever scanned.
func (s *Service) DescribeImageScanFindings(_ context.Context, in *api.DescribeImageScanFindingsInput) (*api.DescribeImageScanFindingsOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	ref, failed := reference(in.ImageId)
	if failed != nil {
		return nil, invalid("%s", *failed.FailureReason)
	}
	img, err := s.registry.Image(*in.RepositoryName, ref)
	if err != nil {
		return nil, failure(err)
	}
	return nil, api.NewScanNotFoundException("Image scan does not exist for the image with '{imageDigest:'%s'}' in the repository with name '%s' in the registry with id '%s'",
		img.Digest, *in.RepositoryName, s.registry.AccountID())
}
