package stack

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
)

// cdnPatience is how long a distribution may take to be at every edge location.
const cdnPatience = 10 * time.Minute

// cdnKinds are what viewers reach functions and buckets through.
var cdnKinds = map[string]kind{
	"AWS::CloudFront::Distribution": {
		properties: "DistributionConfig* Tags", attributes: []string{"DomainName", "Id"}, limit: 64,
		check: func(c *call) error {
			_, err := distributionConfig(c)
			return err
		},
		create: createDistribution,
		update: updateDistribution,
		remove: func(ctx context.Context, c *call) error {
			out, err := c.CloudFront.GetDistributionConfig(ctx, &cloudfront.GetDistributionConfigInput{Id: &c.id})
			if err != nil {
				return err
			}
			etag := out.ETag
			if config := out.DistributionConfig; aws.ToBool(config.Enabled) {
				config.Enabled = aws.Bool(false)
				updated, err := c.CloudFront.UpdateDistribution(ctx, &cloudfront.UpdateDistributionInput{Id: &c.id, IfMatch: etag, DistributionConfig: config})
				if err != nil {
					return err
				}
				etag = updated.ETag
			}
			if err := c.deployed(ctx); err != nil {
				return err
			}
			_, err = c.CloudFront.DeleteDistribution(ctx, &cloudfront.DeleteDistributionInput{Id: &c.id, IfMatch: etag})
			return err
		},
		read: func(ctx context.Context, c *call) (map[string]string, error) {
			out, err := c.CloudFront.GetDistribution(ctx, &cloudfront.GetDistributionInput{Id: &c.id})
			if err != nil {
				return nil, err
			}
			return map[string]string{"": c.id, "Id": c.id, "DomainName": aws.ToString(out.Distribution.DomainName)}, nil
		},
	},
	"AWS::CloudFront::CachePolicy": {
		properties: "CachePolicyConfig*", attributes: []string{"Id"}, limit: 64,
		check: func(c *call) error { _, err := cachePolicyConfig(c); return err },
		create: func(ctx context.Context, c *call) error {
			config, err := cachePolicyConfig(c)
			if err != nil {
				return err
			}
			out, err := c.CloudFront.CreateCachePolicy(ctx, &cloudfront.CreateCachePolicyInput{CachePolicyConfig: config})
			if err == nil {
				c.id = aws.ToString(out.CachePolicy.Id)
			}
			return err
		},
		update: func(ctx context.Context, c *call) error {
			config, err := cachePolicyConfig(c)
			if err != nil {
				return err
			}
			out, err := c.CloudFront.GetCachePolicyConfig(ctx, &cloudfront.GetCachePolicyConfigInput{Id: &c.id})
			if err != nil {
				return err
			}
			_, err = c.CloudFront.UpdateCachePolicy(ctx, &cloudfront.UpdateCachePolicyInput{Id: &c.id, IfMatch: out.ETag, CachePolicyConfig: config})
			return err
		},
		remove: func(ctx context.Context, c *call) error {
			out, err := c.CloudFront.GetCachePolicyConfig(ctx, &cloudfront.GetCachePolicyConfigInput{Id: &c.id})
			if err != nil {
				return err
			}
			_, err = c.CloudFront.DeleteCachePolicy(ctx, &cloudfront.DeleteCachePolicyInput{Id: &c.id, IfMatch: out.ETag})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "Id": c.id}, nil
		},
	},
}

func cachePolicyConfig(c *call) (*types.CachePolicyConfig, error) {
	config := &types.CachePolicyConfig{}
	if err := bind(c.props["CachePolicyConfig"], config); err != nil {
		return nil, within("CachePolicyConfig", err)
	}
	return config, nil
}

func createDistribution(ctx context.Context, c *call) error {
	config, err := distributionConfig(c)
	if err != nil {
		return err
	}
	// The same reference makes the same distribution, however often it is asked
	// for.
	config.CallerReference = aws.String(c.id)
	tags, err := cdnTags(c.props["Tags"])
	if err != nil {
		return err
	}
	out, err := c.CloudFront.CreateDistributionWithTags(ctx, &cloudfront.CreateDistributionWithTagsInput{
		DistributionConfigWithTags: &types.DistributionConfigWithTags{DistributionConfig: config, Tags: &types.Tags{Items: tags}},
	})
	if err != nil {
		return err
	}
	c.id, c.made = aws.ToString(out.Distribution.Id), true
	return c.deployed(ctx)
}

func updateDistribution(ctx context.Context, c *call) error {
	if c.has("DistributionConfig") {
		config, err := distributionConfig(c)
		if err != nil {
			return err
		}
		out, err := c.CloudFront.GetDistributionConfig(ctx, &cloudfront.GetDistributionConfigInput{Id: &c.id})
		if err != nil {
			return err
		}
		config.CallerReference = out.DistributionConfig.CallerReference
		if _, err := c.CloudFront.UpdateDistribution(ctx, &cloudfront.UpdateDistributionInput{Id: &c.id, IfMatch: out.ETag, DistributionConfig: config}); err != nil {
			return err
		}
	}
	if c.has("Tags") {
		if err := c.tagDistribution(ctx); err != nil {
			return err
		}
	}
	return c.deployed(ctx)
}

func (c *call) tagDistribution(ctx context.Context) error {
	arn := aws.String("arn:aws:cloudfront::" + c.Account + ":distribution/" + c.id)
	wanted, err := cdnTags(c.props["Tags"])
	if err != nil {
		return err
	}
	old, err := cdnTags(c.old["Tags"])
	if err != nil {
		return err
	}
	var gone []string
	for _, t := range old {
		if !slices.ContainsFunc(wanted, func(w types.Tag) bool { return *w.Key == *t.Key }) {
			gone = append(gone, *t.Key)
		}
	}
	if len(gone) > 0 {
		if _, err := c.CloudFront.UntagResource(ctx, &cloudfront.UntagResourceInput{Resource: arn, TagKeys: &types.TagKeys{Items: gone}}); err != nil {
			return err
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	_, err = c.CloudFront.TagResource(ctx, &cloudfront.TagResourceInput{Resource: arn, Tags: &types.Tags{Items: wanted}})
	return err
}

func cdnTags(v any) (tags []types.Tag, err error) {
	m, err := tagMap(v)
	for key, value := range m {
		tags = append(tags, types.Tag{Key: &key, Value: &value})
	}
	slices.SortFunc(tags, func(a, b types.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	return tags, err
}

// deployed waits until every edge location serves the distribution as it is.
func (c *call) deployed(ctx context.Context) error {
	w := cloudfront.NewDistributionDeployedWaiter(c.CloudFront, func(o *cloudfront.DistributionDeployedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
	})
	return w.Wait(ctx, &cloudfront.GetDistributionInput{Id: &c.id}, cdnPatience)
}

// distributionConfig makes the API's form of a template's DistributionConfig, of
// which the template has another where this is said below.
func distributionConfig(c *call) (*types.DistributionConfig, error) {
	config := &types.DistributionConfig{Comment: aws.String("")}
	props, ok := c.props["DistributionConfig"].(map[string]any)
	if !ok {
		return nil, errors.New("DistributionConfig must be a mapping")
	}
	if err := bind(apiForm(props), config); err != nil {
		return nil, within("DistributionConfig", err)
	}
	for _, missing := range []struct {
		name string
		ok   bool
	}{
		{"Enabled", config.Enabled != nil || hasPending(props["Enabled"])},
		{"Origins", config.Origins != nil || hasPending(props["Origins"])},
		{"DefaultCacheBehavior", config.DefaultCacheBehavior != nil || hasPending(props["DefaultCacheBehavior"])},
	} {
		if !missing.ok {
			return nil, errors.New("DistributionConfig needs " + missing.name)
		}
	}
	if config.Origins != nil {
		for i := range config.Origins.Items {
			complete(&config.Origins.Items[i])
		}
	}
	if config.Restrictions != nil && config.Restrictions.GeoRestriction != nil {
		g := config.Restrictions.GeoRestriction
		g.Quantity = aws.Int32(int32(len(g.Items)))
	}
	return config, nil
}

// complete gives an origin what a template may leave out and the API wants.
func complete(o *types.Origin) {
	if c := o.CustomOriginConfig; c != nil {
		if c.HTTPPort == nil {
			c.HTTPPort = aws.Int32(80)
		}
		if c.HTTPSPort == nil {
			c.HTTPSPort = aws.Int32(443)
		}
	}
	if c := o.S3OriginConfig; c != nil && c.OriginAccessIdentity == nil {
		c.OriginAccessIdentity = aws.String("")
	}
}

// renamed lists properties by their names in the API.
var renamed = map[string]string{
	"IPV6Enabled": "IsIPV6Enabled", "AcmCertificateArn": "ACMCertificateArn", "IamCertificateId": "IAMCertificateId",
	"SslSupportMethod": "SSLSupportMethod", "OriginSSLProtocols": "OriginSslProtocols", "OriginCustomHeaders": "CustomHeaders",
	"Locations": "Items",
}

// apiForm returns a value of a DistributionConfig with the API's names and
// nesting. Lists get their Quantity when they are bound.
func apiForm(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = apiForm(one)
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, one := range v {
			if to := renamed[name]; to != "" {
				name = to
			}
			m[name] = apiForm(one)
		}
		nest(m)
		return m
	}
	return v
}

// nest puts what templates have side by side where the API has one in the other,
// and says what follows from its being there.
func nest(m map[string]any) {
	if methods, ok := m["AllowedMethods"].([]any); ok {
		allowed := map[string]any{"Items": methods, "Quantity": int64(len(methods))}
		if cached := m["CachedMethods"]; cached != nil {
			allowed["CachedMethods"] = cached
		}
		m["AllowedMethods"] = allowed
		delete(m, "CachedMethods")
	}
	for _, name := range []string{"TrustedKeyGroups", "TrustedSigners"} {
		if list, ok := m[name].([]any); ok {
			m[name] = map[string]any{"Enabled": len(list) > 0, "Items": list, "Quantity": int64(len(list))}
		}
	}
	if logging, ok := m["Logging"].(map[string]any); ok && logging["Bucket"] != nil {
		for name, value := range map[string]any{"Enabled": true, "IncludeCookies": false, "Prefix": ""} {
			if logging[name] == nil {
				logging[name] = value
			}
		}
	}
}
