package s3

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// ListObjectsV2 lists the current versions in the order of their keys.
func (s *Service) ListObjectsV2(_ context.Context, in *api.ListObjectsV2Input) (*api.ListObjectsV2Output, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	most, err := limit("max-keys", in.MaxKeys)
	if err != nil {
		return nil, err
	}
	encode, err := newEncoder(string(in.EncodingType))
	if err != nil {
		return nil, err
	}
	after := aws.Value(in.StartAfter)
	if in.ContinuationToken != nil {
		if after, err = decodeToken(*in.ContinuationToken); err != nil {
			return nil, err
		}
	}
	page, truncated := s.listCurrent(*in.Bucket, in.Prefix, in.Delimiter, after, most)
	out := &api.ListObjectsV2Output{
		Name: in.Bucket, Prefix: encode.text(aws.Value(in.Prefix)), Delimiter: encode.optional(in.Delimiter),
		MaxKeys: aws.Ptr(int32(most)), KeyCount: aws.Ptr(int32(len(page))), EncodingType: in.EncodingType, IsTruncated: &truncated,
		ContinuationToken: in.ContinuationToken, StartAfter: encode.optional(in.StartAfter),
	}
	out.Contents, out.CommonPrefixes = s.contents(page, encode, aws.Value(in.FetchOwner))
	if truncated {
		out.NextContinuationToken = aws.Ptr(encodeToken(page[len(page)-1].key))
	}
	return out, nil
}

// ListObjects is the older form of ListObjectsV2.
func (s *Service) ListObjects(_ context.Context, in *api.ListObjectsInput) (*api.ListObjectsOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	most, err := limit("max-keys", in.MaxKeys)
	if err != nil {
		return nil, err
	}
	encode, err := newEncoder(string(in.EncodingType))
	if err != nil {
		return nil, err
	}
	page, truncated := s.listCurrent(*in.Bucket, in.Prefix, in.Delimiter, aws.Value(in.Marker), most)
	out := &api.ListObjectsOutput{
		Name: in.Bucket, Prefix: encode.text(aws.Value(in.Prefix)), Delimiter: encode.optional(in.Delimiter), Marker: encode.text(aws.Value(in.Marker)),
		MaxKeys: aws.Ptr(int32(most)), EncodingType: in.EncodingType, IsTruncated: &truncated,
	}
	out.Contents, out.CommonPrefixes = s.contents(page, encode, true)
	// Without a delimiter clients take the last key.
	if truncated && aws.Value(in.Delimiter) != "" {
		out.NextMarker = encode.text(page[len(page)-1].key)
	}
	return out, nil
}

func (s *Service) listCurrent(bucketName string, prefix, delimiter *string, after string, most int) ([]entry[version], bool) {
	l := listing[version]{
		collection: s.versions, bucket: bucketName, prefix: aws.Value(prefix), delimiter: aws.Value(delimiter),
		after: after, order: currentOnly,
	}
	return l.page(most)
}

// contents splits a page into objects and common prefixes.
func (s *Service) contents(page []entry[version], encode encoder, owner bool) (objects []*api.Object, prefixes []*api.CommonPrefix) {
	for _, e := range page {
		if e.value == nil {
			prefixes = append(prefixes, &api.CommonPrefix{Prefix: encode.text(e.key)})
			continue
		}
		o := &api.Object{Key: encode.text(e.key), LastModified: &e.value.Modified, ETag: &e.value.ETag, Size: &e.value.Size, StorageClass: "STANDARD"}
		o.ChecksumAlgorithm, o.ChecksumType = listedChecksum(e.value)
		if owner {
			o.Owner = s.owner()
		}
		objects = append(objects, o)
	}
	return objects, prefixes
}

func listedChecksum(v *version) ([]api.ChecksumAlgorithm, api.ChecksumType) {
	if v.Checksum == nil {
		return nil, ""
	}
	return []api.ChecksumAlgorithm{api.ChecksumAlgorithm(v.Checksum.Algorithm)}, api.ChecksumType(v.Checksum.Type)
}

// ListObjectVersions lists all versions and delete markers in the order of
// their keys, and the newest of a key first.
func (s *Service) ListObjectVersions(_ context.Context, in *api.ListObjectVersionsInput) (*api.ListObjectVersionsOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	most, err := limit("max-keys", in.MaxKeys)
	if err != nil {
		return nil, err
	}
	encode, err := newEncoder(string(in.EncodingType))
	if err != nil {
		return nil, err
	}
	l := listing[version]{
		collection: s.versions, bucket: *in.Bucket, prefix: aws.Value(in.Prefix), delimiter: aws.Value(in.Delimiter),
		after: aws.Value(in.KeyMarker), afterID: aws.Value(in.VersionIdMarker), order: byAge,
	}
	if l.afterID != "" {
		if l.after == "" {
			return nil, invalidArgument("version-id-marker", l.afterID, "A version-id marker cannot be specified without a key marker.")
		}
		if err := checkVersionID(l.afterID); err != nil {
			return nil, err
		}
	}
	page, truncated := l.page(most)
	out := &api.ListObjectVersionsOutput{
		Name: in.Bucket, Prefix: encode.text(l.prefix), Delimiter: encode.optional(in.Delimiter), KeyMarker: encode.text(l.after),
		VersionIdMarker: aws.Ptr(l.afterID), MaxKeys: aws.Ptr(int32(most)), EncodingType: in.EncodingType, IsTruncated: &truncated,
	}
	for _, e := range page {
		switch {
		case e.value == nil:
			out.CommonPrefixes = append(out.CommonPrefixes, &api.CommonPrefix{Prefix: encode.text(e.key)})
		case e.value.DeleteMarker:
			out.DeleteMarkers = append(out.DeleteMarkers, &api.DeleteMarkerEntry{
				Key: encode.text(e.key), VersionId: &e.id, IsLatest: &e.latest, LastModified: &e.value.Modified, Owner: s.owner()})
		default:
			o := &api.ObjectVersion{
				Key: encode.text(e.key), VersionId: &e.id, IsLatest: &e.latest, LastModified: &e.value.Modified, Owner: s.owner(),
				ETag: &e.value.ETag, Size: &e.value.Size, StorageClass: "STANDARD"}
			o.ChecksumAlgorithm, o.ChecksumType = listedChecksum(e.value)
			out.Versions = append(out.Versions, o)
		}
	}
	if truncated {
		last := page[len(page)-1]
		out.NextKeyMarker, out.NextVersionIdMarker = encode.text(last.key), optional(last.id)
	}
	return out, nil
}
