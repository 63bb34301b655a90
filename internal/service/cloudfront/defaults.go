package cloudfront

import (
	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// Defaults of distributions (CloudFront API reference, DistributionConfig).
const (
	defaultTTL               = 86400
	defaultMaxTTL            = 31536000
	defaultErrorTTL          = 10
	defaultAttempts          = 3
	defaultConnectionTimeout = 10
	defaultReadTimeout       = 30
	defaultKeepaliveTimeout  = 5
)

// fill completes a configuration with what CloudFront takes for what was left
// out. Clients read all of it back, and compare.
func fill(c *api.DistributionConfig) {
	c.Aliases = or(c.Aliases, api.Aliases{Quantity: aws.Ptr[int32](0)})
	c.DefaultRootObject = or(c.DefaultRootObject, "")
	c.OriginGroups = or(c.OriginGroups, api.OriginGroups{Quantity: aws.Ptr[int32](0)})
	c.CacheBehaviors = or(c.CacheBehaviors, api.CacheBehaviors{Quantity: aws.Ptr[int32](0)})
	c.CustomErrorResponses = or(c.CustomErrorResponses, api.CustomErrorResponses{Quantity: aws.Ptr[int32](0)})
	c.WebACLId = or(c.WebACLId, "")
	c.IsIPV6Enabled = or(c.IsIPV6Enabled, false)
	c.ContinuousDeploymentPolicyId = or(c.ContinuousDeploymentPolicyId, "")
	c.Staging = or(c.Staging, false)
	c.Restrictions = or(c.Restrictions, api.Restrictions{GeoRestriction: &api.GeoRestriction{
		RestrictionType: api.GeoRestrictionTypeNone, Quantity: aws.Ptr[int32](0),
	}})
	if c.PriceClass == "" {
		c.PriceClass = api.PriceClassPriceClassAll
	}
	if c.HttpVersion == "" {
		c.HttpVersion = api.HttpVersionHttp2
	}
	c.Logging = or(c.Logging, api.LoggingConfig{})
	c.Logging.Enabled = or(c.Logging.Enabled, false)
	c.Logging.IncludeCookies = or(c.Logging.IncludeCookies, false)
	c.Logging.Bucket = or(c.Logging.Bucket, "")
	c.Logging.Prefix = or(c.Logging.Prefix, "")
	c.ViewerCertificate = or(c.ViewerCertificate, api.ViewerCertificate{})
	fillCertificate(c.ViewerCertificate)
	for _, o := range c.Origins.Items {
		fillOrigin(o)
	}
	for _, g := range c.OriginGroups.Items {
		if g.SelectionCriteria == "" {
			g.SelectionCriteria = api.OriginGroupSelectionCriteriaDefault
		}
	}
	b := defaultBehaviour(c)
	fillBehaviour(b)
	setDefaultBehaviour(c, b)
	for _, b := range c.CacheBehaviors.Items {
		fillBehaviour(b)
	}
	for _, e := range c.CustomErrorResponses.Items {
		e.ResponsePagePath = or(e.ResponsePagePath, "")
		e.ResponseCode = or(e.ResponseCode, "")
		e.ErrorCachingMinTTL = or(e.ErrorCachingMinTTL, defaultErrorTTL)
	}
}

// fillCertificate completes a viewer certificate. Certificate and
// CertificateSource are older names for the same; answers have both.
func fillCertificate(v *api.ViewerCertificate) {
	if v.ACMCertificateArn == nil && v.CertificateSource == api.CertificateSourceAcm {
		v.ACMCertificateArn = v.Certificate
	}
	if v.IAMCertificateId == nil && v.CertificateSource == api.CertificateSourceIam {
		v.IAMCertificateId = v.Certificate
	}
	if aws.Value(v.ACMCertificateArn) != "" {
		v.CloudFrontDefaultCertificate = aws.Ptr(false)
		v.Certificate, v.CertificateSource = v.ACMCertificateArn, api.CertificateSourceAcm
		if v.MinimumProtocolVersion == "" {
			v.MinimumProtocolVersion = api.MinimumProtocolVersionTLSv1
		}
		return
	}
	if aws.Value(v.IAMCertificateId) != "" {
		return // refused by checkCertificate
	}
	// Whatever else is said with the default certificate has no effect.
	*v = api.ViewerCertificate{
		CloudFrontDefaultCertificate: aws.Ptr(true), MinimumProtocolVersion: api.MinimumProtocolVersionTLSv1,
		SSLSupportMethod: api.SSLSupportMethodVip, CertificateSource: api.CertificateSourceCloudfront,
	}
}

func fillOrigin(o *api.Origin) {
	o.OriginPath = or(o.OriginPath, "")
	o.CustomHeaders = or(o.CustomHeaders, api.CustomHeaders{Quantity: aws.Ptr[int32](0)})
	o.ConnectionAttempts = or(o.ConnectionAttempts, defaultAttempts)
	o.ConnectionTimeout = or(o.ConnectionTimeout, defaultConnectionTimeout)
	o.OriginShield = or(o.OriginShield, api.OriginShield{Enabled: aws.Ptr(false)})
	o.OriginAccessControlId = or(o.OriginAccessControlId, "")
	if s3 := o.S3OriginConfig; s3 != nil {
		s3.OriginAccessIdentity = or(s3.OriginAccessIdentity, "")
		s3.OriginReadTimeout = or(s3.OriginReadTimeout, defaultReadTimeout)
	}
	if c := o.CustomOriginConfig; c != nil {
		c.OriginReadTimeout = or(c.OriginReadTimeout, defaultReadTimeout)
		c.OriginKeepaliveTimeout = or(c.OriginKeepaliveTimeout, defaultKeepaliveTimeout)
		if c.OriginSslProtocols == nil {
			c.OriginSslProtocols = &api.OriginSslProtocols{Quantity: aws.Ptr[int32](3), Items: []api.SslProtocol{
				api.SslProtocolTLSv1, api.SslProtocolTLSv11, api.SslProtocolTLSv12,
			}}
		}
	}
}

func fillBehaviour(b *api.CacheBehavior) {
	b.TrustedSigners = or(b.TrustedSigners, api.TrustedSigners{Enabled: aws.Ptr(false), Quantity: aws.Ptr[int32](0)})
	b.TrustedKeyGroups = or(b.TrustedKeyGroups, api.TrustedKeyGroups{Enabled: aws.Ptr(false), Quantity: aws.Ptr[int32](0)})
	readOnly := []api.Method{api.MethodHead, api.MethodGet}
	b.AllowedMethods = or(b.AllowedMethods, api.AllowedMethods{Quantity: aws.Ptr[int32](2), Items: readOnly})
	b.AllowedMethods.CachedMethods = or(b.AllowedMethods.CachedMethods, api.CachedMethods{Quantity: aws.Ptr[int32](2), Items: readOnly})
	b.SmoothStreaming = or(b.SmoothStreaming, false)
	b.Compress = or(b.Compress, false)
	b.LambdaFunctionAssociations = or(b.LambdaFunctionAssociations, api.LambdaFunctionAssociations{Quantity: aws.Ptr[int32](0)})
	for _, a := range b.LambdaFunctionAssociations.Items {
		a.IncludeBody = or(a.IncludeBody, false)
	}
	b.FunctionAssociations = or(b.FunctionAssociations, api.FunctionAssociations{Quantity: aws.Ptr[int32](0)})
	b.FieldLevelEncryptionId = or(b.FieldLevelEncryptionId, "")
	b.GrpcConfig = or(b.GrpcConfig, api.GrpcConfig{Enabled: aws.Ptr(false)})
	for _, id := range []**string{&b.CachePolicyId, &b.OriginRequestPolicyId, &b.ResponseHeadersPolicyId, &b.RealtimeLogConfigArn} {
		if aws.Value(*id) == "" {
			*id = nil
		}
	}
	if f := b.ForwardedValues; f != nil {
		f.Headers = or(f.Headers, api.Headers{Quantity: aws.Ptr[int32](0)})
		f.QueryStringCacheKeys = or(f.QueryStringCacheKeys, api.QueryStringCacheKeys{Quantity: aws.Ptr[int32](0)})
	}
	if b.CachePolicyId == nil && b.MinTTL != nil {
		b.DefaultTTL, b.MaxTTL = fillTTL(b.MinTTL, b.DefaultTTL, b.MaxTTL)
	}
}

// fillTTL completes TTLs: what is not given is never below what is.
func fillTTL(least, otherwise, most *int64) (*int64, *int64) {
	if otherwise == nil {
		otherwise = aws.Ptr(max(*least, defaultTTL))
		if most != nil {
			otherwise = aws.Ptr(max(*least, min(*otherwise, *most)))
		}
	}
	return otherwise, or(most, max(*least, *otherwise, defaultMaxTTL))
}

// defaultBehaviour returns the default behaviour as a behaviour like the others.
func defaultBehaviour(c *api.DistributionConfig) *api.CacheBehavior {
	d := c.DefaultCacheBehavior
	return &api.CacheBehavior{
		PathPattern: aws.Ptr("*"), TargetOriginId: d.TargetOriginId, TrustedSigners: d.TrustedSigners, TrustedKeyGroups: d.TrustedKeyGroups,
		ViewerProtocolPolicy: d.ViewerProtocolPolicy, AllowedMethods: d.AllowedMethods, SmoothStreaming: d.SmoothStreaming, Compress: d.Compress,
		LambdaFunctionAssociations: d.LambdaFunctionAssociations, FunctionAssociations: d.FunctionAssociations,
		FieldLevelEncryptionId: d.FieldLevelEncryptionId, RealtimeLogConfigArn: d.RealtimeLogConfigArn, CachePolicyId: d.CachePolicyId,
		OriginRequestPolicyId: d.OriginRequestPolicyId, ResponseHeadersPolicyId: d.ResponseHeadersPolicyId, GrpcConfig: d.GrpcConfig,
		ForwardedValues: d.ForwardedValues, MinTTL: d.MinTTL, DefaultTTL: d.DefaultTTL, MaxTTL: d.MaxTTL,
	}
}

func setDefaultBehaviour(c *api.DistributionConfig, b *api.CacheBehavior) {
	c.DefaultCacheBehavior = &api.DefaultCacheBehavior{
		TargetOriginId: b.TargetOriginId, TrustedSigners: b.TrustedSigners, TrustedKeyGroups: b.TrustedKeyGroups,
		ViewerProtocolPolicy: b.ViewerProtocolPolicy, AllowedMethods: b.AllowedMethods, SmoothStreaming: b.SmoothStreaming, Compress: b.Compress,
		LambdaFunctionAssociations: b.LambdaFunctionAssociations, FunctionAssociations: b.FunctionAssociations,
		FieldLevelEncryptionId: b.FieldLevelEncryptionId, RealtimeLogConfigArn: b.RealtimeLogConfigArn, CachePolicyId: b.CachePolicyId,
		OriginRequestPolicyId: b.OriginRequestPolicyId, ResponseHeadersPolicyId: b.ResponseHeadersPolicyId, GrpcConfig: b.GrpcConfig,
		ForwardedValues: b.ForwardedValues, MinTTL: b.MinTTL, DefaultTTL: b.DefaultTTL, MaxTTL: b.MaxTTL,
	}
}

// behaviours returns all behaviours in the order in which they are tried.
func behaviours(c *api.DistributionConfig) []*api.CacheBehavior {
	return append(c.CacheBehaviors.Items[:len(c.CacheBehaviors.Items):len(c.CacheBehaviors.Items)], defaultBehaviour(c))
}
