package s3

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// conditions are the preconditions of a read, or of the source of a copy.
type conditions struct {
	ifMatch, ifNoneMatch               *string
	ifModifiedSince, ifUnmodifiedSince *time.Time
}

// check evaluates the conditions in RFC 9110's order, as S3 documents it for
// GetObject. notModified tells the second kind of failure from the first.
func (c *conditions) check(v *version) (failed string, notModified bool) {
	switch {
	case c.ifMatch != nil:
		if !matches(*c.ifMatch, v.ETag) {
			return "If-Match", false
		}
	case c.ifUnmodifiedSince != nil && v.Modified.After(*c.ifUnmodifiedSince):
		return "If-Unmodified-Since", false
	}
	switch {
	case c.ifNoneMatch != nil:
		if matches(*c.ifNoneMatch, v.ETag) {
			return "If-None-Match", true
		}
	case c.ifModifiedSince != nil && !v.Modified.After(*c.ifModifiedSince):
		return "If-Modified-Since", true
	}
	return "", false
}

// matches says whether an If-Match or If-None-Match header names the tag.
func matches(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == "*" || strings.Trim(candidate, `"`) == strings.Trim(etag, `"`) {
			return true
		}
	}
	return false
}

// notModified is the answer to a conditional read of what the client has.
func notModified(id string, v *version) *aws.Error {
	e := fail("NotModified", "Not Modified")
	e.Header = http.Header{"Etag": {v.ETag}, "Last-Modified": {v.Modified.Format(http.TimeFormat)}}
	if id != "" {
		e.Header.Set("X-Amz-Version-Id", id)
	}
	return e
}

// writeConditions are the preconditions of a write: on the version that it
// would put out of sight.
type writeConditions struct{ ifMatch, ifNoneMatch *string }

func (c writeConditions) validate() error {
	if c.ifNoneMatch != nil && strings.TrimSpace(*c.ifNoneMatch) != "*" {
		return notImplemented("If-None-Match")
	}
	return nil
}

// check evaluates them; current is nil if there is no object with the key.
func (c writeConditions) check(key string, current *version) error {
	if current != nil && current.DeleteMarker {
		current = nil
	}
	switch {
	case c.ifNoneMatch != nil && current != nil:
		return preconditionFailed("If-None-Match")
	case c.ifMatch == nil:
		return nil
	case current == nil:
		return noSuchKey(key)
	case !matches(*c.ifMatch, current.ETag):
		return preconditionFailed("If-Match")
	}
	return nil
}

// byteRange is a range of a body.
type byteRange struct {
	offset, length int64
	partial        bool // the client asked for a range
}

// contentRange is the header of a partial answer.
func (r byteRange) contentRange(size int64) string {
	return "bytes " + itoa(r.offset) + "-" + itoa(r.offset+r.length-1) + "/" + itoa(size)
}

// parseRange reads a Range header. One that is no single range of bytes is
// ignored, as HTTP demands and S3 does; one outside the body is InvalidRange.
func parseRange(header *string, size int64) (byteRange, error) {
	whole := byteRange{0, size, false}
	if header == nil {
		return whole, nil
	}
	unit, spec, ok := strings.Cut(*header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return whole, nil
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return whole, nil
	}
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if from == "" {
		n, ok := parseOffset(to)
		if !ok {
			return whole, nil
		}
		n = min(n, size)
		if n == 0 {
			return whole, invalidRange(*header, size)
		}
		return byteRange{size - n, n, true}, nil
	}
	first, ok := parseOffset(from)
	if !ok {
		return whole, nil
	}
	last := size - 1
	if to != "" {
		n, ok := parseOffset(to)
		if !ok || n < first {
			return whole, nil
		}
		last = min(last, n)
	}
	if first >= size {
		return whole, invalidRange(*header, size)
	}
	return byteRange{first, last - first + 1, true}, nil
}

func parseOffset(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func invalidRange(header string, size int64) *aws.Error {
	e := fail("InvalidRange", "The requested range is not satisfiable")
	e = with(with(e, "RangeRequested", header), "ActualObjectSize", itoa(size))
	e.Header = http.Header{"Content-Range": {"bytes */" + itoa(size)}}
	return e
}
