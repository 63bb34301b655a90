package cloudfront

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/state"
)

// format is the version of the records.
const format = 1

// record is a resource of any kind as it is kept.
type record[R any] struct {
	Format   int
	ID       string
	ETag     string // new with every change
	Created  time.Time
	Modified time.Time
	Resource R
}

// kind is all resources of one kind. Its methods that write are called with
// Service.writing held.
type kind[R any] struct {
	collection *state.Collection[record[R]]
	now        func() time.Time
	missing    *aws.Error // where there is no resource with an id
}

func (k *kind[R]) open(ctx context.Context, s *Service, name string, missing func(string, ...any) *aws.Error, message string) (err error) {
	k.now, k.missing = s.opts.Now, missing("%s", message)
	if k.collection, err = state.Collect[record[R]](ctx, s.opts.Store, name); err != nil {
		return err
	}
	for item := range k.collection.Scan("", "") {
		if item.Value.Format > format {
			return fmt.Errorf("%s %q has format %d, which is newer than this program", name, item.Key, item.Value.Format)
		}
	}
	return nil
}

// get returns a resource, or the error that there is none.
func (k *kind[R]) get(id *string) (record[R], error) {
	if r, ok := k.find(aws.Value(id)); ok {
		return r, nil
	}
	return record[R]{}, k.missing
}

func (k *kind[R]) find(id string) (record[R], bool) {
	if id == "" {
		return record[R]{}, false
	}
	item, ok := k.collection.Get(id)
	return item.Value, ok
}

// all returns the resources in the order of their ids.
func (k *kind[R]) all() (all []record[R]) {
	for item := range k.collection.Scan("", "") {
		all = append(all, item.Value)
	}
	return all
}

// first returns a resource that a condition holds for.
func (k *kind[R]) first(condition func(*record[R]) bool) (record[R], bool) {
	for item := range k.collection.Scan("", "") {
		if condition(&item.Value) {
			return item.Value, true
		}
	}
	return record[R]{}, false
}

// create makes a resource.
func (k *kind[R]) create(ctx context.Context, id string, r R) (record[R], error) {
	now := k.now().UTC()
	item, err := k.collection.Create(ctx, id, record[R]{Format: format, ID: id, ETag: newETag(), Created: now, Modified: now, Resource: r})
	return item.Value, err
}

// current returns a resource that is to be changed, if the change is for the
// version that is there.
func (k *kind[R]) current(id, ifMatch *string) (record[R], error) {
	r, err := k.get(id)
	if err != nil {
		return r, err
	}
	return r, match(r.ETag, ifMatch)
}

// update replaces a resource.
func (k *kind[R]) update(ctx context.Context, old record[R], r R) (record[R], error) {
	old.ETag, old.Modified, old.Resource = newETag(), k.now().UTC(), r
	item, err := k.collection.Put(ctx, old.ID, old)
	return item.Value, err
}

// amend changes a resource without a new version of it, as tags do.
func (k *kind[R]) amend(ctx context.Context, old record[R], r R) error {
	old.Resource = r
	_, err := k.collection.Put(ctx, old.ID, old)
	return err
}

// remove deletes a resource.
func (k *kind[R]) remove(ctx context.Context, id string) error {
	item, ok := k.collection.Get(id)
	if !ok {
		return k.missing
	}
	return k.collection.Delete(ctx, id, item.Revision)
}

var etagForm = regexp.MustCompile(`^(E[A-Z0-9]{5,20}|\*)$`)

// match compares an If-Match header with the version that is there.
func match(etag string, ifMatch *string) error {
	switch v := aws.Value(ifMatch); {
	case !etagForm.MatchString(v):
		return api.NewInvalidIfMatchVersion("The If-Match version is missing or not valid for the resource.")
	case v != etag:
		return api.NewPreconditionFailed("The request failed because it didn't meet the preconditions in one or more request-header fields.")
	}
	return nil
}

const (
	capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	smalls   = "abcdefghijklmnopqrstuvwxyz0123456789"
	hex      = "0123456789abcdef"
)

// random returns n characters of an alphabet of at most 64.
func random(alphabet string, n int) string {
	out := make([]byte, 0, n)
	var b [64]byte
	for {
		rand.Read(b[:])
		for _, c := range b {
			if c &= 63; int(c) < len(alphabet) {
				if out = append(out, alphabet[c]); len(out) == n {
					return string(out)
				}
			}
		}
	}
}

// newETag returns a version as CloudFront writes it; newID an id with the
// letter of its kind.
func newETag() string            { return newID("E") }
func newID(letter string) string { return letter + random(capitals, 13) }

// Pages of lists (CloudFront API reference).
const maxPage = 100

// page is one page of a list.
type page[T any] struct {
	Items      []T
	NextMarker *string // nil: the last page
	MaxItems   *int32
	Quantity   *int32
}

func (p *page[T]) truncated() *bool { return aws.Ptr(p.NextMarker != nil) }

// paginate returns the page of a list that follows a marker, which is the id of
// an item. maxItems is a decimal number.
func paginate[T any](all []T, id func(T) string, marker, maxItems *string) (*page[T], error) {
	limit := maxPage
	if maxItems != nil && *maxItems != "" {
		n, err := strconv.Atoi(*maxItems)
		if err != nil || n < 1 {
			return nil, api.NewInvalidArgument("The parameter MaxItems must be a number greater than 0.")
		}
		limit = min(n, maxPage)
	}
	start := 0
	if m := aws.Value(marker); m != "" {
		// One that is gone meanwhile has its place in the order of ids.
		if start = slices.IndexFunc(all, func(v T) bool { return id(v) == m }) + 1; start == 0 {
			for start < len(all) && id(all[start]) <= m {
				start++
			}
		}
	}
	items := all[start:]
	p := &page[T]{MaxItems: aws.Ptr(int32(limit))}
	if len(items) > limit {
		items = items[:limit]
		p.NextMarker = aws.Ptr(id(items[limit-1]))
	}
	if len(items) > 0 {
		p.Items = items
	}
	p.Quantity = aws.Ptr(int32(len(items)))
	return p, nil
}

// or returns what p points to, or the default where it is nil.
func or[T any](p *T, otherwise T) *T {
	if p == nil {
		return &otherwise
	}
	return p
}
