package cloudfront

import (
	"context"
	"io"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Locations tells how far edge locations are with what the service publishes.
type Locations interface {
	// Applied returns what every location serves by now: of each collection
	// the lowest revision that any of them is at.
	Applied() distribution.Revisions
}

// Buckets tells which buckets there are, and reads objects. The S3 service
// implements it.
type Buckets interface {
	HasBucket(name string) bool
	// OpenObject opens an object in its latest version, where versionID is empty.
	// The caller closes it. What S3 refuses is an *aws.Error.
	OpenObject(ctx context.Context, bucket, key, versionID string) (body io.ReadCloser, size int64, version, etag string, err error)
}

// Functions is what distributions need of the Lambda service. A version that is
// associated has a record among Records.Replicas, which the cloudfront service
// writes before a distribution names it and takes away once no location serves
// one that does: so long the Lambda service refuses to delete the version.
type Functions interface {
	// Replica returns what edge locations run of a version of a function,
	// except for Format and Distributions. arn ends with the version's number;
	// strict is Distribution.Strict2023.
	// Where edge locations cannot run that version at that event, the error is
	// the API's InvalidLambdaFunctionAssociation, in the words of AWS.
	Replica(ctx context.Context, arn string, event distribution.EventType, strict bool) (distribution.LambdaReplica, error)
}
