package cloudfront

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
)

// maxKeyValueStores is how many there can be ("Quotas on key value stores",
// CloudFront developer guide). A hundred functions can use the same one, which is
// as many as there can be.
const maxKeyValueStores = 200

// keyValueStoreResource is a key value store; its id is its name. Its pairs, and
// how far it is, are among the records of edge locations, by Store.
type keyValueStoreResource struct {
	Store   string // what CloudFront calls its id
	Comment string
	// Bucket and Key name the object that its first pairs come from; empty: it has
	// none.
	Bucket, Key string
	Tags        map[string]string
}

type keyValueStoreRecord = record[keyValueStoreResource]

const keyValueStorePrefix = "key-value-store/"

func (s *Service) keyValueStoreARN(store string) string { return s.arn(keyValueStorePrefix + store) }

// sourceARN is an import source: an object in a bucket.
var sourceARN = regexp.MustCompile(`^arn:aws:s3:::([a-z0-9.-]{3,63})/(.+)$`)

// keyValueStoreStatus tells how far a store is: it is ready when every location has
// it.
func (s *Service) keyValueStoreStatus(store string) distribution.KeyValueState {
	v, err := s.opts.KeyValues.View(store)
	switch {
	case err != nil:
		return distribution.KeyValuesProvisioning
	case v.Head.State == distribution.KeyValuesReady && !s.opts.KeyValues.Served(store, s.opts.Locations.Applied().KeyValues):
		return distribution.KeyValuesProvisioning
	}
	return v.Head.State
}

func (s *Service) describeKeyValueStore(r *keyValueStoreRecord) *api.KeyValueStore {
	var comment *string // as the model would have it always, but AWS leaves out one that nobody gave
	if r.Resource.Comment != "" {
		comment = &r.Resource.Comment
	}
	return &api.KeyValueStore{
		Name: &r.ID, Id: &r.Resource.Store, Comment: comment, ARN: aws.Ptr(s.keyValueStoreARN(r.Resource.Store)),
		Status: aws.Ptr(string(s.keyValueStoreStatus(r.Resource.Store))), LastModifiedTime: &r.Modified,
	}
}

// CreateKeyValueStore implements api.API. The store is filled in the background:
// what is wrong with an import source shows in its status.
func (s *Service) CreateKeyValueStore(ctx context.Context, in *api.CreateKeyValueStoreInput) (*api.CreateKeyValueStoreOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r := keyValueStoreResource{Store: uuid.NewString(), Comment: aws.Value(in.Comment)}
	if source := in.ImportSource; source != nil {
		m := sourceARN.FindStringSubmatch(*source.SourceARN)
		if m == nil {
			return nil, api.NewInvalidArgument("The parameter SourceARN is not the ARN of an object in a bucket.")
		}
		r.Bucket, r.Key = m[1], m[2]
	}
	var err error
	if r.Tags, err = addTags(nil, in.Tags); err != nil {
		return nil, err
	}
	if _, ok := s.keyValueStores.find(*in.Name); ok {
		return nil, api.NewEntityAlreadyExists("A key value store with the same name already exists in this AWS account: %s", *in.Name)
	}
	if s.keyValueStores.collection.Len() >= maxKeyValueStores {
		return nil, api.NewEntityLimitExceeded("You have reached the maximum number of key value stores for this AWS account: %d.", maxKeyValueStores)
	}
	made, err := s.keyValueStores.create(ctx, *in.Name, r)
	if err != nil {
		return nil, err
	}
	if err := s.publishKeyValueStore(ctx, &made); err != nil {
		return nil, err
	}
	s.tidier.wake()
	return &api.CreateKeyValueStoreOutput{
		KeyValueStore: s.describeKeyValueStore(&made), ETag: &made.ETag, Location: location(ctx, keyValueStorePrefix+made.ID),
	}, nil
}

// publishKeyValueStore makes the store of edge locations, to be filled.
func (s *Service) publishKeyValueStore(ctx context.Context, r *keyValueStoreRecord) error {
	return s.opts.KeyValues.Create(ctx, r.Resource.Store, s.keyValueStoreARN(r.Resource.Store), r.Created)
}

// publishKeyValueStores brings what edge locations have up to the API's records.
func (s *Service) publishKeyValueStores(ctx context.Context) error {
	wanted := map[string]bool{}
	for _, r := range s.keyValueStores.all() {
		wanted[r.Resource.Store] = true
		if err := s.publishKeyValueStore(ctx, &r); err != nil {
			return err
		}
	}
	for store := range s.opts.KeyValues.All() {
		if !wanted[store] {
			if err := s.opts.KeyValues.Delete(ctx, store); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillKeyValueStores gives the stores that have yet to get them their first pairs.
func (s *Service) fillKeyValueStores(ctx context.Context) error {
	var errs []error
	for _, r := range s.keyValueStores.all() {
		v, err := s.opts.KeyValues.View(r.Resource.Store)
		if err != nil || v.Head.State != distribution.KeyValuesProvisioning {
			continue
		}
		errs = append(errs, s.fillKeyValueStore(ctx, &r))
	}
	return errors.Join(errs...)
}

func (s *Service) fillKeyValueStore(ctx context.Context, r *keyValueStoreRecord) error {
	store, now := r.Resource.Store, s.opts.Now().UTC()
	pairs, err := s.readSource(ctx, r.Resource.Bucket, r.Resource.Key)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = s.opts.KeyValues.Fill(ctx, store, pairs, now)
		if !errors.Is(err, keyvalue.ErrFull) {
			return gone(err)
		}
	}
	return gone(s.opts.KeyValues.Fail(ctx, store, err.Error(), now))
}

// gone takes it for no error that a store was deleted meanwhile.
func gone(err error) error {
	if errors.Is(err, keyvalue.ErrMissing) {
		return nil
	}
	return err
}

// readSource reads an import source; none has no pairs.
func (s *Service) readSource(ctx context.Context, bucket, key string) ([]keyvalue.Pair, error) {
	if bucket == "" {
		return nil, nil
	}
	body, _, _, _, err := s.opts.Buckets.OpenObject(ctx, bucket, key, "")
	if err != nil {
		if e, ok := errors.AsType[*aws.Error](err); ok {
			return nil, fmt.Errorf("the import source cannot be read: %s: %s", e.Code, e.Message)
		}
		return nil, fmt.Errorf("the import source cannot be read: %w", err)
	}
	pairs, err := keyvalue.ReadSource(body)
	return pairs, errors.Join(err, body.Close())
}

// DescribeKeyValueStore implements api.API.
func (s *Service) DescribeKeyValueStore(_ context.Context, in *api.DescribeKeyValueStoreInput) (*api.DescribeKeyValueStoreOutput, error) {
	r, err := s.keyValueStores.get(in.Name)
	if err != nil {
		return nil, err
	}
	return &api.DescribeKeyValueStoreOutput{KeyValueStore: s.describeKeyValueStore(&r), ETag: &r.ETag}, nil
}

// UpdateKeyValueStore implements api.API.
func (s *Service) UpdateKeyValueStore(ctx context.Context, in *api.UpdateKeyValueStoreInput) (*api.UpdateKeyValueStoreOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.keyValueStores.current(in.Name, in.IfMatch)
	if err != nil {
		return nil, err
	}
	changed := r.Resource
	changed.Comment = *in.Comment
	if r, err = s.keyValueStores.update(ctx, r, changed); err != nil {
		return nil, err
	}
	return &api.UpdateKeyValueStoreOutput{KeyValueStore: s.describeKeyValueStore(&r), ETag: &r.ETag}, nil
}

// DeleteKeyValueStore implements api.API.
func (s *Service) DeleteKeyValueStore(ctx context.Context, in *api.DeleteKeyValueStoreInput) (*api.DeleteKeyValueStoreOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.keyValueStores.current(in.Name, in.IfMatch)
	if err != nil {
		return nil, err
	}
	arn := s.keyValueStoreARN(r.Resource.Store)
	if f, ok := s.functions.first(func(f *functionRecord) bool { return f.Resource.usesStore(arn) }); ok {
		return nil, api.NewCannotDeleteEntityWhileInUse("Cannot delete key value store, it is in use by function %s.", f.ID)
	}
	if err := s.keyValueStores.remove(ctx, r.ID); err != nil {
		return nil, err
	}
	if err := s.opts.KeyValues.Delete(ctx, r.Resource.Store); err != nil {
		return nil, err
	}
	s.tidier.wake()
	return &api.DeleteKeyValueStoreOutput{}, nil
}

// ListKeyValueStores implements api.API.
func (s *Service) ListKeyValueStores(_ context.Context, in *api.ListKeyValueStoresInput) (*api.ListKeyValueStoresOutput, error) {
	var all []*api.KeyValueStore
	for _, r := range s.keyValueStores.all() {
		if d := s.describeKeyValueStore(&r); in.Status == nil || strings.EqualFold(*d.Status, *in.Status) {
			all = append(all, d)
		}
	}
	p, err := paginate(all, func(d *api.KeyValueStore) string { return *d.Name }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &api.ListKeyValueStoresOutput{KeyValueStoreList: &api.KeyValueStoreList{
		NextMarker: p.NextMarker, MaxItems: p.MaxItems, Quantity: p.Quantity, Items: p.Items,
	}}, nil
}

// storeOf returns the ARN of the key value store that a function may read; empty:
// none.
func storeOf(c *api.FunctionConfig) string {
	if a := c.KeyValueStoreAssociations; a != nil && len(a.Items) > 0 {
		return *a.Items[0].KeyValueStoreARN
	}
	return ""
}

// usesStore tells whether a stage of a function may read a key value store.
func (f *functionResource) usesStore(arn string) bool {
	return storeOf(&f.Development.Config) == arn || f.Live != nil && storeOf(&f.Live.Config) == arn
}

// checkStore checks a function's association with a key value store.
func (s *Service) checkStore(c *api.FunctionConfig) error {
	arn := storeOf(c)
	if arn == "" {
		return nil
	}
	if len(c.KeyValueStoreAssociations.Items) > 1 {
		return api.NewInvalidArgument("A function can have at most one key value store associated.")
	}
	if c.Runtime != api.FunctionRuntimeCloudfrontJs20 {
		return api.NewInvalidArgument("Key value stores need the runtime %s.", api.FunctionRuntimeCloudfrontJs20)
	}
	if _, ok := s.keyValueStores.first(func(r *keyValueStoreRecord) bool { return s.keyValueStoreARN(r.Resource.Store) == arn }); !ok {
		return api.NewEntityNotFound("The specified key value store does not exist: %s", arn)
	}
	return nil
}
