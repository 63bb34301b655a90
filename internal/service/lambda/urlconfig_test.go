package lambda

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
)

func (f *fixture) createURL(name, qualifier string, change ...func(*api.CreateFunctionUrlConfigInput)) *api.CreateFunctionUrlConfigOutput {
	f.t.Helper()
	in := &api.CreateFunctionUrlConfigInput{FunctionName: &name, Qualifier: optional(qualifier), AuthType: api.FunctionUrlAuthTypeNone}
	for _, c := range change {
		c(in)
	}
	out, err := f.CreateFunctionUrlConfig(f.ctx(), in)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *fixture) alias(name, alias, version string) {
	f.t.Helper()
	if _, err := f.CreateAlias(f.ctx(), &api.CreateAliasInput{FunctionName: &name, Name: &alias, FunctionVersion: &version}); err != nil {
		f.t.Fatal(err)
	}
}

var pathURL = regexp.MustCompile(`^http://127\.0\.0\.1:4566/_lapwing/url/([a-z2-7]{32})/$`)

func idOf(t *testing.T, url string) string {
	t.Helper()
	m := pathURL.FindStringSubmatch(url)
	if m == nil {
		t.Fatalf("URL %q", url)
	}
	return m[1]
}

func TestFunctionURLLastsUntilItIsDeleted(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	created := f.createURL("hello", "", func(in *api.CreateFunctionUrlConfigInput) {
		in.AuthType = api.FunctionUrlAuthTypeAwsIam
		in.Cors = &api.Cors{AllowOrigins: []string{"*"}, MaxAge: aws.Ptr(int32(0))}
	})
	id := idOf(t, *created.FunctionUrl)
	if *created.FunctionArn != arnPrefix+"hello" || created.InvokeMode != "BUFFERED" || *created.CreationTime != "2026-11-24T01:02:03.456000Z" {
		t.Errorf("%+v", created)
	}
	if u := f.FunctionURL(id); u == nil || !u.IAM || u.Streaming || u.FunctionARN != arnPrefix+"hello" || u.CORS == nil {
		t.Errorf("%+v", u)
	}

	f.clock.advance(time.Second)
	updated, err := f.UpdateFunctionUrlConfig(f.ctx(), &api.UpdateFunctionUrlConfigInput{FunctionName: aws.Ptr("hello"), InvokeMode: api.InvokeModeResponseStream, Cors: &api.Cors{}})
	if err != nil {
		t.Fatal(err)
	}
	if *updated.FunctionUrl != *created.FunctionUrl || updated.AuthType != "AWS_IAM" || updated.Cors != nil || *updated.CreationTime != *created.CreationTime || *updated.LastModifiedTime != "2026-11-24T01:02:04.456000Z" {
		t.Errorf("%+v", updated)
	}

	f.reopen()
	got, err := f.GetFunctionUrlConfig(f.ctx(), &api.GetFunctionUrlConfigInput{FunctionName: aws.Ptr(arnPrefix + "hello")})
	if err != nil {
		t.Fatal(err)
	}
	if *got.FunctionUrl != *created.FunctionUrl || got.InvokeMode != "RESPONSE_STREAM" || *got.LastModifiedTime != *updated.LastModifiedTime {
		t.Errorf("%+v", got)
	}
	if u := f.FunctionURL(id); u == nil || !u.Streaming || u.CORS != nil {
		t.Errorf("after a restart: %+v", u)
	}

	if _, err := f.DeleteFunctionUrlConfig(f.ctx(), &api.DeleteFunctionUrlConfigInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	_, err = f.GetFunctionUrlConfig(f.ctx(), &api.GetFunctionUrlConfigInput{FunctionName: aws.Ptr("hello")})
	wantError(t, err, codeNotFound, "The resource you requested does not exist.")
	if f.FunctionURL(id) != nil {
		t.Error("the URL is still served")
	}
	if again := f.createURL("hello", ""); *again.FunctionUrl != *created.FunctionUrl {
		t.Errorf("made again it is %s, was %s", *again.FunctionUrl, *created.FunctionUrl)
	}
}

func TestFunctionURLGoesWithItsFunctionOrAlias(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	f.alias("hello", "live", "1")
	own, alias := idOf(t, *f.createURL("hello", "").FunctionUrl), idOf(t, *f.createURL("hello", "live").FunctionUrl)
	if own == alias {
		t.Fatal("function and alias share a URL")
	}
	if u := f.FunctionURL(alias); u.FunctionARN != arnPrefix+"hello:live" {
		t.Errorf("%+v", u)
	}
	if _, err := f.DeleteAlias(f.ctx(), &api.DeleteAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live")}); err != nil {
		t.Fatal(err)
	}
	if f.FunctionURL(alias) != nil || f.FunctionURL(own) == nil {
		t.Error("wrong URL is gone")
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	if f.FunctionURL(own) != nil {
		t.Error("URL outlives its function")
	}
}

func TestFunctionURLErrors(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	f.createURL("hello", "")
	create := func(name, qualifier string) error {
		_, err := f.CreateFunctionUrlConfig(f.ctx(), &api.CreateFunctionUrlConfigInput{FunctionName: &name, Qualifier: optional(qualifier), AuthType: "NONE"})
		return err
	}
	wantError(t, create("hello", ""), codeConflict, "Failed to create function url config for [functionArn = "+arnPrefix+"hello]. Error message:  FunctionUrlConfig exists for this Lambda function")
	wantError(t, create("hello", "1"), codeMalformed, "Value '1' at 'qualifier'")
	wantError(t, create("hello", "$LATEST"), codeMalformed, "Value '$LATEST' at 'qualifier'")
	wantError(t, create("hello", "nope"), codeNotFound, "Function does not exist")
	wantError(t, create("nope", ""), codeNotFound, "Function does not exist")
	for _, name := range []string{"nope", arnPrefix + "hello:nope"} {
		_, err := f.GetFunctionUrlConfig(f.ctx(), &api.GetFunctionUrlConfigInput{FunctionName: &name})
		wantError(t, err, codeNotFound, "The resource you requested does not exist.")
		_, err = f.UpdateFunctionUrlConfig(f.ctx(), &api.UpdateFunctionUrlConfigInput{FunctionName: &name})
		wantError(t, err, codeNotFound, "Function does not exist")
		_, err = f.DeleteFunctionUrlConfig(f.ctx(), &api.DeleteFunctionUrlConfigInput{FunctionName: &name})
		wantError(t, err, codeNotFound, "The resource you requested does not exist.")
	}
	_, err := f.ListFunctionUrlConfigs(f.ctx(), &api.ListFunctionUrlConfigsInput{FunctionName: aws.Ptr("nope")})
	wantError(t, err, codeNotFound, "Function does not exist")
	f.create("other")
	_, err = f.UpdateFunctionUrlConfig(f.ctx(), &api.UpdateFunctionUrlConfigInput{FunctionName: aws.Ptr("other")})
	wantError(t, err, codeNotFound, "The resource you requested does not exist.")
}

func TestListFunctionURLs(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	list := func() (arns []string) {
		in := &api.ListFunctionUrlConfigsInput{FunctionName: aws.Ptr("hello"), MaxItems: aws.Ptr(int32(2))}
		for {
			out, err := f.ListFunctionUrlConfigs(f.ctx(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range out.FunctionUrlConfigs {
				arns = append(arns, *c.FunctionArn)
			}
			if in.Marker = out.NextMarker; in.Marker == nil {
				return arns
			}
		}
	}
	if got := list(); len(got) != 0 {
		t.Errorf("none yet: %v", got)
	}
	want := []string{arnPrefix + "hello"}
	f.createURL("hello", "")
	for i := range 4 {
		name := fmt.Sprint("a", i)
		f.alias("hello", name, "1")
		if i != 1 {
			f.createURL("hello", name)
			want = append(want, arnPrefix+"hello:"+name)
		}
	}
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWhatMakesAFunctionURLPublic(t *testing.T) {
	none, iam := api.FunctionUrlAuthTypeNone, api.FunctionUrlAuthTypeAwsIam
	url := api.AddPermissionInput{Action: aws.Ptr("lambda:InvokeFunctionUrl"), Principal: aws.Ptr("*"), FunctionUrlAuthType: none}
	fn := api.AddPermissionInput{Action: aws.Ptr("lambda:InvokeFunction"), Principal: aws.Ptr("*"), InvokedViaFunctionUrl: aws.Ptr(true)}
	with := func(in api.AddPermissionInput, change func(*api.AddPermissionInput)) api.AddPermissionInput {
		change(&in)
		return in
	}
	for name, c := range map[string]struct {
		statements []api.AddPermissionInput
		want       bool
	}{
		"no policy":                 {nil, false},
		"both permissions":          {[]api.AddPermissionInput{url, fn}, true},
		"only InvokeFunctionUrl":    {[]api.AddPermissionInput{url}, false},
		"only InvokeFunction":       {[]api.AddPermissionInput{fn}, false},
		"InvokeFunction by any way": {[]api.AddPermissionInput{url, with(fn, func(in *api.AddPermissionInput) { in.InvokedViaFunctionUrl = nil })}, true},
		"everything":                {[]api.AddPermissionInput{{Action: aws.Ptr("lambda:*"), Principal: aws.Ptr("*")}}, true},
		"for signed requests":       {[]api.AddPermissionInput{with(url, func(in *api.AddPermissionInput) { in.FunctionUrlAuthType = iam }), fn}, false},
		"for an account":            {[]api.AddPermissionInput{with(url, func(in *api.AddPermissionInput) { in.Principal = aws.Ptr("210987654321") }), fn}, false},
		"from an account":           {[]api.AddPermissionInput{url, with(fn, func(in *api.AddPermissionInput) { in.SourceAccount = aws.Ptr(testAccount) })}, false},
		"from a source":             {[]api.AddPermissionInput{with(url, func(in *api.AddPermissionInput) { in.SourceArn = aws.Ptr("arn:aws:s3:::b") }), fn}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var policy []statement
			for _, in := range c.statements {
				st, err := newStatement(&in, arnPrefix+"hello")
				if err != nil {
					t.Fatal(err)
				}
				policy = append(policy, st)
			}
			if got := publicURL(policy); got != c.want {
				t.Errorf("public: %v", got)
			}
		})
	}
}

func TestPolicyOfAnAliasIsItsURLsOwn(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	f.alias("hello", "live", "1")
	own, alias := idOf(t, *f.createURL("hello", "").FunctionUrl), idOf(t, *f.createURL("hello", "live").FunctionUrl)
	_, err := f.AddPermission(f.ctx(), &api.AddPermissionInput{
		FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("live"), StatementId: aws.Ptr("s"), Action: aws.Ptr("*"), Principal: aws.Ptr("*"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.FunctionURL(own).Public || !f.FunctionURL(alias).Public {
		t.Error("the policy of the alias is not that of its URL alone")
	}
}

func TestAddressOfAFunctionURL(t *testing.T) {
	for base, want := range map[string]string{
		"http://127.0.0.1:4566":        "http://127.0.0.1:4566/_lapwing/url/ID/",
		"https://localhost:4566":       "https://localhost:4566/_lapwing/url/ID/",
		"http://[::1]:4566":            "http://[::1]:4566/_lapwing/url/ID/",
		"https://lapwing.example.org":  "https://ID.lambda-url.eu-central-1.lapwing.example.org/",
		"http://lapwing.internal:4566": "http://ID.lambda-url.eu-central-1.lapwing.internal:4566/",
		"":                             "https://ID.lambda-url.eu-central-1.on.aws/",
	} {
		if got := urlAddress(base, "eu-central-1", "ID"); got != want {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
}

func TestInvokeURL(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.publish("hello")
	f.alias("hello", "live", "1")
	id := idOf(t, *f.createURL("hello", "live", func(in *api.CreateFunctionUrlConfigInput) { in.InvokeMode = api.InvokeModeResponseStream }).FunctionUrl)
	f.invoker.reply = func(_ context.Context, _ *invoke.Request, w io.Writer) (*invoke.Result, error) {
		w.Write([]byte("out"))
		return &invoke.Result{}, nil
	}
	var out bytes.Buffer
	if _, err := f.InvokeURL(f.ctx(), f.FunctionURL(id), []byte(`{"version":"2.0"}`), &out); err != nil || out.String() != "out" {
		t.Fatalf("%q, %v", out.String(), err)
	}
	if req := f.invoker.request(); !req.Streaming || req.InvokedARN != arnPrefix+"hello:live" || req.Version.Version != "1" || req.RequestID != "11111111-2222-3333-4444-555555555555" {
		t.Errorf("request %+v", req)
	}
	_, err := f.InvokeURL(f.ctx(), &function.URL{FunctionARN: arnPrefix + "gone"}, nil, &out)
	wantError(t, err, codeNotFound, "Function not found")
}
