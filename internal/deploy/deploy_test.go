package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/deploy/archive"
	"lapwing.dev/lapwing/internal/deploy/sam"
	"lapwing.dev/lapwing/internal/deploy/stack"
	"lapwing.dev/lapwing/internal/deploy/template"
)

// plan plans a stack from nothing, without a server.
func plan(b []byte) (*stack.Plan, error) {
	t, err := template.Parse(b)
	if err != nil {
		return nil, err
	}
	state := stack.NewState("s", "123456789012", "eu-west-1")
	scope, err := t.NewScope(template.Environment{AccountID: "123456789012", Region: "eu-west-1", StackName: "s", StackID: state.ID}, nil, nil)
	if err != nil {
		return nil, err
	}
	x, err := sam.Expand(t, scope, sam.Options{
		Package:       func(sam.Code) (any, error) { return archive.Package{}, nil },
		ManagedPolicy: func(name string) (string, bool) { return "arn:aws:iam::aws:policy/" + name, true },
	})
	if err != nil {
		return nil, err
	}
	return stack.NewPlan(state, &stack.Desired{Template: t, Scope: scope, Resources: x.Resources, Names: x.Names})
}

// FuzzPlan reads anything as a template, as far as a plan can be made of it.
func FuzzPlan(f *testing.F) {
	for _, text := range []string{
		"Resources: {A: {Type: AWS::S3::Bucket, Properties: !Ref B}, B: {Type: AWS::Logs::LogGroup}}",
		"Resources: {A: {Type: AWS::Lambda::Function, Properties: {Role: !Ref R, Runtime: x, Handler: h, Code: {ZipFile: x}, Environment: {Variables: {A: !Ref R}}, Tags: [{Key: a, Value: b}]}}, R: {Type: AWS::IAM::Role, Properties: {AssumeRolePolicyDocument: {}}}}",
		"Resources: {P: {Type: AWS::IAM::ManagedPolicy, Properties: {PolicyDocument: {A: !Sub 'x'}, Roles: [!Ref R]}}, R: {Type: AWS::IAM::Role, Properties: {AssumeRolePolicyDocument: '{}', Policies: [{PolicyName: x, PolicyDocument: {}}]}}}",
		"Transform: AWS::Serverless-2016-10-31\nResources: {F: {Type: AWS::Serverless::Function, Properties: {CodeUri: x, Handler: h, Runtime: r, AutoPublishAlias: a, FunctionUrlConfig: {AuthType: NONE, Cors: {MaxAge: 1}}, EventInvokeConfig: {MaximumRetryAttempts: 1}, Policies: [{S3CrudPolicy: {BucketName: x}}]}}}\nOutputs: {O: {Value: !GetAtt FUrl.FunctionUrl}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := plan(b); err == nil {
			var out strings.Builder
			show(&out, p)
		}
	})
}

// The templates are in the style of `sam init`.
func TestTemplatesAsSAMMakesThem(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no templates", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// A template says in its first lines what must be refused of it.
		var want []string
		for line := range strings.Lines(string(b)) {
			if w, ok := strings.CutPrefix(line, "# refused: "); ok {
				want = append(want, strings.TrimSpace(w))
			}
		}
		_, err = plan(b)
		if len(want) == 0 && err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if len(want) > 0 && (err == nil || err.Error() != strings.Join(want, "\n")) {
			t.Errorf("%s: got\n%v\nwant\n%s", file, err, strings.Join(want, "\n"))
		}
	}
}

func TestFunctionsOfLongNamesHaveRolesOfTheirOwn(t *testing.T) {
	long := strings.Repeat("a", 63)
	one, other := roleName(long+"b"), roleName(long+"c")
	if one == other || len(one) > 64 || len(other) > 64 || roleName("hello") != "hello-role" {
		t.Errorf("got %s, %s, %s", one, other, roleName("hello"))
	}
}
