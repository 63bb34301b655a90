package lambda

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/invoke"
)

const (
	belowMinimum = "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
	taken        = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
	unpublished  = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
	wrongTarget  = "The function resource provided must be an alias or a published version."
)

func (f *fixture) provision(name, qualifier string, n int32) error {
	_, err := f.PutProvisionedConcurrencyConfig(f.ctx(), &api.PutProvisionedConcurrencyConfigInput{FunctionName: &name, Qualifier: &qualifier, ProvisionedConcurrentExecutions: &n})
	return err
}

func (f *fixture) reserve(name string, n int32) error {
	_, err := f.PutFunctionConcurrency(f.ctx(), &api.PutFunctionConcurrencyInput{FunctionName: &name, ReservedConcurrentExecutions: &n})
	return err
}

// publishes creates a function with so many versions.
func (f *fixture) publishes(name string, n int) {
	f.t.Helper()
	f.create(name)
	for i := range n {
		f.change(name, fmt.Sprint("version ", i+1))
		f.publish(name)
	}
}

// allocations is what the data plane was told to keep ready.
func (f *fixture) allocations(name string) string {
	f.invoker.mu.Lock()
	defer f.invoker.mu.Unlock()
	var list []string
	for _, a := range f.invoker.limits[arnPrefix+name].Provisioned {
		list = append(list, fmt.Sprintf("%s×%d", a.Version.Version, a.Count))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestProvisionedConcurrencyIsForPublishedVersionsAndAliases(t *testing.T) {
	f := newFixture(t)
	f.publishes("hello", 2)
	f.alias("hello", "live", "1")
	f.alias("hello", "latest", "$LATEST")
	f.alias("hello", "other", "2")
	for _, c := range []struct{ qualifier, code, message string }{
		{"$LATEST", codeInvalid, unpublished},
		{"", codeInvalid, unpublished},
		{"latest", codeInvalid, unpublished},
		{"9", codeNotFound, "Function not found: " + arnPrefix + "hello:9"},
		{"nobody", codeNotFound, "Cannot find alias arn: " + arnPrefix + "hello:nobody"},
	} {
		wantError(t, f.provision("hello", c.qualifier, 1), c.code, c.message)
	}
	if err := f.provision("hello", "live", 3); err != nil {
		t.Fatal(err)
	}
	wantError(t, f.provision("hello", "1", 1), codeConflict, "Version is pointed by a Provisioned Concurrency alias")
	if err := f.provision("hello", "2", 2); err != nil {
		t.Fatal(err)
	}
	wantError(t, f.provision("hello", "other", 2), codeConflict, taken)
	if got := f.allocations("hello"); got != "1×3 2×2" {
		t.Errorf("allocations %s", got)
	}
	for _, q := range []string{"$LATEST", ""} {
		_, err := f.GetProvisionedConcurrencyConfig(f.ctx(), &api.GetProvisionedConcurrencyConfigInput{FunctionName: aws.Ptr("hello"), Qualifier: &q})
		wantError(t, err, codeInvalid, wrongTarget)
		_, err = f.DeleteProvisionedConcurrencyConfig(f.ctx(), &api.DeleteProvisionedConcurrencyConfigInput{FunctionName: aws.Ptr("hello"), Qualifier: &q})
		wantError(t, err, codeInvalid, wrongTarget)
	}
	_, err := f.GetProvisionedConcurrencyConfig(f.ctx(), &api.GetProvisionedConcurrencyConfigInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("other")})
	wantError(t, err, "ProvisionedConcurrencyConfigNotFoundException", "No Provisioned Concurrency Config found for this function")
}

func TestProvisionedConcurrencyFollowsItsAlias(t *testing.T) {
	f := newFixture(t)
	f.publishes("hello", 3)
	f.alias("hello", "live", "1")
	if err := f.provision("hello", "live", 10); err != nil {
		t.Fatal(err)
	}
	move := func(version string, weights map[string]float64) error {
		_, err := f.UpdateAlias(f.ctx(), &api.UpdateAliasInput{
			FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: &version,
			RoutingConfig: &api.AliasRoutingConfiguration{AdditionalVersionWeights: weights},
		})
		return err
	}
	for _, step := range []struct {
		version string
		weights map[string]float64
		want    string
	}{
		{"1", map[string]float64{"2": 0.3}, "1×7 2×3"},
		{"2", nil, "2×10"},
	} {
		if err := move(step.version, step.weights); err != nil {
			t.Fatal(err)
		}
		if got := f.allocations("hello"); got != step.want {
			t.Errorf("allocations %s, want %s", got, step.want)
		}
	}
	wantError(t, move("$LATEST", nil), codeInvalid, unpublished)
	if err := f.provision("hello", "3", 1); err != nil {
		t.Fatal(err)
	}
	wantError(t, move("3", nil), codeConflict, taken)
	wantError(t, move("2", map[string]float64{"3": 0.5}), codeConflict, taken)
	if err := move("2", map[string]float64{"1": 0.5}); err != nil {
		t.Fatal(err)
	}
	wantError(t, f.provision("hello", "live", 4), codeInvalid, "Alias with weights can not be used with Provisioned Concurrency")

	f.reopen()
	if got := f.allocations("hello"); got != "1×5 2×5 3×1" {
		t.Errorf("allocations %s after a restart", got)
	}
	if _, err := f.DeleteAlias(f.ctx(), &api.DeleteAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live")}); err != nil {
		t.Fatal(err)
	}
	if got := f.allocations("hello"); got != "3×1" {
		t.Errorf("allocations %s without the alias", got)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	if got := f.allocations("hello"); got != "" {
		t.Errorf("allocations %s without the function", got)
	}
}

func TestProvisionedConcurrencyKeepsToTheLimits(t *testing.T) {
	f := newFixture(t)
	f.publishes("hello", 2)
	f.publishes("other", 1)
	wantError(t, f.provision("hello", "1", 901), codeInvalid, belowMinimum)
	wantError(t, f.provision("hello", "1", 1001), codeInvalid, "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000].")
	for _, step := range []struct {
		put     func() error
		refused string
	}{
		{func() error { return f.provision("hello", "1", 400) }, ""},
		{func() error { return f.provision("other", "1", 501) }, belowMinimum},
		{func() error { return f.reserve("other", 501) }, "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."},
		{func() error { return f.reserve("hello", 399) }, " ReservedConcurrentExecutions  399 should not be lower than function's total provisioned concurrency [400]."},
		{func() error { return f.reserve("hello", 500) }, ""},
		{func() error { return f.provision("hello", "2", 101) }, "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"},
		{func() error { return f.provision("hello", "2", 100) }, ""},
		{func() error { return f.provision("other", "1", 401) }, belowMinimum},
		{func() error { return f.provision("other", "1", 400) }, ""},
		{func() error { return f.provision("other", "1", 1) }, ""},
	} {
		if err := step.put(); step.refused != "" {
			wantError(t, err, codeInvalid, step.refused)
		} else if err != nil {
			t.Error(err)
		}
	}
	settings, err := f.GetAccountSettings(f.ctx(), &api.GetAccountSettingsInput{})
	if err != nil || *settings.AccountLimit.UnreservedConcurrentExecutions != 500 {
		t.Errorf("unreserved: %d, %v, want what is not reserved", *settings.AccountLimit.UnreservedConcurrentExecutions, err)
	}
}

func TestProvisionedConcurrencyShowsWhatHasBecomeOfIt(t *testing.T) {
	f := newFixture(t)
	f.publishes("hello", 2)
	f.alias("hello", "live", "2")
	put, err := f.PutProvisionedConcurrencyConfig(f.ctx(), &api.PutProvisionedConcurrencyConfigInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1"), ProvisionedConcurrentExecutions: aws.Ptr(int32(2))})
	if err != nil || put.Status != api.ProvisionedConcurrencyStatusEnumInProgress || *put.RequestedProvisionedConcurrentExecutions != 2 ||
		*put.AllocatedProvisionedConcurrentExecutions != 0 || *put.AvailableProvisionedConcurrentExecutions != 0 || *put.LastModified != "2026-11-24T01:02:03+0000" {
		t.Errorf("%+v %v", put, err)
	}
	if err := f.provision("hello", "live", 5); err != nil {
		t.Fatal(err)
	}
	f.invoker.mu.Lock()
	f.invoker.states = map[string]invoke.AllocationStatus{
		arnPrefix + "hello:1": {State: invoke.Failed},
		arnPrefix + "hello:2": {State: invoke.Ready, Allocated: 5, Available: 5},
	}
	f.invoker.mu.Unlock()
	show := func(arn string, status api.ProvisionedConcurrencyStatusEnum, reason *string, counts ...*int32) string {
		s := fmt.Sprint(strings.TrimPrefix(arn, arnPrefix), " ", status, " ", aws.Value(reason))
		for _, n := range counts {
			s += fmt.Sprint(" ", *n)
		}
		return s
	}
	var got []string
	in := &api.ListProvisionedConcurrencyConfigsInput{FunctionName: aws.Ptr("hello"), MaxItems: aws.Ptr(int32(1))}
	for {
		out, err := f.ListProvisionedConcurrencyConfigs(f.ctx(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out.ProvisionedConcurrencyConfigs {
			got = append(got, show(*c.FunctionArn, c.Status, c.StatusReason, c.RequestedProvisionedConcurrentExecutions, c.AllocatedProvisionedConcurrentExecutions, c.AvailableProvisionedConcurrentExecutions))
		}
		if in.Marker = out.NextMarker; in.Marker == nil {
			break
		}
	}
	if want := "[hello:1 FAILED FUNCTION_ERROR_INIT_FAILURE 2 0 0 hello:live READY  5 5 5]"; fmt.Sprint(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	for range 2 { // as on AWS it is no error that there is none
		if _, err := f.DeleteProvisionedConcurrencyConfig(f.ctx(), &api.DeleteProvisionedConcurrencyConfigInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")}); err != nil {
			t.Error(err)
		}
	}
	if got := f.allocations("hello"); got != "2×5" {
		t.Errorf("allocations %s", got)
	}
}

func TestTenantIsolation(t *testing.T) {
	f := newFixture(t)
	f.create("isolated", func(in *api.CreateFunctionInput) {
		in.TenancyConfig = &api.TenancyConfig{TenantIsolationMode: api.TenantIsolationModePerTenant}
	})
	f.create("shared")
	f.change("isolated", "an update keeps it")
	version := f.publish("isolated")
	f.reopen()
	for _, q := range []string{"", version} {
		if c := f.get("isolated", q); c.TenancyConfig == nil || c.TenancyConfig.TenantIsolationMode != api.TenantIsolationModePerTenant {
			t.Errorf("tenancy of %q: %+v", q, c.TenancyConfig)
		}
	}
	if c := f.get("shared", ""); c.TenancyConfig != nil {
		t.Errorf("tenancy of a function without: %+v", c.TenancyConfig)
	}
	call := func(name string, tenant *string) error {
		_, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: &name, TenantId: tenant})
		return err
	}
	wantError(t, call("isolated", nil), codeInvalid, "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again.")
	wantError(t, call("shared", aws.Ptr("blue")), codeInvalid, "The invoked function is not enabled with tenancy configuration.")
	if err := call("isolated", aws.Ptr("blue")); err != nil || f.invoker.request().TenantID != "blue" {
		t.Errorf("%v, tenant %q", err, f.invoker.request().TenantID)
	}
	_, err := f.CreateFunctionUrlConfig(f.ctx(), &api.CreateFunctionUrlConfigInput{FunctionName: aws.Ptr("isolated"), AuthType: api.FunctionUrlAuthTypeNone})
	wantError(t, err, codeInvalid, "Function URLs are not supported for functions with tenant isolation.")
	wantError(t, f.provision("isolated", version, 1), codeInvalid, "Provisioned concurrency is not supported for functions with tenant isolation.")
}
