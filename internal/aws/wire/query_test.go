package wire_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2client "github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	client "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	stsclient "github.com/aws/aws-sdk-go-v2/service/sts"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/aws/sts"
	"lapwing.dev/lapwing/internal/aws/wire/internal/testapi/ec2"
)

type iamAPI struct {
	iam.API
	created *iam.CreateRoleInput
}

func (a *iamAPI) CreateRole(_ context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	a.created = in
	return &iam.CreateRoleOutput{Role: &iam.Role{RoleName: in.RoleName, Path: in.Path, Arn: aws.Ptr("arn:aws:iam::123456789012:role/r"), CreateDate: aws.Ptr(moment),
		Tags: in.Tags, MaxSessionDuration: in.MaxSessionDuration, AssumeRolePolicyDocument: in.AssumeRolePolicyDocument}}, nil
}

func (a *iamAPI) ListRoles(context.Context, *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
	return &iam.ListRolesOutput{Roles: []*iam.Role{}, IsTruncated: aws.Ptr(false)}, nil
}

func (a *iamAPI) DeleteRole(_ context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	if *in.RoleName == "missing" {
		return nil, iam.NewNoSuchEntityException("The role with name missing cannot be found.")
	}
	return &iam.DeleteRoleOutput{}, nil
}

func (a *iamAPI) GetAccountSummary(context.Context, *iam.GetAccountSummaryInput) (*iam.GetAccountSummaryOutput, error) {
	return &iam.GetAccountSummaryOutput{SummaryMap: map[string]int32{"Users": 3, "Roles": 0}}, nil
}

func iamClient(t *testing.T) (*client.Client, *iamAPI, string) {
	api := &iamAPI{}
	address, _ := serve(t, iam.NewService(api))
	return client.NewFromConfig(config(address)), api, address
}

func TestQueryCarriesListsStructuresAndTimes(t *testing.T) {
	c, api, _ := iamClient(t)
	document := `{"Statement":[{"Effect":"Allow","Action":"a&b=c+d é"}]}`
	out, err := c.CreateRole(t.Context(), &client.CreateRoleInput{RoleName: sdk.String("r"), AssumeRolePolicyDocument: &document, Path: sdk.String("/p/"), MaxSessionDuration: sdk.Int32(7200),
		Tags: []types.Tag{{Key: sdk.String("k1"), Value: sdk.String("")}, {Key: sdk.String("k2"), Value: sdk.String("v2")}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "input", api.created, &iam.CreateRoleInput{RoleName: aws.Ptr("r"), AssumeRolePolicyDocument: &document, Path: aws.Ptr("/p/"), MaxSessionDuration: aws.Ptr(int32(7200)),
		Tags: []*iam.Tag{{Key: aws.Ptr("k1"), Value: aws.Ptr("")}, {Key: aws.Ptr("k2"), Value: aws.Ptr("v2")}}})
	equal(t, "role", []any{*out.Role.RoleName, *out.Role.CreateDate, *out.Role.MaxSessionDuration, *out.Role.Tags[1].Value, *out.Role.AssumeRolePolicyDocument},
		[]any{"r", moment, int32(7200), "v2", document})
}

func TestQueryCarriesMapsEmptyListsAndNothing(t *testing.T) {
	c, _, address := iamClient(t)
	summary, err := c.GetAccountSummary(t.Context(), &client.GetAccountSummaryInput{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "summary", summary.SummaryMap, map[string]int32{"Users": 3, "Roles": 0})
	if roles, err := c.ListRoles(t.Context(), &client.ListRolesInput{}); err != nil || len(roles.Roles) != 0 {
		t.Errorf("got %v, %v", roles, err)
	}
	if _, err := c.DeleteRole(t.Context(), &client.DeleteRoleInput{RoleName: sdk.String("r")}); err != nil {
		t.Error(err)
	}
	resp, body := send(t, "GET", address+"/?Action=ListRoles&Version=2010-05-08", "")
	equal(t, "status", resp.StatusCode, 200)
	contains(t, body, `<ListRolesResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ListRolesResult>`, "<Roles></Roles>",
		"<ResponseMetadata><RequestId>"+requestID+"</RequestId></ResponseMetadata></ListRolesResponse>")
	resp, _ = send(t, "POST", address+"/?Action=ListRoles", "")
	equal(t, "status of a POST with its parameters in the URL", resp.StatusCode, 200)
}

func TestQueryErrorsAreTyped(t *testing.T) {
	c, _, address := iamClient(t)
	_, err := c.DeleteRole(t.Context(), &client.DeleteRoleInput{RoleName: sdk.String("missing")})
	if e, ok := errors.AsType[*types.NoSuchEntityException](err); !ok || *e.Message != "The role with name missing cannot be found." {
		t.Fatalf("got %v", err)
	}
	resp, body := send(t, "GET", address+"/?Action=DeleteRole&RoleName=missing", "")
	equal(t, "status", resp.StatusCode, 404)
	contains(t, body, "<Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>", "<RequestId>"+requestID+"</RequestId>")

	_, err = c.CreateGroup(t.Context(), &client.CreateGroupInput{GroupName: sdk.String("g")})
	e := apiError(t, err)
	equal(t, "code", e.ErrorCode(), "InvalidAction")
	contains(t, e.ErrorMessage(), `"CreateGroup"`, "IAM")

	_, err = c.DeleteRole(t.Context(), &client.DeleteRoleInput{RoleName: sdk.String(strings.Repeat("r", 65))})
	e = apiError(t, err)
	equal(t, "validation", e.ErrorCode()+": "+e.ErrorMessage(), "ValidationError: 1 validation error detected: Value '"+strings.Repeat("r", 65)+
		"' at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64")
	_, err = c.UpdateAccessKey(t.Context(), &client.UpdateAccessKeyInput{AccessKeyId: sdk.String("AKIDEXAMPLEEXAMPLE"), Status: "Lost"})
	contains(t, apiError(t, err).ErrorMessage(), "Value 'Lost' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive")
}

func TestMalformedFormsAreRefused(t *testing.T) {
	_, _, address := iamClient(t)
	role := "Action=CreateRole&RoleName=r&AssumeRolePolicyDocument=d"
	for name, tt := range map[string]struct{ body, code string }{
		"no action":        {"Version=2010-05-08", "MissingAction"},
		"JSON":             {`{"Action":"ListRoles"}`, "MissingAction"},
		"bad escape":       {"Action=%zz", "MalformedQueryString"},
		"too many fields":  {strings.Repeat("a=b&", 10001), "MalformedQueryString"},
		"too deep":         {role + "&" + strings.Repeat("a.", 200) + "=x", "MalformedQueryString"},
		"far element":      {role + "&Tags.member.99999999.Key=x", "MalformedQueryString"},
		"not a number":     {role + "&MaxSessionDuration=long", "MalformedInput"},
		"scalar as a list": {role + "&Tags=x", "MalformedInput"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := send(t, "POST", address, tt.body, "Content-Type", "application/x-www-form-urlencoded")
			equal(t, "status", resp.StatusCode, 400)
			contains(t, body, "<Code>"+tt.code+"</Code>")
		})
	}
	resp, body := send(t, "POST", address, "Action=ListRoles&x="+strings.Repeat("y", 1<<20), "Content-Type", "application/x-www-form-urlencoded")
	equal(t, "status", resp.StatusCode, http.StatusRequestEntityTooLarge)
	contains(t, body, "<Code>RequestEntityTooLarge</Code>")
}

type stsAPI struct{ sts.API }

func (stsAPI) AssumeRole(_ context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	return &sts.AssumeRoleOutput{Credentials: &sts.Credentials{AccessKeyId: aws.Ptr("ASIAEXAMPLE"), SecretAccessKey: aws.Ptr("s/+="), SessionToken: in.RoleSessionName, Expiration: aws.Ptr(moment)},
		SourceIdentity: aws.Ptr(strings.Join(in.TransitiveTagKeys, ","))}, nil
}

func TestSTSRoundTrip(t *testing.T) {
	address, _ := serve(t, sts.NewService(stsAPI{}))
	out, err := stsclient.NewFromConfig(config(address)).AssumeRole(t.Context(), &stsclient.AssumeRoleInput{
		RoleArn: sdk.String("arn:aws:iam::123456789012:role/r"), RoleSessionName: sdk.String("session"), TransitiveTagKeys: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "credentials", []any{*out.Credentials.SecretAccessKey, *out.Credentials.SessionToken, *out.Credentials.Expiration, *out.SourceIdentity},
		[]any{"s/+=", "session", moment, "a,b"})
}

type ec2API struct {
	ec2.API
	volume *ec2.CreateVolumeInput
	groups *ec2.DescribeSecurityGroupsInput
	rules  *ec2.AuthorizeSecurityGroupIngressInput
}

func (a *ec2API) CreateVolume(_ context.Context, in *ec2.CreateVolumeInput) (*ec2.CreateVolumeOutput, error) {
	a.volume = in
	return &ec2.CreateVolumeOutput{VolumeId: aws.Ptr("vol-1"), Size: in.Size, CreateTime: aws.Ptr(moment), Encrypted: in.Encrypted, VolumeType: in.VolumeType, Tags: in.TagSpecifications[0].Tags}, nil
}

func (a *ec2API) DescribeSecurityGroups(_ context.Context, in *ec2.DescribeSecurityGroupsInput) (*ec2.DescribeSecurityGroupsOutput, error) {
	a.groups = in
	if len(in.GroupIds) == 0 {
		return nil, &aws.Error{Code: "InvalidGroup.NotFound", Status: 400, Message: "The security group 'sg-0' does not exist"}
	}
	return &ec2.DescribeSecurityGroupsOutput{SecurityGroups: []*ec2.SecurityGroup{{GroupId: aws.Ptr("sg-1"), GroupName: aws.Ptr("web"),
		IpPermissions: []*ec2.IpPermission{{IpProtocol: aws.Ptr("tcp"), FromPort: aws.Ptr(int32(80)), IpRanges: []*ec2.IpRange{{CidrIp: aws.Ptr("10.0.0.0/8")}, {CidrIp: aws.Ptr("0.0.0.0/0")}}}}}}}, nil
}

func (a *ec2API) AuthorizeSecurityGroupIngress(_ context.Context, in *ec2.AuthorizeSecurityGroupIngressInput) (*ec2.AuthorizeSecurityGroupIngressOutput, error) {
	a.rules = in
	return &ec2.AuthorizeSecurityGroupIngressOutput{Return: aws.Ptr(true)}, nil
}

func TestEC2QueryRoundTrip(t *testing.T) {
	api := &ec2API{}
	address, _ := serve(t, ec2.NewService(api))
	c := ec2client.NewFromConfig(config(address))
	volume, err := c.CreateVolume(t.Context(), &ec2client.CreateVolumeInput{AvailabilityZone: sdk.String("us-east-1a"), Size: sdk.Int32(8), Encrypted: sdk.Bool(true), VolumeType: ec2types.VolumeTypeGp3,
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeVolume, Tags: []ec2types.Tag{{Key: sdk.String("a"), Value: sdk.String("b")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "volume", []any{*volume.VolumeId, *volume.Size, *volume.CreateTime, *volume.Encrypted, volume.VolumeType, *volume.Tags[0].Value},
		[]any{"vol-1", int32(8), moment, true, ec2types.VolumeTypeGp3, "b"})
	equal(t, "tags", api.volume.TagSpecifications, []*ec2.TagSpecification{{ResourceType: "volume", Tags: []*ec2.Tag{{Key: aws.Ptr("a"), Value: aws.Ptr("b")}}}})

	groups, err := c.DescribeSecurityGroups(t.Context(), &ec2client.DescribeSecurityGroupsInput{GroupIds: []string{"sg-1", "sg-2"},
		Filters: []ec2types.Filter{{Name: sdk.String("vpc-id"), Values: []string{"vpc-1", "vpc-2"}}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "query", api.groups, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{"sg-1", "sg-2"}, Filters: []*ec2.Filter{{Name: aws.Ptr("vpc-id"), Values: []string{"vpc-1", "vpc-2"}}}})
	rule := groups.SecurityGroups[0].IpPermissions[0]
	equal(t, "rule", []any{*rule.IpProtocol, *rule.FromPort, *rule.IpRanges[1].CidrIp}, []any{"tcp", int32(80), "0.0.0.0/0"})

	if _, err := c.AuthorizeSecurityGroupIngress(t.Context(), &ec2client.AuthorizeSecurityGroupIngressInput{GroupId: sdk.String("sg-1"),
		IpPermissions: []ec2types.IpPermission{{IpProtocol: sdk.String("tcp"), IpRanges: []ec2types.IpRange{{CidrIp: sdk.String("10.0.0.0/8")}}}}}); err != nil {
		t.Fatal(err)
	}
	equal(t, "permissions", api.rules.IpPermissions, []*ec2.IpPermission{{IpProtocol: aws.Ptr("tcp"), IpRanges: []*ec2.IpRange{{CidrIp: aws.Ptr("10.0.0.0/8")}}}})

	_, err = c.DescribeSecurityGroups(t.Context(), &ec2client.DescribeSecurityGroupsInput{})
	e := apiError(t, err)
	equal(t, "error", e.ErrorCode()+": "+e.ErrorMessage(), "InvalidGroup.NotFound: The security group 'sg-0' does not exist")
}

func TestIdempotencyTokenIsFilledWhereMissing(t *testing.T) {
	api := &ec2API{}
	address, _ := serve(t, ec2.NewService(api))
	form := url.Values{"Action": {"CreateVolume"}, "TagSpecification.1.ResourceType": {"volume"}}
	tokens := map[string]bool{}
	for range 2 {
		resp, body := send(t, "POST", address, form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		equal(t, "status", resp.StatusCode, 200)
		contains(t, body, `<CreateVolumeResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15"><requestId>`+requestID+"</requestId>")
		tokens[aws.Value(api.volume.ClientToken)] = true
	}
	if len(tokens) != 2 || tokens[""] {
		t.Errorf("tokens: %v", tokens)
	}
}
