package cloudfront

import (
	"math"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// legacy gives the default behaviour the settings from before policies.
func legacy(c *api.DistributionConfig) {
	b := c.DefaultCacheBehavior
	b.CachePolicyId, b.MinTTL = nil, aws.Ptr[int64](0)
	b.ForwardedValues = &api.ForwardedValues{QueryString: aws.Ptr(false), Cookies: &api.CookiePreference{Forward: api.ItemSelectionNone}}
}

func s3Origin(c *api.DistributionConfig) {
	o := c.Origins.Items[0]
	o.DomainName, o.CustomOriginConfig = aws.Ptr("assets.s3.us-east-1.amazonaws.com"), nil
	o.S3OriginConfig = &api.S3OriginConfig{OriginAccessIdentity: aws.Ptr("")}
}

func lambdaAt(event api.EventType, arn string) *api.LambdaFunctionAssociations {
	items := []*api.LambdaFunctionAssociation{{LambdaFunctionARN: &arn, EventType: event}}
	return &api.LambdaFunctionAssociations{Quantity: quantity(items), Items: items}
}

func functionAt(event api.EventType, arn string) *api.FunctionAssociations {
	items := []*api.FunctionAssociation{{FunctionARN: &arn, EventType: event}}
	return &api.FunctionAssociations{Quantity: quantity(items), Items: items}
}

func behaviourFor(patterns ...string) *api.CacheBehaviors {
	var items []*api.CacheBehavior
	for _, p := range patterns {
		items = append(items, &api.CacheBehavior{
			PathPattern: &p, TargetOriginId: aws.Ptr("web"), ViewerProtocolPolicy: api.ViewerProtocolPolicyAllowAll, CachePolicyId: aws.Ptr(cachingOptimal),
		})
	}
	return &api.CacheBehaviors{Quantity: quantity(items), Items: items}
}

func errorPage(status int32, path, response string) *api.CustomErrorResponses {
	items := []*api.CustomErrorResponse{{ErrorCode: &status, ResponsePagePath: &path, ResponseCode: &response}}
	return &api.CustomErrorResponses{Quantity: quantity(items), Items: items}
}

func originGroup(codes []int32, members ...string) *api.OriginGroups {
	var list []*api.OriginGroupMember
	for _, m := range members {
		list = append(list, &api.OriginGroupMember{OriginId: &m})
	}
	items := []*api.OriginGroup{{
		Id: aws.Ptr("group"), FailoverCriteria: &api.OriginGroupFailoverCriteria{StatusCodes: &api.StatusCodes{Quantity: quantity(codes), Items: codes}},
		Members: &api.OriginGroupMembers{Quantity: quantity(list), Items: list},
	}}
	return &api.OriginGroups{Quantity: quantity(items), Items: items}
}

func TestConfigurationsAreRefusedInTheWordsOfCloudFront(t *testing.T) {
	f := newFixture(t)
	live := f.liveFunction("live")
	f.certificate("arn:aws:acm:us-east-1:1:certificate/a", "shop.example.net", "*.img.example.net")
	taken := config("taken")
	taken.Aliases = withAliases([]string{"shop.example.net"})
	taken.ViewerCertificate = &api.ViewerCertificate{ACMCertificateArn: aws.Ptr("arn:aws:acm:us-east-1:1:certificate/a"), SSLSupportMethod: api.SSLSupportMethodSniOnly}
	f.create(taken)

	type c = *api.DistributionConfig
	origin := func(x c) *api.Origin { return x.Origins.Items[0] }
	for name, test := range map[string]struct {
		change func(c)
		code   string
	}{
		"nothing wrong": {func(c) {}, ""},
		"quantity":      {func(x c) { x.Origins.Quantity = aws.Ptr[int32](2) }, "InconsistentQuantities"},
		"nested quantity": {func(x c) {
			legacy(x)
			x.DefaultCacheBehavior.ForwardedValues.Headers = &api.Headers{Quantity: aws.Ptr[int32](1)}
		}, "InconsistentQuantities"},
		"empty items":                   {func(x c) { x.Aliases = &api.Aliases{Quantity: aws.Ptr[int32](0), Items: []string{}} }, ""},
		"no origins":                    {func(x c) { x.Origins = &api.Origins{Quantity: aws.Ptr[int32](0)} }, "InvalidArgument"},
		"unknown target":                {func(x c) { x.DefaultCacheBehavior.TargetOriginId = aws.Ptr("other") }, "NoSuchOrigin"},
		"origin at an address":          {func(x c) { origin(x).DomainName = aws.Ptr("192.0.2.1") }, "InvalidArgument"},
		"origin with a port":            {func(x c) { origin(x).DomainName = aws.Ptr("origin.example.net:80") }, "InvalidArgument"},
		"origin path without slash":     {func(x c) { origin(x).OriginPath = aws.Ptr("v2") }, "InvalidArgument"},
		"origin path ends with slash":   {func(x c) { origin(x).OriginPath = aws.Ptr("/v2/") }, "InvalidArgument"},
		"low port":                      {func(x c) { origin(x).CustomOriginConfig.HTTPPort = aws.Ptr[int32](22) }, "InvalidArgument"},
		"read timeout":                  {func(x c) { origin(x).CustomOriginConfig.OriginReadTimeout = aws.Ptr[int32](121) }, "InvalidOriginReadTimeout"},
		"keepalive timeout":             {func(x c) { origin(x).CustomOriginConfig.OriginKeepaliveTimeout = aws.Ptr[int32](0) }, "InvalidOriginKeepaliveTimeout"},
		"connection attempts":           {func(x c) { origin(x).ConnectionAttempts = aws.Ptr[int32](4) }, "InvalidArgument"},
		"connection timeout":            {func(x c) { origin(x).ConnectionTimeout = aws.Ptr[int32](11) }, "InvalidArgument"},
		"completion below read timeout": {func(x c) { origin(x).ResponseCompletionTimeout = aws.Ptr[int32](10) }, "InvalidArgument"},
		"shield without a region":       {func(x c) { origin(x).OriginShield = &api.OriginShield{Enabled: aws.Ptr(true)} }, "InvalidArgument"},
		"shield": {func(x c) {
			origin(x).OriginShield = &api.OriginShield{Enabled: aws.Ptr(true), OriginShieldRegion: aws.Ptr("eu-central-1")}
		}, ""},
		"shield in a region that has none": {func(x c) {
			origin(x).OriginShield = &api.OriginShield{Enabled: aws.Ptr(true), OriginShieldRegion: aws.Ptr("eu-north-1")}
		}, "InvalidArgument"},
		"SSLv3 at the origin": {func(x c) {
			origin(x).CustomOriginConfig.OriginSslProtocols = &api.OriginSslProtocols{Quantity: aws.Ptr[int32](1), Items: []api.SslProtocol{api.SslProtocolSSLv3}}
		}, "InvalidArgument"},
		"two kinds of origin": {func(x c) { origin(x).S3OriginConfig = &api.S3OriginConfig{OriginAccessIdentity: aws.Ptr("")} }, "InvalidArgument"},
		"no bucket":           {func(x c) { s3Origin(x); origin(x).DomainName = aws.Ptr("origin.example.net") }, "InvalidArgument"},
		"bucket":              {s3Origin, ""},
		"unknown access identity": {func(x c) {
			s3Origin(x)
			origin(x).S3OriginConfig.OriginAccessIdentity = aws.Ptr("origin-access-identity/cloudfront/E1")
		}, "InvalidOriginAccessIdentity"},
		"unknown access control": {func(x c) { origin(x).OriginAccessControlId = aws.Ptr("E1") }, "InvalidOriginAccessControl"},
		"forbidden origin header": {func(x c) {
			origin(x).CustomHeaders = &api.CustomHeaders{Quantity: aws.Ptr[int32](1), Items: []*api.OriginCustomHeader{{HeaderName: aws.Ptr("X-Edge-Me"), HeaderValue: aws.Ptr("1")}}}
		}, "InvalidArgument"},
		"VPC origin":                 {func(x c) { origin(x).VpcOriginConfig = &api.VpcOriginConfig{VpcOriginId: aws.Ptr("vo_1")} }, "InvalidArgument"},
		"group of one":               {func(x c) { x.OriginGroups = originGroup([]int32{500}, "web") }, "InvalidArgument"},
		"group of unknown":           {func(x c) { x.OriginGroups = originGroup([]int32{500}, "web", "other") }, "NoSuchOrigin"},
		"unknown cache policy":       {func(x c) { x.DefaultCacheBehavior.CachePolicyId = aws.Ptr("nope") }, "NoSuchCachePolicy"},
		"unknown origin request":     {func(x c) { x.DefaultCacheBehavior.OriginRequestPolicyId = aws.Ptr("nope") }, "NoSuchOriginRequestPolicy"},
		"unknown response headers":   {func(x c) { x.DefaultCacheBehavior.ResponseHeadersPolicyId = aws.Ptr("nope") }, "NoSuchResponseHeadersPolicy"},
		"policy and TTL":             {func(x c) { x.DefaultCacheBehavior.MinTTL = aws.Ptr[int64](0) }, "InvalidArgument"},
		"neither policy nor values":  {func(x c) { x.DefaultCacheBehavior.CachePolicyId = nil }, "InvalidArgument"},
		"origin request policy only": {func(x c) { legacy(x); x.DefaultCacheBehavior.OriginRequestPolicyId = aws.Ptr(allViewer) }, "InvalidArgument"},
		"legacy":                     {legacy, ""},
		"order of TTLs": {func(x c) {
			legacy(x)
			x.DefaultCacheBehavior.MaxTTL, x.DefaultCacheBehavior.DefaultTTL = aws.Ptr[int64](1), aws.Ptr[int64](2)
		}, "InvalidTTLOrder"},
		"cookies without names": {func(x c) {
			legacy(x)
			x.DefaultCacheBehavior.ForwardedValues.Cookies.Forward = api.ItemSelectionWhitelist
		}, "InvalidForwardCookies"},
		"header for a bucket": {func(x c) {
			legacy(x)
			s3Origin(x)
			x.DefaultCacheBehavior.ForwardedValues.Headers = headerList("User-Agent")
		}, "InvalidHeadersForS3Origin"},
		"odd methods": {func(x c) {
			m := []api.Method{api.MethodGet, api.MethodHead, api.MethodPost}
			x.DefaultCacheBehavior.AllowedMethods = &api.AllowedMethods{Quantity: quantity(m), Items: m}
		}, "InvalidArgument"},
		"pattern":               {func(x c) { x.CacheBehaviors = behaviourFor("/a b") }, "InvalidArgument"},
		"the same pattern":      {func(x c) { x.CacheBehaviors = behaviourFor("/a/*", "a/*") }, "InvalidArgument"},
		"root with slash":       {func(x c) { x.DefaultRootObject = aws.Ptr("/index.html") }, "InvalidDefaultRootObject"},
		"error code":            {func(x c) { x.CustomErrorResponses = errorPage(418, "", "") }, "InvalidErrorCode"},
		"page without a code":   {func(x c) { x.CustomErrorResponses = errorPage(404, "/404.html", "") }, "InvalidArgument"},
		"response code":         {func(x c) { x.CustomErrorResponses = errorPage(404, "/404.html", "302") }, "InvalidResponseCode"},
		"error page":            {func(x c) { x.CustomErrorResponses = errorPage(404, "/404.html", "200") }, ""},
		"country":               {func(x c) { x.Restrictions = geo(api.GeoRestrictionTypeWhitelist, "XX") }, "InvalidGeoRestrictionParameter"},
		"countries for nothing": {func(x c) { x.Restrictions = geo(api.GeoRestrictionTypeNone, "CH") }, "InvalidGeoRestrictionParameter"},
		"geo":                   {func(x c) { x.Restrictions = geo(api.GeoRestrictionTypeWhitelist, "CH", "DE") }, ""},
		"alias not covered":     {func(x c) { x.Aliases = withAliases([]string{"www.example.net"}) }, "InvalidViewerCertificate"},
		"unknown certificate": {func(x c) {
			x.ViewerCertificate = &api.ViewerCertificate{ACMCertificateArn: aws.Ptr("arn:x"), SSLSupportMethod: api.SSLSupportMethodSniOnly}
		}, "InvalidViewerCertificate"},
		"dedicated address": {func(x c) {
			x.ViewerCertificate = &api.ViewerCertificate{ACMCertificateArn: taken.ViewerCertificate.ACMCertificateArn, SSLSupportMethod: api.SSLSupportMethodVip}
		}, "InvalidViewerCertificate"},
		"SSLv3 by SNI": {func(x c) {
			x.ViewerCertificate = clone(f, taken.ViewerCertificate)
			x.ViewerCertificate.MinimumProtocolVersion = api.MinimumProtocolVersionSSLv3
		}, "InvalidMinimumProtocolVersion"},
		"alias taken": {func(x c) {
			x.Aliases, x.ViewerCertificate = withAliases([]string{"SHOP.example.net"}), taken.ViewerCertificate
		}, "CNAMEAlreadyExists"},
		"alias by wildcard": {func(x c) {
			x.Aliases, x.ViewerCertificate = withAliases([]string{"a.img.example.net"}), taken.ViewerCertificate
		}, ""},
		"web ACL": {func(x c) { x.WebACLId = aws.Ptr("acl") }, "InvalidWebACLId"},
		"staging": {func(x c) { x.Staging = aws.Ptr(true) }, "InvalidArgument"},
		"signers by account": {func(x c) {
			x.DefaultCacheBehavior.TrustedSigners = &api.TrustedSigners{Enabled: aws.Ptr(true), Quantity: aws.Ptr[int32](1), Items: []string{"self"}}
		}, "InvalidArgument"},
		"unknown key group": {func(x c) {
			x.DefaultCacheBehavior.TrustedKeyGroups = &api.TrustedKeyGroups{Enabled: aws.Ptr(true), Quantity: aws.Ptr[int32](1), Items: []string{"g"}}
		}, "TrustedKeyGroupDoesNotExist"},
		"real-time log":          {func(x c) { x.DefaultCacheBehavior.RealtimeLogConfigArn = aws.Ptr("arn:x") }, "NoSuchRealtimeLogConfig"},
		"field-level encryption": {func(x c) { x.DefaultCacheBehavior.FieldLevelEncryptionId = aws.Ptr("C1") }, "NoSuchFieldLevelEncryptionConfig"},
		"Lambda": {func(x c) {
			x.DefaultCacheBehavior.LambdaFunctionAssociations = lambdaAt(api.EventTypeViewerRequest, edgeFunction)
		}, ""},
		"Lambda without version": {func(x c) {
			x.DefaultCacheBehavior.LambdaFunctionAssociations = lambdaAt(api.EventTypeViewerRequest, edgeFunction+"0:$LATEST")
		}, "InvalidLambdaFunctionAssociation"},
		"body of a response": {func(x c) {
			x.DefaultCacheBehavior.LambdaFunctionAssociations = lambdaAt(api.EventTypeViewerResponse, edgeFunction)
			x.DefaultCacheBehavior.LambdaFunctionAssociations.Items[0].IncludeBody = aws.Ptr(true)
		}, "InvalidLambdaFunctionAssociation"},
		"two at one event": {func(x c) {
			l := lambdaAt(api.EventTypeOriginRequest, edgeFunction)
			l.Items = append(l.Items, l.Items[0])
			l.Quantity = quantity(l.Items)
			x.DefaultCacheBehavior.LambdaFunctionAssociations = l
		}, "InvalidLambdaFunctionAssociation"},
		"function":               {func(x c) { x.DefaultCacheBehavior.FunctionAssociations = functionAt(api.EventTypeViewerRequest, live) }, ""},
		"function at the origin": {func(x c) { x.DefaultCacheBehavior.FunctionAssociations = functionAt(api.EventTypeOriginRequest, live) }, "InvalidFunctionAssociation"},
		"unknown function": {func(x c) {
			x.DefaultCacheBehavior.FunctionAssociations = functionAt(api.EventTypeViewerRequest, live+"x")
		}, "InvalidFunctionAssociation"},
		"both kinds at the viewer": {func(x c) {
			x.DefaultCacheBehavior.FunctionAssociations = functionAt(api.EventTypeViewerRequest, live)
			x.DefaultCacheBehavior.LambdaFunctionAssociations = lambdaAt(api.EventTypeViewerResponse, edgeFunction)
		}, "InvalidFunctionAssociation"},
		"both kinds, Lambda at the origin": {func(x c) {
			x.DefaultCacheBehavior.FunctionAssociations = functionAt(api.EventTypeViewerRequest, live)
			x.DefaultCacheBehavior.LambdaFunctionAssociations = lambdaAt(api.EventTypeOriginResponse, edgeFunction)
		}, ""},
		"comment":           {func(x c) { x.Comment = aws.Ptr(strings.Repeat("x", 129)) }, "InvalidArgument"},
		"logs to a bucket":  {func(x c) { x.Logging = logsIn("logs") }, ""},
		"no bucket of logs": {func(x c) { x.Logging = logsIn("other") }, "InvalidArgument"},
		"logs to no bucket": {func(x c) { x.Logging = &api.LoggingConfig{Enabled: aws.Ptr(true), Bucket: aws.Ptr("logs")} }, "InvalidArgument"},
	} {
		t.Run(name, func(t *testing.T) {
			x := config(name)
			test.change(x)
			_, err := f.CreateDistribution(t.Context(), &api.CreateDistributionInput{DistributionConfig: x})
			wantCode(t, err, test.code)
		})
	}
}

func logsIn(bucket string) *api.LoggingConfig {
	return &api.LoggingConfig{Enabled: aws.Ptr(true), Bucket: aws.Ptr(bucket + ".s3.amazonaws.com")}
}

func TestADistributionCanBeDisabledAfterItsBucketOfLogsIsDeleted(t *testing.T) {
	f := newFixture(t)
	c := config("one")
	c.Logging = logsIn("logs")
	made := f.create(c)
	delete(f.buckets, "logs")
	c = clone(f, made.Distribution.DistributionConfig)
	c.Enabled = aws.Ptr(false)
	if _, err := f.UpdateDistribution(t.Context(), &api.UpdateDistributionInput{Id: made.Distribution.Id, IfMatch: made.ETag, DistributionConfig: c}); err != nil {
		t.Error(err)
	}
}

func geo(kind api.GeoRestrictionType, countries ...string) *api.Restrictions {
	return &api.Restrictions{GeoRestriction: &api.GeoRestriction{RestrictionType: kind, Quantity: quantity(countries), Items: countries}}
}

// liveFunction publishes a CloudFront Function and returns its ARN.
func (f *fixture) liveFunction(name string) string {
	f.t.Helper()
	made, err := f.CreateFunction(f.t.Context(), &api.CreateFunctionInput{
		Name: &name, FunctionConfig: &api.FunctionConfig{Comment: aws.Ptr(""), Runtime: api.FunctionRuntimeCloudfrontJs20},
		FunctionCode: []byte("function handler(event) { return event.request; }"),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.PublishFunction(f.t.Context(), &api.PublishFunctionInput{Name: &name, IfMatch: made.ETag}); err != nil {
		f.t.Fatal(err)
	}
	return *made.FunctionSummary.FunctionMetadata.FunctionARN
}

// certificate puts the record of a certificate, as ACM does.
func (f *fixture) certificate(arn string, names ...string) {
	f.t.Helper()
	if _, err := f.records.Certificates.Put(f.t.Context(), arn, distribution.CertificateRecord{Format: distribution.Format, ARN: arn, Names: names}); err != nil {
		f.t.Fatal(err)
	}
}

func TestPoliciesAreChecked(t *testing.T) {
	cache := func(change func(*api.CachePolicyConfig)) error {
		c := &api.CachePolicyConfig{Name: aws.Ptr("p"), MinTTL: aws.Ptr[int64](1)}
		change(c)
		return checkCachePolicy(c)
	}
	key := func(c *api.CachePolicyConfig, headers ...string) {
		c.ParametersInCacheKeyAndForwardedToOrigin = &api.ParametersInCacheKeyAndForwardedToOrigin{
			EnableAcceptEncodingGzip: aws.Ptr(false),
			HeadersConfig:            &api.CachePolicyHeadersConfig{HeaderBehavior: api.CachePolicyHeaderBehaviorWhitelist, Headers: headerList(headers...)},
			CookiesConfig:            &api.CachePolicyCookiesConfig{CookieBehavior: api.CachePolicyCookieBehaviorNone},
			QueryStringsConfig:       &api.CachePolicyQueryStringsConfig{QueryStringBehavior: api.CachePolicyQueryStringBehaviorNone},
		}
	}
	for name, test := range map[string]struct {
		err  error
		code string
	}{
		"minimal":   {cache(func(*api.CachePolicyConfig) {}), ""},
		"TTL order": {cache(func(c *api.CachePolicyConfig) { c.MaxTTL = aws.Ptr[int64](0) }), "InvalidTTLOrder"},
		"header":    {cache(func(c *api.CachePolicyConfig) { key(c, "X-One") }), ""},
		"no header": {cache(func(c *api.CachePolicyConfig) { key(c) }), "InvalidArgument"},
		"twice":     {cache(func(c *api.CachePolicyConfig) { key(c, "X-One", "x-one") }), "InvalidArgument"},
		"eleven":    {cache(func(c *api.CachePolicyConfig) { key(c, strings.Split("a b c d e f g h i j k", " ")...) }), "TooManyHeadersInCachePolicy"},
		"nothing cached": {cache(func(c *api.CachePolicyConfig) {
			key(c, "X-One")
			c.MinTTL, c.MaxTTL = aws.Ptr[int64](0), aws.Ptr[int64](0)
		}), "InvalidArgument"},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, test.err, test.code) })
	}
}

func TestManagedPoliciesKeepTheirOwnRules(t *testing.T) {
	for _, p := range managedCachePolicies() {
		if err := checkCachePolicy(&p.Resource); err != nil {
			t.Errorf("%s: %v", *p.Resource.Name, err)
		}
	}
	for _, p := range managedOriginRequestPolicies() {
		if err := checkOriginRequestPolicy(&p.Resource); err != nil {
			t.Errorf("%s: %v", *p.Resource.Name, err)
		}
	}
	for _, p := range managedResponseHeadersPolicies() {
		if err := checkResponseHeadersPolicy(&p.Resource); err != nil {
			t.Errorf("%s: %v", *p.Resource.Name, err)
		}
	}
}

func TestInvalidationPathsAreChecked(t *testing.T) {
	f := newFixture(t)
	d := f.create(config("one"))
	f.locations.are(0) // nothing completes
	for _, test := range []struct {
		name  string
		paths []string
		code  string
	}{
		{"no path", nil, "InvalidArgument"},
		{"no slash", []string{"a"}, "InvalidArgument"},
		{"space", []string{"/a b"}, "InvalidArgument"},
		{"long", []string{"/" + strings.Repeat("a", 4000)}, "InvalidArgument"},
		{"wildcards", slicesRepeat("/*", 15), ""},
		{"one wildcard more", []string{"/a*"}, "TooManyInvalidationsInProgress"},
		{"plain", slicesRepeat("/a", 3000), ""},
		{"one plain more", []string{"/a"}, "TooManyInvalidationsInProgress"},
		{"large", slicesRepeat("/a", 3001), "BatchTooLarge"},
	} {
		_, err := f.CreateInvalidation(t.Context(), &api.CreateInvalidationInput{DistributionId: d.Distribution.Id, InvalidationBatch: &api.InvalidationBatch{
			CallerReference: aws.Ptr(test.name), Paths: &api.Paths{Quantity: quantity(test.paths), Items: test.paths},
		}})
		if got := code(err); got != test.code {
			t.Errorf("%s: error %v, want %q", test.name, err, test.code)
		}
	}
	f.locations.are(math.MaxUint64)
	if n := f.invalidationsInProgress(*d.Distribution.Id); n != 0 {
		t.Errorf("%d invalidations are in progress after every location has them", n)
	}
}

func slicesRepeat(s string, n int) (out []string) {
	for range n {
		out = append(out, s)
	}
	return out
}
