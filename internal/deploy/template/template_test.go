package template

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var env = Environment{AccountID: "123456789012", Region: "eu-west-1", StackName: "shop", StackID: "arn:aws:cloudformation:eu-west-1:123456789012:stack/shop/1"}

// rest is what a template needs beside what is tested.
const rest = "\nResources: {Bucket: {Type: 'AWS::S3::Bucket'}, Gone: {Type: 'AWS::S3::Bucket', Condition: IsProd}}\n"

func scope(t *testing.T, text string, given map[string]string) (*Template, *Scope) {
	t.Helper()
	tpl, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tpl.NewScope(env, given, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tpl, s
}

const common = `
Parameters:
  Stage: {Type: String, Default: dev}
  Zones: {Type: CommaDelimitedList, Default: 'a, b,c'}
  Count: {Type: Number, Default: 3}
  Password: {Type: String, NoEcho: true, Default: hunter2}
Mappings:
  Sizes:
    dev: {Memory: 128, Names: [x, y]}
    prod: {Memory: 1024}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsDev: !Not [!Condition IsProd]
  Three: !Equals [!Ref Count, 3]
  Both: !And [!Condition IsDev, !Equals [a, a], !Condition Three]
  Either: !Or [!Condition IsProd, !Equals [a, b]]
` + rest

// The expressions are those that the CloudFormation User Guide explains the
// functions with, in both forms where there are two.
func TestFunctionsGiveWhatCloudFormationSays(t *testing.T) {
	for _, tt := range []struct {
		expr string
		want any
	}{
		{"!Ref Stage", "dev"},
		{"{Ref: Stage}", "dev"},
		{"!Ref Zones", []any{"a", "b", "c"}},
		{"!Ref Count", "3"},
		{"!Ref AWS::Region", "eu-west-1"},
		{"!Ref AWS::AccountId", "123456789012"},
		{"!Ref AWS::Partition", "aws"},
		{"!Ref AWS::URLSuffix", "amazonaws.com"},
		{"!Ref AWS::StackName", "shop"},
		{"!Sub 'www.${Stage}.example'", "www.dev.example"},
		{"!Sub 'arn:${AWS::Partition}:s3:::b'", "arn:aws:s3:::b"},
		{"!Sub ['www.${Domain}', {Domain: !Ref Stage}]", "www.dev"},
		{"!Sub '${!Literal} ${Stage}'", "${Literal} dev"},
		{"!Sub '$ {Stage} ${'", "$ {Stage} ${"},
		{"{'Fn::Join': ['', ['arn:', !Ref 'AWS::Partition', ':s3:::b']]}", "arn:aws:s3:::b"},
		{"!Join [':', [a, b, 3, true]]", "a:b:3:true"},
		{"!Select ['1', [apples, grapes, oranges]]", "grapes"},
		{"!Select [0, !Ref Zones]", "a"},
		{"!Split ['|', 'a|b|c']", []any{"a", "b", "c"}},
		{"!Split ['|', 'a||c|']", []any{"a", "", "c", ""}},
		{"!Select [2, !Split [',', 'x,y,z']]", "z"},
		{"!FindInMap [Sizes, !Ref Stage, Memory]", int64(128)},
		{"!FindInMap [Sizes, dev, Names]", []any{"x", "y"}},
		{"{'Fn::Base64': 'AWS CloudFormation'}", "QVdTIENsb3VkRm9ybWF0aW9u"},
		{"!If [IsProd, big, small]", "small"},
		{"!If [IsDev, {A: !Ref Stage}, small]", map[string]any{"A": "dev"}},
		{"!If [Both, 1, 2]", int64(1)},
		{"!If [Either, 1, 2]", int64(2)},
		{"{A: !If [IsProd, 1, !Ref AWS::NoValue], B: 2}", map[string]any{"B": int64(2)}},
		{"[a, !Ref 'AWS::NoValue', b]", []any{"a", "b"}},
		{"!Ref Password", Secret("hunter2")},
		{"!Sub 'p:${Password}'", Secret("p:hunter2")},
		{"!Join ['', [a, !Ref Password]]", Secret("ahunter2")},
		{"!Base64 {Ref: Password}", Secret("aHVudGVyMg==")},
		{"2012-10-17", "2012-10-17"},
		{"012345678901", "012345678901"},
		{"1_000", "1_000"},
		{"0x10", "0x10"},
		{"1.5", 1.5},
		{"true", true},
		{"yes", "yes"},
	} {
		tpl, s := scope(t, common+"Outputs: {O: {Value: "+tt.expr+"}}", nil)
		got, err := s.Evaluate(tpl.Outputs[0].Value)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s = %#v, %v; want %#v", tt.expr, got, err, tt.want)
		}
	}
}

func TestWhatDependsOnResourcesIsPendingUntilTheyAreThere(t *testing.T) {
	lookup := func(id, attr string) (any, bool, error) {
		if id != "Bucket" {
			return nil, false, fmt.Errorf("no %s", id)
		}
		return map[string]string{"": "b-1", "Arn": "arn:b-1"}[attr], true, nil
	}
	for expr, want := range map[string]any{
		"!Ref Bucket":                                        "b-1",
		"!GetAtt Bucket.Arn":                                 "arn:b-1",
		"{'Fn::GetAtt': [Bucket, Arn]}":                      "arn:b-1",
		"!Sub '${Bucket.Arn}/${Stage}'":                      "arn:b-1/dev",
		"!Sub ['${B}/*', {B: !Ref Bucket}]":                  "b-1/*",
		"!Join ['', [!GetAtt Bucket.Arn, /, !Ref Password]]": Secret("arn:b-1/hunter2"),
		"!Select [0, !Split ['-', !Ref Bucket]]":             "b",
		"!If [IsDev, {A: [!Ref Bucket]}, x]":                 map[string]any{"A": []any{"b-1"}},
	} {
		tpl, s := scope(t, common+"Outputs: {O: {Value: "+expr+"}}", nil)
		v, err := s.Evaluate(tpl.Outputs[0].Value)
		if err != nil || !slices.ContainsFunc(References(v), func(r string) bool { return strings.HasPrefix(r, "Bucket") }) {
			t.Errorf("%s = %v, %v, which refers to %v; want a reference to Bucket", expr, v, err, References(v))
		}
		if v, err = s.Settle(v, lookup); err != nil || !reflect.DeepEqual(v, want) {
			t.Errorf("%s becomes %#v, %v; want %#v", expr, v, err, want)
		}
	}
}

// A text that an evaluation made is not evaluated again.
func TestParametersAreNotEvaluated(t *testing.T) {
	tpl, s := scope(t, common+"Outputs: {O: {Value: !Sub '${Stage}'}}", map[string]string{"Stage": "${Password}"})
	v, err := s.Evaluate(tpl.Outputs[0].Value)
	if err == nil {
		v, err = s.Settle(v, func(string, string) (any, bool, error) { return nil, false, errors.New("looked up") })
	}
	if v != "${Password}" || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestWrongExpressionsAreRefusedWithTheirLine(t *testing.T) {
	for expr, want := range map[string]string{
		"!Ref Nothing":                 "there is no parameter or resource Nothing",
		"!GetAtt Nothing.Arn":          "there is no parameter or resource Nothing",
		"!GetAtt Bucket":               "Fn::GetAtt takes a resource and an attribute",
		"!Ref Gone":                    "there is no resource Gone: its condition IsProd does not hold",
		"!Sub 'a ${Nothing.Arn}'":      "there is no parameter or resource Nothing",
		"!Sub '${Zones}'":              "Fn::Sub takes texts, not lists or mappings",
		"!Sub [a, b]":                  "Fn::Sub takes a text, or a text and a mapping",
		"!Join ['', x]":                "Fn::Join takes a delimiter and a list",
		"!Select [7, [a]]":             "Fn::Select has no item 7 of a list of 1",
		"!Select [x, [a]]":             "Fn::Select has no item x of a list of 1",
		"!Split ['', a]":               "Fn::Split takes a delimiter and a text",
		"!FindInMap [Sizes, other, x]": `Fn::FindInMap finds no "other" in Mappings`,
		"!If [Nothing, 1, 2]":          "there is no condition Nothing",
		"!If [IsDev, 1]":               "Fn::If takes a condition's name and two values",
		"!ImportValue x":               "Lapwing does not have Fn::ImportValue: there are no exports",
		"{'Fn::Transform': {Name: x}}": "Lapwing does not have Fn::Transform: it runs no macros",
		"!GetAZs ''":                   "Lapwing does not have Fn::GetAZs",
		"!Cidr ['10.0.0.0/24', 1, 5]":  "Lapwing does not have the function Fn::Cidr",
		"{'Fn::ToJsonString': {A: 1}}": "Lapwing does not have the function Fn::ToJsonString",
		"!Equals [a, b]":               "Fn::Equals belongs into Conditions",
		"{A: {B: [!Ref X, 1]}}":        "there is no parameter or resource X",
	} {
		tpl, s := scope(t, common+"Outputs:\n  O:\n    Value: "+expr, nil)
		_, err := s.Evaluate(tpl.Outputs[0].Value, "Outputs", "O", "Value")
		problems, ok := errors.AsType[Problems](err)
		if !ok || !strings.Contains(err.Error(), want) || problems[0].Line != strings.Count(common, "\n")+3 {
			t.Errorf("%s: got %v; want line %d: %s", expr, err, strings.Count(common, "\n")+3, want)
		}
	}
}

func TestParametersKeepTheirConstraints(t *testing.T) {
	for _, tt := range []struct{ declaration, value, want string }{
		{"Type: String", "x", ""},
		{"Type: String", "", ""},
		{"Type: String, AllowedValues: [dev, 1]", "1", ""},
		{"Type: String, AllowedValues: [dev, prod]", "test", "parameter P must be one of dev, prod"},
		{"Type: String, AllowedPattern: '[a-z]+'", "abc", ""},
		{"Type: String, AllowedPattern: '[a-z]+'", "abc1", "parameter P must match the pattern [a-z]+"},
		{"Type: String, MinLength: 2", "a", "must have at least 2 characters"},
		{"Type: String, MaxLength: '2'", "äöü", "must have at most 2 characters"},
		{"Type: Number", "1.5", ""},
		{"Type: Number", "many", "must be a number"},
		{"Type: Number, MinValue: 1", "0", "must be at least 1"},
		{"Type: Number, MaxValue: 1", "2", "must be at most 1"},
		{"Type: List<Number>", "1, 2", ""},
		{"Type: List<Number>", "1,x", "must be a number"},
		{"Type: CommaDelimitedList, AllowedValues: [a, b]", "a,c", "must be one of a, b"},
		{"Type: String, AllowedPattern: x, ConstraintDescription: say x", "y", "must match the pattern x (say x)"},
	} {
		tpl, err := Parse([]byte("Parameters: {P: {" + tt.declaration + "}}" + rest))
		if err != nil {
			t.Errorf("%s: %v", tt.declaration, err)
			continue
		}
		_, err = tpl.NewScope(env, map[string]string{"P": tt.value}, nil)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s with %q: got %v; want %q", tt.declaration, tt.value, err, tt.want)
		}
	}
}

func TestValuesOfParametersComeFromTheCommandThenTheStackThenTheTemplate(t *testing.T) {
	tpl, err := Parse([]byte("Parameters: {A: {Type: String, Default: 1}, B: {Type: String, Default: 1}, C: {Type: String, Default: 1}}" + rest))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tpl.NewScope(env, map[string]string{"A": "3"}, map[string]string{"A": "2", "B": "2", "Left": "2"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "3", "B": "2", "C": "1"} {
		if got, keep := s.Parameter(name); got != want || !keep {
			t.Errorf("%s = %s, %t; want %s", name, got, keep, want)
		}
	}
	if _, err := tpl.NewScope(env, map[string]string{"D": "x"}, nil); err == nil || !strings.Contains(err.Error(), "no parameter D") {
		t.Errorf("got %v", err)
	}
}

func TestWhatCannotBeATemplateIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "the template is empty",
		"hello":                       "a template is a mapping",
		"A: [":                        "not valid YAML or JSON",
		"Description: x":              "a template needs Resources",
		"Resources: {}":               "a template needs Resources",
		"Resources: {A: {}}":          "line 1: resource A needs a Type",
		"Resources: {A-1: {Type: x}}": "letters and digits only",
		"Rules: {}" + rest:            "line 1: Lapwing does not have the template section Rules",
		"Transform: My" + rest:        "line 1: Lapwing does not have the transform My",
		"Globals: {}" + rest:          "Globals needs Transform",
		"Parameters: {P: {Type: 'AWS::SSM::Parameter::Value<String>'}}" + rest: "Lapwing does not have the type AWS::SSM::Parameter::Value<String>",
		"Parameters: {P: {Type: String, AllowedPattern: '(?!x)'}}" + rest:      "AllowedPattern is not a regular expression that Lapwing can use",
		"Outputs: {O: {Value: 1, Export: {Name: x}}}" + rest:                   "Lapwing does not have Export of output O",
		"Resources:\n  A:\n    Type: x\n  A:\n    Type: y":                     "line 4: A is there twice",
		"Resources:\n  A:\n    Type: x\n    CreationPolicy: {}":                "line 4: Lapwing does not have the attribute CreationPolicy of resource A",
		"Resources:\n  A:\n    Type: !Banana x":                                "line 3: !Banana is not an intrinsic function",
		"Resources: {A: {Type: x, DeletionPolicy: Snapshot}}":                  "DeletionPolicy of A: Lapwing has Delete and Retain",
		"Resources: {A: &a {Type: x, Properties: {<<: *a}}}":                   "",
		strings.Repeat("#", maxBytes+1):                                        "a template may have 1048576 bytes at most",
		"Resources: " + strings.Repeat("[", 200) + strings.Repeat("]", 200):    "the template holds too much",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v; want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"Conditions: {A: !Condition B, B: !Condition A}" + rest: "depends on itself",
		"Conditions: {A: !Equals [!Ref Bucket, x]}" + rest:      "a condition cannot depend on a resource",
		"Conditions: {A: yes}" + rest:                           "a condition is made of",
	} {
		tpl, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tpl.NewScope(env, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v; want %q", text, err, want)
		}
	}
}

func TestAliasesAreWrittenOutButNotWithoutEnd(t *testing.T) {
	tpl, err := Parse([]byte("Metadata: {x: &x {A: 1}}\nResources: {R: {Type: t, Properties: {P: *x, Q: *x}}}"))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"P": map[string]any{"A": int64(1)}, "Q": map[string]any{"A": int64(1)}}; !reflect.DeepEqual(tpl.Resources[0].Properties, want) {
		t.Errorf("got %v", tpl.Resources[0].Properties)
	}
	bomb := "Metadata:\n  a0: &a0 [x]\n"
	for i := range 40 {
		bomb += fmt.Sprintf("  a%d: &a%d [*a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i)
	}
	long := "Metadata:\n  a: &a [" + strings.Repeat("x,", 1000) + "x]\n  ? " + strings.Repeat("k", 100_000) + "\n  : [*a, *a]\n"
	for _, bomb := range []string{bomb, long} {
		if _, err := Parse([]byte(bomb + rest)); err == nil || !strings.Contains(err.Error(), "holds too much") {
			t.Errorf("got %v", err)
		}
	}
}

func TestSecretsCannotBeWrittenByAccident(t *testing.T) {
	if b, err := Secret("hunter2").MarshalJSON(); err == nil {
		t.Errorf("written: %s", b)
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add([]byte(common))
	f.Add([]byte("Resources: {A: {Type: x, Properties: {P: !Sub ['${A.B}${!x}', {A: !If [C, 1, !Ref 'AWS::NoValue']}]}}}\nConditions: {C: !Or [!Condition D, !Not [!Equals [a, b]]]}"))
	f.Add([]byte(`{"Transform":"AWS::Serverless-2016-10-31","Resources":{"F":{"Type":"AWS::Serverless::Function","Properties":{"X":{"Fn::Select":[0,{"Fn::Split":[",",{"Ref":"F"}]}]}}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tpl, err := Parse(b)
		if err != nil {
			return
		}
		s, err := tpl.NewScope(env, nil, nil)
		if err != nil {
			return
		}
		for _, r := range tpl.Resources {
			v, err := s.Evaluate(r.Properties, "Resources", r.ID, "Properties")
			if err != nil {
				continue
			}
			References(v)
			known := func(id, attr string) (any, bool, error) { return id + "." + attr, true, nil }
			settled, err := s.Settle(v, known)
			if err == nil && len(References(settled)) > 0 {
				t.Errorf("%v is not settled", settled)
			}
		}
	})
}
