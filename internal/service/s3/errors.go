package s3

import (
	"fmt"
	"net/http"

	"lapwing.dev/lapwing/internal/aws"
)

// statuses has the HTTP status of each S3 error code that is not 400. The S3
// model declares few of its errors, so they cannot be generated. Codes,
// statuses and messages are those of the Amazon S3 API Reference, "Error
// responses".
var statuses = map[string]int{
	"AccessDenied":                                   http.StatusForbidden,
	"BucketAlreadyExists":                            http.StatusConflict,
	"BucketAlreadyOwnedByYou":                        http.StatusConflict,
	"BucketNotEmpty":                                 http.StatusConflict,
	"ConditionalRequestConflict":                     http.StatusConflict,
	"InvalidBucketState":                             http.StatusConflict,
	"InvalidPartNumber":                              http.StatusRequestedRangeNotSatisfiable,
	"InvalidRange":                                   http.StatusRequestedRangeNotSatisfiable,
	"MethodNotAllowed":                               http.StatusMethodNotAllowed,
	"MissingContentLength":                           http.StatusLengthRequired,
	"NoSuchBucket":                                   http.StatusNotFound,
	"NoSuchKey":                                      http.StatusNotFound,
	"NoSuchTagSet":                                   http.StatusNotFound,
	"NoSuchUpload":                                   http.StatusNotFound,
	"NoSuchVersion":                                  http.StatusNotFound,
	"NoSuchBucketPolicy":                             http.StatusNotFound,
	"NoSuchCORSConfiguration":                        http.StatusNotFound,
	"NoSuchLifecycleConfiguration":                   http.StatusNotFound,
	"NoSuchPublicAccessBlockConfiguration":           http.StatusNotFound,
	"NoSuchWebsiteConfiguration":                     http.StatusNotFound,
	"ObjectLockConfigurationNotFoundError":           http.StatusNotFound,
	"OwnershipControlsNotFoundError":                 http.StatusNotFound,
	"ReplicationConfigurationNotFoundError":          http.StatusNotFound,
	"ServerSideEncryptionConfigurationNotFoundError": http.StatusNotFound,
	"NotImplemented":                                 http.StatusNotImplemented,
	"NotModified":                                    http.StatusNotModified,
	"PreconditionFailed":                             http.StatusPreconditionFailed,
	"IllegalLocationConstraintException":             http.StatusBadRequest,
}

// fail makes the S3 error with this code.
func fail(code, format string, args ...any) *aws.Error {
	status, ok := statuses[code]
	if !ok {
		status = http.StatusBadRequest
	}
	return &aws.Error{Code: code, Status: status, Message: fmt.Sprintf(format, args...)}
}

// with adds an element to the error's XML, e.g. the name of the bucket.
func with(e *aws.Error, name, value string) *aws.Error {
	if e.Extra == nil {
		e.Extra = map[string]string{}
	}
	e.Extra[name] = value
	return e
}

func noSuchBucket(bucket string) *aws.Error {
	return with(fail("NoSuchBucket", "The specified bucket does not exist"), "BucketName", bucket)
}

func noSuchKey(key string) *aws.Error {
	return with(fail("NoSuchKey", "The specified key does not exist."), "Key", key)
}

func noSuchUpload(id string) *aws.Error {
	return with(fail("NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."), "UploadId", id)
}

func invalidArgument(name, value, format string, args ...any) *aws.Error {
	return with(with(fail("InvalidArgument", format, args...), "ArgumentName", name), "ArgumentValue", value)
}

func preconditionFailed(condition string) *aws.Error {
	return with(fail("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"), "Condition", condition)
}

func notImplemented(what string) *aws.Error {
	return with(fail("NotImplemented", "A header you provided implies functionality that is not implemented: %s", what), "Header", what)
}
