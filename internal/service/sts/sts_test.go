package sts_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	iamapi "lapwing.dev/lapwing/internal/aws/iam"
	stsapi "lapwing.dev/lapwing/internal/aws/sts"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/service/iam"
	"lapwing.dev/lapwing/internal/service/sts"
	"lapwing.dev/lapwing/test/servicetest"
)

// bed is IAM and STS behind a gateway.
type bed struct {
	t     *testing.T
	root  sdkaws.Config
	creds *credentials.Store
}

func newBed(t *testing.T) *bed {
	t.Helper()
	i := servicetest.New(t)
	users, err := iam.Open(t.Context(), i.Store, i.Credentials.AccountID())
	if err != nil {
		t.Fatal(err)
	}
	i.Credentials.SetSource(users)
	root := i.Serve(gateway.Options{
		Services: []*aws.Service{iamapi.NewService(users), stsapi.NewService(sts.New(i.Credentials, users))}, Region: "us-east-1",
	})
	return &bed{t, root, i.Credentials}
}

func (b *bed) as(key, secret, token string) sdkaws.Config {
	cfg := b.root
	cfg.Credentials = sdkcredentials.NewStaticCredentialsProvider(key, secret, token)
	return cfg
}

func (b *bed) session(c *types.Credentials) *sdksts.Client {
	return sdksts.NewFromConfig(b.as(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken))
}

func (b *bed) who(c *sdksts.Client) *sdksts.GetCallerIdentityOutput {
	b.t.Helper()
	out, err := c.GetCallerIdentity(b.t.Context(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// role creates a role that trusts principals of a kind.
func (b *bed) role(name, trust string, maxSession int32) (arn, id string) {
	b.t.Helper()
	out, err := sdkiam.NewFromConfig(b.root).CreateRole(b.t.Context(), &sdkiam.CreateRoleInput{
		RoleName: &name, AssumeRolePolicyDocument: &trust, MaxSessionDuration: &maxSession, Path: aws.Ptr("/team/"),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return *out.Role.Arn, *out.Role.RoleId
}

func (b *bed) user(name string) (*sdksts.Client, string) {
	b.t.Helper()
	c := sdkiam.NewFromConfig(b.root)
	u, err := c.CreateUser(b.t.Context(), &sdkiam.CreateUserInput{UserName: &name})
	if err != nil {
		b.t.Fatal(err)
	}
	k, err := c.CreateAccessKey(b.t.Context(), &sdkiam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		b.t.Fatal(err)
	}
	return sdksts.NewFromConfig(b.as(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")), *u.User.Arn
}

func trusting(principal string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"sts:AssumeRole"}]}`
}

func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), message) {
		t.Errorf("error is %v, want %s with %q", err, code, message)
	}
}

func TestAssumedRoleActsAsTheRole(t *testing.T) {
	b := newBed(t)
	user, userARN := b.user("ada")
	arn, id := b.role("builder", trusting(`{"AWS":"`+userARN+`"}`), 7200)
	out, err := user.AssumeRole(t.Context(), &sdksts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.Ptr("build-1"), DurationSeconds: aws.Ptr(int32(7200))})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*out.Credentials.Expiration); left < 7100*time.Second || left > 7200*time.Second {
		t.Errorf("the session lasts another %v", left)
	}
	want := "arn:aws:sts::" + b.creds.AccountID() + ":assumed-role/builder/build-1"
	who := b.who(b.session(out.Credentials))
	if *who.Arn != want || *who.UserId != id+":build-1" || *who.Account != b.creds.AccountID() {
		t.Errorf("session is %s, %s", *who.Arn, *who.UserId)
	}
	if *out.AssumedRoleUser.Arn != want || *out.AssumedRoleUser.AssumedRoleId != id+":build-1" {
		t.Errorf("assumed role user is %s, %s", *out.AssumedRoleUser.Arn, *out.AssumedRoleUser.AssumedRoleId)
	}
	if who := b.who(user); *who.Arn != userARN {
		t.Errorf("user is %s", *who.Arn)
	}
}

func TestTrustPolicyDecidesWhoAssumesARole(t *testing.T) {
	b := newBed(t)
	user, userARN := b.user("ada")
	_, otherARN := b.user("eve")
	account := b.creds.AccountID()
	statement := func(rest string) string {
		return `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"` + rest + `}`
	}
	policy := func(statements ...string) string {
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
	}
	deny := func(rest string) string {
		return `{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"` + rest + `}`
	}
	tests := map[string]struct {
		trust    string
		external *string
		allowed  bool
	}{
		"the user":            {trusting(`{"AWS":"` + userARN + `"}`), nil, true},
		"the user, in a list": {trusting(`{"AWS":["` + otherARN + `","` + userARN + `"]}`), nil, true},
		"another user":        {trusting(`{"AWS":"` + otherARN + `"}`), nil, false},
		"the account's root":  {trusting(`{"AWS":"arn:aws:iam::` + account + `:root"}`), nil, true},
		"the account":         {trusting(`{"AWS":"` + account + `"}`), nil, true},
		"everybody":           {trusting(`"*"`), nil, true},
		"another account":     {trusting(`{"AWS":"arn:aws:iam::000000000000:root"}`), nil, false},
		"a service":           {trusting(`{"Service":"lambda.amazonaws.com"}`), nil, false},
		"an external id":      {policy(statement(`,"Condition":{"StringEquals":{"sts:ExternalId":"secret"}}`)), aws.Ptr("secret"), true},
		"a wrong external id": {policy(statement(`,"Condition":{"StringEquals":{"sts:ExternalId":"secret"}}`)), aws.Ptr("guess"), false},
		"no external id":      {policy(statement(`,"Condition":{"StringEquals":{"sts:ExternalId":"secret"}}`)), nil, false},
		"a session name":      {policy(statement(`,"Condition":{"StringLike":{"sts:RoleSessionName":"te?t-*"}}`)), nil, true},
		"an address":          {policy(statement(`,"Condition":{"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}}`)), nil, true},
		"another address":     {policy(statement(`,"Condition":{"NotIpAddress":{"aws:SourceIp":"127.0.0.0/8"}}`)), nil, false},
		"an unknown key":      {policy(statement(`,"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}`)), nil, false},
		"an unknown operator": {policy(statement(`,"Condition":{"NumericLessThan":{"aws:userid":"1"}}`)), nil, false},
		"MFA":                 {policy(statement(`,"Condition":{"Bool":{"aws:MultiFactorAuthPresent":true}}`)), nil, false},
		"denied":              {policy(statement(""), deny("")), nil, false},
		"denied to others":    {policy(statement(""), deny(`,"Condition":{"ArnEquals":{"aws:PrincipalArn":"`+otherARN+`"}}`)), nil, true},
		"denied, it seems":    {policy(statement(""), deny(`,"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}`)), nil, false},
		"another action":      {strings.Replace(trusting(`"*"`), "sts:AssumeRole", "sts:AssumeRoleWithSAML", 1), nil, false},
		"a wildcard action":   {strings.Replace(trusting(`"*"`), "sts:AssumeRole", "sts:Assume*", 1), nil, true},
		"all but a principal": {strings.Replace(trusting(`{"AWS":"`+otherARN+`"}`), "Principal", "NotPrincipal", 1), nil, false},
	}
	i := 0
	for name, tt := range tests {
		i++
		arn, _ := b.role("role"+string(rune('a'+i)), tt.trust, 3600)
		t.Run(name, func(t *testing.T) {
			_, err := user.AssumeRole(t.Context(), &sdksts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.Ptr("test-1"), ExternalId: tt.external})
			if tt.allowed {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, "AccessDenied", "User: "+userARN+" is not authorized to perform: sts:AssumeRole on resource: "+arn)
		})
	}
}

func TestAssumeRoleLimits(t *testing.T) {
	b := newBed(t)
	arn, _ := b.role("first", trusting(`{"AWS":"`+b.creds.AccountID()+`"}`), 7200)
	root := sdksts.NewFromConfig(b.root)
	in := func(change func(*sdksts.AssumeRoleInput)) *sdksts.AssumeRoleInput {
		i := &sdksts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.Ptr("abc")}
		if change != nil {
			change(i)
		}
		return i
	}
	tests := map[string]struct {
		change        func(*sdksts.AssumeRoleInput)
		code, message string
	}{
		"too long":       {func(i *sdksts.AssumeRoleInput) { i.DurationSeconds = aws.Ptr(int32(7201)) }, "ValidationError", "exceeds the MaxSessionDuration set for this role"},
		"too short":      {func(i *sdksts.AssumeRoleInput) { i.DurationSeconds = aws.Ptr(int32(899)) }, "ValidationError", "durationSeconds"},
		"no such role":   {func(i *sdksts.AssumeRoleInput) { i.RoleArn = aws.Ptr(arn + "x") }, "AccessDenied", "not authorized to perform: sts:AssumeRole"},
		"another path":   {func(i *sdksts.AssumeRoleInput) { i.RoleArn = aws.Ptr(strings.Replace(arn, "/team/", "/", 1)) }, "AccessDenied", ""},
		"no ARN":         {func(i *sdksts.AssumeRoleInput) { i.RoleArn = aws.Ptr("this-is-not-an-arn-at-all") }, "ValidationError", "is invalid"},
		"session policy": {func(i *sdksts.AssumeRoleInput) { i.Policy = aws.Ptr(`{}`) }, "NotImplemented", "Policy"},
		"session tags":   {func(i *sdksts.AssumeRoleInput) { i.Tags = []types.Tag{{Key: aws.Ptr("k"), Value: aws.Ptr("v")}} }, "NotImplemented", "Tags"},
		"MFA":            {func(i *sdksts.AssumeRoleInput) { i.SerialNumber = aws.Ptr("arn:aws:iam::1:mfa/x") }, "NotImplemented", "SerialNumber"},
		"session name":   {func(i *sdksts.AssumeRoleInput) { i.RoleSessionName = aws.Ptr("a/b") }, "ValidationError", "roleSessionName"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := root.AssumeRole(t.Context(), in(tt.change))
			wantError(t, err, tt.code, tt.message)
		})
	}
	t.Run("chained", func(t *testing.T) {
		out, err := root.AssumeRole(t.Context(), in(nil))
		if err != nil {
			t.Fatal(err)
		}
		session := b.session(out.Credentials)
		if _, err := session.AssumeRole(t.Context(), in(nil)); err != nil {
			t.Error(err)
		}
		_, err = session.AssumeRole(t.Context(), in(func(i *sdksts.AssumeRoleInput) { i.DurationSeconds = aws.Ptr(int32(3601)) }))
		wantError(t, err, "ValidationError", "role chaining")
		_, err = session.GetSessionToken(t.Context(), nil)
		wantError(t, err, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	})
}

func TestRoleIsTrustedByItsARN(t *testing.T) {
	b := newBed(t)
	first, _ := b.role("first", trusting(`{"AWS":"`+b.creds.AccountID()+`"}`), 3600)
	second, _ := b.role("second", trusting(`{"AWS":"`+first+`"}`), 3600)
	root := sdksts.NewFromConfig(b.root)
	out, err := root.AssumeRole(t.Context(), &sdksts.AssumeRoleInput{RoleArn: &first, RoleSessionName: aws.Ptr("abc")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.session(out.Credentials).AssumeRole(t.Context(), &sdksts.AssumeRoleInput{RoleArn: &second, RoleSessionName: aws.Ptr("abc")}); err != nil {
		t.Error(err)
	}
	_, err = root.AssumeRole(t.Context(), &sdksts.AssumeRoleInput{RoleArn: &second, RoleSessionName: aws.Ptr("abc")})
	wantError(t, err, "AccessDenied", "")
}

func TestGetSessionTokenActsAsTheUser(t *testing.T) {
	b := newBed(t)
	user, userARN := b.user("ada")
	for name, tt := range map[string]struct {
		client *sdksts.Client
		arn    string
		ttl    time.Duration
	}{
		"user": {user, userARN, 12 * time.Hour},
		"root": {sdksts.NewFromConfig(b.root), "arn:aws:iam::" + b.creds.AccountID() + ":root", time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := tt.client.GetSessionToken(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(*out.Credentials.Expiration); left > tt.ttl || left < tt.ttl-time.Minute {
				t.Errorf("the session lasts another %v", left)
			}
			if who := b.who(b.session(out.Credentials)); *who.Arn != tt.arn {
				t.Errorf("session is %s", *who.Arn)
			}
		})
	}
	_, err := user.GetSessionToken(t.Context(), &sdksts.GetSessionTokenInput{TokenCode: aws.Ptr("123456")})
	wantError(t, err, "NotImplemented", "TokenCode")
}

func TestGetAccessKeyInfo(t *testing.T) {
	b := newBed(t)
	root := sdksts.NewFromConfig(b.root)
	key := b.creds.Root().AccessKeyID
	out, err := root.GetAccessKeyInfo(t.Context(), &sdksts.GetAccessKeyInfoInput{AccessKeyId: &key})
	if err != nil || *out.Account != b.creds.AccountID() {
		t.Errorf("account is %v, %v", out, err)
	}
	_, err = root.GetAccessKeyInfo(t.Context(), &sdksts.GetAccessKeyInfoInput{AccessKeyId: aws.Ptr("0123456789abcdef")})
	wantError(t, err, "ValidationError", "")
}
