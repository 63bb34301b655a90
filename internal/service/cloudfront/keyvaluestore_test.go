package cloudfront

import (
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
)

// makeStore makes a key value store, from an object of that content, and waits
// until it is in a state.
func (f *fixture) makeStore(name, content, state string) *api.KeyValueStore {
	f.t.Helper()
	in := &api.CreateKeyValueStoreInput{Name: &name}
	if content != "" {
		in.ImportSource = &api.ImportSource{SourceType: api.ImportSourceTypeS3, SourceARN: aws.Ptr("arn:aws:s3:::" + content)}
	}
	out, err := f.CreateKeyValueStore(f.t.Context(), in)
	if err != nil {
		f.t.Fatal(err)
	}
	if id := *out.KeyValueStore.Id; *out.KeyValueStore.ARN != "arn:aws:cloudfront::"+testAccount+":key-value-store/"+id || len(id) != 36 {
		f.t.Errorf("made %+v", out.KeyValueStore)
	}
	return f.waitForStore(name, state)
}

// waitForStore waits until a store is in a state, for as long as the test may run:
// stores are filled in the background.
func (f *fixture) waitForStore(name, state string) *api.KeyValueStore {
	f.t.Helper()
	for f.t.Context().Err() == nil {
		d, err := f.DescribeKeyValueStore(f.t.Context(), &api.DescribeKeyValueStoreInput{Name: &name})
		if err != nil {
			f.t.Fatal(err)
		}
		switch *d.KeyValueStore.Status {
		case state:
			return d.KeyValueStore
		case "PROVISIONING":
			time.Sleep(time.Millisecond)
		default:
			f.t.Fatalf("the store is %s, want %s", *d.KeyValueStore.Status, state)
		}
	}
	f.t.Fatalf("the store is not %s in time", state)
	return nil
}

func (f *fixture) etagOfStore(name string) *string {
	f.t.Helper()
	d, err := f.DescribeKeyValueStore(f.t.Context(), &api.DescribeKeyValueStoreInput{Name: &name})
	if err != nil {
		f.t.Fatal(err)
	}
	return d.ETag
}

func (f *fixture) pairsOf(store *api.KeyValueStore) []keyvalue.Pair {
	f.t.Helper()
	v, err := f.opts.KeyValues.View(*store.Id)
	if err != nil {
		f.t.Fatal(err)
	}
	return v.After("", 100)
}

func TestAKeyValueStoreIsFilledFromItsImportSource(t *testing.T) {
	f := newFixture(t)
	if pairs := f.pairsOf(f.makeStore("empty", "", "READY")); len(pairs) != 0 {
		t.Errorf("pairs %v", pairs)
	}
	pairs := f.pairsOf(f.makeStore("filled", `logs/{"data":[{"key":"b","value":"2"},{"key":"a","value":"1"}]}`, "READY"))
	if len(pairs) != 2 || pairs[0] != (keyvalue.Pair{Key: "a", Value: "1"}) {
		t.Errorf("pairs %v", pairs)
	}
	for name, tt := range map[string]struct{ source, reason string }{
		"no-bucket": {`none/{"data":[]}`, "NoSuchBucket"},
		"no-json":   {`logs/{"data":`, "not of the form of key value pairs"},
	} {
		failed := f.makeStore(name, tt.source, "IMPORT_FAILED")
		if v, err := f.opts.KeyValues.View(*failed.Id); err != nil || !strings.Contains(v.Head.Reason, tt.reason) {
			t.Errorf("%s: reason %q, %v", name, v.Head.Reason, err)
		}
	}
	_, err := f.CreateKeyValueStore(t.Context(), &api.CreateKeyValueStoreInput{
		Name: aws.Ptr("x"), ImportSource: &api.ImportSource{SourceType: api.ImportSourceTypeS3, SourceARN: aws.Ptr("arn:aws:s3:::bucket")},
	})
	wantCode(t, err, "InvalidArgument")
	_, err = f.CreateKeyValueStore(t.Context(), &api.CreateKeyValueStoreInput{Name: aws.Ptr("filled")})
	wantCode(t, err, "EntityAlreadyExists")
	for status, want := range map[string]int{"READY": 2, "import_failed": 2, "PROVISIONING": 0} {
		list, err := f.ListKeyValueStores(t.Context(), &api.ListKeyValueStoresInput{Status: &status})
		if err != nil || int(*list.KeyValueStoreList.Quantity) != want {
			t.Errorf("%d stores are %s, want %d (%v)", *list.KeyValueStoreList.Quantity, status, want, err)
		}
	}
	page, err := f.ListKeyValueStores(t.Context(), &api.ListKeyValueStoresInput{MaxItems: aws.Ptr("3")})
	if err != nil || aws.Value(page.KeyValueStoreList.NextMarker) != "no-bucket" {
		t.Errorf("marker %q, %v", aws.Value(page.KeyValueStoreList.NextMarker), err)
	}
}

func TestAKeyValueStoreWithoutACommentHasNone(t *testing.T) {
	f := newFixture(t)
	made, err := f.CreateKeyValueStore(t.Context(), &api.CreateKeyValueStoreInput{Name: aws.Ptr("kvs")})
	if err != nil {
		t.Fatal(err)
	}
	if made.KeyValueStore.Comment != nil {
		t.Errorf("comment %q", *made.KeyValueStore.Comment)
	}
}

func TestAKeyValueStoreIsReadyWhenEveryLocationHasIt(t *testing.T) {
	f := newFixture(t)
	f.locations.are(0)
	made, err := f.CreateKeyValueStore(t.Context(), &api.CreateKeyValueStoreInput{Name: aws.Ptr("kvs"), Comment: aws.Ptr("c")})
	if err != nil {
		t.Fatal(err)
	}
	for made.KeyValueStore.Id != nil {
		if v, err := f.opts.KeyValues.View(*made.KeyValueStore.Id); err == nil && v.Head.State == "READY" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if d := f.waitForStore("kvs", "PROVISIONING"); *d.Comment != "c" {
		t.Errorf("comment %q", *d.Comment)
	}
	f.locations.are(1 << 40)
	f.waitForStore("kvs", "READY")
	f.locations.are(0) // it stays: what changes is its content
	f.waitForStore("kvs", "READY")
}

func TestAKeyValueStoreIsKeptWhileAFunctionMayReadIt(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	store := f.makeStore("kvs", "", "READY")
	_, err := f.UpdateKeyValueStore(ctx, &api.UpdateKeyValueStoreInput{Name: store.Name, Comment: aws.Ptr("new"), IfMatch: aws.Ptr("E1234567890123")})
	wantCode(t, err, "PreconditionFailed")
	up, err := f.UpdateKeyValueStore(ctx, &api.UpdateKeyValueStoreInput{Name: store.Name, Comment: aws.Ptr("new"), IfMatch: f.etagOfStore("kvs")})
	if err != nil || *up.KeyValueStore.Comment != "new" {
		t.Fatalf("%+v, %v", up, err)
	}
	config := func(runtime api.FunctionRuntime, arns ...string) *api.FunctionConfig {
		var items []*api.KeyValueStoreAssociation
		for _, arn := range arns {
			items = append(items, &api.KeyValueStoreAssociation{KeyValueStoreARN: &arn})
		}
		return &api.FunctionConfig{Comment: aws.Ptr(""), Runtime: runtime, KeyValueStoreAssociations: &api.KeyValueStoreAssociations{Quantity: quantity(items), Items: items}}
	}
	create := func(c *api.FunctionConfig) (*api.CreateFunctionOutput, error) {
		return f.CreateFunction(ctx, &api.CreateFunctionInput{Name: aws.Ptr("fn"), FunctionConfig: c, FunctionCode: []byte("function handler(event) { return event.request; }")})
	}
	other := strings.Replace(*store.ARN, (*store.Id)[:8], "00000000", 1)
	for want, c := range map[string]*api.FunctionConfig{
		"EntityNotFound": config(api.FunctionRuntimeCloudfrontJs20, other), "InvalidArgument": config(api.FunctionRuntimeCloudfrontJs10, *store.ARN),
	} {
		_, err := create(c)
		wantCode(t, err, want)
	}
	_, err = create(config(api.FunctionRuntimeCloudfrontJs20, *store.ARN, *store.ARN))
	wantCode(t, err, "InvalidArgument")
	fn, err := create(config(api.FunctionRuntimeCloudfrontJs20, *store.ARN))
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.ListFunctions(ctx, &api.ListFunctionsInput{})
	if err != nil || *list.FunctionList.Items[0].FunctionConfig.KeyValueStoreAssociations.Items[0].KeyValueStoreARN != *store.ARN {
		t.Errorf("functions %+v, %v", list, err)
	}
	if _, err := f.PublishFunction(ctx, &api.PublishFunctionInput{Name: aws.Ptr("fn"), IfMatch: fn.ETag}); err != nil {
		t.Fatal(err)
	}
	if live, ok := f.records.Functions.Get(f.functionARN("fn")); !ok || live.Value.Store != *store.Id {
		t.Errorf("locations have %+v", live.Value)
	}
	_, err = f.DeleteKeyValueStore(ctx, &api.DeleteKeyValueStoreInput{Name: store.Name, IfMatch: f.etagOfStore("kvs")})
	wantCode(t, err, "CannotDeleteEntityWhileInUse")
	if _, err := f.DeleteFunction(ctx, &api.DeleteFunctionInput{Name: aws.Ptr("fn"), IfMatch: fn.ETag}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteKeyValueStore(ctx, &api.DeleteKeyValueStoreInput{Name: store.Name, IfMatch: f.etagOfStore("kvs")}); err != nil {
		t.Fatal(err)
	}
	if n := len(f.opts.KeyValues.All()); n != 0 {
		t.Errorf("%d stores are left at the locations", n)
	}
}

func TestKeyValueStoresAreTaggedAndSurviveARestart(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	store := f.makeStore("kvs", `logs/{"data":[{"key":"a","value":"1"}]}`, "READY")
	if _, err := f.TagResource(ctx, &api.TagResourceInput{Resource: store.ARN, Tags: &api.Tags{Items: []*api.Tag{{Key: aws.Ptr("k"), Value: aws.Ptr("v")}}}}); err != nil {
		t.Fatal(err)
	}
	f.close()
	f.open()
	tags, err := f.ListTagsForResource(ctx, &api.ListTagsForResourceInput{Resource: store.ARN})
	if err != nil || len(tags.Tags.Items) != 1 || *tags.Tags.Items[0].Value != "v" {
		t.Errorf("tags %+v, %v", tags, err)
	}
	if pairs := f.pairsOf(f.waitForStore("kvs", "READY")); len(pairs) != 1 {
		t.Errorf("pairs %v", pairs)
	}
	_, err = f.ListTagsForResource(ctx, &api.ListTagsForResourceInput{Resource: aws.Ptr(*store.ARN + "x")})
	wantCode(t, err, "NoSuchResource")
}
