package cloudfront

import (
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// managedSince is when managed policies were last changed.
var managedSince = time.Date(2020, 7, 10, 0, 0, 0, 0, time.UTC)

// managedPolicy makes the record of a policy that AWS gives everybody.
func managedPolicy[C any](id string, c C) record[C] {
	return record[C]{Format: format, ID: id, ETag: "E" + strings.ToUpper(strings.ReplaceAll(id, "-", "")[:13]), Created: managedSince, Modified: managedSince, Resource: c}
}

func byID[C any](list ...record[C]) []record[C] {
	slices.SortFunc(list, func(a, b record[C]) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func quantity[T any](items []T) *int32 { return aws.Ptr(int32(len(items))) }

func headerList(names ...string) *api.Headers {
	return &api.Headers{Quantity: quantity(names), Items: names}
}

// managedCachePolicies are AWS's cache policies (CloudFront developer guide,
// "Using the managed cache policies").
func managedCachePolicies() []record[api.CachePolicyConfig] {
	policy := func(id, name, comment string, least, otherwise, most int64, gzip, brotli bool,
		cookies api.CachePolicyCookieBehavior, queries api.CachePolicyQueryStringBehavior, query []string, headers ...string) record[api.CachePolicyConfig] {
		p := &api.ParametersInCacheKeyAndForwardedToOrigin{
			EnableAcceptEncodingGzip: &gzip, EnableAcceptEncodingBrotli: &brotli,
			HeadersConfig:      &api.CachePolicyHeadersConfig{HeaderBehavior: api.CachePolicyHeaderBehaviorNone},
			CookiesConfig:      &api.CachePolicyCookiesConfig{CookieBehavior: cookies},
			QueryStringsConfig: &api.CachePolicyQueryStringsConfig{QueryStringBehavior: queries},
		}
		if len(headers) > 0 {
			p.HeadersConfig = &api.CachePolicyHeadersConfig{HeaderBehavior: api.CachePolicyHeaderBehaviorWhitelist, Headers: headerList(headers...)}
		}
		if len(query) > 0 {
			p.QueryStringsConfig.QueryStrings = &api.QueryStringNames{Quantity: quantity(query), Items: query}
		}
		return managedPolicy(id, api.CachePolicyConfig{
			Name: aws.Ptr("Managed-" + name), Comment: &comment, MinTTL: &least, DefaultTTL: &otherwise, MaxTTL: &most, ParametersInCacheKeyAndForwardedToOrigin: p,
		})
	}
	const (
		day, year              = defaultTTL, defaultMaxTTL
		noCookies, allCookies  = api.CachePolicyCookieBehaviorNone, api.CachePolicyCookieBehaviorAll
		noQueries, someQueries = api.CachePolicyQueryStringBehaviorNone, api.CachePolicyQueryStringBehaviorWhitelist
		allQueries             = api.CachePolicyQueryStringBehaviorAll
	)
	methodOverrides := []string{"Host", "Origin", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"}
	return byID(
		policy("658327ea-f89d-4fab-a63d-7e88639e58f6", "CachingOptimized", "Policy with caching enabled. Supports Gzip and Brotli compression.",
			1, day, year, true, true, noCookies, noQueries, nil),
		policy("b2884449-e4de-46a7-ac36-70bc7f1ddd6d", "CachingOptimizedForUncompressedObjects", "Default policy when compression is disabled",
			1, day, year, false, false, noCookies, noQueries, nil),
		policy("4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "CachingDisabled", "Policy with caching disabled",
			0, 0, 0, false, false, noCookies, noQueries, nil),
		policy("08627262-05a9-4f76-9ded-b50ca2e3a84f", "Elemental-MediaPackage", "Policy for Elemental MediaPackage Origin",
			0, day, year, true, false, noCookies, someQueries, []string{"aws.manifestfilter", "start", "end", "m"}, "Origin"),
		policy("2e54312d-136d-493c-8eb9-b001f22f67d2", "Amplify", "Policy for Amplify Origin",
			2, 2, 600, true, true, allCookies, allQueries, nil, "Authorization", "CloudFront-Viewer-Country", "Host"),
		policy("83da9c7e-98b4-4e11-a168-04f0df8e2c65", "UseOriginCacheControlHeaders", "Policy for origins that return Cache-Control headers. Query strings are not included in the cache key.",
			0, 0, year, true, true, allCookies, noQueries, nil, methodOverrides...),
		policy("4cc15a8a-d715-48a4-82b8-cc0b614638fe", "UseOriginCacheControlHeaders-QueryStrings", "Policy for origins that return Cache-Control headers and serve different content based on values present in the query string.",
			0, 0, year, true, true, allCookies, allQueries, nil, methodOverrides...),
	)
}

// managedOriginRequestPolicies are AWS's origin request policies (CloudFront
// developer guide, "Using the managed origin request policies").
func managedOriginRequestPolicies() []record[api.OriginRequestPolicyConfig] {
	policy := func(id, name, comment string, all bool, behaviour api.OriginRequestPolicyHeaderBehavior, headers ...string) record[api.OriginRequestPolicyConfig] {
		c := api.OriginRequestPolicyConfig{
			Name: aws.Ptr("Managed-" + name), Comment: &comment,
			HeadersConfig:      &api.OriginRequestPolicyHeadersConfig{HeaderBehavior: behaviour},
			CookiesConfig:      &api.OriginRequestPolicyCookiesConfig{CookieBehavior: api.OriginRequestPolicyCookieBehaviorNone},
			QueryStringsConfig: &api.OriginRequestPolicyQueryStringsConfig{QueryStringBehavior: api.OriginRequestPolicyQueryStringBehaviorNone},
		}
		if len(headers) > 0 {
			c.HeadersConfig.Headers = headerList(headers...)
		}
		if all {
			c.CookiesConfig.CookieBehavior = api.OriginRequestPolicyCookieBehaviorAll
			c.QueryStringsConfig.QueryStringBehavior = api.OriginRequestPolicyQueryStringBehaviorAll
		}
		return managedPolicy(id, c)
	}
	const some = api.OriginRequestPolicyHeaderBehaviorWhitelist
	mediaTailor := policy("775133bc-15f2-49f9-abea-afb2e0bf67d2", "Elemental-MediaTailor-PersonalizedManifests", "Policy for Elemental MediaTailor Origin", false,
		some, "Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method", "User-Agent", "X-Forwarded-For")
	mediaTailor.Resource.QueryStringsConfig.QueryStringBehavior = api.OriginRequestPolicyQueryStringBehaviorAll
	return byID(mediaTailor,
		policy("216adef6-5c7f-47e4-b989-5492eafa07d3", "AllViewer", "Policy to forward all parameters in viewer requests", true, api.OriginRequestPolicyHeaderBehaviorAllViewer),
		policy("b689b0a8-53d0-40ab-baf2-68738e2966ac", "AllViewerExceptHostHeader", "Policy to forward all parameters in viewer requests except for the Host header", true,
			api.OriginRequestPolicyHeaderBehaviorAllExcept, "Host"),
		policy("33f36d7e-f396-46d9-90e0-52428a34d9dc", "AllViewerAndCloudFrontHeaders-2022-06", "Policy to forward all parameters in viewer requests and all CloudFront headers that were released through June 2022", true,
			api.OriginRequestPolicyHeaderBehaviorAllViewerAndWhitelistCloudFront,
			"CloudFront-Forwarded-Proto", "CloudFront-Is-Android-Viewer", "CloudFront-Is-Desktop-Viewer", "CloudFront-Is-IOS-Viewer", "CloudFront-Is-Mobile-Viewer",
			"CloudFront-Is-SmartTV-Viewer", "CloudFront-Is-Tablet-Viewer", "CloudFront-Viewer-Address", "CloudFront-Viewer-ASN", "CloudFront-Viewer-City",
			"CloudFront-Viewer-Country", "CloudFront-Viewer-Country-Name", "CloudFront-Viewer-Country-Region", "CloudFront-Viewer-Country-Region-Name",
			"CloudFront-Viewer-Http-Version", "CloudFront-Viewer-Latitude", "CloudFront-Viewer-Longitude", "CloudFront-Viewer-Metro-Code",
			"CloudFront-Viewer-Postal-Code", "CloudFront-Viewer-Time-Zone", "CloudFront-Viewer-TLS"),
		policy("88a5eaf4-2fd4-4709-b370-b4c650ea3fcf", "CORS-S3Origin", "Policy for S3 origin with CORS", false,
			some, "Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method"),
		policy("59781a5b-3903-41f3-afcb-af62929ccde1", "CORS-CustomOrigin", "Policy for custom origin with CORS", false, some, "Origin"),
		policy("acba4595-bd28-49b8-b9fe-13317c0390fa", "UserAgentRefererHeaders", "Policy to forward user-agent and referer headers to origin", false, some, "User-Agent", "Referer"),
	)
}

// managedResponseHeadersPolicies are AWS's response headers policies (CloudFront
// developer guide, "Using the managed response headers policies").
func managedResponseHeadersPolicies() []record[api.ResponseHeadersPolicyConfig] {
	type method = api.ResponseHeadersPolicyAccessControlAllowMethodsValues
	cors := func(expose []string, methods ...method) *api.ResponseHeadersPolicyCorsConfig {
		any := []string{"*"}
		c := &api.ResponseHeadersPolicyCorsConfig{
			AccessControlAllowOrigins:     &api.ResponseHeadersPolicyAccessControlAllowOrigins{Quantity: quantity(any), Items: any},
			AccessControlAllowHeaders:     &api.ResponseHeadersPolicyAccessControlAllowHeaders{Quantity: quantity(any), Items: any},
			AccessControlAllowMethods:     &api.ResponseHeadersPolicyAccessControlAllowMethods{Quantity: quantity(methods), Items: methods},
			AccessControlAllowCredentials: aws.Ptr(false), OriginOverride: aws.Ptr(false),
		}
		if len(expose) > 0 {
			c.AccessControlExposeHeaders = &api.ResponseHeadersPolicyAccessControlExposeHeaders{Quantity: quantity(expose), Items: expose}
		}
		return c
	}
	simple := cors(nil, "GET", "HEAD")
	preflight := cors([]string{"*"}, "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
	yes, no := aws.Ptr(true), aws.Ptr(false)
	security := &api.ResponseHeadersPolicySecurityHeadersConfig{
		XSSProtection:           &api.ResponseHeadersPolicyXSSProtection{Override: no, Protection: yes, ModeBlock: yes},
		FrameOptions:            &api.ResponseHeadersPolicyFrameOptions{Override: no, FrameOption: api.FrameOptionsListSameorigin},
		ReferrerPolicy:          &api.ResponseHeadersPolicyReferrerPolicy{Override: no, ReferrerPolicy: api.ReferrerPolicyListStrictOriginWhenCrossOrigin},
		ContentTypeOptions:      &api.ResponseHeadersPolicyContentTypeOptions{Override: yes},
		StrictTransportSecurity: &api.ResponseHeadersPolicyStrictTransportSecurity{Override: no, AccessControlMaxAgeSec: aws.Ptr[int32](31536000)},
	}
	policy := func(id, name, comment string, cors *api.ResponseHeadersPolicyCorsConfig, security *api.ResponseHeadersPolicySecurityHeadersConfig) record[api.ResponseHeadersPolicyConfig] {
		return managedPolicy(id, api.ResponseHeadersPolicyConfig{Name: aws.Ptr("Managed-" + name), Comment: &comment, CorsConfig: cors, SecurityHeadersConfig: security})
	}
	return byID(
		policy("60669652-455b-4ae9-85a4-c4c02393f86c", "SimpleCORS", "Allows all origins for simple CORS requests", simple, nil),
		policy("5cc3b908-e619-4b99-88e5-2cf7f45965bd", "CORS-With-Preflight", "Allows all origins for CORS requests, including preflight requests", preflight, nil),
		policy("67f7725c-6f97-4210-82d7-5512b31e9d03", "SecurityHeadersPolicy", "Adds a set of security headers to every response", nil, security),
		policy("e61eb60c-9c35-4d20-a928-2b84e02af89c", "CORS-and-SecurityHeadersPolicy", "Allows all origins for simple CORS requests and adds security headers", simple, security),
		policy("eaab4381-ed33-4a86-88ca-d9558dc6cd63", "CORS-with-preflight-and-SecurityHeadersPolicy", "Allows all origins for CORS requests, including preflight requests, and adds security headers", preflight, security),
	)
}
