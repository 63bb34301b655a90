package lambda

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

func TestPublishVersionFreezesAndIsIdempotent(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) { in.Description = aws.Ptr("one") })
	latest := f.get("hello", "")
	ctx := f.ctx()

	_, err := f.PublishVersion(ctx, &api.PublishVersionInput{FunctionName: aws.Ptr("hello"), RevisionId: aws.Ptr("stale")})
	wantError(t, err, codeStale, "Call the GetFunction/GetAlias API")
	_, err = f.PublishVersion(ctx, &api.PublishVersionInput{FunctionName: aws.Ptr("hello"), CodeSha256: aws.Ptr("other")})
	wantError(t, err, codeInvalid, "CodeSHA256 (other) is different from current CodeSHA256 in $LATEST ("+*latest.CodeSha256+"). Please try again with the CodeSHA256 in $LATEST.")

	v1, err := f.PublishVersion(ctx, &api.PublishVersionInput{FunctionName: aws.Ptr("hello"), Description: aws.Ptr("first!"), CodeSha256: latest.CodeSha256, RevisionId: latest.RevisionId})
	if err != nil {
		t.Fatal(err)
	}
	if *v1.FunctionArn != arnPrefix+"hello:1" || *v1.Version != "1" || *v1.Description != "first!" || v1.State != api.StateActive || v1.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("published: %+v", v1)
	}
	if got := f.get("hello", ""); *got.RevisionId == *latest.RevisionId || *got.Description != "one" {
		t.Errorf("$LATEST after publishing: %+v", got)
	}
	again, err := f.PublishVersion(ctx, &api.PublishVersionInput{FunctionName: aws.Ptr("hello"), Description: aws.Ptr("ignored")})
	if err != nil || *again.Version != "1" || *again.Description != "first!" || *again.RevisionId != *v1.RevisionId {
		t.Errorf("published again without a change: %+v %v", again, err)
	}
	f.change("hello", "two")
	if v := f.publish("hello"); v != "2" {
		t.Errorf("after a change: version %s", v)
	}
	if got := f.get("hello", "1"); *got.Description != "first!" || *got.RevisionId != *v1.RevisionId {
		t.Errorf("version 1 changed: %+v", got)
	}

	// Numbers are not used again.
	if _, err := f.DeleteFunction(ctx, &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello:2")}); err != nil {
		t.Fatal(err)
	}
	if v := f.publish("hello"); v != "3" {
		t.Errorf("after deletion of version 2: version %s", v)
	}
	_, err = f.PublishVersion(ctx, &api.PublishVersionInput{FunctionName: aws.Ptr("nobody")})
	wantError(t, err, codeNotFound, "Function not found: "+arnPrefix+"nobody")
}

func TestCreateWithPublish(t *testing.T) {
	f := newFixture(t)
	in := f.input("hello")
	in.Publish = aws.Ptr(true)
	out, err := f.CreateFunction(f.ctx(), in)
	if err != nil {
		t.Fatal(err)
	}
	if *out.Version != "1" || *out.FunctionArn != arnPrefix+"hello" || out.State != api.StatePending {
		t.Errorf("created: %+v", out)
	}
	f.settled("hello")
	if v := f.get("hello", "1"); *v.FunctionArn != arnPrefix+"hello:1" || v.State != api.StateActive {
		t.Errorf("version 1: %+v", v)
	}
	if v := f.publish("hello"); v != "1" {
		t.Errorf("published again as %s", v)
	}
}

func TestDeleteFunctionOfVersions(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	f.change("hello", "two")
	f.publish("hello")
	ctx := f.ctx()
	for _, name := range []string{"b-live", "a-live"} {
		if _, err := f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: &name, FunctionVersion: aws.Ptr("1"),
			RoutingConfig: &api.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"2": 0.5}}}); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(qualifier string) error {
		_, err := f.DeleteFunction(ctx, &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello"), Qualifier: &qualifier})
		return err
	}
	wantError(t, remove("$LATEST"), codeInvalid, "$LATEST version cannot be deleted without deleting the function.")
	wantError(t, remove("a-live"), codeInvalid, "Deletion of aliases is not currently supported.")
	wantError(t, remove("1"), codeConflict, "Unable to delete version because the following aliases reference it: [a-live, b-live]")
	wantError(t, remove("2"), codeConflict, "[a-live, b-live]")
	if err := remove("99"); err != nil {
		t.Errorf("a version that is not there: %v", err)
	}
	for _, name := range []string{"a-live", "b-live"} {
		if _, err := f.DeleteAlias(ctx, &api.DeleteAliasInput{FunctionName: aws.Ptr("hello"), Name: &name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove("1"); err != nil {
		t.Fatal(err)
	}
	out, err := f.ListVersionsByFunction(ctx, &api.ListVersionsByFunctionInput{FunctionName: aws.Ptr("hello")})
	if err != nil {
		t.Fatal(err)
	}
	if got := versionsOf(out.Versions); !slices.Equal(got, []string{"$LATEST", "2"}) {
		t.Errorf("versions: %v", got)
	}
	if !slices.Contains(f.invoker.retired, arnPrefix+"hello 1") {
		t.Errorf("retired: %v", f.invoker.retired)
	}
}

func versionsOf(list []*api.FunctionConfiguration) (versions []string) {
	for _, c := range list {
		versions = append(versions, *c.Version)
	}
	return versions
}

func TestAliases(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	f.change("hello", "two")
	f.publish("hello")
	ctx, name := f.ctx(), aws.Ptr("hello")
	weights := func(v string, w float64) *api.AliasRoutingConfiguration {
		return &api.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{v: w}}
	}
	for _, c := range []struct {
		function, alias, version string
		routing                  *api.AliasRoutingConfiguration
		code, message            string
	}{
		{"hello", "2024", "1", nil, codeMalformed, "Value '2024' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"},
		{"hello", "a", "10", nil, codeNotFound, "Function not found: " + arnPrefix + "hello:10"},
		{"unknown", "a", "1", nil, codeNotFound, "Function not found: " + arnPrefix + "unknown:1"},
		{"hello", "a", "1", weights("10", 0.5), codeNotFound, "Function not found: " + arnPrefix + "hello:10"},
		{"hello", "a", "1", weights("1", 0.5), codeInvalid, "Invalid function version 1. Function version 1 is already included in routing configuration."},
		{"hello", "a", "1", weights("2", 2), codeMalformed, "Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0"},
		{"hello", "a", "1", weights("2", -1), codeMalformed, "Value '{2=-1.0}' at"},
		{"hello", "a", "1", weights("$LATEST", 0.5), codeMalformed, "Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy constraint:"},
		{"hello", "a", "$LATEST", weights("1", 0.5), codeInvalid, "$LATEST is not supported for an alias pointing to more than 1 version"},
		{"hello", "a", "1", &api.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"1": 0.1, "2": 0.1}}, codeInvalid, "Number of items in AdditionalVersionWeights cannot be greater than 1"},
	} {
		_, err := f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: &c.function, Name: &c.alias, FunctionVersion: &c.version, RoutingConfig: c.routing})
		wantError(t, err, c.code, c.message)
	}

	created, err := f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: name, Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1"), RoutingConfig: weights("2", 0.25)})
	if err != nil {
		t.Fatal(err)
	}
	if *created.AliasArn != arnPrefix+"hello:live" || *created.FunctionVersion != "1" || *created.Description != "" || created.RoutingConfig.AdditionalVersionWeights["2"] != 0.25 {
		t.Errorf("created: %+v", created)
	}
	_, err = f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: name, Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1")})
	wantError(t, err, codeConflict, "Alias already exists: "+arnPrefix+"hello:live")
	if got := f.get("hello", "live"); *got.FunctionArn != arnPrefix+"hello:live" || *got.Version != "1" {
		t.Errorf("function by alias: %+v", got)
	}

	_, err = f.UpdateAlias(ctx, &api.UpdateAliasInput{FunctionName: name, Name: aws.Ptr("live"), RevisionId: aws.Ptr("stale")})
	wantError(t, err, codeStale, "Call the GetFunction/GetAlias API")
	_, err = f.UpdateAlias(ctx, &api.UpdateAliasInput{FunctionName: name, Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("2")})
	wantError(t, err, codeInvalid, "Function version 2 is already included in routing configuration.")
	_, err = f.UpdateAlias(ctx, &api.UpdateAliasInput{FunctionName: name, Name: aws.Ptr("none")})
	wantError(t, err, codeNotFound, "Alias not found: "+arnPrefix+"hello:none")
	updated, err := f.UpdateAlias(ctx, &api.UpdateAliasInput{FunctionName: name, Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("2"), Description: aws.Ptr("d"),
		RoutingConfig: &api.AliasRoutingConfiguration{}, RevisionId: created.RevisionId})
	if err != nil || *updated.FunctionVersion != "2" || updated.RoutingConfig != nil || *updated.RevisionId == *created.RevisionId {
		t.Errorf("updated: %+v %v", updated, err)
	}

	for i := range 3 {
		if _, err := f.CreateAlias(ctx, &api.CreateAliasInput{FunctionName: name, Name: aws.Ptr(fmt.Sprint("a", i)), FunctionVersion: aws.Ptr("1")}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	in := &api.ListAliasesInput{FunctionName: name, MaxItems: aws.Ptr(int32(2))}
	for {
		out, err := f.ListAliases(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range out.Aliases {
			names = append(names, *a.Name)
		}
		if in.Marker = out.NextMarker; in.Marker == nil {
			break
		}
	}
	if !slices.Equal(names, []string{"a0", "a1", "a2", "live"}) {
		t.Errorf("aliases: %v", names)
	}
	out, err := f.ListAliases(ctx, &api.ListAliasesInput{FunctionName: name, FunctionVersion: aws.Ptr("2")})
	if err != nil || len(out.Aliases) != 1 || *out.Aliases[0].Name != "live" {
		t.Errorf("aliases of version 2: %+v %v", out, err)
	}
	for range 2 { // deleting what is not there is no error
		if _, err := f.DeleteAlias(ctx, &api.DeleteAliasInput{FunctionName: name, Name: aws.Ptr("live")}); err != nil {
			t.Error(err)
		}
	}
	_, err = f.GetAlias(ctx, &api.GetAliasInput{FunctionName: name, Name: aws.Ptr("live")})
	wantError(t, err, codeNotFound, "Cannot find alias arn: "+arnPrefix+"hello:live")
}

func TestPermissionsHaveTheFormOfAWS(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	for _, c := range []struct {
		in   api.AddPermissionInput
		want string
	}{
		{api.AddPermissionInput{StatementId: aws.Ptr("any"), Principal: aws.Ptr("*"), Action: aws.Ptr("lambda:InvokeFunction"), SourceAccount: aws.Ptr(testAccount)},
			`{"Sid":"any","Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunction","Resource":"FN","Condition":{"StringEquals":{"AWS:SourceAccount":"123456789012"}}}`},
		{api.AddPermissionInput{StatementId: aws.Ptr("service"), Principal: aws.Ptr("s3.amazonaws.com"), Action: aws.Ptr("lambda:InvokeFunction"), SourceArn: aws.Ptr("arn:aws:s3:::a&b")},
			`{"Sid":"service","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action":"lambda:InvokeFunction","Resource":"FN","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::a&b"}}}`},
		{api.AddPermissionInput{StatementId: aws.Ptr("account"), Principal: aws.Ptr("111111111111"), Action: aws.Ptr("lambda:*")},
			`{"Sid":"account","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"lambda:*","Resource":"FN"}`},
		{api.AddPermissionInput{StatementId: aws.Ptr("user"), Principal: aws.Ptr("arn:aws:iam::111111111111:user/u"), Action: aws.Ptr("lambda:GetFunction")},
			`{"Sid":"user","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/u"},"Action":"lambda:GetFunction","Resource":"FN"}`},
		{api.AddPermissionInput{StatementId: aws.Ptr("url"), Principal: aws.Ptr("*"), Action: aws.Ptr("lambda:InvokeFunctionUrl"), FunctionUrlAuthType: "NONE", PrincipalOrgID: aws.Ptr("o-1234567890")},
			`{"Sid":"url","Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunctionUrl","Resource":"FN","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1234567890","lambda:FunctionUrlAuthType":"NONE"}}}`},
		{api.AddPermissionInput{StatementId: aws.Ptr("viaurl"), Principal: aws.Ptr("*"), Action: aws.Ptr("lambda:InvokeFunction"), InvokedViaFunctionUrl: aws.Ptr(true)},
			`{"Sid":"viaurl","Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunction","Resource":"FN","Condition":{"Bool":{"lambda:InvokedViaFunctionUrl":"true"}}}`},
		{api.AddPermissionInput{StatementId: aws.Ptr("alexa"), Principal: aws.Ptr("alexa-appkit.amazon.com"), Action: aws.Ptr("lambda:InvokeFunction"), EventSourceToken: aws.Ptr("token")},
			`{"Sid":"alexa","Effect":"Allow","Principal":{"Service":"alexa-appkit.amazon.com"},"Action":"lambda:InvokeFunction","Resource":"FN","Condition":{"StringEquals":{"lambda:EventSourceToken":"token"}}}`},
	} {
		c.in.FunctionName = aws.Ptr("hello")
		out, err := f.AddPermission(f.ctx(), &c.in)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(c.want, "FN", arnPrefix+"hello"); *out.Statement != want {
			t.Errorf("got  %s\nwant %s", *out.Statement, want)
		}
	}
	policy, err := f.GetPolicy(f.ctx(), &api.GetPolicyInput{FunctionName: aws.Ptr("hello")})
	if err != nil {
		t.Fatal(err)
	}
	if p := *policy.Policy; !strings.HasPrefix(p, `{"Version":"2012-10-17","Id":"default","Statement":[{"Sid":"any",`) || strings.Count(p, `"Sid"`) != 7 {
		t.Errorf("policy: %s", p)
	}
	if got := f.get("hello", ""); *got.RevisionId != *policy.RevisionId {
		t.Error("a policy shares the revision of its function")
	}
}

func TestPermissionErrors(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	ctx := f.ctx()
	add := func(change func(*api.AddPermissionInput)) error {
		in := &api.AddPermissionInput{FunctionName: aws.Ptr("hello"), StatementId: aws.Ptr("s"), Principal: aws.Ptr("s3.amazonaws.com"), Action: aws.Ptr("lambda:InvokeFunction")}
		change(in)
		_, err := f.AddPermission(ctx, in)
		return err
	}
	remove := func(name, qualifier, sid, revision string) error {
		_, err := f.RemovePermission(ctx, &api.RemovePermissionInput{FunctionName: &name, Qualifier: optional(qualifier), StatementId: &sid, RevisionId: optional(revision)})
		return err
	}
	wantError(t, remove("hello", "", "s", ""), codeNotFound, "No policy is associated with the given resource.")
	wantError(t, remove("nobody", "", "s", ""), codeNotFound, "No policy found for: "+arnPrefix+"nobody")
	wantError(t, remove("hello", "none", "s", ""), codeNotFound, "Cannot find alias arn: "+arnPrefix+"hello:none")
	for _, c := range []struct {
		change        func(*api.AddPermissionInput)
		code, message string
	}{
		{func(in *api.AddPermissionInput) { in.Qualifier = aws.Ptr("$LATEST") }, codeInvalid, "We currently do not support adding policies for $LATEST."},
		{func(in *api.AddPermissionInput) { in.Principal = aws.Ptr("invalid.nonaws.com") }, codeInvalid, "The provided principal was invalid. Please check the principal and try again."},
		{func(in *api.AddPermissionInput) { in.Qualifier = aws.Ptr("none") }, codeNotFound, "Cannot find alias arn: " + arnPrefix + "hello:none"},
		{func(in *api.AddPermissionInput) { in.Qualifier = aws.Ptr("42") }, codeNotFound, "Function not found: " + arnPrefix + "hello:42"},
		{func(in *api.AddPermissionInput) { in.Qualifier = aws.Ptr("a-$-b") }, codeNotFound, "Function not found: " + arnPrefix + "hello:a-$-b"},
		{func(in *api.AddPermissionInput) { in.FunctionName = aws.Ptr("nobody") }, codeNotFound, "Function not found: " + arnPrefix + "nobody"},
		{func(in *api.AddPermissionInput) { in.RevisionId = aws.Ptr("stale") }, codeStale, "Call the GetPolicy API to retrieve the latest Revision Id"},
		{func(in *api.AddPermissionInput) {
			in.SourceArn = aws.Ptr("arn:aws:s3:::" + strings.Repeat("x", maxPolicy))
		}, "PolicyLengthExceededException", "is bigger than the limit (20480)."},
	} {
		wantError(t, add(c.change), c.code, c.message)
	}
	if err := add(func(in *api.AddPermissionInput) { in.Qualifier = aws.Ptr("1") }); err != nil {
		t.Fatal(err)
	}
	wantError(t, add(func(in *api.AddPermissionInput) { in.Qualifier = aws.Ptr("1") }), codeConflict, "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing statement.")
	out, err := f.GetPolicy(ctx, &api.GetPolicyInput{FunctionName: aws.Ptr("hello:1")})
	if err != nil || !strings.Contains(*out.Policy, `"Resource":"`+arnPrefix+`hello:1"`) {
		t.Errorf("policy of version 1: %+v %v", out, err)
	}
	_, err = f.GetPolicy(ctx, &api.GetPolicyInput{FunctionName: aws.Ptr("hello")})
	wantError(t, err, codeNotFound, "The resource you requested does not exist.")
	wantError(t, remove("hello", "1", "other", ""), codeNotFound, "Statement other is not found in resource policy.")
	wantError(t, remove("hello", "1", "s", "stale"), codeStale, "Call the GetPolicy API")
	if err := remove("hello", "1", "s", *out.RevisionId); err != nil {
		t.Error(err)
	}
	_, err = f.GetPolicy(ctx, &api.GetPolicyInput{FunctionName: aws.Ptr("hello:1")})
	wantError(t, err, codeNotFound, "The resource you requested does not exist.")
}

func TestTags(t *testing.T) {
	f := newFixture(t)
	f.create("hello", func(in *api.CreateFunctionInput) { in.Tags = map[string]string{"A": "1"} })
	ctx, arn := f.ctx(), aws.Ptr(arnPrefix+"hello")
	before := f.get("hello", "")
	if _, err := f.TagResource(ctx, &api.TagResourceInput{Resource: arn, Tags: map[string]string{"A": "2", "B": "3"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.UntagResource(ctx, &api.UntagResourceInput{Resource: arn, TagKeys: []string{"B", "none"}}); err != nil {
		t.Fatal(err)
	}
	out, err := f.GetFunction(ctx, &api.GetFunctionInput{FunctionName: arn})
	if err != nil || fmt.Sprint(out.Tags) != "map[A:2]" || *out.Configuration.RevisionId == *before.RevisionId {
		t.Errorf("%+v %v", out, err)
	}
	many := map[string]string{}
	for i := range 50 {
		many[fmt.Sprint("k", i)] = "v"
	}
	for _, c := range []struct {
		arn           string
		tags          map[string]string
		code, message string
	}{
		{*arn, nil, codeInvalid, "An error occurred and the request cannot be processed."},
		{*arn, many, codeInvalid, "Number of tags exceeds resource tag limit."},
		{*arn, map[string]string{"aws:x": "y"}, codeInvalid, "reserved"},
		{*arn + ":1", map[string]string{"x": "y"}, codeInvalid, "Tags on function aliases and versions are not supported. Please specify a function ARN."},
		{*arn + ":$LATEST", map[string]string{"x": "y"}, codeInvalid, "Tags on function aliases and versions are not supported."},
		{arnPrefix + "nobody", map[string]string{"x": "y"}, codeNotFound, "Function not found: " + arnPrefix + "nobody"},
	} {
		_, err := f.TagResource(ctx, &api.TagResourceInput{Resource: &c.arn, Tags: c.tags})
		wantError(t, err, c.code, c.message)
	}
	_, err = f.ListTags(ctx, &api.ListTagsInput{Resource: aws.Ptr(arnPrefix + "nobody")})
	wantError(t, err, codeNotFound, "Function not found: "+arnPrefix+"nobody")
	tags, err := f.ListTags(ctx, &api.ListTagsInput{Resource: arn})
	if err != nil || fmt.Sprint(tags.Tags) != "map[A:2]" {
		t.Errorf("refused tags have been kept: %v %v", tags, err)
	}
}

func TestListsInPages(t *testing.T) {
	f := newFixture(t)
	ctx := f.ctx()
	for i := range 5 {
		f.create(fmt.Sprint("f", i))
	}
	f.publish("f1")
	f.change("f1", "x")
	f.publish("f1")
	list := func(all bool, max int32) (arns []string) {
		in := &api.ListFunctionsInput{MaxItems: &max}
		if all {
			in.FunctionVersion = "ALL"
		}
		for {
			out, err := f.ListFunctions(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Functions) > int(max) {
				t.Errorf("page of %d", len(out.Functions))
			}
			for _, c := range out.Functions {
				if c.State != "" || c.LastUpdateStatus != "" || c.RuntimeVersionConfig != nil {
					t.Errorf("a list leaves out the life cycle: %+v", c)
				}
				arns = append(arns, strings.TrimPrefix(*c.FunctionArn, arnPrefix))
			}
			if in.Marker = out.NextMarker; in.Marker == nil {
				return arns
			}
		}
	}
	for _, max := range []int32{1, 2, 3, 50, 10000} {
		if got := list(false, max); !slices.Equal(got, []string{"f0", "f1", "f2", "f3", "f4"}) {
			t.Errorf("MaxItems %d: %v", max, got)
		}
		if got := list(true, max); !slices.Equal(got, []string{"f0:$LATEST", "f1:$LATEST", "f1:1", "f1:2", "f2:$LATEST", "f3:$LATEST", "f4:$LATEST"}) {
			t.Errorf("ALL, MaxItems %d: %v", max, got)
		}
	}
	var versions []string
	in := &api.ListVersionsByFunctionInput{FunctionName: aws.Ptr("f1"), MaxItems: aws.Ptr(int32(1))}
	for {
		out, err := f.ListVersionsByFunction(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, versionsOf(out.Versions)...)
		if in.Marker = out.NextMarker; in.Marker == nil {
			break
		}
	}
	if !slices.Equal(versions, []string{"$LATEST", "1", "2"}) {
		t.Errorf("versions: %v", versions)
	}
	for _, marker := range []string{"!", "Zm9v"} {
		_, err := f.ListFunctions(ctx, &api.ListFunctionsInput{Marker: &marker})
		wantError(t, err, codeInvalid, "Marker")
	}
	_, err := f.ListVersionsByFunction(ctx, &api.ListVersionsByFunctionInput{FunctionName: aws.Ptr("f1"), Marker: aws.Ptr("x")})
	wantError(t, err, codeInvalid, "Marker")

	// Some clients send the parameter even where they have none.
	if out, err := f.ListFunctions(ctx, &api.ListFunctionsInput{Marker: aws.Ptr("")}); err != nil || len(out.Functions) != 5 {
		t.Errorf("empty marker: %v %v", out, err)
	}
	if out, err := f.ListVersionsByFunction(ctx, &api.ListVersionsByFunctionInput{FunctionName: aws.Ptr("f1"), Marker: aws.Ptr("")}); err != nil || len(out.Versions) != 3 {
		t.Errorf("empty marker: %v %v", out, err)
	}

	other := aws.WithRequest(t.Context(), &aws.Request{Region: "us-east-1"})
	if out, err := f.ListFunctions(other, &api.ListFunctionsInput{}); err != nil || len(out.Functions) != 0 {
		t.Errorf("functions of another Region: %v %v", out, err)
	}
}

func TestCodeStorageCountsEveryVersion(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	size := *f.get("hello", "").CodeSize
	usage := func() int64 {
		out, err := f.GetAccountSettings(f.ctx(), &api.GetAccountSettingsInput{})
		if err != nil {
			t.Fatal(err)
		}
		return *out.AccountUsage.TotalCodeSize
	}
	if got := usage(); got != size {
		t.Errorf("%d bytes, want %d", got, size)
	}
	f.publish("hello")
	if got := usage(); got != 2*size {
		t.Errorf("%d bytes with a version, want %d", got, 2*size)
	}
	if err := f.checkStorage(testRegion, maxCodeStorage-2*size); err != nil {
		t.Error(err)
	}
	wantError(t, f.checkStorage(testRegion, maxCodeStorage-2*size+1), "CodeStorageExceededException", "Code storage limit exceeded.")
}

func TestCodeLocationWorksUntilItExpires(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	server := httptest.NewServer(f.CodeHandler())
	defer server.Close()
	ctx := aws.WithRequest(t.Context(), &aws.Request{Region: testRegion, BaseURL: server.URL})
	out, err := f.GetFunction(ctx, &api.GetFunctionInput{FunctionName: aws.Ptr("hello")})
	if err != nil {
		t.Fatal(err)
	}
	get := func(url string) (int, string) {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	url := *out.Code.Location
	if status, body := get(url); status != 200 || body != string(pkg(t, "index.js", "// hello")) {
		t.Errorf("%d, %d bytes", status, len(body))
	}
	for _, bad := range []string{
		url[:strings.Index(url, "?")],
		url + "0",
		strings.Replace(url, "Expires=", "Expires=9", 1),
		strings.Replace(url, CodePath, CodePath+"../", 1),
		strings.Replace(url, CodePath, CodePath+"0", 1),
	} {
		if status, _ := get(bad); status == 200 {
			t.Errorf("%s: %d", bad, status)
		}
	}
	if resp, err := http.Post(url, "", nil); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v %v", resp, err)
	}
	f.clock.advance(codeURLTTL)
	if status, body := get(url); status != http.StatusForbidden || !strings.Contains(body, "expired") {
		t.Errorf("after %v: %d %s", codeURLTTL, status, body)
	}
}
