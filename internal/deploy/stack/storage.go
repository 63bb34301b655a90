package stack

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// storageKinds are where functions keep things.
var storageKinds = map[string]kind{
	"AWS::S3::Bucket": {
		properties: "BucketName! VersioningConfiguration Tags", attributes: []string{"Arn", "DomainName", "RegionalDomainName"},
		name: "BucketName", limit: 63, lower: true,
		check: func(c *call) error {
			if _, err := tagMap(c.props["Tags"]); err != nil {
				return err
			}
			if err := bind(c.props["VersioningConfiguration"], &types.VersioningConfiguration{}); err != nil {
				return within("VersioningConfiguration", err)
			}
			return nil
		},
		create: func(ctx context.Context, c *call) error {
			if err := createBucket(ctx, c.S3, c.id, c.Region); err != nil {
				return err
			}
			c.made = true
			return configureBucket(ctx, c)
		},
		update: configureBucket,
		remove: func(ctx context.Context, c *call) error {
			_, err := c.S3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &c.id})
			if code(err) == "BucketNotEmpty" {
				return errNotEmpty
			}
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "Arn": "arn:aws:s3:::" + c.id, "DomainName": c.id + ".s3.amazonaws.com",
				"RegionalDomainName": fmt.Sprintf("%s.s3.%s.amazonaws.com", c.id, c.Region)}, nil
		},
	},
	"AWS::Logs::LogGroup": {
		properties: "LogGroupName! RetentionInDays Tags", attributes: []string{"Arn"}, name: "LogGroupName", limit: 512,
		check: func(c *call) error {
			if _, err := tagMap(c.props["Tags"]); err != nil {
				return err
			}
			var in struct{ RetentionInDays *int32 }
			return bind(c.only("RetentionInDays"), &in)
		},
		create: func(ctx context.Context, c *call) error {
			tags, err := tagMap(c.props["Tags"])
			if err != nil {
				return err
			}
			if _, err := c.Logs.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &c.id, Tags: tags}); err != nil {
				return err
			}
			c.made = true
			if c.props["RetentionInDays"] == nil {
				return nil
			}
			return c.putRetention(ctx)
		},
		update: func(ctx context.Context, c *call) error {
			if c.has("RetentionInDays") {
				if err := c.putRetention(ctx); err != nil {
					return err
				}
			}
			if c.has("Tags") {
				return c.tagLogGroup(ctx)
			}
			return nil
		},
		remove: func(ctx context.Context, c *call) error {
			_, err := c.Logs.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &c.id})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "Arn": c.arn("logs", "log-group:"+c.id+":*")}, nil
		},
	},
}

// configureBucket sets what a bucket has beyond its name.
func configureBucket(ctx context.Context, c *call) error {
	if v := c.props["VersioningConfiguration"]; c.has("VersioningConfiguration") && (v != nil || c.old["VersioningConfiguration"] != nil) {
		// Once it was on, it can only be suspended.
		in := &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}
		if err := bind(v, in); err != nil {
			return within("VersioningConfiguration", err)
		}
		if _, err := c.S3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &c.id, VersioningConfiguration: in}); err != nil {
			return err
		}
	}
	if !c.has("Tags") {
		return nil
	}
	tags, err := tagMap(c.props["Tags"])
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		_, err := c.S3.DeleteBucketTagging(ctx, &s3.DeleteBucketTaggingInput{Bucket: &c.id})
		return err
	}
	in := &types.Tagging{}
	for key, value := range tags {
		in.TagSet = append(in.TagSet, types.Tag{Key: &key, Value: &value})
	}
	_, err = c.S3.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: &c.id, Tagging: in})
	return err
}

func (c *call) putRetention(ctx context.Context) error {
	if c.props["RetentionInDays"] == nil {
		_, err := c.Logs.DeleteRetentionPolicy(ctx, &cloudwatchlogs.DeleteRetentionPolicyInput{LogGroupName: &c.id})
		return err
	}
	in := &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &c.id}
	if err := bind(c.only("RetentionInDays"), in); err != nil {
		return err
	}
	_, err := c.Logs.PutRetentionPolicy(ctx, in)
	return err
}

func (c *call) tagLogGroup(ctx context.Context) error {
	wanted, err := tagMap(c.props["Tags"])
	if err != nil {
		return err
	}
	old, err := tagMap(c.old["Tags"])
	if err != nil {
		return err
	}
	arn := aws.String(c.arn("logs", "log-group:"+c.id))
	var gone []string
	for key := range old {
		if _, stays := wanted[key]; !stays {
			gone = append(gone, key)
		}
	}
	if len(gone) > 0 {
		if _, err := c.Logs.UntagResource(ctx, &cloudwatchlogs.UntagResourceInput{ResourceArn: arn, TagKeys: gone}); err != nil {
			return err
		}
	}
	if len(wanted) > 0 {
		_, err = c.Logs.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: arn, Tags: wanted})
	}
	return err
}
