package stack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
)

// edgeFunctionKinds are CloudFront Functions and what they read.
var edgeFunctionKinds = map[string]kind{
	"AWS::CloudFront::Function": {
		properties: "Name! AutoPublish FunctionCode* FunctionConfig*", attributes: []string{"FunctionARN", "FunctionMetadata.FunctionARN", "Stage"},
		name: "Name", limit: 64,
		check: func(c *call) error { _, _, err := edgeFunction(c); return err },
		create: func(ctx context.Context, c *call) error {
			config, publish, err := edgeFunction(c)
			if err != nil {
				return err
			}
			out, err := c.CloudFront.CreateFunction(ctx, &cloudfront.CreateFunctionInput{Name: &c.id, FunctionCode: []byte(c.str("FunctionCode")), FunctionConfig: config})
			if err != nil {
				return err
			}
			c.made = true
			return c.publish(ctx, out.ETag, publish)
		},
		update: func(ctx context.Context, c *call) error {
			config, publish, err := edgeFunction(c)
			if err != nil {
				return err
			}
			now, err := c.CloudFront.DescribeFunction(ctx, &cloudfront.DescribeFunctionInput{Name: &c.id})
			if err != nil {
				return err
			}
			out, err := c.CloudFront.UpdateFunction(ctx, &cloudfront.UpdateFunctionInput{
				Name: &c.id, IfMatch: now.ETag, FunctionCode: []byte(c.str("FunctionCode")), FunctionConfig: config,
			})
			if err != nil {
				return err
			}
			return c.publish(ctx, out.ETag, publish)
		},
		remove: func(ctx context.Context, c *call) error {
			now, err := c.CloudFront.DescribeFunction(ctx, &cloudfront.DescribeFunctionInput{Name: &c.id})
			if err != nil {
				return err
			}
			_, err = c.CloudFront.DeleteFunction(ctx, &cloudfront.DeleteFunctionInput{Name: &c.id, IfMatch: now.ETag})
			return err
		},
		read: func(ctx context.Context, c *call) (map[string]string, error) {
			out, err := c.CloudFront.DescribeFunction(ctx, &cloudfront.DescribeFunctionInput{Name: &c.id})
			if err != nil {
				return nil, err
			}
			m := out.FunctionSummary.FunctionMetadata
			arn := aws.ToString(m.FunctionARN)
			return map[string]string{"": arn, "FunctionARN": arn, "FunctionMetadata.FunctionARN": arn, "Stage": string(m.Stage)}, nil
		},
	},
	"AWS::CloudFront::KeyValueStore": {
		properties: "Name! Comment ImportSource!", attributes: []string{"Arn", "Id", "Status"}, name: "Name", limit: 64,
		check: func(c *call) error { _, err := importSource(c); return err },
		create: func(ctx context.Context, c *call) error {
			source, err := importSource(c)
			if err != nil {
				return err
			}
			in := &cloudfront.CreateKeyValueStoreInput{Name: &c.id, Comment: aws.String(c.str("Comment")), ImportSource: source}
			if _, err := c.CloudFront.CreateKeyValueStore(ctx, in); err != nil {
				return err
			}
			c.made = true
			return c.provisioned(ctx)
		},
		update: func(ctx context.Context, c *call) error {
			now, err := c.CloudFront.DescribeKeyValueStore(ctx, &cloudfront.DescribeKeyValueStoreInput{Name: &c.id})
			if err != nil {
				return err
			}
			in := &cloudfront.UpdateKeyValueStoreInput{Name: &c.id, IfMatch: now.ETag, Comment: aws.String(c.str("Comment"))}
			if _, err = c.CloudFront.UpdateKeyValueStore(ctx, in); err != nil {
				return err
			}
			return c.provisioned(ctx)
		},
		remove: func(ctx context.Context, c *call) error {
			now, err := c.CloudFront.DescribeKeyValueStore(ctx, &cloudfront.DescribeKeyValueStoreInput{Name: &c.id})
			if err != nil {
				return err
			}
			_, err = c.CloudFront.DeleteKeyValueStore(ctx, &cloudfront.DeleteKeyValueStoreInput{Name: &c.id, IfMatch: now.ETag})
			return err
		},
		read: func(ctx context.Context, c *call) (map[string]string, error) {
			out, err := c.CloudFront.DescribeKeyValueStore(ctx, &cloudfront.DescribeKeyValueStoreInput{Name: &c.id})
			if err != nil {
				return nil, err
			}
			s := out.KeyValueStore
			return map[string]string{"": c.id, "Arn": aws.ToString(s.ARN), "Id": aws.ToString(s.Id), "Status": aws.ToString(s.Status)}, nil
		},
	},
}

// edgeFunction reads a function's configuration, and whether it is to go live.
func edgeFunction(c *call) (config *types.FunctionConfig, publish bool, err error) {
	config = &types.FunctionConfig{Comment: aws.String("")}
	if err := bind(c.props["FunctionConfig"], config); err != nil {
		return nil, false, within("FunctionConfig", err)
	}
	var in struct {
		AutoPublish  *bool
		FunctionCode *string
	}
	if err := bind(c.only("AutoPublish", "FunctionCode"), &in); err != nil {
		return nil, false, err
	}
	return config, aws.ToBool(in.AutoPublish), nil
}

// publish has what is in development go live, where it is to.
func (c *call) publish(ctx context.Context, etag *string, publish bool) error {
	if !publish {
		return nil
	}
	_, err := c.CloudFront.PublishFunction(ctx, &cloudfront.PublishFunctionInput{Name: &c.id, IfMatch: etag})
	return err
}

// importSource reads where a store's first pairs come from; nil: it has none.
func importSource(c *call) (*types.ImportSource, error) {
	v, ok := c.props["ImportSource"].(map[string]any)
	if !ok {
		if c.props["ImportSource"] != nil && !hasPending(c.props["ImportSource"]) {
			return nil, errors.New("ImportSource must be a mapping")
		}
		return nil, nil
	}
	var in struct{ SourceType, SourceArn *string }
	if err := bind(v, &in); err != nil {
		return nil, within("ImportSource", err)
	}
	return &types.ImportSource{SourceType: types.ImportSourceType(aws.ToString(in.SourceType)), SourceARN: in.SourceArn}, nil
}

// provisioned waits until a key value store can be used everywhere.
func (c *call) provisioned(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cdnPatience)
	defer cancel()
	for {
		out, err := c.CloudFront.DescribeKeyValueStore(ctx, &cloudfront.DescribeKeyValueStoreInput{Name: &c.id})
		if err != nil {
			return err
		}
		switch status := aws.ToString(out.KeyValueStore.Status); status {
		case "READY":
			return nil
		case "PROVISIONING":
		default:
			return fmt.Errorf("the key value store %s is %s", c.id, status)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
