package s3

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	checksums "lapwing.dev/lapwing/internal/aws/checksum"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

// Limits of multipart uploads, from "Amazon S3 multipart upload limits".
const (
	maxParts    = 10_000
	minPartSize = 5 << 20 // of every part but the last
)

// CreateMultipartUpload begins a multipart upload.
func (s *Service) CreateMultipartUpload(ctx context.Context, in *api.CreateMultipartUploadInput) (*api.CreateMultipartUploadOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	u := upload{Initiated: s.options.Now().UTC().Truncate(time.Millisecond), description: description{
		ContentType: aws.Value(in.ContentType), CacheControl: aws.Value(in.CacheControl),
		ContentDisposition: aws.Value(in.ContentDisposition), ContentEncoding: aws.Value(in.ContentEncoding),
		ContentLanguage: aws.Value(in.ContentLanguage), Expires: in.Expires,
		Redirect: aws.Value(in.WebsiteRedirectLocation), Metadata: in.Metadata,
	}}
	if err := u.description.normalize(); err != nil {
		return nil, err
	}
	var err error
	if u.Tags, err = parseTagging(in.Tagging); err != nil {
		return nil, err
	}
	if err := u.chooseChecksum(string(in.ChecksumAlgorithm), string(in.ChecksumType)); err != nil {
		return nil, err
	}
	_, unlock, err := s.lockKey(*in.Bucket, *in.Key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	id := rand.Text() + rand.Text()
	if _, err := s.uploads.Create(ctx, uploadKey(*in.Bucket, *in.Key, id), u); err != nil {
		return nil, err
	}
	out := &api.CreateMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, UploadId: &id}
	if u.Declared {
		out.ChecksumAlgorithm, out.ChecksumType = in.ChecksumAlgorithm, api.ChecksumType(u.ChecksumType)
	}
	return out, nil
}

// chooseChecksum decides how the object to be is summed: as "Checking object
// integrity in Amazon S3" says, CRC-64/NVME over the whole if nothing is asked
// for, and which of the two types goes with which algorithm.
func (u *upload) chooseChecksum(name, kind string) error {
	if name == "" {
		if kind != "" {
			return fail("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		u.Algorithm, u.ChecksumType = checksums.Default, fullObject
		return nil
	}
	a, err := checksums.Find(name)
	if err != nil {
		return err
	}
	if kind == "" {
		kind = composite
		if !a.Composites {
			kind = fullObject
		}
	}
	if kind == composite && !a.Composites || kind == fullObject && a.Polynomial == 0 || kind != composite && kind != fullObject {
		return fail("InvalidRequest", "The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(name))
	}
	u.Algorithm, u.ChecksumType, u.Declared = name, kind, true
	return nil
}

// findUpload returns the record of an upload.
func (s *Service) findUpload(bucketName, key string, id *string) (state.Item[upload], error) {
	u, ok := s.uploads.Get(uploadKey(bucketName, key, aws.Value(id)))
	if !ok {
		return u, noSuchUpload(aws.Value(id))
	}
	return u, nil
}

// partTarget checks where a part is to go.
func (s *Service) partTarget(bucketName, key string, uploadID *string, partNumber *int32) (int, *upload, error) {
	n := int(aws.Value(partNumber))
	if n < 1 || n > maxParts {
		return 0, nil, invalidArgument("partNumber", itoa(int64(n)), "Part number must be an integer between 1 and 10000, inclusive")
	}
	u, err := s.findUpload(bucketName, key, uploadID)
	return n, &u.Value, err
}

// UploadPart stores a part.
func (s *Service) UploadPart(ctx context.Context, in *api.UploadPartInput) (*api.UploadPartOutput, error) {
	if in.Body != nil {
		defer in.Body.Close()
	}
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	number, u, err := s.partTarget(*in.Bucket, *in.Key, in.UploadId, in.PartNumber)
	if err != nil {
		return nil, err
	}
	declared, err := declaredChecksum(ctx, in.ChecksumAlgorithm)
	if err != nil {
		return nil, err
	}
	if a := declared.Algorithm; a != nil && u.Declared && a.Name != u.Algorithm {
		return nil, checksumMismatch(u.Algorithm, a.Name)
	}
	keep, err := checksums.Find(u.Algorithm)
	if err != nil {
		return nil, err
	}
	length, err := bodyLength(ctx, in.ContentLength)
	if err != nil {
		return nil, err
	}
	c, err := s.receive(ctx, incoming{body: reader(in.Body), length: length, md5: in.ContentMD5, sum: declared, also: keep})
	if err != nil {
		return nil, err
	}
	p, err := s.writePart(ctx, *in.Bucket, *in.Key, *in.UploadId, number, c)
	if err != nil {
		return nil, err
	}
	out := &api.UploadPartOutput{ETag: &p.ETag}
	if u.Declared {
		setChecksum(out, p.Checksum)
	}
	return out, nil
}

func checksumMismatch(expected, actual string) error {
	return fail("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s",
		strings.ToLower(expected), strings.ToLower(actual))
}

// writePart records a part in its upload, and takes over its blob, which the
// caller holds, whatever comes of it.
func (s *Service) writePart(ctx context.Context, bucketName, key, uploadID string, number int, c *content) (*part, error) {
	_, unlock, err := s.lockKey(bucketName, key)
	if err != nil {
		s.references.release(c.digests())
		return nil, err
	}
	defer unlock()
	// The upload may have ended while the body came.
	if _, err := s.findUpload(bucketName, key, &uploadID); err != nil {
		s.references.release(c.digests())
		return nil, err
	}
	_, modified := s.stamp()
	p := part{Modified: modified, content: *c}
	ctx = context.WithoutCancel(ctx)
	recordKey := partKey(uploadID, number)
	old, replaces := s.parts.Get(recordKey)
	if replaces {
		_, err = s.parts.Update(ctx, recordKey, old.Revision, p)
	} else {
		_, err = s.parts.Create(ctx, recordKey, p)
	}
	if err != nil {
		if keepsNothing(err) {
			s.references.release(c.digests())
		}
		return nil, err
	}
	if replaces {
		s.references.release(old.Value.digests())
	}
	return &p, nil
}

// CompleteMultipartUpload makes an object of the parts that the request lists.
func (s *Service) CompleteMultipartUpload(ctx context.Context, in *api.CompleteMultipartUploadInput) (*api.CompleteMultipartUploadOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	condition := writeConditions{in.IfMatch, in.IfNoneMatch}
	if err := condition.validate(); err != nil {
		return nil, err
	}
	b, unlock, err := s.lockKey(*in.Bucket, *in.Key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	u, err := s.findUpload(*in.Bucket, *in.Key, in.UploadId)
	if err != nil {
		// A client that did not get the answer asks again.
		if id, v := s.current(*in.Bucket, *in.Key); v != nil && v.Upload == aws.Value(in.UploadId) {
			return s.completed(ctx, in, b, id, v), nil
		}
		return nil, err
	}
	c, err := s.assemble(&u.Value, in)
	if err != nil {
		return nil, err
	}
	v := &version{content: *c, description: u.Value.description, Tags: u.Value.Tags, Upload: *in.UploadId}
	if !s.references.hold(v.digests()) {
		return nil, fmt.Errorf("s3: a part of upload %s has no body", *in.UploadId)
	}
	id, err := s.writeLocked(ctx, b, *in.Bucket, *in.Key, v, condition)
	if err != nil {
		return nil, err
	}
	if err := s.dropUpload(context.WithoutCancel(ctx), u); err != nil {
		return nil, err
	}
	return s.completed(ctx, in, b, id, v), nil
}

func (s *Service) completed(ctx context.Context, in *api.CompleteMultipartUploadInput, b *bucket, id string, v *version) *api.CompleteMultipartUploadOutput {
	location := aws.RequestFrom(ctx).BaseURL + "/" + *in.Bucket + "/" + aws.Value(encoder(true).text(*in.Key))
	out := &api.CompleteMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, ETag: &v.ETag, VersionId: b.shownID(id), Location: &location}
	setChecksum(out, v.Checksum)
	return out
}

// assemble checks the list of parts and makes the object's content of them.
func (s *Service) assemble(u *upload, in *api.CompleteMultipartUploadInput) (*content, error) {
	if in.MultipartUpload == nil || len(in.MultipartUpload.Parts) == 0 {
		return nil, malformedXML()
	}
	listed := in.MultipartUpload.Parts
	if len(listed) > maxParts {
		return nil, malformedXML()
	}
	c := &content{Multipart: true}
	etags := md5.New()
	sums, sizes := make([]*checksum, len(listed)), make([]int64, len(listed))
	for i, p := range listed {
		if i > 0 && aws.Value(p.PartNumber) <= aws.Value(listed[i-1].PartNumber) {
			return nil, with(fail("InvalidPartOrder", "The list of parts was not in ascending order. The parts list must be specified in order by part number."), "UploadId", *in.UploadId)
		}
		stored, err := s.listedPart(u, *in.UploadId, p)
		if err != nil {
			return nil, err
		}
		if stored.Size < minPartSize && i < len(listed)-1 {
			e := with(fail("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size"), "ProposedSize", itoa(stored.Size))
			return nil, with(with(e, "MinSizeAllowed", itoa(minPartSize)), "PartNumber", itoa(int64(*p.PartNumber)))
		}
		sum, err := hex.DecodeString(strings.Trim(stored.ETag, `"`))
		if err != nil {
			return nil, fmt.Errorf("s3: stored part's ETag: %w", err)
		}
		etags.Write(sum)
		sums[i], sizes[i] = stored.Checksum, stored.Size
		for _, b := range stored.Blobs { // one
			b.Sum = stored.Checksum.Value
			c.Blobs = append(c.Blobs, b)
		}
		c.Size += stored.Size
	}
	c.ETag = fmt.Sprintf(`"%x-%d"`, etags.Sum(nil), len(listed))
	a, err := checksums.Find(u.Algorithm)
	if err != nil {
		return nil, err
	}
	if u.ChecksumType == composite {
		c.Checksum, err = compositeChecksum(a, sums)
	} else {
		c.Checksum, err = fullChecksum(a, sums, sizes)
	}
	if err != nil {
		return nil, err
	}
	return c, c.checkAgainst(u, in)
}

// listedPart finds a part that the client lists.
func (s *Service) listedPart(u *upload, uploadID string, p *api.CompletedPart) (*part, error) {
	stored, ok := s.parts.Get(partKey(uploadID, int(aws.Value(p.PartNumber))))
	sum, err := getChecksum(p)
	if err != nil {
		return nil, err
	}
	if sum == nil && u.Declared && u.ChecksumType == composite {
		return nil, fail("InvalidRequest", "The upload was created using a %s checksum. The complete request must include the checksum for each part. It was missing for part %d in the request.", strings.ToLower(u.Algorithm), aws.Value(p.PartNumber))
	}
	ok = ok && strings.Trim(aws.Value(p.ETag), `"`) == strings.Trim(stored.Value.ETag, `"`)
	if sum != nil && sum.Algorithm == u.Algorithm {
		ok = ok && sum.Value == stored.Value.Checksum.Value
	} else if sum != nil && u.Declared {
		return nil, checksumMismatch(u.Algorithm, sum.Algorithm)
	}
	if !ok {
		e := fail("InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
		return nil, with(with(with(e, "UploadId", uploadID), "PartNumber", itoa(int64(aws.Value(p.PartNumber)))), "ETag", aws.Value(p.ETag))
	}
	return &stored.Value, nil
}

// checkAgainst compares the content with what the client says of the whole.
func (c *content) checkAgainst(u *upload, in *api.CompleteMultipartUploadInput) error {
	if in.MpuObjectSize != nil && *in.MpuObjectSize != c.Size {
		return fail("InvalidRequest", "The provided 'x-amz-mp-object-size' header value %d does not match what was computed: %d.", *in.MpuObjectSize, c.Size)
	}
	if kind := string(in.ChecksumType); kind != "" && kind != u.ChecksumType {
		return fail("InvalidRequest", "The upload was created using the %s checksum mode. The complete request must use the same checksum mode.", u.ChecksumType)
	}
	sum, err := getChecksum(in)
	if err != nil || sum == nil {
		return err
	}
	if sum.Algorithm != u.Algorithm {
		return checksumMismatch(u.Algorithm, sum.Algorithm)
	}
	value, _, _ := strings.Cut(c.Checksum.Value, "-")
	if sum.Value != c.Checksum.Value && sum.Value != value {
		return fail("BadDigest", "The %s you specified did not match the calculated checksum.", u.Algorithm)
	}
	return nil
}

// AbortMultipartUpload ends an upload and drops its parts.
func (s *Service) AbortMultipartUpload(ctx context.Context, in *api.AbortMultipartUploadInput) (*api.AbortMultipartUploadOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	_, unlock, err := s.lockKey(*in.Bucket, *in.Key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	u, err := s.findUpload(*in.Bucket, *in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	if err := s.dropUpload(context.WithoutCancel(ctx), u); err != nil {
		return nil, err
	}
	return &api.AbortMultipartUploadOutput{}, nil
}

// dropUpload removes an upload and then its parts. The upload's key or the
// bucket's existence must be locked.
func (s *Service) dropUpload(ctx context.Context, u state.Item[upload]) error {
	if err := s.uploads.Delete(ctx, u.Key, u.Revision); err != nil {
		return err
	}
	for p := range s.parts.Scan(uploadID(u)+"/", "") {
		if err := s.parts.Delete(ctx, p.Key, p.Revision); err != nil {
			return err
		}
		s.references.release(p.Value.digests())
	}
	return nil
}

// uploadID is the id in an upload's record key.
func uploadID(u state.Item[upload]) string {
	return u.Key[strings.LastIndex(u.Key, separator)+1:]
}

// partUpload is the upload's id in a part's record key.
func partUpload(recordKey string) string {
	id, _, _ := strings.Cut(recordKey, "/")
	return id
}

// ListParts lists the parts of an upload by number.
func (s *Service) ListParts(_ context.Context, in *api.ListPartsInput) (*api.ListPartsOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	u, err := s.findUpload(*in.Bucket, *in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	most, err := limit("max-parts", in.MaxParts)
	if err != nil {
		return nil, err
	}
	after, err := partMarker(in.PartNumberMarker)
	if err != nil {
		return nil, err
	}
	out := &api.ListPartsOutput{
		Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, MaxParts: aws.Ptr(int32(most)), IsTruncated: aws.Ptr(false),
		PartNumberMarker: in.PartNumberMarker, Owner: s.owner(), Initiator: s.initiator(), StorageClass: "STANDARD",
	}
	if u.Value.Declared {
		out.ChecksumAlgorithm, out.ChecksumType = api.ChecksumAlgorithm(u.Value.Algorithm), api.ChecksumType(u.Value.ChecksumType)
	}
	prefix := *in.UploadId + "/"
	for p := range s.parts.Scan(prefix, partKey(*in.UploadId, after+1)) {
		if len(out.Parts) == most {
			out.IsTruncated = aws.Ptr(true)
			break
		}
		var number int32
		if _, err := fmt.Sscanf(p.Key[len(prefix):], "%05d", &number); err != nil {
			return nil, fmt.Errorf("s3: stored part's key %q: %w", p.Key, err)
		}
		listed := &api.Part{PartNumber: &number, ETag: &p.Value.ETag, LastModified: &p.Value.Modified, Size: &p.Value.Size}
		if u.Value.Declared {
			setChecksum(listed, p.Value.Checksum)
		}
		out.Parts = append(out.Parts, listed)
		out.NextPartNumberMarker = &number
	}
	return out, nil
}

func partMarker(marker *int32) (int, error) {
	n := aws.Value(marker)
	if n < 0 || n > maxParts {
		return 0, invalidArgument("part-number-marker", itoa(int64(n)), "Argument part-number-marker must be an integer between 0 and 10000")
	}
	return int(n), nil
}

// ListMultipartUploads lists the uploads that are under way, by key and then by
// age.
func (s *Service) ListMultipartUploads(_ context.Context, in *api.ListMultipartUploadsInput) (*api.ListMultipartUploadsOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	most, err := limit("max-uploads", in.MaxUploads)
	if err != nil {
		return nil, err
	}
	encode, err := newEncoder(string(in.EncodingType))
	if err != nil {
		return nil, err
	}
	l := listing[upload]{
		collection: s.uploads, bucket: *in.Bucket, prefix: aws.Value(in.Prefix), delimiter: aws.Value(in.Delimiter),
		after: aws.Value(in.KeyMarker), order: oldestFirst,
	}
	if l.after != "" {
		l.afterID = aws.Value(in.UploadIdMarker)
	}
	page, truncated := l.page(most)
	out := &api.ListMultipartUploadsOutput{
		Bucket: in.Bucket, KeyMarker: encode.text(l.after), UploadIdMarker: aws.Ptr(l.afterID), MaxUploads: aws.Ptr(int32(most)),
		Prefix: encode.optional(in.Prefix), Delimiter: encode.optional(in.Delimiter), EncodingType: in.EncodingType, IsTruncated: &truncated,
	}
	for _, e := range page {
		if e.value == nil {
			out.CommonPrefixes = append(out.CommonPrefixes, &api.CommonPrefix{Prefix: encode.text(e.key)})
			continue
		}
		listed := &api.MultipartUpload{Key: encode.text(e.key), UploadId: &e.id, Initiated: &e.value.Initiated, Owner: s.owner(), Initiator: s.initiator(), StorageClass: "STANDARD"}
		if e.value.Declared {
			listed.ChecksumAlgorithm, listed.ChecksumType = api.ChecksumAlgorithm(e.value.Algorithm), api.ChecksumType(e.value.ChecksumType)
		}
		out.Uploads = append(out.Uploads, listed)
	}
	if truncated {
		last := page[len(page)-1]
		out.NextKeyMarker, out.NextUploadIdMarker = encode.text(last.key), aws.Ptr(last.id)
	}
	return out, nil
}

func oldestFirst(group []entry[upload]) []entry[upload] {
	slices.SortStableFunc(group, func(a, b entry[upload]) int { return a.value.Initiated.Compare(b.value.Initiated) })
	return group
}
