package cloudfront

import (
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// compile makes what edge locations serve of a distribution: all that it names
// is looked up.
func (s *Service) compile(d *distributionRecord) distribution.Distribution {
	c := &d.Resource.Config
	out := distribution.Distribution{
		Format: distribution.Format, ID: d.ID, ARN: s.distributionARN(d.ID), DomainName: d.Resource.DomainName,
		Enabled: *c.Enabled, DefaultRootObject: *c.DefaultRootObject,
		HTTP2:      c.HttpVersion == api.HttpVersionHttp2 || c.HttpVersion == api.HttpVersionHttp2and3,
		HTTP3:      c.HttpVersion == api.HttpVersionHttp3 || c.HttpVersion == api.HttpVersionHttp2and3,
		Strict2023: s.opts.Strict2023,
		IPv6:       *c.IsIPV6Enabled, PriceClass: string(c.PriceClass),
		Geo:         distribution.GeoRestriction{Mode: string(c.Restrictions.GeoRestriction.RestrictionType), Countries: c.Restrictions.GeoRestriction.Items},
		Certificate: distribution.Certificate{ARN: aws.Value(c.ViewerCertificate.ACMCertificateArn), MinimumProtocol: string(c.ViewerCertificate.MinimumProtocolVersion)},
	}
	for _, a := range c.Aliases.Items {
		out.Aliases = append(out.Aliases, strings.ToLower(a))
	}
	for _, o := range c.Origins.Items {
		out.Origins = append(out.Origins, s.compileOrigin(o))
	}
	for _, g := range c.OriginGroups.Items {
		group := distribution.OriginGroup{ID: *g.Id, Members: [2]string{*g.Members.Items[0].OriginId, *g.Members.Items[1].OriginId}}
		for _, code := range g.FailoverCriteria.StatusCodes.Items {
			group.StatusCodes = append(group.StatusCodes, int(code))
		}
		out.OriginGroups = append(out.OriginGroups, group)
	}
	for _, b := range behaviours(c) {
		out.Behaviours = append(out.Behaviours, s.compileBehaviour(b))
	}
	for _, e := range c.CustomErrorResponses.Items {
		status, _ := strconv.Atoi(*e.ResponseCode) // checked; empty without a page
		out.ErrorPages = append(out.ErrorPages, distribution.ErrorPage{
			Status: int(*e.ErrorCode), Path: *e.ResponsePagePath, ResponseStatus: status, MinTTL: seconds(e.ErrorCachingMinTTL),
		})
	}
	if *c.Logging.Enabled {
		out.Logging = distribution.Logging{Bucket: s3Bucket(*c.Logging.Bucket), Prefix: *c.Logging.Prefix, Cookies: *c.Logging.IncludeCookies}
	}
	return out
}

func seconds[N int32 | int64](n *N) time.Duration { return time.Duration(aws.Value(n)) * time.Second }

func (s *Service) compileOrigin(o *api.Origin) distribution.Origin {
	out := distribution.Origin{
		ID: *o.Id, DomainName: *o.DomainName, Path: *o.OriginPath,
		ConnectionAttempts: int(*o.ConnectionAttempts), ConnectionTimeout: seconds(o.ConnectionTimeout),
		ResponseCompletionTimeout: seconds(o.ResponseCompletionTimeout),
	}
	if *o.OriginShield.Enabled {
		out.ShieldRegion = aws.Value(o.OriginShield.OriginShieldRegion)
	}
	for _, h := range o.CustomHeaders.Items {
		out.Header = append(out.Header, distribution.HeaderValue{Name: *h.HeaderName, Value: *h.HeaderValue, Override: true})
	}
	if a, ok := s.accessControls.find(*o.OriginAccessControlId); ok {
		c := a.Resource
		out.AccessControl = &distribution.AccessControl{ID: a.ID, Behavior: string(c.SigningBehavior), Service: string(c.OriginAccessControlOriginType)}
	}
	if s3 := o.S3OriginConfig; s3 != nil {
		out.S3, out.Protocol = true, "match-viewer"
		out.HTTPPort, out.HTTPSPort = 80, 443
		out.ReadTimeout, out.KeepaliveTimeout = seconds(s3.OriginReadTimeout), defaultKeepaliveTimeout*time.Second
		_, out.AccessIdentity, _ = strings.Cut(*s3.OriginAccessIdentity, identityPrefix)
		return out
	}
	c := o.CustomOriginConfig
	out.Protocol, out.HTTPPort, out.HTTPSPort = string(c.OriginProtocolPolicy), int(*c.HTTPPort), int(*c.HTTPSPort)
	out.ReadTimeout, out.KeepaliveTimeout = seconds(c.OriginReadTimeout), seconds(c.OriginKeepaliveTimeout)
	for _, p := range c.OriginSslProtocols.Items {
		out.TLSProtocols = append(out.TLSProtocols, string(p))
	}
	return out
}

func methods(list []api.Method) (out []string) {
	for _, m := range list {
		out = append(out, string(m))
	}
	return out
}

func (s *Service) compileBehaviour(b *api.CacheBehavior) distribution.Behaviour {
	out := distribution.Behaviour{
		Pattern: *b.PathPattern, Origin: *b.TargetOriginId, ViewerProtocol: string(b.ViewerProtocolPolicy),
		AllowedMethods: methods(b.AllowedMethods.Items), CachedMethods: methods(b.AllowedMethods.CachedMethods.Items),
		Compress: *b.Compress, GRPC: *b.GrpcConfig.Enabled, SmoothStreaming: *b.SmoothStreaming, RealtimeLog: aws.Value(b.RealtimeLogConfigArn),
		Signers: s.signers(b.TrustedKeyGroups),
	}
	if b.CachePolicyId != nil {
		p, _ := s.cachePolicies.find(*b.CachePolicyId)
		compileCachePolicy(&p.Resource, &out)
		if b.OriginRequestPolicyId != nil {
			p, _ := s.originRequestPolicies.find(*b.OriginRequestPolicyId)
			out.Forward = originRequestSelection(&p.Resource)
		}
	} else {
		compileForwardedValues(b, &out)
	}
	if b.ResponseHeadersPolicyId != nil {
		p, _ := s.responseHeadersPolicies.find(*b.ResponseHeadersPolicyId)
		out.ResponseHeaders = compileResponseHeaders(&p.Resource)
	}
	for _, a := range b.LambdaFunctionAssociations.Items {
		if out.Functions == nil {
			out.Functions = map[distribution.EventType]distribution.LambdaAssociation{}
		}
		out.Functions[distribution.EventType(a.EventType)] = distribution.LambdaAssociation{ARN: *a.LambdaFunctionARN, IncludeBody: *a.IncludeBody}
	}
	for _, a := range b.FunctionAssociations.Items {
		if out.Viewer == nil {
			out.Viewer = map[distribution.EventType]string{}
		}
		out.Viewer[distribution.EventType(a.EventType)] = *a.FunctionARN
	}
	return out
}

func compileCachePolicy(p *api.CachePolicyConfig, out *distribution.Behaviour) {
	out.TTL = distribution.TTL{Min: seconds(p.MinTTL), Default: seconds(p.DefaultTTL), Max: seconds(p.MaxTTL)}
	k := p.ParametersInCacheKeyAndForwardedToOrigin
	if k == nil {
		out.Key = distribution.Selection{Headers: choose(distribution.ModeNone, nil), Cookies: choose(distribution.ModeNone, nil), Query: choose(distribution.ModeNone, nil)}
		return
	}
	out.AcceptGzip, out.AcceptBrotli = *k.EnableAcceptEncodingGzip, aws.Value(k.EnableAcceptEncodingBrotli)
	out.Key = distribution.Selection{
		Headers: headers(distribution.Mode(k.HeadersConfig.HeaderBehavior), k.HeadersConfig.Headers),
		Cookies: cookies(distribution.Mode(k.CookiesConfig.CookieBehavior), k.CookiesConfig.Cookies),
		Query:   queries(distribution.Mode(k.QueryStringsConfig.QueryStringBehavior), k.QueryStringsConfig.QueryStrings),
	}
}

func originRequestSelection(p *api.OriginRequestPolicyConfig) distribution.Selection {
	mode := distribution.Mode(p.HeadersConfig.HeaderBehavior)
	if mode == "allViewer" {
		mode = distribution.ModeAll
	}
	return distribution.Selection{
		Headers: headers(mode, p.HeadersConfig.Headers),
		Cookies: cookies(distribution.Mode(p.CookiesConfig.CookieBehavior), p.CookiesConfig.Cookies),
		Query:   queries(distribution.Mode(p.QueryStringsConfig.QueryStringBehavior), p.QueryStringsConfig.QueryStrings),
	}
}

func choose(m distribution.Mode, names []string) distribution.Choice {
	return distribution.Choice{Mode: m, Names: names}
}

func headers(m distribution.Mode, h *api.Headers) distribution.Choice {
	c := choose(m, nil)
	if h != nil {
		for _, name := range h.Items {
			c.Names = append(c.Names, strings.ToLower(name))
		}
	}
	return c
}

func cookies(m distribution.Mode, n *api.CookieNames) distribution.Choice {
	if n == nil {
		return choose(m, nil)
	}
	return choose(m, n.Items)
}

func queries(m distribution.Mode, n *api.QueryStringNames) distribution.Choice {
	if n == nil {
		return choose(m, nil)
	}
	return choose(m, n.Items)
}

// compileForwardedValues makes the older settings the same selections as policies
// are: what they name is in the key and forwarded. But all headers, and query
// parameters beside those that the key is limited to, are forwarded only; nothing
// is cached where all headers are forwarded (CloudFront developer guide, "Caching
// content based on request headers").
func compileForwardedValues(b *api.CacheBehavior, out *distribution.Behaviour) {
	f := b.ForwardedValues
	out.Legacy = true
	out.TTL = distribution.TTL{Min: seconds(b.MinTTL), Default: seconds(b.DefaultTTL), Max: seconds(b.MaxTTL)}
	// Brotli needs a cache policy.
	out.AcceptGzip = *b.Compress
	none := choose(distribution.ModeNone, nil)
	out.Forward = distribution.Selection{Headers: none, Cookies: none, Query: none}
	out.Key = distribution.Selection{Headers: none, Cookies: cookies(distribution.Mode(f.Cookies.Forward), f.Cookies.WhitelistedNames), Query: none}
	switch {
	case len(f.Headers.Items) == 1 && f.Headers.Items[0] == "*":
		out.Forward.Headers = choose(distribution.ModeAll, nil)
		out.TTL = distribution.TTL{}
	case len(f.Headers.Items) > 0:
		out.Key.Headers = headers(distribution.ModeOnly, f.Headers)
	}
	if *f.QueryString {
		out.Key.Query = choose(distribution.ModeAll, nil)
		if names := f.QueryStringCacheKeys.Items; len(names) > 0 {
			out.Key.Query = choose(distribution.ModeOnly, names)
			out.Forward.Query = choose(distribution.ModeAll, nil)
		}
	}
}
