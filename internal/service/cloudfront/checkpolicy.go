package cloudfront

import (
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// Quotas of policies (CloudFront quotas).
const (
	maxPolicyNames  = 10   // headers, cookies or query strings
	maxNamesLength  = 1024 // of all of them together, in characters
	maxTTL          = 100 * 365 * 86400
	maxCustomHeader = 10
	maxCSP          = 1783
)

// checkTTLs checks TTLs that are complete.
func checkTTLs(least, otherwise, most *int64) error {
	if *least < 0 || *most > maxTTL {
		return api.NewInvalidArgument("The parameter MinTTL, DefaultTTL or MaxTTL is out of range.")
	}
	if *least > *otherwise || *otherwise > *most {
		return api.NewInvalidTTLOrder("The order of TTLs is not valid: MinTTL must not be greater than DefaultTTL, nor DefaultTTL greater than MaxTTL.")
	}
	return nil
}

// checkNames checks the names that go with a mode of choosing.
func checkNames(parameter, mode string, named bool, names []string, tooMany func(string, ...any) *aws.Error) error {
	switch mode {
	case "whitelist", "allExcept", "allViewerAndWhitelistCloudFront":
		if len(names) == 0 {
			return api.NewInvalidArgument("The parameter %s needs at least one name where the behavior is %s.", parameter, mode)
		}
	default:
		if named && len(names) > 0 {
			return api.NewInvalidArgument("The parameter %s cannot have names where the behavior is %s.", parameter, mode)
		}
	}
	length := 0
	for i, name := range names {
		if name == "" || slices.ContainsFunc(names[:i], func(n string) bool { return strings.EqualFold(n, name) }) {
			return api.NewInvalidArgument("The parameter %s contains an empty or a repeated name.", parameter)
		}
		length += len(name)
	}
	if len(names) > maxPolicyNames && mode != "allViewerAndWhitelistCloudFront" || length > maxNamesLength {
		return tooMany("The number of %s exceeds the maximum of %d allowed in a policy.", parameter, maxPolicyNames)
	}
	return nil
}

// checkCachePolicy completes and checks a cache policy.
func checkCachePolicy(c *api.CachePolicyConfig) error {
	c.Comment = or(c.Comment, "")
	c.DefaultTTL, c.MaxTTL = fillTTL(c.MinTTL, c.DefaultTTL, c.MaxTTL)
	if err := checkTTLs(c.MinTTL, c.DefaultTTL, c.MaxTTL); err != nil {
		return err
	}
	k := c.ParametersInCacheKeyAndForwardedToOrigin
	if k == nil {
		k = &api.ParametersInCacheKeyAndForwardedToOrigin{
			EnableAcceptEncodingGzip: aws.Ptr(false),
			HeadersConfig:            &api.CachePolicyHeadersConfig{HeaderBehavior: api.CachePolicyHeaderBehaviorNone},
			CookiesConfig:            &api.CachePolicyCookiesConfig{CookieBehavior: api.CachePolicyCookieBehaviorNone},
			QueryStringsConfig:       &api.CachePolicyQueryStringsConfig{QueryStringBehavior: api.CachePolicyQueryStringBehaviorNone},
		}
		c.ParametersInCacheKeyAndForwardedToOrigin = k
	}
	k.EnableAcceptEncodingBrotli = or(k.EnableAcceptEncodingBrotli, false)
	h, n, q := k.HeadersConfig, k.CookiesConfig, k.QueryStringsConfig
	if *c.MaxTTL == 0 {
		for parameter, set := range map[string]bool{
			"HeaderBehavior": h.HeaderBehavior != "none", "CookieBehavior": n.CookieBehavior != "none", "QueryStringBehavior": q.QueryStringBehavior != "none",
			"EnableAcceptEncodingGzip": *k.EnableAcceptEncodingGzip, "EnableAcceptEncodingBrotli": *k.EnableAcceptEncodingBrotli,
		} {
			if set {
				return api.NewInvalidArgument("The parameter %s is invalid for policy with caching disabled.", parameter)
			}
		}
	}
	if h.Headers != nil && slices.Contains(h.Headers.Items, "*") {
		return api.NewInvalidArgument("The parameter Headers contains * that is not allowed.")
	}
	if err := checkNames("Headers", string(h.HeaderBehavior), h.Headers != nil, items(h.Headers), api.NewTooManyHeadersInCachePolicy); err != nil {
		return err
	}
	if err := checkNames("Cookies", string(n.CookieBehavior), n.Cookies != nil, cookieItems(n.Cookies), api.NewTooManyCookiesInCachePolicy); err != nil {
		return err
	}
	return checkNames("QueryStrings", string(q.QueryStringBehavior), q.QueryStrings != nil, queryItems(q.QueryStrings), api.NewTooManyQueryStringsInCachePolicy)
}

func items(h *api.Headers) []string {
	if h == nil {
		return nil
	}
	return h.Items
}

func cookieItems(n *api.CookieNames) []string {
	if n == nil {
		return nil
	}
	return n.Items
}

func queryItems(n *api.QueryStringNames) []string {
	if n == nil {
		return nil
	}
	return n.Items
}

// notForwarded are headers that an origin request policy cannot name (CloudFront
// developer guide, "Control origin requests with a policy").
var notForwarded = []string{"authorization", "accept-encoding", "connection", "content-length", "expect", "keep-alive", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-real-ip"}

// checkOriginRequestPolicy completes and checks an origin request policy.
func checkOriginRequestPolicy(c *api.OriginRequestPolicyConfig) error {
	c.Comment = or(c.Comment, "")
	h, n, q := c.HeadersConfig, c.CookiesConfig, c.QueryStringsConfig
	for _, name := range items(h.Headers) {
		lower := strings.ToLower(name)
		if h.HeaderBehavior == api.OriginRequestPolicyHeaderBehaviorWhitelist && (slices.Contains(notForwarded, lower) || strings.HasPrefix(lower, "x-amz-cf-") || name == "*") {
			return api.NewInvalidArgument("The parameter Headers contains %s that is not allowed.", name)
		}
		if h.HeaderBehavior == api.OriginRequestPolicyHeaderBehaviorAllViewerAndWhitelistCloudFront && !strings.HasPrefix(lower, "cloudfront-") {
			return api.NewInvalidArgument("The parameter Headers contains %s that is not allowed: only CloudFront headers are.", name)
		}
	}
	if err := checkNames("Headers", string(h.HeaderBehavior), h.Headers != nil, items(h.Headers), api.NewTooManyHeadersInOriginRequestPolicy); err != nil {
		return err
	}
	if err := checkNames("Cookies", string(n.CookieBehavior), n.Cookies != nil, cookieItems(n.Cookies), api.NewTooManyCookiesInOriginRequestPolicy); err != nil {
		return err
	}
	return checkNames("QueryStrings", string(q.QueryStringBehavior), q.QueryStrings != nil, queryItems(q.QueryStrings), api.NewTooManyQueryStringsInOriginRequestPolicy)
}

// Headers that response headers policies can neither add nor remove (CloudFront
// developer guide, "Understand response headers policies").
var (
	notAdded   = []string{"connection", "content-encoding", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via", "warning", "x-cache", "x-real-ip"}
	notRemoved = append([]string{"expect", "x-forwarded-proto"}, notAdded...)
)

// checkResponseHeadersPolicy completes and checks a response headers policy.
func checkResponseHeadersPolicy(c *api.ResponseHeadersPolicyConfig) error {
	c.Comment = or(c.Comment, "")
	if c.CorsConfig == nil && c.SecurityHeadersConfig == nil && c.ServerTimingHeadersConfig == nil && c.CustomHeadersConfig == nil && c.RemoveHeadersConfig == nil {
		return api.NewInvalidArgument("The parameter ResponseHeadersPolicyConfig must have at least one configuration of headers.")
	}
	if cors := c.CorsConfig; cors != nil {
		for parameter, n := range map[string]int{
			"AccessControlAllowOrigins": len(cors.AccessControlAllowOrigins.Items), "AccessControlAllowHeaders": len(cors.AccessControlAllowHeaders.Items),
			"AccessControlAllowMethods": len(cors.AccessControlAllowMethods.Items),
		} {
			if n == 0 {
				return api.NewInvalidArgument("The parameter %s must have at least one item.", parameter)
			}
		}
		if *cors.AccessControlAllowCredentials && (slices.Contains(cors.AccessControlAllowHeaders.Items, "*") || slices.Contains(cors.AccessControlAllowMethods.Items, api.ResponseHeadersPolicyAccessControlAllowMethodsValuesAll)) {
			return api.NewInvalidArgument("The parameter AccessControlAllowCredentials cannot be true where all headers or all methods are allowed.")
		}
	}
	if h := c.SecurityHeadersConfig; h != nil {
		if err := checkSecurityHeaders(h); err != nil {
			return err
		}
	}
	if t := c.ServerTimingHeadersConfig; t != nil {
		if t.SamplingRate == nil && *t.Enabled {
			return api.NewInvalidArgument("The parameter SamplingRate is required where the Server-Timing header is enabled.")
		}
	}
	return checkCustomHeaders(c)
}

func checkSecurityHeaders(h *api.ResponseHeadersPolicySecurityHeadersConfig) error {
	if x := h.XSSProtection; x != nil && !*x.Protection && (aws.Value(x.ModeBlock) || aws.Value(x.ReportUri) != "") || x != nil && aws.Value(x.ModeBlock) && aws.Value(x.ReportUri) != "" {
		return api.NewInvalidArgument("The parameter XSSProtection is not valid: ModeBlock and ReportUri need Protection, and exclude each other.")
	}
	if x := h.ContentSecurityPolicy; x != nil && len(*x.ContentSecurityPolicy) > maxCSP {
		return api.NewTooLongCSPInResponseHeadersPolicy("The length of the Content-Security-Policy header value exceeds the maximum of %d.", maxCSP)
	}
	if x := h.StrictTransportSecurity; x != nil && *x.AccessControlMaxAgeSec < 0 {
		return api.NewInvalidArgument("The parameter AccessControlMaxAgeSec must not be negative.")
	}
	return nil
}

func checkCustomHeaders(c *api.ResponseHeadersPolicyConfig) error {
	if h := c.CustomHeadersConfig; h != nil {
		if len(h.Items) > maxCustomHeader {
			return api.NewTooManyCustomHeadersInResponseHeadersPolicy("The number of custom headers exceeds the maximum of %d.", maxCustomHeader)
		}
		for _, h := range h.Items {
			if !validHeader(*h.Header) || slices.Contains(notAdded, strings.ToLower(*h.Header)) || strings.HasPrefix(strings.ToLower(*h.Header), "x-amz-cf-") || strings.ContainsAny(*h.Value, "\r\n\x00") {
				return api.NewInvalidArgument("The parameter CustomHeadersConfig contains %s that is not allowed.", *h.Header)
			}
		}
	}
	if h := c.RemoveHeadersConfig; h != nil {
		if len(h.Items) > maxCustomHeader {
			return api.NewTooManyRemoveHeadersInResponseHeadersPolicy("The number of headers to be removed exceeds the maximum of %d.", maxCustomHeader)
		}
		for _, h := range h.Items {
			if !validHeader(*h.Header) || slices.Contains(notRemoved, strings.ToLower(*h.Header)) || strings.HasPrefix(strings.ToLower(*h.Header), "x-amz-cf-") {
				return api.NewInvalidArgument("The parameter RemoveHeadersConfig contains %s that is not allowed.", *h.Header)
			}
		}
	}
	return nil
}

// validHeader tells whether a name is a header's (RFC 9110, token).
func validHeader(name string) bool {
	return name != "" && len(name) <= 256 && httpguts.ValidHeaderFieldName(name)
}
