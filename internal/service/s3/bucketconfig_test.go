package s3

import (
	"context"
	"strings"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// bucketClient is a client of a new service with the bucket b.
func bucketClient(t *testing.T) (*s3.Client, context.Context, *string) {
	t.Helper()
	c, _ := client(t, false)
	b := awssdk.String("b-1")
	must(c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: b}))(t)
	return c, t.Context(), b
}

func TestSDKANewBucketAnswersForWhatItDoesNotHave(t *testing.T) {
	c, ctx, b := bucketClient(t)
	for code, ask := range map[string]func() error{
		"NoSuchBucketPolicy": func() error {
			_, err := c.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: b})
			return err
		},
		"NoSuchCORSConfiguration": func() error {
			_, err := c.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: b})
			return err
		},
		"NoSuchWebsiteConfiguration": func() error {
			_, err := c.GetBucketWebsite(ctx, &s3.GetBucketWebsiteInput{Bucket: b})
			return err
		},
		"NoSuchLifecycleConfiguration": func() error {
			_, err := c.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: b})
			return err
		},
		"ReplicationConfigurationNotFoundError": func() error {
			_, err := c.GetBucketReplication(ctx, &s3.GetBucketReplicationInput{Bucket: b})
			return err
		},
		"ServerSideEncryptionConfigurationNotFoundError": func() error {
			_, err := c.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: b})
			return err
		},
		"ObjectLockConfigurationNotFoundError": func() error {
			_, err := c.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: b})
			return err
		},
	} {
		wantAPIError(t, code, ask(), code, 404)
	}
	accelerate := must(c.GetBucketAccelerateConfiguration(ctx, &s3.GetBucketAccelerateConfigurationInput{Bucket: b}))(t)
	payment := must(c.GetBucketRequestPayment(ctx, &s3.GetBucketRequestPaymentInput{Bucket: b}))(t)
	logging := must(c.GetBucketLogging(ctx, &s3.GetBucketLoggingInput{Bucket: b}))(t)
	events := must(c.GetBucketNotificationConfiguration(ctx, &s3.GetBucketNotificationConfigurationInput{Bucket: b}))(t)
	if accelerate.Status != "" || payment.Payer != "BucketOwner" || logging.LoggingEnabled != nil || len(events.LambdaFunctionConfigurations) != 0 {
		t.Errorf("%+v, %+v, %+v, %+v", accelerate, payment, logging, events)
	}
	_, err := c.GetBucketAccelerateConfiguration(ctx, &s3.GetBucketAccelerateConfigurationInput{Bucket: awssdk.String("none")})
	wantAPIError(t, "of no bucket", err, "NoSuchBucket", 404)
	_, err = c.PutBucketCors(ctx, &s3.PutBucketCorsInput{Bucket: b, CORSConfiguration: &types.CORSConfiguration{
		CORSRules: []types.CORSRule{{AllowedMethods: []string{"GET"}, AllowedOrigins: []string{"*"}}},
	}})
	wantAPIError(t, "what cannot be set", err, "NotImplemented", 501)
}

func TestSDKBucketPolicies(t *testing.T) {
	c, ctx, b := bucketClient(t)
	policy := func(principal, resource, more string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"s3:GetObject","Resource":"` + resource + `"` + more + `}]}`
	}
	const objects = "arn:aws:s3:::b-1/*"
	edge := policy(`{"Service":"cloudfront.amazonaws.com"}`, objects, `,"Condition":{"StringEquals":{"AWS:SourceArn":"arn:aws:cloudfront::1:distribution/E"}}`)
	public := policy(`"*"`, objects, "")
	for name, tt := range map[string]struct {
		text, code string
		status     int
	}{
		"of a service":        {edge, "", 0},
		"public":              {public, "AccessDenied", 403},
		"public by a kind":    {policy(`{"AWS":["*"]}`, objects, ""), "AccessDenied", 403},
		"public by anybody's": {policy(`"*"`, objects, `,"Condition":{"StringLike":{"aws:SourceArn":"arn:*"}}`), "AccessDenied", 403},
		"from a network":      {policy(`"*"`, objects, `,"Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}`), "", 0},
		"from all networks":   {policy(`"*"`, objects, `,"Condition":{"IpAddress":{"aws:SourceIp":["0.0.0.0/0"]}}`), "AccessDenied", 403},
		"no JSON":             {"policy", "MalformedPolicy", 400},
		"a list":              {"[]", "MalformedPolicy", 400},
		"no statement":        {`{"Version":"2012-10-17"}`, "MalformedPolicy", 400},
		"no principal":        {`{"Statement":{"Effect":"Deny","Action":"s3:*","Resource":"` + objects + `"}}`, "MalformedPolicy", 400},
		"another bucket":      {policy(`{"AWS":"1"}`, "arn:aws:s3:::b-12/*", ""), "MalformedPolicy", 400},
		"too large":           {policy(`{"AWS":"`+strings.Repeat("1", maxPolicy)+`"}`, objects, ""), "MalformedPolicy", 400},
	} {
		_, err := c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: &tt.text})
		if tt.code != "" {
			wantAPIError(t, name, err, tt.code, tt.status)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: &edge}))(t)
	if got := must(c.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: b}))(t); *got.Policy != edge {
		t.Errorf("the policy is %s", *got.Policy)
	}
	isPublic := func() bool {
		t.Helper()
		return *must(c.GetBucketPolicyStatus(ctx, &s3.GetBucketPolicyStatusInput{Bucket: b}))(t).PolicyStatus.IsPublic
	}
	if isPublic() {
		t.Error("a policy of one distribution is public")
	}
	must(c.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: b}))(t)
	must(c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: &public}))(t)
	if !isPublic() {
		t.Error("a policy of everybody is not public")
	}
	must(c.DeleteBucketPolicy(ctx, &s3.DeleteBucketPolicyInput{Bucket: b}))(t)
	_, err := c.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: b})
	wantAPIError(t, "after it is deleted", err, "NoSuchBucketPolicy", 404)
}

func TestSDKPublicAccessIsBlockedUnlessSomebodySaysOtherwise(t *testing.T) {
	c, ctx, b := bucketClient(t)
	get := func() types.PublicAccessBlockConfiguration {
		t.Helper()
		return *must(c.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: b}))(t).PublicAccessBlockConfiguration
	}
	if p := get(); !*p.BlockPublicAcls || !*p.IgnorePublicAcls || !*p.BlockPublicPolicy || !*p.RestrictPublicBuckets {
		t.Errorf("a new bucket has %+v", p)
	}
	must(c.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: b}))(t)
	_, err := c.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: b})
	wantAPIError(t, "after it is deleted", err, "NoSuchPublicAccessBlockConfiguration", 404)
	must(c.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: b, PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{
		BlockPublicPolicy: awssdk.Bool(true),
	}}))(t)
	if p := get(); *p.BlockPublicAcls || *p.IgnorePublicAcls || !*p.BlockPublicPolicy || *p.RestrictPublicBuckets {
		t.Errorf("it has %+v", p)
	}
}

func TestSDKAccessControlListsGoWithOwnershipControls(t *testing.T) {
	c, ctx, b := bucketClient(t)
	ownership := func() types.ObjectOwnership {
		t.Helper()
		return must(c.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: b}))(t).OwnershipControls.Rules[0].ObjectOwnership
	}
	if got := ownership(); got != types.ObjectOwnershipBucketOwnerEnforced {
		t.Errorf("a new bucket has %s", got)
	}
	acl := must(c.GetBucketAcl(ctx, &s3.GetBucketAclInput{Bucket: b}))(t)
	if len(acl.Grants) != 1 || acl.Grants[0].Permission != types.PermissionFullControl || *acl.Grants[0].Grantee.ID != *acl.Owner.ID || acl.Grants[0].Grantee.Type != types.TypeCanonicalUser {
		t.Errorf("the list is %+v", acl)
	}
	putACL := func(canned types.BucketCannedACL) error {
		_, err := c.PutBucketAcl(ctx, &s3.PutBucketAclInput{Bucket: b, ACL: canned})
		return err
	}
	wantAPIError(t, "without lists", putACL(types.BucketCannedACLPrivate), "AccessControlListNotSupported", 400)
	must(c.PutBucketOwnershipControls(ctx, &s3.PutBucketOwnershipControlsInput{Bucket: b, OwnershipControls: &types.OwnershipControls{
		Rules: []types.OwnershipControlsRule{{ObjectOwnership: types.ObjectOwnershipBucketOwnerPreferred}},
	}}))(t)
	if got := ownership(); got != types.ObjectOwnershipBucketOwnerPreferred {
		t.Errorf("it has %s", got)
	}
	if err := putACL(types.BucketCannedACLPrivate); err != nil {
		t.Error(err)
	}
	wantAPIError(t, "a public list", putACL(types.BucketCannedACLPublicRead), "AccessControlListNotSupported", 400)
	same := &types.AccessControlPolicy{Owner: acl.Owner, Grants: acl.Grants}
	must(c.PutBucketAcl(ctx, &s3.PutBucketAclInput{Bucket: b, AccessControlPolicy: same}))(t)
	same.Grants = append(same.Grants, types.Grant{Permission: types.PermissionRead, Grantee: &types.Grantee{Type: types.TypeGroup, URI: awssdk.String("http://acs.amazonaws.com/groups/global/AllUsers")}})
	_, err := c.PutBucketAcl(ctx, &s3.PutBucketAclInput{Bucket: b, AccessControlPolicy: same})
	wantAPIError(t, "a grant to everybody", err, "NotImplemented", 501)
	must(c.DeleteBucketOwnershipControls(ctx, &s3.DeleteBucketOwnershipControlsInput{Bucket: b}))(t)
	_, err = c.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: b})
	wantAPIError(t, "after they are deleted", err, "OwnershipControlsNotFoundError", 404)

	must(c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: awssdk.String("k")}))(t)
	if got := must(c.GetObjectAcl(ctx, &s3.GetObjectAclInput{Bucket: b, Key: awssdk.String("k")}))(t); len(got.Grants) != 1 {
		t.Errorf("the object's list is %+v", got)
	}
	_, err = c.GetObjectAcl(ctx, &s3.GetObjectAclInput{Bucket: b, Key: awssdk.String("none")})
	wantAPIError(t, "of no object", err, "NoSuchKey", 404)
	chosen := awssdk.String("chosen")
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: chosen, ObjectOwnership: types.ObjectOwnershipObjectWriter}))(t)
	got := must(c.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: chosen}))(t)
	if got.OwnershipControls.Rules[0].ObjectOwnership != types.ObjectOwnershipObjectWriter {
		t.Errorf("the bucket was made with %+v", got.OwnershipControls)
	}
}
