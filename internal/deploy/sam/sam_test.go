package sam

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// expand expands a template. Its code is packaged to a text that names the path.
func expand(t *testing.T, text string, codes *[]Code) (*Expansion, error) {
	t.Helper()
	tpl, err := template.Parse([]byte("Transform: AWS::Serverless-2016-10-31\n" + text))
	if err != nil {
		t.Fatal(err)
	}
	scope, err := tpl.NewScope(template.Environment{AccountID: "123456789012", Region: "eu-west-1", StackName: "s"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Expand(tpl, scope, Options{
		Package: func(c Code) (any, error) {
			if codes != nil {
				*codes = append(*codes, c)
			}
			return "package of " + c.Path, nil
		},
		ManagedPolicy: func(name string) (string, bool) {
			return "arn:aws:iam::aws:policy/" + name, name == "AmazonS3ReadOnlyAccess"
		},
	})
}

func mustExpand(t *testing.T, text string) *Expansion {
	t.Helper()
	x, err := expand(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *Expansion) find(t *testing.T, id string) template.Resource {
	t.Helper()
	for _, r := range x.Resources {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("there is no %s in %v", id, x.ids())
	return template.Resource{}
}

func (x *Expansion) ids() (ids []string) {
	for _, r := range x.Resources {
		ids = append(ids, r.ID+" "+r.Type)
	}
	return ids
}

// plain prints a value with what is pending as it was written.
func plain(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(hashable(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const fn = `
Resources:
  Fn:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/
      Handler: index.handler
      Runtime: nodejs22.x
`

func TestAFunctionAlwaysHasARole(t *testing.T) {
	x := mustExpand(t, fn)
	if want := []string{"FnRole AWS::IAM::Role", "Fn AWS::Lambda::Function"}; !slices.Equal(x.ids(), want) {
		t.Errorf("got %v", x.ids())
	}
	if got := plain(t, x.find(t, "Fn").Properties); got != `{"Code":{"Package":"package of src/"},"Handler":"index.handler","Role":{"Fn::GetAtt":["FnRole","Arn"]},"Runtime":"nodejs22.x"}` {
		t.Errorf("got %s", got)
	}
	x = mustExpand(t, fn+"      Role: arn:aws:iam::123456789012:role/own")
	if want := []string{"Fn AWS::Lambda::Function"}; !slices.Equal(x.ids(), want) {
		t.Errorf("with a role of its own: %v", x.ids())
	}
}

// The names are those of the SAM developer guide, "Generated CloudFormation
// resources".
func TestWhatIsGeneratedHasTheNamesThatSAMGives(t *testing.T) {
	x := mustExpand(t, fn+`
      AutoPublishAlias: live-1_a
      ProvisionedConcurrencyConfig: {ProvisionedConcurrentExecutions: 1}
      FunctionUrlConfig: {AuthType: NONE, Cors: {AllowOrigins: ['*']}}
      EventInvokeConfig: {MaximumRetryAttempts: 1, DestinationConfig: {OnFailure: {Type: Lambda, Destination: arn}}}
  Lib:
    Type: AWS::Serverless::LayerVersion
    Properties: {ContentUri: lib/}
`)
	alias := `{"Ref":"FnAliaslive-1_a"}`
	alias = strings.NewReplacer("-", "D", "_", "U").Replace(alias)
	for id, want := range map[string]string{
		"FnAliasliveD1Ua":              `{"FunctionName":{"Ref":"Fn"},"FunctionVersion":{"Fn::GetAtt":["VERSION","Version"]},"Name":"live-1_a","ProvisionedConcurrencyConfig":{"ProvisionedConcurrentExecutions":1}}`,
		"FnUrl":                        `{"AuthType":"NONE","Cors":{"AllowOrigins":["*"]},"TargetFunctionArn":` + alias + `}`,
		"FnUrlPublicPermissions":       `{"Action":"lambda:InvokeFunctionUrl","FunctionName":` + alias + `,"FunctionUrlAuthType":"NONE","Principal":"*"}`,
		"FnURLInvokeAllowPublicAccess": `{"Action":"lambda:InvokeFunction","FunctionName":` + alias + `,"InvokedViaFunctionUrl":true,"Principal":"*"}`,
		"FnEventInvokeConfig":          `{"DestinationConfig":{"OnFailure":{"Destination":"arn"}},"FunctionName":{"Ref":"Fn"},"MaximumRetryAttempts":1,"Qualifier":"live-1_a"}`,
	} {
		got := regexp.MustCompile(`FnVersion[0-9a-f]{10}`).ReplaceAllString(plain(t, x.find(t, id).Properties), "VERSION")
		if got != want {
			t.Errorf("%s: got  %s\nwant %s", id, got, want)
		}
	}
	if version := x.find(t, x.Names["Fn.Version"]); !version.Retain || version.Type != "AWS::Lambda::Version" {
		t.Errorf("the version: %+v", version)
	}
	layer := x.find(t, x.Names["Lib"])
	if !regexp.MustCompile(`^Lib[0-9a-f]{10}$`).MatchString(layer.ID) || !layer.Retain || layer.Properties["LayerName"] != "Lib" {
		t.Errorf("the layer: %+v", layer)
	}
	if x.Names["Fn.Alias"] != "FnAliasliveD1Ua" {
		t.Errorf("names: %v", x.Names)
	}
}

func TestAVersionIsMadeWhenCodeEnvironmentOrMemoryChange(t *testing.T) {
	version := func(more string) string {
		return mustExpand(t, fn+"      AutoPublishAlias: live\n"+more).Names["Fn.Version"]
	}
	base := version("")
	for more, changes := range map[string]bool{
		"      Timeout: 9": false, "      MemorySize: 512": true, "      Environment: {Variables: {A: b}}": true, "      Description: x": false,
		"      AutoPublishCodeSha256: abc": true, "      Timeout: 9\n      AutoPublishAliasAllProperties: true": true,
	} {
		if got := version(more); (got != base) != changes {
			t.Errorf("%s: %s, and without it %s", more, got, base)
		}
	}
}

// The cases are those of the SAM developer guide, "Globals section".
func TestGlobalsAreMerged(t *testing.T) {
	x := mustExpand(t, `
Globals:
  Function:
    Runtime: nodejs22.x
    Timeout: 10
    CodeUri: everywhere/
    Layers: [a]
    Environment: {Variables: {A: 1, B: 1}}
    Tags: {team: x}
Resources:
  Own:
    Type: AWS::Serverless::Function
    Properties: {Handler: h.h, Timeout: 20, Layers: [b], Environment: {Variables: {B: 2, C: 3}}, Tags: !If [Never, {}, !Ref 'AWS::NoValue']}
  Plain: {Type: AWS::Serverless::Function, Properties: {Handler: h.h}}
Conditions: {Never: !Equals [a, b]}
`)
	own := x.find(t, "Own").Properties
	for name, want := range map[string]any{"Timeout": int64(20), "Runtime": "nodejs22.x", "Layers": []any{"a", "b"},
		"Environment": map[string]any{"Variables": map[string]any{"A": int64(1), "B": int64(2), "C": int64(3)}}} {
		if !reflect.DeepEqual(own[name], want) {
			t.Errorf("%s = %v; want %v", name, own[name], want)
		}
	}
	if own["Tags"] != nil {
		t.Errorf("a function's own value goes first: %v", own["Tags"])
	}
	if got := plain(t, x.find(t, "Plain").Properties["Tags"]); got != `[{"Key":"team","Value":"x"}]` {
		t.Errorf("got %s", got)
	}
}

func TestPoliciesBecomeThoseOfTheRole(t *testing.T) {
	x := mustExpand(t, fn+`
      Tracing: Active
      Policies:
        - AmazonS3ReadOnlyAccess
        - arn:aws:iam::123456789012:policy/own
        - !Ref Managed
        - Statement: [{Effect: Allow, Action: 's3:*', Resource: '*'}]
        - S3ReadPolicy: {BucketName: !Ref Files}
        - LambdaInvokePolicy: {FunctionName: other}
  Managed: {Type: AWS::IAM::ManagedPolicy, Properties: {}}
  Files: {Type: AWS::S3::Bucket}
`)
	role := x.find(t, "FnRole").Properties
	if got := plain(t, role["ManagedPolicyArns"]); got != `["arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole","arn:aws:iam::aws:policy/AWSXRayDaemonWriteAccess","arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess","arn:aws:iam::123456789012:policy/own",{"Ref":"Managed"}]` {
		t.Errorf("managed: %s", got)
	}
	got := plain(t, role["Policies"])
	for _, want := range []string{
		`"PolicyName":"FnRolePolicy3"`, `"PolicyName":"FnRolePolicy4"`, `"s3:GetObject","s3:ListBucket","s3:GetBucketLocation"`,
		`{"Fn::Sub":["arn:${AWS::Partition}:s3:::${BucketName}/*",{"BucketName":{"Ref":"Files"}}]}`,
		`{"Fn::Sub":["arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${FunctionName}*",{"FunctionName":"other"}]}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("inline policies lack %s: %s", want, got)
		}
	}
	if names := template.References(role["Policies"]); !slices.Contains(names, "Files") {
		t.Errorf("the role refers to %v", names)
	}
}

func TestCodeIsBesideTheTemplateIfNothingSaysWhere(t *testing.T) {
	x := mustExpand(t, "Resources: {F: {Type: AWS::Serverless::Function, Properties: {Runtime: nodejs22.x, Handler: index.handler}}}")
	if got := plain(t, x.find(t, "F").Properties["Code"]); got != `{"Package":"package of ."}` {
		t.Errorf("got %s", got)
	}
}

func TestSnapStartIsTheFunctions(t *testing.T) {
	x, err := expand(t, `
Resources:
  A:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: 's3://b/k/x.zip', Handler: i.h, Runtime: python3.13, SnapStart: {ApplyOn: PublishedVersions}}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := plain(t, x.find(t, "A").Properties["SnapStart"]); got != `{"ApplyOn":"PublishedVersions"}` {
		t.Error(got)
	}
}

func TestCodeIsPackagedAsItsResourceSays(t *testing.T) {
	var codes []Code
	x, err := expand(t, `
Resources:
  A:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: esbuild, BuildProperties: {Minify: true}}
    Properties: {CodeUri: a/, Handler: i.h, Runtime: nodejs22.x, Architectures: [arm64]}
  B: {Type: AWS::Serverless::Function, Properties: {CodeUri: 's3://b/k/x.zip', Handler: i.h, Runtime: nodejs22.x}}
  C: {Type: AWS::Serverless::Function, Properties: {CodeUri: {Bucket: b, Key: k, Version: v}, Handler: i.h, Runtime: nodejs22.x}}
  D: {Type: AWS::Serverless::Function, Properties: {InlineCode: 'x', Handler: i.h, Runtime: nodejs22.x}}
  I: {Type: AWS::Serverless::Function, Properties: {PackageType: Image, ImageUri: 'r/i:1', ImageConfig: {Command: [x]}}}
  E: {Type: AWS::Lambda::Function, Properties: {Code: e/, Runtime: python3.13}}
  L: {Type: AWS::Serverless::LayerVersion, Metadata: {BuildMethod: python3.13}, Properties: {ContentUri: l/}}
`, &codes)
	if err != nil {
		t.Fatal(err)
	}
	for i := range codes {
		codes[i].Line = 0
	}
	want := []Code{
		{Resource: "A", Path: "a/", Runtime: "nodejs22.x", Architecture: "arm64", Handler: "i.h", BuildMethod: "esbuild", BuildProperties: map[string]any{"Minify": true}},
		{Resource: "E", Path: "e/", Runtime: "python3.13"},
		{Resource: "L", Path: "l/", BuildMethod: "python3.13", Layer: true},
	}
	if !reflect.DeepEqual(codes, want) {
		t.Errorf("got %+v", codes)
	}
	for id, want := range map[string]string{"B": `{"S3Bucket":"b","S3Key":"k/x.zip"}`, "C": `{"S3Bucket":"b","S3Key":"k","S3ObjectVersion":"v"}`, "D": `{"ZipFile":"x"}`, "E": `{"Package":"package of e/"}`, "I": `{"ImageUri":"r/i:1"}`} {
		if got := plain(t, x.find(t, id).Properties["Code"]); got != want {
			t.Errorf("%s: got %s", id, got)
		}
	}
}

func TestWhatLapwingLacksIsRefusedWithItsLine(t *testing.T) {
	for more, want := range map[string]string{
		"      Events: {E: {Type: SQS}}":                   "line 9: Lapwing does not have events of type SQS (event E of Fn)",
		"      Events:\n        E: {Type: HttpApi}":        "line 10: Lapwing does not have events of type HttpApi (event E of Fn): it has no API Gateway",
		"      DeadLetterQueue: {Type: SQS, TargetArn: x}": "line 9: Lapwing does not have the property DeadLetterQueue of AWS::Serverless::Function: it has neither SQS nor SNS",
		"      PackageType: Image":                         "Fn has PackageType Image: build the image, push it",
		"      Colour: red":                                "does not have the property Colour",
		"      InlineCode: x":                              "has both InlineCode and CodeUri",
		"      AutoPublishAlias: live\n      DeploymentPreference: {Type: Linear10PercentEvery1Minute}": "line 10: Lapwing does not have DeploymentPreference of Fn",
		"      ProvisionedConcurrencyConfig: {}":                                                        "ProvisionedConcurrencyConfig of Fn needs AutoPublishAlias",
		"      AutoPublishAlias: a\n      VersionDeletionPolicy: Maybe":                                 "must be Retain or Delete",
		"      EventInvokeConfig: {DestinationConfig: {OnSuccess: {Type: SQS}}}":                        "does not have destination OnSuccess of type SQS",
		"      Policies: [NoSuchPolicy]":                                                                "policy 1 of Fn: there is no AWS managed policy NoSuchPolicy here",
		"      Policies: [{DynamoDBCrudPolicy: {TableName: t}}]":                                        "there is no policy template DynamoDBCrudPolicy",
		"      Policies: [{S3ReadPolicy: {}}]":                                                          "S3ReadPolicy needs the parameter BucketName",
		"      Policies: [{S3ReadPolicy: {BucketName: b, Other: x}}]":                                   "S3ReadPolicy has no parameter Other",
		"      Policies: [3]": "a policy is the name or ARN of a managed one",
		"      Role: r\n      Policies: AmazonS3ReadOnlyAccess":             "Fn has a Role, which its Policies would not change",
		"  G: {Type: AWS::Serverless::LayerVersion, Properties: {Size: 1}}": "does not have the property Size of AWS::Serverless::LayerVersion",
		"Globals: {Api: {}}":               "Lapwing has Globals of Function and LayerVersion, not of Api",
		"Globals: {Function: {Events: 1}}": "Events cannot be in Globals of Function",
		"Globals: {Function: {Ram: 1}}":    "line 9: Lapwing does not have the property Ram",
	} {
		_, err := expand(t, strings.TrimPrefix(fn, "\n")+more, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want %s", more, err, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add([]byte("Transform: AWS::Serverless-2016-10-31" + fn + "      AutoPublishAlias: a\n      Policies: [{S3ReadPolicy: {BucketName: x}}]\n      FunctionUrlConfig: {AuthType: NONE}\nGlobals: {Function: {Layers: [a], Tags: {a: b}}}"))
	f.Add([]byte("Transform: AWS::Serverless-2016-10-31\nResources: {L: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: x}}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tpl, err := template.Parse(b)
		if err != nil {
			return
		}
		scope, err := tpl.NewScope(template.Environment{}, nil, nil)
		if err != nil {
			return
		}
		Expand(tpl, scope, Options{Package: func(Code) (any, error) { return "x", nil }, ManagedPolicy: func(string) (string, bool) { return "", false }})
	})
}
