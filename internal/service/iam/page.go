package iam

import (
	"encoding/base64"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
)

// defaultPage is how many items a page has when the request does not say.
const defaultPage = 100

// page is one page of a list.
type page[T any] struct {
	items     []T // never nil: clients want empty lists rather than none
	truncated *bool
	marker    *string // of the next page
}

// paginate returns the page of items that a marker begins, in the order of
// their keys. A marker holds the last key of the page before, so pages neither
// repeat nor skip items that stay while others come and go.
func paginate[T any](items []T, key func(T) string, marker *string, max *int32) (page[T], error) {
	items = append([]T{}, items...)
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	if marker != nil {
		last, err := base64.RawURLEncoding.DecodeString(*marker)
		if err != nil {
			return page[T]{}, validationError("Invalid Marker.")
		}
		i, found := slices.BinarySearchFunc(items, string(last), func(item T, k string) int { return strings.Compare(key(item), k) })
		if found {
			i++
		}
		items = items[i:]
	}
	size := defaultPage
	if max != nil {
		size = int(*max)
	}
	if len(items) <= size {
		return page[T]{items: items, truncated: aws.Ptr(false)}, nil
	}
	items = items[:size]
	next := base64.RawURLEncoding.EncodeToString([]byte(key(items[size-1])))
	return page[T]{items: items, truncated: aws.Ptr(true), marker: &next}, nil
}

// collect turns every item into what the output wants.
func collect[T, U any](items []T, convert func(T) U) []U {
	out := make([]U, 0, len(items))
	for _, item := range items {
		out = append(out, convert(item))
	}
	return out
}

func self(s string) string { return s }
