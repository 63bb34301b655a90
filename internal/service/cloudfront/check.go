package cloudfront

import (
	"context"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Quotas of a distribution (CloudFront quotas).
const (
	maxAliases    = 100
	maxOrigins    = 100
	maxGroups     = 10
	maxBehaviours = 75 // beside the default
	// maxOriginHeaders is the quota of custom headers of an origin.
	maxOriginHeaders = 30
)

// checkDistribution says what is wrong with a configuration that is complete, and
// returns the versions of Lambda functions that it associates. id is the
// distribution's.
func (s *Service) checkDistribution(ctx context.Context, id string, c *api.DistributionConfig) ([]distribution.LambdaReplica, error) {
	for _, check := range []func(*api.DistributionConfig) error{
		checkUnsupported, checkGeneral, s.checkOrigins, checkGroups, checkErrors, checkGeo,
	} {
		if err := check(c); err != nil {
			return nil, err
		}
	}
	if err := s.checkLogBucket(id, c.Logging); err != nil {
		return nil, err
	}
	if err := s.checkAliases(c, func(other string) bool { return other == id }); err != nil {
		return nil, err
	}
	if len(c.CacheBehaviors.Items) > maxBehaviours {
		return nil, api.NewTooManyCacheBehaviors("You cannot create more cache behaviors for the distribution: it has at most %d.", maxBehaviours)
	}
	patterns := map[string]bool{}
	for _, b := range c.CacheBehaviors.Items {
		if err := checkPattern(*b.PathPattern); err != nil {
			return nil, err
		}
		pattern := strings.TrimPrefix(*b.PathPattern, "/")
		if patterns[pattern] {
			return nil, api.NewInvalidArgument("The parameter PathPattern %s is that of more than one cache behavior.", *b.PathPattern)
		}
		patterns[pattern] = true
	}
	for _, b := range behaviours(c) {
		if err := s.checkBehaviour(c, b); err != nil {
			return nil, err
		}
	}
	return s.checkLambda(ctx, id, c)
}

// checkUnsupported refuses what Lapwing does not do.
func checkUnsupported(c *api.DistributionConfig) error {
	for _, option := range []struct {
		what  string
		asked bool
	}{
		{"Continuous deployment (Staging)", *c.Staging},
		{"Continuous deployment (ContinuousDeploymentPolicyId)", *c.ContinuousDeploymentPolicyId != ""},
		{"An Anycast static IP list (AnycastIpListId)", aws.Value(c.AnycastIpListId) != ""},
		{"Multi-tenant distributions (ConnectionMode)", c.ConnectionMode == api.ConnectionModeTenantOnly},
		{"Multi-tenant distributions (TenantConfig)", c.TenantConfig != nil},
		{"Mutual TLS with viewers (ViewerMtlsConfig)", c.ViewerMtlsConfig != nil},
		{"Connection functions (ConnectionFunctionAssociation)", c.ConnectionFunctionAssociation != nil},
		{"Invalidation by cache tags (CacheTagConfig)", c.CacheTagConfig != nil},
	} {
		if option.asked {
			return unsupported(option.what)
		}
	}
	if *c.WebACLId != "" {
		return api.NewInvalidWebACLId("AWS WAF web ACLs are not supported by Lapwing (WebACLId).")
	}
	return nil
}

func checkGeneral(c *api.DistributionConfig) error {
	switch root := *c.DefaultRootObject; {
	case len(*c.Comment) > 128:
		return api.NewInvalidArgument("The parameter Comment is too long: it has at most 128 characters.")
	case *c.CallerReference == "" || len(*c.CallerReference) > 128:
		return api.NewInvalidArgument("The parameter CallerReference is not valid: it has 1 to 128 characters.")
	case strings.HasPrefix(root, "/") || len(root) > 255 || !pathCharacters(root):
		return api.NewInvalidDefaultRootObject("The default root object file name is too big or contains an invalid character.")
	}
	l := c.Logging
	if *l.Enabled && s3Bucket(*l.Bucket) == "" {
		return api.NewInvalidArgument("The parameter Logging Bucket does not refer to a valid S3 bucket: it has the form mylogs.s3.amazonaws.com.")
	}
	if strings.HasPrefix(*l.Prefix, "/") || len(*l.Prefix) > 256 {
		return api.NewInvalidArgument("The parameter Logging Prefix is not valid: it does not begin with a slash and has at most 256 characters.")
	}
	return nil
}

// checkLogBucket checks that there is the bucket that a distribution begins to log
// into. One that was deleted since keeps nobody from disabling the distribution.
func (s *Service) checkLogBucket(id string, l *api.LoggingConfig) error {
	if !*l.Enabled {
		return nil
	}
	bucket := s3Bucket(*l.Bucket)
	if d, ok := s.distributions.find(id); ok {
		if before := d.Resource.Config.Logging; *before.Enabled && s3Bucket(*before.Bucket) == bucket {
			return nil
		}
	}
	if !s.opts.Buckets.HasBucket(bucket) {
		return api.NewInvalidArgument("The S3 bucket that you specified for CloudFront logs doesn't exist: %s", *l.Bucket)
	}
	return nil
}

// pathCharacters tells whether a string has only what may stand in a URL's path.
func pathCharacters(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"<>\^{|}`+"`#?", r) })
}

// relativePath tells whether a path is one on a server: URL-encoded, beginning
// with a slash.
func relativePath(s string, limit int) bool {
	return strings.HasPrefix(s, "/") && len(s) <= limit && pathCharacters(s)
}

var s3Name = regexp.MustCompile(`^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\.s3[.-]`)

// s3Bucket returns the bucket that a domain name is S3's for, or nothing.
func s3Bucket(domain string) string {
	if m := s3Name.FindStringSubmatch(strings.ToLower(domain)); m != nil {
		return m[1]
	}
	return ""
}

var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

func validHost(name string) bool { return len(name) <= 253 && hostName.MatchString(name) }

func (s *Service) checkOrigins(c *api.DistributionConfig) error {
	if len(c.Origins.Items) == 0 {
		return api.NewInvalidArgument("The parameter Origins must have at least one origin.")
	}
	if len(c.Origins.Items) > maxOrigins {
		return api.NewTooManyOrigins("You cannot create more origins for the distribution: it has at most %d.", maxOrigins)
	}
	ids := map[string]bool{}
	for _, o := range c.Origins.Items {
		if *o.Id == "" || len(*o.Id) > 128 || ids[*o.Id] {
			return api.NewInvalidArgument("The parameter Origin Id is not valid: it is empty, longer than 128 characters or there twice.")
		}
		ids[*o.Id] = true
		if err := s.checkOrigin(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) checkOrigin(o *api.Origin) error {
	if _, err := netip.ParseAddr(*o.DomainName); err == nil {
		return api.NewInvalidArgument("The parameter origin name cannot be an IP address.")
	}
	if !validHost(*o.DomainName) {
		return api.NewInvalidArgument("The parameter origin name must be a domain name.")
	}
	if p := *o.OriginPath; p != "" && (!relativePath(p, 255) || strings.HasSuffix(p, "/")) {
		return api.NewInvalidArgument("The parameter OriginPath is not valid: it begins with a slash and does not end with one.")
	}
	if n := *o.ConnectionAttempts; n < 1 || n > 3 {
		return api.NewInvalidArgument("The parameter ConnectionAttempts is not valid: it is 1 to 3.")
	}
	if n := *o.ConnectionTimeout; n < 1 || n > 10 {
		return api.NewInvalidArgument("The parameter ConnectionTimeout is not valid: it is 1 to 10 seconds.")
	}
	if err := checkShield(o.OriginShield); err != nil {
		return err
	}
	if err := checkOriginHeaders(o.CustomHeaders.Items); err != nil {
		return err
	}
	if err := s.checkOriginAccess(o); err != nil {
		return err
	}
	switch s3, custom := o.S3OriginConfig, o.CustomOriginConfig; {
	case o.VpcOriginConfig != nil:
		return unsupported("A VPC origin (VpcOriginConfig)")
	case (s3 == nil) == (custom == nil):
		return api.NewInvalidArgument("The parameter Origin must have exactly one of S3OriginConfig, CustomOriginConfig and VpcOriginConfig.")
	case s3 != nil:
		if s3Bucket(*o.DomainName) == "" {
			return api.NewInvalidArgument("The parameter Origin DomainName does not refer to a valid S3 bucket.")
		}
		return checkOriginTimeouts(o, s3.OriginReadTimeout, aws.Ptr[int32](defaultKeepaliveTimeout))
	default:
		return checkCustomOrigin(o, custom)
	}
}

// shieldRegions are the Regions that an origin shield can be in ("Choosing the AWS
// Region for Origin Shield").
var shieldRegions = []string{
	"us-east-2", "us-east-1", "us-west-2", "ap-south-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2", "ap-northeast-1",
	"eu-central-1", "eu-west-1", "eu-west-2", "sa-east-1", "me-central-1",
}

// checkShield checks an origin shield, which has a Region where it is enabled.
func checkShield(s *api.OriginShield) error {
	switch region := aws.Value(s.OriginShieldRegion); {
	case *s.Enabled && region == "":
		return api.NewInvalidArgument("The parameter OriginShieldRegion is required when OriginShield is enabled.")
	case region != "" && !slices.Contains(shieldRegions, region):
		return api.NewInvalidArgument("The parameter OriginShieldRegion is not valid: there is no Origin Shield in %s.", region)
	}
	return nil
}

func checkCustomOrigin(o *api.Origin, c *api.CustomOriginConfig) error {
	for parameter, port := range map[string]int32{"HTTPPort": *c.HTTPPort, "HTTPSPort": *c.HTTPSPort} {
		if port != 80 && port != 443 && (port < 1024 || port > 65535) {
			return api.NewInvalidArgument("The parameter %s is not valid: it is 80, 443 or 1024 to 65535.", parameter)
		}
	}
	if len(c.OriginSslProtocols.Items) == 0 {
		return api.NewInvalidArgument("The parameter OriginSslProtocols must have at least one protocol.")
	}
	if !slices.ContainsFunc(c.OriginSslProtocols.Items, func(p api.SslProtocol) bool { return p != api.SslProtocolSSLv3 }) {
		return unsupported("An origin that speaks nothing newer than SSLv3 (OriginSslProtocols)")
	}
	if c.OriginMtlsConfig != nil {
		return unsupported("Mutual TLS with origins (OriginMtlsConfig)")
	}
	if c.IpAddressType != "" && c.IpAddressType != api.IpAddressTypeIpv4 {
		return unsupported("An origin's IpAddressType other than ipv4")
	}
	return checkOriginTimeouts(o, c.OriginReadTimeout, c.OriginKeepaliveTimeout)
}

func checkOriginTimeouts(o *api.Origin, read, keepalive *int32) error {
	if *read < 1 || *read > 120 {
		return api.NewInvalidOriginReadTimeout("The read timeout specified for the origin is not valid: it is 1 to 120 seconds.")
	}
	if *keepalive < 1 || *keepalive > 120 {
		return api.NewInvalidOriginKeepaliveTimeout("The keep alive timeout specified for the origin is not valid: it is 1 to 120 seconds.")
	}
	if o.ResponseCompletionTimeout != nil && *o.ResponseCompletionTimeout < *read {
		return api.NewInvalidArgument("The parameter ResponseCompletionTimeout must not be less than the read timeout of the origin.")
	}
	return nil
}

// notToOrigins are headers that no origin gets by custom headers (CloudFront
// developer guide, "Custom headers that CloudFront can't add to origin requests").
var notToOrigins = []string{"cache-control", "connection", "content-length", "cookie", "host", "if-match", "if-modified-since", "if-none-match", "if-range",
	"if-unmodified-since", "max-forwards", "pragma", "proxy-authorization", "proxy-connection", "range", "request-range", "te", "trailer",
	"transfer-encoding", "upgrade", "via", "x-real-ip"}

func checkOriginHeaders(list []*api.OriginCustomHeader) error {
	if len(list) > maxOriginHeaders {
		return api.NewTooManyOriginCustomHeaders("Your request contains too many origin custom headers: an origin has at most %d.", maxOriginHeaders)
	}
	total, seen := 0, map[string]bool{}
	for _, h := range list {
		name := strings.ToLower(*h.HeaderName)
		if !validHeader(name) || slices.Contains(notToOrigins, name) || strings.HasPrefix(name, "x-amz-") || strings.HasPrefix(name, "x-edge-") {
			return api.NewInvalidArgument("The parameter HeaderName contains %s that is not allowed.", *h.HeaderName)
		}
		if seen[name] || len(*h.HeaderValue) > 1783 || strings.ContainsAny(*h.HeaderValue, "\r\n\x00") {
			return api.NewInvalidArgument("The parameter HeaderValue of %s is too long, contains invalid characters, or the header is there twice.", *h.HeaderName)
		}
		seen[name] = true
		total += len(name) + len(*h.HeaderValue)
	}
	if total > 10240 {
		return api.NewInvalidArgument("The parameter CustomHeaders is too long: names and values have at most 10,240 characters together.")
	}
	return nil
}

func (s *Service) checkOriginAccess(o *api.Origin) error {
	var identity string
	if o.S3OriginConfig != nil {
		identity = *o.S3OriginConfig.OriginAccessIdentity
	}
	if identity != "" {
		id, ok := strings.CutPrefix(identity, identityPrefix)
		if _, found := s.identities.find(id); !ok || !found {
			return api.NewInvalidOriginAccessIdentity("The origin access identity is not valid or doesn't exist.")
		}
	}
	if *o.OriginAccessControlId == "" {
		return nil
	}
	if identity != "" {
		return api.NewIllegalOriginAccessConfiguration("An origin cannot contain both an origin access control (OAC) and an origin access identity (OAI).")
	}
	a, ok := s.accessControls.find(*o.OriginAccessControlId)
	if !ok {
		return api.NewInvalidOriginAccessControl("The origin access control is not valid or doesn't exist: %s", *o.OriginAccessControlId)
	}
	if isS3 := a.Resource.OriginAccessControlOriginType == api.OriginAccessControlOriginTypesS3; isS3 != (o.S3OriginConfig != nil) {
		return api.NewInvalidDomainNameForOriginAccessControl("An origin access control is associated with an origin whose domain name is not supported.")
	}
	return nil
}

// checkGroups checks the origin groups.
func checkGroups(c *api.DistributionConfig) error {
	if len(c.OriginGroups.Items) > maxGroups {
		return api.NewTooManyOriginGroupsPerDistribution("Your request would cause you to exceed the maximum number of origin groups allowed: %d.", maxGroups)
	}
	origin := func(id string) bool {
		return usesOrigin(c, func(o *api.Origin) bool { return *o.Id == id })
	}
	seen := map[string]bool{}
	for _, g := range c.OriginGroups.Items {
		members, codes := g.Members.Items, g.FailoverCriteria.StatusCodes.Items
		switch {
		case *g.Id == "" || len(*g.Id) > 128 || seen[*g.Id] || origin(*g.Id):
			return api.NewInvalidArgument("The parameter OriginGroup Id is not valid: it is empty, longer than 128 characters or there twice.")
		case len(members) != 2:
			return api.NewInvalidArgument("The parameter OriginGroup Members must have exactly two origins.")
		case !origin(*members[0].OriginId) || !origin(*members[1].OriginId):
			return noSuchOrigin()
		case *members[0].OriginId == *members[1].OriginId:
			return api.NewInvalidArgument("The parameter OriginGroup Members must have two different origins.")
		case len(codes) == 0 || slices.ContainsFunc(codes, func(code int32) bool { return !slices.Contains(failoverCodes, code) }):
			return api.NewInvalidArgument("The parameter StatusCodes of the origin group is not valid.")
		case g.SelectionCriteria != api.OriginGroupSelectionCriteriaDefault:
			return unsupported("An origin group's SelectionCriteria media-quality-based")
		}
		seen[*g.Id] = true
	}
	return nil
}

// failoverCodes are the statuses that an origin group may fail over on, and
// errorCodes those that may have a page (CloudFront developer guide).
var (
	failoverCodes = []int32{400, 403, 404, 416, 429, 500, 502, 503, 504}
	errorCodes    = []int32{400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504}
)

func noSuchOrigin() error {
	return api.NewNoSuchOrigin("One or more of your origins or origin groups do not exist.")
}

// checkErrors checks the custom error responses.
func checkErrors(c *api.DistributionConfig) error {
	seen := map[int32]bool{}
	for _, e := range c.CustomErrorResponses.Items {
		if !slices.Contains(errorCodes, *e.ErrorCode) || seen[*e.ErrorCode] {
			return api.NewInvalidErrorCode("An invalid error code was specified: %d", *e.ErrorCode)
		}
		seen[*e.ErrorCode] = true
		if (*e.ResponsePagePath == "") != (*e.ResponseCode == "") {
			return api.NewInvalidArgument("The parameters ResponsePagePath and ResponseCode must both be there or both be empty.")
		}
		if *e.ResponsePagePath != "" && !relativePath(*e.ResponsePagePath, 4000) {
			return api.NewInvalidArgument("The parameter ResponsePagePath is not valid: it must begin with a slash and be URL-encoded.")
		}
		if code, err := strconv.ParseInt(*e.ResponseCode, 10, 32); *e.ResponseCode != "" && (err != nil || code != 200 && !slices.Contains(errorCodes, int32(code))) {
			return api.NewInvalidResponseCode("A response code is not valid: %s", *e.ResponseCode)
		}
		if *e.ErrorCachingMinTTL < 0 || *e.ErrorCachingMinTTL > maxTTL {
			return api.NewInvalidArgument("The parameter ErrorCachingMinTTL is out of range.")
		}
	}
	return nil
}

func checkGeo(c *api.DistributionConfig) error {
	g := c.Restrictions.GeoRestriction
	if none := g.RestrictionType == api.GeoRestrictionTypeNone; none != (len(g.Items) == 0) {
		return api.NewInvalidGeoRestrictionParameter("The specified geo restriction parameter is not valid: countries go with the types whitelist and blacklist.")
	}
	for _, country := range g.Items {
		if !isCountry(country) {
			return api.NewInvalidGeoRestrictionParameter("The specified geo restriction parameter is not valid: %s is no country.", country)
		}
	}
	return nil
}

// certificateNeeded is what CloudFront answers to an alias that no certificate
// covers.
const certificateNeeded = "To add an alternate domain name (CNAME) to a CloudFront distribution, you must attach a trusted certificate that validates your authorization to use the domain name."

// checkAliases checks aliases and the certificate that goes with them. mine tells
// whose aliases do not count as taken.
func (s *Service) checkAliases(c *api.DistributionConfig, mine func(id string) bool) error {
	if len(c.Aliases.Items) > maxAliases {
		return api.NewTooManyDistributionCNAMEs("Your request contains more CNAMEs than are allowed per distribution: %d.", maxAliases)
	}
	names, err := s.checkCertificate(c.ViewerCertificate)
	if err != nil {
		return err
	}
	for i, alias := range c.Aliases.Items {
		if !validHost(strings.TrimPrefix(alias, "*.")) || !strings.Contains(alias, ".") || slices.ContainsFunc(c.Aliases.Items[:i], func(a string) bool { return strings.EqualFold(a, alias) }) {
			return api.NewInvalidArgument("The parameter CNAME contains one or more parameters that are not valid.")
		}
		if !slices.ContainsFunc(names, func(name string) bool { return covers(name, alias) }) {
			return api.NewInvalidViewerCertificate(certificateNeeded)
		}
		for _, d := range s.distributions.all() {
			if !mine(d.ID) && slices.ContainsFunc(d.Resource.Config.Aliases.Items, func(a string) bool { return strings.EqualFold(a, alias) }) {
				return api.NewCNAMEAlreadyExists("One or more of the CNAMEs you provided are already associated with a different resource.")
			}
		}
	}
	return nil
}

// covers tells whether a certificate for name is one for an alias.
func covers(name, alias string) bool {
	name, alias = strings.ToLower(name), strings.ToLower(alias)
	if name == alias {
		return true
	}
	suffix, ok := strings.CutPrefix(name, "*.")
	_, rest, _ := strings.Cut(alias, ".")
	return ok && rest == suffix
}

// checkCertificate checks the viewer certificate and returns the names that it is
// for.
func (s *Service) checkCertificate(v *api.ViewerCertificate) ([]string, error) {
	if aws.Value(v.IAMCertificateId) != "" {
		return nil, api.NewInvalidViewerCertificate("Certificates of IAM are not supported by Lapwing: import the certificate into ACM.")
	}
	if *v.CloudFrontDefaultCertificate {
		return nil, nil
	}
	switch v.SSLSupportMethod {
	case api.SSLSupportMethodSniOnly:
	case "":
		return nil, api.NewInvalidViewerCertificate("The parameter SSLSupportMethod is required with a certificate of ACM.")
	default:
		return nil, api.NewInvalidViewerCertificate("Dedicated IP addresses are not supported by Lapwing: the SSL support method must be sni-only.")
	}
	if v.MinimumProtocolVersion == api.MinimumProtocolVersionSSLv3 {
		return nil, api.NewInvalidMinimumProtocolVersion("The minimum protocol version SSLv3 is not valid with the SSL support method sni-only.")
	}
	r, ok := s.records.Certificates.Get(*v.ACMCertificateArn)
	if !ok {
		return nil, api.NewInvalidViewerCertificate("The specified SSL certificate doesn't exist, isn't in us-east-1 region, isn't valid, or doesn't include a valid certificate chain.")
	}
	return r.Value.Names, nil
}
