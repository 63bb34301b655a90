package s3

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

// Limits of tags, from "Categorizing your objects using tags" and "Using cost
// allocation S3 bucket tags" in the Amazon S3 User Guide; lengths in characters.
const (
	maxObjectTags = 10
	maxBucketTags = 50
	maxTagKey     = 128
	maxTagValue   = 256
)

// tagsOf checks a list of an object's tags.
func tagsOf(list []*api.Tag) (map[string]string, error) {
	tags, err := distinct(list)
	if err != nil {
		return nil, err
	}
	return tags, checkTags(tags)
}

// bucketTagsOf checks a list of a bucket's tags.
func bucketTagsOf(list []*api.Tag) (map[string]string, error) {
	tags, err := distinct(list)
	switch {
	case err != nil:
		return nil, err
	case len(tags) > maxBucketTags:
		return nil, fail("BadRequest", "Bucket tag count cannot be greater than %d", maxBucketTags)
	}
	for key := range tags {
		if strings.HasPrefix(key, "aws:") {
			return nil, with(fail("InvalidTag", "System tags cannot be added/updated by requester"), "TagKey", key)
		}
	}
	return tags, checkTagTexts(tags)
}

// distinct makes a map of tags, whose keys must differ.
func distinct(list []*api.Tag) (map[string]string, error) {
	tags := make(map[string]string, len(list))
	for _, t := range list {
		if _, ok := tags[aws.Value(t.Key)]; ok {
			return nil, with(fail("InvalidTag", "Cannot provide multiple Tags with the same key"), "TagKey", aws.Value(t.Key))
		}
		tags[aws.Value(t.Key)] = aws.Value(t.Value)
	}
	return tags, nil
}

// parseTagging reads the x-amz-tagging header, which has the form of a query.
func parseTagging(header *string) (map[string]string, error) {
	if header == nil {
		return nil, nil
	}
	query, err := url.ParseQuery(*header)
	if err != nil {
		return nil, badTagging(*header)
	}
	tags := make(map[string]string, len(query))
	for key, values := range query {
		if len(values) != 1 {
			return nil, badTagging(*header)
		}
		tags[key] = values[0]
	}
	return tags, checkTags(tags)
}

func badTagging(header string) *aws.Error {
	return invalidArgument("x-amz-tagging", header, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxObjectTags {
		return fail("BadRequest", "Object tags cannot be greater than %d", maxObjectTags)
	}
	return checkTagTexts(tags)
}

func checkTagTexts(tags map[string]string) error {
	for key, value := range tags {
		if n := utf8.RuneCountInString(key); n == 0 || n > maxTagKey || !utf8.ValidString(key) {
			return with(fail("InvalidTag", "The TagKey you have provided is invalid"), "TagKey", key)
		}
		if utf8.RuneCountInString(value) > maxTagValue || !utf8.ValidString(value) {
			return with(with(fail("InvalidTag", "The TagValue you have provided is invalid"), "TagKey", key), "TagValue", value)
		}
	}
	return nil
}

// tagSet lists tags in the order of their keys.
func tagSet(tags map[string]string) []*api.Tag {
	list := make([]*api.Tag, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, &api.Tag{Key: aws.Ptr(key), Value: aws.Ptr(tags[key])})
	}
	return list
}

// GetObjectTagging returns the tags of an object's version.
func (s *Service) GetObjectTagging(_ context.Context, in *api.GetObjectTaggingInput) (*api.GetObjectTaggingOutput, error) {
	b, err := s.object(in, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	id, v, err := s.find(*in.Bucket, *in.Key, aws.Value(in.VersionId))
	if err != nil {
		return nil, err
	}
	return &api.GetObjectTaggingOutput{TagSet: tagSet(v.Tags), VersionId: b.shownID(id)}, nil
}

// PutObjectTagging replaces the tags of an object's version.
func (s *Service) PutObjectTagging(ctx context.Context, in *api.PutObjectTaggingInput) (*api.PutObjectTaggingOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	if in.Tagging == nil {
		return nil, malformedXML()
	}
	tags, err := tagsOf(in.Tagging.TagSet)
	if err != nil {
		return nil, err
	}
	id, err := s.setTags(ctx, *in.Bucket, *in.Key, aws.Value(in.VersionId), tags)
	return &api.PutObjectTaggingOutput{VersionId: id}, err
}

// DeleteObjectTagging removes the tags of an object's version.
func (s *Service) DeleteObjectTagging(ctx context.Context, in *api.DeleteObjectTaggingInput) (*api.DeleteObjectTaggingOutput, error) {
	if _, err := s.object(in, in.Bucket, in.Key); err != nil {
		return nil, err
	}
	id, err := s.setTags(ctx, *in.Bucket, *in.Key, aws.Value(in.VersionId), nil)
	return &api.DeleteObjectTaggingOutput{VersionId: id}, err
}

func (s *Service) setTags(ctx context.Context, bucketName, key, versionID string, tags map[string]string) (*string, error) {
	b, unlock, err := s.lockKey(bucketName, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	id, _, err := s.find(bucketName, key, versionID)
	if err != nil {
		return nil, err
	}
	_, err = s.versions.Modify(ctx, versionKey(bucketName, key, id), func(v *version) error {
		v.Tags = tags
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		err = noSuchKey(key)
	}
	return b.shownID(id), err
}

// GetBucketTagging returns the tags of a bucket.
func (s *Service) GetBucketTagging(_ context.Context, in *api.GetBucketTaggingInput) (*api.GetBucketTaggingOutput, error) {
	b, err := s.bucket(in, in.Bucket)
	if err != nil {
		return nil, err
	}
	if len(b.Tags) == 0 {
		return nil, with(fail("NoSuchTagSet", "The TagSet does not exist"), "BucketName", *in.Bucket)
	}
	return &api.GetBucketTaggingOutput{TagSet: tagSet(b.Tags)}, nil
}

// PutBucketTagging replaces the tags of a bucket.
func (s *Service) PutBucketTagging(ctx context.Context, in *api.PutBucketTaggingInput) (*api.PutBucketTaggingOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	if in.Tagging == nil {
		return nil, malformedXML()
	}
	tags, err := bucketTagsOf(in.Tagging.TagSet)
	if err != nil {
		return nil, err
	}
	return &api.PutBucketTaggingOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) { b.Tags = tags })
}

// DeleteBucketTagging removes the tags of a bucket.
func (s *Service) DeleteBucketTagging(ctx context.Context, in *api.DeleteBucketTaggingInput) (*api.DeleteBucketTaggingOutput, error) {
	if _, err := s.bucket(in, in.Bucket); err != nil {
		return nil, err
	}
	return &api.DeleteBucketTaggingOutput{}, s.changeBucket(ctx, *in.Bucket, func(b *bucket) { b.Tags = nil })
}
