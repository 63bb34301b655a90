package lambda

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

const (
	testPublisher = "arn:aws:signer:" + testRegion + ":" + testAccount + ":/signing-profiles/mine/abc"
	nowhereCSC    = "arn:aws:lambda:" + testRegion + ":" + testAccount + ":code-signing-config:csc-00000000000000000"
)

// signing makes a code signing configuration and returns its ARN.
func (f *fixture) signing(policy api.CodeSigningPolicy) string {
	f.t.Helper()
	out, err := f.CreateCodeSigningConfig(f.ctx(), &api.CreateCodeSigningConfigInput{
		AllowedPublishers:   &api.AllowedPublishers{SigningProfileVersionArns: []string{testPublisher}},
		CodeSigningPolicies: &api.CodeSigningPolicies{UntrustedArtifactOnDeployment: policy},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return *out.CodeSigningConfig.CodeSigningConfigArn
}

func (f *fixture) putSigning(function, arn string) error {
	_, err := f.PutFunctionCodeSigningConfig(f.ctx(), &api.PutFunctionCodeSigningConfigInput{FunctionName: &function, CodeSigningConfigArn: &arn})
	return err
}

// shownSigning prints a configuration, but for its id.
func shownSigning(c *api.CodeSigningConfig) string {
	return fmt.Sprintln(aws.Value(c.Description), c.AllowedPublishers.SigningProfileVersionArns, c.CodeSigningPolicies.UntrustedArtifactOnDeployment, *c.LastModified)
}

func TestCodeSigningConfigsAreKept(t *testing.T) {
	f := newFixture(t)
	made, err := f.CreateCodeSigningConfig(f.ctx(), &api.CreateCodeSigningConfigInput{
		Description: aws.Ptr("mine"), AllowedPublishers: &api.AllowedPublishers{SigningProfileVersionArns: []string{testPublisher}},
		Tags: map[string]string{"team": "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := made.CodeSigningConfig
	if !regexp.MustCompile(`^csc-[a-z0-9]{17}$`).MatchString(*c.CodeSigningConfigId) || *c.CodeSigningConfigArn != strings.TrimSuffix(nowhereCSC, "csc-00000000000000000")+*c.CodeSigningConfigId {
		t.Errorf("id %s, ARN %s", *c.CodeSigningConfigId, *c.CodeSigningConfigArn)
	}
	if got, want := shownSigning(c), fmt.Sprintln("mine", []string{testPublisher}, "Warn", "2026-11-24T01:02:03.456+0000"); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	arn := c.CodeSigningConfigArn
	if _, err := f.UpdateCodeSigningConfig(f.ctx(), &api.UpdateCodeSigningConfigInput{
		CodeSigningConfigArn: arn, CodeSigningPolicies: &api.CodeSigningPolicies{UntrustedArtifactOnDeployment: api.CodeSigningPolicyEnforce},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.TagResource(f.ctx(), &api.TagResourceInput{Resource: arn, Tags: map[string]string{"stage": "b"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.UntagResource(f.ctx(), &api.UntagResourceInput{Resource: arn, TagKeys: []string{"team"}}); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	got, err := f.GetCodeSigningConfig(f.ctx(), &api.GetCodeSigningConfigInput{CodeSigningConfigArn: arn})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := shownSigning(got.CodeSigningConfig), fmt.Sprintln("mine", []string{testPublisher}, "Enforce", "2026-11-24T01:02:03.456+0000"); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	tags, err := f.ListTags(f.ctx(), &api.ListTagsInput{Resource: arn})
	if err != nil || len(tags.Tags) != 1 || tags.Tags["stage"] != "b" {
		t.Errorf("tags %v: %v", tags, err)
	}
	if _, err := f.DeleteCodeSigningConfig(f.ctx(), &api.DeleteCodeSigningConfigInput{CodeSigningConfigArn: arn}); err != nil {
		t.Fatal(err)
	}
	_, err = f.GetCodeSigningConfig(f.ctx(), &api.GetCodeSigningConfigInput{CodeSigningConfigArn: arn})
	wantError(t, err, codeNotFound, "The Lambda code signing configuration "+*arn+" can not be found.")
}

func TestUnknownCodeSigningConfigs(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	ctx, nowhere := f.ctx(), aws.Ptr(nowhereCSC)
	for name, call := range map[string]func() error{
		"get": func() error {
			_, err := f.GetCodeSigningConfig(ctx, &api.GetCodeSigningConfigInput{CodeSigningConfigArn: nowhere})
			return err
		},
		"update": func() error {
			_, err := f.UpdateCodeSigningConfig(ctx, &api.UpdateCodeSigningConfigInput{CodeSigningConfigArn: nowhere})
			return err
		},
		"delete": func() error {
			_, err := f.DeleteCodeSigningConfig(ctx, &api.DeleteCodeSigningConfigInput{CodeSigningConfigArn: nowhere})
			return err
		},
		"list functions": func() error {
			_, err := f.ListFunctionsByCodeSigningConfig(ctx, &api.ListFunctionsByCodeSigningConfigInput{CodeSigningConfigArn: nowhere})
			return err
		},
		"tag": func() error {
			_, err := f.TagResource(ctx, &api.TagResourceInput{Resource: nowhere, Tags: map[string]string{"a": "b"}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, call(), codeNotFound, "The Lambda code signing configuration "+nowhereCSC+" can not be found.")
		})
	}
	const missing = "The code signing configuration cannot be found. Check that the provided configuration is not deleted: " + nowhereCSC + "."
	wantError(t, f.putSigning("hello", nowhereCSC), "CodeSigningConfigNotFoundException", missing)
	in := f.input("other")
	in.CodeSigningConfigArn = nowhere
	_, err := f.CreateFunction(ctx, in)
	wantError(t, err, "CodeSigningConfigNotFoundException", missing)
	wantError(t, f.putSigning("nobody", f.signing("")), codeNotFound, "Function not found: "+arnPrefix+"nobody")
}

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestCodeSigningPolicyDecidesOnDeployments(t *testing.T) {
	log := &lines{}
	f := newFixture(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	layer := f.layer("l", "a", "1")
	warn, enforce := f.signing(api.CodeSigningPolicyWarn), f.signing(api.CodeSigningPolicyEnforce)
	const (
		code   = "CodeVerificationFailedException"
		refuse = "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not configured to accept. Check the provided signature for hello."
	)
	in := f.input("hello")
	in.CodeSigningConfigArn = &enforce
	_, err := f.CreateFunction(f.ctx(), in)
	wantError(t, err, code, refuse)
	if stored := f.stored(); len(stored) != 2 { // the layer's
		t.Errorf("what was refused was stored: %v", stored)
	}

	f.create("hello", func(in *api.CreateFunctionInput) { in.CodeSigningConfigArn = &warn })
	if !strings.Contains(log.String(), "function="+arnPrefix+"hello config="+warn) {
		t.Errorf("the log says nothing of it: %s", log)
	}
	out, err := f.GetFunctionCodeSigningConfig(f.ctx(), &api.GetFunctionCodeSigningConfigInput{FunctionName: aws.Ptr("hello")})
	if err != nil || *out.CodeSigningConfigArn != warn || *out.FunctionName != "hello" {
		t.Errorf("%+v %v", out, err)
	}
	if err := f.putSigning("hello", enforce); err != nil {
		t.Fatal(err)
	}
	_, err = f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ZipFile: pkg(t, "b", "2")})
	wantError(t, err, code, refuse)
	_, err = f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Layers: []string{layer}})
	wantError(t, err, code, refuse)
	f.change("hello", "what needs no signature")

	if _, err := f.DeleteFunctionCodeSigningConfig(f.ctx(), &api.DeleteFunctionCodeSigningConfigInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ZipFile: pkg(t, "b", "2")}); err != nil {
		t.Errorf("without a configuration: %v", err)
	}
	out, err = f.GetFunctionCodeSigningConfig(f.ctx(), &api.GetFunctionCodeSigningConfigInput{FunctionName: aws.Ptr("hello")})
	if err != nil || out.CodeSigningConfigArn != nil || out.FunctionName != nil {
		t.Errorf("%+v %v", out, err)
	}
	_, err = f.GetFunctionCodeSigningConfig(f.ctx(), &api.GetFunctionCodeSigningConfigInput{FunctionName: aws.Ptr("nobody")})
	wantError(t, err, codeNotFound, "Function not found: "+arnPrefix+"nobody")
}

func TestCodeSigningConfigIsListedAndKeptWhileFunctionsHaveIt(t *testing.T) {
	f := newFixture(t)
	arns := []string{f.signing(""), f.signing(""), f.signing("")}
	slices.Sort(arns)
	var listed []string
	configs := &api.ListCodeSigningConfigsInput{MaxItems: aws.Ptr(int32(2))}
	for {
		out, err := f.ListCodeSigningConfigs(f.ctx(), configs)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out.CodeSigningConfigs {
			listed = append(listed, *c.CodeSigningConfigArn)
		}
		if configs.Marker = out.NextMarker; configs.Marker == nil {
			break
		}
	}
	if !slices.Equal(listed, arns) {
		t.Errorf("listed %v, want %v", listed, arns)
	}
	for _, name := range []string{"a", "b", "c", "other"} {
		f.create(name)
		if name == "other" {
			continue
		}
		if err := f.putSigning(name, arns[0]); err != nil {
			t.Fatal(err)
		}
	}
	var users []string
	functions := &api.ListFunctionsByCodeSigningConfigInput{CodeSigningConfigArn: &arns[0], MaxItems: aws.Ptr(int32(2))}
	for {
		out, err := f.ListFunctionsByCodeSigningConfig(f.ctx(), functions)
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, out.FunctionArns...)
		if functions.Marker = out.NextMarker; functions.Marker == nil {
			break
		}
	}
	if want := []string{arnPrefix + "a", arnPrefix + "b", arnPrefix + "c"}; !slices.Equal(users, want) {
		t.Errorf("used by %v, want %v", users, want)
	}
	_, err := f.DeleteCodeSigningConfig(f.ctx(), &api.DeleteCodeSigningConfigInput{CodeSigningConfigArn: &arns[0]})
	wantError(t, err, codeConflict, "cannot be deleted because functions use it")
	_, err = f.ListCodeSigningConfigs(f.ctx(), &api.ListCodeSigningConfigsInput{Marker: aws.Ptr("?")})
	wantError(t, err, codeInvalid, "Marker")
}
