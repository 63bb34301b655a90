package lambda

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

// qualifiers are what the function of configureAll is asked for by.
var qualifiers = []string{"", "1", "2", "live"}

// configureAll makes a function with versions 1 and 2, alias live of version 1,
// and everything that can be configured on them.
func (f *fixture) configureAll(name string) {
	f.t.Helper()
	f.publishes(name, 2)
	f.alias(name, "live", "1")
	f.createURL(name, "")
	f.createURL(name, "live", func(in *api.CreateFunctionUrlConfigInput) {
		in.InvokeMode = api.InvokeModeResponseStream
		in.Cors = &api.Cors{AllowOrigins: []string{"*"}, MaxAge: aws.Ptr(int32(60))}
	})
	ctx := f.ctx()
	must := func(_ any, err error) {
		f.t.Helper()
		if err != nil {
			f.t.Fatal(err)
		}
	}
	for i, q := range qualifiers {
		must(f.AddPermission(ctx, &api.AddPermissionInput{FunctionName: &name, Qualifier: optional(q), StatementId: aws.Ptr("s"), Action: aws.Ptr("lambda:InvokeFunction"), Principal: aws.Ptr("*")}))
		must(f.PutFunctionEventInvokeConfig(ctx, &api.PutFunctionEventInvokeConfigInput{FunctionName: &name, Qualifier: optional(q), MaximumEventAgeInSeconds: aws.Ptr(int32(60 + i))}))
	}
	must(nil, f.reserve(name, 10))
	must(nil, f.provision(name, "live", 3))
	must(nil, f.provision(name, "2", 4))
	must(nil, f.putSigning(name, f.signing(api.CodeSigningPolicyWarn)))
	must(f.PutFunctionRecursionConfig(ctx, &api.PutFunctionRecursionConfigInput{FunctionName: &name, RecursiveLoop: api.RecursiveLoopAllow}))
	must(f.PutRuntimeManagementConfig(ctx, &api.PutRuntimeManagementConfigInput{FunctionName: &name, UpdateRuntimeOn: api.UpdateRuntimeOnFunctionUpdate}))
	must(f.TagResource(ctx, &api.TagResourceInput{Resource: aws.Ptr(arnPrefix + name), Tags: map[string]string{"team": "a"}}))
}

// configured is all that the API tells of a function's configurations, errors
// included, a line for each question.
func (f *fixture) configured(name string) string {
	var b strings.Builder
	tell := func(what string, out any, err error) {
		if err != nil {
			out = err.Error()
		}
		text, err := json.Marshal(out)
		if err != nil {
			f.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", what, text)
	}
	ctx := f.ctx()
	for _, q := range qualifiers {
		qualifier := optional(q)
		p, err := f.GetPolicy(ctx, &api.GetPolicyInput{FunctionName: &name, Qualifier: qualifier})
		tell("policy "+q, p, err)
		c, err := f.GetFunctionEventInvokeConfig(ctx, &api.GetFunctionEventInvokeConfigInput{FunctionName: &name, Qualifier: qualifier})
		tell("events "+q, c, err)
		if !isVersion(q) {
			u, err := f.GetFunctionUrlConfig(ctx, &api.GetFunctionUrlConfigInput{FunctionName: &name, Qualifier: qualifier})
			tell("url "+q, u, err)
		}
		if q == "2" || q == "live" { // version 1 has it by its alias
			p, err := f.GetProvisionedConcurrencyConfig(ctx, &api.GetProvisionedConcurrencyConfigInput{FunctionName: &name, Qualifier: qualifier})
			tell("provisioned "+q, p, err)
		}
	}
	r, err := f.GetFunctionRecursionConfig(ctx, &api.GetFunctionRecursionConfigInput{FunctionName: &name})
	tell("recursion", r, err)
	m, err := f.GetRuntimeManagementConfig(ctx, &api.GetRuntimeManagementConfigInput{FunctionName: &name})
	tell("runtime", m, err)
	s, err := f.GetFunctionCodeSigningConfig(ctx, &api.GetFunctionCodeSigningConfigInput{FunctionName: &name})
	tell("signing", s, err)
	n, err := f.GetFunctionConcurrency(ctx, &api.GetFunctionConcurrencyInput{FunctionName: &name})
	tell("reserved", n, err)
	t, err := f.ListTags(ctx, &api.ListTagsInput{Resource: aws.Ptr(arnPrefix + name)})
	tell("tags", t, err)
	f.invoker.mu.Lock()
	defer f.invoker.mu.Unlock()
	l := f.invoker.limits[arnPrefix+name]
	var kept []string
	for _, a := range l.Provisioned {
		kept = append(kept, fmt.Sprintf("%s×%d %s", a.Version.Version, a.Count, a.Token))
	}
	slices.Sort(kept)
	tell("data plane", []any{l.Reserved, kept}, nil)
	return b.String()
}

func TestEveryConfigurationOfAFunctionLastsOverARestart(t *testing.T) {
	f := newFixture(t)
	f.configureAll("hello")
	before := f.configured("hello")
	if strings.Contains(before, "Exception") {
		t.Fatalf("not all is configured:\n%s", before)
	}
	f.reopen()
	if after := f.configured("hello"); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func TestNoConfigurationOfAFunctionOutlivesIt(t *testing.T) {
	f := newFixture(t)
	f.publishes("other", 2)
	f.alias("other", "live", "1")
	fresh := strings.ReplaceAll(f.configured("other"), "other", "hello")

	f.configureAll("hello")
	signing, err := f.GetFunctionCodeSigningConfig(f.ctx(), &api.GetFunctionCodeSigningConfigInput{FunctionName: aws.Ptr("hello")})
	if err != nil {
		t.Fatal(err)
	}
	url, err := f.GetFunctionUrlConfig(f.ctx(), &api.GetFunctionUrlConfigInput{FunctionName: aws.Ptr("hello")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	f.invoker.mu.Lock()
	l := f.invoker.limits[arnPrefix+"hello"]
	f.invoker.mu.Unlock()
	if l.Reserved != nil || len(l.Provisioned) != 0 {
		t.Errorf("the data plane still keeps %+v", l)
	}
	if f.FunctionURL(idOf(t, *url.FunctionUrl)) != nil {
		t.Error("the URL outlives its function")
	}
	if _, err := f.DeleteCodeSigningConfig(f.ctx(), &api.DeleteCodeSigningConfigInput{CodeSigningConfigArn: signing.CodeSigningConfigArn}); err != nil {
		t.Errorf("its code signing configuration is still in use: %v", err)
	}

	f.publishes("hello", 2)
	f.alias("hello", "live", "1")
	if got := f.configured("hello"); got != fresh {
		t.Errorf("created again it has:\n%swant:\n%s", got, fresh)
	}
	f.reopen()
	if got := f.configured("hello"); got != fresh {
		t.Errorf("after a restart it has:\n%swant:\n%s", got, fresh)
	}
}

func TestNoConfigurationOfAVersionOrAliasOutlivesIt(t *testing.T) {
	f := newFixture(t)
	f.configureAll("hello")
	ctx := f.ctx()
	if _, err := f.DeleteAlias(ctx, &api.DeleteAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live")}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteFunction(ctx, &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("2")}); err != nil {
		t.Fatal(err)
	}
	if got := f.allocations("hello"); got != "" {
		t.Errorf("the data plane still keeps %s", got)
	}
	f.alias("hello", "live", "1")
	for line := range strings.Lines(f.configured("hello")) {
		what, told, _ := strings.Cut(line, ": ")
		gone := strings.HasSuffix(what, " live") || strings.HasSuffix(what, " 2")
		if gone != strings.Contains(told, "Exception") {
			t.Error(line)
		}
	}
	f.reopen()
	if got := f.allocations("hello"); got != "" {
		t.Errorf("after a restart the data plane keeps %s", got)
	}
}

// TestEveryListCanBeWalkedOneByOne also deletes what the next page begins with:
// the walk goes on behind it.
func TestEveryListCanBeWalkedOneByOne(t *testing.T) {
	f := newFixture(t)
	f.configureAll("hello")
	f.alias("hello", "beta", "1")
	f.createURL("hello", "beta")
	ctx, name, one := f.ctx(), aws.Ptr("hello"), aws.Ptr(int32(1))
	events := func(marker *string) (arns []string, next *string, err error) {
		out, err := f.ListFunctionEventInvokeConfigs(ctx, &api.ListFunctionEventInvokeConfigsInput{FunctionName: name, MaxItems: one, Marker: marker})
		if err != nil {
			return nil, nil, err
		}
		for _, c := range out.FunctionEventInvokeConfigs {
			arns = append(arns, *c.FunctionArn)
		}
		return arns, out.NextMarker, nil
	}
	urls := func(marker *string) (arns []string, next *string, err error) {
		out, err := f.ListFunctionUrlConfigs(ctx, &api.ListFunctionUrlConfigsInput{FunctionName: name, MaxItems: one, Marker: marker})
		if err != nil {
			return nil, nil, err
		}
		for _, c := range out.FunctionUrlConfigs {
			arns = append(arns, *c.FunctionArn)
		}
		return arns, out.NextMarker, nil
	}
	provisioned := func(marker *string) (arns []string, next *string, err error) {
		out, err := f.ListProvisionedConcurrencyConfigs(ctx, &api.ListProvisionedConcurrencyConfigsInput{FunctionName: name, MaxItems: one, Marker: marker})
		if err != nil {
			return nil, nil, err
		}
		for _, c := range out.ProvisionedConcurrencyConfigs {
			arns = append(arns, *c.FunctionArn)
		}
		return arns, out.NextMarker, nil
	}
	aliases := func(marker *string) (arns []string, next *string, err error) {
		out, err := f.ListAliases(ctx, &api.ListAliasesInput{FunctionName: name, MaxItems: one, Marker: marker})
		if err != nil {
			return nil, nil, err
		}
		for _, a := range out.Aliases {
			arns = append(arns, *a.AliasArn)
		}
		return arns, out.NextMarker, nil
	}
	walk := func(list func(*string) ([]string, *string, error), between func()) string {
		t.Helper()
		var all []string
		for marker := (*string)(nil); ; {
			arns, next, err := list(marker)
			if err != nil {
				t.Fatal(err)
			}
			if len(arns) > 1 {
				t.Errorf("page of %v", arns)
			}
			for _, arn := range arns {
				all = append(all, strings.TrimPrefix(arn, arnPrefix))
			}
			if marker = next; marker == nil {
				return strings.Join(all, " ")
			}
			between()
		}
	}
	nothing := func() {}
	for _, tt := range []struct {
		what string
		list func(*string) ([]string, *string, error)
		want string
	}{
		{"event invoke configs", events, "hello:$LATEST hello:1 hello:2 hello:live"},
		{"URLs", urls, "hello hello:beta hello:live"},
		{"provisioned concurrency", provisioned, "hello:2 hello:live"},
		{"aliases", aliases, "hello:beta hello:live"},
	} {
		if got := walk(tt.list, nothing); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
	deleteVersion := func() {
		if _, err := f.DeleteFunction(ctx, &api.DeleteFunctionInput{FunctionName: name, Qualifier: aws.Ptr("2")}); err != nil {
			t.Fatal(err)
		}
	}
	_, second, err := events(aws.Ptr("1"))
	if err != nil || aws.Value(second) != "2" {
		t.Fatalf("%v %v", second, err)
	}
	deleteVersion()
	if arns, _, err := events(second); err != nil || !slices.Equal(arns, []string{arnPrefix + "hello:live"}) {
		t.Errorf("behind what has gone: %v %v", arns, err)
	}
	deleteAlias := func() {
		if _, err := f.DeleteAlias(ctx, &api.DeleteAliasInput{FunctionName: name, Name: aws.Ptr("beta")}); err != nil {
			t.Fatal(err)
		}
	}
	if got := walk(urls, deleteAlias); got != "hello hello:live" {
		t.Errorf("behind what has gone: %s", got)
	}
}
