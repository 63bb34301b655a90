package trigger

import (
	"encoding/json"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// originObject is an origin as functions see it: one of the two.
type originObject struct {
	Custom *customOrigin
	S3     *s3Origin
}

type customOrigin struct {
	CustomHeaders                 Header
	DomainName, Path, Protocol    string
	Port                          int
	ReadTimeout, KeepaliveTimeout int // seconds
	SSLProtocols                  []string
}

type s3Origin struct {
	CustomHeaders                        Header
	DomainName, Path, Region, AuthMethod string
}

// Ways of authentication to a bucket that the event knows; an origin access
// control does not show in it.
const (
	authIdentity = "origin-access-identity"
	authNone     = "none"
)

// shownOrigin returns an origin as functions see it. secure tells by what an
// origin of protocol match-viewer is asked.
func shownOrigin(o *distribution.Origin, secure bool) originObject {
	var h Header
	for _, f := range o.Header {
		h = append(h, Field{f.Name, f.Value})
	}
	if o.S3 {
		s := &s3Origin{CustomHeaders: h, DomainName: o.DomainName, Path: o.Path, Region: o.Region, AuthMethod: authNone}
		if o.AccessIdentity != "" {
			s.AuthMethod = authIdentity
		}
		if s.Region == "" {
			s.Region = bucketRegion(o.DomainName)
		}
		return originObject{S3: s}
	}
	c := &customOrigin{
		CustomHeaders: h, DomainName: o.DomainName, Path: o.Path, Protocol: "http", Port: o.HTTPPort,
		ReadTimeout: seconds(o.ReadTimeout), KeepaliveTimeout: seconds(o.KeepaliveTimeout), SSLProtocols: o.TLSProtocols,
	}
	if o.Protocol == "https-only" || o.Protocol == "match-viewer" && secure {
		c.Protocol, c.Port = "https", o.HTTPSPort
	}
	return originObject{Custom: c}
}

// bucketRegion returns the Region that the domain name of a bucket says, or the
// one of names that say none.
func bucketRegion(domain string) string {
	_, host, _ := strings.Cut(domain, ".s3")
	if region, _, ok := strings.Cut(strings.TrimLeft(host, ".-"), ".amazonaws."); ok && region != "" {
		return region
	}
	return "us-east-1"
}

// parseOrigin reads the origin of a function's result. It returns was where that
// is what it says, and a new origin otherwise.
func parseOrigin(raw json.RawMessage, was *distribution.Origin, secure bool, header Header) (*distribution.Origin, error) {
	shown := shownOrigin(was, secure)
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, invalidf(reasonOrigin, "the origin is not an object")
	}
	custom, s3 := members["custom"], members["s3"]
	if (custom == nil) == (s3 == nil) {
		return nil, invalidf(reasonOrigin, "the origin must be either custom or s3")
	}
	if custom != nil {
		var saw Header
		if shown.Custom != nil {
			saw = shown.Custom.CustomHeaders
		}
		c, err := parseCustom(custom, saw)
		if err != nil {
			return nil, err
		}
		if shown.Custom != nil && c.same(shown.Custom) {
			return was, nil
		}
		if err := c.check(shown.Custom, header); err != nil {
			return nil, err
		}
		return c.origin(was), nil
	}
	var saw Header
	if shown.S3 != nil {
		saw = shown.S3.CustomHeaders
	}
	s, err := parseS3(s3, saw)
	if err != nil {
		return nil, err
	}
	if shown.S3 != nil && reflect.DeepEqual(s, shown.S3) {
		return was, nil
	}
	if err := s.check(was, header); err != nil {
		return nil, err
	}
	return s.origin(was), nil
}

func (c *customOrigin) same(o *customOrigin) bool {
	a, b := *c, *o
	if !slices.Equal(a.SSLProtocols, b.SSLProtocols) {
		return false
	}
	a.SSLProtocols, b.SSLProtocols = nil, nil
	return reflect.DeepEqual(a, b)
}

func parseCustom(raw json.RawMessage, saw Header) (*customOrigin, error) {
	var in struct {
		CustomHeaders    json.RawMessage `json:"customHeaders"`
		DomainName       *string         `json:"domainName"`
		Path             *string         `json:"path"`
		Protocol         *string         `json:"protocol"`
		Port             *int            `json:"port"`
		ReadTimeout      *int            `json:"readTimeout"`
		KeepaliveTimeout *int            `json:"keepaliveTimeout"`
		SSLProtocols     []string        `json:"sslProtocols"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, invalidf(reasonOrigin, "the custom origin has a member of the wrong type: %v", err)
	}
	if in.DomainName == nil || in.Path == nil || in.Protocol == nil || in.Port == nil || in.ReadTimeout == nil || in.KeepaliveTimeout == nil || in.SSLProtocols == nil {
		return nil, invalidf(reasonOrigin, "a custom origin needs domainName, path, port, protocol, sslProtocols, readTimeout and keepaliveTimeout")
	}
	c := &customOrigin{
		DomainName: *in.DomainName, Path: *in.Path, Protocol: *in.Protocol, Port: *in.Port,
		ReadTimeout: *in.ReadTimeout, KeepaliveTimeout: *in.KeepaliveTimeout, SSLProtocols: in.SSLProtocols,
	}
	var err error
	c.CustomHeaders, err = parseHeader(in.CustomHeaders, saw)
	return c, err
}

func parseS3(raw json.RawMessage, saw Header) (*s3Origin, error) {
	var in struct {
		CustomHeaders json.RawMessage `json:"customHeaders"`
		DomainName    *string         `json:"domainName"`
		Path          *string         `json:"path"`
		Region        *string         `json:"region"`
		AuthMethod    *string         `json:"authMethod"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, invalidf(reasonOrigin, "the s3 origin has a member of the wrong type: %v", err)
	}
	if in.DomainName == nil || in.Path == nil || in.AuthMethod == nil {
		return nil, invalidf(reasonOrigin, "an s3 origin needs domainName, path and authMethod")
	}
	s := &s3Origin{DomainName: *in.DomainName, Path: *in.Path, AuthMethod: *in.AuthMethod}
	if in.Region != nil {
		s.Region = *in.Region
	}
	var err error
	s.CustomHeaders, err = parseHeader(in.CustomHeaders, saw)
	return s, err
}

// Limits of an origin that a function chooses (CloudFront developer guide,
// "Lambda@Edge event structure").
const (
	maxOriginPath   = 255
	maxCustomDomain = 253
	maxBucketDomain = 128
)

// check checks a custom origin. was is what the function saw, nil where that was
// a bucket: what it left alone may be outside of what functions may choose.
func (c *customOrigin) check(was *customOrigin, header Header) error {
	if was == nil {
		was = &customOrigin{}
	}
	switch {
	case c.DomainName != was.DomainName && !validDomain(c.DomainName, maxCustomDomain):
		return invalidf(reasonOrigin, "the domain name of the custom origin is invalid: %q", c.DomainName)
	case c.Protocol != "http" && c.Protocol != "https":
		return invalidf(reasonOrigin, "the protocol of the custom origin must be http or https, not %q", c.Protocol)
	case c.Port != was.Port && c.Port != 80 && c.Port != 443 && (c.Port < 1024 || c.Port > 65535):
		return invalidf(reasonOrigin, "the port of the custom origin must be 80, 443 or from 1024 to 65535, not %d", c.Port)
	case c.ReadTimeout != was.ReadTimeout && (c.ReadTimeout < 4 || c.ReadTimeout > 60):
		return invalidf(reasonOrigin, "the readTimeout of the custom origin must be from 4 to 60, not %d", c.ReadTimeout)
	case c.KeepaliveTimeout != was.KeepaliveTimeout && (c.KeepaliveTimeout < 1 || c.KeepaliveTimeout > 60):
		return invalidf(reasonOrigin, "the keepaliveTimeout of the custom origin must be from 1 to 60, not %d", c.KeepaliveTimeout)
	case len(c.SSLProtocols) == 0 && c.Protocol == "https":
		return invalidf(reasonOrigin, "the custom origin has no sslProtocols")
	}
	for _, p := range c.SSLProtocols {
		if !slices.Contains([]string{"SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2"}, p) && !slices.Contains(was.SSLProtocols, p) {
			return invalidf(reasonOrigin, "the custom origin has an invalid entry in sslProtocols: %q", p)
		}
	}
	if err := checkOriginPath(c.Path, was.Path); err != nil {
		return err
	}
	return checkCustomHeaders(c.CustomHeaders, was.CustomHeaders, header)
}

// bucketDomain is the domain name of a bucket, all lower case.
var bucketDomain = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*[a-z0-9]$`)

// check checks an S3 origin; was is the one that the request was about to go to.
func (s *s3Origin) check(was *distribution.Origin, header Header) error {
	shown := &s3Origin{}
	if was.S3 {
		shown = shownOrigin(was, false).S3
	}
	switch {
	case s.DomainName != shown.DomainName && (len(s.DomainName) > maxBucketDomain || !bucketDomain.MatchString(s.DomainName)):
		return invalidf(reasonOrigin, "the domain name of the s3 origin is invalid: %q", s.DomainName)
	case s.AuthMethod != authIdentity && s.AuthMethod != authNone:
		return invalidf(reasonOrigin, "the authMethod of the s3 origin must be origin-access-identity or none, not %q", s.AuthMethod)
	case s.AuthMethod == authIdentity && s.Region == "":
		return invalidf(reasonOrigin, "the s3 origin needs a region with authMethod origin-access-identity")
	case s.AuthMethod == authIdentity && was.AccessIdentity == "":
		return invalidf(reasonOrigin, "the s3 origin cannot have authMethod origin-access-identity: the origin of the distribution has none")
	}
	if err := checkOriginPath(s.Path, shown.Path); err != nil {
		return err
	}
	return checkCustomHeaders(s.CustomHeaders, shown.CustomHeaders, header)
}

// validDomain tells whether a function may choose an origin of this name: neither
// an address nor with a port.
func validDomain(name string, limit int) bool {
	return name != "" && len(name) <= limit && !strings.Contains(name, ":") && net.ParseIP(name) == nil && httpguts.ValidHostHeader(name) && !strings.ContainsAny(name, "/?#@[]%")
}

func checkOriginPath(path, was string) error {
	switch {
	case path == was || path == "":
		return nil
	case path[0] != '/' || strings.HasSuffix(path, "/") || len(path) > maxOriginPath || !plainURI(path) || strings.Contains(path, "?"):
		return invalidf(reasonOrigin, "the path of the origin must begin with a slash, not end with one, and have at most %d characters: %q", maxOriginPath, path)
	}
	return nil
}

// notCustom lists fields that cannot be custom headers of an origin, beside those
// that functions may not set at all ("Custom headers that CloudFront can't add to
// origin requests").
var notCustom = []string{
	"cache-control", "connection", "content-length", "cookie", "host", "if-match", "if-modified-since", "if-none-match",
	"if-range", "if-unmodified-since", "max-forwards", "pragma", "proxy-authorization", "proxy-connection", "range",
	"request-range", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-real-ip",
}

func checkCustomHeaders(h, was, request Header) error {
	for _, f := range h {
		name := lower(f.Name)
		switch {
		case h.same(name, was):
		case Hidden(name) || slices.Contains(notCustom, name) || strings.HasPrefix(name, "x-amz-"):
			return invalidf(reasonBlacklisted, "the function tried to add a blacklisted header to the origin's custom headers, headerName : %s", f.Name)
		case request.has(name):
			return invalidf(reasonOrigin, "a custom header of the origin is in the request's headers too, headerName : %s", f.Name)
		}
	}
	return nil
}

func fieldsOf(h Header) []distribution.HeaderValue {
	var fields []distribution.HeaderValue
	for _, f := range h {
		fields = append(fields, distribution.HeaderValue{Name: f.Name, Value: f.Value})
	}
	return fields
}

// origin returns the origin that a function chose instead of was, from which it
// has all that functions do not see.
func (c *customOrigin) origin(was *distribution.Origin) *distribution.Origin {
	o := *was
	if o.S3 {
		o.S3, o.AccessIdentity, o.AccessControl, o.Region = false, "", nil, ""
	}
	o.DomainName, o.Path, o.Header = c.DomainName, c.Path, fieldsOf(c.CustomHeaders)
	o.Protocol, o.HTTPPort, o.HTTPSPort = "http-only", c.Port, was.HTTPSPort
	if c.Protocol == "https" {
		o.Protocol, o.HTTPPort, o.HTTPSPort = "https-only", was.HTTPPort, c.Port
	}
	o.TLSProtocols = c.SSLProtocols
	o.ReadTimeout, o.KeepaliveTimeout = time.Duration(c.ReadTimeout)*time.Second, time.Duration(c.KeepaliveTimeout)*time.Second
	return &o
}

func (s *s3Origin) origin(was *distribution.Origin) *distribution.Origin {
	o := *was
	if !o.S3 {
		o.S3, o.AccessControl = true, nil
		o.Protocol, o.HTTPPort, o.HTTPSPort = "match-viewer", 80, 443
	}
	if s.AuthMethod == authNone {
		o.AccessIdentity = ""
	}
	o.DomainName, o.Path, o.Header, o.Region = s.DomainName, s.Path, fieldsOf(s.CustomHeaders), s.Region
	return &o
}
