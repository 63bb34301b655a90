package keyvaluestore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/keyvaluestore"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/service/keyvaluestore"
	"lapwing.dev/lapwing/test/servicetest"
)

// bench is the service behind the gateway, with a client of the AWS SDK, which signs
// with SigV4A and puts the account's number before the endpoint's host.
type bench struct {
	*sdk.Client
	t      *testing.T
	stores *keyvalue.Writer
	arn    *string // of a store that is ready and empty
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	i := servicetest.New(t)
	records, err := distribution.Open(t.Context(), i.Store)
	if err != nil {
		t.Fatal(err)
	}
	account := i.Credentials.AccountID()
	b := &bench{t: t, stores: keyvalue.NewWriter(keyvalue.NewStores(records.KeyValues))}
	cfg := i.Serve(gateway.Options{Services: []*aws.Service{api.NewService(keyvaluestore.New(b.stores, account))}, Region: "eu-central-1"})
	address := strings.TrimPrefix(*cfg.BaseEndpoint, "http://")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseEndpoint = sdkaws.String("http://localhost:" + port)
	cfg.HTTPClient = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) { // not every resolver knows names below localhost
			if want := account + ".localhost:" + port; to != want {
				return nil, fmt.Errorf("the client connects to %s, want %s", to, want)
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	b.Client = sdk.NewFromConfig(cfg)
	b.arn = sdkaws.String("arn:aws:cloudfront::" + account + ":key-value-store/8aa76c93-3198-462c-aaf6-3f1ba3f52e2b")
	_, id, _ := strings.Cut(*b.arn, "/")
	if err := b.stores.Create(t.Context(), id, *b.arn, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, err = b.GetKey(t.Context(), &sdk.GetKeyInput{KvsARN: b.arn, Key: sdkaws.String("a")})
	if !is[*types.ConflictException](err) {
		t.Errorf("a store that is not ready: %v", err)
	}
	if err := b.stores.Fill(t.Context(), id, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	return b
}

func is[E error](err error) bool { _, ok := errors.AsType[E](err); return ok }

func (b *bench) describe() *sdk.DescribeKeyValueStoreOutput {
	b.t.Helper()
	return servicetest.Must[*sdk.DescribeKeyValueStoreOutput](b.t)(b.DescribeKeyValueStore(b.t.Context(), &sdk.DescribeKeyValueStoreInput{KvsARN: b.arn}))
}

func (b *bench) put(etag *string, key, value string) (*sdk.PutKeyOutput, error) {
	return b.PutKey(b.t.Context(), &sdk.PutKeyInput{KvsARN: b.arn, IfMatch: etag, Key: &key, Value: &value})
}

func (b *bench) get(key string) string {
	b.t.Helper()
	return *servicetest.Must[*sdk.GetKeyOutput](b.t)(b.GetKey(b.t.Context(), &sdk.GetKeyInput{KvsARN: b.arn, Key: &key})).Value
}

func TestLifeOfAKeyBySDK(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	d := b.describe()
	if *d.ItemCount != 0 || *d.TotalSizeInBytes != 0 || *d.Status != "READY" || *d.KvsARN != *b.arn || d.Created.IsZero() {
		t.Errorf("an empty store is %+v", d)
	}
	const key = "a/b c?ü%2F"
	made := servicetest.Must[*sdk.PutKeyOutput](t)(b.put(d.ETag, key, "värde"))
	if *made.ItemCount != 1 || int(*made.TotalSizeInBytes) != len(key)+len("värde") || *made.ETag == *d.ETag {
		t.Errorf("a put returned %+v", made)
	}
	if got := b.get(key); got != "värde" {
		t.Errorf("value %q", got)
	}
	if _, err := b.put(d.ETag, key, "stale"); !is[*types.ValidationException](err) {
		t.Errorf("a put for an earlier version: %v", err)
	}
	changed := servicetest.Must[*sdk.PutKeyOutput](t)(b.put(made.ETag, key, "x"))
	if got := b.get(key); got != "x" || *changed.ItemCount != 1 {
		t.Errorf("value %q of %d", got, *changed.ItemCount)
	}
	gone := servicetest.Must[*sdk.DeleteKeyOutput](t)(b.DeleteKey(ctx, &sdk.DeleteKeyInput{KvsARN: b.arn, IfMatch: changed.ETag, Key: sdkaws.String(key)}))
	if *gone.ItemCount != 0 || *gone.TotalSizeInBytes != 0 {
		t.Errorf("a delete returned %+v", gone)
	}
	_, err := b.GetKey(ctx, &sdk.GetKeyInput{KvsARN: b.arn, Key: sdkaws.String(key)})
	if !is[*types.ResourceNotFoundException](err) {
		t.Errorf("a key that is gone: %v", err)
	}
	other := strings.Replace(*b.arn, "8aa7", "8aa8", 1)
	_, err = b.DescribeKeyValueStore(ctx, &sdk.DescribeKeyValueStoreInput{KvsARN: &other})
	if !is[*types.ResourceNotFoundException](err) {
		t.Errorf("a store that is not there: %v", err)
	}
}

func TestUpdateKeysIsAllOrNothingBySDK(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	update := func(etag *string, puts []types.PutKeyRequestListItem, deletes ...string) (*sdk.UpdateKeysOutput, error) {
		in := &sdk.UpdateKeysInput{KvsARN: b.arn, IfMatch: etag, Puts: puts}
		for _, key := range deletes {
			in.Deletes = append(in.Deletes, types.DeleteKeyRequestListItem{Key: &key})
		}
		return b.UpdateKeys(ctx, in)
	}
	puts := func(n int) (all []types.PutKeyRequestListItem) {
		for i := range n {
			all = append(all, types.PutKeyRequestListItem{Key: sdkaws.String(fmt.Sprintf("key%02d", i)), Value: sdkaws.String(fmt.Sprint(i))})
		}
		return all
	}
	out := servicetest.Must[*sdk.UpdateKeysOutput](t)(update(b.describe().ETag, puts(50)))
	if *out.ItemCount != 50 {
		t.Errorf("%d keys", *out.ItemCount)
	}
	next := servicetest.Must[*sdk.UpdateKeysOutput](t)(update(out.ETag, puts(1), "key49", "not there"))
	if *next.ItemCount != 49 {
		t.Errorf("%d keys", *next.ItemCount)
	}
	for name, tt := range map[string]struct {
		etag    *string
		puts    []types.PutKeyRequestListItem
		deletes []string
	}{
		"too many":        {next.ETag, puts(51), nil},
		"none":            {next.ETag, nil, nil},
		"twice":           {next.ETag, puts(2), []string{"key01"}},
		"an earlier ETag": {out.ETag, puts(1), nil},
		"a long key":      {next.ETag, append(puts(1), types.PutKeyRequestListItem{Key: sdkaws.String(strings.Repeat("k", 513)), Value: sdkaws.String("")}), nil},
		"a long value":    {next.ETag, append(puts(1), types.PutKeyRequestListItem{Key: sdkaws.String("k"), Value: sdkaws.String(strings.Repeat("v", 1025))}), nil},
	} {
		if _, err := update(tt.etag, tt.puts, tt.deletes...); !is[*types.ValidationException](err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d := b.describe(); *d.ETag != *next.ETag || *d.ItemCount != 49 {
		t.Errorf("what was refused changed the store: %+v", d)
	}
}

func TestKeysAreListedInPagesBySDK(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	etag := b.describe().ETag
	for i := range 25 {
		etag = servicetest.Must[*sdk.PutKeyOutput](t)(b.put(etag, fmt.Sprintf("k%02d", i), "v")).ETag
	}
	first := servicetest.Must[*sdk.ListKeysOutput](t)(b.ListKeys(ctx, &sdk.ListKeysInput{KvsARN: b.arn}))
	if len(first.Items) != 10 || first.NextToken == nil {
		t.Errorf("%d keys on the first page, token %v", len(first.Items), first.NextToken)
	}
	var keys []string
	for pages := sdk.NewListKeysPaginator(b, &sdk.ListKeysInput{KvsARN: b.arn, MaxResults: sdkaws.Int32(7)}); pages.HasMorePages(); {
		for _, item := range servicetest.Must[*sdk.ListKeysOutput](t)(pages.NextPage(ctx)).Items {
			keys = append(keys, *item.Key)
		}
	}
	if len(keys) != 25 || keys[0] != "k00" || keys[24] != "k24" {
		t.Errorf("keys %v", keys)
	}
	_, err := b.ListKeys(ctx, &sdk.ListKeysInput{KvsARN: b.arn, NextToken: sdkaws.String("?")})
	if !is[*types.ValidationException](err) {
		t.Errorf("a token that is none: %v", err)
	}
	_, err = b.ListKeys(ctx, &sdk.ListKeysInput{KvsARN: b.arn, MaxResults: sdkaws.Int32(51)})
	if !is[*types.ValidationException](err) {
		t.Errorf("a page of 51: %v", err)
	}
}

func TestOfWritersWithTheSameVersionOneWinsBySDK(t *testing.T) {
	b := newBench(t)
	etag := b.describe().ETag
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for i := range cap(results) {
		wg.Go(func() {
			_, err := b.put(etag, "key", fmt.Sprint(i))
			results <- err
		})
	}
	wg.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "ValidationException" {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d writers won", won)
	}
}

func TestAStoreThatIsFullTakesNoMoreBySDK(t *testing.T) {
	b := newBench(t)
	_, id, _ := strings.Cut(*b.arn, "/")
	var pairs []keyvalue.Pair
	for i := range keyvalue.MaxBytes / 1029 {
		pairs = append(pairs, keyvalue.Pair{Key: fmt.Sprintf("%05d", i), Value: strings.Repeat("v", 1024)})
	}
	if err := b.stores.Fill(t.Context(), id, pairs, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, err := b.put(b.describe().ETag, "x", strings.Repeat("v", 1024))
	if !is[*types.ServiceQuotaExceededException](err) {
		t.Errorf("error %v", err)
	}
}
