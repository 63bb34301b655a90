package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

// Options configures the service.
type Options struct {
	Store     *state.Store
	AccountID string // of the one account, which owns every bucket
	Region    string // where a request names none
	Logger    *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// Service implements the S3 API.
type Service struct {
	options    Options
	blobs      *state.Blobs
	references *references
	buckets    *state.Collection[bucket]
	versions   *state.Collection[version]
	uploads    *state.Collection[upload]
	parts      *state.Collection[part]

	// existence is held for reading by whoever writes a record into a
	// bucket, and for writing while a bucket is deleted.
	existence sync.RWMutex
	// keys are held while the records of an object key are looked at and
	// written, by a hash of bucket and key. After existence, never two.
	keys [256]sync.Mutex
	seed maphash.Seed

	sequence atomic.Int64
}

var _ api.API = (*Service)(nil)

// New opens the service's collections and removes the bodies that no object
// needs, as a crash may leave them. Store must stay open longer than the
// service is used.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{options: o, seed: maphash.MakeSeed()}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return s, nil
}

func (s *Service) open(ctx context.Context) (err error) {
	store := s.options.Store
	if s.blobs, err = store.BlobSet("s3"); err != nil {
		return err
	}
	if s.buckets, err = state.Collect[bucket](ctx, store, "s3-buckets"); err != nil {
		return err
	}
	if s.versions, err = state.Collect[version](ctx, store, "s3-versions"); err != nil {
		return err
	}
	if s.uploads, err = state.Collect[upload](ctx, store, "s3-uploads"); err != nil {
		return err
	}
	if s.parts, err = state.Collect[part](ctx, store, "s3-parts"); err != nil {
		return err
	}
	s.references = newReferences(s.blobs, s.options.Logger)
	for v := range s.versions.Scan("", "") {
		s.references.load(v.Value.digests())
		s.sequence.Store(max(s.sequence.Load(), v.Value.Sequence))
	}
	if err := s.dropStrayParts(ctx); err != nil {
		return err
	}
	for p := range s.parts.Scan("", "") {
		s.references.load(p.Value.digests())
	}
	removed, err := s.references.sweep()
	if removed > 0 {
		s.options.Logger.Info("s3: removed bodies that no object needs", "count", removed)
	}
	return err
}

// lockKey locks the records of an object key, and the bucket against deletion.
// The bucket must exist.
func (s *Service) lockKey(bucketName, key string) (_ *bucket, unlock func(), err error) {
	s.existence.RLock()
	b, ok := s.buckets.Get(bucketName)
	if !ok {
		s.existence.RUnlock()
		return nil, nil, noSuchBucket(bucketName)
	}
	mu := &s.keys[maphash.String(s.seed, bucketName+"/"+key)%uint64(len(s.keys))]
	mu.Lock()
	return &b.Value, func() {
		mu.Unlock()
		s.existence.RUnlock()
	}, nil
}

// stamp returns the sequence and the time of a new version.
func (s *Service) stamp() (int64, time.Time) {
	for {
		last := s.sequence.Load()
		next := max(last+1, s.options.Now().UnixNano())
		if s.sequence.CompareAndSwap(last, next) {
			return next, time.Unix(0, next).UTC().Truncate(time.Second)
		}
	}
}

// bucket finds the bucket of a request, after it has refused what of the
// request is not offered.
func (s *Service) bucket(in any, name *string) (*bucket, error) {
	if err := s.refuse(in); err != nil {
		return nil, err
	}
	b, ok := s.buckets.Get(aws.Value(name))
	if !ok {
		return nil, noSuchBucket(aws.Value(name))
	}
	return &b.Value, nil
}

// HasBucket tells whether there is a bucket.
func (s *Service) HasBucket(name string) bool {
	_, ok := s.buckets.Get(name)
	return ok
}

const maxKey = 1024 // bytes

// object is bucket, and checks the object key too.
func (s *Service) object(in any, bucketName, key *string) (*bucket, error) {
	b, err := s.bucket(in, bucketName)
	if err != nil {
		return nil, err
	}
	return b, checkKey(aws.Value(key))
}

func checkKey(key string) error {
	switch {
	case len(key) > maxKey:
		return with(with(fail("KeyTooLongError", "Your key is too long"), "Size", itoa(int64(len(key)))), "MaxSizeAllowed", itoa(maxKey))
	case key == "" || !utf8.ValidString(key) || strings.Contains(key, separator):
		return with(fail("InvalidURI", "Couldn't parse the specified URI."), "URI", strings.ToValidUTF8(key, "�"))
	}
	return nil
}

// owner is the one account, as listings show it. Its canonical id has the form
// of AWS's, 64 hexadecimal digits.
func (s *Service) owner() *api.Owner {
	sum := sha256.Sum256([]byte("canonical user id of " + s.options.AccountID))
	return &api.Owner{ID: aws.Ptr(hex.EncodeToString(sum[:]))}
}

func (s *Service) initiator() *api.Initiator {
	return &api.Initiator{ID: s.owner().ID}
}

// keepsNothing says that an error of a write means that it did not happen. All
// others leave it open.
func keepsNothing(err error) bool {
	for _, definite := range []error{state.ErrTooLarge, state.ErrExists, state.ErrConflict, state.ErrNotFound} {
		if errors.Is(err, definite) {
			return true
		}
	}
	return false
}

// OpenObject opens an object, or one version of it, for reading: for other
// parts of the platform, which have checked that the caller may read it.
func (s *Service) OpenObject(ctx context.Context, bucketName, key, versionID string) (body io.ReadCloser, size int64, version, etag string, err error) {
	out, err := s.GetObject(ctx, &api.GetObjectInput{Bucket: &bucketName, Key: &key, VersionId: optional(versionID)})
	if err != nil {
		return nil, 0, "", "", err
	}
	return out.Body, aws.Value(out.ContentLength), aws.Value(out.VersionId), aws.Value(out.ETag), nil
}

// optional is nil for the empty string.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
