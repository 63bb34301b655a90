package freshness

import (
	"net/http"
	"strconv"
	"strings"
)

// Range is a part of an object: Length bytes from Start.
type Range struct{ Start, Length int64 }

// ContentRange is the field's value for an object of that size.
func (r Range) ContentRange(size int64) string {
	return "bytes " + strconv.FormatInt(r.Start, 10) + "-" + strconv.FormatInt(r.Start+r.Length-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// maxRanges is how many ranges a request may name before it gets everything.
const maxRanges = 100

// Select answers a GET's Range for an object of size bytes: with
// http.StatusPartialContent and the ranges, with
// http.StatusRequestedRangeNotSatisfiable, or with http.StatusOK where the object
// is to be sent whole: there is no Range, it cannot be understood, If-Range does
// not hold, or the ranges do not ascend or overlap, which CloudFront answers so.
func Select(request http.Header, v Validators, size int64) ([]Range, int) {
	f := request.Values("Range")
	if len(f) != 1 || !IfRange(request, v) {
		return nil, http.StatusOK
	}
	unit, set, ok := strings.Cut(f[0], "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return nil, http.StatusOK
	}
	var ranges []Range
	end := int64(0) // of the range before
	n := 0
	for spec := range strings.SplitSeq(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue
		}
		if n++; n > maxRanges {
			return nil, http.StatusOK
		}
		r, ok := parseRange(spec, size)
		if !ok {
			return nil, http.StatusOK
		}
		if r.Length == 0 {
			continue // cannot be satisfied
		}
		if r.Start < end {
			return nil, http.StatusOK
		}
		end = r.Start + r.Length
		ranges = append(ranges, r)
	}
	switch {
	case n == 0:
		return nil, http.StatusOK
	case len(ranges) == 0:
		return nil, http.StatusRequestedRangeNotSatisfiable
	}
	return ranges, http.StatusPartialContent
}

// parseRange reads "a-b", "a-" or "-n". One that size cannot satisfy has a length
// of 0.
func parseRange(spec string, size int64) (Range, bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return Range{}, false
	}
	first, last = strings.TrimRight(first, " \t"), strings.TrimLeft(last, " \t")
	if first == "" {
		n, ok := parseOffset(last)
		if !ok {
			return Range{}, false
		}
		n = min(n, size)
		return Range{size - n, n}, true
	}
	start, ok := parseOffset(first)
	if !ok {
		return Range{}, false
	}
	end := size - 1
	if last != "" {
		e, ok := parseOffset(last)
		if !ok || e < start {
			return Range{}, false
		}
		end = min(end, e)
	}
	if start >= size {
		return Range{}, true
	}
	return Range{start, end - start + 1}, true
}

// parseOffset reads a decimal number; one that is too large for a file is the
// largest.
func parseOffset(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > 1<<62 {
		n = 1 << 62
	}
	return n, true
}

// IfRange tells whether If-Range, where there is one, lets a Range be answered: its
// tag must be the object's and strong, or its date Last-Modified to the letter.
func IfRange(request http.Header, v Validators) bool {
	f := request.Values("If-Range")
	switch {
	case len(f) == 0:
		return true
	case len(f) > 1:
		return false
	case validTag(f[0]):
		return strong(f[0], v.ETag)
	default:
		return v.LastModified != "" && f[0] == v.LastModified
	}
}
