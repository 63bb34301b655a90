package s3

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
)

// honoured are the members of requests that the operations act on.
var honoured = strings.Fields(`
	Body Bucket CacheControl ChecksumAlgorithm ChecksumMode ChecksumType
	ChecksumCRC32 ChecksumCRC32C ChecksumCRC64NVME ChecksumSHA1 ChecksumSHA256 ChecksumSHA512 ChecksumMD5
	ContentDisposition ContentEncoding ContentLanguage ContentLength ContentMD5 ContentType ContinuationToken
	CopySource CopySourceIfMatch CopySourceIfModifiedSince CopySourceIfNoneMatch CopySourceIfUnmodifiedSince
	CopySourceRange CreateBucketConfiguration Delete Delimiter EncodingType Expires FetchOwner IfMatch
	IfModifiedSince IfNoneMatch IfUnmodifiedSince Key KeyMarker Marker MaxBuckets MaxKeys MaxParts MaxUploads
	Metadata MetadataDirective MpuObjectSize MultipartUpload ObjectAttributes PartNumber PartNumberMarker Prefix
	Range ResponseCacheControl ResponseContentDisposition ResponseContentEncoding ResponseContentLanguage
	ResponseContentType ResponseExpires StartAfter Tagging TaggingDirective UploadId UploadIdMarker VersionId
	VersionIdMarker VersioningConfiguration WebsiteRedirectLocation BucketRegion
	Policy PublicAccessBlockConfiguration OwnershipControls ObjectOwnership AccessControlPolicy`)

// harmless are values of other members that ask for what is so anyway, and
// members that can have no effect here ("*").
var harmless = map[string][]string{
	"ACL":                           {"private", "bucket-owner-full-control"},
	"BucketKeyEnabled":              {"false"},
	"BucketNamespace":               {"global"},
	"BypassGovernanceRetention":     {"*"}, // there are no object locks
	"ConfirmRemoveSelfBucketAccess": {"*"}, // policies are not evaluated
	"MFA":                           {"*"}, // needed only where MFA delete is on
	"MFADelete":                     {"Disabled"},
	"ObjectLockEnabledForBucket":    {"false"},
	"OptionalObjectAttributes":      {"*"}, // of archived objects, which there are none of
	"RequestPayer":                  {"*"},
	"StorageClass":                  {"STANDARD"},
}

// refuse says what of a request is not offered: a member of in (a pointer to a
// generated structure) that is set but neither honoured nor harmless.
func (s *Service) refuse(in any) error {
	for field, value := range reflect.ValueOf(in).Elem().Fields() {
		if value.IsZero() || slices.Contains(honoured, field.Name) {
			continue
		}
		text := fmt.Sprint(reflect.Indirect(value).Interface())
		if field.Name == "ExpectedBucketOwner" || field.Name == "ExpectedSourceBucketOwner" {
			if text != s.options.AccountID {
				return fail("AccessDenied", "Access Denied")
			}
			continue
		}
		if allowed := harmless[field.Name]; slices.Contains(allowed, text) || slices.Contains(allowed, "*") {
			continue
		}
		return refusal(field)
	}
	return nil
}

// refusal is the error for a member that is not offered.
func refusal(field reflect.StructField) *aws.Error {
	switch name := field.Name; {
	case name == "ACL" || strings.HasPrefix(name, "Grant"):
		return fail("AccessControlListNotSupported", "The bucket does not allow ACLs")
	case name == "StorageClass":
		return fail("InvalidStorageClass", "The storage class you specified is not valid: only STANDARD is offered")
	case strings.HasPrefix(name, "ObjectLock") && name != "ObjectLockEnabledForBucket":
		return fail("InvalidRequest", "Bucket is missing Object Lock Configuration")
	default:
		return notImplemented(name)
	}
}
