package s3

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// defaultContentType is what S3 gives objects that were stored without one.
const defaultContentType = "binary/octet-stream"

// PutObject stores an object. Its body is stored before it is known whether
// the conditions hold in the end; they are checked before and after.
func (s *Service) PutObject(ctx context.Context, in *api.PutObjectInput) (*api.PutObjectOutput, error) {
	if in.Body != nil {
		defer in.Body.Close()
	}
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	condition := writeConditions{in.IfMatch, in.IfNoneMatch}
	if err := condition.validate(); err != nil {
		return nil, err
	}
	v := &version{description: description{
		ContentType: aws.Value(in.ContentType), CacheControl: aws.Value(in.CacheControl),
		ContentDisposition: aws.Value(in.ContentDisposition), ContentEncoding: aws.Value(in.ContentEncoding),
		ContentLanguage: aws.Value(in.ContentLanguage), Expires: in.Expires,
		Redirect: aws.Value(in.WebsiteRedirectLocation), Metadata: in.Metadata,
	}}
	if err := v.description.normalize(); err != nil {
		return nil, err
	}
	var err error
	if v.Tags, err = parseTagging(in.Tagging); err != nil {
		return nil, err
	}
	_, current := s.current(*in.Bucket, *in.Key)
	if err := condition.check(*in.Key, current); err != nil {
		return nil, err
	}
	declared, err := declaredChecksum(ctx, in.ChecksumAlgorithm)
	if err != nil {
		return nil, err
	}
	length, err := bodyLength(ctx, in.ContentLength)
	if err != nil {
		return nil, err
	}
	body, err := s.receive(ctx, incoming{body: reader(in.Body), length: length, md5: in.ContentMD5, sum: declared})
	if err != nil {
		return nil, err
	}
	v.content = *body
	b, id, err := s.write(ctx, *in.Bucket, *in.Key, v, condition)
	if err != nil {
		return nil, err
	}
	out := &api.PutObjectOutput{ETag: &v.ETag, VersionId: b.shownID(id)}
	setChecksum(out, v.Checksum)
	return out, nil
}

// reader makes a nil interface of a nil body.
func reader(body io.ReadCloser) io.Reader {
	if body == nil {
		return nil
	}
	return body
}

// bodyLength is the length of the body without its transfer encoding.
func bodyLength(ctx context.Context, contentLength *int64) (*int64, error) {
	decoded := aws.RequestFrom(ctx).Header.Get("X-Amz-Decoded-Content-Length")
	if decoded == "" {
		return contentLength, nil
	}
	n, err := strconv.ParseInt(decoded, 10, 64)
	if err != nil || n < 0 {
		return nil, invalidArgument("x-amz-decoded-content-length", decoded, "Invalid x-amz-decoded-content-length")
	}
	return &n, nil
}

const maxMetadata = 2 << 10 // bytes of all names and values

// normalize checks and cleans what a client sent.
func (d *description) normalize() error {
	size := 0
	metadata := make(map[string]string, len(d.Metadata))
	for name, value := range d.Metadata {
		size += len(name) + len(value)
		metadata[strings.ToLower(name)] = value
	}
	if size > maxMetadata {
		return with(with(fail("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size"),
			"Size", itoa(int64(size))), "MaxSizeAllowed", itoa(maxMetadata))
	}
	d.Metadata = metadata
	if d.ContentType == "" {
		d.ContentType = defaultContentType
	}
	// aws-chunked is the encoding of the transfer, not of the object.
	var encodings []string
	for e := range strings.SplitSeq(d.ContentEncoding, ",") {
		if e = strings.TrimSpace(e); e != "" && e != "aws-chunked" {
			encodings = append(encodings, e)
		}
	}
	d.ContentEncoding = strings.Join(encodings, ",")
	if r := d.Redirect; r != "" && !strings.HasPrefix(r, "/") && !strings.HasPrefix(r, "http://") && !strings.HasPrefix(r, "https://") {
		return fail("InvalidRedirectLocation", "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.")
	}
	return nil
}

// GetObject reads an object, or a range or a part of it.
func (s *Service) GetObject(ctx context.Context, in *api.GetObjectInput) (*api.GetObjectOutput, error) {
	b, err := s.object(in, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	for {
		id, v, err := s.find(*in.Bucket, *in.Key, aws.Value(in.VersionId))
		if err != nil {
			return nil, err
		}
		c := conditions{in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince}
		out, span, err := s.answer(b, id, v, &c, in)
		if err != nil {
			return nil, err
		}
		body, ok := s.read(&v.content, span.offset, span.length)
		if ok {
			out.Body = body
			return out, nil
		}
		// It was replaced or deleted since it was found: look again.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// answer is everything of GetObject's answer but the body.
func (s *Service) answer(b *bucket, id string, v *version, c *conditions, in *api.GetObjectInput) (*api.GetObjectOutput, byteRange, error) {
	if failed, unchanged := c.check(v); unchanged {
		return nil, byteRange{}, notModified(aws.Value(b.shownID(id)), v)
	} else if failed != "" {
		return nil, byteRange{}, preconditionFailed(failed)
	}
	span, err := parseRange(in.Range, v.Size)
	if err != nil {
		return nil, span, err
	}
	out := &api.GetObjectOutput{
		AcceptRanges: aws.Ptr("bytes"), LastModified: &v.Modified, ETag: &v.ETag, VersionId: b.shownID(id),
		ContentType:        override(in.ResponseContentType, v.ContentType),
		CacheControl:       override(in.ResponseCacheControl, v.CacheControl),
		ContentDisposition: override(in.ResponseContentDisposition, v.ContentDisposition),
		ContentEncoding:    override(in.ResponseContentEncoding, v.ContentEncoding),
		ContentLanguage:    override(in.ResponseContentLanguage, v.ContentLanguage),
		Expires:            v.Expires, WebsiteRedirectLocation: optional(v.Redirect), Metadata: v.Metadata,
	}
	if in.ResponseExpires != nil {
		out.Expires = in.ResponseExpires
	}
	if n := len(v.Tags); n > 0 {
		out.TagCount = aws.Ptr(int32(n))
	}
	if in.PartNumber != nil {
		if in.Range != nil {
			return nil, span, fail("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
		}
		if span, err = partRange(&v.content, int(*in.PartNumber)); err != nil {
			return nil, span, err
		}
		if v.Multipart {
			out.PartsCount = aws.Ptr(int32(len(v.Blobs)))
		}
	}
	out.ContentLength = &span.length
	if span.partial && v.Size > 0 {
		out.ContentRange = aws.Ptr(span.contentRange(v.Size))
	}
	// A checksum of the whole says nothing about a range.
	if in.ChecksumMode == "ENABLED" && span.length == v.Size {
		setChecksum(out, v.Checksum)
	}
	return out, span, nil
}

func override(asked *string, stored string) *string {
	if asked != nil {
		return asked
	}
	return optional(stored)
}

// partRange is where a part of a multipart upload lies in the object. An
// object that was put whole has one part.
func partRange(c *content, number int) (byteRange, error) {
	parts := 1
	if c.Multipart {
		parts = len(c.Blobs)
	}
	switch {
	case number < 1 || number > maxParts:
		return byteRange{}, invalidArgument("partNumber", itoa(int64(number)), "Part number must be an integer between 1 and 10000, inclusive")
	case number > parts:
		return byteRange{}, with(with(fail("InvalidPartNumber", "The requested partnumber is not satisfiable"),
			"ActualPartCount", itoa(int64(parts))), "PartNumberRequested", itoa(int64(number)))
	case !c.Multipart:
		return byteRange{0, c.Size, true}, nil
	}
	span := byteRange{length: c.Blobs[number-1].Size, partial: true}
	for _, b := range c.Blobs[:number-1] {
		span.offset += b.Size
	}
	return span, nil
}

// HeadObject is GetObject without the body.
func (s *Service) HeadObject(_ context.Context, in *api.HeadObjectInput) (*api.HeadObjectOutput, error) {
	b, err := s.object(in, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	id, v, err := s.find(*in.Bucket, *in.Key, aws.Value(in.VersionId))
	if err != nil {
		return nil, err
	}
	c := conditions{in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince}
	get, _, err := s.answer(b, id, v, &c, &api.GetObjectInput{
		Range: in.Range, PartNumber: in.PartNumber, ChecksumMode: in.ChecksumMode,
		ResponseCacheControl: in.ResponseCacheControl, ResponseContentDisposition: in.ResponseContentDisposition,
		ResponseContentEncoding: in.ResponseContentEncoding, ResponseContentLanguage: in.ResponseContentLanguage,
		ResponseContentType: in.ResponseContentType, ResponseExpires: in.ResponseExpires,
	})
	if err != nil {
		return nil, err
	}
	out := &api.HeadObjectOutput{
		AcceptRanges: get.AcceptRanges, LastModified: get.LastModified, ETag: get.ETag, VersionId: get.VersionId,
		ContentType: get.ContentType, CacheControl: get.CacheControl, ContentDisposition: get.ContentDisposition,
		ContentEncoding: get.ContentEncoding, ContentLanguage: get.ContentLanguage, Expires: get.Expires,
		WebsiteRedirectLocation: get.WebsiteRedirectLocation, Metadata: get.Metadata, TagCount: get.TagCount,
		PartsCount: get.PartsCount, ContentLength: get.ContentLength, ContentRange: get.ContentRange,
	}
	if in.ChecksumMode == "ENABLED" && aws.Value(get.ContentLength) == v.Size {
		setChecksum(out, v.Checksum)
	}
	return out, nil
}

// DeleteObject deletes one version for good, or puts the object out of sight as
// the bucket's versioning demands. Deleting what is not there succeeds.
func (s *Service) DeleteObject(ctx context.Context, in *api.DeleteObjectInput) (*api.DeleteObjectOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	d, err := s.delete(ctx, *in.Bucket, *in.Key, aws.Value(in.VersionId), in.IfMatch)
	if err != nil {
		return nil, err
	}
	out := &api.DeleteObjectOutput{VersionId: optional(d.id)}
	if d.marker {
		out.DeleteMarker = aws.Ptr(true)
	}
	return out, nil
}

// deletion is what came of a delete.
type deletion struct {
	id     string // of what was deleted, or of the delete marker that was made; "" where there is no versioning
	marker bool   // it is a delete marker's
}

func (s *Service) delete(ctx context.Context, bucketName, key, versionID string, ifMatch *string) (deletion, error) {
	if versionID != "" {
		if err := checkVersionID(versionID); err != nil {
			return deletion{}, err
		}
	}
	b, unlock, err := s.lockKey(bucketName, key)
	if err != nil {
		return deletion{}, err
	}
	defer unlock()
	condition := writeConditions{ifMatch: ifMatch}
	if versionID == "" && b.Versioning != "" {
		id, err := s.writeLocked(ctx, b, bucketName, key, &version{DeleteMarker: true}, condition)
		return deletion{id, true}, err
	}
	var target *version
	if versionID == "" {
		_, target = s.current(bucketName, key)
	} else if item, ok := s.versions.Get(versionKey(bucketName, key, versionID)); ok {
		target = &item.Value
	}
	if err := condition.check(key, target); err != nil {
		return deletion{}, err
	}
	id := versionID
	if id == "" {
		id = nullVersion
	}
	removed, err := s.remove(ctx, bucketName, key, id)
	return deletion{versionID, removed != nil && removed.DeleteMarker}, err
}

// maxDeleted is how many objects one DeleteObjects may name.
const maxDeleted = 1000

// DeleteObjects deletes up to 1,000 objects or versions, each for itself.
func (s *Service) DeleteObjects(ctx context.Context, in *api.DeleteObjectsInput) (*api.DeleteObjectsOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	if in.Delete == nil || len(in.Delete.Objects) == 0 || len(in.Delete.Objects) > maxDeleted {
		return nil, malformedXML()
	}
	out := &api.DeleteObjectsOutput{}
	for _, o := range in.Delete.Objects {
		d, err := s.deleteOne(ctx, *in.Bucket, o)
		if err != nil {
			e, ok := errors.AsType[*aws.Error](err)
			if !ok {
				return nil, err
			}
			out.Errors = append(out.Errors, &api.Error{Key: o.Key, VersionId: o.VersionId, Code: &e.Code, Message: &e.Message})
			continue
		}
		if aws.Value(in.Delete.Quiet) {
			continue
		}
		deleted := &api.DeletedObject{Key: o.Key, VersionId: o.VersionId}
		if d.marker {
			deleted.DeleteMarker, deleted.DeleteMarkerVersionId = aws.Ptr(true), optional(d.id)
		}
		out.Deleted = append(out.Deleted, deleted)
	}
	return out, nil
}

func (s *Service) deleteOne(ctx context.Context, bucketName string, o *api.ObjectIdentifier) (deletion, error) {
	if err := checkKey(aws.Value(o.Key)); err != nil {
		return deletion{}, err
	}
	if o.LastModifiedTime != nil || o.Size != nil {
		return deletion{}, notImplemented("LastModifiedTime, Size")
	}
	return s.delete(ctx, bucketName, *o.Key, aws.Value(o.VersionId), o.ETag)
}
