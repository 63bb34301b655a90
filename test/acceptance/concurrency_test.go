package acceptance_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/test/harness"
)

// about is what the test function tells of its environment.
type about struct{ ID, Init, Tenant string }

func ask(t *testing.T, c *lambda.Client, in lambda.InvokeInput, until string) (a about) {
	t.Helper()
	in.Payload = fmt.Appendf(nil, `{"about":true,"until":%q}`, until)
	out, err := c.Invoke(t.Context(), &in)
	if err != nil {
		t.Error(err)
		return a
	}
	if err := json.Unmarshal(out.Payload, &a); err != nil || out.FunctionError != nil {
		t.Errorf("answer %s: %v", out.Payload, err)
	}
	return a
}

// provision sets provisioned concurrency.
func provision(t *testing.T, c *lambda.Client, name, qualifier string, n int32) {
	t.Helper()
	out, err := c.PutProvisionedConcurrencyConfig(t.Context(), &lambda.PutProvisionedConcurrencyConfigInput{
		FunctionName: &name, Qualifier: &qualifier, ProvisionedConcurrentExecutions: &n})
	if err != nil {
		t.Fatal(err)
	}
	if out.Status != types.ProvisionedConcurrencyStatusEnumInProgress {
		t.Errorf("status %s at first", out.Status)
	}
}

// allocated waits until provisioned concurrency is not in progress any more.
func allocated(t *testing.T, c *lambda.Client, name, qualifier string) *lambda.GetProvisionedConcurrencyConfigOutput {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		out, err := c.GetProvisionedConcurrencyConfig(t.Context(), &lambda.GetProvisionedConcurrencyConfigInput{FunctionName: &name, Qualifier: &qualifier})
		if err != nil {
			t.Fatal(err)
		}
		if out.Status != types.ProvisionedConcurrencyStatusEnumInProgress {
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("still in progress: %d of %d allocated", *out.AllocatedProvisionedConcurrentExecutions, *out.RequestedProvisionedConcurrentExecutions)
		}
	}
}

func wantReady(t *testing.T, out *lambda.GetProvisionedConcurrencyConfigOutput, n int32) {
	t.Helper()
	if out.Status != types.ProvisionedConcurrencyStatusEnumReady || *out.AllocatedProvisionedConcurrentExecutions != n || *out.AvailableProvisionedConcurrentExecutions != n {
		t.Errorf("status %s %s, %d allocated and %d available of %d", out.Status, aws.ToString(out.StatusReason),
			*out.AllocatedProvisionedConcurrentExecutions, *out.AvailableProvisionedConcurrentExecutions, n)
	}
}

func publish(t *testing.T, c *lambda.Client, name string) string {
	t.Helper()
	out, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return *out.Version
}

func TestProvisionedConcurrencyIsReadyAgainAfterAKillAndMovesWithItsAlias(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := deploy(t, s, "ready")
	name, live := aws.String("ready"), aws.String("live")
	first := publish(t, c, "ready")
	if _, err := c.CreateAlias(t.Context(), &lambda.CreateAliasInput{FunctionName: name, Name: live, FunctionVersion: &first}); err != nil {
		t.Fatal(err)
	}
	provision(t, c, "ready", "live", 2)
	wantReady(t, allocated(t, c, "ready", "live"), 2)

	// Two find an environment that was started ahead, one has to wait for its own.
	g := newGate(t, s)
	got := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			a := ask(t, c, lambda.InvokeInput{FunctionName: name, Qualifier: live}, g.URL)
			mu.Lock()
			defer mu.Unlock()
			got[a.Init]++
		})
	}
	logged(t, s, "ready", "waiting", 3)
	g.open()
	wg.Wait()
	if want := map[string]int{"provisioned-concurrency": 2, "on-demand": 1}; !maps.Equal(got, want) {
		t.Errorf("initialization types %v, want %v", got, want)
	}
	if a := ask(t, c, lambda.InvokeInput{FunctionName: name}, ""); a.Init != "on-demand" {
		t.Errorf("$LATEST: initialization type %s", a.Init)
	}

	logged(t, s, "ready", "INIT_REPORT", 2)

	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	c = lambda.NewFromConfig(s.Config())
	wantReady(t, allocated(t, c, "ready", "live"), 2)
	if a := ask(t, c, lambda.InvokeInput{FunctionName: name, Qualifier: live}, ""); a.Init != "provisioned-concurrency" {
		t.Errorf("after the restart: initialization type %s", a.Init)
	}

	// The alias moves to a version that cannot start, and then the environments
	// come to one that can.
	broken := republish(t, c, "ready", map[string]string{"BROKEN": "yes"})
	moveAlias(t, c, "ready", "live", broken)
	if out := allocated(t, c, "ready", "live"); out.Status != types.ProvisionedConcurrencyStatusEnumFailed || aws.ToString(out.StatusReason) != "FUNCTION_ERROR_INIT_FAILURE" || *out.AllocatedProvisionedConcurrentExecutions != 0 {
		t.Errorf("a function that does not start: %s %s", out.Status, aws.ToString(out.StatusReason))
	}
	second := republish(t, c, "ready", map[string]string{"BROKEN": ""})
	moveAlias(t, c, "ready", "live", second)
	wantReady(t, allocated(t, c, "ready", "live"), 2)
	if a := ask(t, c, lambda.InvokeInput{FunctionName: name, Qualifier: live}, ""); a.Init != "provisioned-concurrency" {
		t.Errorf("after the move: initialization type %s", a.Init)
	}
	if _, err := c.DeleteProvisionedConcurrencyConfig(t.Context(), &lambda.DeleteProvisionedConcurrencyConfigInput{FunctionName: name, Qualifier: live}); err != nil {
		t.Fatal(err)
	}
	_, err := c.GetProvisionedConcurrencyConfig(t.Context(), &lambda.GetProvisionedConcurrencyConfigInput{FunctionName: name, Qualifier: live})
	if _, gone := errors.AsType[*types.ProvisionedConcurrencyConfigNotFoundException](err); !gone {
		t.Errorf("deleted configuration: %v", err)
	}
}

// logged waits until a function's log has so many events with a word.
func logged(t *testing.T, s *harness.Server, name, word string, n int) {
	t.Helper()
	c := cloudwatchlogs.NewFromConfig(s.Config())
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := c.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("/aws/lambda/" + name), FilterPattern: &word})
		if err == nil && len(out.Events) >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("fewer than %d events with %s: %v", n, word, err)
		}
	}
}

// republish changes the environment variables and publishes that.
func republish(t *testing.T, c *lambda.Client, name string, variables map[string]string) string {
	t.Helper()
	_, err := c.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{FunctionName: &name, Environment: &types.Environment{Variables: variables}})
	if err != nil {
		t.Fatal(err)
	}
	w := lambda.NewFunctionUpdatedV2Waiter(c, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := w.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &name}, patience); err != nil {
		t.Fatal(err)
	}
	return publish(t, c, name)
}

func moveAlias(t *testing.T, c *lambda.Client, name, alias, version string) {
	t.Helper()
	if _, err := c.UpdateAlias(t.Context(), &lambda.UpdateAliasInput{FunctionName: &name, Name: &alias, FunctionVersion: &version}); err != nil {
		t.Fatal(err)
	}
}

func TestTenantsHaveEnvironmentsOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := deployProgram(t, s, "isolated", "function", 1769, func(in *lambda.CreateFunctionInput) {
		in.TenancyConfig = &types.TenancyConfig{TenantIsolationMode: types.TenantIsolationModePerTenant}
	})
	name := aws.String("isolated")
	owners := map[string]string{}
	for range 3 {
		for _, tenant := range []string{"blue", "green/1 @x"} {
			a := ask(t, c, lambda.InvokeInput{FunctionName: name, TenantId: &tenant}, "")
			if a.Tenant != tenant {
				t.Errorf("the function sees tenant %q, want %q", a.Tenant, tenant)
			}
			if owner := owners[a.ID]; owner != "" && owner != tenant {
				t.Errorf("an environment of %s served %s", owner, tenant)
			}
			owners[a.ID] = tenant
		}
	}
	for _, c := range []struct {
		what string
		call func() error
	}{
		{"no tenant", func() error { _, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: name}); return err }},
		{"provisioned concurrency", func() error {
			_, err := c.PutProvisionedConcurrencyConfig(t.Context(), &lambda.PutProvisionedConcurrencyConfigInput{
				FunctionName: name, Qualifier: aws.String(publish(t, c, "isolated")), ProvisionedConcurrentExecutions: aws.Int32(1)})
			return err
		}},
	} {
		if e, ok := errors.AsType[smithy.APIError](c.call()); !ok || e.ErrorCode() != "InvalidParameterValueException" {
			t.Errorf("%s: %v", c.what, e)
		}
	}
}
