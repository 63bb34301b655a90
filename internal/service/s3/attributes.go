package s3

import (
	"context"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// GetObjectAttributes returns the attributes that the request names.
func (s *Service) GetObjectAttributes(_ context.Context, in *api.GetObjectAttributesInput) (*api.GetObjectAttributesOutput, error) {
	b, err := s.object(in, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	id, v, err := s.find(*in.Bucket, *in.Key, aws.Value(in.VersionId))
	if err != nil {
		return nil, err
	}
	out := &api.GetObjectAttributesOutput{LastModified: &v.Modified, VersionId: b.shownID(id)}
	wanted := func(name api.ObjectAttributes) bool { return slices.Contains(in.ObjectAttributes, name) }
	if wanted("ETag") {
		out.ETag = aws.Ptr(strings.Trim(v.ETag, `"`)) // here it has no quotes
	}
	if wanted("ObjectSize") {
		out.ObjectSize = &v.Size
	}
	if wanted("StorageClass") {
		out.StorageClass = "STANDARD"
	}
	if wanted("Checksum") {
		out.Checksum = &api.Checksum{}
		setChecksum(out.Checksum, v.Checksum)
	}
	if wanted("ObjectParts") && v.Multipart {
		out.ObjectParts, err = listAttributeParts(&v.content, in)
	}
	return out, err
}

func listAttributeParts(c *content, in *api.GetObjectAttributesInput) (*api.GetObjectAttributesParts, error) {
	most, err := limit("max-parts", in.MaxParts)
	if err != nil {
		return nil, err
	}
	after, err := partMarker(in.PartNumberMarker)
	if err != nil {
		return nil, err
	}
	after = min(after, len(c.Blobs))
	last := min(after+most, len(c.Blobs))
	out := &api.GetObjectAttributesParts{
		TotalPartsCount: aws.Ptr(int32(len(c.Blobs))), PartNumberMarker: aws.Ptr(int32(after)), NextPartNumberMarker: aws.Ptr(int32(last)),
		MaxParts: aws.Ptr(int32(most)), IsTruncated: aws.Ptr(last < len(c.Blobs)),
	}
	for i, b := range c.Blobs[after:last] {
		p := &api.ObjectPart{PartNumber: aws.Ptr(int32(after + i + 1)), Size: &b.Size}
		setChecksum(p, &checksum{Algorithm: c.Checksum.Algorithm, Value: b.Sum})
		out.Parts = append(out.Parts, p)
	}
	return out, nil
}
