package lambda

import (
	"strings"
	"sync/atomic"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// runtimeHost is a host whose runtimes get new versions.
type runtimeHost struct{ version atomic.Int32 }

func (h *runtimeHost) arn(region, id string) string {
	return "arn:aws:lambda:" + region + "::runtime:" + id + "-" + number(int(h.version.Load()))
}

func newRuntimeFixture(t *testing.T) (*fixture, *runtimeHost) {
	host := &runtimeHost{}
	return newFixture(t, func(o *Options) {
		o.RuntimeVersion = func(region, id string) (string, error) { return host.arn(region, id), nil }
	}), host
}

func (f *fixture) manage(function, qualifier string, mode api.UpdateRuntimeOn, arn string) (*api.PutRuntimeManagementConfigOutput, error) {
	return f.PutRuntimeManagementConfig(f.ctx(), &api.PutRuntimeManagementConfigInput{
		FunctionName: &function, Qualifier: optional(qualifier), UpdateRuntimeOn: mode, RuntimeVersionArn: optional(arn),
	})
}

// managed returns the mode and the ARN that GetRuntimeManagementConfig shows.
func (f *fixture) managed(function, qualifier string) string {
	f.t.Helper()
	out, err := f.GetRuntimeManagementConfig(f.ctx(), &api.GetRuntimeManagementConfigInput{FunctionName: &function, Qualifier: optional(qualifier)})
	if err != nil {
		f.t.Fatal(err)
	}
	return string(out.UpdateRuntimeOn) + " " + aws.Value(out.RuntimeVersionArn)
}

// pinned returns the runtime version on which environments must run.
func (f *fixture) pinned(function, qualifier string) string {
	return f.entries.get(functionKey{testRegion, function}).routes[qualifier].target.version.RuntimeVersionARN
}

func TestRuntimeVersionFollowsTheModeOfItsUpdates(t *testing.T) {
	f, host := newRuntimeFixture(t)
	const runtime = "nodejs22.x"
	for _, name := range []string{"auto", "function", "manual"} {
		f.create(name)
	}
	first := host.arn(testRegion, runtime)
	if got := f.managed("auto", ""); got != "Auto " {
		t.Errorf("without a configuration: %s", got)
	}
	if _, err := f.manage("function", "", api.UpdateRuntimeOnFunctionUpdate, ""); err != nil {
		t.Fatal(err)
	}
	out, err := f.manage("manual", "$LATEST", api.UpdateRuntimeOnManual, first)
	if err != nil {
		t.Fatal(err)
	}
	if out.UpdateRuntimeOn != api.UpdateRuntimeOnManual || *out.FunctionArn != arnPrefix+"manual:$LATEST" || *out.RuntimeVersionArn != first {
		t.Errorf("answer %s %s %s", out.UpdateRuntimeOn, *out.FunctionArn, *out.RuntimeVersionArn)
	}
	f.reopen()
	host.version.Add(1)
	second := host.arn(testRegion, runtime)
	check := func(name, mode, pinned, shown, problem string) {
		t.Helper()
		if got := f.managed(name, ""); got != mode {
			t.Errorf("%s: configuration %q, want %q", name, got, mode)
		}
		if got := f.pinned(name, ""); got != pinned {
			t.Errorf("%s: environments need %q, want %q", name, got, pinned)
		}
		c := f.get(name, "").RuntimeVersionConfig
		if *c.RuntimeVersionArn != shown || (c.Error != nil) != (problem != "") || c.Error != nil && !strings.Contains(*c.Error.Message, problem) {
			t.Errorf("%s: shown %+v", name, c)
		}
	}
	check("auto", "Auto ", "", second, "")
	check("function", "FunctionUpdate ", first, first, "not installed here any more")
	check("manual", "Manual "+first, first, first, "not installed here any more")

	for _, name := range []string{"function", "manual"} {
		f.change(name, "updated")
	}
	check("function", "FunctionUpdate ", second, second, "")
	check("manual", "Manual "+first, first, first, "not installed here any more")
	if c := f.get("manual", ""); c.LastUpdateStatus != api.LastUpdateStatusFailed || c.LastUpdateStatusReasonCode != codeInvalidRuntime {
		t.Errorf("an update on a runtime version that is gone: %s %s", c.LastUpdateStatus, c.LastUpdateStatusReasonCode)
	}
	// Both what is served since the update failed and what was wanted change.
	if _, err := f.manage("manual", "", api.UpdateRuntimeOnAuto, ""); err != nil {
		t.Fatal(err)
	}
	check("manual", "Auto ", "", second, "")
	f.change("manual", "again")
	if c := f.get("manual", ""); c.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("after the mode was changed: %s", c.LastUpdateStatus)
	}
}

func TestRuntimeManagementIsOfAVersion(t *testing.T) {
	f, host := newRuntimeFixture(t)
	f.create("hello")
	first := host.arn(testRegion, "nodejs22.x")
	if _, err := f.manage("hello", "", api.UpdateRuntimeOnManual, first); err != nil {
		t.Fatal(err)
	}
	version := f.publish("hello")
	if got := f.managed("hello", version); got != "Manual "+first {
		t.Errorf("the published version has %s", got)
	}
	before := f.invoker.retired
	if _, err := f.manage("hello", version, api.UpdateRuntimeOnAuto, ""); err != nil {
		t.Fatal(err)
	}
	if latest, published := f.managed("hello", ""), f.managed("hello", version); latest != "Manual "+first || published != "Auto " {
		t.Errorf("$LATEST has %s, the version %s", latest, published)
	}
	if got := f.invoker.retired[len(before):]; len(got) != 1 || got[0] != arnPrefix+"hello "+version {
		t.Errorf("retired %v", got)
	}
}

func TestRuntimeManagementRefuses(t *testing.T) {
	f, host := newRuntimeFixture(t)
	f.create("hello")
	f.publish("hello")
	if _, err := f.CreateAlias(f.ctx(), &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1")}); err != nil {
		t.Fatal(err)
	}
	served := host.arn(testRegion, "nodejs22.x")
	const pair = "RuntimeVersionArn is required if UpdateRuntimeOn is Manual, and must not be given otherwise."
	for name, tt := range map[string]struct {
		function, qualifier string
		mode                api.UpdateRuntimeOn
		arn                 string
		code, message       string
	}{
		"no function":              {"nobody", "", "Auto", "", codeNotFound, "Function not found: " + arnPrefix + "nobody"},
		"no version":               {"hello", "7", "Auto", "", codeNotFound, "Function not found: " + arnPrefix + "hello:7"},
		"an alias":                 {"hello", "live", "Auto", "", codeInvalid, "Aliases do not support this operation."},
		"Manual without a version": {"hello", "", "Manual", "", codeInvalid, pair},
		"Auto with a version":      {"hello", "", "Auto", served, codeInvalid, pair},
		"a version that is not served": {"hello", "", "Manual", served + "0", codeInvalid,
			"The runtime version " + served + "0 is not installed on this host, which serves nodejs22.x with " + served + "."},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.manage(tt.function, tt.qualifier, tt.mode, tt.arn)
			wantError(t, err, tt.code, tt.message)
		})
	}
	if _, err := f.manage("hello", "", api.UpdateRuntimeOnManual, served); err != nil {
		t.Fatal(err)
	}
	_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Runtime: "nodejs24.x"})
	wantError(t, err, codeInvalid, "The runtime cannot be changed while UpdateRuntimeOn is Manual.")
	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Runtime: "nodejs22.x"}); err != nil {
		t.Errorf("the same runtime: %v", err)
	}
}
