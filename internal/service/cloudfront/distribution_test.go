package cloudfront

import (
	"math"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

func TestCallerReferenceMakesCreationIdempotent(t *testing.T) {
	f := newFixture(t)
	first := f.create(config("one"))
	again := f.create(config("one"))
	if *again.Distribution.Id != *first.Distribution.Id || *again.ETag != *first.ETag {
		t.Errorf("the same request made %s, then %s", *first.Distribution.Id, *again.Distribution.Id)
	}
	other := config("one")
	other.Comment = aws.Ptr("another")
	_, err := f.CreateDistribution(t.Context(), &api.CreateDistributionInput{DistributionConfig: other})
	wantCode(t, err, "DistributionAlreadyExists")
}

func TestChangesNeedTheCurrentVersion(t *testing.T) {
	f := newFixture(t)
	d := f.create(config("one"))
	update := func(etag *string, reference string) (*api.UpdateDistributionOutput, error) {
		return f.UpdateDistribution(t.Context(), &api.UpdateDistributionInput{Id: d.Distribution.Id, IfMatch: etag, DistributionConfig: config(reference)})
	}
	_, err := update(nil, "one")
	wantCode(t, err, "InvalidIfMatchVersion")
	_, err = update(aws.Ptr("nonsense"), "one")
	wantCode(t, err, "InvalidIfMatchVersion")
	_, err = update(aws.Ptr("*"), "one")
	wantCode(t, err, "PreconditionFailed")
	_, err = update(d.ETag, "two")
	wantCode(t, err, "IllegalUpdate")
	changed, err := update(d.ETag, "one")
	if err != nil {
		t.Fatal(err)
	}
	if *changed.ETag == *d.ETag {
		t.Error("the ETag is that of the version before")
	}
	_, err = update(d.ETag, "one")
	wantCode(t, err, "PreconditionFailed")
}

func TestDeployedOnlyWhenEveryLocationServesIt(t *testing.T) {
	f := newFixture(t)
	f.locations.are(0)
	d := f.create(config("one"))
	if *d.Distribution.Status != inProgress {
		t.Errorf("status %s before any location serves it", *d.Distribution.Status)
	}
	item, _ := f.records.Distributions.Get(*d.Distribution.Id)
	f.locations.are(item.Revision)
	if got := f.status(*d.Distribution.Id); got != deployed {
		t.Errorf("status %s when every location serves it", got)
	}
	off := config("one")
	off.Enabled = aws.Ptr(false)
	changed, err := f.UpdateDistribution(t.Context(), &api.UpdateDistributionInput{Id: d.Distribution.Id, IfMatch: d.ETag, DistributionConfig: off})
	if err != nil {
		t.Fatal(err)
	}
	remove := func() error {
		_, err := f.DeleteDistribution(t.Context(), &api.DeleteDistributionInput{Id: d.Distribution.Id, IfMatch: changed.ETag})
		return err
	}
	wantCode(t, remove(), "DistributionNotDisabled") // not everywhere yet
	f.locations.are(math.MaxUint64)
	wantCode(t, remove(), "")
	_, err = f.GetDistribution(t.Context(), &api.GetDistributionInput{Id: d.Distribution.Id})
	wantCode(t, err, "NoSuchDistribution")
	if n := f.records.Distributions.Len(); n != 0 {
		t.Errorf("locations still have %d distributions", n)
	}
}

func TestAPolicyChangeReachesTheLocations(t *testing.T) {
	f := newFixture(t)
	p, err := f.CreateCachePolicy(t.Context(), &api.CreateCachePolicyInput{CachePolicyConfig: &api.CachePolicyConfig{Name: aws.Ptr("mine"), MinTTL: aws.Ptr[int64](5)}})
	if err != nil {
		t.Fatal(err)
	}
	c := config("one")
	c.DefaultCacheBehavior.CachePolicyId = p.CachePolicy.Id
	d := f.create(c)
	served := func() time.Duration {
		item, _ := f.records.Distributions.Get(*d.Distribution.Id)
		return item.Value.Behaviours[0].TTL.Min
	}
	if served() != 5*time.Second {
		t.Errorf("minimum TTL %v", served())
	}
	_, err = f.DeleteCachePolicy(t.Context(), &api.DeleteCachePolicyInput{Id: p.CachePolicy.Id, IfMatch: p.ETag})
	wantCode(t, err, "CachePolicyInUse")
	_, err = f.UpdateCachePolicy(t.Context(), &api.UpdateCachePolicyInput{
		Id: p.CachePolicy.Id, IfMatch: p.ETag, CachePolicyConfig: &api.CachePolicyConfig{Name: aws.Ptr("mine"), MinTTL: aws.Ptr[int64](7)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if served() != 7*time.Second {
		t.Errorf("minimum TTL %v after the change of the policy", served())
	}
	_, err = f.UpdateCachePolicy(t.Context(), &api.UpdateCachePolicyInput{Id: aws.Ptr(cachingOptimal), CachePolicyConfig: &api.CachePolicyConfig{Name: aws.Ptr("x"), MinTTL: aws.Ptr[int64](7)}})
	wantCode(t, err, "IllegalUpdate")
	_, err = f.DeleteCachePolicy(t.Context(), &api.DeleteCachePolicyInput{Id: aws.Ptr(cachingOptimal)})
	wantCode(t, err, "IllegalDelete")
}

func TestReplicasStayUntilNoLocationServesThem(t *testing.T) {
	f := newFixture(t)
	c := config("one")
	c.DefaultCacheBehavior.LambdaFunctionAssociations = lambdaAt(api.EventTypeViewerRequest, edgeFunction)
	d := f.create(c)
	if r, ok := f.records.Replicas.Get(edgeFunction); !ok || len(r.Value.Distributions) != 1 || r.Value.Distributions[0] != *d.Distribution.Id {
		t.Fatalf("replica %+v", r.Value)
	}
	before, _ := f.records.Distributions.Get(*d.Distribution.Id)
	f.locations.are(before.Revision)
	if _, err := f.UpdateDistribution(t.Context(), &api.UpdateDistributionInput{Id: d.Distribution.Id, IfMatch: d.ETag, DistributionConfig: config("one")}); err != nil {
		t.Fatal(err)
	}
	if more, err := f.dropReplicas(t.Context()); err != nil || !more {
		t.Errorf("nothing left to drop while locations serve the version before (%v)", err)
	}
	if _, ok := f.records.Replicas.Get(edgeFunction); !ok {
		t.Error("the replica is gone while locations serve it")
	}
	f.locations.are(math.MaxUint64)
	if more, err := f.dropReplicas(t.Context()); err != nil || more {
		t.Errorf("more to drop: %v, %v", more, err)
	}
	if _, ok := f.records.Replicas.Get(edgeFunction); ok {
		t.Error("the replica is there after every location has given it up")
	}
}

// A crash between the API's record and what follows from it.
func TestWhatLocationsServeIsDerivedAnewAtTheStart(t *testing.T) {
	f := newFixture(t)
	live := f.liveFunction("live")
	d := f.create(config("one"))
	made, err := f.CreateInvalidation(t.Context(), &api.CreateInvalidationInput{DistributionId: d.Distribution.Id, InvalidationBatch: &api.InvalidationBatch{
		CallerReference: aws.Ptr("i"), Paths: &api.Paths{Quantity: aws.Ptr[int32](1), Items: []string{"/*"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	item, _ := f.records.Distributions.Get(*d.Distribution.Id)
	want := encoded(item.Value)
	ctx := t.Context()
	remove := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	i, _ := f.records.Invalidations.Get(*made.Invalidation.Id)
	fn, _ := f.records.Functions.Get(live)
	remove(f.records.Distributions.Delete(ctx, item.Key, item.Revision))
	remove(f.records.Invalidations.Delete(ctx, i.Key, i.Revision))
	remove(f.records.Functions.Delete(ctx, fn.Key, fn.Revision))
	_, err = f.records.Distributions.Put(ctx, "E0ORPHAN", distribution.Distribution{ID: "E0ORPHAN"})
	remove(err)
	f.close()
	f.open()
	if got, _ := f.records.Distributions.Get(*d.Distribution.Id); encoded(got.Value) != want {
		t.Errorf("derived anew: %s\nwant %s", encoded(got.Value), want)
	}
	if _, ok := f.records.Distributions.Get("E0ORPHAN"); ok {
		t.Error("a distribution that nobody made is served")
	}
	if _, ok := f.records.Invalidations.Get(*made.Invalidation.Id); !ok {
		t.Error("the invalidation is lost")
	}
	if _, ok := f.records.Functions.Get(live); !ok {
		t.Error("the function is lost")
	}
}

func TestForwardedValuesAreTheSameSelectionsAsPolicies(t *testing.T) {
	f := newFixture(t)
	c := config("one")
	legacy(c)
	b := c.DefaultCacheBehavior
	b.ForwardedValues.QueryString = aws.Ptr(true)
	b.ForwardedValues.QueryStringCacheKeys = &api.QueryStringCacheKeys{Quantity: aws.Ptr[int32](1), Items: []string{"id"}}
	b.ForwardedValues.Headers = headerList("Origin")
	d := f.create(c)
	item, _ := f.records.Distributions.Get(*d.Distribution.Id)
	got := item.Value.Behaviours[0]
	none := distribution.Choice{Mode: distribution.ModeNone}
	want := distribution.Selection{
		Headers: distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"origin"}}, Cookies: none,
		Query: distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"id"}},
	}
	if !equal(got.Key, want) {
		t.Errorf("key %+v, want %+v", got.Key, want)
	}
	if want := (distribution.Selection{Headers: none, Cookies: none, Query: distribution.Choice{Mode: distribution.ModeAll}}); !equal(got.Forward, want) {
		t.Errorf("forwarded %+v, want %+v", got.Forward, want)
	}
	if got.TTL.Default != 24*time.Hour || got.TTL.Max != 365*24*time.Hour || !got.Legacy {
		t.Errorf("TTL %+v, legacy %v", got.TTL, got.Legacy)
	}
}

func TestAnAliasMovesBetweenDistributions(t *testing.T) {
	f := newFixture(t)
	f.certificate("arn:aws:acm:us-east-1:1:certificate/a", "*.example.net")
	with := func(reference string, aliases ...string) *api.DistributionConfig {
		c := config(reference)
		c.Aliases = withAliases(aliases)
		c.ViewerCertificate = &api.ViewerCertificate{ACMCertificateArn: aws.Ptr("arn:aws:acm:us-east-1:1:certificate/a"), SSLSupportMethod: api.SSLSupportMethodSniOnly}
		return c
	}
	from, to := f.create(with("from", "shop.example.net", "www.example.net")), f.create(with("to"))
	bare := f.create(config("bare"))
	conflicts, err := f.ListConflictingAliases(t.Context(), &api.ListConflictingAliasesInput{DistributionId: to.Distribution.Id, Alias: aws.Ptr("*.example.net")})
	if err != nil || *conflicts.ConflictingAliasesList.Quantity != 2 {
		t.Errorf("conflicts %+v, %v", conflicts, err)
	}
	move := func(id *string) error {
		_, err := f.AssociateAlias(t.Context(), &api.AssociateAliasInput{TargetDistributionId: id, Alias: aws.Ptr("shop.example.net")})
		return err
	}
	wantCode(t, move(bare.Distribution.Id), "InvalidViewerCertificate")
	wantCode(t, move(to.Distribution.Id), "")
	for id, want := range map[string]int{*from.Distribution.Id: 1, *to.Distribution.Id: 1} {
		if item, _ := f.records.Distributions.Get(id); len(item.Value.Aliases) != want {
			t.Errorf("%s has the aliases %v", id, item.Value.Aliases)
		}
	}
}

func TestAFunctionGoesLiveWhenItIsPublished(t *testing.T) {
	f := newFixture(t)
	arn := f.liveFunction("f")
	dev, err := f.DescribeFunction(t.Context(), &api.DescribeFunctionInput{Name: aws.Ptr("f")})
	if err != nil {
		t.Fatal(err)
	}
	changed, err := f.UpdateFunction(t.Context(), &api.UpdateFunctionInput{
		Name: aws.Ptr("f"), IfMatch: dev.ETag, FunctionConfig: dev.FunctionSummary.FunctionConfig, FunctionCode: []byte("function handler(e) { return e.response; }"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *changed.FunctionSummary.Status != "UNPUBLISHED" {
		t.Errorf("status %s of what was changed after it was published", *changed.FunctionSummary.Status)
	}
	before, _ := f.records.Functions.Get(arn)
	_, err = f.PublishFunction(t.Context(), &api.PublishFunctionInput{Name: aws.Ptr("f"), IfMatch: dev.ETag})
	wantCode(t, err, "PreconditionFailed")
	if _, err := f.PublishFunction(t.Context(), &api.PublishFunctionInput{Name: aws.Ptr("f"), IfMatch: changed.ETag}); err != nil {
		t.Fatal(err)
	}
	after, _ := f.records.Functions.Get(arn)
	if before.Value.Code == after.Value.Code {
		t.Error("locations have the code from before")
	}
	c := config("one")
	c.DefaultCacheBehavior.FunctionAssociations = functionAt(api.EventTypeViewerRequest, arn)
	f.create(c)
	_, err = f.DeleteFunction(t.Context(), &api.DeleteFunctionInput{Name: aws.Ptr("f"), IfMatch: changed.ETag})
	wantCode(t, err, "FunctionInUse")
	live, err := f.DescribeFunction(t.Context(), &api.DescribeFunctionInput{Name: aws.Ptr("f"), Stage: api.FunctionStageLive})
	if err != nil || *live.FunctionSummary.Status != "ASSOCIATED" {
		t.Errorf("live: %+v, %v", live, err)
	}
}
