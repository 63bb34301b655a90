package registry

import (
	"errors"
	"fmt"
)

// Kind tells errors apart; both front ends have codes for them.
type Kind string

// The kinds.
const (
	RepositoryNotFound       Kind = "repository not found"
	RepositoryExists         Kind = "repository exists"
	RepositoryNotEmpty       Kind = "repository not empty"
	ImageNotFound            Kind = "image not found"
	ImageExists              Kind = "image exists"
	ImageReferenced          Kind = "image is in an index"
	TagImmutable             Kind = "tag is immutable"
	TagMismatch              Kind = "tag of another image"
	InvalidManifest          Kind = "invalid manifest"
	InvalidTag               Kind = "invalid tag"
	InvalidDigest            Kind = "invalid digest"
	DigestMismatch           Kind = "digest does not match"
	LayerNotFound            Kind = "layer not found"
	LayersNotFound           Kind = "layers of a manifest not found"
	ReferencedImagesNotFound Kind = "images of an index not found"
	UploadNotFound           Kind = "upload not found"
	InvalidPart              Kind = "part out of order"
	InvalidPage              Kind = "invalid page"
	TooLarge                 Kind = "too large"
	TooManyUploads           Kind = "too many uploads"
	BrokenUpload             Kind = "broken upload"
)

// Error is an error that the client is to blame for. Message is in ECR's words.
type Error struct {
	Kind    Kind
	Message string
	// Size is how much of an upload is there, where Kind is InvalidPart.
	Size int64
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

func fail(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }
