package s3

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	checksums "lapwing.dev/lapwing/internal/aws/checksum"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// source is the object that a copy reads. It holds the object's blobs until it
// is released.
type source struct {
	bucket    *bucket
	name, key string
	id        string
	*version
	named bool // the request named a version
}

// openSource finds what an x-amz-copy-source header names, checks the
// conditions on it and holds its blobs.
func (s *Service) openSource(header *string, c conditions) (*source, error) {
	name, key, versionID, err := parseCopySource(aws.Value(header))
	if err != nil {
		return nil, err
	}
	b, ok := s.buckets.Get(name)
	if !ok {
		return nil, noSuchBucket(name)
	}
	for {
		id, v, err := s.find(name, key, versionID)
		if e, ok := errors.AsType[*aws.Error](err); ok && e.Code == "MethodNotAllowed" {
			err = fail("InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id.")
		}
		if err != nil {
			return nil, err
		}
		if failed, _ := c.check(v); failed != "" {
			return nil, preconditionFailed("x-amz-copy-source-" + failed)
		}
		if s.references.hold(v.digests()) {
			return &source{&b.Value, name, key, id, v, versionID != ""}, nil
		}
		// It was replaced or deleted since it was found: look again.
	}
}

// parseCopySource splits [/]bucket/key[?versionId=id], where bucket and key are
// URL-encoded.
func parseCopySource(header string) (bucketName, key, versionID string, err error) {
	path, versionID, named := strings.Cut(header, "?versionId=")
	path, err = url.PathUnescape(path)
	bucketName, key, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if err != nil || !ok || key == "" || strings.HasPrefix(bucketName, "arn:") || named && versionID == "" {
		return "", "", "", invalidArgument("x-amz-copy-source", header, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	return bucketName, key, versionID, checkKey(key)
}

// CopyObject stores a copy of an object, which shares the original's body.
func (s *Service) CopyObject(ctx context.Context, in *api.CopyObjectInput) (*api.CopyObjectOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	condition := writeConditions{in.IfMatch, in.IfNoneMatch}
	if err := condition.validate(); err != nil {
		return nil, err
	}
	from, err := s.openSource(in.CopySource, conditions{in.CopySourceIfMatch, in.CopySourceIfNoneMatch, in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	v, err := s.copyOf(ctx, from, in)
	if err != nil {
		s.references.release(from.digests())
		return nil, err
	}
	b, id, err := s.write(ctx, *in.Bucket, *in.Key, v, condition)
	if err != nil {
		return nil, err
	}
	result := &api.CopyObjectResult{ETag: &v.ETag, LastModified: &v.Modified}
	setChecksum(result, v.Checksum)
	return &api.CopyObjectOutput{CopyObjectResult: result, VersionId: b.shownID(id), CopySourceVersionId: from.bucket.shownID(from.id)}, nil
}

// copyOf makes the record of the copy.
func (s *Service) copyOf(ctx context.Context, from *source, in *api.CopyObjectInput) (*version, error) {
	if from.Size > maxBody {
		return nil, fail("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(maxBody))
	}
	metadata, tagging := string(in.MetadataDirective), string(in.TaggingDirective)
	for name, directive := range map[string]string{"x-amz-metadata-directive": metadata, "x-amz-tagging-directive": tagging} {
		if directive != "" && directive != "COPY" && directive != "REPLACE" {
			return nil, invalidArgument(name, directive, "Unknown directive.")
		}
	}
	if from.name == *in.Bucket && from.key == *in.Key && !from.named && metadata != "REPLACE" && in.WebsiteRedirectLocation == nil {
		return nil, fail("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	v := &version{content: from.content, description: from.description, Tags: from.Tags}
	v.Redirect = aws.Value(in.WebsiteRedirectLocation)
	if metadata == "REPLACE" {
		v.description = description{
			ContentType: aws.Value(in.ContentType), CacheControl: aws.Value(in.CacheControl),
			ContentDisposition: aws.Value(in.ContentDisposition), ContentEncoding: aws.Value(in.ContentEncoding),
			ContentLanguage: aws.Value(in.ContentLanguage), Expires: in.Expires,
			Redirect: v.Redirect, Metadata: in.Metadata,
		}
	}
	if err := v.description.normalize(); err != nil {
		return nil, err
	}
	if tagging == "REPLACE" {
		var err error
		if v.Tags, err = parseTagging(in.Tagging); err != nil {
			return nil, err
		}
	}
	if name := string(in.ChecksumAlgorithm); name != "" && (v.Checksum == nil || name != v.Checksum.Algorithm) {
		var err error
		if v.Checksum, err = s.computeChecksum(ctx, &from.content, name); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// computeChecksum reads a body whose blobs are held.
func (s *Service) computeChecksum(ctx context.Context, c *content, name string) (*checksum, error) {
	a, err := checksums.Find(name)
	if err != nil {
		return nil, err
	}
	body, ok := s.read(c, 0, c.Size)
	if !ok {
		return nil, errors.New("s3: a body that is held is gone")
	}
	h := a.New()
	_, err = io.Copy(h, contextReader{ctx, body})
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	return &checksum{Algorithm: name, Value: checksums.Encode(h), Type: fullObject}, nil
}

// contextReader ends reading when ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// UploadPartCopy makes a part of a range of an object.
func (s *Service) UploadPartCopy(ctx context.Context, in *api.UploadPartCopyInput) (*api.UploadPartCopyOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	number, u, err := s.partTarget(*in.Bucket, *in.Key, in.UploadId, in.PartNumber)
	if err != nil {
		return nil, err
	}
	from, err := s.openSource(in.CopySource, conditions{in.CopySourceIfMatch, in.CopySourceIfNoneMatch, in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	defer s.references.release(from.digests())
	span, err := copyRange(in.CopySourceRange, from.Size)
	if err != nil {
		return nil, err
	}
	body, ok := s.read(&from.content, span.offset, span.length)
	if !ok {
		return nil, errors.New("s3: a body that is held is gone")
	}
	defer body.Close()
	keep, err := checksums.Find(u.Algorithm)
	if err != nil {
		return nil, err
	}
	c, err := s.receive(ctx, incoming{body: body, length: &span.length, also: keep})
	if err != nil {
		return nil, err
	}
	p, err := s.writePart(ctx, *in.Bucket, *in.Key, *in.UploadId, number, c)
	if err != nil {
		return nil, err
	}
	result := &api.CopyPartResult{ETag: &p.ETag, LastModified: &p.Modified}
	if u.Declared {
		setChecksum(result, p.Checksum)
	}
	return &api.UploadPartCopyOutput{CopyPartResult: result, CopySourceVersionId: from.bucket.shownID(from.id)}, nil
}

// copyRange reads an x-amz-copy-source-range header: bytes=first-last, which
// must lie in the source.
func copyRange(header *string, size int64) (byteRange, error) {
	if header == nil {
		if size > maxBody {
			return byteRange{}, tooLarge(size)
		}
		return byteRange{0, size, false}, nil
	}
	spec, ok := strings.CutPrefix(*header, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	first, ok1 := parseOffset(from)
	last, ok2 := parseOffset(to)
	if !ok || !dash || !ok1 || !ok2 || first > last {
		return byteRange{}, invalidArgument("x-amz-copy-source-range", *header, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
	}
	if last >= size {
		return byteRange{}, invalidArgument("x-amz-copy-source-range", *header, "Range specified is not valid for source object of size: %d", size)
	}
	if last-first >= maxBody {
		return byteRange{}, tooLarge(last - first + 1)
	}
	return byteRange{first, last - first + 1, true}, nil
}
