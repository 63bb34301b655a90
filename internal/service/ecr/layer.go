package ecr

import (
	"bytes"
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/ecr"
	"lapwing.dev/lapwing/internal/registry"
)

// partSize is how large the parts of a layer should be, in bytes.
const partSize = 10 << 20

// BatchCheckLayerAvailability implements api.API.
func (s *Service) BatchCheckLayerAvailability(_ context.Context, in *api.BatchCheckLayerAvailabilityInput) (*api.BatchCheckLayerAvailabilityOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	out := &api.BatchCheckLayerAvailabilityOutput{Layers: []*api.Layer{}, Failures: []*api.LayerFailure{}}
	for _, d := range in.LayerDigests {
		size, err := s.registry.Layer(*in.RepositoryName, digest.Digest(d))
		e, known := errors.AsType[*registry.Error](err)
		switch {
		case err == nil:
			out.Layers = append(out.Layers, &api.Layer{LayerDigest: aws.Ptr(d), LayerAvailability: api.LayerAvailabilityAvailable, LayerSize: aws.Ptr(size)})
		case known && e.Kind == registry.LayerNotFound:
			out.Layers = append(out.Layers, &api.Layer{LayerDigest: aws.Ptr(d), LayerAvailability: api.LayerAvailabilityUnavailable})
		case known && e.Kind == registry.InvalidDigest && d == "":
			out.Failures = append(out.Failures, &api.LayerFailure{LayerDigest: aws.Ptr(d), FailureCode: api.LayerFailureCodeMissingLayerDigest, FailureReason: aws.Ptr(e.Message)})
		case known && e.Kind == registry.InvalidDigest:
			out.Failures = append(out.Failures, &api.LayerFailure{LayerDigest: aws.Ptr(d), FailureCode: api.LayerFailureCodeInvalidLayerDigest, FailureReason: aws.Ptr(e.Message)})
		default:
			return nil, failure(err)
		}
	}
	return out, nil
}

// InitiateLayerUpload implements api.API.
func (s *Service) InitiateLayerUpload(_ context.Context, in *api.InitiateLayerUploadInput) (*api.InitiateLayerUploadOutput, error) {
	if err := s.own(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	id, err := s.registry.StartUpload(*in.RepositoryName)
	if err != nil {
		return nil, failure(err)
	}
	return &api.InitiateLayerUploadOutput{UploadId: &id, PartSize: aws.Ptr[int64](partSize)}, nil
}

// UploadLayerPart implements api.API. Parts come in their order.
func (s *Service) UploadLayerPart(ctx context.Context, in *api.UploadLayerPartInput) (*api.UploadLayerPartOutput, error) {
	if err := s.own(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	if *in.PartLastByte-*in.PartFirstByte+1 != int64(len(in.LayerPartBlob)) {
		return nil, invalid("Invalid parameter at 'layerPartBlob' failed to satisfy constraint: 'its size must be partLastByte - partFirstByte + 1'")
	}
	size, err := s.registry.Append(ctx, *in.RepositoryName, *in.UploadId, *in.PartFirstByte, bytes.NewReader(in.LayerPartBlob))
	if err != nil {
		return nil, failure(err)
	}
	return &api.UploadLayerPartOutput{RegistryId: s.id(), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LastByteReceived: aws.Ptr(size - 1)}, nil
}

// CompleteLayerUpload implements api.API.
func (s *Service) CompleteLayerUpload(ctx context.Context, in *api.CompleteLayerUploadInput) (*api.CompleteLayerUploadOutput, error) {
	if err := s.own(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	if len(in.LayerDigests) != 1 {
		return nil, invalid("Invalid parameter at 'layerDigests' failed to satisfy constraint: 'there must be one digest, by SHA-256'")
	}
	size, err := s.registry.UploadSize(ctx, *in.RepositoryName, *in.UploadId)
	if err != nil {
		return nil, failure(err)
	}
	if size == 0 {
		return nil, api.NewEmptyUploadException("The upload with id '%s' has no layer parts", *in.UploadId)
	}
	_, err = s.registry.FinishUpload(ctx, *in.RepositoryName, *in.UploadId, digest.Digest(in.LayerDigests[0]))
	if e, ok := errors.AsType[*registry.Error](err); ok && e.Kind == registry.DigestMismatch {
		return nil, api.NewInvalidLayerException("%s", e.Message)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &api.CompleteLayerUploadOutput{RegistryId: s.id(), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LayerDigest: aws.Ptr(in.LayerDigests[0])}, nil
}

// GetDownloadUrlForLayer implements api.API: it is refused.
func (s *Service) GetDownloadUrlForLayer(_ context.Context, in *api.GetDownloadUrlForLayerInput) (*api.GetDownloadUrlForLayerOutput, error) {
	if _, err := s.repository(in.RegistryId, in.RepositoryName); err != nil {
		return nil, err
	}
	return nil, unsupported("GetDownloadUrlForLayer (layers can be pulled by the registry's own protocol, at /v2/)")
}
