package cffunction

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
)

const storeID = "8aa76c93-3198-462c-aaf6-3f1ba3f52e2b"

// withStore gives the bench a key value store, and the function that reads it.
func withStore(b *bench, code string) *keyvalue.Writer {
	b.t.Helper()
	w := keyvalue.NewWriter(keyvalue.NewStores(b.records.KeyValues))
	made := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	if err := w.Create(b.t.Context(), storeID, "arn", made); err != nil {
		b.t.Fatal(err)
	}
	pairs := []keyvalue.Pair{{Key: "text", Value: "värde"}, {Key: "object", Value: `{"a":[1,2]}`}}
	if err := w.Fill(b.t.Context(), storeID, pairs, made.Add(time.Hour)); err != nil {
		b.t.Fatal(err)
	}
	b.opts.Stores = w.Stores
	_, err := b.records.Functions.Put(b.t.Context(), functionARN, distribution.Function{
		Format: 1, ARN: functionARN, Name: "f", Runtime: Runtime2, Code: code, Store: storeID,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

func quote(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFunctionsReadTheirKeyValueStore(t *testing.T) {
	b := newBench(t)
	w := withStore(b, "")
	for expression, want := range map[string]string{
		`await kvs.get('text')`:                                                 "värde",
		`await kvs.get('text', {format: 'string'})`:                             "värde",
		`(await kvs.get('object', {format: 'json'})).a[1] + ''`:                 "2",
		`(await kvs.get('text', {format: 'bytes'})).toString('hex')`:            "76c3a4726465",
		`(await kvs.exists('text')) + '' + (await kvs.exists('other'))`:         "truefalse",
		`(await kvs.count()) + ''`:                                              "2",
		`JSON.stringify(await kvs.meta())`:                                      `{"creationDateTime":"2026-11-30T12:00:00.000Z","lastUpdatedDateTime":"2026-11-30T13:00:00.000Z","keyCount":2}`,
		`(await cf.kvs('` + storeID + `').get('text'))`:                         "värde",
		`await kvs.get('other').catch((e) => e.message)`:                        "KeyNotFound: other",
		`await kvs.get('text', {format: 'json'}).catch((e) => e.name)`:          "SyntaxError",
		`await kvs.get('text', {format: 'xml'}).catch((e) => e.message)`:        `format "xml" is not known`,
		`(await Promise.all([kvs.get('text'), kvs.get('object')])).length + ''`: "2",
	} {
		r, err := Test(t.Context(), distribution.Function{Runtime: Runtime2, Store: storeID, Code: `
			import cf from 'cloudfront';
			const kvs = cf.kvs();
			async function handler(event) { event.request.uri = ` + expression + `; return event.request; }`,
		}, w.Stores, []byte(`{"request":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		if quoted := quote(t, want); r.Error != "" || !strings.Contains(r.Output, `"uri":`+quoted) {
			t.Errorf("%s: %s %s, want %s", expression, r.Output, r.Error, quoted)
		}
	}
}

func TestFunctionsReadNoOtherKeyValueStore(t *testing.T) {
	stores := withStore(newBench(t), "").Stores
	for name, tt := range map[string]struct{ store, code, want string }{
		"none":    {"", `cf.kvs()`, "no key value store is associated"},
		"another": {storeID, `cf.kvs('8aa76c93-3198-462c-aaf6-000000000000')`, "is not associated with the function"},
		"gone":    {"8aa76c93-3198-462c-aaf6-000000000000", `cf.kvs()`, "was not found"},
	} {
		r, err := Test(t.Context(), distribution.Function{
			Runtime: Runtime2, Store: tt.store, Code: `import cf from 'cloudfront'; function handler(event) { ` + tt.code + `; return event.request; }`,
		}, stores, []byte(`{"request":{}}`))
		if err != nil || !strings.Contains(r.Error, tt.want) {
			t.Errorf("%s: %q %v, want %q", name, r.Error, err, tt.want)
		}
	}
}

func TestARunSeesOneVersionOfItsStoreAndTheNextRunTheNext(t *testing.T) {
	b := newBench(t)
	w := withStore(b, `
		import cf from 'cloudfront';
		async function handler(event) { event.request.uri = '/' + await cf.kvs().get('object'); return event.request; }`)
	for _, want := range []string{`1`, `2`} {
		v, err := w.View(storeID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Change(t.Context(), storeID, v.Head.ETag, []keyvalue.Pair{{Key: "object", Value: want}}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		x := viewerRequest()
		if err := b.run(distribution.ViewerRequest, x); err != nil {
			t.Fatal(err)
		}
		if x.Request.URI != "/"+want {
			t.Errorf("uri %s, want /%s", x.Request.URI, want)
		}
	}
	frozen := &values{stores: w.Stores, id: storeID}
	before, err := frozen.open("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Change(t.Context(), storeID, before.Head.ETag, nil, []string{"object"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if again, err := frozen.open(storeID); err != nil || again != before {
		t.Errorf("a run sees two versions (%v)", err)
	}
}
