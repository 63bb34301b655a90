package iam_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	iamapi "lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/service/iam"
	"lapwing.dev/lapwing/internal/state"
)

const (
	trust    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	document = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}]}`
	basic    = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
)

// bed is IAM behind a gateway.
type bed struct {
	*sdkiam.Client // of the root user
	t              *testing.T
	url            string
	dir            string
	creds          *credentials.Store
	store          *state.Store
	server         *httptest.Server
	service        *iam.Service
}

func newBed(t *testing.T) *bed {
	t.Helper()
	creds, err := credentials.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, creds: creds, dir: t.TempDir()}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bed) start() {
	b.t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	if b.store, err = state.Open(b.t.Context(), state.Options{Dir: b.dir, Logger: log}); err != nil {
		b.t.Fatal(err)
	}
	service, err := iam.Open(b.t.Context(), b.store, b.creds.AccountID())
	if err != nil {
		b.t.Fatal(err)
	}
	b.service = service
	b.creds.SetSource(service)
	b.server = httptest.NewServer(gateway.New(gateway.Options{
		Services: []*aws.Service{iamapi.NewService(service)}, Credentials: b.creds,
		Region: "us-east-1", AccountID: b.creds.AccountID(), Logger: log,
	}))
	b.url = b.server.URL
	b.Client = b.as(b.creds.Root().AccessKeyID, b.creds.Root().SecretAccessKey)
}

func (b *bed) stop() {
	b.server.Close()
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bed) as(key, secret string) *sdkiam.Client {
	return sdkiam.NewFromConfig(sdkaws.Config{
		Region: "us-east-1", BaseEndpoint: aws.Ptr(b.url), Retryer: func() sdkaws.Retryer { return sdkaws.NopRetryer{} },
		Credentials: sdkcredentials.NewStaticCredentialsProvider(key, secret, ""),
	})
}

func (b *bed) createUser(name string) *types.User {
	b.t.Helper()
	out, err := b.CreateUser(b.t.Context(), &sdkiam.CreateUserInput{UserName: &name})
	must(b.t, err)
	return out.User
}

func (b *bed) createRole(name string) *types.Role {
	b.t.Helper()
	out, err := b.CreateRole(b.t.Context(), &sdkiam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.Ptr(trust)})
	must(b.t, err)
	return out.Role
}

func (b *bed) createPolicy(name string) string {
	b.t.Helper()
	out, err := b.CreatePolicy(b.t.Context(), &sdkiam.CreatePolicyInput{PolicyName: &name, PolicyDocument: aws.Ptr(document)})
	must(b.t, err)
	return *out.Policy.Arn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), message) {
		t.Errorf("error is %v, want %s with %q", err, code, message)
	}
}

// decoded undoes the encoding in which IAM hands out documents.
func decoded(t *testing.T, document *string) string {
	t.Helper()
	if strings.ContainsAny(*document, `{" +`) {
		t.Errorf("document is not percent-encoded: %s", *document)
	}
	s, err := url.PathUnescape(*document)
	must(t, err)
	return s
}

func TestUserLifeCycle(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	out, err := b.CreateUser(ctx, &sdkiam.CreateUserInput{
		UserName: aws.Ptr("Ada"), Path: aws.Ptr("/team/a/"), PermissionsBoundary: aws.Ptr(basic),
		Tags: []types.Tag{{Key: aws.Ptr("cost"), Value: aws.Ptr("1")}},
	})
	must(t, err)
	arn := "arn:aws:iam::" + b.creds.AccountID() + ":user/team/a/Ada"
	if u := out.User; *u.Arn != arn || !regexp.MustCompile(`^AIDA[A-Z2-7]{17}$`).MatchString(*u.UserId) || len(u.Tags) != 1 {
		t.Errorf("user is %+v", u)
	}
	_, err = b.CreateUser(ctx, &sdkiam.CreateUserInput{UserName: aws.Ptr("ada")})
	wantError(t, err, "EntityAlreadyExists", "User with name ada already exists.")
	_, err = b.GetUser(ctx, &sdkiam.GetUserInput{UserName: aws.Ptr("ada")})
	wantError(t, err, "NoSuchEntity", "The user with name ada cannot be found.")
	got, err := b.GetUser(ctx, &sdkiam.GetUserInput{UserName: aws.Ptr("Ada")})
	must(t, err)
	if u := got.User; *u.Arn != arn || *u.Path != "/team/a/" || *u.PermissionsBoundary.PermissionsBoundaryArn != basic || *u.UserId != *out.User.UserId || !u.CreateDate.Equal(*out.User.CreateDate) {
		t.Errorf("user is %+v", u)
	}
	root, err := b.GetUser(ctx, nil)
	must(t, err)
	if *root.User.Arn != "arn:aws:iam::"+b.creds.AccountID()+":root" {
		t.Errorf("root is %+v", root.User)
	}
	_, err = b.DeleteUser(ctx, &sdkiam.DeleteUserInput{UserName: aws.Ptr("Ada")})
	must(t, err)
	_, err = b.DeleteUser(ctx, &sdkiam.DeleteUserInput{UserName: aws.Ptr("Ada")})
	wantError(t, err, "NoSuchEntity", "The user with name Ada cannot be found.")
}

func TestAccessKeysSignUntilTheyAreInactive(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createUser("ada")
	name := aws.Ptr("ada")
	first, err := b.CreateAccessKey(ctx, &sdkiam.CreateAccessKeyInput{UserName: name})
	must(t, err)
	key := first.AccessKey
	ada := b.as(*key.AccessKeyId, *key.SecretAccessKey)
	me, err := ada.GetUser(ctx, nil)
	must(t, err)
	if *me.User.UserName != "ada" {
		t.Errorf("the key is of %s", *me.User.UserName)
	}
	_, err = ada.CreateAccessKey(ctx, nil) // for whom who asks
	must(t, err)
	_, err = b.CreateAccessKey(ctx, &sdkiam.CreateAccessKeyInput{UserName: name})
	wantError(t, err, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
	list, err := b.ListAccessKeys(ctx, &sdkiam.ListAccessKeysInput{UserName: name})
	must(t, err)
	if len(list.AccessKeyMetadata) != 2 || list.IsTruncated {
		t.Errorf("keys are %+v", list.AccessKeyMetadata)
	}

	_, err = b.UpdateAccessKey(ctx, &sdkiam.UpdateAccessKeyInput{UserName: name, AccessKeyId: key.AccessKeyId, Status: types.StatusTypeInactive})
	must(t, err)
	_, err = ada.GetUser(ctx, nil)
	wantError(t, err, "InvalidClientTokenId", "")
	_, err = b.UpdateAccessKey(ctx, &sdkiam.UpdateAccessKeyInput{UserName: name, AccessKeyId: key.AccessKeyId, Status: types.StatusTypeActive})
	must(t, err)
	_, err = ada.GetUser(ctx, nil)
	must(t, err)

	_, err = b.DeleteUser(ctx, &sdkiam.DeleteUserInput{UserName: name})
	wantError(t, err, "DeleteConflict", "Cannot delete entity, must delete access keys first.")
	b.createUser("eve")
	_, err = b.DeleteAccessKey(ctx, &sdkiam.DeleteAccessKeyInput{UserName: aws.Ptr("eve"), AccessKeyId: key.AccessKeyId})
	wantError(t, err, "NoSuchEntity", "The Access Key with id "+*key.AccessKeyId+" cannot be found")
	_, err = b.DeleteAccessKey(ctx, &sdkiam.DeleteAccessKeyInput{UserName: name, AccessKeyId: key.AccessKeyId})
	must(t, err)
	_, err = ada.GetUser(ctx, nil)
	wantError(t, err, "InvalidClientTokenId", "")

	_, err = b.CreateAccessKey(ctx, nil)
	wantError(t, err, "NotImplemented", "root user")
	own, err := b.ListAccessKeys(ctx, nil)
	must(t, err)
	if len(own.AccessKeyMetadata) != 1 || *own.AccessKeyMetadata[0].AccessKeyId != b.creds.Root().AccessKeyID {
		t.Errorf("root's keys are %+v", own.AccessKeyMetadata)
	}
}

func TestRenamedUserKeepsEverything(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	before := b.createUser("ada")
	b.createUser("eve")
	key, err := b.CreateAccessKey(ctx, &sdkiam.CreateAccessKeyInput{UserName: aws.Ptr("ada")})
	must(t, err)
	_, err = b.UpdateUser(ctx, &sdkiam.UpdateUserInput{UserName: aws.Ptr("ada"), NewUserName: aws.Ptr("Eve")})
	wantError(t, err, "EntityAlreadyExists", "User with name Eve already exists.")
	_, err = b.UpdateUser(ctx, &sdkiam.UpdateUserInput{UserName: aws.Ptr("ada"), NewUserName: aws.Ptr("Lovelace"), NewPath: aws.Ptr("/new/")})
	must(t, err)
	me, err := b.as(*key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey).GetUser(ctx, nil)
	must(t, err)
	if *me.User.UserName != "Lovelace" || *me.User.Path != "/new/" || *me.User.UserId != *before.UserId {
		t.Errorf("user is %+v", me.User)
	}
	_, err = b.GetUser(ctx, &sdkiam.GetUserInput{UserName: aws.Ptr("ada")})
	wantError(t, err, "NoSuchEntity", "")
	_, err = b.UpdateUser(ctx, &sdkiam.UpdateUserInput{UserName: aws.Ptr("Lovelace"), NewUserName: aws.Ptr("LOVELACE")})
	must(t, err)
	_, err = b.GetUser(ctx, &sdkiam.GetUserInput{UserName: aws.Ptr("LOVELACE")})
	must(t, err)
}

func TestRoleLifeCycle(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	name := aws.Ptr("exec")
	out, err := b.CreateRole(ctx, &sdkiam.CreateRoleInput{
		RoleName: name, Path: aws.Ptr("/service-role/"), AssumeRolePolicyDocument: aws.Ptr(trust), Description: aws.Ptr("d"),
		Tags: []types.Tag{{Key: aws.Ptr("k"), Value: aws.Ptr("v")}},
	})
	must(t, err)
	if r := out.Role; *r.Arn != "arn:aws:iam::"+b.creds.AccountID()+":role/service-role/exec" || *r.MaxSessionDuration != 3600 || !strings.HasPrefix(*r.RoleId, "AROA") {
		t.Errorf("role is %+v", r)
	}
	_, err = b.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: aws.Ptr("EXEC"), AssumeRolePolicyDocument: aws.Ptr(trust)})
	wantError(t, err, "EntityAlreadyExists", "Role with name EXEC already exists.")
	got, err := b.GetRole(ctx, &sdkiam.GetRoleInput{RoleName: name})
	must(t, err)
	if decoded(t, got.Role.AssumeRolePolicyDocument) != trust || *got.Role.Description != "d" || *got.Role.Tags[0].Value != "v" {
		t.Errorf("role is %+v", got.Role)
	}
	_, err = b.UpdateRole(ctx, &sdkiam.UpdateRoleInput{RoleName: name, MaxSessionDuration: aws.Ptr(int32(43200))})
	must(t, err)
	changed := strings.Replace(trust, "lambda", "edgelambda", 1)
	_, err = b.UpdateAssumeRolePolicy(ctx, &sdkiam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: &changed})
	must(t, err)
	updated, err := b.UpdateRoleDescription(ctx, &sdkiam.UpdateRoleDescriptionInput{RoleName: name, Description: aws.Ptr("e")})
	must(t, err)
	if r := updated.Role; *r.MaxSessionDuration != 43200 || decoded(t, r.AssumeRolePolicyDocument) != changed || *r.Description != "e" {
		t.Errorf("role is %+v", r)
	}
	profiles, err := b.ListInstanceProfilesForRole(ctx, &sdkiam.ListInstanceProfilesForRoleInput{RoleName: name})
	must(t, err)
	if len(profiles.InstanceProfiles) != 0 {
		t.Errorf("profiles are %+v", profiles.InstanceProfiles)
	}

	_, err = b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: name, PolicyArn: aws.Ptr(basic)})
	must(t, err)
	_, err = b.PutRolePolicy(ctx, &sdkiam.PutRolePolicyInput{RoleName: name, PolicyName: aws.Ptr("p"), PolicyDocument: aws.Ptr(document)})
	must(t, err)
	_, err = b.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: name})
	wantError(t, err, "DeleteConflict", "Cannot delete entity, must delete policies first.")
	_, err = b.DeleteRolePolicy(ctx, &sdkiam.DeleteRolePolicyInput{RoleName: name, PolicyName: aws.Ptr("p")})
	must(t, err)
	_, err = b.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: name})
	wantError(t, err, "DeleteConflict", "Cannot delete entity, must detach all policies first.")
	_, err = b.DetachRolePolicy(ctx, &sdkiam.DetachRolePolicyInput{RoleName: name, PolicyArn: aws.Ptr(basic)})
	must(t, err)
	_, err = b.DeleteRole(ctx, &sdkiam.DeleteRoleInput{RoleName: name})
	must(t, err)
	_, err = b.GetRole(ctx, &sdkiam.GetRoleInput{RoleName: name})
	wantError(t, err, "NoSuchEntity", "The role with name exec cannot be found.")
}

func TestInlinePolicies(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createUser("ada")
	name := aws.Ptr("ada")
	for _, policy := range []string{"b", "a"} {
		_, err := b.PutUserPolicy(ctx, &sdkiam.PutUserPolicyInput{UserName: name, PolicyName: &policy, PolicyDocument: aws.Ptr(document)})
		must(t, err)
	}
	list, err := b.ListUserPolicies(ctx, &sdkiam.ListUserPoliciesInput{UserName: name})
	must(t, err)
	if !slices.Equal(list.PolicyNames, []string{"a", "b"}) {
		t.Errorf("policies are %v", list.PolicyNames)
	}
	got, err := b.GetUserPolicy(ctx, &sdkiam.GetUserPolicyInput{UserName: name, PolicyName: aws.Ptr("a")})
	must(t, err)
	if decoded(t, got.PolicyDocument) != document {
		t.Errorf("document is %s", *got.PolicyDocument)
	}
	_, err = b.GetUserPolicy(ctx, &sdkiam.GetUserPolicyInput{UserName: name, PolicyName: aws.Ptr("c")})
	wantError(t, err, "NoSuchEntity", "The user policy with name c cannot be found.")
	big := strings.Replace(document, "arn:aws:s3:::b/*", "arn:aws:s3:::"+strings.Repeat("b", 2048), 1)
	_, err = b.PutUserPolicy(ctx, &sdkiam.PutUserPolicyInput{UserName: name, PolicyName: aws.Ptr("c"), PolicyDocument: &big})
	wantError(t, err, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user ada")
	_, err = b.DeleteUserPolicy(ctx, &sdkiam.DeleteUserPolicyInput{UserName: name, PolicyName: aws.Ptr("a")})
	must(t, err)
	_, err = b.DeleteUserPolicy(ctx, &sdkiam.DeleteUserPolicyInput{UserName: name, PolicyName: aws.Ptr("a")})
	wantError(t, err, "NoSuchEntity", "The user policy with name a cannot be found.")

	b.createRole("r")
	_, err = b.GetRolePolicy(ctx, &sdkiam.GetRolePolicyInput{RoleName: aws.Ptr("r"), PolicyName: aws.Ptr("c")})
	wantError(t, err, "NoSuchEntity", "The role policy with name c cannot be found.")
	_, err = b.PutRolePolicy(ctx, &sdkiam.PutRolePolicyInput{RoleName: aws.Ptr("r"), PolicyName: aws.Ptr("c"), PolicyDocument: &big})
	must(t, err)
	names, err := b.ListRolePolicies(ctx, &sdkiam.ListRolePoliciesInput{RoleName: aws.Ptr("r")})
	must(t, err)
	if !slices.Equal(names.PolicyNames, []string{"c"}) {
		t.Errorf("policies are %v", names.PolicyNames)
	}
}

func TestManagedPoliciesAreAttached(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createUser("ada")
	b.createRole("exec")
	arn := b.createPolicy("mine")
	for range 2 { // again changes nothing
		_, err := b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: &arn})
		must(t, err)
	}
	_, err := b.AttachUserPolicy(ctx, &sdkiam.AttachUserPolicyInput{UserName: aws.Ptr("ada"), PolicyArn: &arn})
	must(t, err)
	_, err = b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: aws.Ptr(basic)})
	must(t, err)
	missing := arn + "x"
	_, err = b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: &missing})
	wantError(t, err, "NoSuchEntity", "Policy "+missing+" does not exist or is not attachable.")
	_, err = b.DetachUserPolicy(ctx, &sdkiam.DetachUserPolicyInput{UserName: aws.Ptr("ada"), PolicyArn: aws.Ptr(basic)})
	wantError(t, err, "NoSuchEntity", "Policy "+basic+" was not found.")

	list, err := b.ListAttachedRolePolicies(ctx, &sdkiam.ListAttachedRolePoliciesInput{RoleName: aws.Ptr("exec")})
	must(t, err)
	if len(list.AttachedPolicies) != 2 || *list.AttachedPolicies[0].PolicyName != "AWSLambdaBasicExecutionRole" || *list.AttachedPolicies[1].PolicyArn != arn {
		t.Errorf("attached are %+v", list.AttachedPolicies)
	}
	list, err = b.ListAttachedRolePolicies(ctx, &sdkiam.ListAttachedRolePoliciesInput{RoleName: aws.Ptr("exec"), PathPrefix: aws.Ptr("/service-role/")})
	must(t, err)
	if len(list.AttachedPolicies) != 1 {
		t.Errorf("attached below the path are %+v", list.AttachedPolicies)
	}
	got, err := b.GetPolicy(ctx, &sdkiam.GetPolicyInput{PolicyArn: &arn})
	must(t, err)
	if *got.Policy.AttachmentCount != 2 {
		t.Errorf("policy is %+v", got.Policy)
	}
	entities, err := b.ListEntitiesForPolicy(ctx, &sdkiam.ListEntitiesForPolicyInput{PolicyArn: &arn})
	must(t, err)
	if len(entities.PolicyUsers) != 1 || *entities.PolicyUsers[0].UserName != "ada" || len(entities.PolicyRoles) != 1 || *entities.PolicyRoles[0].RoleName != "exec" {
		t.Errorf("entities are %+v", entities)
	}
	_, err = b.DeletePolicy(ctx, &sdkiam.DeletePolicyInput{PolicyArn: &arn})
	wantError(t, err, "DeleteConflict", "Cannot delete a policy attached to entities.")
	_, err = b.DetachUserPolicy(ctx, &sdkiam.DetachUserPolicyInput{UserName: aws.Ptr("ada"), PolicyArn: &arn})
	must(t, err)
	_, err = b.DetachRolePolicy(ctx, &sdkiam.DetachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: &arn})
	must(t, err)
	_, err = b.DeletePolicy(ctx, &sdkiam.DeletePolicyInput{PolicyArn: &arn})
	must(t, err)
	_, err = b.GetPolicy(ctx, &sdkiam.GetPolicyInput{PolicyArn: &arn})
	wantError(t, err, "NoSuchEntity", "Policy "+arn+" was not found.")
}

func TestOnlyTenPoliciesAreAttached(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createRole("exec")
	for i := range 10 {
		arn := b.createPolicy(fmt.Sprintf("p%d", i))
		_, err := b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: &arn})
		must(t, err)
	}
	_, err := b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: aws.Ptr(basic)})
	wantError(t, err, "LimitExceeded", "Cannot exceed quota for PoliciesPerRole: 10")
}

func TestPolicyVersions(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	arn := b.createPolicy("mine")
	_, err := b.CreatePolicy(ctx, &sdkiam.CreatePolicyInput{PolicyName: aws.Ptr("MINE"), Path: aws.Ptr("/x/"), PolicyDocument: aws.Ptr(document)})
	wantError(t, err, "EntityAlreadyExists", "A policy called MINE already exists. Duplicate names are not allowed.")
	changed := strings.Replace(document, "GetObject", "PutObject", 1)
	for i := range 4 {
		out, err := b.CreatePolicyVersion(ctx, &sdkiam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: &changed, SetAsDefault: i == 0})
		must(t, err)
		if *out.PolicyVersion.VersionId != fmt.Sprintf("v%d", i+2) || out.PolicyVersion.IsDefaultVersion != (i == 0) {
			t.Errorf("version is %+v", out.PolicyVersion)
		}
	}
	_, err = b.CreatePolicyVersion(ctx, &sdkiam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: &changed})
	wantError(t, err, "LimitExceeded", "A managed policy can have up to 5 versions.")
	_, err = b.DeletePolicyVersion(ctx, &sdkiam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: aws.Ptr("v2")})
	wantError(t, err, "DeleteConflict", "Cannot delete the default version of a policy.")
	_, err = b.DeletePolicy(ctx, &sdkiam.DeletePolicyInput{PolicyArn: &arn})
	wantError(t, err, "DeleteConflict", "This policy has more than one version.")
	_, err = b.SetDefaultPolicyVersion(ctx, &sdkiam.SetDefaultPolicyVersionInput{PolicyArn: &arn, VersionId: aws.Ptr("v1")})
	must(t, err)
	_, err = b.DeletePolicyVersion(ctx, &sdkiam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: aws.Ptr("v2")})
	must(t, err)
	_, err = b.GetPolicyVersion(ctx, &sdkiam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: aws.Ptr("v2")})
	wantError(t, err, "NoSuchEntity", "Policy "+arn+" version v2 does not exist or is not attachable.")
	out, err := b.CreatePolicyVersion(ctx, &sdkiam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: &changed})
	must(t, err)
	if *out.PolicyVersion.VersionId != "v6" { // numbers are not used again
		t.Errorf("version is %+v", out.PolicyVersion)
	}
	got, err := b.GetPolicyVersion(ctx, &sdkiam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: aws.Ptr("v6")})
	must(t, err)
	if decoded(t, got.PolicyVersion.Document) != changed {
		t.Errorf("document is %s", *got.PolicyVersion.Document)
	}
	list, err := b.ListPolicyVersions(ctx, &sdkiam.ListPolicyVersionsInput{PolicyArn: &arn})
	must(t, err)
	if len(list.Versions) != 5 || *list.Versions[0].VersionId != "v1" || !list.Versions[0].IsDefaultVersion {
		t.Errorf("versions are %+v", list.Versions)
	}
}

func TestAWSManagedPolicies(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	got, err := b.GetPolicy(ctx, &sdkiam.GetPolicyInput{PolicyArn: aws.Ptr(basic)})
	must(t, err)
	if p := got.Policy; *p.PolicyName != "AWSLambdaBasicExecutionRole" || *p.Path != "/service-role/" || *p.DefaultVersionId != "v1" || *p.PolicyId != "ANPAJNCQGXC42545SKXIK" {
		t.Errorf("policy is %+v", p)
	}
	v, err := b.GetPolicyVersion(ctx, &sdkiam.GetPolicyVersionInput{PolicyArn: aws.Ptr(basic), VersionId: aws.Ptr("v1")})
	must(t, err)
	if !strings.Contains(decoded(t, v.PolicyVersion.Document), "logs:PutLogEvents") {
		t.Errorf("document is %s", *v.PolicyVersion.Document)
	}
	_, err = b.DeletePolicy(ctx, &sdkiam.DeletePolicyInput{PolicyArn: aws.Ptr(basic)})
	wantError(t, err, "AccessDenied", "")
	b.createPolicy("AdministratorAccess") // the account may use AWS's names
	local, err := b.ListPolicies(ctx, &sdkiam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal})
	must(t, err)
	if len(local.Policies) != 1 {
		t.Errorf("local policies are %+v", local.Policies)
	}
	all, err := b.ListPolicies(ctx, &sdkiam.ListPoliciesInput{Scope: types.PolicyScopeTypeAws, PathPrefix: aws.Ptr("/service-role/")})
	must(t, err)
	if len(all.Policies) < 6 {
		t.Errorf("%d service role policies", len(all.Policies))
	}
	none, err := b.ListPolicies(ctx, &sdkiam.ListPoliciesInput{OnlyAttached: true})
	must(t, err)
	if len(none.Policies) != 0 {
		t.Errorf("attached are %+v", none.Policies)
	}
}

func TestListsHavePages(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("user%d", i)
		path := "/"
		if i%2 == 1 {
			path = "/odd/"
			want = append(want, name)
		}
		_, err := b.CreateUser(ctx, &sdkiam.CreateUserInput{UserName: &name, Path: &path})
		must(t, err)
	}
	var got []string
	pages := 0
	p := sdkiam.NewListUsersPaginator(b, &sdkiam.ListUsersInput{PathPrefix: aws.Ptr("/odd"), MaxItems: aws.Ptr(int32(2))})
	for p.HasMorePages() {
		out, err := p.NextPage(ctx)
		must(t, err)
		pages++
		for _, u := range out.Users {
			got = append(got, *u.UserName)
		}
		// The user at the page's end may go.
		_, err = b.DeleteUser(ctx, &sdkiam.DeleteUserInput{UserName: &got[len(got)-1]})
		must(t, err)
	}
	if !slices.Equal(got, want) || pages != 2 {
		t.Errorf("%d pages with %v, want %v", pages, got, want)
	}
	_, err := b.ListUsers(ctx, &sdkiam.ListUsersInput{Marker: aws.Ptr("?")})
	wantError(t, err, "ValidationError", "Invalid Marker.")
	_, err = b.ListUsers(ctx, &sdkiam.ListUsersInput{MaxItems: aws.Ptr(int32(1001))})
	wantError(t, err, "ValidationError", "maxItems")
}

// Scripts index the lists of an answer without asking whether they are there.
func TestEmptyListsAreThere(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	user, role := b.createUser("u").UserName, b.createRole("r").RoleName
	policy := b.createPolicy("p")
	there := func(what string, list any, err error) {
		t.Helper()
		must(t, err)
		if reflect.ValueOf(list).IsNil() {
			t.Errorf("no empty list of %s", what)
		}
	}
	keys, err := b.ListAccessKeys(ctx, &sdkiam.ListAccessKeysInput{UserName: user})
	there("access keys", keys.AccessKeyMetadata, err)
	inline, err := b.ListUserPolicies(ctx, &sdkiam.ListUserPoliciesInput{UserName: user})
	there("user's inline policies", inline.PolicyNames, err)
	inlineOfRole, err := b.ListRolePolicies(ctx, &sdkiam.ListRolePoliciesInput{RoleName: role})
	there("role's inline policies", inlineOfRole.PolicyNames, err)
	attached, err := b.ListAttachedRolePolicies(ctx, &sdkiam.ListAttachedRolePoliciesInput{RoleName: role})
	there("attached policies", attached.AttachedPolicies, err)
	groups, err := b.ListGroupsForUser(ctx, &sdkiam.ListGroupsForUserInput{UserName: user})
	there("groups", groups.Groups, err)
	devices, err := b.ListMFADevices(ctx, &sdkiam.ListMFADevicesInput{UserName: user})
	there("devices", devices.MFADevices, err)
	virtual, err := b.ListVirtualMFADevices(ctx, &sdkiam.ListVirtualMFADevicesInput{})
	there("virtual devices", virtual.VirtualMFADevices, err)
	ssh, err := b.ListSSHPublicKeys(ctx, &sdkiam.ListSSHPublicKeysInput{UserName: user})
	there("SSH keys", ssh.SSHPublicKeys, err)
	certificates, err := b.ListSigningCertificates(ctx, &sdkiam.ListSigningCertificatesInput{UserName: user})
	there("signing certificates", certificates.Certificates, err)
	specific, err := b.ListServiceSpecificCredentials(ctx, &sdkiam.ListServiceSpecificCredentialsInput{UserName: user})
	there("service-specific credentials", specific.ServiceSpecificCredentials, err)
	profiles, err := b.ListInstanceProfilesForRole(ctx, &sdkiam.ListInstanceProfilesForRoleInput{RoleName: role})
	there("instance profiles", profiles.InstanceProfiles, err)
	aliases, err := b.ListAccountAliases(ctx, &sdkiam.ListAccountAliasesInput{})
	there("account aliases", aliases.AccountAliases, err)
	entities, err := b.ListEntitiesForPolicy(ctx, &sdkiam.ListEntitiesForPolicyInput{PolicyArn: &policy})
	there("users of a policy", entities.PolicyUsers, err)
	there("roles of a policy", entities.PolicyRoles, err)
	there("groups of a policy", entities.PolicyGroups, err)
	tags, err := b.ListRoleTags(ctx, &sdkiam.ListRoleTagsInput{RoleName: role})
	there("tags", tags.Tags, err)
}

func TestAUserHasNoPassword(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	user := aws.Ptr("u")
	_, err := b.DeleteLoginProfile(ctx, &sdkiam.DeleteLoginProfileInput{UserName: user})
	wantError(t, err, "NoSuchEntity", "The user with name u cannot be found.")
	b.createUser("u")
	_, err = b.GetLoginProfile(ctx, &sdkiam.GetLoginProfileInput{UserName: user})
	wantError(t, err, "NoSuchEntity", "Login Profile for User u cannot be found.")
	_, err = b.DeleteLoginProfile(ctx, &sdkiam.DeleteLoginProfileInput{UserName: user})
	wantError(t, err, "NoSuchEntity", "Login Profile for User u cannot be found.")
}

func TestTags(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createRole("exec")
	name := aws.Ptr("exec")
	tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
	_, err := b.TagRole(ctx, &sdkiam.TagRoleInput{RoleName: name, Tags: []types.Tag{tag("a", "1"), tag("b", "2")}})
	must(t, err)
	_, err = b.TagRole(ctx, &sdkiam.TagRoleInput{RoleName: name, Tags: []types.Tag{tag("A", "3")}})
	must(t, err)
	_, err = b.UntagRole(ctx, &sdkiam.UntagRoleInput{RoleName: name, TagKeys: []string{"b", "none"}})
	must(t, err)
	list, err := b.ListRoleTags(ctx, &sdkiam.ListRoleTagsInput{RoleName: name})
	must(t, err)
	if len(list.Tags) != 1 || *list.Tags[0].Key != "A" || *list.Tags[0].Value != "3" {
		t.Errorf("tags are %+v", list.Tags)
	}
	_, err = b.TagRole(ctx, &sdkiam.TagRoleInput{RoleName: name, Tags: []types.Tag{tag("x", "1"), tag("X", "2")}})
	wantError(t, err, "InvalidInput", "Duplicate tag keys found.")
	_, err = b.TagRole(ctx, &sdkiam.TagRoleInput{RoleName: name, Tags: []types.Tag{tag("aws:x", "1")}})
	wantError(t, err, "InvalidInput", "reserved")
	var many []types.Tag
	for i := range 50 {
		many = append(many, tag(fmt.Sprintf("k%d", i), ""))
	}
	_, err = b.TagRole(ctx, &sdkiam.TagRoleInput{RoleName: name, Tags: many})
	wantError(t, err, "LimitExceeded", "tags")
}

func TestEverythingIsThereAfterARestart(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createUser("ada")
	key, err := b.CreateAccessKey(ctx, &sdkiam.CreateAccessKeyInput{UserName: aws.Ptr("ada")})
	must(t, err)
	b.createRole("exec")
	arn := b.createPolicy("mine")
	_, err = b.AttachRolePolicy(ctx, &sdkiam.AttachRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyArn: &arn})
	must(t, err)
	b.stop()
	b.start()
	if _, err := b.as(*key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey).GetUser(ctx, nil); err != nil {
		t.Error(err)
	}
	list, err := b.ListAttachedRolePolicies(ctx, &sdkiam.ListAttachedRolePoliciesInput{RoleName: aws.Ptr("exec")})
	must(t, err)
	if len(list.AttachedPolicies) != 1 || *list.AttachedPolicies[0].PolicyArn != arn {
		t.Errorf("attached are %+v", list.AttachedPolicies)
	}
	summary, err := b.GetAccountSummary(ctx, nil)
	must(t, err)
	for k, v := range map[string]int32{"Users": 1, "Roles": 1, "Policies": 1, "AccessKeysPerUserQuota": 2} {
		if summary.SummaryMap[k] != v {
			t.Errorf("%s is %d, want %d", k, summary.SummaryMap[k], v)
		}
	}
}

func TestBadInputNamesTheField(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	b.createRole("exec")
	tests := map[string]struct {
		do            func() error
		code, message string
	}{
		"user name": {func() error {
			_, err := b.CreateUser(ctx, &sdkiam.CreateUserInput{UserName: aws.Ptr("a/b")})
			return err
		}, "ValidationError", "userName"},
		"path": {func() error {
			_, err := b.CreateUser(ctx, &sdkiam.CreateUserInput{UserName: aws.Ptr("a"), Path: aws.Ptr("x")})
			return err
		}, "ValidationError", "path"},
		"boundary": {func() error {
			_, err := b.CreateUser(ctx, &sdkiam.CreateUserInput{UserName: aws.Ptr("a"), PermissionsBoundary: aws.Ptr(basic + "x")})
			return err
		}, "NoSuchEntity", basic + "x"},
		"trust policy": {func() error {
			_, err := b.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: aws.Ptr("r"), AssumeRolePolicyDocument: aws.Ptr(document)})
			return err
		}, "MalformedPolicyDocument", "Has prohibited field Resource"},
		"role policy": {func() error {
			_, err := b.PutRolePolicy(ctx, &sdkiam.PutRolePolicyInput{RoleName: aws.Ptr("exec"), PolicyName: aws.Ptr("p"), PolicyDocument: aws.Ptr(trust)})
			return err
		}, "MalformedPolicyDocument", "Policy document should not specify a principal."},
		"last use": {func() error {
			_, err := b.GetAccessKeyLastUsed(ctx, &sdkiam.GetAccessKeyLastUsedInput{AccessKeyId: aws.Ptr("AKIAIOSFODNN7EXAMPLE")})
			return err
		}, "NotImplemented", "last used"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantError(t, tt.do(), tt.code, tt.message) })
	}
}

func TestServicesThatARoleTrusts(t *testing.T) {
	b := newBed(t)
	const both = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["lambda.amazonaws.com","edgelambda.amazonaws.com"]},"Action":"sts:AssumeRole"}]}`
	const one = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	const conditional = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"edgelambda.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"1"}}}]}`
	const denied = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:*"},{"Effect":"Deny","Principal":{"Service":"edgelambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	for trust, want := range map[string]bool{both: true, one: false, conditional: false, denied: false} {
		name := fmt.Sprintf("role%d", len(trust))
		out, err := b.CreateRole(t.Context(), &sdkiam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.Ptr(trust)})
		if err != nil {
			t.Fatal(err)
		}
		if got := b.service.TrustsService(*out.Role.Arn, "edgelambda.amazonaws.com"); got != want {
			t.Errorf("%s: %v, want %v", trust, got, want)
		}
	}
	if b.service.TrustsService("arn:aws:iam::123456789012:role/none", "lambda.amazonaws.com") {
		t.Error("a role that is not there is trusted")
	}
}
