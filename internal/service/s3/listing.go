package s3

import (
	"encoding/base64"
	"iter"
	"net/url"
	"strings"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/state"
)

// maxListed is how many entries one answer of a listing has at most.
const maxListed = 1000

// entry is one line of a listing: a record's object key and id, or a common
// prefix.
type entry[T any] struct {
	key    string // or the common prefix
	id     string // of the version or the upload
	value  *T     // nil: a common prefix
	latest bool   // it is the newest version of its key
}

// listing is what the listing operations have in common.
type listing[T any] struct {
	collection        *state.Collection[T]
	bucket            string
	prefix, delimiter string
	after             string // no entry up to this key or common prefix,
	afterID           string // or, if this is set, up to this id of it
	// order sorts the records of one key, which come in the order of their
	// ids, marks the latest, and leaves out what is not listed.
	order func(group []entry[T]) []entry[T]
}

// page returns the first limit entries, and whether there are more.
func (l *listing[T]) page(limit int) (page []entry[T], truncated bool) {
	if limit == 0 {
		return nil, false
	}
	for e := range l.entries() {
		if len(page) == limit {
			return page, true
		}
		page = append(page, e)
	}
	return page, false
}

// entries iterates over the entries in order. It jumps over what a common
// prefix folds together, so that its cost is that of the entries it yields.
func (l *listing[T]) entries() iter.Seq[entry[T]] {
	return func(yield func(entry[T]) bool) {
		for start := l.start(); start != ""; {
			next, more := l.run(start, yield)
			if !more {
				return
			}
			start = next
		}
	}
}

// start is the record key to begin at.
func (l *listing[T]) start() string {
	first := l.bucket + "/" + l.prefix
	if l.after == "" {
		return first
	}
	from := l.bucket + "/" + l.after
	if l.afterID != "" {
		return max(first, from)
	}
	if strings.HasPrefix(l.after, l.prefix) {
		if common, ok := l.common(l.after); ok && common == l.after {
			return from + above // a common prefix that was listed
		}
	}
	return max(first, from+separator+above)
}

// run yields entries from start on until there are no more, or until a common
// prefix was found: then it returns where to go on.
func (l *listing[T]) run(start string, yield func(entry[T]) bool) (next string, more bool) {
	var group []entry[T]
	flush := func() bool {
		for _, e := range l.group(group) {
			if !yield(e) {
				return false
			}
		}
		group = group[:0]
		return true
	}
	for item := range l.collection.Scan(l.bucket+"/"+l.prefix, start) {
		key, id := splitVersionKey(l.bucket, item.Key)
		if len(group) > 0 && group[0].key != key && !flush() {
			return "", false
		}
		if len(group) == 0 {
			if common, ok := l.common(key); ok && l.hasVisible(common) {
				if !yield(entry[T]{key: common}) {
					return "", false
				}
				return l.bucket + "/" + common + above, true
			}
		}
		value := item.Value
		group = append(group, entry[T]{key: key, id: id, value: &value})
	}
	if len(group) > 0 && !flush() {
		return "", false
	}
	return "", true
}

// common returns the common prefix that folds the key away, if one does.
func (l *listing[T]) common(key string) (string, bool) {
	if l.delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(l.prefix):], l.delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(l.prefix)+i+len(l.delimiter)], true
}

// hasVisible says whether anything under the common prefix would be listed:
// what is deleted in a bucket with versioning leaves records too.
func (l *listing[T]) hasVisible(common string) bool {
	inside := *l
	inside.prefix, inside.delimiter = common, ""
	for range inside.entries() {
		return true
	}
	return false
}

// group orders the records of one key and drops those up to the marker.
func (l *listing[T]) group(group []entry[T]) []entry[T] {
	if len(group) == 0 {
		return nil
	}
	key := group[0].key
	group = l.order(group)
	if l.after == "" || key > l.after {
		return group
	}
	if key < l.after || l.afterID == "" {
		return nil
	}
	for i, e := range group {
		if e.id == l.afterID {
			return group[i+1:]
		}
	}
	return nil
}

// Continuation tokens are the last entry's key or common prefix. Clients must
// take them as opaque.

func encodeToken(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodeToken(token string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) == 0 || len(b) > maxKey || !utf8.Valid(b) {
		return "", invalidArgument("continuation-token", token, "The continuation token provided is incorrect")
	}
	return string(b), nil
}

// limit reads a max-keys parameter.
func limit(name string, n *int32) (int, error) {
	if n == nil {
		return maxListed, nil
	}
	if *n < 0 {
		return 0, invalidArgument(name, itoa(int64(*n)), "Argument %s must be an integer between 0 and 2147483647", name)
	}
	return min(int(*n), maxListed), nil
}

// encoder writes keys as encoding-type asks for.
type encoder bool

// newEncoder checks the encoding-type parameter.
func newEncoder(encodingType string) (encoder, error) {
	if encodingType != "" && encodingType != "url" {
		return false, invalidArgument("encoding-type", encodingType, "Invalid Encoding Method specified in Request")
	}
	return encodingType == "url", nil
}

func (e encoder) text(s string) *string {
	if e {
		s = strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s))
	}
	return &s
}

// optional is text, and nil for nil.
func (e encoder) optional(s *string) *string {
	if s == nil {
		return nil
	}
	return e.text(*s)
}
