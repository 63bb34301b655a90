package cloudfront

import (
	"fmt"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/killtest"
)

// TestCrashingWriter is the process that is killed: it works on one resource after
// the other, and prints a line before each operation and, once that is acknowledged,
// the resource's kind, its name and the ETag that it has now ("-": it is deleted).
func TestCrashingWriter(t *testing.T) {
	dir := killtest.Dir()
	if dir == "" {
		t.Skip("only as a child of TestKillLosesNothingThatWasAcknowledged")
	}
	f := newFixtureIn(t, dir)
	previous, previousETag := "", ""
	for i := 0; ; i++ {
		policy := f.crashPolicy(fmt.Sprintf("p%d", i))
		function := f.crashFunction(fmt.Sprintf("f%d", i))
		c := config(fmt.Sprintf("d%d", i))
		c.DefaultCacheBehavior.CachePolicyId = &policy
		c.DefaultCacheBehavior.FunctionAssociations = &api.FunctionAssociations{Quantity: aws.Ptr[int32](1), Items: []*api.FunctionAssociation{{
			EventType: api.EventTypeViewerRequest, FunctionARN: &function,
		}}}
		fmt.Println("try distribution new")
		made := f.create(c)
		id := *made.Distribution.Id
		acknowledge("distribution", id, made.ETag)
		etag := f.crashUpdate(id, made.ETag, c, "changed")
		fmt.Println("try invalidation new")
		invalidated, err := f.CreateInvalidation(t.Context(), &api.CreateInvalidationInput{DistributionId: &id, InvalidationBatch: &api.InvalidationBatch{
			CallerReference: aws.Ptr("one"), Paths: &api.Paths{Quantity: aws.Ptr[int32](1), Items: []string{"/a/*"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		acknowledge("invalidation", id+"/"+*invalidated.Invalidation.Id, aws.Ptr("none"))
		if i%3 == 2 {
			old := config(fmt.Sprintf("d%d", i-1))
			old.Enabled = aws.Ptr(false)
			disabled := f.crashUpdate(previous, &previousETag, old, "disabled")
			fmt.Println("try distribution", previous)
			if _, err := f.DeleteDistribution(t.Context(), &api.DeleteDistributionInput{Id: &previous, IfMatch: disabled}); err != nil {
				t.Fatal(err)
			}
			acknowledge("distribution", previous, aws.Ptr("-"))
		}
		previous, previousETag = id, *etag
	}
}

func acknowledge(kind, name string, etag *string) { fmt.Println("ok", kind, name, *etag) }

func (f *fixture) crashPolicy(name string) string {
	fmt.Println("try policy new")
	made, err := f.CreateCachePolicy(f.t.Context(), &api.CreateCachePolicyInput{CachePolicyConfig: &api.CachePolicyConfig{Name: &name, MinTTL: aws.Ptr[int64](1)}})
	if err != nil {
		f.t.Fatal(err)
	}
	acknowledge("policy", *made.CachePolicy.Id, made.ETag)
	return *made.CachePolicy.Id
}

func (f *fixture) crashFunction(name string) (arn string) {
	fmt.Println("try function", name)
	arn = f.liveFunction(name)
	now, err := f.DescribeFunction(f.t.Context(), &api.DescribeFunctionInput{Name: &name, Stage: api.FunctionStageLive})
	if err != nil {
		f.t.Fatal(err)
	}
	acknowledge("function", name, now.ETag)
	return arn
}

func (f *fixture) crashUpdate(id string, etag *string, c *api.DistributionConfig, comment string) *string {
	c = clone(f, c)
	c.Comment = &comment
	fmt.Println("try distribution", id)
	out, err := f.UpdateDistribution(f.t.Context(), &api.UpdateDistributionInput{Id: &id, IfMatch: etag, DistributionConfig: c})
	if err != nil {
		f.t.Fatal(err)
	}
	acknowledge("distribution", id, out.ETag)
	return out.ETag
}

func TestKillLosesNothingThatWasAcknowledged(t *testing.T) {
	for _, operations := range []int{1, 4, 9, 17, 23} {
		t.Run(fmt.Sprintf("after %d operations", operations), func(t *testing.T) {
			dir := t.TempDir()
			acknowledged, trying := killedAfter(t, dir, operations)
			f := newFixtureIn(t, dir)
			for what, etag := range acknowledged {
				if what == trying {
					continue // what was asked for last may be done, or not
				}
				if got := f.etagOf(what); got != etag {
					t.Errorf("%s: ETag %s after the kill, acknowledged was %s", what, got, etag)
				}
			}
			for _, d := range f.distributions.all() {
				if _, ok := f.records.Distributions.Get(d.ID); !ok {
					t.Errorf("%s: no location is told of it", d.ID)
				}
				out, err := f.GetDistributionConfig(t.Context(), &api.GetDistributionConfigInput{Id: &d.ID})
				if err != nil {
					t.Fatal(err)
				}
				out.DistributionConfig.Comment = aws.Ptr("after the kill")
				if _, err := f.UpdateDistribution(t.Context(), &api.UpdateDistributionInput{Id: &d.ID, IfMatch: out.ETag, DistributionConfig: out.DistributionConfig}); err != nil {
					t.Errorf("%s: %v", d.ID, err)
				}
			}
		})
	}
}

// etagOf returns the ETag of a resource, "-" where there is none of that name.
func (f *fixture) etagOf(what string) string {
	f.t.Helper()
	kind, name, _ := strings.Cut(what, " ")
	var etag *string
	var err error
	switch kind {
	case "policy":
		var out *api.GetCachePolicyOutput
		if out, err = f.GetCachePolicy(f.t.Context(), &api.GetCachePolicyInput{Id: &name}); err == nil {
			etag = out.ETag
		}
	case "function":
		var out *api.DescribeFunctionOutput
		if out, err = f.DescribeFunction(f.t.Context(), &api.DescribeFunctionInput{Name: &name, Stage: api.FunctionStageLive}); err == nil {
			etag = out.ETag
		}
		if _, ok := f.records.Functions.Get(f.functionARN(name)); !ok {
			f.t.Errorf("%s: no location is told of it", what)
		}
	case "distribution":
		var out *api.GetDistributionOutput
		if out, err = f.GetDistribution(f.t.Context(), &api.GetDistributionInput{Id: &name}); err == nil {
			etag = out.ETag
		}
	case "invalidation":
		id, invalidation, _ := strings.Cut(name, "/")
		if _, err := f.GetInvalidation(f.t.Context(), &api.GetInvalidationInput{DistributionId: &id, Id: &invalidation}); err == nil {
			return "none"
		}
		if _, err := f.GetDistribution(f.t.Context(), &api.GetDistributionInput{Id: &id}); err != nil {
			return "none" // it went with its distribution
		}
	}
	if err != nil || etag == nil {
		return "-"
	}
	return *etag
}

// killedAfter runs TestCrashingWriter on dir until so many operations have been
// acknowledged, and kills it. It returns the ETags by resource, and the resource
// that an operation was under way for.
func killedAfter(t *testing.T, dir string, operations int) (acknowledged map[string]string, trying string) {
	t.Helper()
	acknowledged = map[string]string{}
	p, n := killtest.Start(t, dir, "-test.run=^TestCrashingWriter$", "-test.v"), 0
	for line := range p.Lines() {
		switch words := strings.Fields(line); {
		case len(words) == 3 && words[0] == "try":
			trying = words[1] + " " + words[2]
		case len(words) == 4 && words[0] == "ok":
			acknowledged[words[1]+" "+words[2]] = words[3]
			trying = ""
			if n++; n == operations {
				p.Kill()
			}
		}
	}
	p.Wait()
	return acknowledged, trying
}
