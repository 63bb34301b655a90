package iam

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/state"
)

// policyWith is a document with one statement.
func policyWith(statement string) string {
	return `{"Version":"2012-10-17","Statement":` + statement + `}`
}

const good = `{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b"}`

// with changes the good statement.
func with(old, new string) string {
	changed := strings.Replace(good, old, new, 1)
	if changed == good {
		panic("nothing to change: " + old)
	}
	return policyWith(changed)
}

func TestIdentityPolicies(t *testing.T) {
	const syntax, legacy = "Syntax errors in policy.", "The policy failed legacy parsing"
	tests := map[string]struct{ document, message string }{
		"good":                     {policyWith(good), ""},
		"a list":                   {policyWith("[" + good + "," + good + "]"), ""},
		"lists within":             {with(`"s3:ListBucket"`, `["s3:ListBucket","s3:Get*"]`), ""},
		"all":                      {policyWith(`{"Effect":"Deny","NotAction":"*","NotResource":"*"}`), ""},
		"with id":                  {strings.Replace(policyWith(good), `"Version"`, `"Id":"x","Version"`, 1), ""},
		"condition":                {with(`"Resource"`, `"Condition":{"ForAnyValue:StringLikeIfExists":{"aws:x":["a","b"]},"Bool":{"aws:y":true},"NumericLessThan":{"aws:z":5}},"Resource"`), ""},
		"not JSON":                 {"hello", syntax},
		"two documents":            {policyWith(good) + "{}", syntax},
		"no statement":             {`{"Version":"2012-10-17"}`, syntax},
		"empty statement":          {policyWith("[]"), syntax},
		"null statement":           {policyWith("null"), syntax},
		"statement is no object":   {policyWith(`["x"]`), syntax},
		"unknown element":          {strings.Replace(policyWith(good), `"Version"`, `"More":1,"Version"`, 1), syntax},
		"unknown in statement":     {with(`"Effect"`, `"More":1,"Effect"`), syntax},
		"other version":            {strings.Replace(policyWith(good), "2012", "2013", 1), syntax},
		"old version":              {strings.Replace(policyWith(good), "2012", "2008", 1), "Policy document must be version 2012-10-17 or greater."},
		"no version":               {`{"Statement":` + good + `}`, "Policy document must be version 2012-10-17 or greater."},
		"element in other case":    {with("Effect", "effect"), syntax},
		"element twice":            {with(`"Effect"`, `"Effect":"Deny","Effect"`), syntax},
		"condition twice":          {with(`"Resource"`, `"Condition":{"StringLike":{"a":"b","a":"c"}},"Resource"`), syntax},
		"no effect":                {with(`"Effect":"Allow",`, ""), syntax},
		"other effect":             {with("Allow", "Maybe"), syntax},
		"effect in other case":     {with("Allow", "allow"), legacy},
		"action and not":           {with(`"Action"`, `"NotAction":"s3:Put","Action"`), syntax},
		"resource and not":         {with(`"Resource"`, `"NotResource":"*","Resource"`), syntax},
		"action is an object":      {with(`"s3:ListBucket"`, `{}`), syntax},
		"action is a list of list": {with(`"s3:ListBucket"`, `[[]]`), syntax},
		"condition is a list":      {with(`"Resource"`, `"Condition":[],"Resource"`), syntax},
		"condition's operator":     {with(`"Resource"`, `"Condition":{"x":{"a":"b"}},"Resource"`), syntax},
		"condition's value":        {with(`"Resource"`, `"Condition":{"StringLike":{"a":{}}},"Resource"`), syntax},
		"principal":                {with(`"Resource"`, `"Principal":"*","Resource"`), "Policy document should not specify a principal."},
		"no action":                {with(`"Action":"s3:ListBucket",`, ""), "Policy statement must contain actions."},
		"empty action":             {with(`"s3:ListBucket"`, `[]`), "Policy statement must contain actions."},
		"no resource":              {with(`,"Resource":"arn:aws:s3:::b"`, ""), "Policy statement must contain resources."},
		"empty resource":           {with(`"arn:aws:s3:::b"`, `[]`), "Policy statement must contain resources."},
		"action without vendor":    {with("s3:ListBucket", "ListBucket"), "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
		"action with two colons":   {with("s3:ListBucket", "s3:List:Bucket"), "Actions/Condition can contain only one colon."},
		"vendor with a space":      {with("s3:ListBucket", "a a:ListBucket"), "Vendor a a is not valid"},
		"resource is no ARN":       {with("arn:aws:s3:::b", "adf"), `Resource adf must be in ARN format or "*".`},
		"resource is empty":        {with("arn:aws:s3:::b", ""), `Resource  must be in ARN format or "*".`},
		"partition":                {with("arn:aws:s3:::b", "aws:s3:::b"), `Partition "s3" is not valid for resource "arn:s3:::b:*".`},
		"partition of a long one":  {with("arn:aws:s3:::b", "a:b:c:d:e:f:g:h"), `Partition "b" is not valid for resource "arn:b:c:d:e:f:g:h".`},
		"vendor of the resource":   {with("arn:aws:s3:::b", "arn:aws"), "Resource vendor must be fully qualified and cannot contain regexes."},
		"too few parts":            {with("arn:aws:s3:::b", "arn:aws:s3::b"), legacy},
		"empty vendor":             {with("arn:aws:s3:::b", "arn:aws::::b"), legacy},
		"region in S3":             {with("arn:aws:s3:::b", "arn:aws:s3:us-east-1::b"), "Resource arn:aws:s3:us-east-1::b can not contain region information."},
		"region in IAM":            {with("arn:aws:s3:::b", "arn:aws:iam:us-east-1::b"), "IAM resource arn:aws:iam:us-east-1::b cannot contain region information."},
		"same Sid":                 {policyWith("[" + strings.Repeat(strings.Replace(good, "{", `{"Sid":"x",`, 1)+",", 2) + good + "]"), "Statement IDs (SID) in a single policy must be unique."},
		"Sid with a dash":          {with(`"Effect"`, `"Sid":"a-b","Effect"`), "Statement IDs (SID) must be alpha-numeric."},
		"too large":                {with("arn:aws:s3:::b", "arn:aws:s3:::"+strings.Repeat("b", 6144)), "Cannot exceed quota for PolicySize: 6144"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantMalformed(t, checkManagedPolicy(tt.document), tt.message) })
	}
}

func TestInlinePoliciesNeedNoVersion(t *testing.T) {
	for name, text := range map[string]string{"none": `{"Statement":` + good + `}`, "old": strings.Replace(policyWith(good), "2012", "2008", 1)} {
		if err := checkIdentityPolicy(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantMalformed(t, checkIdentityPolicy(strings.Replace(policyWith(good), "2012", "2013", 1)), "Syntax errors in policy.")
}

func wantMalformed(t *testing.T, err error, message string) {
	t.Helper()
	e, ok := errors.AsType[*aws.Error](err)
	switch {
	case message == "" && err == nil:
	case !ok || message == "" || !strings.HasPrefix(e.Message, message):
		t.Errorf("error is %v, want %q", err, message)
	case e.Code != "MalformedPolicyDocument" && e.Code != "LimitExceeded":
		t.Errorf("code is %s", e.Code)
	}
}

func TestAWSManagedPoliciesAreWellFormed(t *testing.T) {
	for arn, p := range awsManaged {
		if err := checkManagedPolicy(p.Versions[0].Document); err != nil {
			t.Errorf("%s: %v", arn, err)
		}
		if p.Path+p.Name == "" || !strings.HasSuffix(arn, "policy"+p.Path+p.Name) || p.Description == "" || p.Created.IsZero() || p.Updated.Before(p.Created) {
			t.Errorf("%s is %+v", arn, p)
		}
	}
}

func TestTrustPolicies(t *testing.T) {
	s := openTest(t, t.TempDir())
	if _, err := s.CreateUser(t.Context(), &iam.CreateUserInput{UserName: aws.Ptr("ada"), Path: aws.Ptr("/x/")}); err != nil {
		t.Fatal(err)
	}
	trusting := func(principal string) string {
		return policyWith(`{"Effect":"Allow","Principal":` + principal + `,"Action":"sts:AssumeRole"}`)
	}
	tests := map[string]struct{ document, message string }{
		"service":          {trusting(`{"Service":"lambda.amazonaws.com"}`), ""},
		"services":         {trusting(`{"Service":["lambda.amazonaws.com","edgelambda.amazonaws.com"]}`), ""},
		"account":          {trusting(`{"AWS":"123456789012"}`), ""},
		"other account":    {trusting(`{"AWS":"arn:aws:iam::210987654321:role/any"}`), ""},
		"federated":        {trusting(`{"Federated":"cognito-identity.amazonaws.com"}`), ""},
		"everybody":        {trusting(`"*"`), ""},
		"old version":      {strings.Replace(trusting(`"*"`), "2012", "2008", 1), ""},
		"own user":         {trusting(`{"AWS":"arn:aws:iam::123456789012:user/x/ada"}`), ""},
		"own user's path":  {trusting(`{"AWS":"arn:aws:iam::123456789012:user/ada"}`), `Invalid principal in policy: "AWS":"arn:aws:iam::123456789012:user/ada"`},
		"own missing role": {trusting(`{"AWS":"arn:aws:iam::123456789012:role/none"}`), `Invalid principal in policy: "AWS":"arn:aws:iam::123456789012:role/none"`},
		"not a principal":  {trusting(`{"AWS":"ada"}`), `Invalid principal in policy: "AWS":"ada"`},
		"not a service":    {trusting(`{"Service":"lambda"}`), `Invalid principal in policy: "SERVICE":"lambda"`},
		"kind":             {trusting(`{"Other":"x"}`), "Syntax errors in policy."},
		"principal string": {trusting(`"ada"`), "Syntax errors in policy."},
		"no principal":     {policyWith(`{"Effect":"Allow","Action":"sts:AssumeRole"}`), "Missing required field Principal"},
		"resource":         {policyWith(`{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}`), "Has prohibited field Resource"},
		"action":           {policyWith(`{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}`), "AssumeRole policy may only specify STS AssumeRole actions."},
		"no action":        {policyWith(`{"Effect":"Allow","Principal":"*"}`), "Policy statement must contain actions."},
		"too large":        {policyWith(`{"Sid":"` + strings.Repeat("a", 2048) + `","Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}`), "Cannot exceed quota for ACLSizePerRole: 2048"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantMalformed(t, s.checkTrustPolicy(tt.document), tt.message) })
	}
}

func openTest(t *testing.T, dir string) *Service {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(t.Context(), store, "123456789012")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRenameThatACrashBrokeOffIsFinished(t *testing.T) {
	s := openTest(t, t.TempDir())
	ctx := t.Context()
	if _, err := s.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.Ptr("ada")}); err != nil {
		t.Fatal(err)
	}
	key, err := s.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.Ptr("ada")})
	if err != nil {
		t.Fatal(err)
	}
	renamed, err := s.users.find(aws.Ptr("ada"))
	if err != nil {
		t.Fatal(err)
	}
	renamed.Name = "lovelace"
	if _, err := s.users.records.Create(ctx, "lovelace", renamed); err != nil {
		t.Fatal(err)
	}
	// The crash comes here; the next start finishes.
	if err := s.finishRenames(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.users.records.Len(); n != 1 {
		t.Errorf("%d users", n)
	}
	_, owner, ok := s.UserKey(*key.AccessKey.AccessKeyId)
	if !ok || owner.ARN != "arn:aws:iam::123456789012:user/lovelace" || owner.UserID != renamed.ID {
		t.Errorf("the key is of %+v, %v", owner, ok)
	}
}

func TestLike(t *testing.T) {
	tests := []struct {
		pattern, value string
		want           bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "abcbc", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false}, {"abc", "abcd", false},
	}
	for _, tt := range tests {
		if got := like(tt.pattern, tt.value); got != tt.want {
			t.Errorf("%q like %q is %v", tt.value, tt.pattern, got)
		}
	}
}

func FuzzPolicyDocument(f *testing.F) {
	f.Add(policyWith(good))
	f.Add(policyWith("[" + good + "," + strings.Replace(good, `"Resource":"arn:aws:s3:::b"`, `"Principal":{"AWS":["1"]}`, 1) + "]"))
	f.Add(`{"Statement":{"Condition":{"Null":{"a":[null]}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if err := checkManagedPolicy(text); err != nil {
			if _, ok := errors.AsType[*aws.Error](err); !ok {
				t.Fatal(err)
			}
			return
		}
		d, err := parseDocument(text)
		if err != nil || len(d.Statement) == 0 {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
