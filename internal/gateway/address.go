package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

// awsDomains are the domains of AWS's own endpoints. Clients reach Lapwing by
// such names where a resolver or a proxy sends them here.
var awsDomains = []string{"amazonaws.com", "api.aws"}

// address is what the Host header says about where a request is going.
type address struct {
	service string // endpoint prefix, e.g. "lambda"; empty when the host names none
	bucket  string // of a virtual-host style S3 request
}

var regionLabel = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d$`)

// parseHost reads a host name. It is one of these, where the domain is one of
// ours and the region may be left out:
//
//	domain
//	service.region.domain            lambda.us-east-1.amazonaws.com
//	bucket.s3.region.domain          my.bucket.s3.localhost
//	bucket.domain                    my.bucket.localhost
//	account.cloudfront-kvs.global.api.aws
//
// An account's number alone before our domain says nothing: clients of CloudFront
// KeyValueStore put it there, and sign for that service.
//
// Names of function URLs are told apart before (see functionURLHost).
//
// The last is how SDKs address buckets when told an endpoint; only the
// credential scope (signedFor) tells it from a service's name.
func parseHost(host, signedFor string, domains []string, isService func(prefix string) bool) address {
	host = strings.TrimSuffix(strings.ToLower(hostname(host)), ".")
	var rest string
	found, ofAWS := false, false
	for _, d := range domains {
		if prefix, ok := strings.CutSuffix(host, d); ok && (prefix == "" || strings.HasSuffix(prefix, ".")) && (!found || len(prefix) < len(rest)) {
			found, rest = true, prefix
		}
	}
	for _, d := range awsDomains {
		if prefix, ok := strings.CutSuffix(host, "."+d); ok && !found {
			found, ofAWS, rest = true, true, prefix
		}
	}
	rest = strings.TrimSuffix(rest, ".")
	if !found || rest == "" {
		return address{}
	}

	service := rest
	if head, last := cutLast(service); regionLabel.MatchString(last) {
		service = head
	}
	if head, last := cutLast(service); last == "dualstack" {
		service = head
	}
	bucket, label := cutLast(service)
	switch {
	case ofAWS && strings.HasSuffix(service, ".cloudfront-kvs.global"):
		return address{service: keyValueStore}
	case label == "s3":
		return address{service: label, bucket: bucket}
	case signedFor == "s3" && !ofAWS:
		return address{service: signedFor, bucket: rest}
	case ofAWS || isService(label):
		return address{service: label}
	}
	return address{}
}

// cutLast cuts a name before its last label.
func cutLast(name string) (head, last string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

// hostname takes the port off a Host header.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// pathStyle returns r with the bucket of its host name put into its path, where
// the rest of the program looks for it. The signature covers the original.
func pathStyle(r *http.Request, bucket string) *http.Request {
	p := *r
	u := *r.URL
	p.URL = &u
	u.Path = "/" + bucket + u.Path
	if u.RawPath != "" {
		u.RawPath = "/" + bucket + u.RawPath
	}
	p.RequestURI = u.RequestURI()
	return &p
}

// sourceIP returns the address of the client.
func sourceIP(r *http.Request) string {
	if ip, _, ok := strings.Cut(r.RemoteAddr, ":"); ok && ip != "" && strings.Trim(ip, "0123456789.") == "" { // IPv4, as the server has written it
		return ip
	}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr().Unmap().String()
	}
	return r.RemoteAddr
}
