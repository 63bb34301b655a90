package iam

import (
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
)

// tag is a tag of an entity.
type tag struct{ Key, Value string }

// tags are in the order in which they came. Their keys differ by more than
// case.
type tags []tag

func (t tags) index(key string) int {
	return slices.IndexFunc(t, func(have tag) bool { return strings.EqualFold(have.Key, key) })
}

// newTags are the tags that an entity is created with.
func newTags(in []*iam.Tag) (tags, error) {
	var t tags
	return t, t.set(in)
}

// set adds tags and changes the values of those that are there.
func (t *tags) set(in []*iam.Tag) error {
	var seen tags
	for _, n := range in {
		key := aws.Value(n.Key)
		switch {
		case seen.index(key) >= 0:
			return iam.NewInvalidInputException("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		case len(key) >= 4 && strings.EqualFold(key[:4], "aws:"):
			return iam.NewInvalidInputException("Tag keys beginning with aws: are reserved for system use.")
		}
		seen = append(seen, tag{Key: key})
		if i := t.index(key); i >= 0 {
			(*t)[i] = tag{key, aws.Value(n.Value)}
		} else {
			*t = append(*t, tag{key, aws.Value(n.Value)})
		}
	}
	if len(*t) > maxTags {
		return iam.NewLimitExceededException("The number of tags has reached the maximum limit.")
	}
	return nil
}

// remove removes tags; those that are not there do not matter.
func (t *tags) remove(keys []string) {
	for _, key := range keys {
		if i := t.index(key); i >= 0 {
			*t = slices.Delete(*t, i, i+1)
		}
	}
}

func (t tags) output() []*iam.Tag {
	return collect(t, func(t tag) *iam.Tag { return &iam.Tag{Key: &t.Key, Value: &t.Value} })
}

func (t tags) page(marker *string, max *int32) (page[tag], error) {
	return paginate(t, func(t tag) string { return strings.ToLower(t.Key) }, marker, max)
}
