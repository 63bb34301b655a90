package cloudfront

import (
	"context"
	"slices"
	"strings"

	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Quotas of behaviours and edge functions (CloudFront quotas).
const (
	maxForwardedHeaders = 10
	maxForwardedCookies = 10
	maxForwardedQueries = 10
	maxWithLambda       = 500 // distributions of an account
	maxOfOneFunction    = 500 // distributions that associate one function
)

// checkPattern checks a path pattern (CloudFront developer guide, "Path pattern").
func checkPattern(p string) error {
	const others = `_-.*?$/~"'@:+&`
	if p == "" || len(p) > 255 || strings.ContainsFunc(p, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r))
	}) {
		return api.NewInvalidArgument("The parameter PathPattern is not valid: %s", p)
	}
	return nil
}

func (s *Service) checkBehaviour(c *api.DistributionConfig, b *api.CacheBehavior) error {
	var origin *api.Origin
	for _, o := range c.Origins.Items {
		if *o.Id == *b.TargetOriginId {
			origin = o
		}
	}
	if origin == nil && !slices.ContainsFunc(c.OriginGroups.Items, func(g *api.OriginGroup) bool { return *g.Id == *b.TargetOriginId }) {
		return noSuchOrigin()
	}
	if err := checkMethods(b.AllowedMethods); err != nil {
		return err
	}
	if err := s.checkPolicies(b); err != nil {
		return err
	}
	if b.ForwardedValues != nil {
		if err := checkForwardedValues(b, origin); err != nil {
			return err
		}
	}
	if err := s.checkTrust(b); err != nil {
		return err
	}
	switch {
	case *b.FieldLevelEncryptionId != "":
		return api.NewNoSuchFieldLevelEncryptionConfig("Field-level encryption is not supported by Lapwing (FieldLevelEncryptionId).")
	case *b.SmoothStreaming:
		return unsupported("Microsoft Smooth Streaming (SmoothStreaming)")
	case b.RealtimeLogConfigArn != nil && !s.hasRealtimeLog(*b.RealtimeLogConfigArn):
		return s.realtimeLogs.missing
	case *b.GrpcConfig.Enabled && len(b.AllowedMethods.Items) != 7:
		return api.NewInvalidArgument("The parameter GrpcConfig needs the method POST: all methods must be allowed.")
	case *b.GrpcConfig.Enabled && c.HttpVersion != api.HttpVersionHttp2 && c.HttpVersion != api.HttpVersionHttp2and3:
		return api.NewInvalidArgument("The parameter GrpcConfig needs HTTP/2: HttpVersion must be http2 or http2and3.")
	}
	return s.checkFunctions(b)
}

// checkMethods checks that the methods are one of the sets that there are.
func checkMethods(m *api.AllowedMethods) error {
	set := func(list []api.Method, n int, with ...api.Method) bool {
		for _, method := range append(with, api.MethodGet, api.MethodHead) {
			if !slices.Contains(list, method) {
				return false
			}
		}
		return len(list) == n
	}
	a := m.Items
	if !set(a, 2) && !set(a, 3, api.MethodOptions) && !set(a, 7, api.MethodOptions, api.MethodPut, api.MethodPost, api.MethodPatch, api.MethodDelete) {
		return api.NewInvalidArgument("The parameter AllowedMethods is not valid: it is GET and HEAD, these and OPTIONS, or all seven methods.")
	}
	if cached := m.CachedMethods.Items; !set(cached, 2) && !(set(cached, 3, api.MethodOptions) && slices.Contains(a, api.MethodOptions)) {
		return api.NewInvalidArgument("The parameter CachedMethods is not valid: it is GET and HEAD, or these and OPTIONS where that is allowed.")
	}
	return nil
}

// checkPolicies checks that what a behaviour names is there, and that it has
// either a cache policy or the settings from before there were any.
func (s *Service) checkPolicies(b *api.CacheBehavior) error {
	if b.ResponseHeadersPolicyId != nil {
		if _, err := s.responseHeadersPolicies.get(b.ResponseHeadersPolicyId); err != nil {
			return err
		}
	}
	if b.CachePolicyId == nil {
		switch {
		case b.OriginRequestPolicyId != nil:
			return api.NewInvalidArgument("The parameter CachePolicyId is required where OriginRequestPolicyId is there.")
		case b.ForwardedValues == nil:
			return api.NewInvalidArgument("The parameter ForwardedValues is required.")
		case b.MinTTL == nil:
			return api.NewInvalidArgument("The parameter MinTTL is required.")
		}
		return checkTTLs(b.MinTTL, b.DefaultTTL, b.MaxTTL)
	}
	for _, legacy := range []struct {
		parameter string
		given     bool
	}{{"ForwardedValues", b.ForwardedValues != nil}, {"MinTTL", b.MinTTL != nil}, {"DefaultTTL", b.DefaultTTL != nil}, {"MaxTTL", b.MaxTTL != nil}} {
		if legacy.given {
			return api.NewInvalidArgument("The parameter %s cannot be used when a cache policy is associated to the cache behavior.", legacy.parameter)
		}
	}
	if _, err := s.cachePolicies.get(b.CachePolicyId); err != nil {
		return err
	}
	if b.OriginRequestPolicyId != nil {
		if _, err := s.originRequestPolicies.get(b.OriginRequestPolicyId); err != nil {
			return err
		}
	}
	return nil
}

// headersForS3 are those that S3 origins may get by ForwardedValues.
var headersForS3 = []string{"access-control-request-headers", "access-control-request-method", "origin"}

func checkForwardedValues(b *api.CacheBehavior, origin *api.Origin) error {
	f := b.ForwardedValues
	names := cookieItems(f.Cookies.WhitelistedNames)
	if (f.Cookies.Forward == api.ItemSelectionWhitelist) != (len(names) > 0) {
		return api.NewInvalidForwardCookies("Your request contains forward cookies option which doesn't match with the expectation for the whitelisted list of cookie names.")
	}
	if len(names) > maxForwardedCookies {
		return api.NewTooManyCookieNamesInWhiteList("Your request contains more cookie names in the whitelist than are allowed per cache behavior: %d.", maxForwardedCookies)
	}
	if len(f.Headers.Items) > maxForwardedHeaders {
		return api.NewTooManyHeadersInForwardedValues("Your request contains too many headers in forwarded values: at most %d.", maxForwardedHeaders)
	}
	if len(f.QueryStringCacheKeys.Items) > maxForwardedQueries {
		return api.NewTooManyQueryStringParameters("Your request contains too many query string parameters: at most %d.", maxForwardedQueries)
	}
	if !*f.QueryString && len(f.QueryStringCacheKeys.Items) > 0 {
		return api.NewInvalidQueryStringParameters("The query string parameters specified are not valid: they need QueryString.")
	}
	for _, name := range f.Headers.Items {
		if name == "*" && len(f.Headers.Items) > 1 || name != "*" && !validHeader(name) {
			return api.NewInvalidArgument("The parameter Headers contains %s that is not allowed.", name)
		}
		if origin != nil && origin.S3OriginConfig != nil && !slices.Contains(headersForS3, strings.ToLower(name)) {
			return api.NewInvalidHeadersForS3Origin("The headers specified are not valid for an Amazon S3 origin.")
		}
	}
	return nil
}

// checkTrust checks whose signatures a behaviour asks for.
func (s *Service) checkTrust(b *api.CacheBehavior) error {
	if *b.TrustedSigners.Enabled || len(b.TrustedSigners.Items) > 0 {
		return unsupported("Trusted signers by AWS account (TrustedSigners)")
	}
	t := b.TrustedKeyGroups
	if *t.Enabled != (len(t.Items) > 0) {
		return api.NewInvalidArgument("The parameter TrustedKeyGroups must have key groups if, and only if, it is enabled.")
	}
	if len(t.Items) > maxGroupsOfOne {
		return api.NewTooManyKeyGroupsAssociatedToDistribution("The number of key groups referenced by this cache behavior is more than the maximum allowed: %d.", maxGroupsOfOne)
	}
	for _, id := range t.Items {
		if _, ok := s.keyGroups.find(id); !ok {
			return api.NewTrustedKeyGroupDoesNotExist("The specified key group does not exist: %s", id)
		}
	}
	return nil
}

func viewerEvent(e api.EventType) bool {
	return e == api.EventTypeViewerRequest || e == api.EventTypeViewerResponse
}

// checkFunctions checks the CloudFront Functions of a behaviour.
func (s *Service) checkFunctions(b *api.CacheBehavior) error {
	list := b.FunctionAssociations.Items
	if len(list) > 2 {
		return api.NewTooManyFunctionAssociations("You have reached the maximum number of CloudFront function associations for this cache behavior: 2.")
	}
	for i, a := range list {
		if !viewerEvent(a.EventType) {
			return api.NewInvalidFunctionAssociation("A CloudFront function cannot be associated with the event type %s: only with viewer-request and viewer-response.", a.EventType)
		}
		if slices.ContainsFunc(list[:i], func(o *api.FunctionAssociation) bool { return o.EventType == a.EventType }) {
			return api.NewInvalidFunctionAssociation("A cache behavior cannot have more than one function for the event type %s.", a.EventType)
		}
		name := (*a.FunctionARN)[strings.LastIndexByte(*a.FunctionARN, '/')+1:]
		f, ok := s.functions.find(name)
		if !ok || *a.FunctionARN != s.functionARN(name) || f.Resource.Live == nil {
			return api.NewInvalidFunctionAssociation("The function does not exist or was not published to the LIVE stage: %s", *a.FunctionARN)
		}
	}
	if len(list) > 0 && slices.ContainsFunc(b.LambdaFunctionAssociations.Items, func(a *api.LambdaFunctionAssociation) bool { return viewerEvent(a.EventType) }) {
		return api.NewInvalidFunctionAssociation("A cache behavior cannot have both CloudFront functions and Lambda functions for viewer events.")
	}
	return nil
}

// checkLambda checks the associations with Lambda functions, and returns what
// edge locations run for them.
func (s *Service) checkLambda(ctx context.Context, id string, c *api.DistributionConfig) (replicas []distribution.LambdaReplica, err error) {
	arns := map[string]bool{}
	for _, b := range behaviours(c) {
		list := b.LambdaFunctionAssociations.Items
		if len(list) > 4 {
			return nil, api.NewTooManyLambdaFunctionAssociations("Your request contains more Lambda@Edge function associations than are allowed per cache behavior: 4.")
		}
		for i, a := range list {
			if slices.ContainsFunc(list[:i], func(o *api.LambdaFunctionAssociation) bool { return o.EventType == a.EventType }) {
				return nil, api.NewInvalidLambdaFunctionAssociation("A cache behavior cannot have more than one Lambda function for the event type %s.", a.EventType)
			}
			if *a.IncludeBody && a.EventType != api.EventTypeViewerRequest && a.EventType != api.EventTypeOriginRequest {
				return nil, api.NewInvalidLambdaFunctionAssociation("The parameter IncludeBody is only allowed with the event types viewer-request and origin-request.")
			}
			r, err := s.opts.Functions.Replica(ctx, *a.LambdaFunctionARN, distribution.EventType(a.EventType), s.opts.Strict2023)
			if err != nil {
				return nil, err
			}
			if !arns[r.ARN] {
				arns[r.ARN] = true
				replicas = append(replicas, r)
			}
		}
	}
	return replicas, s.checkLambdaQuotas(id, arns)
}

func (s *Service) checkLambdaQuotas(id string, arns map[string]bool) error {
	if len(arns) == 0 {
		return nil
	}
	with, of := 0, map[string]int{}
	for d := range s.records.Distributions.Scan("", "") {
		used := map[string]bool{}
		for i := range d.Value.Behaviours {
			for _, a := range d.Value.Behaviours[i].Functions {
				used[a.ARN] = true
			}
		}
		if d.Key == id || len(used) == 0 {
			continue
		}
		with++
		for arn := range used {
			of[arn]++
		}
	}
	if with >= maxWithLambda {
		return api.NewTooManyDistributionsWithLambdaAssociations("Processing your request would cause the maximum number of distributions with Lambda@Edge function associations per owner to be exceeded: %d.", maxWithLambda)
	}
	for arn := range arns {
		if of[arn] >= maxOfOneFunction {
			return api.NewTooManyDistributionsWithSingleFunctionARN("The maximum number of distributions have been associated with the specified Lambda@Edge function: %d.", maxOfOneFunction)
		}
	}
	return nil
}
